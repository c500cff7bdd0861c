"""The page of a run: one HTML file without outside assets (page.html.jinja)."""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import jinja2

from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.record import FORMAT, Result, Step
from pipeline.spec.values import text

_LOG = 64 * 1024  # bytes of a log's end that the page shows
_SMALL = 4 * 1024 * 1024  # larger reports and pictures are linked, not embedded
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_SHOWN = 12  # pictures of a folder


@dataclass(frozen=True, slots=True)
class Bar:
    """When a step ran: its begin and length, in percent of the whole run."""

    step: Step
    begin: float
    width: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data: URL."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What the page shows of an artifact; `link` is relative to the page."""

    name: str
    kind: str
    metadata: Mapping[str, Any]
    link: str = ""
    html: str = ""
    markdown: str = ""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows of a step."""

    step: Step
    inputs: Mapping[str, Any]
    artifacts: Sequence[Artifact]
    log: str
    log_link: str


def document(result: Result) -> dict[str, Any]:
    """Return the run's facts as JSON-able data: what run.json holds (`pipeline.run.record`)."""
    facts = {**asdict(result), "folder": str(result.folder), "page": str(result.page)}
    return {"format": FORMAT, **facts}


def render(result: Result) -> str:
    """Return the page of `result`: graph, parameters, metrics, pictures, reports and logs."""
    steps = sorted(result.steps.values(), key=lambda step: (step.started or 1e12, step.name))
    titles = {step.name: step.title for step in steps}
    return _template().render(
        result=result, rows=levels(steps), bars={bar.step.name: bar for bar in bars(steps)},
        failed=[step for step in steps if step.state == "failed"], titles=titles,
        parameters=dict(sorted(result.parameters.items())),
        steps=[_shown(result, step) for step in steps],
    )  # fmt: skip


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    environment.filters |= {"text": text, "memory": memory}
    return environment.get_template("page.html.jinja")


def levels(steps: Sequence[Step]) -> list[list[Step]]:
    """Return the steps in rows: each one stands below everything that it waited for.

    What a step waited for may be a whole part of the pipeline, which has its steps' names in front.
    """
    parts: dict[str, list[str]] = {}
    for step in steps:
        words = step.name.split(".")
        for depth in range(1, len(words) + 1):
            parts.setdefault(".".join(words[:depth]), []).append(step.name)
    before = {
        (step.name, "step"): [(n, "part") for n in step.after if n in parts] for step in steps
    }
    before |= {(name, "part"): [(n, "step") for n in inside] for name, inside in parts.items()}
    row: dict[tuple[str, str], int] = {}
    try:
        for node in TopologicalSorter(before).static_order():
            lowest = max((row[other] for other in before[node]), default=-1)
            row[node] = lowest + (node[1] == "step")
    except CycleError:  # a damaged record
        return [[step] for step in steps]
    rows: dict[int, list[Step]] = {}
    for step in steps:
        rows.setdefault(row[step.name, "step"], []).append(step)
    return [rows[key] for key in sorted(rows)]


def bars(steps: Sequence[Step]) -> list[Bar]:
    """Return a bar for each step that ran."""
    ran = [step for step in steps if step.started]
    begin = min((step.started for step in ran), default=0.0)
    whole = max((step.started + step.seconds - begin for step in ran), default=0.0) or 1.0
    return [
        Bar(step, (step.started - begin) / whole * 100, max(0.5, step.seconds / whole * 100))
        for step in ran
    ]


def memory(step: Step) -> str:
    """Return a step's peak memory in words; a dash where it was not seen."""
    return f"{step.max_rss / 1e9:.2f} GB" if step.max_rss else "–"


def _shown(result: Result, step: Step) -> Shown:
    inputs: dict[str, Any] = {"name": step.name, "image": step.image, **step.parameters}
    artifacts = [
        _artifact(result, step, name, entry)
        for name, entries in step.artifacts.items()
        for entry in entries
    ]
    try:
        path = places.step_folder(result.folder, step.name) / "log.txt"
        log, link = _tail(path), path.relative_to(result.folder).as_posix()
    except (OSError, PipelineError):  # it never began, or its name is not allowed
        log = link = ""
    return Shown(step, inputs, artifacts, log, link)


def _artifact(result: Result, step: Step, name: str, entry: Mapping[str, Any]) -> Artifact:
    """Return what to show of an artifact: files of the step's own folder only, no link followed."""
    kind = str(entry.get("type", {}).get("schemaTitle", ""))
    shown = Artifact(name=name, kind=kind, metadata=entry.get("metadata") or {})
    try:
        found = places.artifact(result.folder, entry["uri"])
        own = places.step_folder(result.folder, step.name) / "out"
        if found is None or found[0] != own or not beneath.kind(*found):
            return shown
        return _embedded(shown, result.folder, *found)
    except (OSError, PipelineError):
        return shown


def _embedded(shown: Artifact, folder: Path, root: Path, path: str) -> Artifact:
    facts: dict[str, Any] = asdict(shown)
    facts["link"] = (root / path).relative_to(folder).as_posix()
    if beneath.kind(root, path) == "folder":
        names = sorted(name for name in _names(root, path) if name.endswith(".png"))
        pictures = [_picture(root, f"{path}/{name}") for name in names[:_SHOWN]]
        return Artifact(**facts | {"pictures": [p for p in pictures if p]})
    data = _small(root, path)
    if data is None:
        return Artifact(**facts)
    if shown.kind == "system.HTML":
        return Artifact(**facts | {"html": data.decode(errors="replace")})
    if shown.kind == "system.Markdown":
        return Artifact(**facts | {"markdown": data.decode(errors="replace")})
    picture = _picture(root, path)
    return Artifact(**facts | {"pictures": [picture] if picture else []})


def _names(root: Path, path: str) -> list[str]:
    found = beneath.descriptor(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.listdir(found)  # noqa: PTH208 - pathlib lists no descriptor
    finally:
        os.close(found)


def _small(root: Path, path: str) -> bytes | None:
    """Return the content of a file, or None of one that is too large to embed."""
    with beneath.opened(root, path) as stream:
        data = stream.read(_SMALL + 1)
    return data if len(data) <= _SMALL else None


def _picture(root: Path, path: str) -> Picture | None:
    try:
        data = _small(root, path)
    except (OSError, PipelineError):
        return None
    kind = next((k for magic, k in _PICTURES.items() if data and data.startswith(magic)), None)
    if data is None or kind is None:
        return None
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(path.rpartition("/")[2], url)


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _LOG))
        text = stream.read().decode(errors="replace")
    return text if size <= _LOG else f"… the last 64 KiB of {size} bytes\n{text}"
