"""Credentials from the Docker config, as `docker login` leaves them.

Format: https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties
and, for the helpers, https://github.com/docker/docker-credential-helpers#development.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import BuilderError

_HELPER_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, or an identity token; never shown by `repr`."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the Docker config is: $DOCKER_CONFIG/config.json or ~/.docker/config.json."""
    folder = environ.get("DOCKER_CONFIG")
    return Path(folder or Path.home() / ".docker") / "config.json"


def find(host: str, path: Path | None = None) -> Credentials | None:
    """Return the credentials for the registry `host`, or None.

    A helper for the host comes first, then the file's own entry, then the default helper: Docker's
    order. Raises BuilderError where the file or a helper's answer cannot be read; the message never
    holds what was in it.
    """
    path = path or config_path()
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BuilderError(
            f"the Docker config {path} cannot be read ({type(error).__name__}); "
            "mend it or point DOCKER_CONFIG at another folder"
        ) from None
    if helper := config.get("credHelpers", {}).get(host):
        return _ask(str(helper), host)
    for name, entry in config.get("auths", {}).items():
        bare = name.removeprefix("https://").removeprefix("http://").split("/")[0]
        if bare == host and (found := _from_entry(entry, name, path)):
            return found
    if helper := config.get("credsStore"):
        return _ask(str(helper), host)
    return None


def _from_entry(entry: Mapping[str, str], name: str, path: Path) -> Credentials | None:
    token = entry.get("identitytoken", "")
    if text := entry.get("auth"):
        try:
            username, colon, password = (
                base64.b64decode(text, validate=True).decode().partition(":")
            )
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise BuilderError(
                f"{path}: the entry auths.{name}.auth is not base64 of user:password"
            )
        return Credentials(username, password, token)
    if "username" in entry:
        return Credentials(entry["username"], entry.get("password", ""), token)
    return Credentials("", "", token) if token else None


def _ask(helper: str, host: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    try:
        answer = subprocess.run(
            [program, "get"],
            input=host.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuilderError(
            f"the credential helper {program} for {host} did not answer ({type(error).__name__}); "
            "install it or remove it from the Docker config"
        ) from None
    if answer.returncode:
        if b"credentials not found" in answer.stdout + answer.stderr:
            return None
        raise BuilderError(
            f"the credential helper {program} failed for {host} with exit code {answer.returncode}"
        )
    try:
        document = json.loads(answer.stdout)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise BuilderError(
            f"the credential helper {program} gave no credentials for {host}"
        ) from None
    if username == "<token>":
        return Credentials("", "", secret)
    return Credentials(username, secret)
