"""How often and how long a step is tried again.

The backend turns a task's retry policy into an Argo retryStrategy, whose `maxDuration` is a window
from the first start of the step: a retry that would begin after it is not made (seen with Argo
4.0.5; operator.go of argo-workflows). KFP's compiler writes 3600 s where nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEFAULT_WINDOW, _DEFAULT_FACTOR = 3600.0, 2.0  # seconds; sdk/python/kfp/dsl/structures.py


@dataclass(frozen=True, slots=True)
class Retries:
    """`count` tries after the first; `pause` seconds before the first of them, each next one
    `factor` times longer; `window` seconds from the first start within which one may begin."""

    count: int = 0
    pause: float = 0.0
    factor: float = _DEFAULT_FACTOR
    window: float = _DEFAULT_WINDOW

    @staticmethod
    def of(policy: Mapping[str, Any]) -> Retries:
        """Return the retries of a task's `retryPolicy`."""
        return Retries(
            int(policy.get("maxRetryCount", 0)),
            _seconds(policy.get("backoffDuration"), 0.0),
            float(policy.get("backoffFactor") or _DEFAULT_FACTOR),
            _seconds(policy.get("backoffMaxDuration"), _DEFAULT_WINDOW),
        )

    def after(self, attempt: int) -> float:
        """Return the seconds to wait after the attempt of that number, from 1."""
        try:
            return self.pause * self.factor ** (attempt - 1) if self.pause else 0.0
        except OverflowError:
            return float("inf")

    def next(self, attempt: int, passed: float) -> float | None:
        """Return the seconds to wait before another try, or None where none is made.

        `attempt`, from 1, has failed, `passed` seconds after the first one began.
        """
        pause = self.after(attempt)
        return pause if attempt <= self.count and passed + pause <= self.window else None

    def needs(self, limit: float) -> float:
        """Return the window in which the last try may begin where each takes `limit` seconds."""
        if self.count > _MOST:
            return float("inf")
        return self.count * limit + sum(self.after(n) for n in range(1, self.count + 1))


_MOST = 1000


def _seconds(text: Any, default: float) -> float:
    return float(str(text).removesuffix("s")) if text else default
