"""The placeholders of a package, `{{$…}}`: one grammar, and what takes their place.

    {{$}}                                     the whole executor input, as JSON
    {{$.json_escape[1]}}                      the same, escaped for use inside a JSON string
    {{$.outputs.output_file}}                 where the executor output is written
    {{$.pipeline_job_name}} and their like    a fact of the run or of the task
    {{$.inputs.parameters['n']}}              a value; also .outputs, .artifacts, .path, .uri,
    {{$.inputs.artifacts['n'].metadata['k']}}  .output_file and .metadata

Sources: sdk/python/kfp/dsl/placeholders.py, backend/src/v2/driver/resolve.go (constants) and
backend/src/v2/{driver/util.go,component/launcher_v2.go} (arguments) of kubeflow/pipelines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import PipelineError
from pipeline.spec.documents import load_json
from pipeline.spec.values import argument, text

WHOLE, ESCAPED, OUTPUT_FILE = "", "json_escape[1]", "outputs.output_file"
_ANY = re.compile(r"\{\{\$(?:\.(?P<path>[^}]+?))?\}\}")
_PART = re.compile(
    r"(inputs|outputs)\.(parameters|artifacts)\[(['\"])(.+?)\3\](?:\.(\w+))?(?:\[(['\"])(.+?)\6\])?"
)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One placeholder: `path` is what stands after `{{$.`.

    Where it names an input or output, `side` is inputs or outputs, `kind` parameters or artifacts,
    and `field` and `key` what of it; otherwise these are empty.
    """

    text: str
    path: str
    side: str = ""
    kind: str = ""
    name: str = ""
    field: str = ""
    key: str = ""


def _of(match: re.Match[str]) -> Placeholder:
    path = match["path"] or ""
    part = _PART.fullmatch(path)
    if part is None:
        return Placeholder(match[0], path)
    side, kind, _, name, field, _, key = part.groups()
    return Placeholder(match[0], path, side, kind, name, field or "", key or "")


def find(string: str) -> Iterator[Placeholder]:
    """Yield the placeholders of a string in their order."""
    return map(_of, _ANY.finditer(string))


def of_task(facts: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the facts of a run and of its task; `name` is dotted: what the task is nested in."""
    task = {"pipeline_task_name": name.rpartition(".")[2], "pipeline_task_uuid": name}
    return {**facts, **task}


def filled(
    value: Any, parameters: Mapping[str, Any], facts: Mapping[str, str] | None = None
) -> Any:
    """Return a constant with the placeholders in its strings replaced: `"to {text}"`, `[output]`.

    A string that is one placeholder and nothing else takes the value with its type; others stay.
    Raises PipelineError for a parameter without a value.
    """

    def one(found: Placeholder) -> Any:
        if (found.side, found.kind) == ("inputs", "parameters"):
            if found.name not in parameters:
                raise PipelineError(
                    f"{found.text} has no value; give the input {found.name!r} one, or a default"
                )
            return parameters[found.name]
        return (facts or {}).get(found.path, found.text)

    if isinstance(value, str):
        if match := _ANY.fullmatch(value):
            return one(_of(match))
        return _ANY.sub(lambda match: text(one(_of(match))), value)
    if isinstance(value, list):
        return [filled(item, parameters, facts) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, parameters, facts) for key, item in value.items()}
    return value


def substitute(
    words: Sequence[str], executor_input: Mapping[str, Any], facts: Mapping[str, str]
) -> list[str]:
    """Return a container's `words` with placeholders replaced; absent optional parts vanish.

    The driver fills in parameters, but not in a word that names an output: there the launcher does,
    which writes numbers otherwise (resolveContainerArgs of backend/src/v2/driver/util.go, 2.17).
    Raises PipelineError for a placeholder of an input or output that is not there.
    """
    found: list[str] = []
    for word in words:
        fill = partial(_filled, executor_input, facts, text if "$.outputs" in word else argument)
        written = structure(word)
        expanded = word if written is None else _expand(written, executor_input)
        parts = expanded if isinstance(expanded, list) else [expanded]
        found += [_ANY.sub(fill, str(part)) for part in parts]
    return found


def structure(word: str) -> Any:
    """Return the Concat or IfPresent of the SDK that a word is; None where it is none."""
    if not word.startswith(('{"Concat"', '{"IfPresent"')):
        return None
    try:
        return load_json(word, "an argument")
    except PipelineError:
        return None  # it only begins like one


def _expand(node: Any, executor_input: Mapping[str, Any]) -> Any:
    if isinstance(node, dict) and "Concat" in node:
        return "".join(str(_expand(part, executor_input)) for part in node["Concat"])
    if isinstance(node, dict) and "IfPresent" in node:
        inner, inputs = node["IfPresent"], executor_input["inputs"]
        name = inner["InputName"]
        there = name in inputs["parameterValues"] or name in inputs["artifacts"]
        return _expand(inner["Then"] if there else inner.get("Else", []), executor_input)
    if isinstance(node, list):
        return [_expand(part, executor_input) for part in node]
    return node


def _filled(
    executor_input: Mapping[str, Any], facts: Mapping[str, str], write: Callable[[Any], str],
    match: re.Match[str],
) -> str:  # fmt: skip
    """Return what takes the place of a placeholder; `write` makes text of a parameter."""
    found = _of(match)
    getters: dict[str, Callable[[], str]] = {
        # Keys sorted, as protobuf writes maps: what a step is handed has one form.
        WHOLE: lambda: json.dumps(executor_input, sort_keys=True),
        ESCAPED: lambda: json.dumps(json.dumps(executor_input, sort_keys=True))[1:-1],
        OUTPUT_FILE: lambda: str(executor_input["outputs"]["outputFile"]),
    }
    if found.path in getters:
        return getters[found.path]()
    if not found.side:
        return facts.get(found.path, found.text)
    try:
        if found.kind == "parameters":
            if found.side == "inputs":
                return write(executor_input["inputs"]["parameterValues"][found.name])
            return str(executor_input["outputs"]["parameters"][found.name]["outputFile"])
        artifact = executor_input[found.side]["artifacts"][found.name]["artifacts"][0]
        if found.field in ("path", "uri"):
            return str(artifact["uri"])
        if found.field == "metadata":
            metadata = artifact["metadata"]
            return text(metadata[found.key]) if found.key else json.dumps(metadata, sort_keys=True)
        return text(artifact.get(found.field, "")) if found.field else found.text
    except (KeyError, IndexError):
        raise PipelineError(
            f"the placeholder {found.text} has no value; give it one, or take it out"
        ) from None
