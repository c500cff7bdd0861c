"""Passwords are found where Docker keeps them, and challenges are read however they are written."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.oci.reference import Reference, api_host
from builder.registry.authentication import Challenge, challenges, find, may_have_password
from builder.registry.client import Registry
from tests.builder.answers import Asked, Reply, answering

AUTH = base64.b64encode(b"u:p").decode()
BASIC = f"Basic {AUTH}"
HUB = "https://index.docker.io/v1/"


def found(folder: Path, config: Any, host: str) -> tuple[str, str, str] | None:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    known = find(host, path)
    return (known.username, known.password, known.identity_token) if known else None


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_login_under_all_its_names(tmp_path: Path, host: str) -> None:
    assert found(tmp_path, {"auths": {HUB: {"auth": AUTH}}}, host) == ("u", "p", "")
    assert found(tmp_path, {"auths": {HUB: {"auth": AUTH}}}, "docker.example") is None


def test_docker_hub_is_named_as_docker_names_it() -> None:
    digest = "@sha256:" + "0" * 64
    assert str(Reference.parse(f"docker.io/python{digest}")) == f"docker.io/library/python{digest}"
    assert str(Reference.parse("index.docker.io/a/b:1")) == "docker.io/a/b:1"
    assert api_host("docker.io") == "registry-1.docker.io"
    assert api_host("localhost:5000") == "localhost:5000"


@pytest.mark.parametrize(
    "config",
    [
        {"auths": None},
        {"auths": {"r.example": None}},
        {"auths": {}, "credHelpers": None},
        {"auths": {"r.example": {}}},
        {},
        None,
    ],
)
def test_null_and_nothing_are_no_login(tmp_path: Path, config: Any) -> None:
    assert found(tmp_path, config, "r.example") is None


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"auth": AUTH + "\n"}, "r.example"),
        ({"auth": AUTH}, "https://r.example/v2/"),
        ({"auth": AUTH}, "R.Example"),
        ({"username": "u", "password": "p"}, "r.example"),
        ({"auth": AUTH, "identitytoken": ""}, "r.example"),
    ],
)
def test_a_login_is_found_however_it_is_written(
    tmp_path: Path, entry: dict[str, str], name: str
) -> None:
    assert found(tmp_path, {"auths": {name: entry}}, "r.example") == ("u", "p", "")


def test_the_hosts_own_entry_comes_before_that_of_a_folder(tmp_path: Path) -> None:
    other = base64.b64encode(b"x:y").decode()
    config = {"auths": {"r.example/team": {"auth": other}, "r.example": {"auth": AUTH}}}
    assert found(tmp_path, config, "r.example") == ("u", "p", "")


@pytest.mark.parametrize(
    "config",
    [
        [],
        5,
        {"auths": []},
        {"auths": {"r.example": "x"}},
        {"credHelpers": "x"},
        {"auths": {"r.example": {"auth": "c2VjcmV0"}}},
        {"auths": {"r.example": {"auth": 5}}},
    ],
)
def test_a_config_of_another_form_is_named_and_not_shown(tmp_path: Path, config: Any) -> None:
    with pytest.raises(BuilderError, match=r"config\.json") as caught:
        found(tmp_path, config, "r.example")
    assert "c2VjcmV0" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_helper_is_asked_for_docker_hub_by_the_key_that_docker_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-kept"
    helper.write_text(
        '#!/bin/sh\nread -r key\nprintf \'{"Username": "%s", "Secret": "s"}\' "$key"\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert found(tmp_path, {"credsStore": "kept"}, "docker.io") == (HUB, "s", "")
    assert found(tmp_path, {"credHelpers": {HUB: "kept"}}, "docker.io") == (HUB, "s", "")
    assert found(tmp_path, {"credHelpers": {"r.example": "kept"}}, "r.example") == (
        "r.example", "s", "",
    )  # fmt: skip


def test_the_docker_sdk_gets_these_logins_wrong(tmp_path: Path) -> None:
    """Why `docker.auth` is not used: it answers "no login" where there is one or a fault."""
    from docker import auth

    plain = {"auths": {"r.example": {"username": "u", "password": "p"}}}
    empty_token = {"auths": {"r.example": {"auth": AUTH, "identitytoken": ""}}}
    for config in (plain, empty_token):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        theirs = auth.load_config(str(path)).resolve_authconfig("r.example") or {}
        assert not theirs.get("password")
        assert found(tmp_path, config, "r.example") == ("u", "p", "")
    path.write_text("{broken")
    assert auth.load_config(str(path)).is_empty
    with pytest.raises(BuilderError, match="cannot be read"):
        find("r.example", path)


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
PARAMETERS = st.dictionaries(
    NAMES, st.text(st.characters(codec="latin-1"), max_size=20), max_size=4
)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(NAMES, PARAMETERS), max_size=4), st.data())
def test_challenges_are_read_as_they_were_written(
    offered: list[tuple[str, dict[str, str]]], data: st.DataObject
) -> None:
    lines = [""]
    for scheme, parameters in offered:
        if data.draw(st.booleans()):
            lines.append("")
        values = [f"{name}={quoted(value)}" for name, value in parameters.items()]
        said = f"{scheme} {data.draw(st.sampled_from([',', ', ', ' , ', ',,'])).join(values)}"
        lines[-1] += (", " if lines[-1] else "") + said.strip()
    wanted = [Challenge(scheme, parameters) for scheme, parameters in offered]
    newlines = any("\n" in v for _, p in offered for v in p.values())
    if not newlines:  # no header holds one
        assert challenges(lines) == wanted


@given(st.text(max_size=300))
def test_no_header_is_too_odd(text: str) -> None:
    for challenge in challenges([text]):
        assert challenge.scheme


@pytest.mark.parametrize(
    "offered",
    [
        ("Negotiate", 'Basic realm="r"'),
        ('Negotiate, Basic realm="r"',),
        ('Basic realm="r"', 'Bearer realm="{token}",service="s"'),
        ('Basic realm="r", Bearer service=s,realm={token}',),
        ("Bearer realm={token},service=s",),
        ('bearer  REALM = "{token}" , service="s"',),
        ('NTLM, Digest qop="auth, auth-int", nonce=abc=, Bearer realm="{token}"',),
    ],
)
@pytest.mark.parametrize("works", ["Basic", "Bearer"])
def test_the_first_challenge_that_works_is_taken(
    tmp_path: Path, offered: tuple[str, ...], works: str
) -> None:
    if works not in " ".join(offered):
        works = works.lower() if works.lower() in " ".join(offered) else ""
    if not works:
        return
    wanted = BASIC if works == "Basic" else "Bearer T"

    def guard(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=b'{"token":"T"}')
        if asked.headers.get("Authorization") == wanted:
            return Reply(body=b"{}")
        token = f"http://{asked.headers['Host']}/token"
        return Reply(401, tuple(("WWW-Authenticate", o.format(token=token)) for o in offered))

    with answering(guard) as server:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": {server.host: {"auth": AUTH}}}))
        with Registry(server.host, docker_config=path) as registry:
            assert registry.get_manifest("a/b", "latest")
            assert registry.get_manifest("a/c", "latest")
        assert len(server.asked) <= 9


def test_large_registries_may_send_their_password_to_their_own_token_server() -> None:
    assert may_have_password("registry-1.docker.io", "auth.docker.io", {})
    assert may_have_password("r.example", "r.example", {})
    assert not may_have_password("r.example", "auth.docker.io", {})
    assert not may_have_password("r.example", "", {})
    assert may_have_password("r.example", "t.example", {"PLATELINE_TOKEN_SERVERS": "a,t.example"})
