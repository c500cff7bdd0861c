"""Commands as invoke's tasks: arguments, help, errors, exit codes, and the list by groups."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import invoke
from invoke import Collection, Context, Task

from cli.command import Command, Groups, command_at, names
from cli.output import ended, unread


def collection(groups: Groups) -> Collection:
    """Return the tasks of all groups as invoke wants them."""
    found = Collection()
    for command in _commands(groups).values():
        found.add_task(as_task(command))
    return found


def _commands(groups: Groups) -> dict[str, Command]:
    return {name: command_at(place) for name, place in names(groups).items()}


def as_task(command: Command) -> Task[Any]:
    """Return a command as a task of invoke, which hands its Context to every body."""
    signature = inspect.signature(command.body)
    name = command.body.__name__.replace("_", "-")

    @functools.wraps(command.body)
    def run(_invoke: Context, /, *arguments: Any, **options: Any) -> None:
        if "remainder" in signature.parameters:
            options["remainder"] = _invoke.remainder
        ended(functools.partial(command.body, *arguments, **options), bool(options.get("json")))

    shown = [p for p in signature.parameters.values() if p.name != "remainder"]
    first = inspect.Parameter("_invoke", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = signature.replace(parameters=[first, *shown])  # type: ignore[attr-defined]
    return Task(
        run,
        name=name,
        positional=[p.name for p in shown if p.default is inspect.Parameter.empty],
        iterable=list(command.repeated),
        help=dict(command.help),
        # The first letters of options would mean another thing in every task.
        auto_shortflags=False,
    )


class Program(invoke.Program):
    """`./invoke`: lists the tasks by groups, and takes optional arguments without their name."""

    def __init__(self, groups: Groups) -> None:
        super().__init__(
            name="plateline", binary="./invoke", binary_names=["invoke"],
            namespace=collection(groups), version="0.1.0",
        )  # fmt: skip
        self._groups = groups
        self._commands = _commands(groups)

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:  # noqa: A002 - invoke's
        """Run what the command line asks for; a reader that goes away ends it quietly."""
        try:
            super().run(argv, exit)
            sys.stdout.flush()
        except BrokenPipeError:
            unread()

    def parse_core(self, argv: list[str] | None) -> None:
        """Read invoke's own options, and let Python keep byte-code as in any other program."""
        keeps = sys.dont_write_bytecode
        super().parse_core(argv)
        sys.dont_write_bytecode = keeps

    def parse_tasks(self) -> None:
        """Take the command line apart; exits with 1 and one message where it cannot be."""
        try:
            super().parse_tasks()
        except ValueError as error:
            message = f"an option wants a number ({error})"
        except invoke.exceptions.ParseError as error:
            message = str(error).rstrip("!") + _nearest(
                str(error), _words(self._commands, self.argv)
            )
        else:
            return
        print(f"error: {message}; see ./invoke --list and ./invoke --help TASK", file=sys.stderr)
        raise SystemExit(1)

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Write what invoke's parser would not understand in the form that it does."""
        super().normalize_argv(argv)
        if task := explained(self.argv, self._commands):
            self.argv = [self.argv[0], "--help", task]
        else:
            self.argv = with_names(self.argv, self._commands)

    def list_flat(self) -> None:
        """Print the tasks under what one does with them."""
        print("Usage: ./invoke TASK [--options]; ./invoke --help TASK explains one\n")
        width = max(len(name) for name in self._commands)
        for title, places in self._groups.items():
            print(title)
            for name in names({title: places}):
                summary = (inspect.getdoc(self._commands[name].body) or "").partition("\n")[0]
                print(f"  {name.ljust(width)}  {summary}")
            print()


def _words(commands: Mapping[str, Command], words: Sequence[str]) -> list[str]:
    """Return what may stand on a command line: tasks, and options of those that `words` name."""
    named = [commands[word] for word in words if word in commands] or commands.values()
    options = {p for c in named for p in inspect.signature(c.body).parameters}
    return [*commands, *(f"--{option.replace('_', '-')}" for option in options)]


def _nearest(message: str, words: Sequence[str]) -> str:
    """Return a suggestion for the word that a message quotes, or nothing."""
    quoted = message.split("'")[1] if message.count("'") > 1 else ""
    close = [] if quoted in words else difflib.get_close_matches(quoted, words, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def explained(words: Sequence[str], commands: Mapping[str, Command]) -> str:
    """Return the task that `words` ask to explain, or "".

    invoke takes the `--help` behind a task that requires arguments for the first of them.

    >>> explained(["./invoke", "diff", "--help"], {"diff": Command(print)})
    'diff'
    """
    task = ""
    for word in itertools.takewhile("--".__ne__, words):
        if task and word in ("--help", "-h"):
            return task
        task = word if word in commands else task
    return ""


def with_names(words: Sequence[str], commands: Mapping[str, Command]) -> list[str]:
    """Return `words` with the names of optional positional arguments added.

    What stands after `--` is for another program; it is quoted, since invoke joins it by blanks.

    >>> def run(file: str = "a.yaml") -> None: ...
    >>> with_names(["./invoke", "run", "b.yaml"], {"run": Command(run, positional=["file"])})
    ['./invoke', 'run', '--file', 'b.yaml']
    """
    found: list[str] = []
    waiting: list[str] = []
    end = words.index("--") if "--" in words else len(words)
    for word in words[:end]:
        if word in commands:
            parameters = inspect.signature(commands[word].body).parameters
            waiting = [
                name
                for name in commands[word].positional
                if parameters[name].default is not inspect.Parameter.empty
            ]
        elif word.startswith("-"):
            waiting = []
        elif waiting:
            found.append(f"--{waiting.pop(0).replace('_', '-')}")
        found.append(word)
    return [*found, *words[end : end + 1], *map(shlex.quote, words[end + 1 :])]
