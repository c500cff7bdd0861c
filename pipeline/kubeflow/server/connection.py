"""Requests to a server of Kubeflow Pipelines: logging in, time limits, and trying again.

A question that changes nothing is asked again where a gateway fails in between. What changes
something is sent once: whether it was done without an answer is `Unclear`, and who sent it looks.

The API is that of backend/api/v2beta1/*.proto of kubeflow/pipelines, as JSON.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from builder.errors import BuilderError
from builder.registry.http import is_loopback, shown
from builder.registry.transport import tls_context
from pipeline.errors import PipelineError
from pipeline.kubeflow.server import access as credentials
from pipeline.kubeflow.server.access import Access
from pipeline.spec.documents import MOST_BYTES, load_json

API = "/apis/v2beta1/"
_TOO_MANY = 429  # nothing was done
_AGAIN = {_TOO_MANY, 502, 503, 504}  # a gateway in between, or a server that is starting
_LONGEST_WAIT = 30.0
_CONNECT = 10.0  # seconds
Said = Callable[[str], None]


class ServerError(PipelineError):
    """The server refused, or did not answer; `status` is its answer, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Unclear(ServerError):  # noqa: N818 - it is not known whether it is one
    """Something was sent that changes the server, and whether it did is not known."""


class Connection:
    """Requests to one server. `said` is told in a line what is tried again."""

    def __init__(self, access: Access, said: Said = lambda _: None) -> None:
        credentials.check(access)
        self.access = access
        self._said = said
        self._token = credentials.token(access)
        local = is_loopback(urlsplit(access.url).netloc)
        if access.ca_file and not access.ca_file.is_file():
            raise PipelineError(f"there is no file {access.ca_file}; correct --ca-file")
        try:
            context: ssl.SSLContext | bool = False
            if access.url.startswith("https"):
                chosen = {"SSL_CERT_FILE": str(access.ca_file)}
                context = tls_context("", chosen) if access.ca_file else tls_context("")
        except BuilderError as error:
            raise PipelineError(f"{error}, or give --ca-file") from None
        self._client = httpx.Client(
            timeout=httpx.Timeout(access.timeout, connect=min(_CONNECT, access.timeout)),
            verify=context, trust_env=not local, headers={"Accept-Encoding": "identity"},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the JSON object that the API has at `path`."""
        return self._object("GET", path, query=query, repeat=True)

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Send a JSON object; raises Unclear where it may have been taken without an answer."""
        return self._object("POST", path, query=query, json=body)

    def upload(self, path: str, file: str, data: bytes, /, **query: str) -> dict[str, Any]:
        """Send a file as a form does; raises Unclear where it may have been taken."""
        files = {"uploadfile": (file, data, "application/octet-stream")}
        return self._object("POST", path, query=query, files=files)

    def delete(self, path: str, **query: str) -> None:
        """Remove what is at `path`; doing so again does no harm, so it is."""
        self._object("DELETE", path, query=query, repeat=True)

    def read(self, path: str, *, limit: int = MOST_BYTES, **query: str) -> bytes:
        """Return what lies at `path` of the host itself, not of the API."""
        return self._whole("GET", path, limit, query=query, repeat=True)

    def call(self, path: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        """Ask a question by POST at `path` of the host itself."""
        return self._whole(
            "POST", path, 4 * MOST_BYTES, content=content, headers=headers, repeat=True
        )

    def save(self, path: str, write: Callable[[bytes], object], **query: str) -> Mapping[str, str]:
        """Hand what lies at `path` of the host to `write`, in pieces; return the headers.

        Raises ServerError; a transfer that was cut is not asked for again.
        """
        with self._sent("GET", path, query=query, repeat=True) as answer:
            for piece in answer.iter_raw():
                write(piece)
            return dict(answer.headers)

    def _object(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        data = self._whole(method, API + path, MOST_BYTES, **request)
        if not data.strip():
            return {}
        try:
            found = load_json(data, self.access.host)
        except PipelineError:
            found = None
        if not isinstance(found, dict):
            raise no_api(self.access)
        return found

    def _whole(self, method: str, path: str, limit: int, **request: Any) -> bytes:
        pieces, size = [], 0
        with self._sent(method, path, **request) as answer:
            for piece in answer.iter_raw():
                size += len(piece)
                if size > limit:
                    raise ServerError(
                        f"{self.access.host} answered {path} with more than {limit >> 20} MiB, "
                        "which were not read; ask for less"
                    )
                pieces.append(piece)
        return b"".join(pieces)

    @contextmanager
    def _sent(
        self, method: str, path: str, *, repeat: bool = False,
        query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Iterator[httpx.Response]:  # fmt: skip
        """Yield an answer of 2xx; raises ServerError for every other, and for none."""
        try:
            answer = self._answered(method, path, repeat, dict(query or {}), headers or {}, body)
            try:
                yield answer
            finally:
                answer.close()
        except httpx.HTTPError as error:
            raise self._silence(error, changes=not repeat) from None

    def _answered(
        self, method: str, path: str, repeat: bool, query: Mapping[str, str],
        headers: Mapping[str, str], body: Mapping[str, Any],
    ) -> httpx.Response:  # fmt: skip
        wanted = {key: value for key, value in query.items() if value}
        renewed = False
        for left in reversed(range(self.access.tries)):
            try:
                answer = self._once(method, path, wanted, headers, body)
                if answer.status_code == 401 and not renewed and self._renewed():
                    renewed = True  # nothing was done: who asked was not known
                    answer.close()
                    answer = self._once(method, path, wanted, headers, body)
            except httpx.TransportError as error:
                if not left or _tls_fault(error) or not (repeat or _never_sent(error)):
                    raise
                self._pause(left, type(error).__name__, "")
                continue
            if not left or answer.status_code not in (_AGAIN if repeat else {_TOO_MANY}):
                break
            answer.close()
            self._pause(left, str(answer.status_code), answer.headers.get("Retry-After", ""))
        if answer.is_success:
            return answer
        try:
            raise self._refusal(answer, changes=not repeat)
        finally:
            answer.close()

    def _once(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str],
        body: Mapping[str, Any],
    ) -> httpx.Response:  # fmt: skip
        sent = dict(headers)
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        if self.access.cookie:
            sent["Cookie"] = self.access.cookie
        request = self._client.build_request(
            method, self.access.url + path, params=query, headers=sent, **body
        )
        return self._client.send(request, stream=True)

    def _renewed(self) -> bool:
        """Read the token again; tell whether it is another one."""
        before, self._token = self._token, credentials.token(self.access)
        return self._token != before

    def _pause(self, left: int, why: str, asked: str) -> None:
        """Wait before the next try, as long as the server asks for where it does."""
        seconds = self.access.pause * 2 ** (self.access.tries - 1 - left)
        if asked.isascii() and asked.isdigit():
            seconds = max(seconds, float(asked[:9]))
        self._said(f"{self.access.host} answered badly ({why}); asking again")
        time.sleep(min(seconds, _LONGEST_WAIT))

    def _refusal(self, answer: httpx.Response, *, changes: bool) -> ServerError:
        data = b"".join(_bounded(answer, 1 << 16))
        try:
            found = load_json(data, "")
            told = shown(found.get("message") or "", 200) if isinstance(found, dict) else ""
        except (PipelineError, httpx.HTTPError):
            told = ""
        status = answer.status_code
        if answer.is_redirect:
            return no_api(self.access)
        message = _explained(f"{self.access.host} answered {status}", told, status)
        # These come from a gateway in between, which may have handed the request on.
        if changes and status in {408, 500, 502, 503, 504}:
            return Unclear(message, status)
        return ServerError(message, status)

    def _silence(self, error: httpx.HTTPError, *, changes: bool) -> ServerError:
        host = self.access.host
        if fault := _tls_fault(error):
            return ServerError(
                f"{host} has a certificate that is not trusted ({fault}); give the file of its CA "
                "by --ca-file"
            )
        message = (
            f"{host} gave no answer ({type(error).__name__}); check --host, the network and the "
            "service ml-pipeline"
        )
        return Unclear(message) if changes and not _never_sent(error) else ServerError(message)


def _never_sent(error: httpx.HTTPError) -> bool:
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _bounded(answer: httpx.Response, limit: int) -> Iterator[bytes]:
    size = 0
    for piece in answer.iter_raw():
        yield piece
        size += len(piece)
        if size > limit:
            return


def _tls_fault(error: BaseException) -> str:
    """Return what was wrong with a certificate, "" where nothing was."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return found.verify_message
        found = found.__cause__ or found.__context__
    return "" if "CERTIFICATE_VERIFY_FAILED" not in str(error) else shown(error, 120)


def _explained(begin: str, told: str, status: int) -> str:
    what = begin + (f" ({told})" if told else "")
    ways = {
        401: "who asks is not known; give a fresh --token-file, --token-command, --cookie-file",
        403: "that is not allowed; ask for rights in the namespace, or give --namespace",
        404: "no API of Kubeflow Pipelines v2 there, or no such object; check --host and its path",
        409: "something of that name is there already; submit again to use it",
    }
    if status in ways:
        return f"{what}: {ways[status]}"
    return f"{what}; try again, or look at the log of the deployment ml-pipeline"


def no_api(access: Access) -> ServerError:
    """Return the error for an answer that no API of Kubeflow Pipelines gives."""
    return ServerError(
        f"{access.host} is not the API of Kubeflow Pipelines (a page to sign in, perhaps); give "
        "--token-file, --token-command or --cookie-file, or reach it by --context"
    )
