"""The page of jobs, and their progress as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from faceswap.errors import InputError
from faceswap.review.jobs import Jobs
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Workspace

EVERY = 0.5  # seconds between two looks at the jobs


class Action(msgspec.Struct):
    """What to do with a job: "stop" it as Ctrl-C does, or run it "again"."""

    action: str


class Work:
    """Answers what the page of jobs asks for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
    """

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self._workspace, self._jobs = workspace, jobs

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        return [
            Route("/jobs", plain(self.jobs_page)),
            Route("/jobs/events", self.events),
            Route("/jobs/{job}", plain(self.one)),
            Route("/jobs/{job}", posted(Action, self.act), methods=["POST"]),
        ]

    def jobs_page(self, _: Request) -> Response:
        """List the jobs; the page follows them."""
        return page(self._workspace, "jobs.html.j2", "Jobs")

    def _all(self) -> list[object]:
        return [job.to_json() for job in self._jobs.all()]

    def one(self, request: Request) -> Response:
        """Return how a job goes."""
        return as_json(self._jobs.job(request.path_params["job"]).to_json())

    def act(self, request: Request, asked: Action) -> object:
        """Stop a job or run it again."""
        name = request.path_params["job"]
        if asked.action == "stop":
            self._jobs.stop(name)
        elif asked.action == "again":
            self._jobs.again(name)
        else:
            raise InputError("a job can be stopped or run again")
        return self._all()

    async def events(self, request: Request) -> Response:
        """Send the jobs whenever something about them changes."""

        async def changes() -> AsyncIterator[bytes]:
            sent = b""
            while not await request.is_disconnected():
                now = msgspec.json.encode(await run_in_threadpool(self._all))
                if now != sent:
                    sent = now
                    yield b"data: " + now + b"\n\n"
                await asyncio.sleep(EVERY)

        return StreamingResponse(changes(), media_type="text/event-stream")
