"""Logging in: the Docker config as `docker login` leaves it, and the challenges of a registry.

Formats: https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties,
https://github.com/docker/docker-credential-helpers#development for the helpers, RFC 9110 section
11.6.1 for challenges, and https://distribution.github.io/distribution/spec/auth/token/ for tokens.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import BuilderError
from builder.oci.reference import DOCKER_HUB, api_host
from builder.registry.http import RegistryError, is_loopback, join, shown

_HELPER_SECONDS = 20
# Docker Hub is called by several names; `docker login` keeps its password under the first.
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = (_HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io")
# Registries whose token server has another name, as they document it.
_TOKEN_SERVERS = {"registry-1.docker.io": "auth.docker.io", "registry.gitlab.com": "gitlab.com"}


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
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BuilderError(
            f"the Docker config {path} cannot be read ({type(error).__name__}); "
            "mend it or point DOCKER_CONFIG at another folder"
        ) from None
    if config is None:
        return None
    names = _HUB_NAMES if api_host(host) == api_host(DOCKER_HUB) else (host,)
    helpers = _member(config, "credHelpers", path)
    if helper := next((helpers[name] for name in names if helpers.get(name)), None):
        return _ask(str(helper), names[0])
    entries = _member(config, "auths", path)
    # An entry for the host itself counts before one for a folder of it.
    for name in sorted(entries, key=lambda name: _host(name) != name.casefold()):
        fits = name in names or _host(name) in [wanted.casefold() for wanted in names]
        if fits and (found := _from_entry(entries[name], name, path)):
            return found
    if helper := config.get("credsStore"):
        return _ask(str(helper), names[0])
    return None


def _member(config: Any, name: str, path: Path) -> Mapping[str, Any]:
    """Return a member of the Docker config that maps hosts to something; null counts as empty."""
    found = config.get(name, {}) if isinstance(config, dict) else config
    if found is None:
        return {}
    if not isinstance(found, dict):
        what = f"its member {name}" if isinstance(config, dict) else "it"
        raise BuilderError(
            f"the Docker config {path} cannot be used: {what} is not an object; log in again "
            "with `docker login`, or point DOCKER_CONFIG at another folder"
        )
    return found


def _host(name: str) -> str:
    bare = name.casefold().removeprefix("https://").removeprefix("http://")
    return bare.partition("/")[0]


def _from_entry(entry: Any, name: str, path: Path) -> Credentials | None:
    if not entry:
        return None
    wrong = BuilderError(f"{path}: the entry auths.{name}.auth is not base64 of user:password")
    if not isinstance(entry, dict):
        raise wrong
    token = str(entry.get("identitytoken") or "")
    if text := entry.get("auth"):
        try:
            decoded = base64.b64decode(str(text).strip(), validate=True).decode()
        except (binascii.Error, UnicodeError):
            raise wrong from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise wrong
        return Credentials(username, password, token)
    if entry.get("username"):
        return Credentials(str(entry["username"]), str(entry.get("password") or ""), token)
    return Credentials("", "", token) if token else None


def _ask(helper: str, host: str) -> Credentials | None:
    import subprocess  # costs time, and few have a helper

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


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a 401 offers: its scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


# A scheme alone, or a parameter whose value is quoted or bare; servers write URLs bare as well.
_PART = re.compile(
    r"""[\s,]*(?:
        (?P<name>[\w!\#$%&'*+.^`|~-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]*))
        | (?P<scheme>[\w!\#$%&'*+.^`|~-]+)(?=[\s,]|$)
        | (?P<other>[^\s,]+)
    )""",
    re.VERBOSE,
)


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return what the WWW-Authenticate headers offer, in their order; never raises."""
    return [challenge for header in headers for challenge in _in_header(header[:8192])]


def _in_header(header: str) -> Iterator[Challenge]:
    scheme, parameters = "", dict[str, str]()
    for part in _PART.finditer(header):
        if part["scheme"]:
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters = part["scheme"].lower(), {}
        elif part["name"]:
            quoted = part["quoted"]
            value = part["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(part["name"].lower(), value)
    if scheme:
        yield Challenge(scheme, parameters)


def may_have_password(host: str, server: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the token server `server` may be given the password of the registry `host`.

    Both are names without a port. One of the registry's own name may, the documented ones of large
    registries, and those that $PLATELINE_TOKEN_SERVERS lists, separated by commas.
    """
    allowed = {name.strip() for name in environ.get("PLATELINE_TOKEN_SERVERS", "").split(",")}
    return server in {host, _TOKEN_SERVERS.get(host), *allowed} - {""}


# Realm, query, form, headers -> status and body.
AskToken = Callable[[str, list[tuple[str, str]], dict[str, str], dict[str, str]], tuple[int, bytes]]


class Login:
    """What the challenges of one registry were answered with, by token scope."""

    def __init__(self, host: str, docker_config: Path | None, *, plain: bool) -> None:
        self._host = host
        self._config = docker_config
        self._plain = plain
        self._by_scope: dict[str, str] = {}
        # The token server that was not given the password, since it is another host.
        self.withheld = ""

    def header(self, scope: str) -> dict[str, str]:
        """Return the header that a request for `scope` carries."""
        value = self._by_scope.get(scope) or self._by_scope.get("")
        return {"Authorization": value} if value else {}

    def meet(
        self,
        offered: Iterable[str],
        sent: str,
        scope: str,
        tried: set[str],
        own: str,
        ask: AskToken,
    ) -> bool:
        """Take the first challenge that can be answered and was not `tried`; tell if there was one.

        `offered` are the WWW-Authenticate headers, `sent` the Authorization that was refused, `own`
        the registry's name without a port; `ask` asks a token server. Raises RegistryError where
        that refuses, and BuilderError where the Docker config cannot be read.
        """
        found = find(self._host, self._config)
        if found and sent == found.basic():
            tried.add("basic")
        for challenge in challenges(offered):
            if challenge.scheme in tried:
                continue
            if challenge.scheme == "basic" and found and found.username:
                self._by_scope[""] = found.basic()
            elif challenge.scheme == "bearer":
                token = self._token(challenge.parameters, scope, found, own, ask)
                self._by_scope[scope] = f"Bearer {token}"
            else:
                continue
            tried.add(challenge.scheme)
            return True
        return False

    def _token(
        self,
        parameters: Mapping[str, str],
        scope: str,
        found: Credentials | None,
        own: str,
        ask: AskToken,
    ) -> str:
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        server = urlsplit(join("", realm, f"the 401 of {self._host}"))
        name = server.hostname or ""
        if server.scheme != "https" and not (
            server.scheme == "http" and self._plain and is_loopback(name)
        ):
            raise RegistryError(
                f"{self._host} sends clients for a token to {shown(realm)!r}, which is not https; "
                "credentials are not sent there"
            )
        if found and not may_have_password(own, name):
            found, self.withheld = None, name
        query = [("service", service), *(("scope", entry) for entry in scope.split(" "))]
        form = {}
        if found and found.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": found.identity_token,
                "service": service,
                "scope": scope,
                "client_id": "plateline",
            }
        header = {"Authorization": found.basic()} if found and not form else {}
        status, body = ask(realm, query, form, header)
        try:
            document = json.loads(body)
            token = str(document.get("token") or document.get("access_token") or "")
        except (ValueError, AttributeError, RecursionError):
            token = ""
        fits = token.isascii() and token.isprintable() and " " not in token
        if status != 200 or not token or not fits:
            raise RegistryError(
                f"the token server of {self._host} refused {scope} with {status}"
                + (self.hint() if self.withheld else f"; run `docker login {self._host}`"),
                status,
            )
        return token

    def hint(self) -> str:
        """Return the advice for a refusal where the password was withheld."""
        server = shown(self.withheld)
        return (
            f"; its token server is another host, {server}, which was not given the password: if "
            f"it may have that, set PLATELINE_TOKEN_SERVERS={server}"
        )
