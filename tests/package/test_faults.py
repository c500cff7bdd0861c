"""A registry that fails: the stage tries again, fails clearly, and tags no half image."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.oci.reference import Reference
from builder.registry.client import PIECE, Registry
from builder.registry.connection import Timing
from builder.store import Store

from . import proxy
from .conftest import PACKAGE, Run, push_base, write_servable

# The proxy's address, its plans, what it was asked.
Behind = tuple[str, list[proxy.Plan], list[tuple[str, str]]]


@pytest.fixture
def behind(registry_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    import package.stage as stage

    impatient = functools.partial(stage.Registries, timing=Timing(stall=5, tries=3, pause=0.01))
    monkeypatch.setattr(stage, "Registries", impatient)
    monkeypatch.setattr(stage, "PAUSE", 0)
    with proxy.serve(registry_host) as served:
        yield served


@pytest.fixture
def parameters(store: Store, registry_host: str, behind: Behind) -> dict[str, str]:
    base = push_base(store, registry_host)
    host = behind[0]
    return {
        "function_image": str(Reference(host, base.repository, digest=base.digest)),
        "model_repo": f"{host}/served/model",
        "artifact_repo": f"{host}/served/artifact",
        "package_digest": PACKAGE,
    }


def whole(host: str, repository: str) -> int:
    """Return how many tags there are; fail where one points at what is not all there."""
    with Registry(host) as registry:
        # An index that lists what refers to an artifact is no image.
        tags = [tag for tag in registry.tags(repository) if not tag.startswith("sha256-")]
        for tag in tags:
            found = registry.get_manifest(repository, tag)
            assert found, f"{tag} points at nothing"
            document = json.loads(found[1])
            for entry in (document["config"], *document["layers"]):
                blob = oci.Descriptor.from_json(entry)
                assert len(registry.get_blob(repository, blob, blob.size)) == blob.size
    return len(tags)


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "cut after"])
def test_every_request_may_fail_once(
    behind: Behind,
    parameters: dict[str, str],
    registry_host: str,
    run: Run,
    fault: str,
) -> None:
    _, plans, _ = behind
    failed = set()

    def once(method: str, path: str, number: int) -> str:
        # An upload's address holds its state and is new each time.
        what = (method, path.partition("?")[0].partition("uploads/")[0])
        if what in failed:
            return ""
        failed.add(what)
        return fault

    plans.append(once)
    found = run(**parameters)
    assert len(failed) > 20
    assert whole(registry_host, "served/model") == 1
    assert whole(registry_host, "served/artifact") == 1
    plans.append(lambda *_: "")
    assert run(**parameters) == found


@pytest.mark.parametrize("fault", ["500", "cut", "cut after"])
def test_a_model_of_many_pieces_goes_on_after_each_cut(
    behind: Behind,
    parameters: dict[str, str],
    registry_host: str,
    run: Run,
    servable: Path,
    fault: str,
) -> None:
    _, plans, asked = behind
    write_servable(servable, {"large": random.Random(1).randbytes(3 * PIECE + 12345)})
    pieces = itertools.count()

    def first_and_third(method: str, _path: str, _number: int) -> str:
        return fault if method == "PATCH" and next(pieces) in (0, 2) else ""

    plans.append(first_and_third)
    run(**parameters)
    assert whole(registry_host, "served/model") == 1
    assert whole(registry_host, "served/artifact") == 1
    # This registry forgets an upload whose answer was lost: the layer is made again from its start.
    again = 1 + 2 if fault == "cut after" else 2
    assert [method for method, _ in asked].count("PATCH") == 4 + again


@pytest.mark.parametrize(
    ("what", "fault"),
    [("PUT", "corrupt up"), ("GET", "corrupt down"), ("PUT", "400")],
)
def test_damage_on_the_way_is_found_and_sent_again(
    behind: Behind,
    parameters: dict[str, str],
    registry_host: str,
    run: Run,
    what: str,
    fault: str,
) -> None:
    _, plans, _ = behind
    damaged = []

    def once(method: str, path: str, _: int) -> str:
        if method == what and "served" in path and len(damaged) < 2:
            damaged.append(path)
            return fault
        return ""

    plans.append(once)
    run(**parameters)
    assert len(damaged) == 2
    assert whole(registry_host, "served/model") == 1


@pytest.mark.parametrize(
    ("what", "path", "fault", "message"),
    [
        ("HEAD", "/served/model/", "401", "answered 401 .* secret dockercreds, /var/run"),
        ("POST", "/served/model/", "403", "answered 403 .* secret dockercreds, /var/run"),
        ("PUT", "/served/model/", "429", "answered 429 .* try again later"),
        ("PUT", "/served/model/manifests", "500", "PUT /v2/served/model/manifests/.* 500"),
        ("PUT", "/served/model/blobs", "corrupt up", "400"),
        ("GET", "/served/model/manifests", "corrupt down", "came with other content"),
        ("GET", "/served/model/manifests", "404", "does not give it back"),
        ("GET", "/p/function/manifests", "cut", "check that the registry runs"),
        ("GET", "/p/function/manifests", "404", "is not in the registry; push it or mend"),
    ],
)
def test_what_goes_on_failing_ends_with_its_cause_and_no_tag(
    behind: Behind,
    parameters: dict[str, str],
    registry_host: str,
    run: Run,
    what: str,
    path: str,
    fault: str,
    message: str,
) -> None:
    from common.errors import StageError

    _, plans, _ = behind
    plans.append(lambda method, at, _: fault if method == what and path in at else "")
    with pytest.raises(StageError, match=message):
        run(**parameters)
    assert whole(registry_host, "served/model") == 0
    plans.append(lambda *_: "")
    run(**parameters)
    assert whole(registry_host, "served/model") == 1


@pytest.mark.slow
def test_a_registry_that_dies_at_any_request_never_has_a_tag_on_half_an_image(
    behind: Behind,
    parameters: dict[str, str],
    registry_host: str,
    run: Run,
) -> None:
    from common.errors import StageError

    _, plans, asked = behind
    run(**parameters)
    needed = len(asked)
    assert needed > 30
    tags = []
    for last in range(needed):
        here = {**parameters, "model_repo": f"{parameters['model_repo']}-{last}",
                "artifact_repo": f"{parameters['artifact_repo']}-{last}"}  # fmt: skip
        start = len(asked)
        plans.append(lambda _m, _p, number, dies=start + last: "cut" if number >= dies else "")
        with pytest.raises(StageError):
            run(**here)
        tags.append(whole(registry_host, f"served/model-{last}"))
        whole(registry_host, f"served/artifact-{last}")
    assert tags.count(0) > needed / 2
