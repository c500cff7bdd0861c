"""What is kept, used or newly made stays with all it reaches; everything else goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import oci
from builder.build.make import build
from builder.errors import BuilderError
from builder.oci import canonical, layer
from builder.store import Store, builds, roots
from builder.store.collection import DAY, collect, survey, usage
from tests.builder.conftest import Make

NOW = 1_700_000_000.0
KEEP = 10


@dataclass
class Model:
    """A store on disk, and beside it who needs whom, written down while it was made."""

    store: Store
    needs: dict[Path, set[Path]] = field(default_factory=dict)
    roots: set[Path] = field(default_factory=set)

    def put(self, path: Path, data: bytes, needs: Collection[Path], *, young: bool) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.needs.setdefault(path, set()).update(needs)
        self.age(path, young=young)
        return path

    def age(self, path: Path, *, young: bool) -> None:
        when = NOW - (KEEP + (-1 if young else 1)) * DAY
        os.utime(path, (when, when))
        if young:
            self.roots.add(path)

    def blob(self, data: bytes, needs: Collection[Path] = (), *, young: bool) -> oci.Descriptor:
        described = oci.describe(oci.MANIFEST, data)
        self.put(self.store.path(described.digest), data, needs, young=young)
        return described

    def path(self, described: oci.Descriptor) -> Path:
        return self.store.path(described.digest)

    def needed(self) -> set[Path]:
        found: set[Path] = set()
        while (more := self.roots.union(*(self.needs[path] for path in found))) - found:
            found |= more
        return found


@st.composite
def models(draw: st.DrawFn) -> Callable[[Store], Model]:
    """Draw a function that fills a store with layers, images, indexes, referrers and the rest."""
    seed = draw(st.lists(st.integers(0, 2**16), min_size=120, max_size=120))

    def fill(store: Store) -> Model:
        numbers = iter(seed)
        model = Model(store)

        def young() -> bool:
            return next(numbers) % 8 == 0

        def some(items: list[oci.Descriptor], most: int) -> list[oci.Descriptor]:
            count = next(numbers) % (most + 1) if items else 0
            return [items[next(numbers) % len(items)] for _ in range(count)]

        layers = [model.blob(b"\x1f\x8b layer %d" % n, young=young()) for n in range(4)]
        diff_ids = [canonical.sha256(b"diff %d" % n) for n in range(4)]
        folders = []
        for diff_id in diff_ids:
            suffix = "-x" if next(numbers) % 2 else ""
            folder = store.root / "unpacked" / (diff_id.removeprefix("sha256:")[:24] + suffix)
            folder.mkdir()
            (folder / "file").write_text("x")
            model.needs[folder] = set()
            model.age(folder, young=young())
            folders.append(folder)

        def manifest(**members: object) -> bytes:
            return canonical.dumps({"schemaVersion": 2, **members})

        tops: list[oci.Descriptor] = []
        for number in range(4):
            chosen = some(layers, 3)
            places = [layers.index(layer) for layer in chosen]
            config = model.blob(
                canonical.dumps({"n": number, "diff_ids": [diff_ids[place] for place in places]}),
                {folders[place] for place in places},
                young=young(),
            )
            parts = [config, *chosen]
            data = manifest(config=config.to_json(), layers=[c.to_json() for c in chosen])
            tops.append(model.blob(data, {model.path(part) for part in parts}, young=young()))
        for number in range(5):
            members = some(tops, 3)
            if next(numbers) % 2:
                data = manifest(n=number, manifests=[m.to_json() for m in members])
                made = model.blob(data, {model.path(m) for m in members}, young=young())
            else:
                subject = tops[next(numbers) % len(tops)]
                sbom = model.blob(b'{"bom": %d}' % number, young=young())
                data = manifest(layers=[sbom.to_json()], subject=subject.to_json())
                made = model.blob(data, {model.path(sbom), model.path(subject)}, young=young())
                model.needs[model.path(subject)].add(model.path(made))
            tops.append(made)
        for number, top in enumerate(some(tops, 3)):
            key = canonical.sha256(b"key %d" % number).removeprefix("sha256:")
            path = store.root / "results" / f"{key}.json"
            document = {"result": {"manifest": top.digest}}
            model.put(path, canonical.dumps(document), {model.path(top)}, young=young())
            if next(numbers) % 2:
                there = next(numbers) % 2 == 0
                root = str(store.root) if there else "/nowhere"
                build = {"root": root, "target": "a", "key": key, "image": top.digest}
                last = store.root / "results" / f"{key[::-1]}.json"
                data = canonical.dumps({"result": {"last": build}})
                model.put(last, data, {path, model.path(top)}, young=young())
                model.roots |= {last} if there else set()
        for number, top in enumerate(some(tops, 1)):
            roots.keep(store, f"release {number}", top)
            model.roots.add(model.path(top))
        return model

    return fill


@pytest.mark.slow
@given(fill=models())
@settings(max_examples=300, deadline=None)
def test_gc_removes_exactly_what_nothing_reaches(fill: Callable[[Store], Model]) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name, "store"))
        model = fill(store)
        found = collect(store, keep_days=KEEP, now=NOW)
        left = {path for path in model.needs if path.exists()}
        assert left == model.needed()
        assert {item.path for item in found.gone} == model.needs.keys() - left
        assert not list((store.root / "tmp").iterdir())
        assert not collect(store, keep_days=KEEP, now=NOW).gone


RECIPE = "FROM scratch\nCOPY src /\n"


def test_the_last_build_stays_whole_and_cached_and_an_earlier_one_goes(
    make: Make, store: Store
) -> None:
    workspace = make(RECIPE, src="one")
    old = build(workspace, store)["a"].image
    (workspace.root / "src").write_text("two")
    build(workspace, store)
    late = max(path.stat().st_mtime for path in store.root.rglob("*"))
    found = collect(store, keep_days=0, now=late + 1)
    assert {item.kind for item in found.gone} == {"result", "layer", "document"}
    assert not store.path(old.digest).exists()
    assert build(workspace, store)["a"].cached
    for part in build(workspace, store)["a"].image.layers:
        store.verify(part.blob.digest)


def test_a_release_stays_until_it_is_forgotten(make: Make, store: Store) -> None:
    workspace = make(RECIPE, src="one")
    old = build(workspace, store)["a"].image
    index = store.add(canonical.dumps({"manifests": [old.manifest.to_json()]}))
    roots.keep(store, "v1", index)
    (workspace.root / "src").write_text("two")
    build(workspace, store)
    late = max(path.stat().st_mtime for path in store.root.rglob("*")) + 1
    collect(store, keep_days=0, now=late)
    assert store.image(old.digest) == old
    roots.forget(store, "v1")
    collect(store, keep_days=0, now=late)
    assert not store.path(old.digest).exists()
    with pytest.raises(BuilderError, match="nothing is kept as 'v1'; there are no names"):
        roots.forget(store, "v1")


def test_a_dry_run_removes_nothing(make: Make, store: Store) -> None:
    blob = store.add(b"stray")
    found = collect(
        store, keep_days=0, now=store.path(blob.digest).stat().st_mtime + 1, dry_run=True
    )
    assert [item.hash for item in found.gone] == [blob.digest.removeprefix("sha256:")]
    assert store.has(blob)


def test_a_result_that_was_of_use_counts_as_young(store: Store) -> None:
    store.put_result("a" * 64, {"seconds": 1.0})
    path = store.root / "results" / f"{'a' * 64}.json"
    os.utime(path, (NOW, NOW))
    store.get_result("a" * 64)
    assert not collect(store, keep_days=1, now=path.stat().st_mtime).gone


def test_downloads_of_a_last_build_stay(make: Make, store: Store) -> None:
    for name in ("a" * 64, "b" * 64):
        folder = store.root.parent / "downloads" / name
        folder.mkdir(parents=True)
        (folder / "x.whl").write_bytes(b"12345")
    record = {"key": "c" * 64, "layers": [["d" * 64, 1, "", {"wheels": [["x", "1", "a" * 64]]}]]}
    builds.remember(store, store.root, "a", "", record)
    late = max(path.stat().st_mtime for path in store.root.parent.rglob("*")) + 1
    gone = collect(store, keep_days=0, now=late).gone
    assert [(item.kind, item.hash, item.size) for item in gone] == [("download", "b" * 64, 5)]
    assert (store.root.parent / "downloads" / ("a" * 64) / "x.whl").exists()


def test_what_the_engine_kfp_keeps_goes_whole_when_it_was_not_used(store: Store) -> None:
    folder = store.root.parent / "kfp"
    (folder / "objects").mkdir(parents=True)
    (folder / "objects" / "one").write_bytes(b"12345")
    (folder / "metadata.sqlite").write_bytes(b"123")
    used = folder.stat().st_mtime
    assert not collect(store, keep_days=30, now=used + DAY).gone
    gone = collect(store, keep_days=30, now=used + 31 * DAY).gone
    assert [(item.kind, item.size) for item in gone] == [("engine kfp", 8)]
    assert not folder.exists()


def test_what_a_killed_process_left_goes_after_a_day(store: Store) -> None:
    (store.root / "tmp" / "half").write_bytes(b"x")
    written = (store.root / "tmp" / "half").stat().st_mtime
    assert not collect(store, keep_days=30, now=written + DAY / 2).gone
    assert collect(store, keep_days=30, now=written + 2 * DAY).gone


def test_gc_leaves_a_store_alone_that_is_in_use(store: Store) -> None:
    script = (
        "import sys, time, pathlib; from builder.store import Store\n"
        "with Store.open(pathlib.Path(sys.argv[1])).in_use():\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(BuilderError, match="a build, push or run is using the store"):
            collect(store, keep_days=0, now=NOW)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        collect(store, keep_days=0, now=NOW)
    finally:
        process.kill()
        process.wait()


def test_a_build_holds_the_store(make: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def try_gc(*arguments: object, **members: object) -> object:
        with pytest.raises(BuilderError, match="is using the store"):
            collect(store, keep_days=0, now=NOW)
        refused.append(True)
        return write(*arguments, **members)  # type: ignore[arg-type]

    write = layer.write_layer
    monkeypatch.setattr(layer, "write_layer", try_gc)
    build(make(RECIPE, src="one"), store)
    assert refused


def test_sizes_are_told_by_kind(store: Store) -> None:
    store.add(b"\x1f\x8b12345678")
    store.add(b"{}")
    folder = store.root / "unpacked" / "x"
    folder.mkdir()
    (folder / "one").write_bytes(b"123")
    os.link(folder / "one", folder / "two")
    (store.root.parent / "steps" / "fingerprint").mkdir(parents=True)
    (store.root.parent / "steps" / "fingerprint" / "out").write_bytes(b"1234567")
    assert usage(survey(store, NOW)) == {
        "layer": (1, 10), "step": (1, 7), "unpacked layer": (1, 3), "document": (1, 2),
    }  # fmt: skip


def test_a_damaged_list_of_kept_names_stops_gc(store: Store) -> None:
    (store.root / "index.json").write_text("{")
    with pytest.raises(BuilderError, match=r"index\.json is damaged"):
        collect(store, keep_days=0, now=NOW)


def test_the_kept_names_are_an_image_layout(make: Make, store: Store) -> None:
    image = build(make(RECIPE, src="one"), store)["a"].image
    roots.keep(store, "v1", image.manifest)
    (entry,) = json.loads((store.root / "index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "v1"}
    assert entry["digest"] == image.digest
