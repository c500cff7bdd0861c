"""A function's output reads like a file, also after steps back."""

from __future__ import annotations

from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .conftest import ROOT  # noqa: F401 - its import puts the stage on the path


@given(
    st.lists(st.binary(max_size=5000), max_size=20),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 7000)), max_size=10),
)
def test_it_reads_as_the_same_bytes_in_memory(
    pieces: list[bytes], reads: list[tuple[int, int]]
) -> None:
    from package.replay import Replay

    whole = b"".join(pieces)

    def write(sink: BinaryIO) -> None:
        for piece in pieces:
            sink.write(piece)

    with Replay(write) as stream:
        for offset, size in reads:
            at = min(offset, len(whole))
            stream.seek(at)
            assert stream.read(size) == whole[at : at + size]
        stream.seek(0)
        assert stream.read() == whole


def test_what_the_function_raises_is_raised_where_it_is_read() -> None:
    from package.replay import Replay

    def write(sink: BinaryIO) -> None:
        sink.write(b"half")
        raise ValueError("the file changed")

    with Replay(write) as stream:
        assert stream.read(4) == b"half"
        with pytest.raises(ValueError, match="the file changed"):
            stream.read(1)
