"""HTTP as it comes: heads, upgrades, framing, and peers that are answered while they write."""

import json
import socket
import threading
from contextlib import ExitStack, suppress
from itertools import pairwise

import pytest
from conftest import encode, tile, until
from function import connection, head
from function.head import RefusedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PICTURE = encode(tile())
LIMIT = 16 << 20
END = b"Connection: close\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
many = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def post(fields=b"", body=PICTURE, path=b"/", length=None):
    size = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (
        path, size, fields, body,
    )  # fmt: skip


def chunked(fields=b"", pieces=(PICTURE,), trailers=b""):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    start = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    return start + fields + b"\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


def answers(data):
    """Return status and JSON of each answer, 100 Continue among them."""
    found = []
    while data:
        top, _, data = data.partition(b"\r\n\r\n")
        status = int(top.split(b" ")[1])
        length = 0
        for line in top.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body, data = data[:length], data[length:]
        found.append((status, json.loads(body) if body[:1] == b"{" else body))
    return found


def statuses(data):
    return [status for status, _ in answers(data)]


def in_pieces(function, pieces):
    """Send pieces one after the other, each read alone; return what comes back until the end."""
    with socket.create_connection(("127.0.0.1", function.port), timeout=60) as sending:
        sending.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sending.sendall(piece)
        return b"".join(iter(lambda: sending.recv(65536), b""))


# --- offers to speak another protocol ---


@pytest.mark.parametrize(
    "offer",
    [H2C, b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n",
     b"Upgrade: h2c\r\nConnection: keep-alive, Upgrade\r\n", b"Upgrade: h2c\r\n",
     b"Connection: Upgrade\r\nUpgrade: TLS/1.0, h2c\r\nUpgrade: x\r\n"],
)  # fmt: skip
def test_an_offer_to_upgrade_changes_nothing(function, offer):
    """RFC 9110, 7.8: a server may ignore it."""
    plain = answers(function.raw(post() + post(END)))
    for first in (post(offer), chunked(offer), chunked(offer, (PICTURE[:50], PICTURE[50:]))):
        assert answers(function.raw(first + post(END))) == plain
    asked = b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    assert statuses(function.raw(asked + post(END))) == [200, 200]


@many
@given(st.data())
def test_an_offer_to_upgrade_changes_nothing_wherever_the_bytes_are_cut(function, data):
    sent = post(H2C) + chunked(H2C, (PICTURE[:9], PICTURE[9:])) + post(H2C) + post(END)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    edges = [0, *cuts, len(sent)]
    pieces = [sent[a:b] for a, b in pairwise(edges)]
    assert statuses(in_pieces(function, pieces)) == [200] * 4


def test_a_tensor_gets_through_an_offer_to_upgrade(function):
    data = tile(100).tobytes()
    tensor = {"name": "tiles", "datatype": "UINT8", "shape": [1, 256, 256, 3],
              "parameters": {"binary_data_size": len(data)}}  # fmt: skip
    top = json.dumps({"inputs": [tensor]}).encode()
    length = b"Inference-Header-Content-Length: %d\r\n" % len(top)
    found = answers(function.raw(post(H2C + length, top + data, b"/v2/models/A/infer") + post(END)))
    assert [status for status, _ in found] == [200, 200]
    assert found[0][1]["outputs"][0]["data"] == pytest.approx([0.5], abs=1e-5)


def test_an_offer_to_upgrade_hides_no_second_request(function):
    """A body that looks like a request is a body."""
    inner = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
    found = answers(function.raw(post(H2C, inner) + post(END)))
    assert [status for status, _ in found] == [400, 200]


def test_what_would_leave_http_is_refused(function):
    found = function.raw(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers(found) == [(405, {"error": "this is no proxy; send GET or POST"})]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert statuses(function.raw(preface)) == [400]


@pytest.mark.parametrize("fields", [[(b"a", b"x\r\nHost: y")], [(b"a", b"x\ny")], [(b"a", b"x\0")]])
def test_a_head_is_not_written_again_with_lines_that_it_did_not_have(fields):
    with pytest.raises(RefusedError, match="more than one line"):
        head.without_upgrade(b"POST", b"/", "1.1", fields)


# --- peers that are answered while they write ---


def uploading(function, top, size, chunk=False):
    """Send a head and zeros, reading nothing before all is sent; return what then comes back."""
    piece = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", function.port), timeout=60) as sending:
        sending.sendall(top)
        for _ in range(size // len(piece)):
            sending.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunk else piece)
        return b"".join(iter(lambda: sending.recv(65536), b""))


@pytest.mark.parametrize("fields", [b"", END])
@pytest.mark.parametrize("chunk", [True, False])
def test_a_body_that_is_too_long_is_answered_413_though_its_sender_writes_on(
    function, fields, chunk
):
    size = 200 << 20
    framing = b"Transfer-Encoding: chunked" if chunk else b"Content-Length: %d" % size
    top = b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n" + fields + b"\r\n"
    found = uploading(function, top, size, chunk)
    assert b"connection: close" in found.lower()
    assert [(status, "longer" in body["error"]) for status, body in answers(found)] == [(413, True)]


@pytest.mark.parametrize(
    ("path", "status"), [(b"/nowhere", 404), (b"/v2", 405), (b"/_/health", 405)]
)
def test_other_early_answers_reach_a_peer_that_writes_on(function, path, status):
    top = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path, END, 50 << 20)
    assert statuses(uploading(function, top, 50 << 20)) == [status]


def test_after_an_early_answer_to_a_short_body_the_connection_goes_on(function):
    body = bytes(300_000)
    found = function.raw(post(body=body, path=b"/nowhere") + post(body=PICTURE, fields=END))
    assert statuses(found) == [404, 200]


@pytest.mark.parametrize("path", [b"/nowhere", b"/_/health", b"/"])
def test_a_body_that_never_ends_is_not_read_for_ever(function, path):
    """It is answered at once, or when it is too slow, and then cut off."""
    with socket.create_connection(("127.0.0.1", function.port), timeout=60) as sending:
        sending.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n" % path)
        sending.settimeout(connection.QUIET_SECONDS * 2 + 8)
        assert b"".join(iter(lambda: sending.recv(65536), b"")).startswith(b"HTTP/1.1 4")


def test_a_refused_peer_is_not_waited_for_at_the_end(start):
    with start(healthcheck_interval="50ms") as function, ExitStack() as stack:
        address = "127.0.0.1", function.port
        sending = stack.enter_context(socket.create_connection(address, timeout=20))
        sending.sendall(post(length=LIMIT + 1, body=b""))
        assert sending.recv(65536).startswith(b"HTTP/1.1 413 ")

        def write_on():
            with suppress(OSError):
                while True:
                    sending.sendall(bytes(1000))

        writer = threading.Thread(target=write_on)
        writer.start()
        function.terminate()
        assert function.process.wait(10) == 0
        writer.join()


# --- Expect ---


def test_expect_gets_100_only_where_the_body_is_wanted(function):
    with socket.create_connection(("127.0.0.1", function.port), timeout=20) as sending:
        sending.sendall(post(b"Expect: 100-continue\r\n" + END, b"", length=len(PICTURE)))
        assert sending.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sending.sendall(PICTURE)
        assert statuses(b"".join(iter(lambda: sending.recv(65536), b""))) == [200]
    expecting = b"Expect: 100-continue\r\n"
    found = function.raw(post(expecting, b"", length=LIMIT + 1))
    assert statuses(found) == [413]
    # Whether the body comes is open: the next request could be taken for it.
    found = function.raw(post(expecting, b"", path=b"/nowhere", length=9))
    assert statuses(found) == [404]
    assert b"connection: close" in found.lower()


def test_expect_of_http_1_0_is_ignored(function):
    old = post(b"Expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(function.raw(old)) == [200]


# --- who is asked ---


@pytest.mark.parametrize(
    "fields",
    [b"", b"Host: a\r\nHost: a\r\n", b"Host: a\r\nHost: b\r\n", b"Host: [\r\n", b"Host: a/b\r\n",
     b"Host: a b\r\n", b"Host: u@a\r\n", b"Host: a:b\r\n", b"Host: \xff\r\n", b"Host: a%zz\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("path", [b"/v2", b"/_/health", b"/nowhere"])
def test_a_host_that_is_missing_double_or_none_is_refused(function, fields, path):
    found = answers(function.raw(b"GET %s HTTP/1.1\r\n%s\r\n" % (path, fields)))
    assert [(status, "Host" in body["error"]) for status, body in found] == [(400, True)]


@pytest.mark.parametrize(
    "host",
    [b"", b"a", b"my_fn.openfaas:8080", b"127.0.0.1:8080", b"[::1]:8080", b"a:", b"xn--e1a.test"],
)
def test_any_host_is_answered(function, host):
    sent = b"GET /v2 HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host, END)
    assert statuses(function.raw(sent)) == [200]


def test_http_1_0_needs_no_host(function):
    assert statuses(function.raw(b"GET /v2 HTTP/1.0\r\n\r\n")) == [200]
    assert statuses(function.raw(b"GET /v2 HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n")) == [400]


# --- how long a head is ---


def sized(size):
    """Return a request whose line and headers are parsed into just `size` bytes."""
    fixed = len("/v2") + len("host: x\r\n") + len("connection: close\r\n") + len("a: \r\n")
    return b"GET /v2 HTTP/1.1\r\nHost: x\r\n%sA: %s\r\n\r\n" % (END, b"a" * (size - fixed))


@pytest.mark.parametrize("step", [1 << 20, 50_000, 4_000])
def test_a_head_has_its_limit_however_it_arrives(function, step):
    for size, status in ((head.LONGEST - 100, 200), (head.LONGEST + 1, 431), (200_000, 431)):
        sent = sized(size)
        pieces = [sent[i : i + step] for i in range(0, len(sent), step)]
        assert statuses(in_pieces(function, pieces)) == [status], size
        sent = post() + sent  # after another request, in the same bytes too
        pieces = [sent[i : i + step] for i in range(0, len(sent), step)]
        found = statuses(in_pieces(function, pieces))
        assert found == [200, 200] if status == 200 else found == [200], size


@pytest.mark.parametrize(
    "data",
    [b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 20_000, b"GET /" + b"a" * 70_000,
     b"GET /v2 HTTP/1.1\r\nHost: x\r\nA:" + b" " * 400_000, b"\r\n" * 200_000,
     b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * (head.MOST_FIELDS + 1) + b"\r\n",
     chunked(trailers=b"A: a\r\n" * 20_000), chunked(trailers=b"A: " + b"a" * 900_000),
     chunked(pieces=[b"x"] * 100_000),
     post(b"Transfer-Encoding: chunked\r\n", b"").replace(b"Content-Length: 0\r\n", b"")
     + b"1;" + b"a" * 900_000],
)  # fmt: skip
def test_more_than_the_limit_beside_the_body_is_refused(function, data):
    found = function.raw(data)
    assert statuses(found) == [431]


def test_trailers_are_no_headers(function):
    found = answers(function.raw(chunked(END, trailers=b"X-Call-Id: late\r\nHost: y\r\n")))
    assert [status for status, _ in found] == [200]
    assert "call-id=late" not in function.log.read_text()


def test_an_empty_line_does_not_keep_a_connection_open(function):
    """After it, the head has its ten seconds, as at the start."""
    with socket.create_connection(("127.0.0.1", function.port), timeout=30) as sending:
        sending.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        found = b""
        while not found.endswith(b"}"):
            found += sending.recv(65536)
        sending.sendall(b"\r\n")
        assert sending.recv(65536) == b""


# --- where a body ends ---


@pytest.mark.parametrize(
    ("fields", "status"),
    [(b"gzip, chunked", 501), (b"chunked, gzip", 400), (b"identity", 501), (b"xchunked", 501),
     (b"chunked, chunked", 400), (b"chunked\r\nTransfer-Encoding: chunked", 400),
     (b"gzip\r\nTransfer-Encoding: chunked", 501), (b"\x0bchunked", 400), (b"", 400)],
)  # fmt: skip
def test_other_transfer_codings_are_refused(function, fields, status):
    sent = chunked(END).replace(b"Encoding: chunked", b"Encoding: " + fields)
    assert statuses(function.raw(sent)) == [status]


def test_transfer_encoding_of_http_1_0_is_refused(function):
    assert statuses(function.raw(chunked().replace(b"HTTP/1.1", b"HTTP/1.0"))) == [400]


@pytest.mark.parametrize("size", [b"-1", b"0x5", b"+5", b"5 5", b"fffffffffffffffff", b"", b"g"])
def test_chunks_of_no_size_are_refused(function, size):
    start = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(function.raw(start + size + b"\r\nhello\r\n0\r\n\r\n")) == [400]


def test_a_bad_request_takes_no_answer_from_those_before_it(function):
    """Each whole request gets its own; what follows them is not answered."""
    bad = (b"\0\0\0\0", b"GET /v2 HTTP/1.1\r\n\r\n", chunked()[: -len(b"0\r\n\r\n")] + b"zz\r\n")
    for last in bad:
        assert statuses(function.raw(post() + post() + last)) == [200, 200]
        assert statuses(function.raw(last)) == [400]


def test_many_requests_sent_at_once_are_no_long_head(function):
    asked = b"GET /_/health HTTP/1.1\r\nHost: x\r\n\r\n" * 8_000  # 304 KB
    last = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    found = function.raw(asked + last)
    assert found.count(b"HTTP/1.1 200 ") == 8_001
    assert found.count(b"HTTP/1.1 ") == 8_001


# --- the port of the metrics ---


def test_the_port_of_the_metrics_has_the_same_limits(function):
    def ask(data):
        with socket.create_connection(("127.0.0.1", function.metrics_port), timeout=60) as sending:
            sending.sendall(data)
            return b"".join(iter(lambda: sending.recv(65536), b""))

    good = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert b"http_requests_in_flight" in ask(good + b"\r\n")
    assert statuses(ask(b"GET /metrics HTTP/1.1\r\n\r\n")) == [400]
    assert statuses(ask(good + b"X: " + b"y" * 70_000 + b"\r\n\r\n")) == [431]
    assert statuses(ask(good + b"X: y\r\n" * 200 + b"\r\n")) == [431]


def test_peers_that_send_no_head_to_the_port_of_the_metrics_are_dropped(function):
    """A thread waited for each of them, for ever."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", function.metrics_port), timeout=60)
            )
            for _ in range(50)
        ]
        for peer in peers:
            peer.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert function.metrics()["http_requests_in_flight"] >= 0
        assert [peer.recv(1) for peer in peers] == [b""] * 50


def test_the_function_still_answers_after_all_that(function):
    until(lambda: function.metrics()["http_requests_in_flight"] == 0)
    assert function.ask(body=PICTURE).status == 200
    assert "Traceback" not in function.log.read_text()
