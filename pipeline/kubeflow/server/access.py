"""Where a server of Kubeflow Pipelines is, and what lets in: tokens, cookies, certificates."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from builder.registry.http import is_loopback
from pipeline.errors import PipelineError

# Where Kubernetes puts a token for the audience pipelines.kubeflow.org, by
# https://www.kubeflow.org/docs/components/pipelines/user-guides/core-functions/connect-api/.
_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path
_COMMAND_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Access:
    """The address of a server, and what lets in.

    `token_file` is read and `token_command` run again where a token was refused: tokens end.
    `timeout` is how many seconds one answer may take, `tries` how often a question is asked that
    changes nothing, with `pause` seconds before the second time, twice as many before the third.
    """

    host: str
    token: str = ""
    token_file: Path | None = None
    token_command: str = ""
    cookie: str = ""
    ca_file: Path | None = None
    namespace: str = ""
    timeout: float = 30.0
    tries: int = 4
    pause: float = 0.5

    @property
    def url(self) -> str:
        """The address with its scheme, https where none was given, and without a last slash."""
        host = self.host if "//" in self.host else f"https://{self.host}"
        return host.rstrip("/")

    @property
    def secret(self) -> bool:
        """Whether something is sent that others must not read."""
        return bool(self.token or self.token_file or self.token_command or self.cookie)


def from_environment(access: Access, environ: Mapping[str, str] = os.environ) -> Access:
    """Return `access`, completed by KF_PIPELINES_TOKEN or by the token of the pod that this is.

    Both only where nothing else was given.
    """
    from dataclasses import replace

    if access.secret:
        return access
    if token := environ.get("KF_PIPELINES_TOKEN", "").strip():
        return replace(access, token=token)
    path = Path(environ.get("KF_PIPELINES_SA_TOKEN_PATH") or _POD_TOKEN)
    return replace(access, token_file=path) if path.is_file() else access


def check(access: Access, environ: Mapping[str, str] = os.environ) -> None:
    """Raise PipelineError for an address that is none, or where a secret would be readable."""
    try:
        parts = urlsplit(access.url)
        parts.port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PipelineError(
            f"the address {access.host!r} is not of the form https://HOST or http://HOST:PORT; "
            "correct --host"
        )
    name = parts.hostname
    inside = "KUBERNETES_SERVICE_HOST" in environ and name.endswith((".svc", ".svc.cluster.local"))
    if access.secret and parts.scheme != "https" and not (is_loopback(parts.netloc) or inside):
        raise PipelineError(
            f"the token or cookie for {access.host} would be readable on the network; give an "
            "https:// address, or reach the server by --context"
        )


def token(access: Access) -> str:
    """Return the token of now, "" where there is none; raises PipelineError where it cannot be had.

    A command is split into words as a shell does, and started without one.
    """
    if access.token:
        return access.token
    if access.token_file:
        try:
            return _one_line(access.token_file.read_text(encoding="utf-8"), str(access.token_file))
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"reading the token from {access.token_file} failed ({error}); correct --token-file"
            ) from None
    if access.token_command:
        return _printed(access.token_command)
    return ""


def _printed(command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, check=False,
            timeout=_COMMAND_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise PipelineError(
            f"the command {command!r} gave no token ({error}); correct --token-command"
        ) from None
    if done.returncode or not done.stdout.strip():
        why = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:200]
        raise PipelineError(
            f"the command {command!r} gave no token (exit code {done.returncode}: {why}); "
            "log in again, or correct --token-command"
        )
    return _one_line(done.stdout, command)


def _one_line(text: str, what: str) -> str:
    found = text.strip()
    if not found or not found.isascii() or any(c.isspace() or not c.isprintable() for c in found):
        raise PipelineError(f"{what} gave no token: it must be one word of ASCII; correct it")
    return found
