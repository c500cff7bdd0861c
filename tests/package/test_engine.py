"""builder=docker: a real engine makes what builder=registry makes, apart from history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from builder.errors import BuilderError
from builder.reference import Reference
from builder.sandbox import choose
from builder.store import Store
from tests.conftest import missing

from .conftest import PACKAGE, Run
from .reading import meaning, read


@pytest.fixture(autouse=True)
def engine(store: Store, registry_host: str) -> Iterator[None]:
    """Skip without an engine; afterwards remove what the test brought into it."""
    import docker

    try:
        client = choose("docker", store).client  # type: ignore[attr-defined]
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
    yield
    for kind in ("RepoTags", "RepoDigests"):  # what is built before what it is built on
        for image in client.images.list():
            for name in image.attrs[kind] or []:
                if name.startswith(registry_host):
                    with contextlib.suppress(docker.errors.ImageNotFound):
                        client.images.remove(name)


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
    assert other_document["layers"][:-1] == document["layers"][:-1], "the base's blobs are reused"
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
