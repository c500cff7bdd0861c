"""kubectl makes the way to a server, and is ended after; what it says is passed on."""

import os

import pytest

from pipeline.errors import PipelineError
from pipeline.kubeflow.server.access import Access
from pipeline.kubeflow.server.connection import Connection
from pipeline.kubeflow.server.forward import forwarded


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Return a function that puts a program of that name on PATH."""

    def put(script):
        program = tmp_path / "bin" / "kubectl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$$" > {tmp_path}/pid\necho "$@" > {tmp_path}/words\n'
                           + script)  # fmt: skip
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


def test_the_server_is_reached_through_kubectl_which_ends_after(kubectl, kubeflow, tmp_path):
    port = kubeflow.server_address[1]
    kubectl(f"echo 'Forwarding from 127.0.0.1:{port} -> 3000'\nexec sleep 60\n")
    with forwarded("lab", "kf", tmp_path / "config") as host, Connection(Access(host)) as made:
        assert made.get("healthz")["tag_name"] == "2.17.0"
    words = (tmp_path / "words").read_text()
    assert words.split()[:3] == ["--context=lab", "--namespace=kf",
                                 f"--kubeconfig={tmp_path / 'config'}"]  # fmt: skip
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_kubectl_says_is_passed_on(kubectl):
    kubectl("echo 'error: context \"lab\" does not exist' >&2\nexit 1\n")
    with (
        pytest.raises(PipelineError, match=r'context "lab" does not exist.*--kfp-namespace'),
        forwarded("lab"),
    ):
        pass


def test_a_kubectl_that_hangs_is_given_up_and_ended(kubectl, tmp_path):
    kubectl("exec sleep 60\n")
    with pytest.raises(PipelineError, match=r"within 0 s"), forwarded("lab", seconds=0.3):
        pass
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_kubectl_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match=r"kubectl.*--host"), forwarded("lab"):
        pass
