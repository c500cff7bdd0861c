"""Which files hold the keys that a workspace trusts; loading what reads them costs time."""

from __future__ import annotations

from pathlib import Path

# The folder of a workspace whose *.pub files are the keys that it trusts.
FOLDER = "keys"


def files(root: Path) -> list[Path]:
    """Return the files of the keys that the workspace at `root` trusts, `keys/*.pub`."""
    return sorted((root / FOLDER).glob("*.pub"))
