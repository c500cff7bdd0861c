"""A key changes with everything an image depends on, and with nothing else.

Every mutation changes one thing of one workspace; what is compared is the key of the image `a`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import oci
from builder.build.make import build
from builder.build.plan import ImagePlan
from builder.build.planner import Planner
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci import Image
from builder.packages import lock_file
from builder.store import Store

ROOT = Path(__file__).parents[3]
SHA = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("deb", "whl", "file", "other")}
COMMIT = "1" * 40
FILES = {
    "stages/base/Dockerfile": "FROM scratch\nCOPY --from=debian / /\nENV PATH=/usr/bin\n",
    "stages/base/debian.in": "suite trixie\npython3.13-minimal\n",
    "stages/base/debian.lock": (
        "# made from debian.in {debian.in}\n"
        f"python3.13-minimal 3.13.5 pool/p.deb 10 {SHA['deb']}\n"
    ),
    "stages/other/Dockerfile": "FROM scratch\nCOPY other/ /other/\n",
    "stages/a/Dockerfile": """ARG WHERE=/app
FROM host.example/p/image@{image} AS pinned
FROM base AS early
COPY early.txt /early.txt
FROM base
ARG MODE=fast
ENV MODE=$MODE
ENV A=1 B=2
LABEL one=1 two=2
COPY --from=wheels / /opt/venv/
COPY --from=early /early.txt /
COPY --from=other /other/ /other/
COPY --from=pinned /p /p
ADD --checksum=sha256:{file} https://example.org/model.bin /model.bin
ADD https://example.org/code.git#{commit}:src /code/
COPY --chown=7:8 --chmod=0755 tools/ /tools/
COPY src/ src2/*.py /app/
WORKDIR /work
USER 7:8
EXPOSE 80
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --retries=3 CMD ["check"]
ENTRYPOINT ["python3"]
CMD ["-m", "a"]
""",
    "stages/a/requirements.in": "numpy\n",
    "stages/a/exclude.in": "numpy numpy/tests/*\n",
    "stages/a/requirements.linux-amd64.lock": (
        "# made from requirements.in {requirements.in}\n"
        f"numpy==2.3.0 --hash=sha256:{SHA['whl']}  # 2000000 bytes\n"
        f"small==1.0 --hash=sha256:{SHA['whl']}  # 10 bytes\n"
    ),
    "src/run.py": "print(1)\n",
    "src/sub/data.txt": "data\n",
    "src2/extra.py": "extra\n",
    "src2/ignored.txt": "not copied\n",
    "src/hidden/secret.txt": "hidden\n",
    "tools/tool": "tool\n",
    "early.txt": "early\n",
    "other/o.txt": "other\n",
    "elsewhere/notes.txt": "notes\n",
    ".dockerignore": "**/hidden\n",
}
Mutation = Callable[[Path], object]


def pinned(store: Store, name: str) -> Image:
    """Put an image into the store as if it had been fetched: nothing is asked for then."""
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}}}
    image, documents = oci.assemble(config, ())
    store.add_image(documents)
    return image


def write(root: Path, store: Store) -> Path:
    values = {"image": pinned(store, "one").digest, "file": SHA["file"], "commit": COMMIT}
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".lock"):
            wanted = text.partition("{")[2].partition("}")[0]
            text = text.replace("{" + wanted + "}", lock_file.in_hash(path.parent, wanted))  # noqa: PLW2901
        for word, value in values.items():
            text = text.replace("{" + word + "}", value)  # noqa: PLW2901
        path.write_text(text)
    (root / "src/link").symlink_to("sub/data.txt")
    return root


def unused(plan: ImagePlan) -> NoReturn:
    raise AssertionError(f"{plan.name} was built for a key")


def key(root: Path, store: Store, target: str = "a") -> str:
    planner = Planner(Workspace.load(root), root / "downloads", store, unused, unused)
    return planner.target(target).key


def replace(name: str, old: str, new: str) -> Mutation:
    def mutate(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        (root / name).write_text(text.replace(old, new, 1))

    return mutate


def recipe(old: str, new: str) -> Mutation:
    return replace("stages/a/Dockerfile", old, new)


def relink(root: Path, target: str = "run.py") -> None:
    (root / "src/link").unlink()
    (root / "src/link").symlink_to(target)


def link_to_file(root: Path) -> None:
    (root / "src/link").unlink()
    shutil.copy(root / "src/sub/data.txt", root / "src/link")


RELEVANT: dict[str, Mutation] = {
    "file content": replace("src/run.py", "1", "2"),
    "file of the same size and time": replace("src/sub/data.txt", "data", "DATA"),
    "executable bit": lambda root: (root / "src/run.py").chmod(0o755),
    "link target": relink,
    "a file in a link's place": link_to_file,
    "a file added that COPY takes": lambda root: (root / "src/new.txt").write_text(""),
    "a folder added that COPY takes": lambda root: (root / "src/empty").mkdir(),
    "a file added that a pattern takes": lambda root: (root / "src2/b.py").write_text(""),
    "a file removed": lambda root: (root / "src/run.py").unlink(),
    "a file renamed": lambda root: (root / "src/run.py").rename(root / "src/go.py"),
    "a file that .dockerignore lets in": replace(".dockerignore", "**/hidden\n", ""),
    "a file that .dockerignore hides": replace(".dockerignore", "hidden", "sub"),
    "ARG": recipe("ARG MODE=fast", "ARG MODE=slow"),
    "ENV": recipe("A=1", "A=2"),
    "order within ENV": recipe("A=1 B=2", "B=2 A=1"),
    "ENV added": recipe("B=2", "B=2 C=3"),
    "LABEL": recipe("two=2", "two=3"),
    "order of instructions": recipe("ENV MODE=$MODE\nENV A=1 B=2", "ENV A=1 B=2\nENV MODE=$MODE"),
    "order of layers": recipe(
        "COPY --from=early /early.txt /\nCOPY --from=other /other/ /other/",
        "COPY --from=other /other/ /other/\nCOPY --from=early /early.txt /",
    ),
    "order of sources": recipe("src/ src2/*.py", "src2/*.py src/"),
    "destination": recipe("src2/*.py /app/", "src2/*.py /srv/"),
    "--chown": recipe("--chown=7:8", "--chown=7:9"),
    "--chmod": recipe("--chmod=0755", "--chmod=0700"),
    "WORKDIR": recipe("WORKDIR /work", "WORKDIR /else"),
    "USER": recipe("USER 7:8", "USER 7:9"),
    "EXPOSE": recipe("EXPOSE 80", "EXPOSE 81"),
    "VOLUME": recipe("VOLUME /data", "VOLUME /else"),
    "STOPSIGNAL": recipe("SIGINT", "SIGTERM"),
    "HEALTHCHECK": recipe("--interval=30s", "--interval=31s"),
    "ENTRYPOINT": recipe('["python3"]', '["python3", "-I"]'),
    "CMD": recipe('["-m", "a"]', '["-m", "b"]'),
    "an earlier stage": replace("early.txt", "early", "late"),
    "another target that is copied from": replace("other/o.txt", "other", "else"),
    "the base target's recipe": replace("stages/base/Dockerfile", "/usr/bin", "/bin"),
    "the base": recipe("FROM base\nARG", "FROM early\nARG"),
    "the digest of a base": lambda root: recipe(
        pinned(Store.open(root.parent / "store"), "one").digest,
        pinned(Store.open(root.parent / "store"), "two").digest,
    )(root),
    "--checksum of ADD": recipe(SHA["file"], SHA["other"]),
    "the commit of ADD": recipe(COMMIT, "2" * 40),
    "the folder of ADD": recipe(":src /code/", ":lib /code/"),
    "a package's version in debian.lock": replace("stages/base/debian.lock", "3.13.5", "3.13.6"),
    "a package's hash in debian.lock": replace("stages/base/debian.lock", SHA["deb"], SHA["other"]),
    "a line added to debian.lock": lambda root: (root / "stages/base/debian.lock").write_text(
        (root / "stages/base/debian.lock").read_text() + f"b 1 pool/b.deb 10 {SHA['other']}\n"
    ),
    "a wheel's version in the lock": replace(
        "stages/a/requirements.linux-amd64.lock", "numpy==2.3.0", "numpy==2.3.1"
    ),
    "a wheel's hash in the lock": replace(
        "stages/a/requirements.linux-amd64.lock", SHA["whl"], SHA["other"]
    ),
    "a pattern in exclude.in": replace("stages/a/exclude.in", "tests", "f2py"),
    "a package in exclude.in": replace("stages/a/exclude.in", "numpy ", "small "),
    "exclude.in removed": lambda root: (root / "stages/a/exclude.in").unlink(),
    "a line removed from the lock": replace(
        "stages/a/requirements.linux-amd64.lock",
        f"small==1.0 --hash=sha256:{SHA['whl']}  # 10 bytes\n",
        "",
    ),
}
FORMATS = ("build.plan", "oci.layer", "packages.wheels", "packages.debian", "packages.bytecode")


def touch(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)


def tighten(root: Path) -> None:
    """Leave what a umask of 0077 would have left."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


def give_away(root: Path) -> None:
    for path in root.rglob("*"):
        os.chown(path, 65534, 65534, follow_symlinks=False)


def rewrite(root: Path) -> None:
    """Make every file anew in another order, so that folders list theirs in another order."""
    shutil.copytree(root, root.with_name("copy"), symlinks=True)
    shutil.rmtree(root)
    for source in sorted(root.with_name("copy").rglob("*"), reverse=True):
        target = root / source.relative_to(root.with_name("copy"))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            shutil.copy2(source, target)
    shutil.rmtree(root.with_name("copy"))


IRRELEVANT: dict[str, Mutation] = {
    "nothing": lambda _: None,
    "mtime": touch,
    "umask": tighten,
    "order of files on disk": rewrite,
    "an unrelated file": lambda root: (root / "elsewhere/new.txt").write_text("new"),
    "an unrelated file's content": replace("elsewhere/notes.txt", "notes", "more"),
    "a file that no pattern takes": replace("src2/ignored.txt", "not", "never"),
    "a file that .dockerignore hides": replace("src/hidden/secret.txt", "hidden", "else"),
    "an unrelated target": lambda root: (
        (root / "stages/z").mkdir(),
        (root / "stages/z/Dockerfile").write_text("FROM scratch\n"),
    ),
    "a comment": recipe("ENV A=1", "# why\nENV A=1"),
    "a comment in a continued line": recipe("ENV A=1 B=2", "ENV A=1 \\\n# why\n  B=2"),
    "a continued line": recipe("LABEL one=1 two=2", "LABEL one=1 \\\n      two=2"),
    "a blank line": recipe("ENV A=1", "\n\nENV A=1"),
    "a comment at the end": recipe('CMD ["-m", "a"]\n', 'CMD ["-m", "a"]\n# end\n'),
    "a comment in .dockerignore": replace(".dockerignore", "**/hidden", "# why\n\n**/hidden"),
    "a comment in debian.in": replace("stages/base/debian.in", "suite", "# why\nsuite"),
    "a comment in debian.lock": replace("stages/base/debian.lock", "python3.13", "# p\npython3.13"),
    "a comment in exclude.in": replace("stages/a/exclude.in", "numpy ", "# why\nnumpy "),
    "an argument that nothing uses": recipe("ARG WHERE=/app", "ARG WHERE=/srv"),
}
if os.getuid() == 0:
    IRRELEVANT["owner"] = give_away


def changed(folder: Path, mutation: Mutation) -> bool:
    """Tell whether a mutation changes the key."""
    store = Store.open(folder / "store")
    root = write(folder / "workspace", store)
    before = key(root, store)
    mutation(root)
    return key(root, store) != before


def test_every_relevant_change_changes_the_key_and_no_irrelevant_one(tmp_path: Path) -> None:
    missed, mistaken = [], []
    for number, (name, mutation) in enumerate(RELEVANT.items()):
        if not changed(tmp_path / f"relevant-{number}", mutation):
            missed.append(name)
    for number, (name, mutation) in enumerate(IRRELEVANT.items()):
        if changed(tmp_path / f"irrelevant-{number}", mutation):
            mistaken.append(name)
    assert not missed + mistaken, (
        f"{len(RELEVANT) - len(missed)} of {len(RELEVANT)} relevant changes were caught, "
        f"missed: {missed}; {len(mistaken)} of {len(IRRELEVANT)} irrelevant ones changed the key: "
        f"{mistaken}"
    )


def status(path: str) -> tuple[int, ...] | None:
    """Return what tells a changed file or folder, though its time of writing is set back."""
    try:
        s = os.lstat(path)
    except OSError:
        return None
    return (s.st_mode, s.st_ino, s.st_size, s.st_ctime_ns)


def statuses(root: Path, store: Store) -> dict[str, tuple[int, ...] | None]:
    """Return the status of all that planning `a` looks at, once the disk's clock has moved on."""
    workspace = Workspace.load(root)
    Planner(workspace, root / "downloads", store, unused, unused).target("a")
    found = {path: status(path) for path in workspace.inputs()}
    probe = root.parent / "probe"
    probe.touch()
    now = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == now:
        probe.touch()
    return found


def test_every_relevant_change_shows_in_the_status_of_an_input(tmp_path: Path) -> None:
    missed = []
    for number, (name, mutation) in enumerate(RELEVANT.items()):
        store = Store.open(tmp_path / f"{number}/store")
        root = write(tmp_path / f"{number}/workspace", store)
        before = statuses(root, store)
        mutation(root)
        if before == {path: status(path) for path in before}:
            missed.append(name)
    assert not missed


@pytest.mark.parametrize("module", FORMATS)
def test_the_version_of_each_format_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def mutate(_: Path) -> None:
        monkeypatch.setattr(f"builder.{module}.FORMAT", "another")

    assert changed(tmp_path, mutate)


def test_the_checkout_path_does_not_reach_the_key(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    assert len({key(write(tmp_path / at, store), store) for at in ("one", "a b/ü/two")}) == 1


def _elsewhere(root: Path, store: Path, user: int, queue: multiprocessing.Queue[str]) -> None:
    os.umask(0o077)
    os.environ.update(TZ="Pacific/Chatham", LC_ALL="tr_TR.UTF-8", HOME="/nowhere", USER="other")
    time.tzset()
    os.chdir("/")
    os.setgid(user)
    os.setuid(user)
    queue.put(key(root, Store(store)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_user_umask_time_zone_and_locale_do_not_reach_the_key(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    root = write(tmp_path / "workspace", store)
    before = key(root, store)
    for folder in (tmp_path, *tmp_path.parents):  # let the other user in
        folder.chmod(folder.stat().st_mode | 0o055)
        if folder.parent == Path(folder.root):
            break
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    shutil.chown(store.root, 65534)
    for path in store.root.rglob("*"):
        shutil.chown(path, 65534)
    child = context.Process(target=_elsewhere, args=(root, store.root, 65534, queue))
    child.start()
    found = queue.get(timeout=60)
    child.join()
    assert (found, child.exitcode) == (before, 0)


def test_the_hash_seed_and_the_environment_do_not_reach_the_key(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    root = write(tmp_path / "workspace", store)
    script = (
        "import sys; from pathlib import Path; from builder.store import Store; "
        "from tests.builder.build.test_keys import key; "
        "print(key(Path(sys.argv[1]), Store(Path(sys.argv[2]))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, str(root), str(store.root)],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C", "MODE": "slow"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert found == {key(root, store)}


def test_the_number_of_jobs_reaches_neither_key_nor_digest(tmp_path: Path) -> None:
    root = write(tmp_path / "workspace", Store.open(tmp_path / "store"))
    (root / "stages/a/Dockerfile").write_text("FROM scratch\nCOPY src/ /a/\nCOPY tools/ /b/\n")
    found = set()
    for jobs in (1, 2, 8):
        store = Store.open(tmp_path / f"store-{jobs}")
        built = build(Workspace.load(root), store, ["a"], jobs=jobs)["a"]
        found.add((built.key, built.image.digest))
    assert len(found) == 1


# -- what is made with what is known already is what is made from nothing --------------------------

# Path -> what it can be: a file's content, a link's target after "->", a folder "/", or nothing.
CONTEXTS = st.fixed_dictionaries(
    {
        "f": st.sampled_from(["1", "2"]),
        "d/x": st.sampled_from(["1", "2"]),
        "d/l": st.sampled_from(["-> x", "-> ../e", "-> /g/h", "/", ""]),
        "l": st.sampled_from(["-> d", "-> e", "-> /g", "-> d/l", "/", ""]),
        "e": st.sampled_from(["/", ""]),
    }
)
SOURCES = st.sampled_from(["f", "d", "d/x", ".", "*", "d/*"])
DESTINATIONS = st.sampled_from(["/", "/l/", "/l", "/l/n", "/d/l/", "/d/l/n", "/d/n/", "/e", "/g/h"])
FLAGS = st.sampled_from(["", "", "", "--chown=7:8 ", "--chmod=0700 ", "--link "])
LINES = st.one_of(
    st.builds("COPY {}{} {}".format, FLAGS, SOURCES, DESTINATIONS),
    st.builds("COPY --from=one /{} {}".format, SOURCES, DESTINATIONS),
    st.builds("WORKDIR {}".format, DESTINATIONS),
    st.sampled_from(["ENV A=1", "USER 7"]),
)
RECIPES = st.lists(LINES, min_size=1, max_size=4)


def outcome(folder: Path, store: Path, tree: Mapping[str, str], lines: Sequence[str]) -> str:
    """Write a context, build it in `store`, and return the digest or why there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "stages/a").mkdir(parents=True)
    recipe = ["FROM scratch AS one", "COPY . /", "FROM scratch", "COPY . /", *lines]
    (folder / "stages/a/Dockerfile").write_text("\n".join(recipe) + "\n")
    (folder / ".dockerignore").write_text("stages\n")
    for path, what in tree.items():
        where = folder / path
        where.parent.mkdir(exist_ok=True)
        if what == "/":
            where.mkdir()
        elif what.startswith("-> "):
            where.symlink_to(what[3:])
        elif what:
            where.write_text(what)
    try:
        return build(Workspace.load(folder), Store.open(store), ["a"])["a"].image.digest
    except BuilderError as error:
        return str(error)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(CONTEXTS, CONTEXTS, RECIPES, RECIPES)
def test_a_build_after_others_gives_what_a_build_from_nothing_gives(
    before: dict[str, str], after: dict[str, str], old: list[str], new: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tree, lines in ((before, old), (after, old), (before, new)):
            outcome(folder / "w", folder / "used", tree, lines)
        known = outcome(folder / "w", folder / "used", after, new)
        assert known == outcome(folder / "w", folder / "fresh", after, new)
