"""A user of a registry with passwords, and what `docker login` leaves behind for it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

USER, PASSWORD = "tester", "s3cret-Pass"
SECRETS = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
# bcrypt of the password above, as `htpasswd -nB` prints it.
HTPASSWD = f"{USER}:$2y$04$0e5fMrC/KdDv.oKZkYoYBeN4ZoCqW5hwEDNmAnmJr4aZifKSU26.C\n"


def log_in(folder: Path, host: str, password: str = PASSWORD) -> Path:
    """Write what `docker login` leaves behind and return the file."""
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path
