"""The app: which module answers which address."""

from contextlib import ExitStack

from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from faceswap.review.comparison.pages import Comparison
from faceswap.review.conversion.pages import Conversions
from faceswap.review.conversion.previews import Previews
from faceswap.review.conversion.surveys import Surveys
from faceswap.review.curation import Curation
from faceswap.review.guard import Guard
from faceswap.review.jobs import Jobs
from faceswap.review.screening import Screening
from faceswap.review.trainings import Trainings
from faceswap.review.web import HANDLERS, PACKAGE, plain
from faceswap.review.work import Work
from faceswap.review.workspace import Workspace


def build(workspace: Workspace, token: str, port: int, helpers: ExitStack) -> ASGIApp:
    """Build the app.

    Args:
        workspace: What it shows.
        token: The secret in the first address.
        port: The port of the server.
        helpers: Gets what the caller has to close.
    """
    jobs = Jobs(workspace.root)
    previews, surveys = Previews(), Surveys(workspace.root)
    helpers.callback(previews.close)
    helpers.callback(surveys.close)
    app = Starlette(
        routes=[
            Route("/", plain(lambda _: RedirectResponse("/facesets", 303))),
            *Curation(workspace).routes(),
            *Trainings(workspace, jobs).routes(),
            *Conversions(workspace, jobs, previews, surveys).routes(),
            *Screening(workspace, jobs).routes(),
            *Comparison(workspace, jobs, previews).routes(),
            *Work(workspace, jobs).routes(),
            Mount("/static", StaticFiles(packages=[(PACKAGE, "static")])),
        ],
        exception_handlers=HANDLERS,
    )
    return Guard(app, token, port)
