"""What a task is: a function, and how a person types its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

# Title -> tasks, each as module.function of cli/: only the one that is asked for is loaded.
Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Command:
    """A task's body and its options; calling it calls the body, without any of invoke.

    `help` has a sentence for each argument, `positional` those that may be typed without their
    name, in order, and `repeated` those that may be given several times.
    """

    body: Callable[..., None]
    help: Mapping[str, str] = field(default_factory=dict)
    positional: Sequence[str] = ()
    repeated: Sequence[str] = ()

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Run the body; raises BuilderError and PipelineError as it does."""
        self.body(*arguments, **options)


def command(
    *,
    help: Mapping[str, str] | None = None,  # noqa: A002 - invoke's own word
    positional: Sequence[str] = (),
    repeated: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Command]:
    """Make a function a Command."""

    def made(body: Callable[..., None]) -> Command:
        return Command(body, help or {}, positional, repeated)

    return made


def names(groups: Groups) -> dict[str, str]:
    """Return the name of each task, as it is typed, and its place.

    >>> names({"look inside": ["inspection.verify_images"]})
    {'verify-images': 'inspection.verify_images'}
    """
    places = (place for group in groups.values() for place in group)
    return {place.rpartition(".")[2].replace("_", "-"): place for place in places}


def command_at(place: str) -> Command:
    """Return the task at `place`, whose module is loaded now."""
    module, _, name = place.partition(".")
    found = getattr(import_module(f"cli.{module}"), name)
    assert isinstance(found, Command), place
    return found
