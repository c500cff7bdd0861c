"""The ASGI application: pictures to /, tensors to /v2, and OpenFaaS' questions to /_/."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import StageError
from common.pooling import pooled
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import pictures, tensors
from .contract import Contract, call_id, refusal
from .models import Model
from .receipts import BUNDLE, Receipts
from .service import NotReadyError, Service

MEAN = "mean"  # the model of the protocol that is the mean of all others
_HERE = Path(__file__).parent
_PAGE = (_HERE / "page.html").read_text(encoding="utf-8")
_OPENAPI = (_HERE / "openapi.json").read_bytes()
# The page needs its own two blocks and the pictures it is given, and nothing from anywhere else.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_OK, _LIVE = b'{"status":"ok"}', b'{"live":true}'  # asked for every few seconds, or more
Handler = Callable[[Request], Awaitable[Response]]


def make(service: Service) -> Contract:
    """Return the application that answers for `service`."""
    api = _Api(service)
    routes = [
        _route("/", {"GET": api.page, "POST": api.classify}),
        _route("/_/health", {"GET": api.health}),
        _route("/_/ready", {"GET": api.ready}),
        _route("/openapi.json", {"GET": api.openapi}),
        _route("/v2", {"GET": api.server}),
        _route("/v2/health/live", {"GET": api.live}),
        _route("/v2/health/ready", {"GET": api.ready}),
    ]
    for version in ("", "/versions/1"):
        model = f"/v2/models/{{model}}{version}"
        routes += [
            _route(model, {"GET": api.model}),
            _route(f"{model}/ready", {"GET": api.model_ready}),
            _route(f"{model}/infer", {"POST": api.infer}),
        ]
    handlers: dict[Any, Any] = {
        HTTPException: _http_error,
        StageError: _bad_request,
        NotReadyError: _not_ready,
        ClientDisconnect: _gone,
        Exception: _defect,
    }
    return Contract(Starlette(routes=routes, exception_handlers=handlers), service)


def _route(path: str, handlers: dict[str, Handler]) -> Route:
    """Return a route that answers other methods, HEAD too, with 405 and the ones there are."""

    async def answer(request: Request) -> Response:
        if handler := handlers.get(request.method):
            return await handler(request)
        names = ", ".join(handlers)
        return refusal(405, f"{path} answers {names} only", {"Allow": names})

    route = Route(path, answer)
    route.methods = set()  # all of them get here
    return route


class _Api:
    """What each address answers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def page(self, _: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    async def openapi(self, _: Request) -> Response:
        return Response(_OPENAPI, media_type="application/json")

    async def health(self, _: Request) -> Response:
        if self._service.healthy:
            return Response(_OK, media_type="application/json")
        return refusal(503, "draining" if self._service.draining else "loading the models")

    async def live(self, _: Request) -> Response:
        return Response(_LIVE, media_type="application/json")

    async def ready(self, request: Request) -> Response:
        if self._service.full:
            return refusal(429, "as many requests as max_inflight allows are being answered")
        return await self.health(request)

    async def classify(self, request: Request) -> Response:
        """Answer for a picture: each tile, each model, and the models' mean."""
        service, models = self._service, self._service.models
        _plain(request)
        receipts = self._receipts(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            data = await pictures.of_form(request)
        else:
            data = await request.body()
            if kind == "application/json":
                data = await service.in_pool(pictures.of_json, data)
        limit = service.settings.max_pixels
        decode = partial(pictures.decode, data, limit, models.targets)
        picture, each = await service.run(models.models, decode)
        by_model = pooled(each)
        mean = float(by_model.mean())
        outcome = {
            "class": models.classes[int(mean >= models.threshold)],
            "probability": mean,
            "model_digest": models.digest,
            "models": [
                {"name": model.name, "probability": float(found), "digest": model.digest}
                for model, found in zip(models.models, by_model, strict=True)
            ],
            "tiles": each.mean(axis=0).tolist(),
            "picture": {
                "width": picture.width,
                "height": picture.height,
                "columns": picture.columns,
                "rows": picture.rows,
            },
        }
        if receipts:
            call = call_id(request.headers.get("x-call-id", "").encode("latin-1")).decode()
            made = await service.in_pool(receipts.sign, data, models.digest, outcome, call)
            return Response(made, media_type=BUNDLE)
        return JSONResponse(outcome)

    def _receipts(self, request: Request) -> Receipts | None:
        """Return what signs the answer, if its sender wants a receipt; raises HTTPException 406."""
        accept = request.headers.get("accept", "")
        if BUNDLE not in accept:
            return None
        if self._service.receipts is None:
            raise HTTPException(406, "this function has no key to sign receipts with")
        return self._service.receipts

    async def server(self, _: Request) -> Response:
        found = {"name": "plateline", "version": "1", "extensions": ["binary_tensor_data"]}
        return JSONResponse(found)

    async def model(self, request: Request) -> Response:
        self._models(request)
        return JSONResponse(
            {
                "name": request.path_params["model"],
                "versions": ["1"],
                "platform": "onnxruntime_onnx",
                "inputs": [tensors.INPUT],
                "outputs": [tensors.OUTPUT],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        self._models(request)
        return JSONResponse({"name": request.path_params["model"], "ready": True})

    async def infer(self, request: Request) -> Response:
        models = self._models(request)
        _plain(request)
        body = await request.body()
        asked, each = await self._service.run(
            models, partial(tensors.decode, body, request.headers.getlist(tensors.LENGTH))
        )
        content, headers = tensors.encode(request.path_params["model"], asked, each.mean(axis=0))
        return Response(content, headers=headers)

    def _models(self, request: Request) -> tuple[Model, ...]:
        """Return the models of the name that the path has; raises HTTPException 404."""
        name, models = request.path_params["model"], self._service.models.models
        found = tuple(model for model in models if name in (model.name, MEAN))
        if not found:
            names = ", ".join([MEAN, *(model.name for model in models)])
            raise HTTPException(404, f"there is no model {name!r}; there are {names}")
        return found


def _plain(request: Request) -> None:
    """Refuse compressed bodies: what they unpack to has no limit that could be checked before."""
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise HTTPException(415, f"the body is encoded as {coding!r}; send it as it is")


async def _http_error(request: Request, error: HTTPException) -> Response:
    reason = error.detail
    if error.status_code == 404 and reason == "Not Found":
        reason = f"there is no {request.scope['path']!r}; POST a picture to /, or see /openapi.json"
    return refusal(error.status_code, reason, dict(error.headers or {}))


async def _bad_request(_: Request, error: StageError) -> Response:
    return refusal(400, str(error))


async def _not_ready(_: Request, __: NotReadyError) -> Response:
    return refusal(503, "the models are still being loaded", {"Retry-After": "1"})


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it; the log does


async def _defect(_: Request, error: Exception) -> Response:
    return refusal(500, f"unexpected {type(error).__name__}; the log says more")
