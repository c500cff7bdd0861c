"""The exit task: says how the run ended. `python3 -m common.summary --executor-input …`

KFP hands dsl.PipelineTaskFinalStatus over as a struct parameter: state,
pipelineJobResourceName, pipelineTaskName, error {code, message}.
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


def describe(parameters: Mapping[str, Any]) -> str:
    """Return the run's end as Markdown."""
    name, status = final_status(parameters)
    state = str(status.get("state", "unknown"))
    lines = [f"# Run {state.lower()}", ""]
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
    """Print the end of the run and write it to every output artifact."""
    text = describe(task.parameters())
    print(text, flush=True)
    for name in task.output_names():
        task.output(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage("common.summary", summarise)
