"""A registry behind basic auth, tokens or a private CA takes images, and no secret is shown."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.registry.cache import find_by_key
from builder.registry.client import Registry
from builder.registry.connection import RegistryError
from builder.registry.pull import pull
from builder.registry.push import push
from builder.store import Store
from tests import registries
from tests.builder import small, token_server
from tests.builder.logins import HTPASSWD, PASSWORD, SECRETS, USER, log_in

ROOT = Path(__file__).parents[3]
KEY = "1" * 64


@pytest.fixture(params=["basic", "token"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield HOST:PORT of a registry that wants a password, directly or for a token."""
    if request.param == "basic":
        (tmp_path / "htpasswd").write_text(HTPASSWD)
        auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
        with registries.serve(tmp_path / "registry", auth=auth) as host:
            yield host
        return
    with (
        token_server.serve(tmp_path / "token", USER, PASSWORD) as server,
        registries.serve(tmp_path / "registry", auth=server.auth) as host,
    ):
        yield host


def test_with_a_password_images_go_both_ways(guarded: str, store: Store, tmp_path: Path) -> None:
    image, other = small.image(store, b"one", b"two"), small.image(store, b"one", b"three")
    config = log_in(tmp_path / "docker", guarded)
    with Registry(guarded, docker_config=config) as registry:
        images = {"a": (KEY, image), "b": ("2" * 64, other)}
        pushed = push(store, images, f"{guarded}/p", registry)
        assert sum(p.mounted_blobs for p in pushed.values()) == 1
        fresh = Store.open(tmp_path / "fresh")
        assert pull(fresh, registry, pushed["b"].reference) == other
        assert find_by_key(fresh, registry, "p/a", KEY) == image


def test_a_wrong_password_names_the_remedy_and_not_the_password(
    guarded: str, store: Store, tmp_path: Path
) -> None:
    image = small.image(store)
    wrong = "hunter2-wrong"
    for config in (log_in(tmp_path / "docker", guarded, wrong), tmp_path / "none.json"):
        with (
            Registry(guarded, docker_config=config) as registry,
            pytest.raises(RegistryError, match=f"docker login {guarded}") as caught,
        ):
            push(store, {"a": (KEY, image)}, f"{guarded}/p", registry)
        assert wrong not in repr(caught.value)
    assert find_nothing(wrong, store.root)


def find_nothing(secret: str, folder: Path) -> bool:
    """Tell that no file below `folder` holds the secret, plain or in base64."""
    forms = (secret.encode(), base64.b64encode(f"{USER}:{secret}".encode()))
    return not any(
        form in path.read_bytes() for path in folder.rglob("*") if path.is_file() for form in forms
    )


def test_no_secret_is_in_the_store_the_registry_or_what_the_task_prints(
    guarded: str, tmp_path: Path
) -> None:
    log_in(tmp_path / "docker", guarded)
    (tmp_path / "docker/bad").mkdir()
    log_in(tmp_path / "docker/bad", guarded, "hunter2-wrong")
    script = (
        "import logging, sys; logging.basicConfig(level=0)\n"
        "from pathlib import Path\n"
        "from builder.registry.push import push; from builder.registry.client import Registry\n"
        "from builder.store import Store; from tests.builder import small\n"
        "store = Store.open(Path(sys.argv[1])); image = small.image(store)\n"
        "with Registry(sys.argv[2]) as r: "
        "print(push(store, {'a': ('1' * 64, image)}, sys.argv[2] + '/p', r), r.__dict__.keys())\n"
    )
    for folder, code in (("docker", 0), ("docker/bad", 1)):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "store"), guarded],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={"DOCKER_CONFIG": str(tmp_path / folder), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        for secret in (*SECRETS, "hunter2-wrong", "Bearer ey"):
            assert secret not in done.stdout + done.stderr
    for folder in ("store", "registry/data"):
        assert find_nothing(PASSWORD, tmp_path / folder)


def test_a_token_is_asked_for_once_a_scope(store: Store, tmp_path: Path) -> None:
    with (
        token_server.serve(tmp_path / "token", USER, PASSWORD) as server,
        registries.serve(tmp_path / "registry", auth=server.auth) as host,
        Registry(host, docker_config=log_in(tmp_path / "docker", host)) as registry,
    ):
        image = small.image(store, *(b"%d" % number for number in range(6)))
        push(store, {"a": (KEY, image)}, f"{host}/p", registry, jobs=1)
        assert sorted(map(tuple, server.scopes)) == [
            ("repository:p/a:pull",),
            ("repository:p/a:pull,push",),
        ]


def test_an_expired_token_is_asked_for_anew(store: Store, tmp_path: Path) -> None:
    with (
        # docker-registry grants 60 s of leeway, so a token is born expired to see it refused.
        token_server.serve(tmp_path / "token", USER, PASSWORD, lifetime=-61) as server,
        registries.serve(tmp_path / "registry", auth=server.auth) as host,
        Registry(host, docker_config=log_in(tmp_path / "docker", host)) as registry,
    ):
        with pytest.raises(RegistryError, match="401"):
            registry.head_manifest("p/a", "latest")
        before = len(server.scopes)
        with pytest.raises(RegistryError, match="401"):
            registry.head_manifest("p/a", "latest")
        assert len(server.scopes) == before + 1


def test_a_token_server_without_tls_elsewhere_gets_no_password(
    store: Store, tmp_path: Path
) -> None:
    authority = token_server.Authority(tmp_path / "authority")
    server = token_server.TokenServer("http://registry.example/token", authority)
    with (
        registries.serve(tmp_path / "registry", auth=server.auth) as host,
        Registry(host, docker_config=log_in(tmp_path / "docker", host)) as registry,
        pytest.raises(RegistryError, match="not https; credentials are not sent there"),
    ):
        registry.head_manifest("p/a", "latest")


@pytest.mark.usefixtures("impatient")
def test_a_private_ca_is_trusted_where_it_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = token_server.Authority(tmp_path / "authority")
    files = (authority.certificate_path, authority.key_path)
    image = small.image(store)
    with registries.serve(tmp_path / "registry", tls=files) as host:
        with (
            Registry(host) as registry,
            pytest.raises(RegistryError, match="name the CA's file in SSL_CERT_FILE"),
        ):
            registry.head_manifest("p/a", "latest")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_path))
        with Registry(host) as registry:
            pushed = push(store, {"a": (KEY, image)}, f"{host}/p", registry)
            fresh = Store.open(tmp_path / "fresh")
            assert pull(fresh, registry, pushed["a"].reference) == image


def test_a_ca_bundle_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with (
        Registry("registry.example") as registry,
        pytest.raises(Exception, match=r"CA bundle /nowhere/ca.pem cannot be read"),
    ):
        registry.head_manifest("p/a", "latest")
