"""The pages of trainings: start one, follow it, and look at its previews."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from faceswap.errors import SettingsError
from faceswap.review import training
from faceswap.review.jobs import ACTIVE, Job, Jobs
from faceswap.review.training import ContinueRequest, TrainRequest
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace, id_of, names_of, people_of

WARNING = "faceswap: warning: "


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
            Route("/training/{model}", posted(ContinueRequest, self.go_on), methods=["POST"]),
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
            names={model.id: names_of(model) for model in models},
        )  # fmt: skip

    def training_page(self, request: Request) -> Response:
        """Show a training; its numbers are loaded by the page."""
        model = self._place(request)
        names = names_of(model)
        return page(self._workspace, "training.html.j2", model.name, model=model, names=names)

    def start(self, _: Request, asked: TrainRequest) -> object:
        """Start a training as a job."""
        a, b = (self._workspace.faceset(each) for each in (asked.a, asked.b))
        return self._start(asked, a, b, training.folder_of(a, b, self._workspace.root))

    def go_on(self, request: Request, asked: ContinueRequest) -> object:
        """Train a model on as a job."""
        place = self._place(request)
        known = people_of(place, self._workspace.facesets())
        if not (known["a"] and known["b"]):
            raise SettingsError("the facesets that this model was trained on are not here")
        a, b = (self._workspace.faceset(str(known[key])) for key in "ab")
        return self._start(TrainRequest(a.id, b.id, minutes=asked.minutes), a, b, place.path)

    def _start(self, asked: TrainRequest, a: Place, b: Place, folder: Path) -> object:
        root = self._workspace.root
        args = training.arguments(asked, a, b, folder, root)
        model = id_of(folder.relative_to(root))
        length = f" for {asked.minutes:g} minutes" if asked.minutes else ""
        title = f"train {folder.relative_to(root).as_posix()}{length}"
        job = self._jobs.start(title, args, f"training/{model}")
        return {"job": job, "model": model if folder.is_dir() else None}

    def progress(self, request: Request) -> Response:
        """Return curves, previews, advice, the active job, and warnings of the newest job."""
        place = self._place(request)
        jobs = [job for job in self._jobs.all() if job.command.about == f"training/{place.id}"]
        active = next((job for job in jobs if job.state in ACTIVE), None)
        found = training.progress(place.path)
        if jobs and not active:  # else it might have just written its last numbers
            found["running"] = found["running"] and not self._jobs.has_just_ended(jobs[0].id)
        warnings = _warnings(jobs[0]) if jobs else []
        return as_json(found | {"job": active and active.to_json(), "warnings": warnings})

    def preview(self, request: Request) -> Response:
        """Return a preview image."""
        step = int(request.path_params["step"])
        path = self._place(request).path / "previews" / f"step-{step:09d}.png"
        if not path.is_file() or not self._workspace.holds(path):
            raise HTTPException(404)
        return FileResponse(path, media_type="image/png")

    def _place(self, request: Request) -> Place:
        return self._workspace.model(request.path_params["model"])


def _warnings(job: Job) -> list[str]:
    """Return what a job has warned of."""
    lines = job.log.splitlines()
    return [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
