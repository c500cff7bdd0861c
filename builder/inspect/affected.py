"""Which targets a range of git's history touches: those whose keys it changes, no others."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import checkout
from builder.store import Store


def changed_since(workspace: Workspace, store: Store, revision: str) -> dict[str, bool]:
    """Return for each target of the workspace whether its image differs from that of `revision`.

    The revision's files are planned as those of the working tree are, and the action keys compared:
    a comment in a recipe touches nothing, a locked wheel every image that has it. What the builder
    itself does is taken to be the same. A target that cannot be planned, then or now, counts as
    touched. Raises BuilderError where git does not know the revision.
    """
    with tempfile.TemporaryDirectory() as name:
        root = _export(workspace.root, revision, Path(name))
        try:
            before = keys(Workspace.load(root), store)
        except BuilderError:
            before = {}
    now = keys(workspace, store)
    return {n: n not in now or before.get(n) != now[n] for n in workspace.targets}


def with_changed_tests(workspace: Workspace, revision: str) -> set[str]:
    """Return the targets whose folder `tests` git finds changed, new files included."""
    root = workspace.root
    commit = _commit(root, revision)
    shown = checkout.git(root, "diff", "--name-only", "--relative", "-z", commit, "--").decode()
    fresh = checkout.git(root, "ls-files", "--others", "--exclude-standard", "-z").decode()
    paths = [Path(path) for path in (shown + fresh).split("\0") if path]
    return {
        name
        for name, target in workspace.targets.items()
        if any(p.is_relative_to(target.folder.relative_to(root) / "tests") for p in paths)
    }


def keys(workspace: Workspace, store: Store) -> Mapping[str, str]:
    """Return the action key of each target that can be planned; nothing is built."""
    from builder.build.make import plannable

    return {name: plan.key for name, plan in plannable(workspace, store).items()}


def _export(root: Path, revision: str, folder: Path) -> Path:
    """Check `revision` out below `folder`, with an index of its own; return the workspace there."""
    index = {"GIT_INDEX_FILE": str(folder / "index")}
    checkout.git(root, "read-tree", _commit(root, revision), **index)
    checkout.git(root, "checkout-index", "--all", f"--prefix={folder}/tree/", **index)
    return folder / "tree" / checkout.git(root, "rev-parse", "--show-prefix").decode().strip()


def _commit(root: Path, revision: str) -> str:
    """Return a revision's hash, so that no name is taken for an option."""
    found = checkout.git(
        root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"
    )
    return found.decode().strip()
