"""Whether the package's user could use a folder is read from owners and modes, as a kernel does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.kubeflow.cluster import MISSING, NOTE, OK
from pipeline.kubeflow.folder import User, check_folder
from pipeline.spec.package import load

GOOD = Path(__file__).parents[1] / "spec" / "broken" / "good.yaml"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def package(tmp_path):
    def made(**security):
        documents = list(yaml.safe_load_all(GOOD.read_text()))
        executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        if security:
            executors["exec-make-2"]["securityContext"] = security
        path = tmp_path / "package.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        return load(path)

    return made


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "claim"
    made.mkdir()
    (made / "file").write_text("x")
    return made


def modes(folder, top, below):
    (folder / "file").chmod(below)
    folder.chmod(top)


@pytest.mark.parametrize(
    ("top", "below", "writes", "state"),
    [(0o755, 0o644, True, MISSING), (0o755, 0o644, False, OK), (0o777, 0o666, True, OK),
     (0o777, 0o644, True, MISSING), (0o750, 0o644, False, MISSING), (0o755, 0o600, False, MISSING)],
)  # fmt: skip
def test_another_user_has_what_the_modes_give_to_all(package, folder, top, below, writes, state):
    modes(folder, top, below)
    stranger = {"runAsUser": os.geteuid() + 1234, "runAsGroup": os.getegid() + 1234}
    (check,) = check_folder(package(**stranger), "work", folder, writes=writes)
    assert check.state == state, check
    if state == MISSING:
        assert f"belongs to {os.geteuid()}:" in check.found
        assert str(folder) in check.remedy
        assert check.remedy.startswith("chown -R" if writes else "chmod -R")
    assert "make-2" in check.what


def test_the_owner_and_the_group_have_what_the_modes_give_to_them(package, folder):
    modes(folder, 0o770, 0o660)
    for user in ({"runAsUser": os.geteuid()}, {"runAsUser": 4321, "runAsGroup": os.getegid()}):
        (check,) = check_folder(package(**user), "work", folder, writes=True)
        assert check.state == OK, check


def test_a_step_that_runs_as_its_images_user_is_said(package, folder):
    (check,) = check_folder(package(), "work", folder, writes=True)
    assert (check.state, "set_security_context" in check.remedy) == (NOTE, True)


def test_a_claim_that_nobody_mounts_and_a_folder_that_is_none_are_named(package, folder):
    with pytest.raises(
        PipelineError, match="no step of the package mounts the claim other; it has"
    ):
        check_folder(package(runAsUser=1), "other", folder, writes=True)
    with pytest.raises(PipelineError, match="absent"):
        check_folder(package(runAsUser=1), "work", folder / "absent", writes=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 0o777), st.sampled_from([0, 7, 8]), st.sampled_from([0, 7, 8]))
def test_the_kernel_says_the_same(tmp_path_factory, mode, uid, gid):
    path = tmp_path_factory.mktemp("m") / "f"
    path.write_text("x")
    os.chown(path, uid, gid)
    path.chmod(mode)
    status, user = path.stat(), User(7, 8)
    path.parent.chmod(0o755)
    descriptor = os.open(path.parent, os.O_PATH)
    child = os.fork()
    if child == 0:
        os.fchdir(descriptor)
        os.setgroups([])
        os.setgid(user.gid)
        os.setuid(user.uid)
        found = sum(bit for bit in (4, 2, 1) if os.access("f", bit))
        os._exit(found)
    os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == user.may(status)


def test_the_task_looks_at_the_folder_and_asks_no_cluster(package, folder):
    modes(folder, 0o755, 0o644)
    package(runAsUser=4321, runAsGroup=4321)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "preflight", str(folder.parent / "package.yaml"),
         "--local", f"work={folder}", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (check,) = json.loads(done.stdout)["checks"]
    assert (check["state"], check["remedy"]) == (MISSING, f"chown -R 4321:4321 {folder}")
