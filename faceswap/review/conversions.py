"""The pages of conversions: choose a clip and a model, try settings on a frame, and start one."""

import base64
import json
import os
import subprocess
import sys
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from faceswap.errors import DeviceError, FaceswapError, InputError
from faceswap.media.footage import video_at
from faceswap.review import footage
from faceswap.review.footage import ConvertRequest, Reader, jpeg
from faceswap.review.jobs import Jobs
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace


class PreviewError(FaceswapError):
    """A preview that cannot be made, for a reason that the user can act on."""

    exit_code = 3


class Previews:
    """The process that swaps faces in single frames; it starts with the first preview."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def preview(self, clip: Place, model: Place, frame: int, settings: dict[str, Any]) -> Any:
        """Return a frame with swapped faces: "image", JPEG in base64, and "faces".

        Raises:
            PreviewError: If it cannot be made.
            DeviceError: If the process died, usually because memory ran out.
        """
        asked = {"clip": str(clip.path), "model": str(model.path), "frame": frame,
                 "settings": settings}  # fmt: skip
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                data = process.stdout.read(answer["bytes"])
            except (OSError, ValueError) as error:
                self.close()
                raise DeviceError(
                    "the process of the previews died, usually because memory ran out; try again"
                ) from error
        if "error" in answer:
            raise PreviewError(answer["error"])
        return {"image": base64.b64encode(data).decode(), "faces": answer["faces"]}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process and self._process.poll() is not None:
            self.close()  # it died
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faceswap.review.previewer"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                # With more threads, a training beside it would slow both down many times over.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Conversions:
    """Answers what the pages of conversions ask for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
        previews: What makes previews.
    """

    def __init__(self, workspace: Workspace, jobs: Jobs, previews: Previews) -> None:
        self._workspace, self._jobs, self._previews = workspace, jobs, previews
        self._reader: tuple[str, Reader] | None = None

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        one = "/conversion/{clip}"
        return [
            Route("/conversion", plain(self.list_page)),
            Route(one, plain(self.clip_page)),
            Route(f"{one}/facts", plain(self.facts)),
            Route(f"{one}/frame/{{frame:int}}", plain(self.frame)),
            Route(f"{one}/preview", posted(ConvertRequest, self.preview), methods=["POST"]),
            Route(f"{one}/start", posted(ConvertRequest, self.start), methods=["POST"]),
        ]

    def list_page(self, _: Request) -> Response:
        """List the clips."""
        return page(self._workspace, "clips.html.j2", "Conversion", clips=self._workspace.clips())

    def clip_page(self, request: Request) -> Response:
        """Show a clip with its settings."""
        clip = self._clip(request)
        models = [each for each in self._workspace.models() if _is_trained(each)]
        return page(self._workspace, "clip.html.j2", clip.name, clip=clip, models=models)

    def facts(self, request: Request) -> Response:
        """Return the size and length of a clip."""
        return as_json(footage.facts(self._clip(request).path))

    def frame(self, request: Request) -> Response:
        """Return a frame of a clip."""
        clip = self._clip(request)
        if self._reader is None or self._reader[0] != clip.id:
            self._reader = clip.id, Reader(video_at(clip.path))
        image = self._reader[1].frame(int(request.path_params["frame"]))
        return Response(jpeg(image), media_type="image/jpeg")

    def preview(self, request: Request, asked: ConvertRequest) -> object:
        """Return a frame with swapped faces."""
        clip, model = self._clip(request), self._model(asked)
        settings = footage.settings_of(asked.look)
        return self._previews.preview(clip, model, asked.frame, settings)

    def start(self, request: Request, asked: ConvertRequest) -> object:
        """Convert a clip as a job."""
        clip = self._clip(request)
        args = footage.arguments(clip, self._model(asked), asked.look)
        return {"job": self._jobs.start(f"convert {clip.name}", args, "conversion")}

    def _clip(self, request: Request) -> Place:
        return self._workspace.clip(request.path_params["clip"])

    def _model(self, asked: ConvertRequest) -> Place:
        model = self._workspace.model(asked.model)
        if not _is_trained(model):
            raise InputError(f"{model.name} has no model yet; wait until training has saved one")
        return model


def _is_trained(model: Place) -> bool:
    return (model.path / "model.safetensors").is_file()
