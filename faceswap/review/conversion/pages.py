"""The pages of clips: choose footage, try settings on its frames, and convert it."""

from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from faceswap.errors import InputError
from faceswap.media.footage import video_at
from faceswap.review.conversion.choices import Choices, Look
from faceswap.review.conversion.previews import Previews
from faceswap.review.conversion.surveys import Surveys
from faceswap.review.footage import Reader, facts, jpeg
from faceswap.review.jobs import Jobs
from faceswap.review.web import as_json, page, plain, posted
from faceswap.review.workspace import Place, Workspace, names_of
from faceswap.swapping.outputs import default_output
from faceswap.types import Identity

MAX_LOOP = 48  # frames
FACE = 96  # pixels of the picture of a person
AROUND = 0.9  # how far that picture reaches from the middle of the face, as a share of its side

Number = Annotated[int, Meta(ge=0, lt=10**9)]


class SettingsRequest(msgspec.Struct):
    """The settings of the whole clip, or of one shot.

    Attributes:
        model: Id of the model.
        look: The settings; None gives a shot those of the clip.
        shot: First and last frame of the shot; None for the whole clip.
    """

    model: str
    look: Look | None
    shot: tuple[Number, Number] | None = None


class PreviewRequest(msgspec.Struct):
    """Frames to preview.

    Attributes:
        model: Id of the model.
        frame: Index of the first one.
        count: How many, for a loop.
    """

    model: str
    frame: Number
    count: Annotated[int, Meta(ge=1, le=MAX_LOOP)] = 1


class AssignRequest(msgspec.Struct):
    """A person who gets a model.

    Attributes:
        frame: Index of a frame that shows the person.
        x: A place in the face, in pixels.
        y: A place in the face.
        model: Id of the model.
        to: The identity of the model whose face is pasted.
    """

    frame: Number
    x: float
    y: float
    model: str
    to: Identity = "b"


class CastRequest(msgspec.Struct):
    """Another model for a person of the cast.

    Attributes:
        entry: The person's place in the cast.
        model: Id of the model; None takes the person out.
        to: The identity of the model whose face is pasted.
    """

    entry: Number
    model: str | None
    to: Identity = "b"


class StartRequest(msgspec.Struct):
    """A conversion of a clip.

    Attributes:
        model: Id of the model.
        existing: What happens to an output that exists: the page asks, it is replaced, or both are
            kept.
    """

    model: str
    existing: Literal["ask", "replace", "keep"] = "ask"


class AgainRequest(msgspec.Struct):
    """A search that is to begin again."""


class Conversions:
    """Answers what the pages of clips ask for.

    Args:
        workspace: What is shown.
        jobs: Its jobs.
        previews: What makes previews.
        surveys: What looks through clips.
    """

    def __init__(
        self, workspace: Workspace, jobs: Jobs, previews: Previews, surveys: Surveys
    ) -> None:
        self._workspace, self._jobs = workspace, jobs
        self._previews, self._surveys = previews, surveys
        self._reader: tuple[str, Reader] | None = None

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        one = "/conversion/{clip}"
        return [
            Route("/conversion", plain(self.list_page)),
            Route(one, plain(self.clip_page)),
            Route(f"{one}/facts", plain(self.facts)),
            Route(f"{one}/survey", plain(self.survey)),
            Route(f"{one}/survey", posted(AgainRequest, self.survey_again), methods=["POST"]),
            Route(f"{one}/frame/{{frame:int}}", plain(self.frame)),
            Route(f"{one}/person/{{person:int}}", plain(self.person)),
            Route(f"{one}/cast/{{entry:int}}", plain(self.cast_photo)),
            Route(f"{one}/choose", posted(SettingsRequest, self.choose), methods=["POST"]),
            Route(f"{one}/preview", posted(PreviewRequest, self.preview), methods=["POST"]),
            Route(f"{one}/loop", posted(PreviewRequest, self.loop), methods=["POST"]),
            Route(f"{one}/assign", posted(AssignRequest, self.assign), methods=["POST"]),
            Route(f"{one}/cast", posted(CastRequest, self.change_cast), methods=["POST"]),
            Route(f"{one}/start", posted(StartRequest, self.start), methods=["POST"]),
        ]

    def list_page(self, _: Request) -> Response:
        """List the clips."""
        return page(self._workspace, "clips.html.j2", "Conversion", clips=self._workspace.clips())

    def clip_page(self, request: Request) -> Response:
        """Show a clip with its settings."""
        clip = self._clip(request)
        models = self._workspace.trained()
        names = {model.id: names_of(model) for model in models}
        return page(
            self._workspace, "clip.html.j2", clip.name, clip=clip, models=models, names=names
        )

    def facts(self, request: Request) -> Response:
        """Return the size and length of a clip, and what was chosen for it."""
        clip = self._clip(request)
        return as_json(facts(clip.path) | self._choices(clip).read())

    def survey(self, request: Request) -> Response:
        """Return the shots and people of a clip, or how far the search for them is."""
        return as_json(self._surveys.of(self._clip(request)))

    def survey_again(self, request: Request, _: AgainRequest) -> object:
        """Look through a clip again after that failed."""
        clip = self._clip(request)
        self._surveys.forget(clip)
        return self._surveys.of(clip)

    def frame(self, request: Request) -> Response:
        """Return a frame of a clip."""
        image = self._read(self._clip(request)).frame(int(request.path_params["frame"]))
        return Response(jpeg(image), media_type="image/jpeg")

    def person(self, request: Request) -> Response:
        """Return a picture of a person that the survey found."""
        clip, number = self._clip(request), int(request.path_params["person"])
        people = self._surveys.of(clip).get("people", [])
        if number >= len(people):
            raise InputError("there is no such person; load the page again")
        person = people[number]
        image = self._read(clip).frame(int(person["frame"]))
        reach = AROUND * person["side"]
        left, top = max(round(person["x"] - reach), 0), max(round(person["y"] - reach), 0)
        cut = image[top : round(person["y"] + reach), left : round(person["x"] + reach)]
        small = cv2.resize(cut, (FACE, FACE), interpolation=cv2.INTER_AREA)
        return Response(jpeg(np.asarray(small, np.uint8)), media_type="image/jpeg")

    def cast_photo(self, request: Request) -> Response:
        """Return a photo of a person of the cast."""
        path = self._choices(self._clip(request)).photo(int(request.path_params["entry"]))
        return FileResponse(path, headers={"Cache-Control": "no-store"})

    def choose(self, request: Request, asked: SettingsRequest) -> object:
        """Write the settings of the clip, or those of a shot."""
        clip, model = self._clip(request), self._model(asked.model)
        choices = self._choices(clip)
        if asked.shot:
            first, last = asked.shot
            if last < first:
                raise InputError("a shot must not end before it begins")
            choices.choose_for_shot(str(first) if first == last else f"{first}-{last}", asked.look)
        else:
            choices.choose(model, asked.look or Look())
        return choices.read()

    def preview(self, request: Request, asked: PreviewRequest) -> object:
        """Return a frame with swapped faces, as JPEG in base64, and its faces."""
        answer, images = self._ask(request, asked.model, what="still", frame=asked.frame)
        return {"images": images, "faces": answer.get("faces", [])}

    def loop(self, request: Request, asked: PreviewRequest) -> object:
        """Return consecutive frames with swapped faces, as JPEG in base64."""
        _, images = self._ask(
            request, asked.model, what="loop", first=asked.frame, count=asked.count
        )
        return {"images": images}

    def assign(self, request: Request, asked: AssignRequest) -> object:
        """Give the person whose face is at a place a model."""
        clip, model = self._clip(request), self._model(asked.model)
        answer, (photo,) = self._ask(
            request, asked.model, what="portrait", frame=asked.frame, x=asked.x, y=asked.y
        )
        choices = self._choices(clip)
        choices.assign(answer.get("target"), photo, model, asked.to)
        return choices.read()

    def change_cast(self, request: Request, asked: CastRequest) -> object:
        """Give a person of the cast another model, or take the person out."""
        choices = self._choices(self._clip(request))
        if asked.model is None:
            choices.leave(asked.entry)
        else:
            choices.assign(asked.entry, b"", self._model(asked.model), asked.to)
        return choices.read()

    def start(self, request: Request, asked: StartRequest) -> object:
        """Convert a clip as a job; "exists" names an output that may not be replaced."""
        clip = self._clip(request)
        choices = self._choices(clip)
        choices.choose(self._model(asked.model), Look(**choices.read()["look"]))
        usual = default_output(clip.path, "video")
        output = choices.output(usual)
        free = _free(usual)
        if output.exists() and asked.existing == "ask":
            return {"exists": output.name, "free": free.name}
        if output.exists() and asked.existing == "keep":
            choices.name_output(free)
        args = ["run", f"./{choices.jobs.relative_to(self._workspace.root).as_posix()}"]
        args += ["--overwrite"] if asked.existing == "replace" else []
        return {"job": self._jobs.start(f"convert {clip.name}", args, f"conversion/{clip.id}")}

    def _ask(
        self, request: Request, model: str, **question: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Ask the process of the previews about a clip, with what was chosen for it."""
        clip = self._clip(request)
        about = {
            "clip": str(clip.path), "model": str(self._model(model).path),
            "settings": self._choices(clip).settings(),
        }  # fmt: skip
        return self._previews.ask(about | question)

    def _choices(self, clip: Place) -> Choices:
        return Choices(clip, self._workspace)

    def _read(self, clip: Place) -> Reader:
        if self._reader is None or self._reader[0] != clip.id:
            self._reader = clip.id, Reader(video_at(clip.path))
        return self._reader[1]

    def _clip(self, request: Request) -> Place:
        return self._workspace.clip(request.path_params["clip"])

    def _model(self, model_id: str) -> Place:
        return self._workspace.trained_model(model_id)


def _free(usual: Path) -> Path:
    """Return the first of ``clip.swapped-2.mp4``, ``clip.swapped-3.mp4`` that does not exist."""
    names = (usual.with_stem(f"{usual.stem}-{number}") for number in count(2))
    return next(path for path in names if not path.exists())
