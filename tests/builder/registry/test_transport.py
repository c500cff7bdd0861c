"""Requests take the proxy that the environment names, and trust whom this machine trusts."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.registry.client import Registry
from builder.registry.connection import RegistryError
from builder.registry.transport import FAILURES, Client, Response, Timing
from tests import registries
from tests.builder import token_server
from tests.builder.answers import Reply, Server, answering

NAME = "registry.invalid:5000"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy that lets nobody through, named in the environment with a login."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with answering(lambda _: Reply(403)) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:p%40ss@{server.host}")
        yield server


def ask(url: str) -> Response:
    with closing(Client(NAME, Timing(stall=5), proxies=True)) as client:
        answer = client.send("GET", url, {})
        answer.close()
        return answer


def test_the_proxy_of_the_environment_is_asked_with_its_login(proxy: Server) -> None:
    assert ask(f"http://{NAME}/v2/a?b=c").status == 403
    with pytest.raises(FAILURES, match="403"):
        ask(f"https://{NAME}/v2/")
    plain, tunnel = proxy.asked
    assert (plain.method, plain.path) == ("GET", f"http://{NAME}/v2/a?b=c")
    assert (tunnel.method, tunnel.path) == ("CONNECT", NAME)
    assert {asked.headers["Host"] for asked in proxy.asked} == {NAME}
    login = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert {asked.headers["Proxy-Authorization"] for asked in proxy.asked} == {login}


def test_who_is_in_no_proxy_is_asked_directly(
    proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with answering(lambda _: Reply(200)) as server:
        assert ask(f"http://{server.host}/v2/").status == 200
    assert [asked.path for asked in server.asked] == ["/v2/"]
    assert not proxy.asked


@pytest.mark.parametrize("address", ["socks5://127.0.0.1", "http://"])
@pytest.mark.usefixtures("proxy")
def test_a_proxy_of_another_kind_is_refused_by_name(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(BuilderError, match=rf"{address}.*HTTPS_PROXY.*NO_PROXY"):
        ask("https://registry.invalid/v2/")


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "ü..example", " "])
def test_what_cannot_be_a_servers_name_is_no_crash(name: str) -> None:
    with (
        closing(Client(NAME, Timing(stall=5), proxies=False)) as client,
        pytest.raises(FAILURES),
    ):
        client.send("GET", f"http://{name}/v2/", {})


@pytest.mark.usefixtures("impatient")
def test_a_redirect_from_plain_http_to_tls_checks_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = token_server.Authority(tmp_path / "authority")
    files = (authority.certificate_path, authority.key_path)
    with registries.serve(tmp_path / "registry", tls=files) as safe:
        sent_on = Reply(307, (("Location", f"https://{safe}/v2/a/manifests/b"),))
        with answering(lambda _: sent_on) as plain:
            with (
                Registry(plain.host) as registry,
                pytest.raises(RegistryError, match="name the CA's file in SSL_CERT_FILE"),
            ):
                registry.head_manifest("a", "b")
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_path))
            with Registry(plain.host) as registry:
                assert registry.head_manifest("a", "b") is None


def test_what_no_request_needs_is_loaded_by_whoever_asks_for_it() -> None:
    script = """
import sys, builder.registry.client as client
costly = {"anyio", "certifi.core", "email", "httpx", "rich", "subprocess", "trio", "urllib.request",
          "zstandard"}
print(*costly & set(sys.modules))
import anyio, certifi, zstandard
print(certifi.where().endswith(".pem"), hasattr(anyio, "run"), zstandard.compress(b"") != b"")
import httpx
httpx.Client(proxy="https://127.0.0.1:1").close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\nTrue True True\n", "")
