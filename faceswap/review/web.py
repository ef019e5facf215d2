"""How requests are answered: in threads, as pages or JSON, and with one line for an error."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from faceswap import pages
from faceswap.errors import FaceswapError, InputError
from faceswap.review.guard import BodyTooLargeError
from faceswap.review.workspace import Workspace

T = TypeVar("T")

PACKAGE = "faceswap.review"


def page(workspace: Workspace, template: str, title: str, **values: Any) -> Response:
    """Render a page."""
    path = f"templates/{template}"
    return HTMLResponse(pages.render(PACKAGE, path, title=title, root=workspace.root, **values))


def plain(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """Run a function that reads files in a thread, so that other requests go on."""

    async def answering(request: Request) -> Response:
        return await run_in_threadpool(answer, request)

    return answering


def posted(kind: type[T], answer: Callable[[Request, T], object]) -> Callable[[Request], Any]:
    """Decode the JSON of a request, run a function with it in a thread, and send what it returns.

    Args:
        kind: What the JSON must be.
        answer: The function.
    """

    async def answering(request: Request) -> Response:
        try:
            value = msgspec.json.decode(await request.body(), type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"this request makes no sense: {error}") from error
        return as_json(await run_in_threadpool(answer, request, value))

    return answering


def as_json(value: object) -> Response:
    """Return a JSON response; bytes are encoded as base64."""
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _show_error(request: Request, error: Exception) -> Response:
    """Return what a user can act on as one line."""
    assert isinstance(error, FaceswapError)
    status = 404 if isinstance(error, InputError) else 409
    return _error(request, str(error), status)


async def _show_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(request, "there is nothing at this address", error.status_code)


async def _too_large(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler's signature
    return _error(request, "this request is too large", 413)


def _error(request: Request, text: str, status: int) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        page = pages.render(PACKAGE, "templates/error.html.j2", title="Error", text=text)
        return HTMLResponse(page, status)
    return JSONResponse({"error": text}, status)


async def _show_bug(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler's signature
    return _error(request, "this is a bug in faceswap; the terminal says more", 500)


HANDLERS = {
    FaceswapError: _show_error,
    HTTPException: _show_http_error,
    BodyTooLargeError: _too_large,
    Exception: _show_bug,
}
