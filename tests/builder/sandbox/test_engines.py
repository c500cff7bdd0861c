"""An image runs by the first engine that can; where none can, the message says what is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.sandbox import docker, engines
from builder.sandbox.host import System, needs
from builder.store import Store

ROOT = Path(__file__).parents[3]


class Fake:
    def __init__(self, name: str) -> None:
        self.name = name


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def make(name: str):
        def run(_: Store) -> Fake:
            if name in names:
                return Fake(name)
            raise BuilderError(f"no {name} here: it is off; turn {name} on")

        return run

    monkeypatch.setattr(engines, "_MAKE", {n: make(n) for n in ("bubblewrap", "podman", "docker")})


@pytest.mark.parametrize(
    ("there", "taken", "said"),
    [
        (("bubblewrap", "podman", "docker"), "bubblewrap", []),
        (("podman", "docker"), "podman",
         ["images run by podman: no bubblewrap here: it is off (`invoke doctor` says more)"]),
        (("docker",), "docker",
         ["images run by docker: no bubblewrap here: it is off (`invoke doctor` says more)"]),
    ],
)  # fmt: skip
def test_auto_takes_the_first_that_runs_and_says_why(store, monkeypatch, there, taken, said):
    only(monkeypatch, *there)
    lines: list[str] = []
    assert engines.choose("auto", store, lines.append).name == taken
    assert lines == said


def test_where_none_runs_each_says_what_it_needs(store, monkeypatch) -> None:
    only(monkeypatch)
    with pytest.raises(BuilderError) as error:
        engines.choose("auto", store)
    for name in ("bubblewrap", "podman", "docker"):
        assert f"turn {name} on" in str(error.value)


@pytest.mark.parametrize("name", ["process", "slurm", "Docker", ""])
def test_an_engine_that_is_not_there_is_refused_by_name(store: Store, name: str) -> None:
    with pytest.raises(BuilderError, match=f".{name}."):
        engines.choose(name, store)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (System(max_namespaces="0"), ["user.max_user_namespaces=15000"]),
        (System(clone="0"), ["kernel.unprivileged_userns_clone=1"]),
        (System(apparmor="1", program="/a/bwrap"), ['profile plateline-bwrap "/a/bwrap"',
                                                    "userns,", "apparmor_parser -r"]),
        (System(container=True), ["seccomp=unconfined", "systempaths=unconfined", "procMount"]),
        (System(chroot=True), ["systemd-nspawn"]),
        (System(max_namespaces="0", container=True), ["max_user_namespaces"]),
    ],
)  # fmt: skip
def test_what_a_system_lacks_has_a_command(system: System, words: list[str]) -> None:
    ((_, remedy),) = needs(system)
    assert all(word in remedy for word in words)


def test_a_system_that_lacks_nothing_needs_nothing() -> None:
    assert needs(System(max_namespaces="9", clone="1", apparmor="0")) == []


def test_a_socket_that_may_not_be_used_is_told_from_none(tmp_path, monkeypatch) -> None:
    socket = tmp_path / "docker.sock"
    url = f"unix://{socket}"
    assert "there is no Docker socket" in docker._unreachable(url, "x")
    socket.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not use its socket" in docker._unreachable(url, "x")
    assert "usermod -aG docker" in docker._unreachable(url, "x")
    assert "podman has no socket" in docker._unreachable("unix:///run/podman/podman.sock", "x")


ASK = """
import sys, tempfile
sys.path.insert(0, {root!r})
from pathlib import Path
from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.store import Store
try: print("TAKEN", choose("auto", Store.open(Path(tempfile.mkdtemp(), "s"))).name)
except BuilderError as error: print("REFUSED", error)
"""


def test_without_user_namespaces_the_next_engine_or_the_sysctl_is_named() -> None:
    code = (
        "echo 0 > /proc/sys/user/max_user_namespaces && "
        f"exec {sys.executable} -c '{ASK.format(root=str(ROOT)).replace(chr(39), chr(34))}'"
    )
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", code], capture_output=True, check=False)
    if b"unshare failed" in done.stderr:
        pytest.skip("user namespaces are off here already; switch them on")
    text = (done.stdout + done.stderr).decode()
    assert "user namespaces are off" in text
    assert "TAKEN bubblewrap" not in text


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], "seccomp=unconfined"),
        (["--security-opt", "seccomp=unconfined"], "systempaths=unconfined"),
        (["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
          "--security-opt", "systempaths=unconfined"], "TAKEN bubblewrap"),
    ],
)  # fmt: skip
def test_a_plain_container_is_told_its_flags_and_they_suffice(store, tmp_path, flags, wanted):
    try:
        client = docker.Docker(store).client
    except BuilderError as error:
        pytest.skip(str(error))
    if shutil.which("docker") is None:
        pytest.skip("docker is missing; apt-get install docker.io")
    (tmp_path / "root").mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / "root" / name).symlink_to(f"usr/{name}")
    for name in ("usr", "etc", "tmp", "proc", "dev", "run", "var"):
        (tmp_path / "root" / name).mkdir()
    (tmp_path / "root/tmp").chmod(0o1777)
    subprocess.run(["tar", "cf", tmp_path / "i.tar", "-C", tmp_path / "root", "."], check=True)
    with (tmp_path / "i.tar").open("rb") as archive:
        said = subprocess.run(
            ["docker", "import", "-"], stdin=archive, capture_output=True, check=True
        )
    image = said.stdout.decode().strip()
    folders = {"/usr", "/etc", str(ROOT), sys.base_prefix, str(Path(sys.prefix).resolve())}
    mounts = [word for f in sorted(folders) for word in ("-v", f"{f}:{f}:ro")]
    try:
        done = subprocess.run(
            ["docker", "run", "--rm", "--network=none", "--user=1000:1000", *flags, *mounts, image,
             sys.executable, "-c", ASK.format(root=str(ROOT))],
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip
    finally:
        client.images.remove(image, force=True)
        client.close()
    assert wanted in done.stdout.decode(), done
