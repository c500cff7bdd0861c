"""What bodies cost: slow ones cost others nothing, and all of them together have a limit."""

import asyncio
import base64
import json
import socket
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from common.errors import StageError
from conftest import encode, tile, until
from function import bodies, pictures, tensors
from function.bodies import Bodies, Body, TooSlowError
from function.settings import Settings
from hypothesis import example, given, settings
from hypothesis import strategies as st

MEGABYTE = 1 << 20
PICTURE = encode(tile())


# --- how slowly one may come ---


def fed(*parts):
    """Return what gives parts after pauses, as a server does, and then nothing for ever."""
    left = list(parts)

    async def receive():
        if not left:
            await asyncio.Event().wait()
        pause, size = left.pop(0)
        await asyncio.sleep(pause)
        return {"body": bytes(size), "more_body": bool(left)}

    return receive


async def whole(body, receive, most_seconds=None):
    more = True
    while more:
        message = await body.read(receive, most_seconds)
        await body.hold(len(message["body"]))
        more = message["more_body"]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    monkeypatch.setattr(bodies, "SLOWEST", 1000)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(bodies, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


@pytest.mark.parametrize(
    "parts",
    [[(0, 50_000), (9, 1)],  # much at once is no credit for later
     [(0, 1)] + [(0.02, 1)] * 99,  # something all the time, but too little
     [(9, 1)]],
)  # fmt: skip
def test_a_body_below_the_minimum_rate_is_given_up(impatient, parts):
    async def run():
        with pytest.raises(TooSlowError, match="less than 1000 bytes a second") as caught:
            await asyncio.wait_for(whole(Body(Bodies(MEGABYTE)), fed(*parts)), 5)
        assert caught.value.status == 408

    asyncio.run(run())


def test_a_body_at_the_minimum_rate_may_take_as_long_as_it_needs(impatient):
    async def run():
        body = Body(Bodies(MEGABYTE))
        await whole(body, fed(*[(0.02, 100)] * 40))
        assert body.size == 4000

    asyncio.run(run())


def test_waiting_for_room_is_not_held_against_a_body(clock):
    async def run():
        room = Bodies(100)
        other, body = Body(room), Body(room)
        await whole(other, fed((0, 90)))
        first = Body(room)
        await whole(first, fed((0, 90)))  # the one that may go on without room
        waiting = asyncio.create_task(whole(body, fed((0, 90), (0, 10))))
        while not body.size:
            await asyncio.sleep(0)
        clock.now += 60
        assert not waiting.done()
        other.close()
        first.close()
        await waiting

    asyncio.run(run())


# --- all together ---

sizes = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(0, 3))
def test_bodies_have_a_limit_together_and_none_waits_for_ever(parts, pauses):
    """Whatever their sizes, and however they come together; none is slow."""
    most, longest = 150, 120

    async def run():
        room, held, seen = Bodies(most), [], []

        async def request(pieces):
            body = Body(room)
            held.append(body)
            try:
                await whole(body, fed(*[(0, size) for size in pieces]))
                seen.append(sum(each.held for each in held))
                for _ in range(pauses):  # while it is answered
                    await asyncio.sleep(0)
                    seen.append(sum(each.held for each in held))
            finally:
                body.close()

        await asyncio.wait_for(asyncio.gather(*map(request, parts)), 20)
        assert len(seen) == len(parts) * (1 + pauses)
        assert max(seen) <= most + longest
        assert sum(each.held for each in held) == 0

    asyncio.run(run())


def test_where_room_is_short_the_slowest_goes_and_not_the_newest(clock):
    async def run():
        room = Bodies(1000)
        stalled = [Body(room) for _ in range(3)]
        tasks = [
            asyncio.create_task(whole(body, fed((0, size), (60, 1))))
            for body, size in zip(stalled, (300, 200, 400), strict=True)
        ]
        while sum(body.held for body in stalled) < 900:
            await asyncio.sleep(0)
        clock.now += 1
        await whole(Body(room), fed((0, 200), (0, 50)))  # 150 bytes too many
        done, _ = await asyncio.wait(tasks, timeout=1)
        assert done == {tasks[1]}
        with pytest.raises(TooSlowError, match="memory is short") as caught:
            tasks[1].result()
        assert caught.value.status == 503
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def test_slow_bodies_keep_no_picture_waiting_and_memory_stays(start):
    """Each has sent more than others may hold together, and stops."""
    picture = encode(np.random.default_rng(0).integers(0, 256, (768, 768, 3), np.uint8))
    assert len(picture) > MEGABYTE
    with start(max_bodies=str(32 * MEGABYTE)) as function, ExitStack() as stack:
        assert function.ask(body=picture).status == 200
        before = function.metrics()["process_resident_memory_bytes"]
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
        for _ in range(100):
            slow = socket.create_connection(("127.0.0.1", function.port), timeout=20)
            stack.enter_context(slow).sendall(head + bytes(1_100_000))
        began = time.monotonic()
        assert function.ask(body=picture).status == 200
        # A slow body may stay for five seconds, all of them 30.
        assert time.monotonic() - began < 4
        grown = function.metrics()["process_resident_memory_bytes"] - before
        assert grown < 100 * MEGABYTE
        until(lambda: function.metrics()["http_requests_in_flight"] == 0)
        assert "Traceback" not in function.log.read_text()


def test_there_must_be_room_for_one_body():
    with pytest.raises(StageError, match=r"max_bodies=5 .* max_body"):
        Settings.of({"max_bodies": "5"})


# --- one request ---


def peak(function, *arguments):
    """Return the most bytes that a call had in use at a time; a refusal ends it as well."""
    tracemalloc.start()
    try:
        function(*arguments)
    except StageError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


ELEMENTS = [
    "0", "255", "-1", "256", "1e9", "0.5", "NaN", "true", "null", "9" * 4000, '"b"', '"\\ud83d"',
    '"😀"', "[]", "[0]", "[0,0,0]", "{}", '{"a":1}', "[" * 50 + "]" * 50,
]  # fmt: skip
first = st.sampled_from(ELEMENTS) | st.integers(1, 20_000).map(lambda n: f'"{"a" * n}"')
shapes = st.sampled_from(["[1,256,256,3]", "[2,256,256,3]", "[999999999,256,256,3]", "[]"])


@settings(max_examples=60, deadline=None)
@given(first, st.sampled_from(ELEMENTS), st.integers(0, 60_000), shapes)
@example('"' + "a" * 20_000 + '"', '"b"', 50_000, "[1,256,256,3]")
@example('"' + "a" * 20_000 + '"', '"b"', 196_607, "[1,256,256,3]")
@example("0", "1e9", 900_000, "[1,256,256,3]")
@example("0", "[]", 900_000, "[1,256,256,3]")
@example("0", "[777]", 600_000, "[1,256,256,3]")
@example("0", '"b"', 900_000, "[1,256,256,3]")
@example("0", "255", 196_607, "[1,256,256,3]")
def test_a_json_tensor_takes_at_most_25_times_its_bytes(one, each, count, shape):
    data = "[" + ",".join([one] + [each] * count) + "]"
    tensor = f'{{"name":"tiles","datatype":"UINT8","shape":{shape},"data":{data}}}'
    body = f'{{"inputs":[{tensor}]}}'.encode()
    assert peak(tensors.decode, body) <= 25 * min(len(body), tensors.LONGEST_JSON) + 100_000


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(-2, 2), st.integers(0, 200))
def test_a_binary_tensor_takes_no_more_than_its_body(count, more, cut):
    size = count * tile().size
    tensor = {"name": "tiles", "datatype": "UINT8", "shape": [count, 256, 256, 3],
              "parameters": {"binary_data_size": size + more}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + bytes(max(0, size - cut))
    assert peak(tensors.decode, body, [str(len(head))]) <= 100_000


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ELEMENTS), st.integers(0, 200_000), st.sampled_from(["", "é", "😀"]))
@example("[]", 1_000_000, "")
@example("0", 0, "😀")
def test_a_picture_in_json_takes_at_most_12_times_its_bytes(each, count, note):
    text = base64.b64encode(bytes(3_000_000)).decode()
    values = ",".join([each] * count)
    body = f'{{"note": "{note}", "image": "{text}", "values": [{values}]}}'.encode()
    assert peak(pictures.of_json, body) <= 12 * len(body) + 100_000


def most_memory(function):
    status = Path(f"/proc/{function.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_small_bodies_of_large_pictures_do_not_lie_in_memory_together(start):
    """Each takes some kilobytes to send, and 12 MB when it is decoded."""
    large = encode(np.zeros((2048, 2048, 3), np.uint8))
    assert len(large) < 100_000
    with start(workers="2", exec_timeout="2m") as function, ExitStack() as stack:
        assert function.ask(body=large).status == 200
        before = most_memory(function)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        asking = []
        for _ in range(40):
            connection = socket.create_connection(("127.0.0.1", function.port), timeout=120)
            asking.append(stack.enter_context(connection))
            connection.sendall(head % len(large) + large)
        for connection in asking:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert most_memory(function) - before < 200 * MEGABYTE


def test_one_small_request_never_takes_much_of_the_process(start):
    strings = ",".join(['"' + "a" * 20_000 + '"'] + ['"b"'] * 50_000)
    body = '{"inputs":[{"name":"tiles","datatype":"UINT8","shape":[1,256,256,3],"data":[%s]}]}'
    with start() as function:
        assert function.ask(body=PICTURE).status == 200
        before = most_memory(function)
        answer = function.ask("POST", "/v2/models/A/infer", body % strings)
        assert answer.status == 400
        assert most_memory(function) - before < 25 * MEGABYTE
