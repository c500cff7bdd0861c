"""What a package of the suite is: a pipeline, its arguments, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A pipeline, its arguments, and what the backend makes of it.

    `outputs` are those of the whole pipeline, `said` is step -> a part of what it wrote to its
    output `said`, and `states` has the steps that do not succeed. With `runs` 2 it is run twice,
    and counts as it was the second time. `claim` and `secret` tell what it mounts.
    """

    pipeline: Callable[..., Any]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state: str = "succeeded"
    said: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    runs: int = 1
    claim: bool = False
    secret: bool = False
