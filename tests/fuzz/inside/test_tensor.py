"""Fuzz jobs: the bodies of the function that are JSON."""

import json

from common.errors import StageError
from function.pictures import of_json
from function.tensors import decode
from hypothesis import strategies as st

TENSOR = {"name": "tiles", "datatype": "UINT8", "shape": [1, 256, 256, 3]}
SIZE = 256 * 256 * 3
WORDS = [b"null", b"[]", b"{}", b"-1", b"1e9", b"[" * 3000, b"9" * 5000, b"true", b'"shape":', b'"data":',
         b'"binary_data_size":', b'"\\ud800"', b"\xff", b"NaN", b'"a"', b"0,0,0"]  # fmt: skip


def test_a_tensor(fuzz):
    binary = {"inputs": [{**TENSOR, "parameters": {"binary_data_size": SIZE}}], "id": "7"}
    flat = {"inputs": [{**TENSOR, "data": [0] * 64}], "outputs": [{"name": "probability"}]}
    samples = [json.dumps(d).encode() for d in (binary, flat)]
    lengths = st.sampled_from(
        [[], ["0"], ["10"], ["99999999999999999999"], ["-1"], ["1", "2"], ["²"]]
    )

    def parse(case):
        head, tail, said = case
        body = head + bytes(tail)
        asked = decode(body, said if said is not None else [str(len(head))])
        assert asked.tiles.shape[1:] == (256, 256, 3)

    inputs = st.tuples(
        fuzz.mutated(samples, WORDS), st.sampled_from([0, 1, SIZE]), st.none() | lengths
    )
    fuzz.run(parse, inputs, refusal=StageError, names="")


def test_a_picture_in_json(fuzz):
    samples = [b'{"image": "iVBORw0KGgo="}', b'{"image": "' + b"A" * 4000 + b'"}']
    fuzz.run(of_json, fuzz.mutated(samples, WORDS), refusal=StageError, names="")
