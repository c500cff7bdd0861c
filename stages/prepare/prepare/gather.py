"""Puts the plates of a run together: which are used, in which folds. `python3 -m prepare.gather`

It reads what each plate's step left on the workspace, and no picture.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common import digest, workspace
from common.errors import StageError
from common.many_plates import DOCUMENT, FORMAT, STATE, folder_of
from common.stage_io import StageIO, run_stage

from prepare.controls import handed

PLATE, HALF = "plate", "half"
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:1rem auto;padding:0 1rem}"


def gather(task: StageIO) -> None:
    """Write plates.json and a summary; put out the folds and the document's digest.

    Raises StageError where too few plates can be used, or what the workspace holds of one is not
    what its step handed on.
    """
    name = workspace.checked(task.parameter("workspace_name", str, ""))
    given = task.parameters().get("digests")
    if not isinstance(given, list) or not given:
        raise StageError("the parameter 'digests' is no list of what the plates' steps handed on")
    usable: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    for found in documents(name, given):
        (broken if found.get("problem") else usable).append(found)
    hold_out, most = task.parameter("hold_out", str, PLATE), task.parameter("most_folds", int, 5)
    folds = folds_of(usable, broken, hold_out, most)
    document = plates_document(name, hold_out, usable, broken, folds)
    try:
        folder = task.output("tiles")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")
        task.output("summary").write_text(summary_html(document), encoding="utf-8")
    except OSError as error:
        raise StageError(f"cannot write the plates: {error.strerror or error}; make room") from None
    task.set_parameter("folds", document["folds"])
    task.set_parameter("digest", digest.folder_digest(folder / DOCUMENT))
    print(f"gather: {len(usable)} plates can be used, {len(broken)} cannot", flush=True)
    for one in broken:
        print(f"gather: plate {one['plate']}: {one['problem']}", flush=True)


def documents(workspace_name: str, given: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield each plate's document with its name, or its name and why it cannot be used.

    `given` is what the plates' steps handed on, in the list's order. Raises StageError where the
    workspace holds something else.
    """
    first: dict[str, Any] = {}
    for text in map(str, given):
        found = _read(workspace_name, text.partition(" ")[0], text)
        if not found.get("problem"):
            if first and (problem := difference(first, found)):
                found = {"plate": found["plate"], "problem": problem}
            first = first or found
        yield found


def _read(workspace_name: str, plate: str, said: str) -> dict[str, Any]:
    """Return a plate's document with its name, or its problem."""
    folder = folder_of(workspace_name, plate)
    try:
        found = handed(folder, plate)
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if found == said and not state["problem"]:
            document = json.loads((folder / "plate.json").read_text(encoding="utf-8"))
            return {**document, "plate": plate, "digest": state["digest"]}
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"cannot read plate {plate} in {folder}: {error!r}; run again") from None
    if found != said:
        raise StageError(
            f"plate {plate} in {folder} is not what its step made, another run may have changed "
            "it; run again, or with a workspace_name of its own"
        )
    return {"plate": plate, "problem": state["problem"]}


def difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why a plate cannot be in one run with the first, or nothing.

    One model takes all plates' pictures alike: a channel that shows something else, or another
    depth of the samples, would give numbers that mean nothing.
    """
    ours, theirs = first["layout"], other["layout"]
    for key, words in (("channels", "channels"), ("bits", "bits a sample"), ("target", "size")):
        if ours.get(key) != theirs.get(key):
            return (
                f"its {words} are {theirs.get(key)}, and those of the first plate, "
                f"{first['plate']}, are {ours.get(key)}; give plates of one kind, or two lists"
            )
    return ""


def folds_of(
    usable: Sequence[Mapping[str, Any]], broken: Sequence[Mapping[str, Any]], hold_out: str,
    most: int,
) -> list[str]:  # fmt: skip
    """Return the fold of each usable plate; empty texts where each is in all of them, by halves.

    Plates that stand together in the list are held out together: they are often of one batch, and
    a model must be judged on another one.
    """
    if hold_out not in {PLATE, HALF}:
        raise StageError(f"hold_out is {hold_out!r}; give {PLATE} or {HALF}")
    least = 2 if hold_out == PLATE else 1
    if len(usable) < least:
        why = "; ".join(f"{one['plate']}: {one['problem']}" for one in broken[:5])
        raise StageError(
            f"{len(usable)} of {len(usable) + len(broken)} plates can be used, and hold_out = "
            f"{hold_out} needs {least} ({why or 'there are no others'})"
        )
    if hold_out == HALF:
        for one in usable[1:]:
            if one["folds"] != usable[0]["folds"]:
                raise StageError(
                    f"plate {one['plate']} has the folds {', '.join(one['folds'])}, and "
                    f"{usable[0]['plate']} has {', '.join(usable[0]['folds'])}; hold_out = half "
                    "needs the same ones, in the layouts"
                )
        return [""] * len(usable)
    if most < 2:
        raise StageError(f"most_folds is {most}; to judge on unseen plates it takes 2 at least")
    if len(usable) <= most:
        return [one["plate"] for one in usable]
    return [f"plates-{1 + place * most // len(usable)}" for place in range(len(usable))]


def plates_document(
    workspace_name: str, hold_out: str, usable: Sequence[Mapping[str, Any]],
    broken: Sequence[Mapping[str, Any]], folds: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return plates.json."""
    first = usable[0]
    return {
        "format": FORMAT, "workspace": workspace_name, "hold_out": hold_out,
        "folds": list(dict.fromkeys(folds)) if folds[0] else list(first["folds"]),
        "classes": first["classes"], "tile": first["tile"],
        "layout": {**first["layout"], "title": f"{len(usable)} plates"},
        "files": {
            "tiles.npy": digest.of_hashes({p["plate"]: p["files"]["tiles.npy"] for p in usable})
        },
        "wells": [
            {"well": f"{one['plate']}/{well['well']}", "flags": well["flags"]}
            for one in usable for well in one["wells"] if well["flags"]
        ],
        "plates": [
            {"plate": one["plate"], "digest": one["digest"], "fold": fold}
            for one, fold in zip(usable, folds, strict=True)
        ],
        "broken": list(broken),
    }  # fmt: skip


def summary_html(document: Mapping[str, Any]) -> str:
    """Return the page that says which plates are used, in which fold, and which are not."""
    broken = "".join(
        f"<tr><th scope=row>{html.escape(one['plate'])}<td>{html.escape(one['problem'])}"
        for one in document["broken"]
    )
    used = "".join(
        f"<tr><th scope=row>{html.escape(one['plate'])}<td>{html.escape(one['fold'] or 'each')}"
        for one in document["plates"]
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Plates</title>"
        f"<style>{_STYLE}</style><h1>{len(document['plates'])} plates are used, "
        f"{len(document['broken'])} cannot be</h1>"
        + (f"<table><tr><th>Plate<th>Why it cannot be used{broken}</table>" if broken else "")
        + f"<h2>Used</h2><table><tr><th>Plate<th>Held out in fold{used}</table>\n"
    )


if __name__ == "__main__":
    run_stage("prepare.gather", gather)
