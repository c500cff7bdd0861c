"""A release is made again by its commit's own code, and what differs is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builder.registry.client import Registry
from builder.registry.push import push
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.rebuild import Rebuilt, differences, rebuilt
from tests.pipeline.release.parts import image, package

DIGEST = "sha256:" + "a" * 64
# What a checkout's `invoke` does here: it says in which tree, with which store and words.
INVOKE = f"""#!/bin/sh
echo "$1 $(git status --porcelain) $*" >> "${{PLATELINE_STORE%/store}}/called"
case $1 in
build-images) echo '{{"train": {{"digest": "{DIGEST}"}}}}' ;;
compile) while [ "$1" != --output ]; do shift; done; echo "made of $(cat source)" > "$2" ;;
esac
"""


def git(root: Path, *words: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@test")
    done = subprocess.run(["git", *names, *words], cwd=root, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    commit(root, "one")
    return root


def commit(root: Path, source: str, invoke: str = INVOKE) -> str:
    (root / "invoke").write_text(invoke)
    (root / "invoke").chmod(0o755)
    (root / "source").write_text(source)
    (root / ".gitignore").write_text(".venv/\n")
    stamp = Path(sys.prefix) / "requirements.lock"
    (root / "requirements.lock").write_bytes(stamp.read_bytes() if stamp.exists() else b"")
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", source)
    return git(root, "rev-parse", "HEAD")


def test_the_code_and_the_files_of_the_commit_are_used_with_an_empty_store(checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    commit(checkout, "two", invoke="#!/bin/sh\nexit 1\n")
    (checkout / "source").write_text("not committed")
    with rebuilt(checkout, first, ["train"], "registry.test/p", insecure=True) as made:
        assert made.images == {"train": DIGEST}
        assert made.package == b"made of one\n"
        assert not made.store.root.exists()
        folder = made.store.root.parent
        calls = (folder / "called").read_text().splitlines()
    assert calls[0] == "build-images  build-images train --json", "the tree has no changes"
    assert calls[1].startswith("compile  compile ")
    assert "--registry registry.test/p" in calls[1]
    assert calls[1].endswith("--insecure")
    assert not folder.exists()
    assert git(checkout, "status", "--porcelain") == "M source"


def test_a_commit_that_the_checkout_does_not_stand_on_is_never_run(
    checkout: Path, tmp_path: Path
) -> None:
    """It may have come with somebody else's branch."""
    marker = tmp_path / "was run"
    git(checkout, "checkout", "-q", "-b", "fetched")
    theirs = commit(checkout, "theirs", invoke=f"#!/bin/sh\ntouch {marker}\n")
    git(checkout, "checkout", "-q", "-")
    for unknown in (theirs, "f" * 40, "--upload-pack=x", "HEAD"):
        with (
            pytest.raises(PipelineError, match="is not in the history"),
            rebuilt(checkout, unknown, ["train"], "registry.test/p"),
        ):
            pass
    assert not marker.exists()


def test_a_task_that_fails_is_named_and_leaves_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    bad = commit(checkout, "bad", invoke="#!/bin/sh\n[ $1 = compile ] && exit 7\necho '{}'\n")
    with (
        pytest.raises(PipelineError, match=r"`invoke compile` of .* exit code 7"),
        rebuilt(checkout, bad, [], "registry.test/p"),
    ):
        pass
    assert not [*temporary.iterdir()]


@pytest.mark.parametrize("said", ["", "[]", '{"other": {}}', '{"train": 7}', "no JSON"])
def test_an_answer_that_is_no_list_of_digests_is_refused(checkout: Path, said: str) -> None:
    bad = commit(checkout, "bad", invoke=f"#!/bin/sh\necho '{said}'\n")
    with (
        pytest.raises(PipelineError, match="`invoke build-images` of the release's commit said"),
        rebuilt(checkout, bad, ["train"], "registry.test/p"),
    ):
        pass


def test_what_differs_is_named_to_the_file(
    store: Store, registry_host: str, tmp_path: Path
) -> None:
    released, same = image(store, "released"), image(store, "same")
    again = Store.open(tmp_path / "again")
    mine = image(again, "made")
    image(again, "same")
    host = "registry.test"
    one = package(host, {"train": released, "function": same})
    two = package(host, {"train": mine, "function": same})
    digests = {"train": mine.digest, "function": same.digest}
    with Registry(registry_host) as client:
        push(store, {"pipeline": ("0" * 64, released)}, f"{registry_host}/p", client)
        wanted = {"train": released.digest, "function": same.digest}
        found = differences(Rebuilt(digests, two, again), client, "p/pipeline", wanted, one)
        same_again = Rebuilt(wanted, one, again)
        assert differences(same_again, client, "p/pipeline", wanted, one) == []
    assert len(found) == 2
    assert "/a: size is 8 and 4 (released, made again)" in found[0]
    assert found[1].startswith("the package differs: image train: ")
    assert released.digest in found[1]
