"""What people call a step: `train (fold A-D)` for exit-handler-1.for-loop-2.0.train.

The compiler numbers loops, conditions and exit handlers; the names of the tasks are the author's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.spec.dependencies import way
from pipeline.spec.values import text

_LONGEST = 60  # letters; a loop's longer item is told by the number of its round


class Labels:
    """Names the steps of one run; the first that asks for a label keeps it, so each is unique."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._owner: dict[str, str] = {}

    def of(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Return the label of the step `name`, which was given `parameters` (none: not known yet).

        It is the task's name, and for each loop around it the input that takes the loop's item, or
        the number of the round, from 0. Where another step has that label, the groups around it are
        named too.
        """
        tasks = [task for _, task in way(self._spec, name)]
        if not tasks:
            return name
        own, *groups = [_title(task, key) for task, key in zip(tasks[::-1], _keys(name)[::-1],
                                                               strict=False)]  # fmt: skip
        rounds = ", ".join(_rounds(tasks, name, parameters))
        label = f"{own} ({rounds})" if rounds else own
        for wanted in (label, *(f"{label} in {group}" for group in groups)):
            if self._owner.setdefault(wanted, name) == name:
                return wanted
        return name


def _keys(name: str) -> list[str]:
    """Return the tasks' keys in a step's name, without the numbers of rounds."""
    return [part for part in name.split(".") if not part.isdecimal()]


def _title(task: Mapping[str, Any], key: str) -> str:
    return _plain(str(task.get("taskInfo", {}).get("name") or key)) or key


def _plain(words: str) -> str:
    """Return words without what could write anything on the terminal that shows them."""
    return "".join(letter for letter in words if letter.isprintable())[:_LONGEST]


def _rounds(
    tasks: list[Mapping[str, Any]], name: str, parameters: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what tells each loop's round, the outermost loop first."""
    numbers = [part for part in name.split(".") if part.isdecimal()]
    loops = [n for n, t in enumerate(tasks) if "parameterIterator" in t or "artifactIterator" in t]
    given = _items(tasks)
    for loop, number in zip(loops, numbers, strict=False):
        known = (
            (key, parameters[key]) for key, of in given.items() if of == loop and key in parameters
        )
        said = (
            f"{key} {text(value)}" for key, value in known if not isinstance(value, dict | list)
        )
        yield next((each for each in said if each == _plain(each)), f"round {number}")


def _items(tasks: list[Mapping[str, Any]]) -> dict[str, int]:
    """Return which input of the last task takes which loop's item: input -> index of the loop."""
    found = {}
    for key in tasks[-1].get("inputs", {}).get("parameters", {}) | _own_item(tasks[-1]):
        name = key
        for index in range(len(tasks) - 1, -1, -1):
            if name in _own_item(tasks[index]):
                found[key] = index
                break
            source = tasks[index].get("inputs", {}).get("parameters", {}).get(name, {})
            if "componentInputParameter" not in source:
                break
            name = source["componentInputParameter"]
    return found


def _own_item(task: Mapping[str, Any]) -> dict[str, None]:
    item = task.get("parameterIterator", {}).get("itemInput")
    return {item: None} if item else {}
