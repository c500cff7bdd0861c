"""ADD brings a file by its checksum and a repository by its commit, or nothing at all."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.packages.download import downloads_folder
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Process, run
from builder.sandbox.unpack import image_entries
from builder.store import Store
from tests.builder.conftest import Make
from tests.servers import files, serving

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "cache" / "store"))


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers with the weights; `/flaky/` fails once, `/short/` ends early, `/moved/` redirects."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", "/model.bin")
            self.end_headers()
            return
        if self.path == "/flaky/model.bin" and self.asked.count(self.path) == 1:
            self.send_error(503)
            return
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        self.wfile.write(WEIGHTS[:10] if self.path.startswith("/short/") else WEIGHTS)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a web server and the list of the paths it was asked for."""
    asked: list[str] = []
    with serving(type("Server", (_Server,), {"asked": asked})) as host:
        yield f"http://{host}", asked


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org",
               "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """Return the address and the first commit of a repository that went on afterwards."""
    folder = tmp_path / "research"
    (folder / "src/deep").mkdir(parents=True)
    (folder / "run.py").write_text("print('first')\n")
    (folder / "run.py").chmod(0o755)
    (folder / "src/deep/data.txt").write_text("data $Id$\n")
    (folder / "latest").symlink_to("src/deep/data.txt")
    # What git would do to a checkout, and must not do to a layer.
    (folder / ".gitattributes").write_text("* text eol=crlf ident\nsrc export-ignore\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "run.py").write_text("print('second')\n")
    git(folder, "commit", "-q", "-a", "-m", "two")
    return f"file://{folder}/.git", commit


def built(make: Make, store: Store, recipe: str) -> dict[str, Entry]:
    workspace = make(f"FROM scratch\n{recipe}\n")
    return {e.path: e for e in image_entries(store, build(workspace, store)["a"].image)}


def content(entry: Entry) -> bytes:
    with entry.open() as stream:
        return stream.read()


def test_a_file_comes_by_checksum_with_the_mode_docker_gives_it(
    make: Make, store: Store, web: tuple[str, list[str]]
) -> None:
    url, asked = web
    recipe = f"ADD --checksum=sha256:{SHA256} {url}/moved/model.bin?download=1 /models/"
    found = built(make, store, recipe)
    assert content(found["models/model.bin"]) == WEIGHTS
    assert found["models/model.bin"].mode == 0o600
    assert len(asked) == 2, "the redirection and the file"
    other = f"ADD --chmod=0644 --chown=7:8 --checksum=sha256:{SHA256} {url}/model.bin /m"
    found = built(make, store, other)
    assert (found["m"].mode, found["m"].uid, found["m"].gid) == (0o644, 7, 8)
    assert len(asked) == 2, "what is known by its hash was downloaded again"


def test_a_server_that_fails_at_first_is_asked_again(
    make: Make, store: Store, web: tuple[str, list[str]]
) -> None:
    url, _ = web
    recipe = f"ADD --checksum=sha256:{SHA256} {url}/flaky/model.bin /"
    assert content(built(make, store, recipe)["model.bin"]) == WEIGHTS


def test_a_file_that_is_not_the_pinned_one_never_arrives(
    make: Make, store: Store, web: tuple[str, list[str]]
) -> None:
    url, _ = web
    wrong = "0" * 64
    for path, checksum, says in (
        ("model.bin", wrong, rf"sha256 {wrong} was expected, .* {SHA256}; mend the checksum"),
        ("short/model.bin", SHA256, r"downloading .*/short/model.bin failed"),
        ("none", SHA256, r"downloading .*/none failed \(404 Not Found\); check the address"),
    ):
        with pytest.raises(BuilderError, match=r"^stages/a/Dockerfile:2: .*" + says):
            built(make, store, f"ADD --checksum=sha256:{checksum} {url}/{path} /")
    assert not list(downloads_folder().glob("*/*")), "something of it was kept"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            "ADD https://example.org/model.bin /",
            r"no --checksum=sha256:…, .*`curl -fsSL https://example.org/model.bin \| sha256sum`",
        ),
        ("ADD --checksum=md5:1 https://example.org/m /", r"--checksum=md5:1 is not sha256: and 64"),
        (f"ADD --checksum=sha256:{SHA256} https://example.org/ /", r"without a file name"),
        (f"ADD --checksum=sha256:{SHA256} https://a.org/b https://a.org/c /", r"an ADD for each"),
        ("ADD src /", r"ADD of the local 'src' is not supported; use COPY"),
        ("ADD ftp://example.org/x /", r"ADD of 'ftp://example.org/x' is not supported; there are"),
        ("ADD git@example.org:a/b.git#main /", r"b.git#main' is not supported; there are"),
        (
            "ADD https://example.org/b.git#main /",
            r"'main' is not a commit, .* as `git ls-remote https://example.org/b.git main` prints",
        ),
        ("ADD https://example.org/b.git#0123abc /", r"'0123abc' is not a commit"),
        ("ADD https://example.org/b.git /", r"there is no commit, .*/b.git HEAD"),
        (f"ADD --checksum=sha256:{SHA256} https://a.org/b.git#{'0' * 40} /", r"a commit is a"),
        (f"ADD https://example.org/b.git#{'0' * 40}:../x /", r"it leaves the tree"),
        ("ADD --keep-git-dir=true https://example.org/b.git /", r"ADD --keep-git-dir is not supp"),
    ],
)  # fmt: skip
def test_what_is_not_pinned_is_refused_before_anything_is_fetched(
    make: Make, store: Store, recipe: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=r"^stages/a/Dockerfile:2: .*" + says):
        built(make, store, recipe)


@pytest.mark.parametrize("suffix", ["m.bin", "b.git#" + "0" * 40])
def test_a_secret_in_an_address_is_refused_and_not_repeated(
    make: Make, store: Store, suffix: str
) -> None:
    with pytest.raises(BuilderError, match=r"Dockerfile:2: .*netrc") as caught:
        built(make, store, f"ADD https://me:s3cret@example.org/{suffix} /")
    assert "s3cret" not in str(caught.value)


def test_a_repository_comes_as_the_commit_has_it_whatever_attributes_say(
    make: Make, store: Store, repository: tuple[str, str]
) -> None:
    url, commit = repository
    found = built(make, store, f"ADD --chown=7:8 {url}#{commit} /opt/research/")
    inner = {path.removeprefix("opt/research/"): entry for path, entry in found.items()}
    assert content(inner["run.py"]) == b"print('first')\n"
    assert content(inner["src/deep/data.txt"]) == b"data $Id$\n"
    assert (inner["run.py"].mode, inner["src/deep/data.txt"].mode) == (0o755, 0o644)
    assert (inner["latest"].kind, inner["latest"].target) == ("symlink", "src/deep/data.txt")
    assert (inner["run.py"].uid, inner["run.py"].gid) == (7, 8)
    assert not any(path.startswith(".git/") for path in inner)


def test_a_folder_of_a_repository_can_be_taken_alone(
    make: Make, store: Store, repository: tuple[str, str]
) -> None:
    url, commit = repository
    found = built(make, store, f"ADD {url}#{commit}:src/deep /d")
    assert sorted(found) == ["d", "d/data.txt"]
    for folder in ("nothing", "run.py", "src/nothing"):
        with pytest.raises(BuilderError, match=rf":2: .*has no folder '{folder}' at {commit}"):
            built(make, store, f"ADD {url}#{commit}:{folder} /d")


def test_a_commit_is_known_without_its_repository_once_it_was_fetched(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    url, commit = repository
    recipe = f"ADD {url}#{commit} /r/"
    first = built(make, store, recipe)
    shutil.rmtree(tmp_path / "research")
    again = built(make, Store.open(tmp_path / "another"), recipe)
    assert list(again) == list(first)


def test_a_damaged_copy_of_a_repository_is_noticed_and_fetched_again(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    url, commit = repository
    recipe = f"ADD {url}#{commit} /r/"
    first = build(make(f"FROM scratch\n{recipe}\n"), store)["a"].image
    packs = [*(downloads_folder() / "git" / commit).glob("objects/pack/*.pack"),
             *(downloads_folder() / "git" / commit).glob("objects/??/*")]  # fmt: skip
    assert packs
    for path in packs:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-40])
    again = build(make(f"FROM scratch\n{recipe}\n"), Store.open(tmp_path / "another"))["a"].image
    assert again.digest == first.digest


@pytest.mark.parametrize("object_of", ["{}:src/deep/data.txt", "{}^{{tree}}"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_an_object_that_the_repository_lacks_is_named_and_not_the_network(
    make: Make, store: Store, repository: tuple[str, str], object_of: str, how: str
) -> None:
    url, commit = repository
    folder = Path(url.removeprefix("file://"))
    name = git(folder, "rev-parse", object_of.format(commit))
    path = folder / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    path.write_text("spoilt")
    if how == "missing":
        path.unlink()
    with pytest.raises(BuilderError, match=rf":2: .*{url} lacks an object of .*{commit}") as found:
        built(make, store, f"ADD {url}#{commit} /r/")
    said = str(found.value)
    assert name in said
    assert "git fsck" in said
    assert "network" not in said


def test_a_commit_before_a_shallow_clone_is_told_how_to_get(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    url, commit = repository
    git(tmp_path, "clone", "-q", "--depth=1", url, "shallow")
    shallow = f"file://{tmp_path}/shallow/.git"
    with pytest.raises(BuilderError, match=rf"{shallow} has no commit {commit} ") as found:
        built(make, store, f"ADD {shallow}#{commit} /r/")
    assert "git fetch --unshallow" in str(found.value)


def test_a_commit_or_repository_that_is_not_there_is_named(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    url, _ = repository
    with pytest.raises(BuilderError, match=rf":2: {url} has no commit 0{{40}} .*git ls-remote"):
        built(make, store, f"ADD {url}#{'0' * 40} /r/")
    with pytest.raises(BuilderError, match=r":2: fetching file:///nowhere.git failed \(fatal: "):
        built(make, store, f"ADD file:///nowhere.git#{'0' * 40} /r/")
    kept = downloads_folder() / "git"
    assert not kept.exists() or not list(kept.iterdir()), "something half-fetched was kept"


def test_a_server_that_gives_branches_only_is_asked_for_all_of_them(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    """A folder of files behind a web server: it knows no shallow fetches."""
    _, commit = repository
    bare = tmp_path / "web" / "research.git"
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "research"), str(bare))
    git(bare, "update-server-info")

    with files(tmp_path / "web") as web:
        url = f"{web}/research.git"
        found = built(make, store, f"ADD --link {url}#{commit}:src /r/")
        assert content(found["r/deep/data.txt"]) == b"data $Id$\n"
        with pytest.raises(BuilderError, match=rf"{url} has no commit 0{{40}}"):
            built(make, store, f"ADD {url}#{'0' * 40} /r/")


def test_a_submodule_is_refused_with_the_line_that_brings_it(
    make: Make, store: Store, repository: tuple[str, str], tmp_path: Path
) -> None:
    url, commit = repository
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "--quiet", "add", url, "parts/inner")
    git(outer / "parts/inner", "checkout", "-q", commit)
    git(outer, "add", "-A")
    git(outer, "commit", "-q", "-m", "one")
    head = git(outer, "rev-parse", "HEAD")
    with pytest.raises(BuilderError, match=rf":2: .*submodule at parts/inner, .*#{commit}"):
        built(make, store, f"ADD file://{outer}/.git#{head} /r/")


def test_a_machine_without_git_is_told_so(
    make: Make, store: Store, repository: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, commit = repository
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuilderError, match=r":2: git is not installed; ADD of a repository needs"):
        built(make, store, f"ADD {url}#{commit} /r/")


def test_a_repository_named_by_the_environment_is_not_taken_instead(
    make: Make, store: Store, repository: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, commit = repository
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    assert "r/run.py" in built(make, store, f"ADD {url}#{commit} /r/")


def test_an_unmodified_research_repository_runs_as_a_black_box(
    repository: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/research.md, with the project's base image and a repository of ours."""
    monkeypatch.undo()  # the user's own store, which has the base image already
    url, commit = repository
    root = tmp_path / "workspace"
    shutil.copytree(ROOT / "stages/base", root / "stages/base", symlinks=True)
    example = (ROOT / "docs/research.md").read_text(encoding="utf-8")
    recipe, adapter = (
        example.split(f"```{language}\n")[1].split("```")[0]
        for language in ("dockerfile", "python")
    )
    recipe = recipe.replace("COPY --from=wheels / /opt/venv/\n", "")
    recipe = "\n".join(
        f"ADD {url}#{commit} /opt/research/" if line.startswith("ADD") else line
        for line in recipe.splitlines()
    )
    folder = root / "stages/segment"
    (folder / "segment").mkdir(parents=True)
    (folder / "Dockerfile").write_text(recipe + "\n")
    (folder / "segment/__main__.py").write_text(adapter)
    store = Store.open()
    image = build(Workspace.load(root), store, ["segment"])["segment"].image
    with tempfile.TemporaryFile() as output:
        ended = run(Bubblewrap(store), Process(image=image), output)
        output.seek(0)
        text = output.read().decode()
    assert ended.code == 0, text
    assert text.splitlines()[-1] == "first", "another commit's code, or changed code, has run"


def test_what_is_no_address_is_refused_with_its_line(make: Make, store: Store) -> None:
    with pytest.raises(BuilderError, match=r":2: ADD 'https://a.example\[/b': this is no address"):
        built(make, store, "ADD https://a.example[/b /c")
