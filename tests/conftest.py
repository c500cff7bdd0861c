"""Real peers for the tests: a registry process on loopback, and the Docker Engine if it answers."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

from builder.registry.transport import Timing
from builder.store import Store
from tests import registries

# A plate that cannot be handed on; KFP's own programs, which only a person can bring; and those
# that Go compiles for minutes, which `.ci/run` does where it can; podman's generator, new in 4.4.
MAY_LACK = ("BBBC013", "PLATELINE_KFP_DRIVER", "cosign is missing", "oras is missing",
            "regctl is missing", "the Go module", "quadlet is missing")  # fmt: skip


def pytest_configure() -> None:
    """Take Ctrl-C as a person's shell has it: the children of a background job would ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: none is left for one worker alone at the end.

    A slow test takes as long as some fifty others.
    """
    weights: Counter[Path] = Counter()
    for item in items:
        weights[item.path] += 50 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])


def missing(what: str, command: str) -> None:
    """Skip with the command that would enable the test."""
    pytest.skip(f"{what} is missing; {command}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that was skipped where PLATELINE_REQUIRE_ALL is set, but for `MAY_LACK`."""
    report = yield
    required = os.environ.get("PLATELINE_REQUIRE_ALL")
    lacks = str(report.longrepr)
    if required and report.skipped and not any(name in lacks for name in MAY_LACK):
        report.outcome = "failed"
        report.longrepr = f"PLATELINE_REQUIRE_ALL is set, but: {report.longrepr}"
    return report


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def in_memory() -> bool:
    """Tell whether `registry_host` is in memory; where images are small a folder says it is."""
    return False


@pytest.fixture
def registry_host(tmp_path: Path, in_memory: bool) -> Iterator[str]:
    """Yield HOST:PORT of an empty registry of Debian's package, ended after the test."""
    if not shutil.which(registries.PROGRAM):
        missing("docker-registry", "apt-get install docker-registry")
    with registries.serve(tmp_path / "registry", in_memory=in_memory) as host:
        yield host


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request to a registry be tried once: one that is not there does not come meanwhile."""
    monkeypatch.setattr("builder.registry.connection.Timing", partial(Timing, tries=1))


@pytest.fixture
def rot() -> Callable[[Store, str], None]:
    """Return a function that flips a bit of a blob and puts the file's time back."""

    def flip(store: Store, digest: str) -> None:
        path = store.path(digest)
        status, data = path.stat(), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return flip
