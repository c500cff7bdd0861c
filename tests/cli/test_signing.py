"""A key's password comes from one of three places, and goes nowhere."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.signing.keys import read_public
from cli.output import ROOT
from cli.signing import keygen, signing_key

VARIABLE, FILE = "PLATELINE_SIGNING_PASSWORD", "PLATELINE_SIGNING_PASSWORD_FILE"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for name in (VARIABLE, FILE, "PLATELINE_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_pair_is_made_and_opened_by_the_variable_which_is_gone_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    keygen(str(tmp_path / "lab"), json=True)
    said = capsys.readouterr()
    assert VARIABLE not in os.environ
    assert PASSWORD not in said.out + said.err
    public = read_public(tmp_path / "lab.pub")
    assert json.loads(said.out) == {
        "private": f"{tmp_path}/lab.key", "public": f"{tmp_path}/lab.pub", "id": public.id
    }  # fmt: skip
    monkeypatch.setenv(VARIABLE, PASSWORD)
    assert signing_key(str(tmp_path / "lab.key")).public == public
    assert VARIABLE not in os.environ


def test_the_key_may_be_named_by_a_variable_and_its_password_lie_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    monkeypatch.setenv(FILE, str(secret))
    keygen(str(tmp_path / "lab"))
    assert signing_key("") is None
    monkeypatch.setenv("PLATELINE_SIGNING_KEY", str(tmp_path / "lab.key"))
    assert signing_key("").public.name == "lab"
    secret.chmod(0o640)
    with pytest.raises(BuilderError, match=f"others may read {secret}"):
        signing_key("")
    monkeypatch.setenv(FILE, str(tmp_path / "nowhere"))
    with pytest.raises(BuilderError, match="nowhere cannot be read"):
        signing_key("")


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=f"nobody is there to ask; set {VARIABLE}"):
        keygen(str(tmp_path / "lab"))
    assert not list(tmp_path.iterdir())


def test_a_password_that_is_typed_twice_and_differs_makes_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([PASSWORD, "correct horse batterie"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _question: next(answers))
    with pytest.raises(BuilderError, match="the two passwords differ"):
        keygen(str(tmp_path / "lab"))
    assert not list(tmp_path.iterdir())


def test_no_private_key_is_made_inside_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    with pytest.raises(BuilderError, match="inside the repository, where a commit or an image"):
        keygen(str(ROOT / "keys" / "lab"))
    assert not (ROOT / "keys" / "lab.key").exists()
