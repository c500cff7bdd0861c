"""The same recipe gives the same file tree and config here and with a Docker Engine's BuildKit.

What differs on purpose stands in a table of docs/builder.md; the recipes here keep clear of it, but
for the tests that are named so.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.registry.client import Registry
from builder.registry.push import push
from builder.store import Store
from tests.builder.conftest import Make
from tests.builder.docker_images import DOCKER, ours, theirs
from tests.conftest import missing
from tests.servers import files

FILES = {
    "one.txt": "1", "two.txt": "2", "src/run": "run", "src/sub/data": "data", "src/b.txt": "b",
    "src/c.txt": "c", "dir/x/deep": "deep", "links/file": "linked", "a/node/x": "ax",
    "node/y": "ny", "b/node": "bn",
    "accounts/passwd": "root:x:0:0::/:/\nme:x:1000:1001:Me:/home/me:/bin/sh\n",
    "accounts/group": "root:x:0:\nteam:x:2000:me\n",
    "white/a\u202fb": "narrow", "white/a\u00a0c": "wide",
    r"odd/system-systemd\x2dcrypt.slice": "odd", "odd/\u00e9 \u0065\u0301": "two forms",
}  # fmt: skip
LINKS = {
    "src/link": "sub/data", "to-folder": "src", "to-file": "one.txt",
    "dots": "..dots", "links/outside": "../real", "links/beside": "file", "links/absolute": "/zzz",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    found = shutil.which(DOCKER)
    if not found or subprocess.run([DOCKER, "info"], capture_output=True, check=False).returncode:
        missing("a Docker Engine", "apt-get install docker.io, then start dockerd")


@pytest.fixture
def context(make: Make) -> Any:
    """Return a function that writes the workspace: a recipe, and files beside the usual ones."""

    def write(recipe: str, **files: str) -> Workspace:
        root = make(recipe, **FILES, **files).root
        for name, target in LINKS.items():
            if not (root / name).is_symlink():
                (root / name).symlink_to(target)
        (root / "src/run").chmod(0o755)
        return Workspace.load(root)

    return write


def same(workspace: Workspace, store: Store, folder: Path) -> None:
    tree, config = ours(store, workspace)
    their_tree, their_config = theirs(workspace.root, folder)
    assert tree == their_tree
    assert config == their_config


TREES = {
    "folders and files": """
        COPY src/ /a/x/y/
        COPY src /b
        COPY src/. /c/
        COPY src /d/.
        COPY one.txt /e
        COPY one.txt /f/
        COPY one.txt g/
        COPY /one.txt /h
        COPY ../one.txt /i
        COPY one.txt /j/../k/
        COPY ["one.txt", "/with space/"]
        copy "one.txt" '/quoted'
        ENV D=/vars
        COPY one.txt $D/${D:+x}/
        COPY . /all/
        """,
    "several sources": """
        COPY one.txt two.txt /a/
        COPY src dir /b/
        COPY src one.txt dir/ /c/
        """,
    "patterns": """
        COPY src/*.txt /a/
        COPY src/* /b/
        COPY s*/run /c/
        COPY [a-o]*.txt /d/
        COPY ?ne.txt /e/
        COPY [^o]*.txt /f/
        COPY src/** /g/
        COPY *.txt /h/
        """,
    "links that are copied": """
        COPY to-file /a/
        COPY to-folder /b/
        COPY to-folder/run /c/
        COPY src/link /d
        COPY to-* /e/
        COPY links/ /f/
        """,
    "owners and modes": """
        COPY --chown=7:8 src/ /a/new/folder/
        COPY --chown=7 one.txt /b/new/
        COPY --chown=7:8 one.txt /c/new/file
        COPY --chmod=0600 src/ /d/
        COPY --chmod=755 one.txt /e/
        COPY --chown=7:8 --chmod=0640 to-folder /f/
        """,
    "onto what is there": """
        COPY src /a
        COPY one.txt /a
        COPY dir /a/sub
        COPY --chown=7:8 --chmod=0700 src /b
        COPY one.txt /b/
        COPY src/sub /b/sub
        COPY --chown=7:8 --chmod=0700 src /c
        COPY src /c
        COPY --chown=1:1 one.txt /c/new/deep/
        COPY one.txt /d
        COPY two.txt /d
        """,
    "through links that are there": """
        COPY links/ /l/
        COPY one.txt /l/outside/new
        COPY src /l/outside
        COPY two.txt /l/beside
        COPY one.txt /l/absolute/new
        COPY src/ /l/
        WORKDIR /l/outside/work
        COPY one.txt .
        """,
    "owners with names": """
        COPY accounts/ /etc/
        COPY --chown=me one.txt /a/
        COPY --chown=me:team src /b
        COPY --chown=9:team one.txt /c/
        COPY --chown=me:9 one.txt /d/
        USER me
        WORKDIR /w/x
        USER me:team
        WORKDIR /y
        """,
    "WORKDIR": """
        COPY one.txt /
        WORKDIR /a/b/c
        WORKDIR d
        COPY one.txt .
        COPY src ./
        COPY two.txt sub/x
        WORKDIR "/with space"
        WORKDIR /e f
        ENV X=/y
        WORKDIR $X/z
        WORKDIR ../w
        USER 7:8
        WORKDIR /u/v
        COPY --chown=5:5 src /own
        WORKDIR /own/new
        USER 9
        WORKDIR /n
        COPY one.txt /own/file
        """,
    "stages": """
        COPY --chown=7:8 --chmod=0750 src /in
        COPY links /l
        COPY dir /real
        ENV A=1
        USER 7
        CMD ["a"]
        ENTRYPOINT ["b"]
        EXPOSE 80
        VOLUME /v
        LABEL a=1 b=2
        HEALTHCHECK CMD x
        WORKDIR /w
        FROM scratch AS two
        COPY --from=0 /in/run /o
        COPY --from=0 /in /o2
        COPY --from=0 /in/link /o3
        COPY --from=0 /in/s* /o4/
        COPY --from=0 / /o5/
        COPY --from=0 /l/outside /o6/
        COPY --from=0 /l/outside/x /o7/
        COPY --from=0 --chown=1 /l/ /o8/
        FROM 0
        COPY --from=two /o2 here
        ENTRYPOINT ["c"]
        EXPOSE 81
        LABEL b=3 c=4
        WORKDIR x
        ARG A=9
        ENV B=$A
        """,
    "an ARG of the stage below": """
        ARG FLAVOUR=dark
        ARG WHO=7
        ARG EMPTY=
        ENV KEPT=1
        FROM 0 AS middle
        ARG LATER=x
        ENV THEME=$FLAVOUR FLAVOUR=light
        FROM middle
        ENV OTHER=$FLAVOUR LAST=$LATER E=x$EMPTY K=$KEPT
        COPY one.txt /themes/$LATER/
        WORKDIR /srv/$FLAVOUR
        USER $WHO
        FROM 0
        ENV NOT=${LATER:-unset}
        FROM middle
        COPY one.txt /themes/$FLAVOUR/$LATER
        ENV THEME=$FLAVOUR OTHER=${WHO} NOT=${NONE:-unset}
        USER $WHO
        """,
    "lines that go on after blank ones": """
        ENV A=1 \\

            B=2 \\
        # a comment

            C=3
        COPY one.txt \\

            /x/
        USER 7 \\
        """,
    "names with a backslash": r"""
        COPY odd/ /odd/
        COPY odd /more
        """,
    "white space of other kinds in names": """
        COPY white/a\u202fb /x/
        COPY white/a\u00a0c /y
        """,
}


@pytest.mark.parametrize("recipe", TREES.values(), ids=list(TREES))
def test_a_tree_is_what_docker_makes_of_it(
    context: Any, store: Store, tmp_path: Path, recipe: str
) -> None:
    recipe = recipe.replace("FROM 0", "FROM first")
    lines = ["FROM scratch AS first", *(line.strip() for line in recipe.strip().splitlines())]
    same(context("\n".join(lines) + "\n"), store, tmp_path)


CONFIGS = {
    "ENV": r"""
        ENV Z=1 A=1 A=2 B="x y" C='q' D=a\ b
        ENV Z=3
        ENV LONG one  "two" $PATH
        ENV E=$PATH:/x F=${A:-d} G=${A:+e} H=${NONE:-${A}} I=$NONE
        ENV J='$PATH' K="\$PATH" L=\$PATH M="a\b" N=a\b O=a"b c"d'e f'
        ENV P=$A-${A}y "Q R"=1 \
            S=2
        """,
    "ARG": """
        ARG V=3 W="a b"
        ENV A=$V
        ARG X=$W-x
        ARG NONE
        ENV B=$X C=${NONE:-none}
        ARG A=9
        ENV D=$A
        ENV E=1
        ARG E
        ENV F=$E
        ARG G=1
        ENV G=2
        ENV H=$G
        ENV I=$TARGETARCH
        ARG TARGETARCH TARGETPLATFORM
        ARG TARGETOS
        ENV J=$TARGETARCH K=$TARGETOS L=$TARGETPLATFORM
        """,
    "LABEL": r"""
        LABEL a=b "c d"="e f" x='y' v="$PATH" w='$PATH'
        LABEL legacy one two
        LABEL multi="a \
            b"
        """,
    "ports, volumes, signal, user": """
        EXPOSE 80 443/tcp 53/udp 8000-8002 9000/TCP
        ENV P=81 Q="82 83"
        EXPOSE $P $Q
        VOLUME /data /x
        VOLUME ["/y", "/with space"]
        VOLUME "/z"
        STOPSIGNAL SIGINT
        USER "7:8"
        """,
    "shell forms": """
        CMD echo hi $HOME
        HEALTHCHECK --interval=1m30s --timeout=3s --start-period=500ms --retries=2 CMD a || exit 1
        """,
    "exec forms": """
        ENTRYPOINT [ "a" , "b c" ]
        CMD ["x", "$HOME"]
        HEALTHCHECK --interval=1.5s CMD ["a","b"]
        STOPSIGNAL 9
        USER name:group
        """,
    "CMD before ENTRYPOINT": """
        CMD ["a"]
        ENTRYPOINT exec top
        HEALTHCHECK NONE
        """,
    "empty lists": """
        CMD []
        ENTRYPOINT []
        """,
    "no JSON": "CMD ['a']",
    "parameters of a shell": """
        ENV A="$ $-|" B=$$x C=$1ab D=a$ E=$éa F="n$?" G=${#} H=${1}x I=$0 J=$10z
        ENV é=1 K=$é-$éa
        LABEL $A=1 b=$@
        """,
    "names of pairs": """
        ENV N=name
        ENV "a b"=c $N=1
        ENV $N d  e
        LABEL "a b"=c $N=1
        LABEL $N d  e
        """,
    "flags in quotes": """
        COPY --chown="7":'8' one.txt /a
        COPY --chmod='600' --chown=\\7 one.txt /b
        HEALTHCHECK --interval="5s" \t CMD x
        """,
}


@pytest.mark.parametrize("recipe", CONFIGS.values(), ids=list(CONFIGS))
def test_a_config_is_what_docker_makes_of_it(
    context: Any, store: Store, tmp_path: Path, recipe: str
) -> None:
    lines = ["ARG W=never", "FROM scratch", "COPY one.txt /"]
    lines += [line.strip() for line in recipe.strip().splitlines()]
    same(context("\n".join(lines) + "\n"), store, tmp_path)


@pytest.mark.parametrize(
    "rules",
    [
        "*\n!src\nsrc/sub\n!src/sub/data\n**/*.txt\n!src/b.txt\n",
        "src/*\n!src/sub\n# comment\n\n/dir\none.txt/\n./two.txt\n",
        "*/run\n*/*/da*\n!**/data\n?ne.txt\n[st]wo.txt\nlinks\n",
        "dir/\n!dir/x/deep\nSRC\nnode\n**/y\n",
        "**/node\n!a/node/x\n**/*.txt\n",
        "src\n!src/b.txt\nsrc/b.txt\n!src\na/**\n!a/node/x\n",
        "\ufeffsrc\n  #one.txt\n",
        "../one.txt\n./../src\n/../two.txt\n.\n/\ndir/..\n",
        " # no comment\n#two.txt\n\tone.txt \r\nlinks \n",
        "**b.txt\nsrc/**ta\nn**x\n",
        "[!o]ne.txt\n[^t]wo.txt\nsrc/[b-c].txt\nd[i]r\n\\!x\n",
    ],
)
def test_dockerignore_hides_what_docker_hides(
    context: Any, store: Store, tmp_path: Path, rules: str
) -> None:
    workspace = context("FROM scratch\nCOPY . /\n", **{".dockerignore": rules})
    same(workspace, store, tmp_path)


def test_an_image_of_a_registry_is_a_base_and_a_source_as_with_docker(
    context: Any, store: Store, tmp_path: Path, registry_host: str
) -> None:
    """The engine pulls the very image that the builder made and pushed."""
    first = build(context("FROM scratch\nCOPY links /l\nCOPY --chown=7:8 src /in\n"), store)["a"]
    with Registry(registry_host) as registry:
        push(store, {"base": (first.key, first.image)}, f"{registry_host}/p", registry)
    name = f"{registry_host}/p/base@{first.image.digest}"
    recipe = (
        f"FROM {name}\nCOPY one.txt /l/outside/\nCOPY two.txt /in/\nCOPY --from={name} /in /out\n"
    )
    workspace = context(recipe)
    try:
        same(workspace, Store.open(tmp_path / "fresh"), tmp_path)
    finally:
        subprocess.run([DOCKER, "rmi", "-f", name], check=False, capture_output=True)


def test_a_file_of_the_network_lands_as_docker_lands_it(
    context: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That engine knows neither --checksum nor --chmod here, so its recipe goes without."""
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "cache" / "store"))
    (tmp_path / "web").mkdir()
    (tmp_path / "web/model.bin").write_bytes(b"weights")

    with files(tmp_path / "web") as web:
        url = f"{web}/model.bin"
        lines = ("ADD {} /a/b/", "ADD {} /renamed", "ADD --chown=7:8 {} /c/")
        recipe = "".join(f"\n{line.format(url)}" for line in lines)
        pinned = f"ADD --checksum=sha256:{hashlib.sha256(b'weights').hexdigest()}"
        their_tree, _ = theirs(context(f"FROM scratch{recipe}\n").root, tmp_path)
        tree, _ = ours(store, context(f"FROM scratch{recipe}\n".replace("ADD", pinned)))
    assert tree == their_tree


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("COPY src /a\nCOPY nothing /", r"Dockerfile:3: 'nothing' is not there"),
        ("COPY src /a\nCOPY clash/ /a/", r"Dockerfile:3: /a/sub is a dir already, where a file"),
        ("COPY links /l\nCOPY clash2/ /l/", r"Dockerfile:3: /l/outside is a symlink already"),
        ("COPY --chown=me one.txt /", r"Dockerfile:2: me: the image's /etc/passwd has no 'me'"),
        ("COPY --from=later one.txt /", r"Dockerfile:2: 'later' is no target"),
        ("COPY one.txt /\nHEALTHCHECK CMD []", r"Dockerfile:3: HEALTHCHECK is"),
        ("COPY one.txt /\nCMD [1]", r"Dockerfile:3: \[1\] is a list of more than text"),
        ("COPY one.txt /\nCMD --x y", r"Dockerfile:3: CMD --x is not supported; there are no fl"),
        ("COPY --chown=1 --chown=2 one.txt /", r"Dockerfile:2: COPY --chown stands there twice"),
        ("COPY --chown one.txt /", r"Dockerfile:2: COPY --chown needs a value"),
        ("COPY one.txt /\nENV =x", r"Dockerfile:3: the name '' before = is empty"),
        ("COPY one.txt /\nFROM scratch AS 1a", r"Dockerfile:3: AS 1a is no name of a stage"),
    ],
)
def test_what_docker_refuses_is_refused(
    context: Any, store: Store, tmp_path: Path, recipe: str, says: str
) -> None:
    files = {"clash/sub": "file", "clash2/outside/x": "x"}
    with pytest.raises(BuilderError, match=says):
        ours(store, context(f"FROM scratch\n{recipe}\n", **files))
    with pytest.raises(BuilderError):
        theirs(tmp_path / "workspace", tmp_path)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("COPY src/nothing* one.txt /a/", r"Dockerfile:2: nothing matches 'src/nothing\*'"),
        ("COPY one.txt two.txt /a", r"Dockerfile:2: several files go to '/a', which must end"),
        ('COPY one.txt /\nCMD ["a"] b', r"Dockerfile:3: 'b' follows the list \[\"a\"\]"),
        ("COPY one.txt /\nENV A=b\\\\\nENV C=d", r"Dockerfile:3: the line ends with two backslash"),
        ("COPY one.txt /\nENV $NONE=x", r"Dockerfile:3: the name '\$NONE' before = is empty"),
        ('COPY one.txt /\nCMD ["\\ud800"]', r"Dockerfile:3: .* a part of a character"),
        ("FROM scratch\nCOPY no /\nFROM scratch\nCOPY one.txt /", r"Dockerfile:3: 'no' is not th"),
    ],
)
def test_what_is_refused_here_alone_is_in_the_table(
    context: Any, store: Store, tmp_path: Path, recipe: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=says):
        ours(store, context(f"FROM scratch\n{recipe}\n"))
    theirs(tmp_path / "workspace", tmp_path)


def test_the_meant_differences_are_those_of_the_table(
    context: Any, store: Store, tmp_path: Path
) -> None:
    """Modes of workspace files, a WORKDIR's spelling, and the special bits of --chmod."""
    workspace = context(
        "FROM scratch\nCOPY src /a\nCOPY --chmod=4755 one.txt /set\nWORKDIR /x/../y//z/\n"
    )
    (workspace.root / "src/b.txt").chmod(0o600)
    (workspace.root / "src/sub").chmod(0o700)
    tree, config = ours(store, workspace)
    their_tree, their_config = theirs(workspace.root, tmp_path)
    differing = {path: (tree[path][1], their_tree[path][1])
                 for path in tree if tree[path] != their_tree[path]}  # fmt: skip
    assert differing == {
        "a/b.txt": ("0o644", "0o600"),
        "a/sub": ("0o755", "0o700"),
        "set": ("0o4755", "0o755"),
    }
    assert (config["WorkingDir"], their_config["WorkingDir"]) == ("/y/z", "/x/../y//z/")
