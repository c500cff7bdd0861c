"""A command line in its common form, one task and its options, read without loading invoke.

Loading invoke takes longer than a task with nothing to do. What is not in the common form (several
tasks, help, the list, options of invoke itself, every mistake) is left to `cli.invocation`, which
reads the common form to the same values: a test compares the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from cli.command import Command, Groups, command_at, names

_KINDS = (bool, int, float, str)


def read(words: Sequence[str], groups: Groups) -> tuple[Command, dict[str, Any]] | None:
    """Return the task that `words` ask for and a value for each of its arguments.

    Returns None for words that are not in the common form.
    """
    tasks = names(groups)
    if not words or words[0] not in tasks or not tasks.keys().isdisjoint(words[1:]):
        return None
    command = command_at(tasks[words[0]])
    values = values_of(words[1:], command)
    return None if values is None else (command, values)


def values_of(words: Sequence[str], command: Command) -> dict[str, Any] | None:
    """Return the values that the words after a task's name give its arguments, or None.

    >>> def run(file: str = "a.yaml", jobs: int = 2) -> None: ...
    >>> values_of(["b.yaml", "--jobs=3"], Command(run, positional=["file"]))
    {'file': 'b.yaml', 'jobs': 3}
    """
    parameters = inspect.signature(command.body).parameters
    given = _given(words, command, parameters)
    if given is None:
        return None
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        found = given.get(name, [])
        if name == "remainder":
            values[name] = ""
        elif name in command.repeated:
            values[name] = found
        elif not found and parameter.default is not inspect.Parameter.empty:
            values[name] = parameter.default
        elif len(found) != 1:
            return None
        elif isinstance(found[0], str):
            try:
                values[name] = _kind(parameter)(found[0])
            except ValueError:
                return None
        else:
            values[name] = found[0]
    return values


def _given(
    words: Sequence[str], command: Command, parameters: Mapping[str, inspect.Parameter]
) -> dict[str, list[str | bool]] | None:
    """Return what each argument is given, in order, or None for what is not in the common form."""
    options = _options(command, parameters)
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in command.repeated
    ]
    # Before the first option a word without a name is for these; then for what is required.
    unnamed = [name for name in command.positional if name not in required]
    given: dict[str, list[str | bool]] = {}
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            waiting = [*unnamed, *(name for name in required if name not in given)]
            if not waiting:
                return None
            given.setdefault(waiting[0], []).append(word)
            unnamed = unnamed[1:]
            continue
        unnamed = []
        if option not in options:
            return None
        name = options[option]
        if _kind(parameters[name]) is bool:
            if equals:
                return None
            given.setdefault(name, []).append(True)
        else:
            found = value if equals else next(left, "-")
            if found.startswith("-"):
                return None
            given.setdefault(name, []).append(found)
    return given


def _options(command: Command, parameters: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    """Return option -> argument, none where a task has an argument that the common form lacks."""
    for name, parameter in parameters.items():
        if len(name) == 1 or name.startswith("_") or parameter.default is True:
            return {}
        if name in command.repeated:
            if parameter.default not in ([], inspect.Parameter.empty):
                return {}
        elif _kind(parameter) not in _KINDS:
            return {}
    return {f"--{name.replace('_', '-')}": name for name in parameters if name != "remainder"}


def _kind(parameter: inspect.Parameter) -> Any:
    """Return what makes a value of a word: invoke goes by the type of the default."""
    default = parameter.default
    return str if default in (None, inspect.Parameter.empty) else type(default)
