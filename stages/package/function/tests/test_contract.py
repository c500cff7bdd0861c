"""OpenFaaS' workload contract: health, readiness, limits, time, metrics, and the end."""

import hashlib
import os
import socket
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from common.errors import StageError
from conftest import encode, launch, tile, until
from function import settings
from function.contract import time_limit
from function.models import load
from function.service import Service
from function.settings import Settings, duration

LOCK = Path("/tmp/.lock")
PICTURE = encode(tile())
# Some 128 tiles: enough work to see it while it is done.
WELL = encode(np.zeros((2048, 4096, 3), np.uint8), compress_level=1)


@pytest.mark.parametrize("path", ["/_/health", "/_/ready"])
def test_health_and_readiness_answer_get_only(function, path):
    assert function.ask("GET", path).status == 200
    for method in ("POST", "HEAD", "PUT", "DELETE"):
        assert function.ask(method, path).status == 405


def test_until_the_models_are_loaded_nothing_is_ready_and_there_is_no_lock(models, tmp_path):
    """A model file that is a pipe holds the function where it reads it."""
    pipe = models / "A.onnx"
    data = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    LOCK.unlink(missing_ok=True)
    function = launch(models, tmp_path / "log")
    try:

        def status(method, path):
            try:
                return function.ask(method, path, PICTURE if method == "POST" else None).status
            except OSError:
                return 0

        until(lambda: status("GET", "/_/health"))
        assert status("GET", "/_/health") == 503
        assert status("GET", "/_/ready") == 503
        assert status("HEAD", "/_/ready") == 405
        assert status("POST", "/") == 503
        assert status("GET", "/v2/models/A") == 503
        assert status("GET", "/v2/health/live") == 200
        assert not LOCK.exists()
    finally:
        with pipe.open("wb") as stream:  # the digest is that of the file: then it is a file no more
            stream.write(data)
        function.process.kill()
        function.process.wait()


def test_a_model_changed_by_one_byte_is_not_served(models, tmp_path):
    path = models / "B.onnx"
    data = bytearray(path.read_bytes())
    wanted = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    path.write_bytes(data)
    function = launch(models, tmp_path / "log")
    assert function.process.wait(20) == 1
    text = function.log.read_text()
    assert f"manifest.json wants {wanted}" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "A.onnx").unlink(), "cannot read"),
        (lambda f: (f / "manifest.json").unlink(), "cannot read the models"),
        (lambda f: (f / "manifest.json").write_text("[]"), "cannot read the models"),
        (lambda f: (f / "manifest.json").write_text('{"format": 9}'), "format 9"),
        (lambda f: (f / "manifest.json").write_text('{"format": 1, "models": []}'), "no model"),
    ],
)
def test_models_that_cannot_be_loaded_are_named(models, tmp_path, spoil, message):
    spoil(models)
    function = launch(models, tmp_path / "log")
    assert function.process.wait(20) == 1
    text = function.log.read_text()
    assert message in text
    assert "Traceback" not in text


def test_a_taken_port_is_named(models, tmp_path, function):
    second = launch(models, tmp_path / "log", METRICS_PORT=str(function.metrics_port))
    assert second.process.wait(20) == 1
    assert "set METRICS_PORT" in second.log.read_text()


def asking(function, *bodies, **headers):
    """Ask in threads; return them and the list that fills with answers."""
    answers = []
    threads = [
        threading.Thread(target=lambda b=body: answers.append(function.ask(body=b, **headers)))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    return threads, answers


def test_one_request_too_many_is_turned_away_and_health_stays(start):
    with start(max_inflight="2", exec_timeout="60s") as function:
        threads, answers = asking(function, *[WELL] * 2)
        until(lambda: function.ask("GET", "/_/ready").status == 429)
        refused = function.ask(body=PICTURE)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert function.ask("GET", "/_/health").status == 200
        assert function.ask("GET", "/v2").status == 200
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200, 200]
        assert function.ask("GET", "/_/ready").status == 200


@pytest.mark.parametrize(
    ("limit", "asked", "seconds"),
    [("300ms", "", b"0.3 s"), ("300ms", "1h", b"0.3 s"), ("300ms", "never", b"0.3 s"),
     ("1m", "200ms", b"0.2 s")],
)  # fmt: skip
def test_a_request_beyond_its_time_gets_504_and_x_timeout_only_shortens_it(
    start, limit, asked, seconds
):
    """Its body does not come, so that it takes longer than any limit."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX-Timeout: {asked}\r\n"
    with start(exec_timeout=limit) as function:
        answer = function.raw(f"{head}Connection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"longer than " + seconds in answer


def test_inference_that_takes_too_long_is_given_up(start):
    with start() as function:
        assert function.ask(body=WELL, X_Timeout="20ms").status == 504
        # What was not begun is not done: 256 pieces of work would have been.
        done = function.metrics().get('inference_duration_seconds_count{model="B"}', 0)
        assert done < 128
        assert function.ask(body=PICTURE).status == 200


def test_a_body_that_comes_too_slowly_gets_408(start):
    with start(read_timeout="200ms") as function:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
        assert function.raw(head + b"x").startswith(b"HTTP/1.1 408 ")


def test_a_peer_that_does_not_read_its_answers_is_cut_off(start):
    with start(write_timeout="300ms") as function:
        before = function.metrics()["process_resident_memory_bytes"]
        with socket.create_connection(("127.0.0.1", function.port), timeout=20) as connection:
            asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                connection.sendall(asked * 1000)  # far more than all buffers hold
        assert function.ask(body=PICTURE).status == 200
        assert function.metrics()["process_resident_memory_bytes"] < before + (60 << 20)
        assert "Traceback" not in function.log.read_text()


def test_a_peer_that_goes_away_while_it_sends_is_counted_and_no_defect(start):
    with start() as function:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello"
        with socket.create_connection(("127.0.0.1", function.port)) as connection:
            connection.sendall(head)
        gone = 'http_requests_total{code="499",method="POST"}'
        until(lambda: function.metrics().get(gone) == 1)
        assert "Traceback" not in function.log.read_text()


def test_no_time_limits_are_no_limits(start):
    none = dict.fromkeys(("exec_timeout", "read_timeout", "write_timeout"), "0s")
    with start(**none) as function:
        assert function.ask(body=WELL).status == 200


def test_the_calls_id_is_logged_and_sent_back_with_the_time_it_took(function):
    answer = function.ask(body=PICTURE, X_Call_Id="abc-123")
    assert answer.headers["x-call-id"] == "abc-123"
    assert 0 < float(answer.headers["x-duration-seconds"]) < 20
    until(lambda: "call-id=abc-123" in function.log.read_text())
    assert "x-call-id" not in function.ask(body=PICTURE).headers


def test_an_id_cannot_forge_a_line_of_the_log(function):
    answer = function.ask(body=PICTURE, X_Call_Id="a b\tc\x80d" + "x" * 500)
    assert answer.headers["x-call-id"] == "abcd" + "x" * 124


def test_metrics_count_answers_and_inference(start):
    with start() as function:
        for _ in range(3):
            function.ask(body=PICTURE)
        function.ask(body=b"x")
        function.ask("GET", "/_/health")
        found = function.metrics()
        assert found['http_requests_total{code="200",method="POST"}'] == 3
        assert found['http_requests_total{code="400",method="POST"}'] == 1
        assert found['http_request_duration_seconds_count{code="200",method="POST"}'] == 3
        assert found['inference_duration_seconds_count{model="A"}'] == 3
        assert found["http_requests_in_flight"] == 0
        assert not any('method="GET"' in name for name in found)  # asking for health counts not


def test_metrics_add_up_under_load(start):
    with start(exec_timeout="60s") as function:
        threads, answers = asking(function, *[PICTURE] * 100)
        for thread in threads:
            thread.join()
        assert len(answers) == 100
        found = until(lambda: (m := function.metrics())["http_requests_in_flight"] == 0 and m)
        assert found['http_requests_total{code="200",method="POST"}'] == 100
        assert found['inference_duration_seconds_count{model="B"}'] == 100


def test_sigterm_fails_health_at_once_serves_on_and_ends_with_0(start):
    with start(healthcheck_interval="1s") as function:
        assert LOCK.exists()
        threads, answers = asking(function, WELL)
        until(lambda: function.metrics()["http_requests_in_flight"] == 1)
        began = time.monotonic()
        function.terminate()
        until(lambda: function.ask("GET", "/_/health").status == 503, 1)
        assert not LOCK.exists()
        assert function.ask("GET", "/_/ready").status == 503
        late = function.ask(body=PICTURE)
        assert (late.status, late.headers["connection"]) == (200, "close")
        assert function.process.wait(30) == 0
        assert time.monotonic() - began > 1
        threads[0].join()
        assert answers[0].status == 200
        assert "Traceback" not in function.log.read_text()


def test_a_request_that_outlasts_the_interval_is_answered(start):
    with start(healthcheck_interval="50ms") as function:
        with socket.create_connection(("127.0.0.1", function.port)) as connection:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
            connection.sendall(head.encode())
            until(lambda: function.metrics()["http_requests_in_flight"] == 1)
            function.terminate()
            time.sleep(1.5)  # the function accepts no more now, but waits for this one
            assert function.process.poll() is None
            connection.sendall(PICTURE)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert function.process.wait(10) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("10", 10),
        ("0", 0),
        ("2us", 2e-6),
    ],
)
def test_durations_are_go_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-1s", "s", "1 s", "1d", "١s", "1s1", "1" * 60_000 + "x", "1.1." * 20_000]
)
def test_other_words_are_no_durations(text):
    with pytest.raises(ValueError, match="no duration"):
        duration(text)


@pytest.mark.parametrize("text", ["9" * 5000, "2562048h", "9" * 400 + "s"])
def test_durations_are_not_longer_than_gos(text):
    """292 years; asyncio takes no infinite ones."""
    with pytest.raises(ValueError, match="292 years"):
        duration(text)
    assert duration("2562047h") == 2562047 * 3600


@pytest.mark.parametrize("asked", ["1" * 50_000 + "x", "9" * 5000])
def test_a_strange_x_timeout_costs_nothing(start, asked):
    with start(exec_timeout="0s") as function:
        began = time.monotonic()
        assert function.ask(body=PICTURE, X_Timeout=asked).status == 200
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("limit", "asked", "found"),
    [(10, None, 10), (10, "5s", 5), (10, "20s", 10), (10, "x", 10), (10, "0s", 10), (0, None, None),
     (0, "5s", 5)],
)  # fmt: skip
def test_x_timeout_only_shortens(limit, asked, found):
    assert time_limit(limit, asked) == found


@pytest.mark.parametrize(
    ("quota", "found"), [("max 100000", 64), ("150000 100000", 2), ("1000 100000", 1), ("", 64)]
)
def test_there_are_as_many_workers_as_cores_that_may_be_used(tmp_path, monkeypatch, quota, found):
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    monkeypatch.setattr(settings, "_CPU_MAX", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert Settings.of({}).workers == found
    assert Settings.of({"workers": "3"}).workers == 3


def test_a_lock_that_cannot_be_written_is_named(models, tmp_path):
    service = Service(Settings(models=models, lock=tmp_path / "no" / ".lock"))
    with pytest.raises(StageError, match=r"no/\.lock: .* mount a writable /tmp"):
        service.load(partial(load, models))
    assert not service.healthy


@pytest.mark.parametrize(
    ("name", "value"),
    [("exec_timeout", "soon"), ("max_inflight", "-1"), ("PORT", "x"), ("workers", "0")],
)
def test_a_setting_that_cannot_be_read_is_named(name, value):
    with pytest.raises(StageError, match=name):
        Settings.of({name: value})
