"""Values as the launcher writes them, and quantities as Kubernetes reads them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.spec import kubernetes, placeholders, values


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2"), (1e-5, "0.00001"), (1e21, "1" + "0" * 21), (-0.5, "-0.5"), (True, "true"),
     (3, "3"), ("a b", "a b"), ([1.0, "x"], '[1,"x"]'), ({"b": 1, "a": "é"}, '{"a":"é","b":1}')],
)  # fmt: skip
def test_arguments_are_written_as_on_a_cluster(value, text):
    assert values.text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value_and_has_no_exponent(number):
    text = values.text(number)
    assert float(text) == number
    assert "e" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.00001, "1e-05"), (0.0001, "0.0001"), (0.5, "0.5"), (123456.5, "123456.5"),
        (1234567.5, "1.2345675e+06"), (1e20, "1e+20"), (1e-7, "1e-07"), (-2.5e-9, "-2.5e-09"),
        (1e18, "1000000000000000000"), (9.3e18, "9.3e+18"), (-7.0, "-7"), (3, "3"),
        (1.5e300, "1.5e+300"), (True, "true"), (None, ""), ("x", "x"),
    ],
)  # fmt: skip
def test_the_driver_writes_numbers_as_go_does_by_g(number, text):
    assert values.argument(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_the_driver_writes_keeps_its_value(number):
    assert float(values.argument(number)) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1e-7, 0.00001, 1e21, 1.0, 0.1], "[1e-7,0.00001,1e+21,1,0.1]"),
        ({"b": "<a&b>", "a": "é\u2028"}, '{"a":"é\\u2028","b":"\\u003ca\\u0026b\\u003e"}'),
    ],
)
def test_lists_and_dictionaries_are_json_as_go_writes_it(value, text):
    assert values.text(value) == values.argument(value) == text


def test_a_word_that_names_an_output_is_filled_in_by_the_launcher():
    given_input = {
        "inputs": {"parameterValues": {"n": 0.00001}},
        "outputs": {"parameters": {"o": {"outputFile": "/tmp/o"}}},
    }
    words = ["{{$.inputs.parameters['n']}}",
             "{{$.inputs.parameters['n']}} {{$.outputs.parameters['o'].output_file}}"]  # fmt: skip
    assert placeholders.substitute(words, given_input, {}) == ["1e-05", "0.00001 /tmp/o"]


def test_a_number_that_is_no_double_is_refused_anywhere():
    with pytest.raises(PipelineError, match="is not of its type LIST"):
        values.coerce([[10**400]], "LIST", "n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=4) | st.dictionaries(st.text(), json_values, max_size=4))
def test_lists_and_dictionaries_are_read_back(value):
    assert json.loads(values.text(value)) == value


def test_placeholders_in_a_constant_are_filled_with_their_type():
    one = "{{$.inputs.parameters['pipelinechannel--n']}}"
    given_values = {"pipelinechannel--n": 3}
    assert placeholders.filled(one, given_values) == 3
    assert placeholders.filled(f"<{one}>", given_values) == "<3>"
    assert placeholders.filled([{"k": one}], given_values) == [{"k": 3}]
    with pytest.raises(PipelineError, match="has no value"):
        placeholders.filled(f"<{one}>", {})


@pytest.mark.parametrize(
    ("text", "size"),
    [("512Mi", 2**29), ("4G", 4 * 10**9), ("1.5Gi", 3 * 2**29), ("100", 100), ("1e3k", 10**6)],
)
def test_quantities_of_memory(text, size):
    assert kubernetes.memory(text) == size


@pytest.mark.parametrize(
    ("text", "processors"), [("2", 2), ("500m", 0.5), ("1.5", 1.5), (".5", 0.5), ("1e1", 10)]
)
def test_quantities_of_processors(text, processors):
    assert kubernetes.cpus(text) == processors


@pytest.mark.parametrize("text", ["", "much", "4GB", "-1", "4 Gi", "1.2.3", ".", "1e999", "e1"])
@pytest.mark.parametrize("read", [kubernetes.memory, kubernetes.cpus])
def test_what_is_no_quantity_is_named(text, read):
    with pytest.raises(PipelineError, match="no quantity; write it as"):
        read(text)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS)
def test_a_number_is_read_back_from_what_it_is_written_as(number):
    for written in (values.text(number), repr(number), f" {number!r}\n"):
        assert values.coerce(written, "NUMBER_DOUBLE", "n") == number
    assert not values.is_not_finite(repr(number))


@pytest.mark.parametrize("text", ["1_000", "0x10", "١", "", " ", "nan", "-inf", "1e999", "1,5"])
def test_what_go_does_not_read_as_a_finite_number_is_none(text):
    with pytest.raises(PipelineError, match="is not of its type NUMBER_DOUBLE"):
        values.coerce(text, "NUMBER_DOUBLE", "n")


@pytest.mark.parametrize("text", ["NaN", "nan", "Inf", "+Infinity", "-inf"])
def test_texts_that_go_reads_as_no_finite_number_are_known(text):
    assert values.is_not_finite(f" {text}\n")
