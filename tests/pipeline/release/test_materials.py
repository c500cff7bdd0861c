"""What a package is made from: the commit, and whether files differ from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.release.materials import state

WHO = ("-c", "user.name=a", "-c", "user.email=a@b.example")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *WHO, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_commit_is_named_and_every_change_that_it_lacks_is_told(tmp_path: Path) -> None:
    assert state(tmp_path) == ("", True)
    git(tmp_path, "init", "--quiet")
    assert state(tmp_path) == ("", True)
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert state(tmp_path) == (commit, False)
    git(tmp_path, "checkout", "--quiet", "--detach")
    assert state(tmp_path) == (commit, False)
    (tmp_path / "a").write_text("2")
    assert state(tmp_path) == (commit, True)
    git(tmp_path, "checkout", "--quiet", "a")
    (tmp_path / "b").write_text("new")
    assert state(tmp_path) == (commit, True)
