"""What the app shows: the facesets, models and outputs in one folder, and nothing outside it.

The browser names things by ids that this module gives; it never sends a path.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faceswap.config import identity_name, read_json
from faceswap.errors import FaceswapError, InputError
from faceswap.facesets.faceset import INDEX

DEPTH = 3  # folders: data/<name>/faces/faces.jsonl
CLIP_DEPTH = 2
MODEL, METRICS = (
    "model.safetensors",
    "metrics.jsonl",
)  # repeated here, because importing them loads torch
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi")


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder of the workspace.

    Attributes:
        id: Its name for the browser.
        name: Its path in the workspace, for people.
        path: The file or folder.
    """

    id: str
    name: str
    path: Path


class Workspace:
    """A folder with ``data/``, ``models/`` and outputs.

    Args:
        root: The folder.

    Raises:
        InputError: If it is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; give the folder that holds data and models")
        self.root = root.resolve()
        self._known: dict[str, Place] = {}

    def facesets(self) -> list[Place]:
        """Return the facesets, by name."""
        return self._places(INDEX, lambda index: index.parent)

    def faceset(self, place_id: str) -> Place:
        """Return a faceset by its id.

        Raises:
            InputError: If there is none.
        """
        return self._with_id(self.facesets, place_id, "faceset")

    def models(self) -> list[Place]:
        """Return the folders of models and of trainings that have no model yet, by name."""
        found = {
            place.id: place
            for name in (METRICS, MODEL)
            for place in self._places(name, lambda file: file.parent)
        }
        return sorted(found.values(), key=lambda place: place.name)

    def model(self, place_id: str) -> Place:
        """Return a model's folder by its id.

        Raises:
            InputError: If there is none.
        """
        return self._with_id(self.models, place_id, "model")

    def trained(self) -> list[Place]:
        """Return the folders that hold a model, by name."""
        return self._places(MODEL, lambda file: file.parent)

    def trained_model(self, place_id: str) -> Place:
        """Return the folder of a model that exists by its id.

        Raises:
            InputError: If there is none.
        """
        model = self.model(place_id)
        if not (model.path / MODEL).is_file():
            raise InputError(f"{model.name} has no model yet; wait until training has saved one")
        return model

    def outputs(self) -> list[Place]:
        """Return the reports of finished conversions, by name."""
        return self._places("*.report.json", lambda file: file)

    def output(self, place_id: str) -> Place:
        """Return the report of a finished conversion by its id.

        Raises:
            InputError: If there is none.
        """
        return self._with_id(self.outputs, place_id, "output")

    def clips(self) -> list[Place]:
        """Return the videos that no conversion wrote, by name."""
        found = {
            place.id: place
            for suffix in CLIPS
            for place in self._places(f"*{suffix}", lambda file: file, CLIP_DEPTH)
            if not place.path.with_name(f"{place.path.stem}.report.json").exists()
        }
        return sorted(found.values(), key=lambda place: place.name)

    def clip(self, place_id: str) -> Place:
        """Return a clip by its id.

        Raises:
            InputError: If there is none.
        """
        return self._with_id(self.clips, place_id, "clip")

    def _with_id(self, places: Callable[[], list[Place]], place_id: str, what: str) -> Place:
        """Return a place by its id; the workspace is searched only if it is not known yet."""
        known = self._known.get(f"{what} {place_id}")
        if known and known.path.exists() and self.holds(known.path):
            return known
        for place in places():
            if place.id == place_id:
                self._known[f"{what} {place_id}"] = place
                return place
        raise InputError(f"this {what} is not in the workspace any more")

    def _places(self, name: str, of: Callable[[Path], Path], most: int = DEPTH) -> list[Place]:
        """Find files of this name up to ``most`` folders below the root."""
        places: dict[Path, Place] = {}
        for depth in range(most + 1):
            for file in sorted(self.root.glob("*/" * depth + name)):
                path = of(file)
                relative = path.relative_to(self.root)
                hidden = any(part.startswith(".") for part in relative.parts)
                if not hidden and self.holds(file):
                    places[path] = Place(id_of(relative), relative.as_posix(), path)
        return [places[path] for path in sorted(places)]

    def holds(self, path: Path) -> bool:
        """Return whether a path is inside the workspace, after all links are followed."""
        return path.resolve().is_relative_to(self.root)


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link in place of one of the app's own files or folders.

    Raises:
        InputError: If it is a link.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link; delete it")


def names_of(model: Place) -> tuple[str, str]:
    """Return the names of a model's people a and b; "" if it does not say them."""
    try:
        names = read_json((model.path / "config.json").read_text(encoding="utf-8")).get("names")
    except (OSError, ValueError, FaceswapError):
        names = None
    if not isinstance(names, list) or len(names) != 2:
        return "", ""
    return str(names[0]), str(names[1])


def people_of(model: Place, facesets: list[Place]) -> dict[str, str | None]:
    """Return the ids of the facesets that a model was trained on, by the names of its people."""
    by_name = {identity_name(place.path): place.id for place in facesets}
    return {key: by_name.get(name) for key, name in zip("ab", names_of(model), strict=True)}


def id_of(relative: Path) -> str:
    """Return the id of a path in the workspace, which need not exist yet."""
    return hashlib.sha256(relative.as_posix().encode(errors="surrogateescape")).hexdigest()[:12]
