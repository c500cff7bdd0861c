"""No key or password is in an argument of a child, its environment, a log, or a file for others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.registry.client import Registry
from builder.registry.push import push
from builder.store import Store
from cli.output import ROOT, ended
from tests.builder import small
from tests.key_pairs import PASSWORD

# What a person would do by tasks, in one process that notes each program it starts: what audit
# events of Python say is all that the process does, however deep the call.
SCRIPT = """
import json, os, subprocess, sys
started = []
def hook(event, arguments):
    if event == "subprocess.Popen":
        note(arguments[1], arguments[3])
    elif event in ("os.exec", "os.posix_spawn"):
        note(arguments[1], arguments[2])
    elif event == "os.system":
        note([arguments[0]], None)
def note(words, variables):
    given = os.environ if variables is None else variables
    started.append([list(map(str, words)), {str(name): str(given[name]) for name in given}])
sys.addaudithook(hook)
from functools import partial
from cli.output import ended
from cli.signing import keygen, signing_key
from builder.registry.client import Registry
from builder.signing.predicates import TEST_RESULT, passing
from builder.signing.signatures import sign, state
from builder.store import Store
from pipeline.release.materials import state as state_of_git
from cli.output import ROOT
host, folder, digest = sys.argv[1:]
def work():
    keygen(folder + "/keys/lab")
    os.environ["PLATELINE_SIGNING_PASSWORD"] = os.environ.pop("AGAIN")
    key = signing_key(folder + "/keys/lab.key")
    state_of_git(ROOT)  # starts git
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    with Registry(host) as registry:
        image = Store.open().image(digest)
        sign(registry, "p/x", image.manifest, key)
        state(registry, "p/x", image.manifest, key, TEST_RESULT, passing({}))
    try:
        signing_key(folder + "/keys/lab.pub")
    except Exception as error:
        print(error)
ended(work, False)
json.dump(started, open(folder + "/started.json", "w"))
"""


def test_signing_shows_neither_key_nor_password(tmp_path: Path, registry_host: str) -> None:
    (tmp_path / "keys").mkdir()
    store = Store.open(tmp_path / "home/store")
    image = small.image(store)
    with Registry(registry_host) as registry:
        push(store, {"x": ("1" * 64, image)}, f"{registry_host}/p", registry)
    secret = PASSWORD.decode()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "PLATELINE_STORE": str(tmp_path / "home/store"),
        "PLATELINE_SIGNING_PASSWORD": secret, "AGAIN": secret, "TMPDIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, registry_host, str(tmp_path), image.digest],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    key = tmp_path / "keys/lab.key"
    lines = key.read_text().splitlines()[1:-1]
    assert lines
    secrets = [secret, *lines]
    started = json.loads((tmp_path / "started.json").read_text())
    assert any(words[0].endswith("git") for words, _ in started), "the hook sees programs"
    for words, variables in started:
        assert not any(one in json.dumps([words, variables]) for one in secrets), words
    assert not any(one in done.stdout + done.stderr for one in secrets)
    holding = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and any(one.encode() in path.read_bytes() for one in secrets)
    ]
    # The registry's own files are below this folder too.
    assert holding == [key]
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_task_that_does_not_sign_hands_the_password_to_no_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLATELINE_SIGNING_PASSWORD", PASSWORD.decode())
    ended(lambda: subprocess.run(["env"], check=True) and None, as_json=False)
    said = capfd.readouterr().out
    assert "PATH=" in said
    assert "PLATELINE_SIGNING_PASSWORD" not in said
