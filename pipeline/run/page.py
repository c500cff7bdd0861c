"""The page of a run: one HTML file without outside assets."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from pipeline.run.record import Result, Step
from pipeline.spec.values import text

_LOG = 64 * 1024  # bytes of a log's end that the page shows
_SMALL = 4 * 1024 * 1024  # larger reports and pictures are linked, not embedded
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_STYLE = """
:root{color-scheme:light dark;--line:#8885;--ok:#1a7f4b;--bad:#c0392b;--idle:#777}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem;
overflow-wrap:anywhere}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.3rem
.5rem;text-align:left;vertical-align:top}th{width:25%;min-width:6rem}.state{font-weight:600}
.succeeded,.cached{color:var(--ok)}.failed{color:var(--bad)}.skipped,.stopped,.waiting
{color:var(--idle)}pre{overflow:auto;max-height:24rem;border:1px solid var(--line);padding:.5rem;
font-size:12px}iframe{width:100%;height:32rem;border:1px solid var(--line);background:#fff}
img{max-width:100%;height:auto}ol.row{list-style:none;padding:0;margin:0;display:flex;
flex-wrap:wrap;gap:.6rem;justify-content:center}ol.row li{border:1px solid var(--line);
border-left:5px solid currentColor;border-radius:4px;padding:.4rem .7rem}ol.row a{color:inherit}
.arrow{text-align:center;opacity:.6}small{opacity:.75;display:block}.times{margin-top:1rem;
table-layout:fixed}.times th{width:40%;font-weight:400}.bar{display:block;height:.8rem;
background:currentColor;border-radius:2px}
"""


def document(result: Result) -> dict[str, Any]:
    """Return the run's facts as JSON-able data."""
    return {**asdict(result), "folder": str(result.folder), "page": str(result.page)}


def render(name: str, result: Result) -> str:
    """Return the page of `result`: graph, parameters, metrics, pictures, reports and logs."""
    steps = sorted(result.steps.values(), key=lambda step: (step.started or 1e12, step.name))
    parts = [
        f"<h1>{escape(name)}: <span class='state {result.state}'>{result.state}</span></h1>",
        f"<p>package {result.package_digest}, {result.seconds:.1f} s</p>",
        f"<p class=failed>{escape(result.error)}</p>" if result.error else "",
        "".join(f"<p>Note: {escape(note)}</p>" for note in result.notes),
        "<h2>Steps</h2>", _graph(steps), _times(steps),
        "<h2>Parameters</h2>", _table(dict(sorted(result.parameters.items()))),
        "<h2>Results of the steps</h2>", *(_step(result, step) for step in steps),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<link rel=icon href='data:,'><title>{escape(name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def levels(steps: Sequence[Step]) -> list[list[Step]]:
    """Return the steps in rows: each one stands below everything that it waited for.

    What a step waited for may be a whole part of the pipeline, which has its steps' names in front.
    """
    row: dict[str, int] = {}

    def level(step: Step) -> int:
        if step.name not in row:
            row[step.name] = 0  # a step never waits for itself
            before = [
                other for other in steps for name in step.after
                if other.name == name or other.name.startswith(f"{name}.")
            ]  # fmt: skip
            row[step.name] = 1 + max(map(level, before), default=-1)
        return row[step.name]

    rows: dict[int, list[Step]] = {}
    for step in steps:
        rows.setdefault(level(step), []).append(step)
    return [rows[key] for key in sorted(rows)]


def _graph(steps: Sequence[Step]) -> str:
    rows = ("<ol class=row>" + "".join(map(_node, row)) + "</ol>" for row in levels(steps))
    return "<div class=arrow aria-hidden=true>↓</div>".join(rows)


def _node(step: Step) -> str:
    name = escape(step.name)
    after = f"<small>after {escape(', '.join(step.after))}</small>" if step.after else ""
    return (
        f"<li class='{step.state}'><a href='#{name}'>{name}</a> "
        f"<span class=state>{step.state}</span> {step.seconds:.1f} s{after}</li>"
    )


def _times(steps: Sequence[Step]) -> str:
    """Return a bar for each step that ran: when it began, and how long it took."""
    ran = [step for step in steps if step.started]
    begin = min((step.started for step in ran), default=0.0)
    whole = max((step.started + step.seconds - begin for step in ran), default=0.0) or 1.0
    bars = "".join(
        f"<tr><th>{escape(step.name)}<td><span class='bar {step.state}' style='"
        f"margin-left:{(step.started - begin) / whole * 100:.2f}%;"
        f"width:{max(0.5, step.seconds / whole * 100):.2f}%' title='{step.seconds:.1f} s'></span>"
        for step in ran
    )
    return f"<table class=times>{bars}</table>" if bars else ""


def _table(facts: Any) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(key))}<td>{escape(text(value))}" for key, value in facts.items()
    )
    return f"<table>{rows}</table>" if rows else "<p>none</p>"


def _step(result: Result, step: Step) -> str:
    facts: dict[str, Any] = {"state": step.state, "image": step.image, **step.parameters}
    if step.max_rss:
        facts["peak memory"] = f"{step.max_rss / 2**20:.0f} MB"
    parts = [f"<h2 id='{escape(step.name)}'>{escape(step.name)}</h2>"]
    if step.error:
        parts.append(f"<p class=failed>{escape(step.error)}</p>")
    parts.append(f"<details><summary>inputs</summary>{_table(facts)}</details>")
    if step.outputs:
        parts.append("<h3>Outputs</h3>" + _table(step.outputs))
    for name, entries in step.artifacts.items():
        parts.extend(_artifact(result, name, entry) for entry in entries)
    log = result.folder / "steps" / step.name / "log.txt"
    if log.is_file():
        parts.append(f"<details><summary>log</summary><pre>{escape(_tail(log))}</pre></details>")
    return "".join(parts)


def _artifact(result: Result, name: str, entry: dict[str, Any]) -> str:
    path = result.path(entry["uri"])
    kind = entry.get("type", {}).get("schemaTitle", "")
    shown = f"<h3>{escape(name)} <small>{escape(kind)}</small></h3>"
    if entry.get("metadata"):
        shown += _table(entry["metadata"])
    if not path.exists() or path.is_symlink() or not path.is_relative_to(result.folder):
        return shown
    link = path.relative_to(result.folder).as_posix()
    shown += f"<p><a href='{escape(link)}'>{escape(link)}</a></p>"
    if path.is_dir():
        pictures = sorted(path.glob("*.png"))[:12]
        return shown + "".join(map(_picture, pictures))
    if path.stat().st_size > _SMALL:
        return shown
    if kind == "system.HTML":
        body = path.read_text(errors="replace")
        return shown + f"<iframe sandbox title='{escape(name)}' srcdoc='{escape(body)}'></iframe>"
    if kind == "system.Markdown":
        return shown + f"<pre>{escape(path.read_text(errors='replace'))}</pre>"
    return shown + _picture(path)


def _picture(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    kind = next((kind for magic, kind in _PICTURES.items() if start.startswith(magic)), None)
    if kind is None or path.stat().st_size > _SMALL:
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{escape(path.name)}' src='data:{kind};base64,{data}'>"


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _LOG))
        text = stream.read().decode(errors="replace")
    return text if size <= _LOG else f"… the last 64 KiB of {size} bytes\n{text}"
