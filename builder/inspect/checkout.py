"""Git as the user has it, asked about the repository that the workspace is in.

`packages.git` is another matter: it fetches repositories of others, without the user's settings.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from builder.errors import BuilderError


def git(root: Path, *arguments: str, **environ: str) -> bytes:
    """Run git in `root` and return what it printed.

    Raises BuilderError where git is missing or fails, with its last words.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, check=False,
            env={**os.environ, **environ},
        )  # fmt: skip
    except FileNotFoundError:
        raise BuilderError("git is not installed; install it to ask what changed") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason"]
        raise BuilderError(f"git {arguments[0]} in {root} failed: {reason[0]}")
    return done.stdout
