"""The fixture `fuzz`: one job for one parser of what strangers send, on the host or in an image.

A job mutates valid inputs and makes others by their grammar. Whatever comes in, the parser ends in
a value or in the floor's own error that names the input, within bounded time and memory.
PLATELINE_FUZZ_SECONDS says for how long each job goes on.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The jobs in inside/ need what only the images have, the others what only the host has.
collect_ignore_glob = ["inside/*"] if importlib.util.find_spec("builder") else ["test_*"]

_SECONDS = 5.0
_EXAMPLES = 100
# Much more than any input of a job needs, much less than what would hurt.
_CPU_SECONDS = 5.0
_MEMORY = 512 << 20


@dataclass(frozen=True)
class Job:
    """Runs a parser on inputs for `seconds`."""

    seconds: float

    def run(
        self,
        parse: Callable[[Any], object],
        inputs: st.SearchStrategy[Any],
        *,
        refusal: type[Exception] | tuple[type[Exception], ...],
        names: str,
    ) -> None:
        """Fail for an input that `parse` does not take, or refuse with `names` in the message."""

        @settings(
            max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck),
            database=None,
        )  # fmt: skip
        @given(inputs)
        def holds(value: Any) -> None:
            before, began = _peak(), time.process_time()
            said = names
            try:
                parse(value)
            except refusal as error:
                said = str(error)
            assert names in said, f"the refusal does not name the input, {names}: {said}"
            spent, grown = time.process_time() - began, _peak() - before
            assert spent < _CPU_SECONDS, f"it took {spent:.1f} s of the processor"
            assert grown < _MEMORY, f"it took {grown >> 20} MB"

        end = time.monotonic() + self.seconds
        while True:
            holds()
            if time.monotonic() > end:
                return

    @staticmethod
    def mutated(samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
        """Return valid inputs with up to six edits; `tokens` are words of the format."""
        words = st.sampled_from([b"", b"\0", b"\xff", b"\n", b" ", b"-1", *tokens])
        word = st.one_of(words, st.binary(max_size=8))
        edit = st.tuples(
            st.sampled_from(["insert", "replace", "delete", "repeat", "cut", "flip"]),
            st.floats(0, 1), word, st.integers(1, 64),
        )  # fmt: skip
        return st.builds(_edited, st.sampled_from(list(samples)), st.lists(edit, max_size=6))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _edited(data: bytes, edits: list[tuple[str, float, bytes, int]]) -> bytes:
    for kind, where, word, count in edits:
        at = min(int(where * len(data)), max(0, len(data) - 1))
        if kind == "insert":
            data = data[:at] + word + data[at:]
        elif kind == "replace":
            data = data[:at] + word + data[at + len(word) :]
        elif kind == "delete":
            data = data[:at] + data[at + count :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + count] * 3 + data[at + count :]
        elif kind == "cut":
            data = data[:at]
        elif data:
            data = data[:at] + bytes([data[at] ^ (1 << count % 8)]) + data[at + 1 :]
    return data


@pytest.fixture
def fuzz() -> Job:
    return Job(float(os.environ.get("PLATELINE_FUZZ_SECONDS") or _SECONDS))
