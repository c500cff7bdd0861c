"""p-values, how plates are combined, and the control of false discoveries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score.hits import Replicates, combined, false_discovery_rates, p_value
from score.normalisation import mad
from score.treatments import judge, treatment

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def step_up(p):
    """Return q-values by the definition of Benjamini & Hochberg (1995), without sorting."""
    m = len(p)
    rank = [sum(other <= one for other in p) for one in p]
    return [min([1, *(m * p[j] / rank[j] for j in range(m) if p[j] >= p[i])]) for i in range(m)]


@given(p_values)
def test_q_values_are_those_of_the_definition(p):
    np.testing.assert_allclose(false_discovery_rates(p), step_up(list(p)), atol=1e-12)


@given(p_values)
def test_q_values_are_never_below_p_and_rise_with_it(p):
    q = false_discovery_rates(p)
    assert (q >= p - 1e-12).all()
    assert (np.diff(q[np.argsort(p)]) >= -1e-12).all()


def test_no_treatment_gives_no_q_value():
    assert len(false_discovery_rates(np.array([]))) == 0


@pytest.mark.parametrize("reference", [4, 8, 16, 64])
@pytest.mark.parametrize("wells", [1, 4])
def test_wells_like_the_references_have_small_p_values_no_more_often_than_p_says(reference, wells):
    random = np.random.default_rng(reference * 10 + wells)
    found = []
    for _ in range(2000):
        own = random.normal(size=reference)
        new = (random.normal(size=wells) - np.median(own)) / mad(own)
        found.append(p_value(Replicates(tuple(new), reference)))
    for level in (0.05, 0.01):
        allowed = level + 3 * math.sqrt(level / len(found))
        assert np.mean(np.array(found) <= level) <= allowed


@given(st.floats(-30, 30), st.integers(4, 400), st.integers(1, 6))
def test_a_higher_score_has_no_higher_p_value(score, reference, wells):
    low, high = (p_value(Replicates((s,) * wells, reference)) for s in (score, score + 1))
    assert high < low or high == low == 1


def test_two_plates_that_agree_are_stronger_than_one_and_opposites_cancel():
    assert combined([0.01, 0.01], [4, 4]) < 0.01
    assert combined([0.01, 0.99], [4, 4]) == pytest.approx(0.5)
    assert combined([0.03], [4]) == 0.03
    assert 0 <= combined([0.0, 0.0], [1, 1]) < 1e-300


def well(plate="P1", name="B02", *, compound="A", dose=1.0, unit="µM", role="sample", z=9.0,
         call="positive", flags=""):  # fmt: skip
    return {
        "Metadata_Plate": plate, "Metadata_Well": name, "Metadata_Role": role,
        "Metadata_Compound": compound, "Metadata_Dose": dose, "Metadata_DoseUnit": unit,
        "Metadata_Flags": flags, "Score_Normalised": z, "Score_Call": call,
        "Score_Probability": 0.9, "Score_LogOdds": 3.0, "Nuclei_CountPerField": 100.0,
    }  # fmt: skip


def judged(*wells, rate=0.05, agreement=0.5):
    return judge(wells, {"P1": 100, "P2": 100}, rate=rate, agreement=agreement)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "µM"), (1000, "nM")), ((0.3, "nM"), (300, "pM")), ((2, "mg/ml"), (2000, "µg/ml"))],
)
def test_one_dose_in_two_units_is_one_treatment(one, other):
    first, second = (well(dose=float(dose), unit=unit) for dose, unit in (one, other))
    assert treatment(first) == treatment(second)


def test_another_dose_measure_or_compound_is_another_treatment():
    given = [well(), well(dose=2.0), well(unit="nM"), well(unit="µg/ml"), well(compound="B"),
             well(dose=None), well(unit="%")]  # fmt: skip
    assert len({treatment(w) for w in given}) == len(given)


def test_wells_without_a_compound_are_no_replicates_of_each_other():
    rows = judged(well(compound="", name="B02"), well(compound="", name="B03"))
    assert [row["Treatment_Wells"] for row in rows] == [1, 1]


@pytest.mark.parametrize(
    "flags", ["few_cells", "out_of_focus", "saturated", "missing", "plate_failed"]
)
def test_a_flagged_well_is_no_hit_and_says_why(flags):
    (row,) = judged(well(flags=flags))
    assert not row["Treatment_Hit"]
    assert row["Treatment_Reason"] == f"no usable well: {flags}"
    assert math.isnan(row["Treatment_P"])
    assert math.isnan(row["Treatment_Q"])


def test_a_flagged_well_takes_no_part_in_its_treatments_numbers():
    (row,) = judged(well(), well(name="B03", z=-50.0, call="negative", flags="few_cells"))
    assert row["Treatment_Hit"]
    assert (row["Treatment_Wells"], row["Treatment_WellsLeftOut"]) == (1, 1)
    assert row["Treatment_Normalised"] == 9
    assert row["Treatment_WellNames"] == "P1:B02"


def test_replicates_that_are_not_called_positive_are_no_hit():
    wells = [well(name=f"B0{i}", call="positive" if i == 1 else "negative") for i in range(1, 5)]
    (row,) = judged(*wells)
    assert row["Treatment_Agreement"] == 0.25
    assert not row["Treatment_Hit"]
    assert "called positive" in row["Treatment_Reason"]
    (row,) = judged(*wells, agreement=0.25)
    assert row["Treatment_Hit"]


def test_controls_are_not_tested():
    assert judged(well(role="positive"), well(role="negative"), well(role="empty")) == []


def test_hits_come_first_the_surest_first():
    rows = judged(well(compound="weak", z=0.1), well(compound="strong", z=12.0),
                  well(compound="good", z=8.0))  # fmt: skip
    assert [row["Metadata_Compound"] for row in rows] == ["strong", "good", "weak"]
    assert [row["Treatment_Hit"] for row in rows] == [True, True, False]
    assert rows[2]["Treatment_Reason"] == "q above 0.05"
