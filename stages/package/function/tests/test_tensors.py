"""Open Inference Protocol v2, as JSON and with binary tensors."""

import json

import numpy as np
import pytest
from conftest import tile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def tensor(tiles, **more):
    shape = list(tiles.shape)
    return {"name": "tiles", "datatype": "UINT8", "shape": shape, **more}


def infer(function, document, binary=b"", model="A", **headers):
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    if binary:
        headers["Inference_Header_Content_Length"] = str(len(head))
    return function.ask("POST", f"/v2/models/{model}/infer", head + binary, **headers)


TILES = np.stack([tile(100), tile(120)])


def test_the_server_and_its_models_describe_themselves(function):
    assert function.ask("GET", "/v2").json["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/A/ready"):
        assert function.ask("GET", path).status == 200
    found = function.ask("GET", "/v2/models/mean").json
    assert found["inputs"] == [{"name": "tiles", "datatype": "UINT8", "shape": [-1, 256, 256, 3]}]
    assert "there are mean, A, B" in function.ask("GET", "/v2/models/C").json["error"]
    assert function.ask("GET", "/v2/models/A/versions/2").status == 404


@pytest.mark.parametrize("nested", [True, False])
def test_json_tensors_are_inferred(function, nested):
    data = TILES.tolist() if nested else TILES.reshape(-1).tolist()
    found = infer(function, {"id": "7", "inputs": [tensor(TILES, data=data)]}).json
    (output,) = found["outputs"]
    assert (found["id"], found["model_name"]) == ("7", "A")
    assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [2, 1])
    assert output["data"] == pytest.approx([0.5, 1 / (1 + np.exp(-2))], abs=1e-5)


@pytest.mark.parametrize(
    ("extra", "binary"),
    [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "probability", "parameters": {"binary_data": True}}]}, True),
        ({"parameters": {"binary_data_output": True},
          "outputs": [{"name": "probability", "parameters": {"binary_data": False}}]}, False),
    ],
)  # fmt: skip
def test_binary_tensors_go_in_and_come_out_as_asked(function, extra, binary):
    data = TILES.tobytes()
    asked = {"inputs": [tensor(TILES, parameters={"binary_data_size": len(data)})], **extra}
    answer = infer(function, asked, data, model="mean")
    assert answer.status == 200
    length = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    assert (length < len(answer.body)) == binary
    (output,) = json.loads(answer.body[:length])["outputs"]
    values = np.frombuffer(answer.body[length:], "<f4") if binary else output["data"]
    each = 1 / (1 + np.exp(-np.array([[0, 2], [-2, 0]])))
    assert values == pytest.approx(each.mean(axis=0), abs=1e-5)


ONE = TILES[:1]
WRONG = {
    "no JSON": (b"{", b""),
    "no object": ([], b""),
    "no inputs": ({}, b""),
    "two inputs": ({"inputs": [tensor(ONE), tensor(ONE)]}, b""),
    "another name": ({"inputs": [{**tensor(ONE), "name": "x"}]}, b""),
    "another type": ({"inputs": [{**tensor(ONE), "datatype": "FP32"}]}, b""),
    "another shape": ({"inputs": [{**tensor(ONE), "shape": [1, 3, 256, 256]}]}, b""),
    "a vast shape": (
        {"inputs": [tensor(ONE) | {"shape": [10**30, 256, 256, 3], "data": [1]}]},
        b"",
    ),
    "no tiles": ({"inputs": [{**tensor(ONE), "shape": [0, 256, 256, 3], "data": []}]}, b""),
    "a true shape": ({"inputs": [tensor(ONE) | {"shape": [True, 256, 256, 3], "data": [1]}]}, b""),
    "no data": ({"inputs": [tensor(ONE)]}, b""),
    "few data": ({"inputs": [tensor(ONE, data=[1, 2])]}, b""),
    "data nested otherwise": (
        {"inputs": [tensor(ONE, data=ONE.reshape(3, 256, 256).tolist())]},
        b"",
    ),
    "data nested too deep": ({"inputs": [tensor(ONE, data=ONE[..., None].tolist())]}, b""),
    "ragged data of one size": (
        {"inputs": [tensor(ONE, data=[*ONE.reshape(-1)[1:].tolist(), [1]])]},
        b"",
    ),
    "true and false": ({"inputs": [tensor(ONE, data=[True] * ONE.size)]}, b""),
    "one true": ({"inputs": [tensor(ONE, data=[*[1] * (ONE.size - 1), True])]}, b""),
    "one fraction": ({"inputs": [tensor(ONE, data=[*[1] * (ONE.size - 1), 1.0])]}, b""),
    "one large number": ({"inputs": [tensor(ONE, data=[*[1] * (ONE.size - 1), 256])]}, b""),
    "ragged data": ({"inputs": [tensor(ONE, data=[[1], [1, 2]])]}, b""),
    "fractions": ({"inputs": [tensor(ONE, data=[0.5])]}, b""),
    "large numbers": ({"inputs": [tensor(ONE, data=[256] * ONE.size)]}, b""),
    "vast numbers": ({"inputs": [tensor(ONE, data=[*[1] * (ONE.size - 1), 10**400])]}, b""),
    "negative numbers": ({"inputs": [tensor(ONE, data=[-1] * ONE.size)]}, b""),
    "words": ({"inputs": [tensor(ONE, data=["a"])]}, b""),
    "nothing of one": ({"inputs": [tensor(ONE, data=[None])]}, b""),
    "lost bytes": ({"inputs": [tensor(ONE, data=[1])]}, b"12"),
    "too few bytes": ({"inputs": [tensor(ONE, parameters={"binary_data_size": 9})]}, b"12"),
    "a number id": ({"id": 5, "inputs": [tensor(ONE)]}, b""),
    "other outputs": ({"inputs": [tensor(ONE)], "outputs": [{"name": "x"}]}, b""),
    "bad outputs": ({"inputs": [tensor(ONE)], "outputs": 5}, b""),
    "bad parameters": ({"inputs": [tensor(ONE)], "parameters": [1]}, b""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_request_that_does_not_fit_is_refused_with_the_reason(function, name):
    answer = infer(function, *WRONG[name])
    assert answer.status == 400
    assert answer.json["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "1e3", "9" * 5000, "+1", "1_0", "1 1"])
def test_a_wrong_length_of_the_json_is_refused(function, length):
    answer = infer(function, {}, Inference_Header_Content_Length=length)
    assert "inference-header-content-length" in answer.json["error"]


def test_a_length_that_is_there_twice_is_refused(function):
    head = json.dumps({"inputs": [tensor(ONE, parameters={"binary_data_size": ONE.size})]}).encode()
    name = b"Inference-Header-Content-Length"
    found = function.raw(
        b"POST /v2/models/A/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"%s: %d\r\n%s: 2\r\nContent-Length: %d\r\n\r\n"
        % (name, len(head), name, len(head) + ONE.size)
        + head + ONE.tobytes()
    )  # fmt: skip
    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"send it once" in found


def test_long_json_is_refused_since_parsing_it_would_stop_all_else(function):
    answer = infer(function, b'{"inputs": "' + b"1" * (5 << 20) + b'"}')
    assert (answer.status, "binary" in answer.json["error"]) == (400, True)


parts = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.text(max_size=4),
    lambda part: (
        st.lists(part, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "data", "parameters", "binary_data_size"]), part
        )
    ),
    max_leaves=10,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(st.fixed_dictionaries({
            "name": st.just("tiles"), "datatype": st.just("UINT8"),
            "shape": st.just([1, 256, 256, 3]) | parts, "data": parts, "parameters": parts}))
            | parts},
        optional={"outputs": parts, "parameters": parts, "id": parts},
    ),
    st.binary(max_size=20),
)  # fmt: skip
def test_random_requests_are_refused(function, document, binary):
    answer = infer(function, document, binary)
    assert answer.status == 400, answer
    assert answer.json["error"]
