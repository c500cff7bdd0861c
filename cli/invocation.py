"""Commands as invoke's tasks: arguments, help, errors, exit codes, and the list by groups."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import invoke
from invoke import Collection, Context, Task

from builder.errors import BuilderError
from cli.command import Command
from cli.output import ROOT
from pipeline.errors import PipelineError

Groups = Mapping[str, Sequence[Command]]
# 128 + the number of the signal that ends a program: Ctrl-C, and a reader that went away.
_INTERRUPTED, _UNREAD = 130, 141


def collection(groups: Groups) -> Collection:
    """Return the tasks of all groups as invoke wants them."""
    found = Collection()
    for commands in groups.values():
        for command in commands:
            found.add_task(as_task(command))
    return found


def as_task(command: Command) -> Task[Any]:
    """Return a command as a task of invoke, which hands its Context to every body."""
    signature = inspect.signature(command.body)
    name = command.body.__name__.replace("_", "-")

    @functools.wraps(command.body)
    def run(_invoke: Context, /, *arguments: Any, **options: Any) -> None:
        given = [*arguments, *options.values()]
        if "--help" in given or "-h" in given:  # taken for a positional argument's value
            raise SystemExit(_help(name))
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


def ended(body: Callable[[], None], as_json: bool) -> None:
    """Run a body; an error becomes one message and exit code 1, Ctrl-C exit code 130.

    With `as_json` the error is a JSON object on stdout as well.
    """
    try:
        body()
        sys.stdout.flush()
    except (BuilderError, PipelineError) as error:
        print(f"error: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": str(error)}))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; partial output was removed", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except BrokenPipeError:
        _unread()


def _unread() -> NoReturn:
    """Exit as a program does whose reader went away, for example `head`."""
    # Python would complain once more when it flushes stdout at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_UNREAD) from None


def _help(name: str) -> int:
    words = [sys.executable, "-m", "cli", "--help", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, check=False).returncode


class Program(invoke.Program):
    """`./invoke`: lists the tasks by groups, and takes optional arguments without their name."""

    def __init__(self, groups: Groups) -> None:
        super().__init__(
            name="plateline", binary="./invoke", binary_names=["invoke"],
            namespace=collection(groups), version="0.1.0",
        )  # fmt: skip
        self._groups = groups

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:  # noqa: A002 - invoke's
        """Run what the command line asks for; a reader that goes away ends it quietly."""
        try:
            super().run(argv, exit)
            sys.stdout.flush()
        except BrokenPipeError:
            _unread()

    def parse_tasks(self) -> None:
        """Take the command line apart; exits with 1 and one message where it cannot be."""
        try:
            super().parse_tasks()
        except ValueError as error:
            message = f"an option wants a number ({error})"
        except invoke.exceptions.ParseError as error:
            message = str(error).rstrip("!") + _nearest(str(error), _words(self._groups))
        else:
            return
        print(f"error: {message}; see ./invoke --list and ./invoke --help TASK", file=sys.stderr)
        raise SystemExit(1)

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Write `run FILE` as `run --file FILE`, which invoke's parser understands."""
        super().normalize_argv(argv)
        self.argv = with_names(self.argv, self._groups)

    def list_flat(self) -> None:
        """Print the tasks under what one does with them."""
        print("Usage: ./invoke TASK [--options]; ./invoke --help TASK explains one\n")
        width = max(len(name) for commands in self._groups.values() for name in _names(commands))
        for title, commands in self._groups.items():
            print(title)
            for name, command in zip(_names(commands), commands, strict=True):
                summary = (inspect.getdoc(command.body) or "").partition("\n")[0]
                print(f"  {name.ljust(width)}  {summary}")
            print()


def _names(commands: Sequence[Command]) -> list[str]:
    return [command.body.__name__.replace("_", "-") for command in commands]


def _words(groups: Groups) -> list[str]:
    """Return what may stand on a command line: tasks and options."""
    commands = [command for group in groups.values() for command in group]
    options = {p for command in commands for p in inspect.signature(command.body).parameters}
    return [*_names(commands), *(f"--{option.replace('_', '-')}" for option in options)]


def _nearest(message: str, words: Sequence[str]) -> str:
    """Return a suggestion for the word that a message quotes, or nothing."""
    quoted = message.split("'")[1] if message.count("'") > 1 else ""
    close = [] if quoted in words else difflib.get_close_matches(quoted, words, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def with_names(words: Sequence[str], groups: Groups) -> list[str]:
    """Return `words` with the names of optional positional arguments added.

    >>> def run(file: str = "a.yaml") -> None: ...
    >>> with_names(["./invoke", "run", "b.yaml"], {"": [Command(run, positional=["file"])]})
    ['./invoke', 'run', '--file', 'b.yaml']
    """
    commands = {
        n: c for group in groups.values() for n, c in zip(_names(group), group, strict=True)
    }
    found: list[str] = []
    waiting: list[str] = []
    for word in words:
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
    return found
