"""A registry that means harm: every answer is bounded, every refusal is one printable message."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.connection import RegistryError, Timing
from builder.registry.http import shown
from builder.registry.pull import pull
from builder.store import Store
from tests.builder.answers import Asked, Reply, answering

HASTY = Timing(stall=0.6, tries=2, pause=0.01, rate=1000)
MANIFEST = b'{"schemaVersion":2}'


def refused(
    answer: Callable[[Asked], Reply], act: Callable[[Registry], object], match: str | None = None
) -> tuple[str, list[Asked]]:
    """Let `act` meet a registry that answers so; return what was said and what was asked."""
    with answering(answer) as server, Registry(server.host, timing=HASTY) as registry:
        began = time.monotonic()
        with pytest.raises(RegistryError, match=match) as caught:
            act(registry)
        assert time.monotonic() - began < 40  # seconds, on a machine that has other work
        said = str(caught.value)
        assert said.isprintable()
        assert len(said) < 800
        return said, server.asked


def get(registry: Registry) -> object:
    return registry.get_manifest("a/b", "latest")


def test_redirects_end() -> None:
    def loop(asked: Asked) -> Reply:
        return Reply(307, (("Location", asked.path + "x"),))

    _, asked = refused(loop, get, "was sent on more than 5 times")
    assert len(asked) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/", "http://[::1/", "http://h:port/", "gopher:x"]
)
def test_a_redirect_leads_to_a_web_server_or_nowhere(target: str) -> None:
    _, asked = refused(lambda _: Reply(302, (("Location", target),)), get, "address")
    assert len(asked) == 1


def test_a_redirect_leads_neither_from_tls_to_plain_http_nor_to_this_machine() -> None:
    registry = Registry("registry.example")
    for url, target, reason in (
        ("https://registry.example/v2/", "http://registry.example/x", "not https"),
        ("https://registry.example/v2/", "https://127.0.0.1/x", "this machine"),
    ):
        with pytest.raises(RegistryError, match=reason):
            registry._allowed(url, target, "GET x")
    for target in ("https://storage.example/x", "/y"):
        assert registry._allowed("https://registry.example/v2/", target, "x").startswith("https:")


def test_a_redirect_to_another_origin_takes_no_password_along(tmp_path: Path) -> None:
    config = docker_config(tmp_path, "127.0.0.1")
    with answering(lambda _: Reply(200, body=MANIFEST)) as other:

        def send_on(asked: Asked) -> Reply:
            if "Authorization" not in asked.headers:
                return Reply(401, (("WWW-Authenticate", 'Basic realm="r"'),))
            return Reply(307, (("Location", f"http://{other.host}/x"),))

        with answering(send_on) as server:
            text = config.read_text().replace('"127.0.0.1"', json.dumps(server.host))
            config.write_text(text)
            with Registry(server.host, docker_config=config) as registry:
                assert registry.get_manifest("a/b", "latest")
        assert [a.headers.get("Authorization") for a in other.asked] == [None]
        assert "Authorization" in server.asked[-1].headers


def test_a_manifest_of_gigabytes_is_not_read() -> None:
    piece = b" " * (1 << 20)
    refused(lambda _: Reply(body=piece, length=3 << 30), get, "more than 4 MiB")


def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50 << 20), 1)
    refused(lambda _: Reply(200, (("Content-Encoding", "gzip"),), bomb), get, "compressed body")


@pytest.mark.parametrize("head", [True, False])
def test_one_byte_now_and_then_does_not_keep_a_request_alive(head: bool) -> None:
    body = b" " * 5000

    def slow(_: Asked) -> Reply:
        return Reply(body=body, drip=0.05, drip_head=head)

    refused(slow, get, "slower than 1000 bytes a second")


@pytest.mark.parametrize(
    "body", [b"<html>", b"[1,2]", b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b'"x"', b"null"]
)
def test_what_is_no_json_object_is_one_message(body: bytes) -> None:
    refused(lambda _: Reply(body=body), get, "something else than a JSON object")
    refused(
        lambda _: Reply(body=body), lambda r: r.tags("a/b"), "something else than a JSON object"
    )


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": 5},
        {"manifests": [5]},
        {"manifests": [{"digest": 5, "size": 1}]},
        {"manifests": [{"digest": "sha256:" + "0" * 64, "size": True}]},
        {"config": [], "layers": {}},
        {"config": {"digest": "sha256:" + "0" * 64, "size": -1}, "layers": []},
        {"config": {"digest": "sha256:" + "0" * 64, "size": 1 << 40}, "layers": []},
    ],
)
def test_a_document_of_another_form_is_refused(store: Store, document: object) -> None:
    data = json.dumps(document).encode()
    reference = Reference("x", "a/b", digest=canonical.sha256(data))
    with answering(lambda _: Reply(body=data)) as server, Registry(server.host) as registry:
        with pytest.raises(BuilderError) as caught:
            pull(store, registry, reference)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_indexes_of_indexes_end(store: Store) -> None:
    documents: dict[str, bytes] = {}
    inner = b'{"config": {}, "layers": []}'
    for _ in range(5):
        entry = oci.describe(oci.INDEX, inner, platform={"os": "linux", "architecture": "amd64"})
        documents[entry.digest] = inner
        inner = canonical.dumps({"manifests": [entry.to_json()]})
    top = canonical.sha256(inner)
    documents[top] = inner
    with (
        answering(lambda a: Reply(body=documents[a.path.rpartition("/")[2]])) as server,
        Registry(server.host) as registry,
        pytest.raises(BuilderError, match="index of indexes"),
    ):
        pull(store, registry, Reference(server.host, "a/b", digest=top))


def test_what_a_server_says_is_printed_without_control_characters_and_cut() -> None:
    evil = "\x1b[2J\x1b]0;pwn\x07\u202e" + "A" * 1_000_000
    body = json.dumps({"errors": [{"code": "X", "message": evil}] * 3}).encode()
    said, _ = refused(lambda _: Reply(403, body=body), get, "answered 403")
    assert "?[2J" in said
    large = b" " * (1 << 20)
    refused(lambda _: Reply(403, body=large, length=1 << 30), get, "answered 403")
    header = (("Content-Type", "x"), ("Docker-Content-Digest", "sha256:" + "\x1b" * 9))
    refused(lambda _: Reply(200, header, MANIFEST), get, "came with other content")
    assert shown("a\nb\tc") == "a?b?c"


@pytest.mark.parametrize("link", ["{path}", "{path}&last=a", "http://127.0.0.1:9/v2/a/b/tags/list"])
def test_a_list_of_tags_ends_and_stays_on_its_registry(link: str) -> None:
    number = iter(range(10_000))

    def pages(asked: Asked) -> Reply:
        path = link.format(path=asked.path) + ("" if link == "{path}" else f"&n={next(number)}")
        return Reply(200, (("Link", f'<{path}>; rel="next"'),), b'{"tags":["a"]}')

    said, asked = refused(pages, lambda r: r.tags("a/b"))
    assert "does not end" in said or "another host" in said
    assert len(asked) <= 200


def test_pages_of_tags_and_referrers_are_put_together() -> None:
    one, other = (oci.describe(oci.MANIFEST, data).to_json() for data in (b"1", b"2"))

    def pages(asked: Asked) -> Reply:
        member, first, second = ("manifests", [one], [other])
        if "tags" in asked.path:
            member, first, second = ("tags", ["b"], ["a"])  # type: ignore[assignment]
        if "page=2" in asked.path:
            return Reply(body=json.dumps({member: second}).encode())
        link = f"<{asked.path.partition('?')[0]}?page=2>; rel=next"
        return Reply(200, (("Link", link),), json.dumps({member: first}).encode())

    with answering(pages) as server, Registry(server.host) as registry:
        assert registry.tags("a/b") == ["a", "b"]
        found = registry.referrers("a/b", "sha256:" + "0" * 64)
        assert [entry.to_json() for entry in found] == [one, other]


def docker_config(folder: Path, host: str) -> Path:
    path = folder / "config.json"
    auth = base64.b64encode(b"alice:PASSWORD").decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path


def test_a_token_server_of_another_host_gets_no_password_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda _: Reply(body=b'{"token": "t0"}')) as tokens:
        realm = f"http://localhost:{tokens.host.partition(':')[2]}/token"

        def guard(asked: Asked) -> Reply:
            if asked.headers.get("Authorization") == "Bearer t0":
                return Reply(403)
            return Reply(401, (("WWW-Authenticate", f'Bearer realm="{realm}",service="s"'),))

        with answering(guard) as server:
            config = docker_config(tmp_path, server.host)
            for allowed, password in (("", False), ("other, localhost", True)):
                monkeypatch.setenv("PLATELINE_TOKEN_SERVERS", allowed)
                with (
                    Registry(server.host, docker_config=config) as registry,
                    pytest.raises(RegistryError, match="403") as caught,
                ):
                    registry.get_manifest("a/b", "latest")
                assert ("Authorization" in tokens.asked[-1].headers) is password
                said = "was not given the password" in str(caught.value)
                assert said is not password
                assert "PASSWORD" not in str(caught.value)


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "", "ftp://x/", "http://evil.example/t"])
def test_a_token_server_is_reached_by_https_or_nothing(realm: str, tmp_path: Path) -> None:
    challenge = (("WWW-Authenticate", f'Bearer realm="{realm}"'),)
    refused(lambda _: Reply(401, challenge), get, "which is not https")


def test_a_token_that_is_no_token_is_not_sent() -> None:
    def evil(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=json.dumps({"token": "a\r\nX: y"}).encode())
        realm = f"http://{asked.headers['Host']}/token"
        return Reply(401, (("WWW-Authenticate", f'Bearer realm="{realm}"'),))

    refused(evil, get, "the token server of .* refused")


def test_what_is_waited_for_is_said_within_three_seconds() -> None:
    def met(host: str, timing: Timing) -> list[tuple[float, str]]:
        said: list[tuple[float, str]] = []
        began = time.monotonic()

        def notice(line: str) -> None:
            said.append((time.monotonic() - began, line))

        with Registry(host, timing=timing, notice=notice) as registry, pytest.raises(RegistryError):
            registry.get_manifest("a/b", "latest")
        return said

    dead = met("127.0.0.1:9", Timing(tries=4, pause=0.4))
    assert dead[0][0] < 3
    assert "127.0.0.1:9: failed (" in dead[0][1]
    assert "more times at most" in dead[0][1]
    with answering(lambda _: Reply(body=b" " * 1000, drip=0.5, drip_head=True)) as silent:
        quiet = met(silent.host, Timing(stall=2.2, tries=1, rate=1e6))
    assert quiet[0] == (pytest.approx(1.5, abs=1.4), f"waiting for {silent.host}")
