"""The addresses of the app: pages as HTML, and what they show and change as JSON.

Every address is answered by a plain function of the workspace. Errors that a user can act on
become one line of JSON or a page; a bug keeps its traceback in the terminal and shows none of it.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from faceswap import pages
from faceswap.errors import FaceswapError, InputError
from faceswap.review import faces
from faceswap.review.faces import EditRequest, Faces, Listed
from faceswap.review.guard import BodyTooLargeError, Guard
from faceswap.review.workspace import Place, Workspace

log = logging.getLogger(__name__)

PACKAGE = "faceswap.review"
FOREVER = "private, max-age=31536000, immutable"  # for addresses that contain a version


class App:
    """Answers requests.

    Args:
        workspace: What it shows.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._faces = Faces()

    def routes(self) -> list[Route]:
        """Return what answers which address."""
        one = "/facesets/{faceset}"
        return [
            Route("/", _plain(lambda _: RedirectResponse("/facesets", 303))),
            Route("/facesets", _plain(self.facesets_page)),
            Route(one, _plain(self.faceset_page)),
            Route(f"{one}/faces", _plain(self.columns)),
            Route(f"{one}/people", _plain(self.people)),
            Route(f"{one}/looks", _plain(self.looks)),
            Route(f"{one}/state", _plain(self.state)),
            Route(f"{one}/edits", self.edit, methods=["POST"]),
            Route(f"{one}/thumb/{{number:int}}/{{side:int}}", _plain(self.thumb)),
            Route(f"{one}/crop/{{number:int}}", _plain(self.crop)),
            Route(f"{one}/mask/{{number:int}}", _plain(self.mask)),
            Route(f"{one}/landmarks/{{number:int}}", _plain(self.landmarks)),
        ]

    def facesets_page(self, _: Request) -> Response:
        """List the facesets."""
        found = [(place, len(self._faces.listed(place.path).lines)) for place in self._readable()]
        return self._page("facesets.html.j2", "Facesets", facesets=found)

    def _readable(self) -> list[Place]:
        readable = []
        for place in self._workspace.facesets():
            try:
                self._faces.listed(place.path)
            except InputError as error:
                log.warning("%s", error)
            else:
                readable.append(place)
        return readable

    def faceset_page(self, request: Request) -> Response:
        """Show the grid of a faceset; its faces are loaded by the page."""
        place = self._place(request)
        others = [other for other in self._workspace.facesets() if other.id != place.id]
        return self._page("faceset.html.j2", place.name, faceset=place, others=others)

    def columns(self, request: Request) -> Response:
        """Return what the grid shows and sorts by, and what was edited."""
        place, listed = self._listed(request)
        return _json(faces.columns(listed) | {"state": faces.state(place.path, listed)})

    def people(self, request: Request) -> Response:
        """Return whom each face shows."""
        place, listed = self._listed(request)
        return _json(faces.people(place.path, listed))

    def looks(self, request: Request) -> Response:
        """Return how light each face is, and which are near-duplicates."""
        place, listed = self._listed(request)
        return _json(faces.looks(place.path, listed))

    def state(self, request: Request) -> Response:
        """Return what was edited."""
        place, listed = self._listed(request)
        return _json(faces.state(place.path, listed))

    async def edit(self, request: Request) -> Response:
        """Edit a faceset, and return what was edited."""
        try:
            asked = msgspec.json.decode(await request.body(), type=EditRequest)
        except msgspec.DecodeError as error:
            raise InputError(f"this is no edit: {error}") from error

        def work() -> Response:
            place, listed = self._listed(request)
            faces.apply(place.path, listed, asked)
            return _json(faces.state(place.path, listed))

        return await run_in_threadpool(work)

    def thumb(self, request: Request) -> Response:
        """Return a small image of a face."""
        place, listed, number = self._face(request)
        side = int(request.path_params["side"])
        if side not in faces.THUMBS:
            raise HTTPException(404)
        data = faces.thumbnail(place.path, listed, number, side)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": FOREVER})

    def crop(self, request: Request) -> Response:
        """Return a face as training sees it."""
        place, listed, number = self._face(request)
        return Response(
            faces.png(faces.crop(place.path, listed, number)[0]), media_type="image/png"
        )

    def mask(self, request: Request) -> Response:
        """Return the mask of a face."""
        place, listed, number = self._face(request)
        return Response(
            faces.png(faces.crop(place.path, listed, number)[2]), media_type="image/png"
        )

    def landmarks(self, request: Request) -> Response:
        """Return the landmarks of a face in its crop."""
        place, listed, number = self._face(request)
        return _json(faces.crop(place.path, listed, number)[1].astype(float).round(2).tolist())

    def _place(self, request: Request) -> Place:
        return self._workspace.faceset(request.path_params["faceset"])

    def _listed(self, request: Request) -> tuple[Place, Listed]:
        place = self._place(request)
        return place, self._faces.listed(place.path)

    def _face(self, request: Request) -> tuple[Place, Listed, int]:
        place, listed = self._listed(request)
        number = int(request.path_params["number"])
        if not 0 <= number < len(listed.lines):
            raise InputError(f"there is no face {number}; load the page again")
        if not self._workspace.holds(place.path / listed.lines[number].file):
            raise InputError("this crop is a link that leaves the workspace")
        return place, listed, number

    def _page(self, template: str, title: str, **values: Any) -> Response:
        root = self._workspace.root
        return HTMLResponse(
            pages.render(PACKAGE, f"templates/{template}", title=title, root=root, **values)
        )


def _plain(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """Run a function that reads files in a thread, so that other requests go on."""

    async def answering(request: Request) -> Response:
        return await run_in_threadpool(answer, request)

    return answering


def _json(value: object) -> Response:
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


def build(workspace: Workspace, token: str, port: int) -> ASGIApp:
    """Build the app.

    Args:
        workspace: What it shows.
        token: The secret in the first address.
        port: The port of the server.
    """
    app = Starlette(
        routes=[
            *App(workspace).routes(),
            Mount("/static", StaticFiles(packages=[(PACKAGE, "static")])),
        ],
        exception_handlers={
            FaceswapError: _show_error,
            HTTPException: _show_http_error,
            BodyTooLargeError: _too_large,
            Exception: _show_bug,
        },
    )
    return Guard(app, token, port)
