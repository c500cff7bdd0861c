"""One recipe for two processors: an image for each, one index, and what is refused by name."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.build.index import Indexed, build_each, index, publish
from builder.build.make import Built, PartError, build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.explain import explain
from builder.inspect.inventory import sbom
from builder.oci import INDEX
from builder.platform import AMD64, ARM64, NATIVE, Platform, parse, parse_one
from builder.registry import pull
from builder.registry.client import Registry
from builder.registry.push import push
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Mount, Process, run
from builder.sandbox.unpack import image_entries
from builder.store import Store
from builder.store.collection import collect
from tests.builder import packed
from tests.builder.conftest import Make
from tests.conftest import missing

ROOT = Path(__file__).parents[3]
BOTH = (AMD64, ARM64)
BASE = """FROM scratch
COPY --from=debian / /
ARG TARGETARCH BUILDPLATFORM
ENV ARCH=$TARGETARCH BUILT_ON=$BUILDPLATFORM
"""
STAGE = "FROM --platform=$TARGETPLATFORM base\nCOPY --from=wheels / /v/\nCOPY stages/b/own /own\n"


def wheel(name: str, version: str, tag: str, module: str, content: str) -> tuple[str, bytes]:
    """Return a wheel of one module, which nothing has to be compiled for."""
    sink, info = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(module, content)
        archive.writestr(f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}-{version}-{tag}.whl", sink.getvalue()


def lock(root: Path, platform: Platform, version: str = "1.0") -> None:
    library = packed.deb("libx", "2", {"./lib/x": platform.machine}, of=platform.architecture)
    packed.lock_debs(root / "stages/a", library, platform=platform)
    tag = f"cp313-cp313-manylinux_2_17_{platform.machine}"
    module = f"fast.cpython-313-{platform.triplet}.so"
    fast = wheel("fast", "1.0", tag, module, platform.machine)
    plain = wheel("plain", version, "py3-none-any", "plain.so", version)
    packed.lock_wheels(root / "stages/b", fast, plain, platform=platform)


@pytest.fixture
def workspace(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "store"))
    recipes = {"stages/b/Dockerfile": STAGE.replace("base", "a"), "stages/b/own": "own"}
    found = make(BASE, **recipes)
    for platform in BOTH:
        lock(found.root, platform)
    return found


def both(
    workspace: Workspace, store: Store, platforms: tuple[Platform, ...] = BOTH
) -> dict[str, Indexed]:
    def one(platform: Platform) -> Mapping[str, Built]:
        return build(workspace, store, platform=platform)

    return index(store, build_each(platforms, one), workspace.root)


def test_an_index_names_an_image_for_each_platform(workspace: Workspace, store: Store) -> None:
    found = both(workspace, store)["b"]
    document = json.loads(store.read(found.index.digest))
    listed = {entry["platform"]["architecture"]: entry for entry in document["manifests"]}
    assert document["mediaType"] == INDEX
    assert list(listed) == ["amd64", "arm64"]
    for platform, built in found.images.items():
        image = store.image(listed[platform.architecture]["digest"])
        assert image == built.image
        assert image.config["architecture"] == platform.architecture
        assert f"ARCH={platform.architecture}" in image.config["config"]["Env"]
        assert "BUILT_ON=linux/amd64" in image.config["config"]["Env"]
        files = {e.path: e for e in image_entries(store, image) if e.kind == "file"}
        module = f"v/lib/python3.13/site-packages/fast.cpython-313-{platform.triplet}.so"
        assert {"lib/x", "own", module} <= files.keys()
        assert files["lib/x"].open().read().decode() == platform.machine


def test_the_first_platform_is_what_it_is_alone(workspace: Workspace, store: Store) -> None:
    alone = build(workspace, store)
    together = both(workspace, store)
    for name, built in alone.items():
        image = together[name].images[NATIVE]
        assert (image.key, image.image.digest) == (built.key, built.image.digest)
    turned = both(workspace, store, (ARM64, AMD64))
    assert {n: i.index.digest for n, i in turned.items()} == {
        n: i.index.digest for n, i in together.items()
    }


def test_what_does_not_depend_on_the_processor_is_one_layer(
    workspace: Workspace, store: Store
) -> None:
    one, other = (built.image.layers for built in both(workspace, store)["b"].images.values())
    assert one[0].diff_id != other[0].diff_id, "Debian packages"
    assert one[-1].blob == other[-1].blob, "the stage's own files"


def test_a_bill_of_materials_is_of_its_own_platform(workspace: Workspace, store: Store) -> None:
    (workspace.root / "stages/a/debian.in").write_text("")
    for platform, built in both(workspace, store)["b"].images.items():
        bill = json.loads(sbom(workspace, store, built.plan))
        (url,) = (c["purl"] for c in bill["components"] if c["name"] == "libx")
        assert f"arch={platform.architecture}&" in url


def test_each_platform_is_explained_by_its_own_last_build(
    workspace: Workspace, store: Store
) -> None:
    build(workspace, store)
    assert explain(workspace, store, "b").known
    assert explain(workspace, store, "b", ARM64).first
    both(workspace, store)
    assert explain(workspace, store, "b", ARM64).known
    with pytest.raises(BuilderError, match="this is about one; ask for each"):
        parse_one("linux/amd64,linux/arm64")


def test_a_store_keeps_the_index_that_was_built_last(workspace: Workspace, store: Store) -> None:
    found = both(workspace, store)["b"]
    later = time.time() + 60
    collect(store, keep_days=0, now=later)
    assert [pull.stored(store, found.digest, p) for p in BOTH] == list(found.named.images)


def test_a_lock_that_is_not_there_stops_its_stage_alone(workspace: Workspace, store: Store) -> None:
    (workspace.root / "stages/b" / ARM64.wheels_lock).unlink()
    with pytest.raises(PartError, match=(
        r"for linux/arm64: b not built: .*requirements\.linux-arm64\.lock is not there; "
        r"run `invoke lock --targets b --platform linux/arm64`"
    )) as refusal:  # fmt: skip
        both(workspace, store)
    assert refusal.value.built["a"].image.config["architecture"] == "arm64"
    assert build(workspace, store).keys() == {"a", "b"}


def test_two_platforms_have_one_version_of_a_package(workspace: Workspace, store: Store) -> None:
    lock(workspace.root, ARM64, "1.1")
    with pytest.raises(BuilderError, match=(
        r"plain is locked as 1\.0 for linux/amd64 and as 1\.1 for linux/arm64; .* "
        r"run `invoke lock --platform linux/arm64`"
    )):  # fmt: skip
        build(workspace, store, platform=ARM64)


@pytest.mark.parametrize("asked", ["linux/arm64", "linux/amd64"])
def test_a_recipe_that_asks_for_another_platform_is_refused(
    make: Make, store: Store, asked: str
) -> None:
    workspace = make(f"FROM --platform={asked} scratch\nENV A=1\n")
    for name in ("linux/amd64", "linux/arm64"):
        (platform,) = parse(name)
        if name == asked:
            assert build(workspace, store, platform=platform)["a"].image.config["os"] == "linux"
        else:
            with pytest.raises(BuilderError, match=f"FROM --platform={asked}: .* is for {name}"):
                build(workspace, store, platform=platform)


def test_a_platform_that_is_not_known_is_refused_with_those_there_are() -> None:
    assert parse("") == (NATIVE,)
    assert parse("linux/arm64,linux/amd64,linux/arm64") == (ARM64, AMD64)
    with pytest.raises(BuilderError, match=r"for linux/riscv64; there are linux/amd64, linux/arm"):
        parse("linux/amd64,linux/riscv64")


def test_others_take_from_a_registry_what_fits(
    workspace: Workspace, store: Store, registry_host: str
) -> None:
    found = both(workspace, store)["b"]
    with Registry(registry_host) as registry:
        for built in found.images.values():
            push(store, {"b": (built.key, built.image)}, f"{registry_host}/p", registry)
        assert publish(store, registry, "p", found)
        assert not publish(store, registry, "p", found), "it is there now"
    if not shutil.which("skopeo"):
        missing("skopeo", "apt-get install skopeo")
    for platform, built in found.images.items():
        done = subprocess.run(
            ["skopeo", "inspect", f"--override-arch={platform.architecture}", "--tls-verify=false",
             f"docker://{registry_host}/p/b@{found.index.digest}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        said = json.loads(done.stdout)
        assert said["Architecture"] == platform.architecture
        assert said["Layers"] == [layer.blob.digest for layer in built.image.layers]


COMPILE = """
import importlib.util, marshal, pathlib, platform, ssl, sqlite3, zlib
seen = 0
for path in sorted(pathlib.Path('/usr/lib/python3.13/json').glob('*.py')):
    ours = pathlib.Path(importlib.util.cache_from_source(path)).read_bytes()
    text = path.read_bytes()
    code = compile(text, str(path), "exec", dont_inherit=True, optimize=0)
    body = marshal.dumps(marshal.loads(marshal.dumps(code, 2)), 4)
    assert ours[16:] == body, path
    seen += 1
print(platform.machine(), seen)
"""


@pytest.mark.slow
def test_the_real_base_runs_on_arm64_and_its_python_makes_the_same_byte_code() -> None:
    qemu = shutil.which("qemu-aarch64-static")
    if qemu is None:
        missing("qemu-aarch64-static", "apt-get install qemu-user-static")
    assert qemu
    store = Store.open()
    image = build(Workspace.load(ROOT), store, ["base"], platform=ARM64)["base"].image
    command = (f"/mnt/{Path(qemu).name}", "/usr/bin/python3.13", "-c", COMPILE)
    process = Process(image=image, command=command, mounts=(Mount(Path(qemu).parent, "/mnt"),))
    with tempfile.TemporaryFile() as output:
        ended = run(Bubblewrap(store), process, output)
        output.seek(0)
        said = output.read().decode()
    assert ended.code == 0, said
    assert said.split() == ["aarch64", "5"]
