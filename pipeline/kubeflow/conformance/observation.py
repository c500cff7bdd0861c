"""What was seen of a run - states, values, artifacts - in one form for here and there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.kubeflow.conformance.suite.case import Case
from pipeline.kubeflow.server.steps import LOGS
from pipeline.run.record import DONE, Step
from pipeline.spec.values import whole

_NAMES_THE_RUN = {"pipelineJobResourceName"}  # in a final status
NONE = "-"


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact: its type, its metadata, and the digest of its content: "" where nothing is,
    None where it was not looked at."""

    kind: str
    metadata: Mapping[str, Any]
    content: str | None


@dataclass(frozen=True, slots=True)
class SeenStep:
    """A step: its state, the parameters that it was given and gave, and its artifacts by output."""

    state: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[Made, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """A run: its state and its steps; those that were skipped are left out.

    `complete` is false where only states are known. `outputs` are those of the whole pipeline,
    None where they are not known.
    """

    state: str
    steps: Mapping[str, SeenStep]
    complete: bool = True
    outputs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that was not the same: where, and what it was here and there."""

    where: str
    here: str
    there: str


def seen(step: Step, content: Callable[[str, Mapping[str, Any]], str | None]) -> SeenStep:
    """Return what counts of a step; `content` gives the digest of an artifact of the step."""
    return SeenStep(
        step.state, _plain(step.parameters), _plain(step.outputs),
        {
            name: tuple(
                Made(
                    str(entry.get("type", {}).get("schemaTitle", "")),
                    _plain(entry.get("metadata") or {}), content(step.name, entry),
                )
                for entry in entries
            )
            for name, entries in step.artifacts.items()
            if name != LOGS
        },
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a value without what names its run; -7.0 is -7, as a store of doubles has no other."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if k not in _NAMES_THE_RUN}
    return [_plain(item) for item in value] if isinstance(value, list) else whole(value)


def differences(here: Observation, there: Observation) -> list[Difference]:
    """Return all that was not the same; where `there` is not complete, only states count."""
    return list(_differences(here, there))


def _differences(here: Observation, there: Observation) -> Iterator[Difference]:
    if here.state != there.state:
        yield Difference("state of the run", here.state, there.state)
    if not there.complete:
        return
    for name in sorted({*here.steps, *there.steps}):
        ours, theirs = here.steps.get(name), there.steps.get(name)
        states = [step.state if step else "skipped" for step in (ours, theirs)]
        if states[0] != states[1]:
            yield Difference(f"state of {name}", *states)
        if ours is None or theirs is None:
            continue
        yield from _values(f"input of {name}", ours.inputs, theirs.inputs)
        if states[0] == states[1] and states[0] in DONE:
            yield from _values(f"output of {name}", ours.outputs, theirs.outputs)
            yield from _artifacts(name, ours.artifacts, theirs.artifacts)


def _values(where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    for key in sorted({*ours, *theirs}):
        texts = [_text(found[key]) if key in found else NONE for found in (ours, theirs)]
        if texts[0] != texts[1]:
            yield Difference(f"{where}: {key}", *texts)


def _artifacts(
    step: str, ours: Mapping[str, tuple[Made, ...]], theirs: Mapping[str, tuple[Made, ...]]
) -> Iterator[Difference]:
    for key in sorted({*ours, *theirs}):
        pair = ours.get(key, ()), theirs.get(key, ())
        where = f"artifact of {step}: {key}"
        if len(pair[0]) != len(pair[1]):
            yield Difference(where, f"{len(pair[0])} of them", f"{len(pair[1])} of them")
            continue
        for one, other in zip(*pair, strict=True):
            if one.kind != other.kind:
                yield Difference(f"{where}, type", one.kind, other.kind)
            yield from _values(f"{where}, metadata", one.metadata, other.metadata)
            if None not in (one.content, other.content) and one.content != other.content:
                shown = [(content or "")[:12] or NONE for content in (one.content, other.content)]
                yield Difference(f"{where}, content", *shown)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def unexpected(case: Case, found: Observation) -> list[Difference]:
    """Return what is not as the case says it must be: `here` is what must be, `there` what is."""
    made = []
    if found.state != case.state:
        made.append(Difference("state of the run", case.state, found.state))
    if found.outputs is not None:
        made += _values("output", case.outputs, found.outputs)
    ran = {_own(name): step for name, step in found.steps.items()}
    for name, words in case.said.items():
        told = str(ran[name].outputs.get("said", NONE)) if name in ran else NONE
        if words not in told:
            made.append(Difference(f"output of {name}: said", words, told))
    for name in {*case.states, *ran}:
        state = ran[name].state if name in ran else "skipped"
        wanted = case.states.get(name, "succeeded")
        if state != wanted:
            made.append(Difference(f"state of {name}", wanted, state))
    return sorted(made, key=lambda one: one.where)


def _own(name: str) -> str:
    """Return the name of a step's component: without what is around it and a number at its end."""
    own = name.rpartition(".")[2]
    begin, dash, number = own.rpartition("-")
    return begin if dash and number.isdigit() else own
