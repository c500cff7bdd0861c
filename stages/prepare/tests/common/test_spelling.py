"""Claims about how names are compared and shown."""

import string
import unicodedata

import pytest
from common import spelling
from hypothesis import given
from hypothesis import strategies as st

LETTERS = st.text(string.ascii_letters, min_size=1, max_size=6)


@given(name=LETTERS, number=st.integers(0, 999), zeros=st.integers(0, 3), data=st.data())
def test_case_and_leading_zeros_make_no_other_channel(name, number, zeros, data):
    turn = data.draw(st.sampled_from([str.upper, str.lower, str.title]))
    assert spelling.channel(f"{turn(name)}{'0' * zeros}{number}", [f"{name}{number}", "~"])


@given(prefix=LETTERS, number=st.integers(0, 99), zeros=st.integers(0, 2))
def test_a_number_alone_is_that_number_behind_letters(prefix, number, zeros):
    padded = f"{'0' * zeros}{number}"
    assert spelling.channel(prefix + padded, [str(number), str(number + 1)]) == str(number)
    known = [f"{prefix}{number}", f"{prefix}{number + 1}"]
    assert spelling.channel(padded, known) == known[0]


@pytest.mark.parametrize(
    ("found", "known"),
    [
        ("A1", ["B1", "C1"]),  # other letters are another channel
        ("2", ["1", "3"]),
        ("dapi", ["gfp", "dap"]),
        ("1", ["A1", "B1"]),  # it could be either
        ("", ["1", "2"]),
        ("w1x", ["1", "2"]),
    ],
)
def test_what_is_not_clearly_one_channel_is_none(found, known):
    assert spelling.channel(found, known) is None


def test_an_exact_name_goes_before_its_number():
    assert spelling.channel("1", ["A1", "1"]) == "1"


@pytest.mark.parametrize("name", ["é.tif", "가", "ṩ", "Å"])
def test_names_that_look_alike_are_shown_apart(name):
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert spelling.shown(composed) == composed
    assert "\\u" in spelling.shown(apart)


LATIN_AND_HANGUL = st.text("aeés\u0301\u0323\u0307\u212b\u00c5가\u1100\u1161\u11a8", max_size=6)


@given(LATIN_AND_HANGUL)
def test_every_spelling_but_the_composed_one_is_shown_with_its_codes(name):
    composed = unicodedata.normalize("NFC", name)
    assert (spelling.shown(name) == composed) == (name == composed)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\x0ab"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\u200bb", "a\\u200bb"),
        ("a\u00a0b", "a\\xa0b"),
        ("\udce9.tif", "\\xe9.tif"),
        ("細胞 ö.tif", "細胞 ö.tif"),
    ],
)
def test_what_cannot_be_seen_or_printed_is_shown_as_a_code(name, shown):
    assert spelling.shown(name) == shown


@given(st.text())
def test_what_is_shown_can_be_printed_on_one_line(name):
    spelling.shown(name).encode()
    assert spelling.shown(name).isprintable()


@given(st.text(), st.text())
def test_two_names_are_shown_as_one_only_where_they_are_one_or_hold_a_code(one, other):
    if one != other and "\\" not in one + other:
        assert spelling.shown(one) != spelling.shown(other)
