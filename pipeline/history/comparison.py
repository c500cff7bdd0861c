"""Two runs side by side: what differs, and what on the way to a number could have moved it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.history import reading
from pipeline.run.record import Result, Step

_FILLED_IN = {"package_digest"}  # by `run`: it is the package's own digest, shown by itself


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs, each as name -> (there, here); None where one has it not.

    `wells` are calls that changed. `causes` says for each step that made other numbers what
    differs on the way to it, the earliest first.
    """

    package: tuple[str, str] | None
    parameters: Mapping[str, tuple[Any, Any]]
    images: Mapping[str, tuple[Any, Any]]
    states: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]
    wells: Mapping[str, tuple[str, str]]
    wells_of_both: int
    causes: Mapping[str, tuple[str, ...]]


def compare(one: Result, other: Result) -> Comparison:
    """Return what differs between two runs; raises PipelineError where results cannot be read."""
    metrics = differing(reading.metrics(one), reading.metrics(other))
    here, there = reading.wells(one), reading.wells(other)
    both = sorted(here.keys() & there.keys())
    changed = {
        " ".join(filter(None, key)): (
            f"{here[key].call} ({here[key].probability[:6]})",
            f"{there[key].call} ({there[key].probability[:6]})",
        )
        for key in both
        if here[key].call != there[key].call
    }
    moved = {name.partition(": ")[0] for name in metrics}
    steps = {step.title: name for name, step in one.steps.items()}
    causes = {
        title: causes_of(one, other, steps[title]) for title in sorted(moved) if title in steps
    }
    same = one.package_digest == other.package_digest
    return Comparison(
        package=None if same else (one.package_digest, other.package_digest),
        parameters=differing(asked(one), asked(other)),
        images=differing(*({s.title: s.image for s in r.steps.values()} for r in (one, other))),
        states=differing(*({s.title: _state(s) for s in r.steps.values()} for r in (one, other))),
        metrics=metrics, wells=changed, wells_of_both=len(both), causes=causes,
    )  # fmt: skip


def asked(run: Result) -> dict[str, Any]:
    """Return a run's parameters but those that `run` fills in."""
    return {key: value for key, value in run.parameters.items() if key not in _FILLED_IN}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two mappings do not hold alike, by name."""
    return {
        key: (one.get(key), other.get(key))
        for key in [*one, *(key for key in other if key not in one)]
        if one.get(key) != other.get(key)
    }


def causes_of(one: Result, other: Result, name: str) -> tuple[str, ...]:
    """Return what differs on the way to the step `name`, the earliest first.

    An input that an earlier step made is no cause by itself: that step's own differences are. A
    step with the same image and inputs that made something else is named: it reads what its inputs
    do not say, or is not deterministic.
    """
    found: list[str] = []
    for step_name in _before(one, name):
        step, there = one.steps[step_name], other.steps.get(step_name)
        if there is None:
            found.append(f"{step.title} is not in the other run")
            continue
        own = [] if step.image == there.image else [f"{step.title} ran in another image"]
        made = _made(one, step_name), _made(other, step_name)
        changed = differing(step.parameters, there.parameters)
        handed = {
            key for key, (a, b) in changed.items() if any(x == a and made[1].get(k) == b
                                                        for k, x in made[0].items())
        }  # fmt: skip
        own += [
            f"{step.title} was given {key} {_short(a)}, in the other run {_short(b)}"
            for key, (a, b) in changed.items()
            if key not in handed and key not in _FILLED_IN
        ]
        if not own and not handed and step.outputs != there.outputs:
            keys = ", ".join(differing(step.outputs, there.outputs))
            own.append(
                f"{step.title} made another {keys} of the same inputs: what it reads from a claim "
                "differs, or it is not deterministic"
            )
        found += own
    return tuple(found)


def _before(run: Result, name: str) -> list[str]:
    """Return the step and all that it waited for, the earliest first."""
    order: dict[str, None] = {}
    begun: set[str] = set()

    def visit(step: str) -> None:
        if step in begun:
            return
        begun.add(step)
        for waited in run.steps[step].after:
            for other in run.steps:
                if other == waited or other.startswith(f"{waited}."):
                    visit(other)
        order[step] = None

    visit(name)
    return list(order)


def _made(run: Result, name: str) -> dict[str, Any]:
    """Return what the steps before `name` gave, lists of a loop's rounds too."""
    made: dict[str, Any] = {}
    rounds: dict[str, list[Any]] = {}
    for before in _before(run, name)[:-1]:
        for key, value in run.steps[before].outputs.items():
            made[f"{before} {key}"] = value
            base = ".".join(part for part in before.split(".") if not part.isdecimal())
            rounds.setdefault(f"{base} {key}", []).append(value)
    return {**made, **{f"all {key}": values for key, values in rounds.items()}}


def _state(step: Step) -> str:
    return "succeeded" if step.state == "cached" else step.state


def _short(value: Any) -> str:
    said = repr(value) if isinstance(value, str) else str(value)
    return said if len(said) <= 60 else f"{said[:60]}…"
