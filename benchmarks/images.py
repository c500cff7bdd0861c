"""The builder beside Docker: the same images from the same checkout, in one run.

    .venv/bin/python -m benchmarks.images [--repeats N] [--clean-builds N] [--only a,b]

Prints a table; asserts nothing. The other side is BuildKit in the Docker Engine at hand, with the
Dockerfiles of `stages/`, changed in three lines only: `COPY --from=debian` adds the very tars that
the builder makes, `COPY --from=bytecode` is Python's own compileall, and `COPY --from=wheels` is
`pip install --no-index` of the very wheels, bound from the context (so they are no layer),
byte-code compiled by pip as is its default. Each number is a whole process; for Docker the sum of
one `docker build` an image. Both push to one registry on loopback. Everything happens in a copy of
the checkout with a store of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import figures
from builder import oci
from builder.build.workspace import Workspace
from builder.packages import python, wheels
from builder.packages.download import downloads_folder
from builder.packages.lock_file import Requirements
from builder.packages.pip import fetch
from builder.store import Store
from tests import registries

ROOT = Path(__file__).resolve().parent.parent
DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
_DEBIAN = ("COPY --from=debian", "byte-code of the Python library")


@dataclass
class Bench:
    """A copy of the checkout, a store, a registry, and the Docker side's context."""

    folder: Path
    registry: str
    repeats: int
    built: dict[str, Any] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def prepare(self) -> None:
        """Copy what git would: tracked files, and those that are not ignored."""
        names = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True,
        ).stdout  # fmt: skip
        for name in filter(None, names.decode().split("\0")):
            if os.path.lexists(ROOT / name):  # a link may point into an image
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.checkout / name, follow_symlinks=False)
        (self.checkout / ".venv").symlink_to(ROOT / ".venv")
        (self.folder / "downloads").symlink_to(downloads_folder())

    def invoke(self, *words: str, store: str = "store") -> tuple[dict[str, Any], str, float]:
        """Run a task with --json; return its facts, what it said, and the process's seconds."""
        env = {**os.environ, "PLATELINE_STORE": str(self.folder / store)}
        began = time.perf_counter()
        done = subprocess.run(
            [str(self.checkout / "invoke"), *words, "--json"],
            cwd=self.checkout, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"invoke {' '.join(words)} failed:\n{done.stderr}")
        return json.loads(done.stdout), done.stderr, seconds

    def docker(self, *words: str) -> float:
        """Run the docker client; return the process's seconds."""
        for _ in range(5):
            began = time.perf_counter()
            done = subprocess.run(
                [DOCKER, *words],
                cwd=self.folder, env={**os.environ, "DOCKER_BUILDKIT": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            # The engine stumbles over networks that others take down at the same moment.
            if "no such network interface" not in done.stderr:
                break
        if done.returncode:
            sys.exit(f"docker {' '.join(words)} failed:\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - began

    def docker_build(self, name: str, *words: str) -> float:
        """Build one image of the Docker side."""
        return self.docker("build", "-q", *words, "-t", self.tag(name),
                           "-f", f"dockerfiles/{name}", "checkout")  # fmt: skip

    def tag(self, name: str) -> str:
        """Return the name of the Docker side's image in the registry."""
        return f"{self.registry}/docker/{name}"

    def median(self, measure: Callable[[], float]) -> float:
        """Return the median of the repeats."""
        return statistics.median(measure() for _ in range(self.repeats))


def write_dockerfiles(bench: Bench, workspace: Workspace, store: Store) -> list[str]:
    """Write the Docker side's files; return the targets in the order they must be built."""
    from builder.build.make import build

    (bench.folder / "dockerfiles").mkdir()
    pip = next(Path(wheels.__file__).parents[2].glob(".venv/lib/python3*/site-packages/pip"))
    shutil.copytree(pip, bench.checkout / ".wheels/pip/pip")
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        target = workspace.targets[name]
        text = (target.folder / "Dockerfile").read_text()
        for other in re.findall(r"(?m)^FROM (\S+)|--from=(\S+)", text):
            for needed in filter(workspace.targets.__contains__, other):
                add(needed)
        for other in order:
            text = re.sub(rf"(?m)^FROM {other}\b", f"FROM {bench.tag(other)}", text)
            text = text.replace(f"--from={other} ", f"--from={bench.tag(other)} ")
        if "--from=debian" in text:
            layers = build(workspace, store, [name])[name].image.layers
            made = [part for part in layers if part.created_by.startswith(_DEBIAN)]
            for number, part in enumerate(made):
                path = bench.checkout / f".debian-{name}-{number}.tar.gz"
                shutil.copy(store.path(part.blob.digest), path)
            added = "\n".join(f"ADD .debian-{name}-{n}.tar.gz /" for n in range(len(made)))
            text = text.replace("COPY --from=debian / /", added)
        if match := re.search(r"(?m)^COPY --from=wheels / (\S+)$", text):
            folder = bench.checkout / ".wheels" / name
            folder.mkdir()
            for path in fetch(wheels.read_lock(target.requirements), downloads_folder(), name):
                os.link(path, folder / path.name)
            text = text.replace(match[0], _pip(name, match[1]))
        if match := re.search(r"(?m)^COPY --from=bytecode / (\S+)$", text):
            text = text.replace(match[0], _as_root("-m", "compileall", "-q", match[1]))
        (bench.folder / "dockerfiles" / name).write_text(text)
        order.append(name)

    for name in workspace.targets:
        add(name)
    return order


def _pip(name: str, destination: str) -> str:
    install = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-cache-dir",
               "--disable-pip-version-check", "--root-user-action=ignore"]  # fmt: skip
    if destination != "/opt/venv/":
        install += ["--target", f"{destination}{python.DEFAULT.site}"]
    # The image has no shell, so the file names are given by Python.
    script = (
        "import glob, runpy, sys; sys.path.insert(0, '/wheels/pip'); "
        f"sys.argv = {['pip', *install[2:]]!r} + glob.glob('/wheels/{name}/*.whl'); "
        "runpy.run_module('pip', run_name='__main__')"
    )
    return _as_root("-c", script, bind="--mount=type=bind,source=.wheels,target=/wheels ")


def _as_root(*words: str, bind: str = "") -> str:
    return f"USER 0\nRUN {bind}{json.dumps(['/opt/venv/bin/python3', *words])}\nUSER 65532:65532"


# -- what is measured -----------------------------------------------------------------------------


def row(what: str, ours: str, docker: str = "", target: str = "", *, missed: bool = False) -> None:
    """Keep and print one figure."""
    beside = f"docker {docker}" if docker else ""
    figures.record("images", what, ours, beside=beside, target=target, missed=missed)


def seconds(
    what: str, ours: float, docker: float | None, target: str, *, most: float = 0, ratio: float = 0
) -> None:
    """Keep two times; missed where ours is over `most` seconds or `ratio` times Docker's."""
    shown = f"{docker:.2f} s, ratio {ours / docker:.2f}" if docker else ""
    late = bool(most and ours > most) or bool(ratio and docker and ours > ratio * docker)
    row(what, f"{ours:.2f} s", shown, target, missed=late)


def nothing_changed(bench: Bench, order: list[str]) -> None:
    time.sleep(2)  # what is younger is read again each time
    bench.invoke("build-images")
    ours = bench.median(lambda: bench.invoke("build-images")[2])
    docker = bench.median(lambda: sum(bench.docker_build(name) for name in order))
    seconds(
        f"nothing changed, all {len(order)} images",
        ours,
        docker,
        "<= 0.15 s, a third of docker",
        most=0.15,
        ratio=0.33,
    )


def one_line_changed(bench: Bench) -> None:
    """Measure validate alone beside Docker's build and push of it, and ours with every image."""
    source = bench.checkout / "stages/validate/validate/measures.py"
    words = ("push-images", "--registry", f"{bench.registry}/ours")
    uploaded, least, inventory = 0, 0, 0
    ours, docker, every = [], [], []
    for number in range(bench.repeats):
        source.write_text(source.read_text() + f"# changed {number}\n")
        found, _, took = bench.invoke(*words, "--targets", "validate")
        ours.append(took)
        uploaded = found["validate"]["uploaded"]
        inventory = found["validate"]["inventory"]
        digest = found["validate"]["reference"].partition("@")[2]
        image = Store(bench.folder / "store").image(digest)
        changed = image.layers[-1].blob.size
        least = changed + image.config_blob.size + image.manifest.size
        docker.append(bench.docker_build("validate")
                      + bench.docker("push", "-q", bench.tag("validate")))  # fmt: skip
        source.write_text(source.read_text() + "# and again, for all images\n")
        every.append(bench.invoke(*words)[2])
    seconds("one source line changed -> new digest in the registry (validate)",
            statistics.median(ours), statistics.median(docker), "docker's", ratio=1)  # fmt: skip
    row("the same where every image is looked at", f"{statistics.median(every):.2f} s")
    row("bytes uploaded for one source line", f"{uploaded:,}",
        target=f"layer + config + manifest: {least:,}", missed=uploaded > least)  # fmt: skip
    row("its bill of materials, beside the image", f"{inventory:,} bytes")


def bump(path: Path, folder: Path) -> Path:
    """Return a copy of a wheel as version N.post1; its METADATA, RECORD and names say so."""
    name, version, rest = path.name.split("-", 2)
    old, new = f"{name}-{version}", f"{name}-{version}.post1"
    target = folder / f"{new}-{rest}"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as sink:
        changed = source.read(f"{old}.dist-info/METADATA").replace(
            f"Version: {version}".encode(), f"Version: {version}.post1".encode()
        )
        promise = b"sha256=" + urlsafe_b64encode(sha256(changed).digest()).rstrip(b"=")
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename == f"{old}.dist-info/METADATA":
                data = changed
            elif entry.filename == f"{old}.dist-info/RECORD":
                row = rb"(?m)^(.*/METADATA),.*$"
                data = re.sub(row, rb"\1,%b,%d" % (promise, len(changed)), data)
                data = data.replace(old.encode(), new.encode())
            entry.filename = entry.filename.replace(f"{old}.", f"{new}.", 1)
            sink.writestr(entry, data, entry.compress_type)
    return target


def one_wheel_bumped(bench: Bench) -> None:
    users = [p for p in bench.checkout.glob(f"stages/**/{wheels.LOCK}") if "numpy==" in
             p.read_text()]  # fmt: skip
    (old,) = {
        w
        for path in users
        for w in wheels.read_lock(Requirements(path.parent))
        if w.name == "numpy"
    }
    (path,) = fetch([old], downloads_folder(), "numpy")
    new = bump(path, bench.folder)
    digest = sha256(new.read_bytes()).hexdigest()
    kept = downloads_folder() / digest
    line = f"numpy=={old.version}.post1 --hash=sha256:{digest}  # {new.stat().st_size} bytes"
    saved = {lock: lock.read_text() for lock in users}
    try:
        kept.mkdir(exist_ok=True)
        shutil.move(new, kept / new.name)
        for lock, text in saved.items():
            lock.write_text(re.sub(r"(?m)^numpy==.*$", line, text))
        found, said, took = bench.invoke("push-images", "--registry", f"{bench.registry}/ours")
    finally:
        shutil.rmtree(kept)
        for lock, text in saved.items():
            lock.write_text(text)
    made = len(re.findall(r"(?m)^  \S+ numpy .*[^…]$", said))  # "…": not yet, after two seconds
    store = Store(bench.folder / "store")
    size = next(
        layer.blob.size
        for layer in store.image(found["prepare"]["reference"].partition("@")[2]).layers
        if f"numpy {old.version}.post1" in layer.created_by
    )
    uploaded = sum(entry["uploaded"] for entry in found.values())
    row(
        f"one wheel bumped (numpy, in {len(users)} images): layers made",
        str(made),
        target="1",
        missed=made != 1,
    )
    row(
        "bytes uploaded for it",
        f"{uploaded / 1e6:.2f} MB",
        target=f"the wheel's layer and documents: {size / 1e6:.2f} MB",
    )
    row("whole process for it", f"{took:.2f} s")


def cold_validate(bench: Bench) -> None:
    def ours() -> float:
        shutil.rmtree(bench.folder / "cold", ignore_errors=True)
        prefix = f"{bench.registry}/cold{time.monotonic_ns()}"
        words = ("push-images", "--targets", "validate", "--registry", prefix)
        return bench.invoke(*words, store="cold")[2]

    def docker() -> float:
        tag = f"{bench.registry}/cold{time.monotonic_ns()}/validate"
        began = bench.docker_build("validate", "--no-cache")
        bench.docker("tag", bench.tag("validate"), tag)
        return began + bench.docker("push", "-q", tag)

    seconds("cold build and push of validate (wheels there)", bench.median(ours),
            bench.median(docker), "half of docker", ratio=0.5)  # fmt: skip
    print("  ours: empty store, so the base image is made too; Docker: --no-cache, base kept")


def cold_all(bench: Bench) -> None:
    """Measure from an empty store, with the wheels at hand, to every image, and processor time."""
    times, used = [], []
    for _ in range(3):
        shutil.rmtree(bench.folder / "cold", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found, _, took = bench.invoke("build-images", store="cold")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(took)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    ours = statistics.median(times)
    row(f"empty store to all {len(found)} images (wheels there)", f"{ours:.1f} s",
        target="<= 8 s", missed=ours > 8)  # fmt: skip
    row("processor time of it", f"{statistics.median(used):.1f} s")


def first_step(bench: Bench) -> None:
    """Measure from a registry that has an image to the end of its first command, nothing here."""
    from benchmarks.run import chain  # kfp costs time

    found, _, _ = bench.invoke("push-images", "--registry", f"{bench.registry}/ours")
    reference = found["prepare"]["reference"]
    command = ("python3", "-c", "import numpy")
    package = chain(bench.folder / "first.yaml", reference, 1, command)
    runs = str(bench.folder / "runs")
    words = ("run", "--file", str(package), "--trust", "--no-cache", "--runs", runs)
    ours, docker = [], []
    for _ in range(bench.repeats):
        shutil.rmtree(bench.folder / "first", ignore_errors=True)
        ours.append(bench.invoke(*words, "--engine", "bubblewrap", store="first")[2])
        pulled = bench.docker("pull", "-q", reference)
        docker.append(pulled + bench.docker("run", "--rm", reference, *command))
        bench.docker("rmi", "-f", reference)
    seconds("registry to the end of a first step (prepare, nothing here)",
            statistics.median(ours), statistics.median(docker), "docker's", ratio=1)  # fmt: skip


def plain_size(store: Store, layer: oci.Layer) -> int:
    """Return the bytes of a layer's tar."""
    from isal import igzip

    with igzip.open(store.path(layer.blob.digest), "rb") as stream:
        return sum(len(chunk) for chunk in iter(lambda: stream.read(1 << 20), b""))


def image_size(bench: Bench) -> None:
    from builder.oci.reference import Reference
    from builder.registry.client import Registry
    from builder.registry.pull import pull

    store = Store(bench.folder / "store")
    ours = store.image(bench.invoke("build-images")[0]["validate"]["digest"])
    bench.docker_build("validate")
    bench.docker("push", "-q", bench.tag("validate"))
    other = Store.open(bench.folder / "pulled")
    with Registry(bench.registry) as registry:
        found = registry.head_manifest("docker/validate", "latest")
        assert found
        docker = pull(other, registry, Reference.parse(f"{bench.tag('validate')}@{found.digest}"))
    for what, of in (
        ("compressed", lambda _, i: sum(layer.blob.size for layer in i.layers)),
        ("unpacked", lambda s, i: sum(plain_size(s, layer) for layer in i.layers)),
    ):
        a, b = of(store, ours), of(other, docker)
        row(f"size of validate's layers, {what}", f"{a / 1e6:.1f} MB",
            f"{b / 1e6:.1f} MB, ratio {a / b:.3f}", "<= 0.95", missed=a > 0.95 * b)  # fmt: skip
    for name, size in largest(store, ours):
        print(f"    {size / 1e6:7.1f} MB  {name}")


def largest(store: Store, image: oci.Image) -> list[tuple[str, int]]:
    """Return the ten largest items: a Python package each, else the second folder level."""
    from isal import igzip

    sizes: Counter[str] = Counter()
    for layer in image.layers:
        with (
            igzip.open(store.path(layer.blob.digest), "rb") as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                head, found, tail = member.name.partition("site-packages/")
                item = tail.partition("/")[0] if found else "/".join(head.split("/")[:4])
                sizes[f"{head if found else ''}{found}{item}"] += member.size
    return sizes.most_common(10)


def peak_memory(bench: Bench) -> None:
    """Run a cold build of train, adding up its processes' shares of memory (PSS)."""
    env = {**os.environ, "PLATELINE_STORE": str(bench.folder / "memory")}
    words = [str(bench.checkout / "invoke"), "build-images", "--targets", "train"]
    began = time.perf_counter()
    process = subprocess.Popen(words, cwd=bench.checkout, env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    peak = last = 0
    while process.poll() is None:
        # A process between fork and exec counts its parent's pages again, for one sample.
        now = sum(share(pid) for pid in set(tree(process.pid)))
        peak, last = max(peak, min(now, last)), now
        time.sleep(0.02)
    took = time.perf_counter() - began
    shutil.rmtree(bench.folder / "memory")
    row("peak memory while building train, all its processes", f"{peak / 1e6:.0f} MB",
        target="<= 300 MB", missed=peak > 300e6)  # fmt: skip
    row("whole process for it, from an empty store", f"{took:.1f} s")


def tree(pid: int) -> Iterator[int]:
    """Yield a process and what descends from it."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def share(pid: int) -> int:
    """Return a process's proportional share of memory in bytes."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def many_files(bench: Bench) -> None:
    for number in range(5000):
        path = bench.checkout / f"many/{number // 100}/{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NUMBER = {number}\n")
    (bench.checkout / "stages/many").mkdir()
    text = "FROM scratch\nCOPY many/ /many/\n"
    (bench.checkout / "stages/many/Dockerfile").write_text(text)
    (bench.folder / "dockerfiles/many").write_text(text)
    words = ("build-images", "--targets", "many")
    bench.invoke(*words)
    bench.docker_build("many")
    time.sleep(2)  # what is younger is read again each time
    bench.invoke(*words)
    seconds("nothing changed, a tree of 5,000 files", bench.median(lambda: bench.invoke(*words)[2]),
            bench.median(lambda: bench.docker_build("many")), "docker's", ratio=1)  # fmt: skip
    shutil.rmtree(bench.checkout / "stages/many")
    shutil.rmtree(bench.checkout / "many")


def clean_builds(bench: Bench, number: int) -> None:
    seen: Counter[str] = Counter()
    for _ in range(number):
        shutil.rmtree(bench.folder / "clean", ignore_errors=True)
        found, _, _ = bench.invoke("build-images", store="clean")
        seen[json.dumps({name: entry["digest"] for name, entry in found.items()})] += 1
    row(f"same digests in {number} clean builds", f"{max(seen.values())} of {number}", target="all",
        missed=max(seen.values()) != number)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clean-builds", type=int, default=0, help="20 for the whole comparison")
    parser.add_argument(
        "--only", default="", help="of nothing,line,wheel,cold,all,first,size,memory,many"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=downloads_folder().parent) as folder,
        registries.serve(Path(folder, "registry")) as registry,
    ):
        bench = Bench(Path(folder), registry, given.repeats)
        bench.prepare()
        workspace, store = Workspace.load(bench.checkout), Store.open(bench.folder / "store")
        bench.invoke("push-images", "--registry", f"{registry}/ours")
        order = write_dockerfiles(bench, workspace, store)
        for target in order:
            bench.docker_build(target)
        bench.docker("push", "-q", bench.tag("validate"))
        measures: dict[str, Callable[[], None]] = {
            "nothing": lambda: nothing_changed(bench, order),
            "line": lambda: one_line_changed(bench),
            "wheel": lambda: one_wheel_bumped(bench),
            "cold": lambda: cold_validate(bench),
            "all": lambda: cold_all(bench),
            "first": lambda: first_step(bench),
            "size": lambda: image_size(bench),
            "memory": lambda: peak_memory(bench),
            "many": lambda: many_files(bench),
        }
        for name, measure in measures.items():
            if not given.only or name in given.only.split(","):
                measure()
        if given.clean_builds:
            clean_builds(bench, given.clean_builds)
        bench.docker("rmi", "-f", *(bench.tag(target) for target in order))


if __name__ == "__main__":
    main()
