"""Locks of packages that nobody ever publishes, for workspaces of tests."""

from __future__ import annotations

from pathlib import Path

from builder.packages import lock_file

WHEEL = "{} --hash=sha256:{}  # {} bytes\n"


def lock(folder: Path, wanted: str, name: str, lines: str) -> None:
    (folder / wanted).touch()
    made = f"# made from {wanted} {lock_file.in_hash(folder, wanted)}\n"
    (folder / name).write_text(made + lines)


def wheels(root: Path, *pins: str) -> None:
    lines = [WHEEL.format(pin, digit * 64, 10) for pin, digit in zip(pins, "cde", strict=False)]
    lock(root / "stages/b", "requirements.in", "requirements.linux-amd64.lock", "".join(lines))


def debs(root: Path, *pins: str) -> None:
    lines = [f"{pin} pool/x_1_amd64.deb 10 {'d' * 64}\n" for pin in pins]
    lock(root / "stages/a", "debian.in", "debian.lock", "".join(lines))
