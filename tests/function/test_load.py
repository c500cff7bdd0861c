"""Under load: a successor takes over without a lost request, and bad bodies cost no memory.

PLATELINE_SOAK sets the seconds of each; the plan's ten minutes are PLATELINE_SOAK=600.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from builder.sandbox.bubblewrap import Bubblewrap

from .running import Client, png, serving

SECONDS = float(os.environ.get("PLATELINE_SOAK", "15"))
MEGABYTE = 1 << 20


class Gateway:
    """What stands before the instances: asks who is healthy, and sends on to those."""

    def __init__(self, functions):
        self._functions = functions
        self._healthy = tuple(functions)

    def watch(self, stop):
        while not stop.wait(0.1):
            self._healthy = tuple(f for f in self._functions if f.ready())

    def send(self, clients, body):
        """Ask one healthy instance once; nothing is asked a second time."""
        function = random.choice(self._healthy)
        return clients.setdefault(function.port, Client(function.port)).ask(body=body)


@pytest.mark.slow
def test_no_request_is_lost_when_one_instance_ends_and_another_takes_over(built, image, models):
    sandbox, picture = Bubblewrap(built), png(noise=True)
    with ExitStack() as stack:
        settings = {"healthcheck_interval": "1s", "exec_timeout": "30s"}
        first = stack.enter_context(serving(sandbox, image, models, **settings))
        functions = [first]
        gateway = Gateway(functions)
        stop, found, problems = threading.Event(), Counter(), []

        def load():
            clients = {}
            while not stop.is_set():
                try:
                    answer = gateway.send(clients, picture)
                    found[answer.status] += 1
                    time.sleep(0.005)
                except (OSError, http.client.HTTPException) as error:
                    problems.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(8)]
        threads.append(threading.Thread(target=gateway.watch, args=(stop,)))
        for thread in threads:
            thread.start()
        try:
            time.sleep(SECONDS / 2)
            functions.append(stack.enter_context(serving(sandbox, image, models, **settings)))
            time.sleep(0.5)
            ended = first.running.stop(grace=60)
            time.sleep(SECONDS / 2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert ended.code == 0
        assert problems == []
        assert set(found) == {200}
        counted = functions[1].metrics()['http_requests_total{code="200",method="POST"}']
        assert 0 < counted < found[200]  # both took part
        print(f"{found[200]} requests, {counted:.0f} by the second instance")


def bad_bodies():
    """Yield bodies for ever: each kind of the reliability list, and damaged good ones."""
    good, dice = png(noise=True), random.Random(3)
    short = png()
    bomb = bytearray(short)
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    fixed = [
        b"", b"x", b"hello " * 100, good[:5000], bytes(bomb), b"GIF89a" + bytes(1000),
        json.dumps({"image": base64.b64encode(short[:500]).decode()}).encode(),
        bytes(3 * MEGABYTE),
    ]  # fmt: skip
    for turn in itertools.count():
        yield from fixed
        for _ in range(40):
            data = bytearray(good)
            for _ in range(dice.randint(1, 6)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            yield bytes(data)
        if turn % 8 == 0:
            yield (bytes(MEGABYTE) for _ in range(100))  # 100 MB, chunked


@pytest.mark.slow
def test_bad_bodies_grow_the_memory_by_less_than_50_mb(built, image, models):
    with serving(Bubblewrap(built), image, models) as function:
        bodies, lock = bad_bodies(), threading.Lock()
        found = Counter()

        def load(limit):
            client = Client(function.port)
            while time.monotonic() < limit:
                with lock:
                    body = next(bodies)
                found[client.ask(body=body).status] += 1
            client.close()

        def memory():
            return function.metrics()["process_resident_memory_bytes"]

        def run(seconds):
            """Return the most memory seen while 16 connections send bad bodies."""
            limit, most = time.monotonic() + seconds, 0.0
            with ThreadPoolExecutor(16) as pool:
                loading = [pool.submit(load, limit) for _ in range(16)]
                while time.monotonic() < limit:
                    most = max(most, memory())
                    time.sleep(0.2)
                for done in loading:
                    done.result()
            return most

        run(3)  # every path has been taken once
        before = memory()
        most = run(SECONDS)
        after = memory()
        print(f"{sum(found.values())} bodies {dict(found)}, {before / 1e6:.0f} MB before, "
              f"{most / 1e6:.0f} MB at most, {after / 1e6:.0f} MB after")  # fmt: skip
        assert most - before < 50e6
        assert {status for status in found if status >= 500} == set()
        assert function.ask(body=png()).status == 200
