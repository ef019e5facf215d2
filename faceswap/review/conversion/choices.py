"""What was chosen for a clip: plain files beside it, which the command line reads as well.

``clip.mp4.jobs.toml`` holds the model and the settings, ``clip.mp4.shots.toml`` the settings of
single shots, and ``clip.mp4.cast.toml`` who gets which model; the photos of these people are in
``clip.mp4.cast/``. ``faceswap run clip.mp4.jobs.toml`` converts the clip with all of them.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Annotated, Any, Literal

import msgspec
import tomli_w
from msgspec import Meta

from faceswap.config import ConvertConfig, clipped, read_toml_file
from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.files import make_folder, write_bytes
from faceswap.review.workspace import Place, Workspace, refuse_link
from faceswap.swapping.cast import CastEntry, read_cast
from faceswap.swapping.shots import SETTINGS, Shot, read_shots
from faceswap.types import Identity

Share = Annotated[float, Meta(ge=0, le=0.5)]


class Look(msgspec.Struct, omit_defaults=True):
    """The settings of a conversion that the page offers; see :class:`.ConvertConfig`."""

    color: Literal["auto", "average", "reinhard", "linear", "histogram", "none"] = "auto"
    mask: Literal["skin", "hull", "square", "learned", "product"] = "skin"
    blend: Literal["alpha", "linear", "poisson", "pyramid"] = "alpha"
    identity_strength: Annotated[float, Meta(ge=0, le=2)] = 1.0
    expression_range: Annotated[float, Meta(ge=0, le=100)] = 3.0
    erosion: Share = 0.01
    feather: Share | None = None
    match_detail: bool = True
    all_faces: bool = False
    to: Identity = "b"

    def settings(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, by name."""
        default, values = ConvertConfig(), {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in values.items() if value != getattr(default, name)}


NAMES = Look.__struct_fields__
WITHOUT_CAST = ("all_faces", "to")  # settings that a cast takes the place of


class Choices:
    """What was chosen for one clip.

    Args:
        clip: The clip.
        workspace: Where models are looked for.
    """

    lock = RLock()  # requests run in several threads, and a change is a read and a write

    def __init__(self, clip: Place, workspace: Workspace) -> None:
        self._clip, self._workspace = clip, workspace
        self.jobs, self.shots, self.cast = (
            clip.path.with_name(f"{clip.path.name}.{what}.toml")
            for what in ("jobs", "shots", "cast")
        )
        self._photos = self.cast.with_suffix("")

    def read(self) -> dict[str, Any]:
        """Return what was chosen.

        Returns:
            "model", its id, or None; "look", all settings; "shots", "frames" and "settings" of
            each; and "cast", the "model" and "to" of each entry.

        Raises:
            InputError: If a file is unreadable or a link.
            SettingsError: If a file holds something that is not allowed.
        """
        table = self._table()
        look = self._look(table)
        models = {place.path.resolve(): place.id for place in self._workspace.trained()}

        def id_of(path: Path | None) -> str | None:
            return models.get(path.resolve()) if path else None

        model = table.get("model")
        return {
            "model": id_of(self._clip.path.parent / model) if isinstance(model, str) else None,
            "look": {name: getattr(look, name) for name in NAMES},
            "shots": [
                {"frames": shot.frames, "settings": shot.settings} for shot in self._read_shots()
            ],
            "cast": [{"model": id_of(each.model), "to": each.to} for each in self._read_cast()],
        }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return the settings of the conversion that differ from the defaults, by name.

        Raises:
            InputError, SettingsError: See :meth:`read`.
        """
        return self._with_files(self._table()["settings"], str)

    def choose(self, model: Place, look: Look) -> None:
        """Write the model and the settings; other settings in the file stay.

        Raises:
            InputError, SettingsError: See :meth:`read`.
            OutputError: If the file cannot be written.
        """
        with self.lock:
            table = self._table()
            table["model"] = self._relative(model.path)
            kept = {k: v for k, v in table["settings"].items() if k not in NAMES}
            table["settings"] = kept | look.settings()
            self._write_jobs(table)

    def output(self, usual: Path) -> Path:
        """Return where the clip is converted to.

        Args:
            usual: Where it is written if the jobs file does not say so.

        Raises:
            InputError, SettingsError: See :meth:`read`.
        """
        named = self._table().get("output")
        return self._clip.path.parent / named if isinstance(named, str) else usual

    def name_output(self, output: Path) -> None:
        """Write where the clip is converted to.

        Raises:
            InputError, SettingsError: See :meth:`read`.
            OutputError: If the file cannot be written.
        """
        with self.lock:
            self._write_jobs(self._table() | {"output": self._relative(output)})

    def choose_for_shot(self, frames: str, look: Look | None) -> None:
        """Write the settings of a shot as far as they differ from those of the clip.

        Args:
            frames: Its frames, in the words of ``--frames``.
            look: Its settings; None for those of the clip.

        Raises:
            InputError, SettingsError: See :meth:`read`.
            OutputError: If a file cannot be written.
        """
        with self.lock:
            table = self._table()
            usual = self._look(table)
            shots = {shot.frames: shot.settings for shot in self._read_shots()}
            own = {
                name: getattr(look, name) for name in SETTINGS
                if look and getattr(look, name) not in (getattr(usual, name), None)
            }  # fmt: skip
            shots.pop(frames, None)
            if own:
                shots[frames] = own
            tables = [{"frames": name, **shots[name]} for name in sorted(shots, key=_extent)]
            self._write(self.shots, {"shot": tables})
            self._write_jobs(table)

    def assign(self, entry: int | None, photo: bytes, model: Place, to: Identity) -> None:
        """Give a person a model.

        Args:
            entry: The place of the person's entry in the cast; None adds one.
            photo: A PNG of the person, for a new entry.
            model: The model.
            to: The identity of the model whose face is pasted.

        Raises:
            InputError, SettingsError: See :meth:`read`.
            OutputError: If a file cannot be written.
        """
        with self.lock:
            table, entries = self._table(), self._entries()
            if entry is None:
                numbers = [int(path.stem) for path in self._photos.glob("[0-9]*.png")]
                path = self._photos / f"{max(numbers, default=0) + 1}.png"
                refuse_link(self._photos)
                make_folder(self._photos)
                write_bytes(path, photo)
                entries.append({"who": f"{self._photos.name}/{path.name}"})
            person = entries[-1 if entry is None else entry]
            person.pop("to", None)
            person["model"] = self._relative(model.path)
            person |= {"to": to} if to != "b" else {}
            self._write(self.cast, {"swap": entries})
            self._write_jobs(table)

    def leave(self, entry: int) -> None:
        """Take a person out of the cast; photos stay.

        Raises:
            InputError: If there is no such entry, or as :meth:`read`.
            SettingsError: See :meth:`read`.
            OutputError: If a file cannot be written.
        """
        with self.lock:
            table, entries = self._table(), self._entries()
            if not 0 <= entry < len(entries):
                raise InputError("this person is not in the cast any more; load the page again")
            del entries[entry]
            if entries:
                self._write(self.cast, {"swap": entries})
            else:
                self.cast.unlink()
            self._write_jobs(table)

    def photo(self, entry: int) -> Path:
        """Return a photo of a person of the cast.

        Raises:
            InputError: If there is none in the workspace, or as :meth:`read`.
            SettingsError: See :meth:`read`.
        """
        cast = self._read_cast()
        if not 0 <= entry < len(cast) or not self._workspace.holds(cast[entry].who[0]):
            raise InputError("this photo is not in the workspace")
        return cast[entry].who[0]

    def _table(self) -> dict[str, Any]:
        """Return the [[job]] table of the clip, or a new one."""
        if not self._is_there(self.jobs):
            return {"inputs": self._clip.path.name, "settings": {}}
        content = read_toml_file(self.jobs, "jobs file")
        tables = content.get("job")
        is_one = isinstance(tables, list) and len(tables) == 1 and isinstance(tables[0], dict)
        if set(content) != {"job"} or not is_one:
            raise SettingsError(f"{self.jobs} must have one [[job]] table and nothing else")
        (table,) = content["job"]
        if not isinstance(table.setdefault("settings", {}), dict):
            raise SettingsError(f"{self.jobs}: settings must be a table")
        self._look(table)
        return dict(table)

    def _look(self, table: dict[str, Any]) -> Look:
        values = {name: value for name, value in table["settings"].items() if name in NAMES}
        try:
            return msgspec.convert(values, Look)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{self.jobs}: {clipped(str(error))}") from error

    def _read_shots(self) -> list[Shot]:
        return read_shots(self.shots) if self._is_there(self.shots) else []

    def _read_cast(self) -> list[CastEntry]:
        return read_cast(self.cast) if self._is_there(self.cast) else []

    def _entries(self) -> list[dict[str, Any]]:
        """Return the tables of the cast file as they are."""
        if not self._read_cast():
            return []
        tables: list[dict[str, Any]] = read_toml_file(self.cast, "cast file")["swap"]
        return tables

    def _write_jobs(self, table: dict[str, Any]) -> None:
        """Write the jobs file, with the cast and the shots if there are any."""
        settings = self._with_files(table["settings"], lambda path: path.name)
        self._write(self.jobs, {"job": [table | {"settings": settings}]})

    def _with_files(self, settings: dict[str, Any], word: Callable[[Path], str]) -> dict[str, Any]:
        """Return settings that name the current cast and shots files, if there are any.

        Args:
            settings: Settings by name.
            word: Turns a path into the text that is stored.
        """
        found = {name: v for name, v in settings.items() if name not in ("cast", "shots")}
        if self._read_cast():
            found = {name: value for name, value in found.items() if name not in WITHOUT_CAST}
            found["cast"] = word(self.cast)
        if self._read_shots():
            found["shots"] = word(self.shots)
        return found

    def _is_there(self, path: Path) -> bool:
        refuse_link(path)
        return path.exists()

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        self._is_there(path)
        try:
            write_bytes(path, tomli_w.dumps(content).encode())
        except UnicodeEncodeError as error:
            raise OutputError(f"{path} cannot hold a name that is no Unicode") from error

    def _relative(self, path: Path) -> str:
        """Return a path as the files beside the clip name it."""
        return Path(os.path.relpath(path, self._clip.path.parent)).as_posix()


def _extent(frames: str) -> tuple[int, int]:
    """Return by what shots are sorted: where they begin, and the longer ones first.

    Later shots take the place of earlier ones, so a range within a shot keeps its own settings.
    """
    numbers = [int(number) for number in re.findall(r"\d+", frames)]
    return numbers[0], -numbers[-1]
