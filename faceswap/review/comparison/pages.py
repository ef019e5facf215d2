"""The page that compares two candidates, each a model with settings."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faceswap.files import make_folder
from faceswap.review.comparison.numbers import Candidate, table
from faceswap.review.conversion.choices import Look
from faceswap.review.conversion.previews import Previews
from faceswap.review.footage import facts
from faceswap.review.jobs import Jobs
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Workspace, names_of, people_of

Side = Literal["left", "right"]


class Chosen(msgspec.Struct):
    """A candidate as the browser names it.

    Attributes:
        model: Id of the model.
        look: The settings.
    """

    model: str
    look: Look


class FrameRequest(msgspec.Struct):
    """A frame of a clip with the faces of one candidate.

    Attributes:
        clip: Id of the clip.
        frame: Index of the frame.
        side: The candidate.
    """

    clip: str
    frame: Annotated[int, Meta(ge=0, lt=10**9)]
    side: Chosen


class PairRequest(msgspec.Struct):
    """Two candidates whose numbers are compared."""

    left: Chosen
    right: Chosen


class MeasureRequest(msgspec.Struct):
    """A candidate to measure.

    Attributes:
        side: The candidate.
        a: Id of a's faceset.
        b: Id of b's faceset.
    """

    side: Chosen
    a: str
    b: str


class Comparison:
    """Answers what the page of comparisons asks for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
        previews: What makes previews.
    """

    def __init__(self, workspace: Workspace, jobs: Jobs, previews: Previews) -> None:
        self._workspace, self._jobs, self._previews = workspace, jobs, previews

    def routes(self) -> list[Route]:
        """Return the routes of this page."""
        return [
            Route("/compare", plain(self.compare_page)),
            Route("/compare/clip/{clip}", plain(self.clip)),
            Route("/compare/people/{model}", plain(self.people)),
            Route("/compare/frame", posted(FrameRequest, self.frame), methods=["POST"]),
            Route("/compare/numbers", posted(PairRequest, self.numbers), methods=["POST"]),
            Route("/compare/measure", posted(MeasureRequest, self.measure), methods=["POST"]),
        ]

    def compare_page(self, _: Request) -> Response:
        """Show the candidates; the page loads frames and numbers."""
        models = self._workspace.trained()
        return page(
            self._workspace, "compare.html.j2", "Compare", clips=self._workspace.clips(),
            models=models, names={model.id: names_of(model) for model in models},
            facesets=self._workspace.facesets(),
        )  # fmt: skip

    def clip(self, request: Request) -> Response:
        """Return the size and length of a clip."""
        return as_json(facts(self._workspace.clip(request.path_params["clip"]).path))

    def people(self, request: Request) -> Response:
        """Return the facesets that a model was trained on, as far as they are known."""
        model = self._workspace.trained_model(request.path_params["model"])
        return as_json(people_of(model, self._workspace.facesets()))

    def frame(self, _: Request, asked: FrameRequest) -> object:
        """Return a frame with the faces of one candidate, as JPEG in base64."""
        clip, found = self._workspace.clip(asked.clip), self._candidate(asked.side)
        answer, (image,) = self._previews.ask({
            "what": "still", "clip": str(clip.path), "model": str(found.model.path),
            "frame": asked.frame, "settings": found.look.settings(),
        })  # fmt: skip
        return {"image": image, "faces": answer.get("faces", [])}

    def numbers(self, _: Request, asked: PairRequest) -> object:
        """Return the numbers of both candidates side by side, and which of them have some."""
        reports = [self._candidate(side).numbers() for side in (asked.left, asked.right)]
        left, right = reports
        faces = {
            name: report and {"steps": report.steps, **report.faces}
            for name, report in (("left", left), ("right", right))
        }
        return {"rows": table(left, right, asked.left.look.to), **faces}

    def measure(self, _: Request, asked: MeasureRequest) -> object:
        """Measure a candidate as a job."""
        found = self._candidate(asked.side)
        a, b = (self._workspace.faceset(each) for each in (asked.a, asked.b))
        make_folder(found.path.parent)
        args = found.arguments(a, b, self._workspace.root)
        return {"job": self._jobs.start(f"measure {found.title}", args, "compare")}

    def _candidate(self, chosen: Chosen) -> Candidate:
        return Candidate(self._workspace.trained_model(chosen.model), chosen.look)
