"""The pages of trainings: start one, follow it, and look at its previews."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from faceswap.review import training
from faceswap.review.jobs import Jobs
from faceswap.review.training import TrainRequest
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace


class Trainings:
    """Answers what the pages of trainings ask for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
    """

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self._workspace, self._jobs = workspace, jobs

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        return [
            Route("/training", plain(self.list_page)),
            Route("/training", posted(TrainRequest, self.start), methods=["POST"]),
            Route("/training/{model}", plain(self.training_page)),
            Route("/training/{model}/progress", plain(self.progress)),
            Route("/training/{model}/preview/{step:int}", plain(self.preview)),
        ]

    def list_page(self, _: Request) -> Response:
        """Show all trainings and a form that starts one."""
        models = self._workspace.models()
        return page(
            self._workspace, "trainings.html.j2", "Training", models=models,
            running={model.id for model in models if training.is_running(model.path)},
            facesets=self._workspace.facesets(),
        )  # fmt: skip

    def training_page(self, request: Request) -> Response:
        """Show a training; its numbers are loaded by the page."""
        model = self._place(request)
        return page(self._workspace, "training.html.j2", model.name, model=model)

    def start(self, _: Request, asked: TrainRequest) -> object:
        """Start a training as a job."""
        a, b = (self._workspace.faceset(each) for each in (asked.a, asked.b))
        args = training.arguments(asked, a, b)
        about = training.page_of(a, b)
        return {"job": self._jobs.start(f"train {a.name} and {b.name}", args, about)}

    def progress(self, request: Request) -> Response:
        """Return curves, previews, advice, and the training's job if one is active."""
        place = self._place(request)
        jobs = (job for job in self._jobs.all() if job.command.about == f"training/{place.id}")
        job = next((job.to_json() for job in jobs if job.state in ("running", "waiting")), None)
        return as_json(training.progress(place.path) | {"job": job})

    def preview(self, request: Request) -> Response:
        """Return a preview image."""
        step = int(request.path_params["step"])
        path = self._place(request).path / "previews" / f"step-{step:09d}.png"
        if not path.is_file() or not self._workspace.holds(path):
            raise HTTPException(404)
        return FileResponse(path, media_type="image/png")

    def _place(self, request: Request) -> Place:
        return self._workspace.model(request.path_params["model"])
