"""The compressed bytes follow from the plain bytes, whoever writes them in whatever pieces."""

from __future__ import annotations

import gzip as standard
import hashlib
import io
import itertools
import random
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.oci import gzip
from builder.oci.gzip import PIECE, Gzip


def plain(size: int, seed: int) -> bytes:
    """Return bytes of which some repeat and some do not."""
    dice = random.Random(seed)
    noise = dice.randbytes(20_000)
    block = noise + bytes(9_000) + noise.hex().encode() + noise[: dice.randrange(20_000)]
    return (block * (size // len(block) + 1))[:size]


def compressed(pieces: Sequence[bytes]) -> bytes:
    sink = io.BytesIO()
    writer = Gzip(sink)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    return sink.getvalue()


@given(
    size=st.integers(0, 2 * PIECE + 9999),
    seed=st.integers(0, 9),
    cuts=st.lists(st.integers(0, 2 * PIECE + 9999), max_size=40),
)
@settings(max_examples=25, deadline=None)
def test_any_split_into_writes_gives_the_same_bytes(size: int, seed: int, cuts: list[int]) -> None:
    data = plain(size, seed)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    once = compressed([data])
    assert compressed(pieces) == once
    assert standard.decompress(once) == data


@pytest.mark.parametrize("step", [1, 511, 512, 4096, PIECE - 1, PIECE, PIECE + 1])
def test_writes_of_one_size_give_the_same_bytes(step: int) -> None:
    data = plain(PIECE + 5000 if step == 1 else 2 * PIECE + 700, 1)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert compressed(pieces) == compressed([data])


def test_the_bytes_are_these_on_every_host() -> None:
    """Written down once: another Python, zlib or processor must give the same."""
    blob = compressed([plain(300_000, 0)[start : start + 512] for start in range(0, 300_000, 512)])
    assert hashlib.sha256(blob).hexdigest() == DIGEST


DIGEST = "7844631c9444a4357a454c27c8575e4313a34a4c9c99f324da324eee65347b05"


def test_what_is_spliced_ends_a_member_and_comes_back() -> None:
    sink = io.BytesIO()
    writer = Gzip(sink)
    writer.write(b"before")
    raw = io.BytesIO(zlib.compress(b"inside" * 999, wbits=-15))
    assert b"".join(writer.splice(raw, "a", 6 * 999)) == b"inside" * 999
    writer.write(b"after")
    writer.close()
    whole = b"before" + b"inside" * 999 + b"after"
    assert standard.decompress(sink.getvalue()) == whole
    assert writer.digest() == "sha256:" + hashlib.sha256(whole).hexdigest()


def test_another_isal_is_refused_before_it_gives_another_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gzip, "LEVEL", 1)  # as a library would that compresses otherwise
    gzip.check.cache_clear()
    try:
        with pytest.raises(BuilderError, match=r"isal .* does not compress as the pinned one"):
            Gzip(io.BytesIO())
    finally:
        gzip.check.cache_clear()
