"""The pages of finished conversions: look at every frame, mark some, and render those again."""

from threading import Lock

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faceswap.errors import InputError
from faceswap.review.finished import Finished, MarkRequest, RedoRequest
from faceswap.review.footage import jpeg
from faceswap.review.jobs import Jobs
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace

OPEN = 4  # conversions whose videos are kept open


class Screening:
    """Answers what the pages of finished conversions ask for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
    """

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self._workspace, self._jobs = workspace, jobs
        self._open: dict[str, tuple[tuple[int, int], Finished]] = {}
        self._lock = Lock()

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        one = "/review/{output}"
        return [
            Route("/review", plain(self.list_page)),
            Route(one, plain(self.output_page)),
            Route(f"{one}/facts", plain(lambda request: as_json(self._finished(request).facts()))),
            Route(f"{one}/before/{{place:int}}", plain(self.before)),
            Route(f"{one}/after/{{place:int}}", plain(self.after)),
            Route(f"{one}/marks", posted(MarkRequest, self.mark), methods=["POST"]),
            Route(f"{one}/marks.txt", plain(self.exported)),
            Route(f"{one}/redo", posted(RedoRequest, self.redo), methods=["POST"]),
        ]

    def list_page(self, _: Request) -> Response:
        """List the finished conversions."""
        return page(self._workspace, "outputs.html.j2", "Review", outputs=self._workspace.outputs())

    def output_page(self, request: Request) -> Response:
        """Show a conversion; its frames are loaded by the page."""
        place = self._place(request)
        return page(self._workspace, "output.html.j2", place.name, output=place)

    def before(self, request: Request) -> Response:
        """Return a frame of the original."""
        image = self._finished(request).image(int(request.path_params["place"]), "before")
        return Response(jpeg(image), media_type="image/jpeg")

    def after(self, request: Request) -> Response:
        """Return a frame of the output."""
        image = self._finished(request).image(int(request.path_params["place"]), "after")
        return Response(jpeg(image), media_type="image/jpeg")

    def mark(self, request: Request, asked: MarkRequest) -> object:
        """Write which frames are marked."""
        return self._finished(request).mark(asked.places)

    def exported(self, request: Request) -> Response:
        """Return the marks as the text that ``--redo`` takes."""
        finished = self._finished(request)
        return Response(f"{finished.ranges(finished.marks())}\n", media_type="text/plain")

    def redo(self, request: Request, asked: RedoRequest) -> object:
        """Render the marked frames again as a job."""
        finished = self._finished(request)
        args = finished.redo_arguments(asked)
        about = f"review/{self._place(request).id}"
        return {"job": self._jobs.start(f"redo frames of {finished.output.name}", args, about)}

    def _place(self, request: Request) -> Place:
        return self._workspace.output(request.path_params["output"])

    def _finished(self, request: Request) -> Finished:
        """Return a conversion; it is opened again if its report has changed."""
        place = self._place(request)
        try:
            stat = place.path.stat()
        except OSError as error:
            raise InputError("this output is gone") from error
        version = stat.st_mtime_ns, stat.st_size
        with self._lock:
            known = self._open.pop(place.id, None)
            if known is None or known[0] != version:
                known = version, Finished(place.path, self._workspace)
            self._open[place.id] = known
            while len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
            return known[1]
