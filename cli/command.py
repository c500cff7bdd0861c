"""What a task is: a function, and how a person types its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
