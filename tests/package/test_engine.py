"""builder=docker: a real engine makes what builder=registry makes, apart from history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.push import push
from builder.sandbox.engines import choose
from builder.store import Store
from tests import registries
from tests.builder.logins import HTPASSWD, log_in
from tests.conftest import missing

from . import proxy
from .conftest import PACKAGE, Run, base_image, push_base
from .reading import meaning, read, remove


@pytest.fixture(autouse=True)
def engine(store: Store, registry_host: str) -> Iterator[None]:
    """Skip without an engine; afterwards remove what the test brought into it."""
    try:
        client = choose("docker", store).client  # type: ignore[attr-defined]
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
    client.close()
    yield
    remove(registry_host)


@pytest.mark.parametrize("shelf", [False, True])
def test_both_builders_make_the_same_files_modes_and_config(
    base: Reference, registry_host: str, run: Run, shelf: bool
) -> None:
    parameters = {
        "function_image": str(base),
        "model_repo": f"{registry_host}/served/model",
        "artifact_repo": f"{registry_host}/served/artifact" if shelf else "",
        "package_digest": PACKAGE,
    }
    plain = run(**parameters)
    docker = run(**parameters, builder="docker")
    assert docker["artifact"] == plain["artifact"]
    document, config, files = read(Reference.parse(plain["image"]))
    other_document, other_config, other_files = read(Reference.parse(docker["image"]))
    assert other_files == files
    assert meaning(other_config) == meaning(config)
    assert other_document["annotations"] == document["annotations"]
    assert other_document.get("subject") == document.get("subject")
    # Layers that an engine had from elsewhere go up as it compresses them.
    assert other_config["rootfs"]["diff_ids"][:-1] == config["rootfs"]["diff_ids"][:-1]
    assert run(**parameters, builder="docker") == docker


def test_the_engine_runs_what_either_builder_pinned(
    base: Reference, registry_host: str, run: Run
) -> None:
    import docker

    client = docker.from_env()
    for builder in ("registry", "docker"):
        image = run(
            function_image=str(base), model_repo=f"{registry_host}/served/model", builder=builder
        )["image"]
        pulled = client.images.pull(image)
        assert pulled.attrs["Config"]["Cmd"] == ["python3", "-m", "function"]


def test_an_engine_that_does_not_answer_is_named(
    base: Reference, registry_host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import StageError

    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(StageError, match=r"no Docker Engine answers .* or use builder=registry"):
        run(function_image=str(base), model_repo=f"{registry_host}/served/model", builder="docker")


def test_a_base_that_the_registry_lacks_is_named_by_the_engine(
    registry_host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import StageError

    monkeypatch.setattr("package.stage.PAUSE", 0)
    digest = "sha256:" + "0" * 64
    with pytest.raises(StageError, match=f"pulling {registry_host}/p/none@{digest} .* failed"):
        run(
            function_image=f"{registry_host}/p/none@{digest}",
            model_repo=f"{registry_host}/served/model",
            builder="docker",
        )


@pytest.fixture
def locked(store: Store, registry_host: str, tmp_path: Path) -> Iterator[Reference]:
    """Yield the base in a registry that wants a password; what is pulled from it is removed."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registries.serve(tmp_path / "locked", auth=auth) as host:
        image, config = base_image(store), log_in(tmp_path / "docker", host)
        with Registry(host, docker_config=config) as registry:
            prefix, images = f"{host}/p", {"function": ("0" * 64, image)}
            yield push(store, images, prefix, registry)["function"].reference
        remove(host)


def test_the_engine_is_given_the_passwords_of_the_secret(
    locked: Reference, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from common.errors import StageError

    there = {"function_image": str(locked), "model_repo": f"{locked.host}/served/model"}
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nothing"))
    with pytest.raises(StageError, match=r"pulling .* failed .*secret dockercreds"):
        run(**there, builder="docker")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert run(**there, builder="docker")["image"].startswith(f"{locked.host}/served/model@")


@pytest.mark.parametrize(
    ("what", "path", "message"),
    [
        ("GET", "/p/function/manifests", "pulling .* with the Docker Engine failed"),
        ("PUT", "/served/model/manifests", "pushing .* with the Docker Engine failed"),
    ],
)
def test_a_registry_that_fails_the_engine_is_named_and_nothing_tagged(
    store: Store,
    registry_host: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    path: str,
    message: str,
) -> None:
    from common.errors import StageError

    monkeypatch.setattr("package.stage.PAUSE", 0)
    base = push_base(store, registry_host)
    with proxy.serve(registry_host) as (host, plans, _):
        there = {
            "function_image": f"{host}/{base.repository}@{base.digest}",
            "model_repo": f"{host}/served/model",
        }
        plans.append(lambda method, at, _: "404" if method == what and path in at else "")
        try:
            with pytest.raises(StageError, match=message):
                run(**there, builder="docker")
            with Registry(registry_host) as registry:
                assert registry.tags("served/model") == []
            plans.append(lambda *_: "")
            run(**there, builder="docker")
        finally:
            remove(host)
