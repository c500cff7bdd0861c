"""Whatever is sent, the answer is a 4xx with a reason in JSON; never a 5xx, never a crash."""

import base64
import json
import random
import struct
import time
import zlib

import numpy as np
import pytest
from conftest import encode, tile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

GOOD = encode(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
FORM = {"Content_Type": "multipart/form-data; boundary=x"}
JSON = {"Content_Type": "application/json"}
LIMIT = 16 << 20


def refused(answer, status=None):
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == "application/json"
    reason = answer.json["error"]
    assert reason
    if status:
        assert answer.status == status, reason
    return reason


def png(side, depth, data):
    """Return a PNG of colours, `side` by `side`, with the rows `data`, whether they fit or not."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def frames(form, **options):
    first, second = Image.fromarray(tile(1)), Image.fromarray(tile(2))
    return encode(first, form, save_all=True, append_images=[second], **options)


RGB = Image.fromarray(tile())
# One pixel each, since the image has nothing that writes them.
GIF = b"GIF87a\1\0\1\0\x80" + bytes(8) + b",\0\0\0\0\1\0\1\0\0\x08\4\0\1\4\4\0;"
JPEG = base64.b64decode(
    b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP" + b"/" * 86 + b"2wBDAf" + b"/" * 86
    + b"wAARCAABAAEDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAP/xAAUEAEAAAAAAAAAAAAAAAAAAAAA"
    b"/8QAFAEBAAAAAAAAAAAAAAAAAAAAAP/EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AJgA/9k="
)  # fmt: skip
BODIES = {
    "empty": (b"", "empty"),
    "one byte": (b"\x89", "no readable"),
    "text": (b"hello, world\n" * 50, "no readable"),
    "truncated": (GOOD[: len(GOOD) // 2], "truncated"),
    "bomb": (png(50_000, 8, bytes(1000)), "pixels"),
    "large": (png(4_200, 8, bytes(1000)), "pixels"),
    "FITS": (b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800), "no readable"),
    "GIF": (GIF, "no readable"),
    "JPEG": (JPEG, "no readable"),
    "WebP": (encode(RGB, "WEBP"), "no readable"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n", "no readable"),
    "frames in TIFF": (frames("TIFF"), "more than one frame"),
    "frames in PNG": (frames("PNG"), "more than one frame"),
    "16-bit grey": (encode(np.zeros((256, 256), np.uint16)), "not RGB"),
    "16-bit TIFF": (encode(np.zeros((256, 256), np.uint16), "TIFF"), "not RGB"),
    "16-bit RGB": (png(256, 16, bytes((1 + 256 * 6) * 256)), "16 bits"),
    "RGBA": (encode(RGB.convert("RGBA")), "RGBA"),
    "palette": (encode(RGB.convert("P")), "not RGB"),
    "grey": (encode(RGB.convert("L")), "not RGB"),
    "float": (encode(np.zeros((256, 256), np.float32), "TIFF"), "not RGB"),
    "CMYK": (encode(RGB.convert("CMYK"), "TIFF"), "not RGB"),
    "small": (encode(tile(size=(255, 300))), "a tile has 256"),
    "one pixel": (encode(tile(size=(1, 1))), "a tile has 256"),
}


def test_thousands_of_frames_are_refused_before_they_are_counted(function):
    """Pillow compares each of them with all before it: minutes for a body of some megabytes."""
    data = encode(tile(), "TIFF")
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    at = first + 2 + 12 * entries
    directory, size = data[first:at], at - first + 4
    starts = [len(data) + size * number for number in range(50_000)]
    chained = b"".join(directory + struct.pack("<I", start) for start in [*starts[1:], 0])
    body = data[:at] + struct.pack("<I", starts[0]) + data[at + 4 :] + chained
    began = time.monotonic()
    answer = function.ask(body=body, Content_Type="image/tiff")
    assert answer.status == 400
    assert "has more than one frame" in answer.json["error"]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_picture_to_classify_is_refused_with_the_reason(function, name):
    body, reason = BODIES[name]
    assert reason in refused(function.ask(body=body), 400)
    coded = json.dumps({"image": base64.b64encode(body).decode()})
    assert reason in refused(function.ask(body=coded, **JSON), 400)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"{}", b'{"image": 5}', b'{"image": "\xc3\xa9"}', b'{"image": "*"}',
     b"[" * 100_000, b'{"image": "YQ"}', b'{"image": "YQ==", "image": null}', b"\xff\xfe",
     b"1" * 5000],
)  # fmt: skip
def test_json_without_a_picture_is_refused(function, body):
    refused(function.ask(body=body, **JSON), 400)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--y\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n"),
        ("multipart/form-data; boundary=x; charset=nonsense",
         b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nfield only\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "x" * 5000, b"x"),
    ],
)  # fmt: skip
def test_forms_without_a_file_are_refused(function, kind, body):
    refused(function.ask(body=body, Content_Type=kind), 400)


def test_a_body_that_is_too_long_is_refused_when_it_says_so(function):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\nConnection: close\r\n\r\n"
    assert function.raw(head).startswith(b"HTTP/1.1 413 ")  # before anything is sent


def chunked(size, piece=1 << 20):
    data = bytes(piece)
    return (data for _ in range(size // piece))


def test_a_body_that_is_too_long_is_refused_when_it_is_chunked(function):
    for size in (100 << 20, LIMIT + (1 << 20)):
        assert "longer" in refused(function.ask(body=chunked(size)), 413)
    assert "no readable" in refused(function.ask(body=chunked(LIMIT)), 400)


def test_a_length_that_lies_is_refused(function):
    head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
    assert function.raw(head.format(10).encode() + bytes(1 << 20)).startswith(b"HTTP/1.1 400 ")
    for length in ("-1", "1e9", "9" * 30, "5, 7"):
        answer = function.raw(head.format(length).encode() + b"hello")
        assert answer.split(b" ")[1] in (b"400", b"413"), length
    both = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nx"
    assert function.raw(both).startswith(b"HTTP/1.1 400 ")


def test_a_compressed_body_is_refused(function):
    answer = function.ask(body=zlib.compress(bytes(1000)), Content_Encoding="deflate")
    assert "send it as it is" in refused(answer, 415)


@pytest.mark.parametrize(
    "data",
    [b"\0" * 100, b"GET\r\n\r\n", b"\0\1" * 50_000, b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_refused_in_json_too(function, data):
    head, _, body = function.raw(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]
    assert "Traceback" not in function.log.read_text()


def test_other_addresses_and_methods_are_refused(function):
    assert "there is no '/x'" in refused(function.ask("GET", "/x"), 404)
    answer = function.ask("DELETE", "/")
    refused(answer, 405)
    assert answer.headers["allow"] == "GET, POST"


def answered(function, body, **headers):
    """Assert that a body is answered, whatever it is, and by more than silence."""
    answer = function.ask(body=body, **headers)
    if answer.status != 200:
        refused(answer)
    return answer.status


many = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
starts = st.sampled_from([b"", GOOD[:40], b"II*\0", b"MM\0*", b"BM", b"\x89PNG\r\n\x1a\n"])


@many
@given(start=starts, rest=st.binary(max_size=600), length=st.integers(0, 40))
def test_random_bytes_are_refused(function, start, rest, length):
    refused(function.ask(body=start[:length] + rest), 400)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_flipped_bits_are_answered_or_refused(function, form):
    """500 pictures a format, each with up to 8 flipped bits, most of them near the head."""
    good = encode(np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8), form)
    dice = random.Random(form)
    found = set()
    for _ in range(500):
        data = bytearray(good)
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(min(len(data), dice.choice([64, 400, len(data)])))
            data[at] ^= 1 << dice.randrange(8)
        found.add(answered(function, bytes(data)))
    assert 400 in found


@settings(many, max_examples=200)
@given(st.binary(max_size=300), st.sampled_from([b"--x\r\n", b"--x", b"", b"--x\r\nContent-"]))
def test_random_forms_are_refused(function, rest, start):
    answered(function, start + rest, **FORM)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=8,
)


@settings(many, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["image", "x"]), values)
    | st.fixed_dictionaries({"image": st.text(max_size=30)})
)
def test_random_json_is_refused(function, document):
    refused(function.ask(body=json.dumps(document), **JSON), 400)


def test_the_function_still_answers_after_all_that(function):
    assert function.ask(body=GOOD).status == 200
    assert "Traceback" not in function.log.read_text()
