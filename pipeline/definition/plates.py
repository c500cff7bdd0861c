"""Programs inside the stages' images that a person uses outside of a run."""

from __future__ import annotations

import binascii
import json
import os
import shutil
import struct
import tempfile
import tomllib
import zlib
from pathlib import Path
from typing import Any

from builder import oci
from builder.sandbox.process import Mount, Process, Sandbox, run
from pipeline.errors import PipelineError


def _run(
    sandbox: Sandbox, image: oci.Image, module: str, arguments: list[str], *mounts: Mount
) -> tuple[int, str]:
    """Run `python3 -m module` in `image` as this user; return its exit code and what it printed."""
    process = Process(
        image=image, command=("python3", "-m", module, *arguments), mounts=mounts,
        user=f"{os.getuid()}:{os.getgid()}",
    )  # fmt: skip
    with tempfile.TemporaryFile() as output:
        ended = run(sandbox, process, output)
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    if ended.signal or ended.timed_out:
        raise PipelineError(f"{module} was {ended}: {text[-2000:]}")
    return ended.code, text


def _last_line(text: str) -> str:
    return (text.splitlines() or ["it printed nothing"])[-1]


def synthetic_plate(sandbox: Sandbox, image: oci.Image, folder: Path, seed: int = 0) -> Path:
    """Return a simulated plate in BBBC014's layout, drawn once a prepare image and seed.

    Raises PipelineError where they cannot be written.
    """
    plate = folder / f"synthetic-{seed}-{image.digest.removeprefix('sha256:')[:12]}"
    if plate.is_dir():
        return plate
    unfinished = plate.with_name(f".{plate.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        code, text = _run(
            sandbox, image, "prepare.synthetic", ["--out", "/plate", "--seed", str(seed)],
            Mount(unfinished, "/plate", writable=True),
        )  # fmt: skip
        if code:
            raise PipelineError(f"drawing a synthetic plate failed: {_last_line(text)}")
        unfinished.rename(plate)
    except OSError as error:
        raise PipelineError(f"cannot write {unfinished} ({error.strerror}); make room") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return plate


def layout_value(layout: str, plate: str) -> str:
    """Return what to hand to prepare for `layout`: a known name as it is, a TOML file's text.

    The file is looked for as it was typed, then in the plate's folder, so that every task means the
    same file by one name; the text makes a run depend on the content. Raises PipelineError for a
    file that is in neither place or is no TOML.
    """
    if not layout.endswith(".toml"):
        return layout
    places = [Path(layout), Path(plate, layout)] if plate else [Path(layout)]
    for path in places:
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                tomllib.loads(text)
            except OSError as error:
                raise PipelineError(f"cannot read the layout {path} ({error.strerror})") from None
            except ValueError as error:  # of TOML, or not UTF-8
                raise PipelineError(f"the layout {path} is not TOML ({error})") from None
            return text.rstrip("\n") + "\n"
    raise PipelineError(
        f"the layout {layout} is neither at {' nor at '.join(map(str, places))}; "
        "docs/layouts.md has examples"
    )


def listed_plates(plates: str) -> tuple[Path, str]:
    """Return the folder of this machine that stands for the claim of images, and `plates` in it.

    Of a list that is its own folder, of a pattern the folder before its first *. Raises
    PipelineError where there is none.
    """
    path = Path(plates)
    parts = path.parts
    first = next((n for n, part in enumerate(parts) if set(part) & set("*?[")), None)
    if first is None and not path.is_file():
        raise PipelineError(
            f"the list of plates {plates} is no file; name one, or quote a pattern of folders: "
            "--plates 'screen/P*'"
        )
    cut = len(parts) - 1 if first is None else first
    root = Path(*parts[:cut]) if cut else Path()
    if not root.is_dir():
        raise PipelineError(f"the folder {root} of --plates {plates} is not there; correct it")
    return root.resolve(), str(Path(*parts[cut:]))


def check_plate(sandbox: Sandbox, image: oci.Image, plate: Path, layout: str) -> dict[str, Any]:
    """Return what a layout makes of the folder `plate`: text, problems, notes, plate_digest.

    `layout` is the name of a known one or a TOML file; where it is empty, those that fit the names
    in the folder are looked for. Raises PipelineError for a folder that is not there and a layout
    that cannot be used.
    """
    if not plate.is_dir():
        raise PipelineError(f"the plate {plate} is not a folder; name the one with its images")
    mounts = [Mount(plate.resolve(), "/plate")]
    if layout.endswith(".toml"):
        layout_value(layout, str(plate))  # says what is wrong with the file before anything runs
        file = Path(layout) if Path(layout).is_file() else plate / layout
        inside = f"/tmp/{file.name}"  # noqa: S108 - its own name, for messages about it
        mounts.append(Mount(file.resolve(), inside))
        layout = inside
    code, text = _run(
        sandbox, image, "common.check", ["/plate", "--layout", layout, "--json"], *mounts
    )
    if code:
        raise PipelineError(_last_line(text))
    return dict(json.loads(_last_line(text)))


def example_tiles(sandbox: Sandbox, image: oci.Image, tiles: Path, folder: Path) -> dict[str, Path]:
    """Write one PNG tile of each class into `folder`; return class -> file."""
    code, text = _run(
        sandbox, image, "prepare.examples", ["--tiles", "/tiles", "--out", "/examples"],
        Mount(tiles, "/tiles"), Mount(folder, "/examples", writable=True),
    )  # fmt: skip
    if code:
        raise PipelineError(f"writing example tiles failed: {_last_line(text)}")
    return {name: folder / file for name, file in json.loads(_last_line(text)).items()}


def sample_tile(size: int = 256) -> bytes:
    """Return a PNG that a function takes as a tile: red 0, green a ring, blue a disc.

    Format: https://www.w3.org/TR/png-3/.
    """
    rows = bytearray()
    for y in range(size):
        rows.append(0)
        for x in range(size):
            away = ((x - size // 2) ** 2 + (y - size // 2) ** 2) ** 0.5 / (size / 2)
            rows += bytes((0, 40 + int(160 * (0.3 < away < 0.6)), 20 + int(200 * (away < 0.3))))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", binascii.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(rows)))
        + chunk(b"IEND", b"")
    )
