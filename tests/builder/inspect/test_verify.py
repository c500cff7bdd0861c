"""A build in other surroundings gives the same digests; else the first difference is named."""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builder.inspect.verify
from builder import oci
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.compare import Difference, difference
from builder.inspect.verify import ROUNDS, verify
from builder.oci import layer
from builder.oci.entry import Entry
from builder.store import Store
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
ENTRIES = (
    Entry("app", "dir", 0o755),
    Entry("app/a", "file", content=b"a" * 3_000_000),
    Entry("app/b", "symlink", 0o777, target="a"),
    Entry("app/c", "file", content=b"c"),
)
CONFIG: dict[str, Any] = {"architecture": "amd64", "config": {"Env": ["a=1"]}}


def image(
    store: Store, *layers: tuple[Entry, ...], config: dict[str, Any] = CONFIG
) -> tuple[Store, oci.Image]:
    made = []
    for number, entries in enumerate(layers):
        with store.writing() as (stream, keep):
            one = layer.write_layer(entries, stream, created_by=f"COPY {number}")
            keep(one.blob.digest)
        made.append(one)
    return store, oci.assemble(config, tuple(made))[0]


def changed(index: int, **members: object) -> tuple[Entry, ...]:
    entries = list(ENTRIES)
    entries[index] = replace(entries[index], **members)  # type: ignore[arg-type]
    return tuple(entries)


@pytest.mark.parametrize(
    ("entries", "path", "field", "one", "other"),
    [
        (changed(0, mode=0o700), "app", "mode", "0755", "0700"),
        (changed(2, target="c"), "app/b", "linkname", "a", "c"),
        (changed(3, uid=7), "app/c", "uid", "0", "7"),
        (changed(3, content=b"cc"), "app/c", "size", "1", "2"),
        (changed(3, kind="dir"), "app/c", "type", "0", "5"),
        (
            changed(1, content=b"a" * 2_999_999 + b"b"),
            "app/a", "content from byte 2999999", b"a".hex(), b"b".hex(),
        ),
        (ENTRIES[:3], "app/c", "the entry", "there", "missing"),
        ((*ENTRIES, Entry("app/aa", "dir")), "app/aa", "the entry", "missing", "there"),
    ],
)  # fmt: skip
def test_the_first_differing_file_and_field_are_named(
    store: Store, entries: tuple[Entry, ...], path: str, field: str, one: str, other: str
) -> None:
    first, second = image(store, ENTRIES[:1], ENTRIES), image(store, ENTRIES[:1], entries)
    found = difference("a", first, second)
    assert found == Difference("a", "COPY 1", path, field, one, other)
    assert found.sentence() == f"a, layer `COPY 1`, /{path}: {field} is {one} and {other}"


def test_a_time_in_a_header_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = image(store, ENTRIES)
    header = layer.header

    def late(entry: Entry, size: int, mtime: int = 0) -> tarfile.TarInfo:
        return header(entry, size, mtime + 1)

    monkeypatch.setattr(layer, "header", late)
    found = difference("a", first, image(store, ENTRIES))
    assert (found.path, found.field, found.one) == ("app", "mtime", str(layer.EPOCH))


def test_a_layer_more_and_a_setting_are_named(store: Store) -> None:
    one = image(store, ENTRIES)
    more = difference("a", one, image(store, ENTRIES, ENTRIES[:1]))
    assert more.sentence() == "a, layer `COPY 1`: the layer is missing and there"
    other = image(store, ENTRIES, config={**CONFIG, "config": {"Env": ["a=2"]}})
    setting = difference("a", one, other)
    assert setting.sentence() == "a, config: config.Env[0] is 'a=1' and 'a=2'"


def test_another_compression_of_the_same_tar_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image(store, ENTRIES)
    monkeypatch.setattr("builder.oci.gzip.LEVEL", 0)
    assert difference("a", one, image(store, ENTRIES)).field == "the compressed layer"


RECIPE = "FROM scratch\nCOPY src/ /app/\nWORKDIR /work\n"
FILES = {"src/run": "x", "src/sub/ä": "y", ".dockerignore": "**/Dockerfile\n"}


def test_other_surroundings_give_the_same_digests(make: Make, store: Store) -> None:
    workspace = make(RECIPE, **FILES)
    (workspace.root / "src/run").chmod(0o755)
    (workspace.root / "src/link").symlink_to("run")
    (workspace.root / "src/empty").mkdir()
    said: list[str] = []
    assert verify(workspace, store, rounds=len(ROUNDS), progress=said.append) == []
    assert len(said) == len(ROUNDS)
    assert all(("as nobody" in line) == (os.geteuid() == 0) for line in said)


def test_what_add_brings_is_the_same_elsewhere(
    make: Make, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    source = tmp_path / "research"
    source.mkdir()
    (source / "run.py").write_text("print()")
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=source, check=True)
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=source, check=True, capture_output=True
    )
    commit = found.stdout.decode().strip()
    workspace = make(f"FROM scratch\nADD file://{source}/.git#{commit} /code/\n")
    assert verify(workspace, store) == []


def test_what_differs_elsewhere_is_named(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = layer.header

    def wrong(entry: Entry, size: int, mtime: int = 0) -> tarfile.TarInfo:
        info = header(entry, size, mtime)
        info.mode |= 0o1
        return info

    # Only this process is spoilt; the other one imports the module anew.
    monkeypatch.setattr(layer, "header", wrong)
    (found,) = verify(make(RECIPE, **FILES), store)
    assert found.sentence() == "a, layer `COPY src/ /app/`, /app/run: mode is 0645 and 0644"


def test_a_file_that_changes_meanwhile_is_no_difference(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make(RECIPE, **FILES)

    def change(message: str) -> None:
        (workspace.root / "src/run").write_text(message)

    assert verify(workspace, store, progress=change) == []
    copy = builder.inspect.verify._copy

    def copy_and_change(workspace: Workspace, root: Path) -> None:
        copy(workspace, root)
        change("too early")

    monkeypatch.setattr("builder.inspect.verify._copy", copy_and_change)
    with pytest.raises(BuilderError, match=r"files of a changed while they were copied"):
        verify(workspace, store)


def test_a_failing_build_elsewhere_says_why(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make(RECIPE, **FILES)
    monkeypatch.setattr("builder.inspect.verify.sys.executable", "/bin/false")
    monkeypatch.setattr("builder.inspect.verify._open_to_all", lambda _: True)
    with pytest.raises(BuilderError, match=r"in other surroundings failed: exit code 1"):
        verify(workspace, store)


@pytest.mark.slow
def test_the_images_with_byte_code_are_the_same_elsewhere() -> None:
    assert verify(Workspace.load(ROOT), Store.open(), ["base", "prepare"]) == []
