"""A build makes each thing once, the same everywhere, and leaves nothing half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.build.make import build
from builder.errors import BuilderError
from builder.sandbox.unpack import image_entries
from builder.store import Store
from tests.builder.conftest import Make

RECIPE = 'FROM scratch\nENV a=1\nCOPY src/ /app/\nWORKDIR /work\nCMD ["/app/run"]\n'


def digest(make: Make, folder: Path, root: str, recipe: str = RECIPE, **files: str) -> str:
    workspace = make(recipe, root, **({"src/run": "x", "src/sub/data": "y"} | files))
    return build(workspace, Store.open(folder / f"store-{root}"))["a"].image.digest


def test_another_checkout_and_umask_give_the_same_digest(make: Make, tmp_path: Path) -> None:
    first = digest(make, tmp_path, "one")
    umask = os.umask(0o077)
    try:
        assert digest(make, tmp_path, "two/deeper") == first
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    ("recipe", "files"),
    [
        (RECIPE, {"src/run": "changed"}),
        (RECIPE, {"src/added": ""}),
        (RECIPE.replace("a=1", "a=2"), {}),
        (RECIPE.replace("/app/run", "/app/go"), {}),
        (RECIPE.replace("WORKDIR /work", "LABEL b=1"), {}),
    ],
    ids=["content", "file added", "ENV", "CMD", "LABEL"],
)
def test_a_relevant_change_gives_another_digest(
    make: Make, tmp_path: Path, recipe: str, files: dict[str, str]
) -> None:
    assert digest(make, tmp_path, "one") != digest(make, tmp_path, "two", recipe, **files)


@pytest.mark.parametrize(
    ("recipe", "files"),
    [(RECIPE.replace("ENV", "# why\n\nENV"), {}), (RECIPE, {"other/file": "z"})],
    ids=["comment and blank line", "unrelated file"],
)
def test_an_irrelevant_change_gives_the_same_digest(
    make: Make, tmp_path: Path, recipe: str, files: dict[str, str]
) -> None:
    assert digest(make, tmp_path, "one") == digest(make, tmp_path, "two", recipe, **files)


def test_the_executable_bit_counts(make: Make, tmp_path: Path) -> None:
    first = digest(make, tmp_path, "one")
    (tmp_path / "one/src/run").chmod(0o755)
    assert digest(make, tmp_path, "one") != first


def test_what_is_known_is_not_made_again(make: Make, store: Store) -> None:
    workspace = make(RECIPE, **{"src/run": "x"})
    assert not build(workspace, store)["a"].cached
    assert build(workspace, store)["a"].cached


def test_a_missing_layer_is_made_again(make: Make, store: Store) -> None:
    workspace = make(RECIPE, **{"src/run": "x"})
    first = build(workspace, store)["a"].image
    store.path(first.layers[0].blob.digest).unlink()
    assert build(workspace, store)["a"].image == first
    store.verify(first.layers[0].blob.digest)


def test_copy_merges_folders_and_keeps_links(make: Make, store: Store) -> None:
    workspace = make(
        "FROM scratch AS one\nCOPY src/ /in/\nFROM scratch\n"
        "COPY --from=one --chown=7:8 --chmod=0600 /in/run /out/\nCOPY src/*.txt /texts/\n",
        **{"src/run": "x", "src/b.txt": "b", "src/c.txt": "c"},
    )
    entries = {e.path: e for e in image_entries(store, build(workspace, store)["a"].image)}
    assert sorted(entries) == ["out", "out/run", "texts", "texts/b.txt", "texts/c.txt"]
    assert (entries["out/run"].mode, entries["out/run"].uid, entries["out/run"].gid) == (
        0o600,
        7,
        8,
    )


def test_what_dockerignore_hides_is_not_copied(make: Make, store: Store) -> None:
    workspace = make(
        "FROM scratch\nCOPY src/ /\n",
        **{"src/a.py": "", "src/tests/t.py": "", ".dockerignore": "**/tests\n"},
    )
    entries = image_entries(store, build(workspace, store)["a"].image)
    assert [entry.path for entry in entries] == ["a.py"]


def test_an_owner_with_a_name_gets_the_number_that_the_image_has_now(
    make: Make, store: Store
) -> None:
    recipe = "FROM scratch\nCOPY accounts/ /etc/\nCOPY --chown=me src /b\nUSER me\nWORKDIR /w\n"
    for number in (7, 8):
        files = {"src/run": "x", "accounts/passwd": f"me:x:{number}:{number}::/:\n"}
        image = build(make(recipe, **files), store)["a"].image
        owners = {e.path: e.uid for e in image_entries(store, image)}
        assert (owners["b/run"], owners["b"], owners["w"]) == (number, number, number)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("FROM scratch\nCOPY nothing /\n", r"stages/a/Dockerfile:2: .*'nothing' is not there"),
        ("FROM nobody\n", r"stages/a/Dockerfile:1: 'nobody' is no target"),
        ("FROM a\n", r"targets need each other: a -> a"),
        ("FROM scratch\nCOPY --chown=root stages /\n", r"Dockerfile:2: root: .* has no 'root'"),
        ("FROM scratch\nCOPY --from=wheels / /v\n", r"Dockerfile:2: wheels need a Python"),
    ],
)
def test_a_recipe_that_cannot_be_built_says_why(
    make: Make, store: Store, recipe: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=says):
        build(make(recipe), store)


def test_an_interrupted_layer_is_never_taken_for_whole(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make(RECIPE, **{"src/run": "x"})

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("builder.oci.layer.write_tar", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(workspace, store)
    assert not list((store.root / "tmp").iterdir())
    assert not list((store.root / "blobs/sha256").iterdir())
    assert not build(workspace, store)["a"].cached


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BuilderError, match=r"store .*file/store cannot be written.*PLATELINE_STORE"
    ):
        Store.open(tmp_path / "file" / "store")


def test_a_build_of_nothing_new_does_not_wait_for_imports_of_the_network() -> None:
    """httpx, docker and kfp take longer to import than all the rest of a build takes."""
    script = "import sys, builder.build.make; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"httpx", "docker", "kfp", "rich", "asyncio"} & set(done.stdout.split())
