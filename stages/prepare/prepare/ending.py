"""The exit task of a run over many plates: how it ended, and which plates it could not use.

`python3 -m prepare.ending`. KFP hands no output of a step to an exit task, so it looks at the list
of plates and at what each plate's step left on the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator

from common import workspace
from common.errors import StageError
from common.many_plates import STATE, folder_of
from common.plate_list import read_plates
from common.stage_io import StageIO, run_stage
from common.summary import describe

from prepare.controls import handed
from prepare.gather import documents
from prepare.scan import images_root


def end(task: StageIO) -> None:
    """Print the end of the run and its broken plates; write both to the artifact `summary`."""
    text = "\n".join([describe(task.parameters()), *_plates(task), ""])
    print(text, flush=True)
    task.output("summary").write_text(text, encoding="utf-8")


def _plates(task: StageIO) -> Iterator[str]:
    """Yield lines of Markdown about the plates; what is wrong with list or workspace is one too."""
    yield "## Plates"
    yield ""
    try:
        name = workspace.checked(task.parameter("workspace_name", str, ""))
        listed = read_plates(
            images_root(), task.parameter("plates", str), task.parameter("plate_layout", str, "")
        )
        folders = {one.plate: folder_of(name, one.plate) for one in listed}
        given = [handed(f, p) for p, f in folders.items() if (f / STATE).is_file()]
        broken = {
            str(found["plate"]): str(found["problem"])
            for found in documents(name, given)
            if found.get("problem")
        }
    except StageError as error:
        yield f"They could not be looked up: {error}"
        return
    yield f"{len(broken)} of {len(folders)} plates could not be used" + (":" if broken else ".")
    yield ""
    for plate, problem in broken.items():
        yield f"- {plate}: {' '.join(problem.split())}"
    if unread := [plate for plate, folder in folders.items() if not (folder / STATE).is_file()]:
        yield f"- not reached before the run ended: {', '.join(unread)}"


if __name__ == "__main__":
    run_stage("prepare.ending", end)
