"""What the environment sets: OpenFaaS' names and durations, and where things are."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import StageError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
# Each text is matched in one way only: trying others takes a second for some thousand digits.
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_MOST_SECONDS = (2**63 - 1) / 1e9  # Go counts nanoseconds in 64 bits
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def duration(text: str) -> float:
    """Return the seconds of a Go duration (`1m30s`, `250ms`); a bare number is seconds.

    Format: https://pkg.go.dev/time#ParseDuration. Raises ValueError for anything else, also for
    negative durations.
    """
    text = text.strip()
    if re.fullmatch(r"\d+", text, re.ASCII):
        seconds = float(text)
    elif re.fullmatch(rf"\+?(?:{_PART})+", text, re.ASCII):
        parts = re.findall(_PART, text, re.ASCII)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise ValueError(f"{text!r} is no duration; write for example 30s, 1m30s or 500ms")
    if seconds > _MOST_SECONDS:
        raise ValueError(f"{text[:20]!r} is longer than 292 years, the longest duration")
    return seconds


def cores() -> int:
    """Return how many cores this process may use: its affinity, and its group's quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_MAX.read_text(encoding="ascii").split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no group, or the quota is "max"
        return allowed


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, 0 for none; sizes in bytes.

    `receipt_key` is the file of the key that signs receipts, which name the image as `image`.
    """

    models: Path = Path("/models")
    receipt_key: Path | None = None
    image: str = ""
    host: str = "0.0.0.0"  # noqa: S104 - a container's own address
    port: int = 8080
    metrics_port: int = 8081
    lock: Path = Path("/tmp/.lock")  # noqa: S108 - where OpenFaaS looks for it
    workers: int = 1
    intra_op_threads: int = 1
    max_inflight: int = 0
    max_body: int = 16 << 20
    max_bodies: int = 64 << 20
    max_pixels: int = 16_777_216
    exec_timeout: float = 30.0
    read_timeout: float = 30.0
    write_timeout: float = 30.0
    healthcheck_interval: float = 5.0

    @staticmethod
    def of(env: Mapping[str, str]) -> Settings:
        """Read the settings; raises StageError that names the variable that cannot be read."""
        found: dict[str, object] = {
            "models": Path(env.get("MODELS") or "/models"),
            "host": env.get("HOST") or "0.0.0.0",  # noqa: S104
            "receipt_key": Path(env["RECEIPT_KEY"]) if env.get("RECEIPT_KEY") else None,
            "image": env.get("PLATELINE_IMAGE", ""),
            "workers": cores(),
        }
        numbers = {"PORT": 1, "METRICS_PORT": 1, "workers": 1, "intra_op_threads": 1,
                   "max_inflight": 0, "max_body": 1, "max_bodies": 1, "max_pixels": 1}  # fmt: skip
        for name, least in numbers.items():
            if text := env.get(name):
                if not text.isdecimal() or int(text) < least:
                    raise StageError(f"{name}={text!r} is no whole number from {least} on")
                found[name.lower()] = int(text)
        for name in ("exec_timeout", "read_timeout", "write_timeout", "healthcheck_interval"):
            if text := env.get(name):
                try:
                    found[name] = duration(text)
                except ValueError as error:
                    raise StageError(f"{name}: {error}") from None
        settings = Settings(**found)  # type: ignore[arg-type]
        if settings.max_bodies < settings.max_body:
            raise StageError(
                f"max_bodies={settings.max_bodies} has no room for one body; set it to at least "
                f"max_body, {settings.max_body}"
            )
        return settings
