"""Who becomes whom: the settings' choice of people, and the swappers that play the roles.

A cast file is TOML, a ``[[swap]]`` a role: ``who``, the photo of a person or several of them;
``model``, the folder of the model to swap with, by default the one that convert is given; and
``to``, whose face it pastes, by default "b". Paths are relative to the file.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from faceswap.config import ConvertConfig, clipped
from faceswap.errors import FaceswapError, InputError, SettingsError
from faceswap.faces.geometry import Face
from faceswap.faces.recognition import embedding_of
from faceswap.faces.selection import FaceSelector, References
from faceswap.files import reason
from faceswap.media.frame import Frame
from faceswap.models import devices, modelfile
from faceswap.models.modelfile import TrainedModel
from faceswap.swapping.compositor import Swap
from faceswap.swapping.swapper import Swapper
from faceswap.types import Identity

KEYS = ("who", "model", "to")


@dataclass(frozen=True, slots=True)
class CastEntry:
    """A role of a cast file: photos of a person, and what swaps that person.

    ``model`` is None for the one that convert is given.
    """

    who: tuple[Path, ...]
    model: Path | None
    to: Identity


class MultiSwapper(Swapper):
    """Several swappers as one: each takes the faces of its roles.

    Args:
        swappers: By role; the same one may play several. Their settings may differ in ``to`` only.
    """

    def __init__(self, swappers: Sequence[Swapper]) -> None:  # no network of its own to set up
        self.config = swappers[0].config
        self._label = swappers[0]._label  # the same for all
        self._by_target = tuple(swappers)

    def prepare(self, frames: list[tuple[Frame, list[Face]]]) -> Iterator[list[Swap]]:
        """Yield what to paste into each frame; in one pass of each network."""
        shares = [
            swapper.prepare(
                [
                    (f, [x for x in faces if self._by_target[x.target] is swapper])
                    for f, faces in frames
                ]
            )
            for swapper in dict.fromkeys(self._by_target)
        ]
        for (_, faces), *parts in zip(frames, *shares, strict=True):
            swaps = {swap.aligned.face: swap for part in parts for swap in part}
            yield [swaps[face] for face in faces]


def assemble(config: ConvertConfig, model: Path | None) -> tuple[Swapper, FaceSelector]:
    """What swaps, and whom, as the settings ask.

    Args:
        config: Settings.
        model: A model's folder or file; None: the newest in ``models``.

    Raises:
        InputError: If the cast file or a photo is missing or cannot be read.
        ModelError: If there is no such model or it cannot be read.
        NoFacesError: If a photo shows no face.
        SettingsError: If the cast file says something else than roles, or a mask is asked for that
            a model does not paint.
    """
    exclude = tuple(embedding_of(Path(photo)) for photo in config.exclude)
    if config.cast:
        path = Path(config.cast)
        entries = read_cast(path)
        swapper = MultiSwapper(_swappers(path, entries, config, model))
        return swapper, FaceSelector(_references(path, entries), exclude, config.largest)
    device = devices.resolve_device(config.device)
    trained = modelfile.load(model or modelfile.newest(Path("models")), device)
    who = tuple(embedding_of(Path(photo)) for photo in config.who)
    named = who or exclude or config.largest or config.all_faces
    footage = None if named else trained.centroids.get("a" if config.to == "b" else "b")
    return Swapper(trained, config, device), FaceSelector((who,), exclude, config.largest, footage)


def model_files(config: ConvertConfig, model: Path | None) -> list[Path]:
    """The models that a conversion uses, folders or files; first the one that it is given.

    Raises:
        InputError: If the cast file cannot be read.
        ModelError: If there is none.
        SettingsError: If the cast file says something else than roles.
    """
    entries = read_cast(Path(config.cast)) if config.cast else []
    if entries and all(entry.model for entry in entries):
        return [entry.model for entry in entries if entry.model]
    given = model or modelfile.newest(Path("models"))
    return list(dict.fromkeys([given, *(entry.model or given for entry in entries)]))


def read_cast(path: Path) -> list[CastEntry]:
    """The roles of a cast file.

    Raises:
        InputError: If it cannot be read.
        SettingsError: If it is no TOML, or says something else than roles.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the cast {path} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:  # also of numbers that Python refuses to read
        raise SettingsError(f"the cast {path} is not TOML: {clipped(str(error))}") from error
    tables = content.pop("swap", None)
    if content or not isinstance(tables, list) or not tables:
        surplus = f", not {clipped(', '.join(content))}" if content else ""
        raise SettingsError(f"the cast {path} must hold [[swap]] tables{surplus}")
    return [_entry(table, path, number) for number, table in enumerate(tables, start=1)]


def _entry(table: Any, path: Path, number: int) -> CastEntry:
    where = _where(path, number)
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: must be a [[swap]] table, not {clipped(repr(table))}")
    if unknown := sorted(set(table) - set(KEYS)):
        raise SettingsError(
            f"{where}: unknown {clipped(', '.join(unknown))}; known: {', '.join(KEYS)}"
        )
    who, model, to = table.get("who"), table.get("model"), table.get("to", "b")
    photos = [who] if isinstance(who, str) else who
    if not isinstance(photos, list) or not photos or not all(map(_is_name, photos)):
        raise SettingsError(
            f"{where}: who must be a photo or a list of photos, not {clipped(repr(who))}"
        )
    if model is not None and not _is_name(model):
        raise SettingsError(f"{where}: model must be a model's folder, not {clipped(repr(model))}")
    if to not in get_args(Identity):
        raise SettingsError(f'{where}: to must be "a" or "b", not {clipped(repr(to))}')
    folder = path.parent
    return CastEntry(
        tuple(folder / photo for photo in photos), folder / model if model else None, to
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _where(path: Path, number: int) -> str:
    return f"{path}, swap {number}"


def _swappers(
    path: Path, entries: list[CastEntry], config: ConvertConfig, model: Path | None
) -> list[Swapper]:
    """What plays each role; a model is loaded once, and a swapper is shared by equal roles."""
    device = devices.resolve_device(config.device)
    loaded: dict[Path, TrainedModel] = {}
    known: dict[tuple[Path, Identity], Swapper] = {}
    swappers = []
    for number, entry in enumerate(entries, start=1):
        try:
            folder = entry.model or model or modelfile.newest(Path("models"))
            same = folder.resolve()
            if same not in loaded:
                loaded[same] = modelfile.load(folder, device)
            if (same, entry.to) not in known:
                settings = replace(config, cast=None, to=entry.to)
                known[same, entry.to] = Swapper(loaded[same], settings, device)
        except FaceswapError as error:
            raise type(error)(f"{_where(path, number)}: {error}") from error
        swappers.append(known[same, entry.to])
    return swappers


def _references(path: Path, entries: list[CastEntry]) -> tuple[References, ...]:
    """What the people of each role look like."""
    targets = []
    for number, entry in enumerate(entries, start=1):
        try:
            targets.append(tuple(embedding_of(photo) for photo in entry.who))
        except FaceswapError as error:
            raise type(error)(f"{_where(path, number)}: {error}") from error
    return tuple(targets)
