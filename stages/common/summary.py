"""The exit task: says how the run ended. `python3 -m common.summary --executor-input …`

KFP hands dsl.PipelineTaskFinalStatus over as a struct parameter: state (COMPLETE or FAILED),
pipelineJobResourceName, pipelineTaskName, error - which its driver leaves empty (2.17). No artifact
of the run can be handed to an exit task: what the run was asked for comes as parameters, and where
the rest stands is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .stage_io import StageIO, run_stage


def final_status(parameters: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name and value of the parameter that holds the final status ('' without one)."""
    for name, value in parameters.items():
        document = value
        if isinstance(value, str) and value.startswith("{"):
            try:
                document = json.loads(value)
            except ValueError:
                continue
        if isinstance(document, Mapping) and "state" in document:
            return name, document
    return "", {}


_WORDS = {"COMPLETE": "complete", "SUCCEEDED": "complete"}
_WHERE = {
    "COMPLETE": "Every step that was due has run. The measures are in validate's metrics and "
    "report; the image's digest is package's output. Where package did not run, a model was below "
    "f1_threshold and on_reject was skip.",
    "FAILED": "The backend does not say which step failed: it is the one marked as failed in the "
    "run's graph, and its log's last line gives the reason. A step `reject` that failed means that "
    "a model was below f1_threshold; see validate's report.",
}


def describe(parameters: Mapping[str, Any]) -> str:
    """Return the run's end as Markdown."""
    name, status = final_status(parameters)
    state = str(status.get("state", "unknown"))
    lines = [f"# Run {_WORDS.get(state, state.lower())}", ""]
    lines += [_WHERE[state], ""] if state in _WHERE else []
    if status.get("pipelineJobResourceName"):
        lines.append(f"- run: `{status['pipelineJobResourceName']}`")
    if status.get("pipelineTaskName"):
        lines.append(f"- task: `{status['pipelineTaskName']}`")
    error = status.get("error") or {}
    if error.get("message"):
        lines.append(f"- error {error.get('code', '')}: {error['message']}")
    lines += [f"- {key}: `{value}`" for key, value in sorted(parameters.items()) if key != name]
    return "\n".join(lines) + "\n"


def summarise(task: StageIO) -> None:
    """Print the end of the run and write it to the output artifact `summary`."""
    text = describe(task.parameters())
    print(text, flush=True)
    task.output("summary").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage("common.summary", summarise)
