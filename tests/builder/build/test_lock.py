"""Locks: made from what is asked for, refused when they do not fit, one version in a workspace."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from builder.build.lock import LockedVersion, lock
from builder.build.make import PartError, build, plannable, plans
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import graph
from builder.inspect.explain import explain
from builder.packages import wheels
from builder.platform import ARM64, NATIVE
from builder.store import Store
from tests.builder import locks as debian_locks
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
STAGE = "FROM scratch AS python\nFROM python\nCOPY --from=wheels / /venv/\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of wheels, which is all that pip knows here."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "cache/store"))
    return folder


def wheel(
    index: Path, name: str, version: str, tag: str = "py3-none-any", needs: str = "", **more: str
) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(index / f"{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        for path, text in more.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def workspace(make: Make) -> Workspace:
    wanted = {"stages/a/requirements.in": "tool\n", "stages/b/requirements.in": "library<2\n"}
    return make(STAGE, **{"stages/b/Dockerfile": STAGE}, **wanted)


def versions(workspace: Workspace, name: str) -> dict[str, str]:
    return {w.name: w.version for w in wheels.read_lock(workspace.target(name).requirements)}


def fill(index: Path) -> None:
    wheel(index, "tool", "1.0", needs="library")
    wheel(index, "library", "1.0")


def test_all_stages_get_one_version_that_suits_all(index: Path, workspace: Workspace) -> None:
    fill(index)
    wheel(index, "library", "1.5")
    wheel(index, "library", "2.0")
    changes = lock(workspace)
    assert versions(workspace, "a") == {"tool": "1.0", "library": "1.5"}
    assert versions(workspace, "b") == {"library": "1.5"}
    assert LockedVersion("a", "tool", "", "1.0") in changes
    assert str(index) not in (workspace.root / "stages/a" / wheels.LOCK).read_text()


def test_a_newer_version_is_taken_only_when_asked_for(index: Path, workspace: Workspace) -> None:
    fill(index)
    lock(workspace)
    wheel(index, "library", "1.5")
    assert lock(workspace) == []
    changes = lock(workspace, ["b"], upgrade=True)
    assert changes == [LockedVersion(name, "library", "1.0", "1.5") for name in "ab"]


@pytest.mark.parametrize("direct", [True, False])
def test_a_locked_version_that_fits_no_more_gives_way(
    index: Path, workspace: Workspace, direct: bool
) -> None:
    fill(index)
    lock(workspace)
    wheel(index, "library", "1.5")
    if direct:
        (workspace.root / "stages/b/requirements.in").write_text("library>1,<2\n")
    else:
        wheel(index, "tool", "1.1", needs="library>=1.5")
        (workspace.root / "stages/a/requirements.in").write_text("tool>1\n")
    assert LockedVersion("b", "library", "1.0", "1.5") in lock(workspace)


def pin(index: Path, workspace: Workspace) -> dict[str, bytes]:
    """Lock a (tool, library 1.0) and b (library 1.0), and newer wheels come; return the locks."""
    fill(index)
    wheel(index, "other", "1.0")
    (workspace.root / "stages/b/requirements.in").write_text("library<2\nother\n")
    lock(workspace)
    for name in ("library", "other", "tool"):
        wheel(index, name, "1.5", needs="library>=1.5" if name == "tool" else "")
    return locks(workspace)


def locks(workspace: Workspace) -> dict[str, bytes]:
    return {n: (workspace.root / "stages" / n / wheels.LOCK).read_bytes() for n in "ab"}


def test_locking_one_stage_leaves_the_others_alone(index: Path, workspace: Workspace) -> None:
    before = pin(index, workspace)
    wheel(index, "added", "1.0", needs="library")
    (workspace.root / "stages/a/requirements.in").write_text("tool\nadded\n")
    assert lock(workspace, ["a"]) == [LockedVersion("a", "added", "", "1.0")]
    assert locks(workspace)["b"] == before["b"]


def test_a_conflict_moves_only_what_it_must_and_only_when_agreed(
    index: Path, workspace: Workspace
) -> None:
    before = pin(index, workspace)
    (workspace.root / "stages/a/requirements.in").write_text("tool>1\n")
    with pytest.raises(BuilderError, match=(
        r"locking a needs other versions .*: b: library 1\.0 -> 1\.5; no requirements.* was written"
        r".*--targets a,b\) or give --upgrade"
    )):  # fmt: skip
        lock(workspace, ["a"])
    assert locks(workspace) == before
    asked: list[LockedVersion] = []

    def agree(moves: Sequence[LockedVersion]) -> bool:
        asked.extend(moves)
        return True

    changes = lock(workspace, ["a"], agree=agree)
    assert asked == [LockedVersion("b", "library", "1.0", "1.5")]
    assert {(c.target, c.package) for c in changes} == {
        ("a", "library"), ("a", "tool"), ("b", "library"),
    }  # fmt: skip
    assert versions(workspace, "b") == {"library": "1.5", "other": "1.0"}, "other need not move"


def test_a_lock_that_does_not_fit_fails_the_build_and_names_the_command(
    index: Path, workspace: Workspace, store: Store
) -> None:
    fill(index)
    lock(workspace)
    (workspace.root / "stages/b/requirements.in").write_text("tool\n")
    plans(workspace, store, ["a"])
    with pytest.raises(BuilderError, match=r"does not fit requirements\.in any more") as refused:
        build(workspace, store, ["b"])
    command = re.search(r"run `invoke (.*) b`", str(refused.value))
    assert command
    lock(workspace, ["b"])
    plans(workspace, store)
    # The command that is named is one that there is.
    done = subprocess.run(
        [ROOT / "invoke", *command[1].split(), "nobody"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "there is no target 'nobody'" in done.stderr


def test_a_lock_that_is_missing_or_no_lock_is_named(
    index: Path, workspace: Workspace, store: Store
) -> None:
    with pytest.raises(BuilderError, match=r"a/requirements.* is not there; run `invoke lock --ta"):
        build(workspace, store, ["a"])
    fill(index)
    lock(workspace)
    path = workspace.root / "stages/a" / wheels.LOCK
    path.write_text(path.read_text() + "numpy>=1\n")
    with pytest.raises(BuilderError, match=r"lock:5: not `name==version .*`: 'numpy>=1'"):
        build(workspace, store, ["a"])


def test_two_versions_of_a_package_fail_every_build(
    index: Path, workspace: Workspace, store: Store
) -> None:
    fill(index)
    lock(workspace)
    path = workspace.root / "stages/b" / wheels.LOCK
    text = path.read_text().replace("library==1.0", "library==1.1")
    path.write_text(re.sub(r"sha256:\w{12}", "sha256:" + "f" * 12, text))
    with pytest.raises(BuilderError, match=(
        r"library is locked as 1\.0 \(sha256:\w{12}\) for a and as 1\.1 \(sha256:f{12}\) for b; "
        r".*run `invoke lock`"
    )):  # fmt: skip
        build(workspace, store, ["a"])
    assert lock(workspace), "locking mends it"
    plans(workspace, store)


@pytest.mark.parametrize("tag", ["cp312-cp312-manylinux_2_17_x86_64", "cp313-cp313-win_amd64"])
def test_a_package_without_a_wheel_for_the_platform_is_named(
    index: Path, workspace: Workspace, tag: str
) -> None:
    wheel(index, "library", "1.0", tag)
    wheel(index, "tool", "1.0", needs="library")
    with pytest.raises(BuilderError, match=(
        r"resolving a/requirements\.in .* failed: library.* has no wheel for Python 3\.13 on "
        "linux-amd64"
    )):  # fmt: skip
        lock(workspace)


def test_two_wheels_that_write_one_file_are_not_locked(index: Path, workspace: Workspace) -> None:
    fill(index)
    lock(workspace)
    before = locks(workspace)
    wheel(index, "library", "1.1", **{"space/__init__.py": "", "tests/one.py": "1"})
    wheel(index, "tool", "1.1", needs="library", **{"space/__init__.py": "", "tests/one.py": "2"})
    with pytest.raises(BuilderError, match=(
        r"library-1\.1\S*\.whl and tool-1\.1\S*\.whl of a/requirements\.in both write "
        r"/lib/python3\.13/site-packages/tests/one\.py, with different content.*leave one"
    )):  # fmt: skip
        lock(workspace, upgrade=True)
    assert locks(workspace) == before


def test_an_sdist_is_not_taken(index: Path, workspace: Workspace) -> None:
    wheel(index, "tool", "1.0", needs="library")
    (index / "library-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(BuilderError, match=r"library.* has no wheel .*unless sdists\.in names"):
        lock(workspace)


def test_requirements_that_exclude_each_other_are_told(index: Path, workspace: Workspace) -> None:
    wheel(index, "library", "1.0")
    wheel(index, "library", "2.0")
    wheel(index, "tool", "1.0", needs="library>=2")
    with pytest.raises(BuilderError, match=r"a/requirements\.in and b/requirements\.in .*conflict"):
        lock(workspace)


def test_a_stage_without_a_lock_stops_only_itself_and_its_dependents(
    make: Make, store: Store
) -> None:
    plain = "FROM scratch\nENV a=1\n"
    workspace = make(
        STAGE,
        **{"stages/b/Dockerfile": "FROM a\nENV b=1\n", "stages/c/Dockerfile": plain,
           "stages/d/Dockerfile": "FROM c\nENV d=1\n"},
    )  # fmt: skip
    with pytest.raises(BuilderError, match=(
        r"^a, b not built: .*a/requirements.*lock is not there; run .*\nbuilt: c, d$"
    )):  # fmt: skip
        build(workspace, store)
    assert all(b.cached for b in build(workspace, store, ["c", "d"]).values())


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (b"FROM scratch\nRUN make\n", r"stages/a/Dockerfile:2: .*RUN"),
        (b"FROM scratch\nENV a=\xff\n", r"stages/a/Dockerfile: the recipe cannot be read"),
        (b"FROM scratch\nCOPY --from=debian / /\n", r"debian\.lock is not there; run `invoke lock"),
        (b"FROM nobody\n", r"stages/a/Dockerfile:1: 'nobody' is no target"),
    ],
)
def test_a_stage_that_cannot_be_planned_stops_only_itself_and_its_dependents(
    make: Make, store: Store, recipe: bytes, says: str
) -> None:
    plain = "FROM scratch\nENV a=1\n"
    root = make(
        plain,
        **{"stages/b/Dockerfile": "FROM a\nENV b=1\n", "stages/c/Dockerfile": plain,
           "stages/d/Dockerfile": "FROM c\nENV d=1\n"},
    ).root  # fmt: skip
    (root / "stages/a/Dockerfile").write_bytes(recipe)
    workspace = Workspace.load(root)
    with pytest.raises(PartError, match=rf"^a, b not built: .*{says}") as failed:
        build(workspace, store)
    others = build(workspace, store, ["c", "d"])
    assert {n: b.image for n, b in failed.value.built.items()} == {
        n: b.image for n, b in others.items()
    }
    with pytest.raises(BuilderError, match=rf"^a, b not built: .*{says}"):
        plans(workspace, store)
    assert {n: p.key for n, p in plannable(workspace, store).items()} == {
        n: b.key for n, b in others.items()
    }
    assert explain(workspace, store, "d").known
    assert graph.needs(workspace)["d"] == {"c"}
    with pytest.raises(BuilderError, match=says):
        explain(workspace, store, "b")


def test_each_stage_that_cannot_be_planned_is_named_at_once(make: Make, store: Store) -> None:
    workspace = make(
        "FROM scratch\nCOPY nothing /\n",
        **{"stages/b/Dockerfile": "FROM scratch\nCOPY --from=debian / /\n"},
    )
    with pytest.raises(BuilderError) as failed:
        build(workspace, store, ["a", "b"])
    said = str(failed.value)
    assert "a not built: stages/a/Dockerfile:2: " in said
    assert "b not built: stages/b/Dockerfile:2: " in said


def native(index: Path, name: str, version: str, *machines: str, needs: str = "") -> None:
    """Put a wheel of `name` for each machine into the index."""
    for machine in machines:
        wheel(index, name, version, f"cp313-cp313-manylinux_2_17_{machine}", needs)


def test_another_platform_follows_with_its_own_files(index: Path, workspace: Workspace) -> None:
    native(index, "library", "1.0", "x86_64", "aarch64")
    wheel(index, "tool", "1.0", needs='library; platform_machine == "aarch64"')
    lock(workspace)
    before = locks(workspace)
    native(index, "library", "1.5", "x86_64", "aarch64")
    changes = lock(workspace, platforms=[ARM64])
    assert locks(workspace) == before, "only the other platform was asked for"
    assert LockedVersion("b", "library", "", "1.0", "linux/arm64") in changes, "not the newest"
    there = {w.name for w in wheels.read_lock(workspace.target("a").requirements, ARM64)}
    assert there == {"tool", "library"}, "conditions are about the image, not about this machine"
    assert versions(workspace, "a") == {"tool": "1.0"}
    (one,), (other,) = (
        wheels.read_lock(workspace.target("b").requirements, p) for p in (NATIVE, ARM64)
    )
    assert one.version == other.version
    assert one.sha256 != other.sha256
    assert LockedVersion("b", "library", "1.0", "1.5", "linux/arm64") in lock(
        workspace, upgrade=True
    ), "a lock that is there is kept up"


def test_every_package_without_a_wheel_for_a_platform_is_named(
    index: Path, workspace: Workspace
) -> None:
    native(index, "library", "1.0", "x86_64")
    native(index, "other", "1.0", "x86_64")
    wheel(index, "third", "1.0")
    wheel(index, "tool", "1.0")
    (workspace.root / "stages/b/requirements.in").write_text("library\nother\nthird\n")
    lock(workspace)
    with pytest.raises(BuilderError, match=(
        r"^b was not locked for linux/arm64: library 1\.0, other 1\.0 have no wheel for "
        r"Python 3\.13 on linux-arm64\..*platform_machine == \"x86_64\""
    )):  # fmt: skip
        lock(workspace, platforms=[ARM64])
    assert wheels.read_lock(workspace.target("a").requirements, ARM64), "the others are locked"


def test_a_stage_has_the_python_of_its_base(
    index: Path, workspace: Workspace, store: Store
) -> None:
    """Old pins that need an older Python stand beside new ones; glibc limits which wheel it is."""
    folder = workspace.root / "stages/old"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY --from=debian / /\n")
    pins = ("python3.11-minimal 3.11.2-6", "libc6 2.36-9")
    lines = [f"{pin} pool/x_1_amd64.deb 10 {'d' * 64}\n" for pin in pins]
    debian_locks.lock(folder, "debian.in", "debian.lock", "".join(lines))
    (workspace.root / "stages/b/Dockerfile").write_text(STAGE.replace("scratch", "old"))
    found = Workspace.load(workspace.root)
    wheel(index, "tool", "1.0", needs="library")
    wheel(index, "library", "1.0", "cp313-cp313-manylinux_2_17_x86_64")
    wheel(index, "library", "0.9", "cp311-cp311-manylinux_2_36_x86_64")
    wheel(index, "library", "0.95", "cp311-cp311-manylinux_2_39_x86_64")
    lock(found, ["a", "b"])
    assert versions(found, "a") == {"tool": "1.0", "library": "1.0"}
    assert versions(found, "b") == {"library": "0.9"}
    plan = plans(found, store)["b"]
    assert wheels.locked_for(found.target("b").requirements).version == "3.11"
    (layer,) = (s.plan for s in plan.layers if "wheels" in s.plan.inputs)
    assert layer.inputs["wheels"][0][:2] == ["library", "0.9"]
    (workspace.root / "stages/b/Dockerfile").write_text(STAGE)
    with pytest.raises(BuilderError, match=(
        r"linux-amd64\.lock is for Python 3\.11, and the recipe's base has 3\.13; "
        r"run `invoke lock --targets b`"
    )):  # fmt: skip
        plans(Workspace.load(workspace.root), store, ["b"])


@pytest.fixture
def variant(index: Path, workspace: Workspace) -> Workspace:
    """Return a workspace with both stages locked, and a variant of `a` that is not."""
    fill(index)
    lock(workspace)
    for version in ("1.0", "1.5"):
        wheel(index, "fast", version, needs="library")
    wheel(index, "library", "1.5")
    (workspace.root / "stages/a/requirements.fast.in").write_text("tool\nfast\n")
    return Workspace.load(workspace.root)


def test_a_variant_is_locked_where_it_is_named_in_the_versions_that_the_others_have(
    index: Path, variant: Workspace
) -> None:
    before = locks(variant)
    assert lock(variant) == [], "a variant is not locked unless it is named"
    assert LockedVersion("a-fast", "fast", "", "1.5") in lock(variant, ["a-fast"])
    assert versions(variant, "a-fast") == {"tool": "1.0", "fast": "1.5", "library": "1.0"}
    assert locks(variant) == before
    assert (variant.root / "stages/a/requirements.fast.linux-amd64.lock").exists()


def test_a_variant_that_needs_other_versions_moves_the_others_only_when_agreed(
    index: Path, variant: Workspace
) -> None:
    (variant.root / "stages/a/requirements.fast.in").write_text("fast\nlibrary==1.5\n")
    with pytest.raises(BuilderError, match=r"locking a-fast needs other .*b: library 1.0 -> 1.5"):
        lock(variant, ["a-fast"])


def test_a_stale_variant_stops_its_own_build_and_no_other(
    index: Path, variant: Workspace, store: Store
) -> None:
    lock(variant, ["a-fast"])
    lock(variant, upgrade=True)
    plans(variant, store)
    with pytest.raises(BuilderError, match=r"library is .*`invoke lock --targets a-fast`"):
        plans(variant, store, ["a-fast"])


def test_a_large_download_is_announced_and_followed(
    index: Path, variant: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.build.resolve.size", lambda url: 60_000_000 * ("fast" in url))
    monkeypatch.setattr("builder.build.resolve._MUCH", 60_000_000)
    said: list[str] = []
    lock(variant, ["a-fast"], say=said.append)
    assert said == ["1 wheels are downloaded, 0.06 GB", "  fast: 0.06 GB of 0.06 GB"]
