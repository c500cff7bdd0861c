"""Whatever changes a key is named, with what it was and what it is; what does not, is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.build.make import build, plans
from builder.build.workspace import Workspace
from builder.inspect import explain
from builder.oci import layer
from builder.store import Store, builds
from tests.builder.conftest import Make
from tests.builder.locks import debs, wheels

BASE = "FROM scratch\nCOPY --from=debian / /\nENV lang=C\nLABEL who=us\n"
STAGE = (
    "FROM a AS inner\nCOPY data/ /data/\n"
    "FROM a\n"
    "COPY --from=wheels / /opt/venv/\n"
    "COPY src/ /app/\n"
    "COPY --from=inner /data/x /x\n"
    "WORKDIR /work\n"
    'CMD ["run"]\n'
)
HERE = "stages/b/Dockerfile"


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))

    return edit


def edit(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text(text)


@pytest.fixture
def workspace(make: Make, store: Store) -> Workspace:
    """Return a workspace whose target b counts as built as it is."""
    files = {"src/run": "x", "src/sub/data": "y", "data/x": "1", HERE: STAGE}
    root = make(BASE, **files).root
    (root / "src/link").symlink_to("run")
    wheels(root, "numpy==1.0", "idna==3.4")
    debs(root, "libc6 2.41-1", "tzdata 2025a")
    workspace = Workspace.load(root)
    builds.remember(store, root, "b", "", plans(workspace, store, ["b"])["b"].record())
    return workspace


CHANGES = [
    ("a file's content", edit("src/run", "z"), ("file", "src/run", f"{HERE}:5")),
    ("an executable bit", lambda r: (r / "src/run").chmod(0o755), ("file", "src/run", f"{HERE}:5")),
    ("a file more", edit("src/new", ""), ("file", "src/new", f"{HERE}:5")),
    ("a file less", lambda r: (r / "src/run").unlink(), ("file", "/app/run", f"{HERE}:5")),
    ("a link's target", lambda r: (r / "src/link").unlink() or (r / "src/link").symlink_to("sub"),
     ("file", "/app/link", f"{HERE}:5")),
    ("a file of an earlier stage", edit("data/x", "2"), ("file", "data/x", f"{HERE}:2")),
    ("a wheel's version", lambda r: wheels(r, "numpy==1.1", "idna==3.4"),
     ("wheel", "numpy", f"{HERE}:4")),
    ("a wheel less", lambda r: wheels(r, "numpy==1.0"), ("wheel", "idna", f"{HERE}:4")),
    ("a wheel's hash", replace("stages/b/requirements.linux-amd64.lock", "c" * 64, "f" * 64),
     ("wheel", "numpy", f"{HERE}:4")),
    ("a deb's version", lambda r: debs(r, "libc6 2.41-2", "tzdata 2025a"),
     ("deb", "libc6", "stages/a/Dockerfile:2")),
    ("ENV of the base", replace("stages/a/Dockerfile", "lang=C", "lang=D"),
     ("setting", "ENV lang", "stages/a/Dockerfile:3")),
    ("LABEL of the base", replace("stages/a/Dockerfile", "LABEL who=us\n", ""),
     ("setting", "LABEL who", "stages/a/Dockerfile")),
    ("CMD", replace(HERE, '"run"', '"go"'), ("setting", "CMD", f"{HERE}:8")),
    ("another destination", replace(HERE, "src/ /app/", "src/ /srv/"),
     ("line", "instruction", f"{HERE}:5")),
    ("an instruction more", replace(HERE, "CMD", "COPY src/run /r\nCMD"),
     ("line", "instruction", f"{HERE}:8")),
    ("an instruction twice", replace(HERE, "CMD", "COPY src/ /app/\nCMD"),
     ("line", "instruction", f"{HERE}:8")),
    ("the order", replace(HERE, "COPY src/ /app/\nCOPY --from=inner /data/x /x\n",
                          "COPY --from=inner /data/x /x\nCOPY src/ /app/\n"),
     ("order", "COPY --from=inner /data/x /x", f"{HERE}:5")),
    ("the base", replace(HERE, "FROM a\n", "FROM inner\n"), ("base", "FROM", HERE)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_changed_is_named_alone(
    workspace: Workspace,
    store: Store,
    change: Callable[[Path], object],
    named: tuple[str, str, str],
) -> None:
    change(workspace.root)
    found = explain.explain(Workspace.load(workspace.root), store, "b")
    assert named in [(c.kind, c.name, c.where) for c in found.changes]
    assert len(found.changes) == 1, found.changes
    assert all(c.old != c.new for c in found.changes)


def test_old_and_new_versions_are_shown(workspace: Workspace, store: Store) -> None:
    wheels(workspace.root, "numpy==1.1", "idna==3.4")
    debs(workspace.root, "libc6 2.41-2", "tzdata 2025a")
    found = explain.explain(workspace, store, "b").changes
    assert {(c.name, c.old, c.new) for c in found} == {
        ("numpy", "1.0", "1.1"),
        ("libc6", "2.41-1", "2.41-2"),
    }


@pytest.mark.parametrize(
    "change",
    [
        edit("other", "new"),
        replace(HERE, "FROM a\n", "# a comment\n\nFROM a\n"),
        lambda root: (root / "src/run").chmod(0o600),
        lambda root: (root / "stages/b/requirements.in").write_text("# a comment\n"),
    ],
    ids=["an unrelated file", "a comment", "a umask", "a comment in requirements.in"],
)
def test_what_no_image_holds_is_not_named(
    workspace: Workspace, store: Store, change: Callable[[Path], object]
) -> None:
    change(workspace.root)
    assert not explain.explain(Workspace.load(workspace.root), store, "b").changes


def test_a_new_version_of_the_format_is_named(
    workspace: Workspace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "FORMAT", "tar-2")
    found = explain.explain(workspace, store, "b").changes
    assert ("format", "image-1 tar-2") in {(c.kind, c.new) for c in found}


RECIPE = "FROM scratch\nCOPY src/run /run\nCOPY src/other /other\n"


def test_the_sentence_follows_what_a_build_would_do(make: Make, store: Store) -> None:
    workspace = make(RECIPE, **{"src/run": "x", "src/other": "y"})

    def sentence() -> str:
        return explain.explain(workspace, store, "a").sentence()

    first = "a would be built for the first time in this checkout: 2 of 2 layers would be made"
    assert sentence() == first
    image = build(workspace, store)["a"].image
    assert sentence() == "a would not be rebuilt: nothing has changed since its last build"
    (workspace.root / "src/run").write_text("z")
    assert sentence() == "a would be rebuilt: 1 of 2 layers would be made"
    assert explain.explain(workspace, store, "a").making == ("src/run",)
    build(workspace, store)
    (workspace.root / "src/run").write_text("x")
    assert sentence() == "a would not be rebuilt: the store has this image from another build"
    build(workspace, store)
    store.path(image.layers[1].blob.digest).unlink()
    assert sentence() == (
        "a would be rebuilt: the store has lost parts of it; 1 of 2 layers would be made"
    )


def test_another_checkout_has_a_last_build_of_its_own(make: Make, store: Store) -> None:
    workspace = make(RECIPE, **{"src/run": "x", "src/other": "y"})
    build(workspace, store)
    shutil.copytree(workspace.root, workspace.root.parent / "other")
    found = explain.explain(Workspace.load(workspace.root.parent / "other"), store, "a")
    assert found.first
    assert found.known


def test_another_order_of_env_is_told_as_that(make: Make, store: Store) -> None:
    workspace = make("FROM scratch\nENV one=1\nENV two=2\n")
    build(workspace, store)
    (workspace.root / "stages/a/Dockerfile").write_text("FROM scratch\nENV two=2\nENV one=1\n")
    found = explain.explain(Workspace.load(workspace.root), store, "a")
    (change,) = found.changes
    assert (change.kind, change.name) == ("order", "ENV")
    assert (change.old, change.new) == ("PATH one two", "PATH two one")
    assert "lost parts" not in found.sentence()


def test_another_order_of_a_lock_is_told_as_that(workspace: Workspace, store: Store) -> None:
    root = workspace.root
    path = root / "stages/b/requirements.linux-amd64.lock"
    made, *lines = path.read_text().splitlines()
    path.write_text("\n".join([made, *reversed(lines)]) + "\n")
    found = explain.explain(Workspace.load(root), store, "b")
    (change,) = found.changes
    assert (change.kind, change.name) == ("order", "lines of the lock")
