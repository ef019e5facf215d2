"""The pages of facesets: the list, the grid, and the face that is corrected."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faceswap.errors import InputError
from faceswap.review import faces
from faceswap.review.faces import EditRequest, Faces, Listed
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace

log = logging.getLogger(__name__)

STRIP = 5  # faces of each faceset that the list shows
FOREVER = "private, max-age=31536000, immutable"  # for addresses that contain a version


class Curation:
    """Answers what the pages of facesets ask for.

    Args:
        workspace: What is shown.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._faces = Faces()

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        one = "/facesets/{faceset}"
        return [
            Route("/facesets", plain(self.facesets_page)),
            Route(one, plain(self.faceset_page)),
            Route(f"{one}/faces", plain(self.columns)),
            Route(f"{one}/people", plain(self.people)),
            Route(f"{one}/looks", plain(self.looks)),
            Route(f"{one}/edits", posted(EditRequest, self.edit), methods=["POST"]),
            Route(f"{one}/thumb/{{number:int}}/{{side:int}}", plain(self.thumb)),
            Route(f"{one}/crop/{{number:int}}", plain(self.crop)),
            Route(f"{one}/mask/{{number:int}}", plain(self.mask)),
            Route(f"{one}/landmarks/{{number:int}}", plain(self.landmarks)),
        ]

    def facesets_page(self, _: Request) -> Response:
        """List the facesets."""
        found = []
        for place in self._workspace.facesets():
            try:
                listed = self._faces.listed(place.path)
                rejected = set(faces.state(place.path, listed)["rejected"])
                kept = [number for number in range(len(listed.lines)) if number not in rejected]
                step = max(len(kept) // STRIP, 1)
                found.append((place, len(kept), len(rejected), kept[::step][:STRIP]))
            except InputError as error:
                log.warning("%s", error)
        return page(self._workspace, "facesets.html.j2", "Facesets", facesets=found)

    def faceset_page(self, request: Request) -> Response:
        """Show the grid of a faceset; its faces are loaded by the page."""
        place = self._place(request)
        others = [other for other in self._workspace.facesets() if other.id != place.id]
        return page(self._workspace, "faceset.html.j2", place.name, faceset=place, others=others)

    def columns(self, request: Request) -> Response:
        """Return what the grid shows and sorts by, and what was edited."""
        place, listed = self._listed(request)
        return as_json(faces.columns(listed) | {"state": faces.state(place.path, listed)})

    def people(self, request: Request) -> Response:
        """Return whom each face shows."""
        place, listed = self._listed(request)
        return as_json(faces.people(place.path, listed))

    def looks(self, request: Request) -> Response:
        """Return how light each face is, and which are near-duplicates."""
        place, listed = self._listed(request)
        return as_json(faces.looks(place.path, listed))

    def edit(self, request: Request, asked: EditRequest) -> object:
        """Edit a faceset, and return what was edited."""
        place, listed = self._listed(request)
        faces.apply(place.path, listed, asked)
        return faces.state(place.path, listed)

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
        return as_json(faces.crop(place.path, listed, number)[1].astype(float).round(2).tolist())

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
