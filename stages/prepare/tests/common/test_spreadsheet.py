"""Texts in CSV files, which a spreadsheet may take for formulas."""

import pytest
from common import spreadsheet
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\rx", "\n=1", " =1", "＝1", "=cmd|'/c x'!A1"]
)
def test_what_may_be_a_formula_becomes_text(text):
    assert spreadsheet.guarded(text) == "'" + text


@pytest.mark.parametrize("text", ["", "Wortmannin", "2-DG", "a=b", "'quoted'", " x", "−3", "5'"])
def test_other_texts_stay_as_they_are(text):
    assert spreadsheet.guarded(text) == text


def test_numbers_stay_numbers():
    assert spreadsheet.cells([-1.5, 3, None, "-1.5"]) == [-1.5, 3, None, "'-1.5"]


@given(st.text(alphabet=st.sampled_from("=+-@'\t\r\n a1＝")))
def test_the_given_text_is_had_back(text):
    guarded = spreadsheet.guarded(text)
    assert spreadsheet.given(guarded) == text
    assert not guarded.startswith(("\t", "\r", "\n"))
    assert not guarded.lstrip(" \t\r\n").startswith(("=", "+", "-", "@", "＝"))
