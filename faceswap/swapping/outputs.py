"""Name the outputs of a conversion, and refuse what would be lost or ignored."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

from faceswap.config import FORMS, ConvertConfig, field_options, rate_of
from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.files import fitting, writing
from faceswap.media import film, writers
from faceswap.media.codecs import ANIMATIONS, CONTAINERS
from faceswap.media.footage import PATTERN, Footage, ImageSequence, identify
from faceswap.media.photos import PHOTO_SUFFIXES
from faceswap.media.segments import unfinished
from faceswap.media.sources import SIDECAR, animation_of
from faceswap.swapping.records import FrameRecord

log = logging.getLogger(__name__)

WRITTEN_FOR = {".heic": ".jpg", ".heif": ".jpg", ".hif": ".jpg"}  # formats that are only read
IMAGES = ("images", "package")  # forms of output whose frames are images
FOLDERS = ("photos", *IMAGES)  # forms of output that are folders
RENDER, ELEMENTS = "render", ("elements", "faces", "plate")  # folders of a package


def identified(source: Path, config: ConvertConfig) -> tuple[str, Footage | None]:
    """Find out what a source is; see :func:`footage.identify`."""
    return identify(source, config.images, rate_of(config.fps), config.colorspace, config.hardware)


def kept_colorspace(output: Path, original: Path, stated: str | None) -> str | None:
    """Return the colour space of an output if one was stated for its source; None for sRGB.

    An output keeps that of its source if both are videos, or images of one format, unless it
    belongs to a package, whose images say that they are linear Rec.709.

    Args:
        output: A video or an image that a conversion wrote.
        original: What it was made from: a video or an image, or a folder of images.
        stated: The colour space that was stated for the source.
    """
    if is_in_package(output.parent):
        is_alike = False
    elif output.suffix.lower() in CONTAINERS:
        is_alike = original.suffix.lower() not in PHOTO_SUFFIXES | film.SUFFIXES
    else:
        is_alike = original.is_dir() or output.suffix == original.suffix
    return stated if is_alike else None


def default_output(source: Path, kind: str) -> Path:
    """Return where the output is written if nobody says so.

    This is ``video.swapped.mp4`` for ``video.mp4``, ``photos.swapped`` for a folder ``photos`` and
    ``shot.swapped`` for the images ``shot.####.png``. A photo or a video whose format is not
    written gets the suffix ``.jpg`` or ``.png`` or ``.mov``.

    Args:
        source: The source.
        kind: "photo", "photos", "video" or "sequence".
    """
    if kind == "photos" or source.is_dir():
        named = source if source.name.strip(".") else source.resolve()  # "." has no name
        return named.with_name(fitting(named.name, ".swapped"))
    if kind == "sequence":
        stem = PATTERN.split(source.name)[0].strip("._- ") or "images"
        return source.with_name(fitting(stem, ".swapped"))
    suffix = photo_suffix(source) if kind == "photo" else writers.default_video_suffix(source)
    return source.with_name(fitting(source.stem, f".swapped{suffix}"))


def default_preview(source: Path) -> Path:
    """Return where a preview is written if nobody says so: ``video.preview.png``."""
    stem = PATTERN.split(source.name)[0].strip("._- ") if PATTERN.search(source.name) else ""
    return source.with_name(fitting(stem or source.stem or "images", ".preview.png"))


def target_of(source: Path, output: Path | None, kind: str) -> Path:
    """Return the main output of a conversion.

    As with ``cp``, a photo or a video goes into a folder that exists, under its default name. Only
    a folder that holds nothing but the numbered frames of an earlier run is the output itself.

    Args:
        source: The source.
        output: What the user asked for; None for the default.
        kind: "photo", "photos", "video" or "sequence".
    """
    name = default_output(source, kind)
    if output is None:
        return name
    is_single = kind in ("photo", "video")
    if is_single and output.is_dir() and not (kind == "video" and _holds_frames(output)):
        return output / name.name
    return output


def _holds_frames(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if path.suffix != SIDECAR]
    return bool(files) and all(map(writers.is_numbered_frame, files))


def photo_suffix(source: Path) -> str:
    """Return the suffix of a photo's output: its own, or else one that can be written."""
    suffix = source.suffix.lower()
    return (
        source.suffix
        if suffix in PHOTO_SUFFIXES | film.SUFFIXES
        else WRITTEN_FOR.get(suffix, ".png")
    )


def written_for(photo: Path) -> Path:
    """Return a photo's path with the suffix of its output."""
    return photo.with_suffix(photo_suffix(photo))


def image_in(output: Path, record: FrameRecord, place: int, is_sequence: bool) -> Path:
    """Return the image that was written for a photo or a frame.

    Args:
        output: The folder of the output.
        record: What happened to the faces of the photo or the frame.
        place: Its place in the output, from 0.
        is_sequence: Whether the source is an image sequence.
    """
    file, in_package = record.file, is_in_package(output)
    number = record.index if in_package else place + 1
    written = written_for(Path(file)) if file else Path(writers.numbered_frame(number))
    if file is None or is_sequence:
        return output / (f"{written.stem}.exr" if in_package else written.name)
    return output / written if (output / written).exists() else output / file  # then a copy


def form_of(kind: str, target: Path) -> str:
    """Return the form of an output, one of :data:`FORMS`.

    Args:
        kind: "photo", "photos", "video" or "sequence".
        target: The output.
    """
    suffix = target.suffix.lower()
    if kind in ("photo", "photos"):
        return kind
    if suffix in ANIMATIONS:
        return {".gif": "gif", ".webp": "animation"}.get(suffix, "apng")
    return "movie" if suffix in writers.VIDEO_SUFFIXES else "images"


def companion(target: Path, stream: str, form: str) -> Path:
    """Return where the matte or the layers are written, beside the main output.

    This is ``video.matte.mp4`` for ``video.mp4``, and a folder ``photos.swapped.matte`` for a
    folder ``photos.swapped``. Layers of a video are QuickTime, those of a photo are PNG.

    Args:
        target: The main output.
        stream: "matte" or "layers".
        form: The form of the output.
    """
    if form in FOLDERS:
        return target.with_name(fitting(target.name, f".{stream}"))
    suffix = target.suffix
    if stream == "layers":
        suffix = ".png" if form == "photo" else ".mov"
    return target.with_name(fitting(target.stem, f".{stream}{suffix}"))


def all_outputs(target: Path, form: str, config: ConvertConfig) -> dict[str, Path]:
    """Return the path of every output by the name of its stream."""
    extra = [name for name in ("matte", "layers") if getattr(config, name)]
    paths = {"video": target} | {name: companion(target, name, form) for name in extra}
    if form == "package":
        paths |= {name: target.with_name(name) for name in ELEMENTS}
    return paths


def render_in_package(source: Path, output: Path | None, kind: str) -> Path:
    """Return the main output of a package: a folder of images in the package's folder.

    Args:
        source: The source.
        output: The package's folder; None for ``clip.package`` beside ``clip.mp4``.
        kind: The kind of the source.

    Raises:
        OutputError: If the package's folder is a file.
        SettingsError: If the source is neither a video nor an image sequence.
    """
    if kind not in ("video", "sequence"):
        raise SettingsError(f"{source} is not a video or an image sequence; a package needs one")
    swapped = default_output(source, kind)
    folder = output or swapped.with_name(f"{swapped.stem.removesuffix('.swapped')}.package")
    if folder.is_file():
        raise OutputError(f"the output {folder} is a file; a package needs a folder")
    return folder / RENDER


def is_in_package(output: Path) -> bool:
    """Return whether an output is a folder of images in a package."""
    is_named = output.name in (RENDER, *ELEMENTS)
    return is_named and all(output.with_name(name).is_dir() for name in (RENDER, ELEMENTS[0]))


def existing(outputs: dict[str, Path]) -> list[Path]:
    """Return the outputs that exist; an empty folder does not count.

    Raises:
        OutputError: If a name is not allowed, for example because it is too long.
    """
    found = []
    for path in outputs.values():
        with writing(path):
            if path.is_dir() and not path.is_symlink():
                if any(path.iterdir()):
                    found.append(path)
            elif path.exists() or path.is_symlink():
                found.append(path)
    return found


def planned(source: Path, output: Path | None, config: ConvertConfig) -> list[Path]:
    """Return the outputs of a conversion that exist and would be replaced.

    Those that an interrupted conversion has written do not count.

    Raises:
        InputError: If the source does not exist, or cannot be read.
        OutputError: If the name of an output is not allowed.
    """
    kind, _ = identified(source, config)
    target = target_of(source, output, kind)
    form = form_of(kind, target)
    found = existing(all_outputs(target, form, config))
    return [] if found and can_go_on(target) else found


def can_go_on(target: Path) -> bool:
    """Return whether an interrupted conversion has written to an output and can go on."""
    folder = target.parent
    return folder.is_dir() and any(
        kept.output == target and kept.wrote_output for kept in unfinished(folder, with_shards=True)
    )


def note_container(source: Path, output: Path | None, kind: str, target: Path) -> None:
    """Log once that a video gets another container if nobody chose one."""
    suffix = source.suffix.lower()
    is_default = output is None or target != output
    if kind == "video" and is_default and suffix != target.suffix.lower():
        written = f"{suffix} files are not written" if suffix else "its name has no suffix"
        log.info("%s becomes %s, because %s; --output names another", source, target.name, written)


def refuse_to_replace(config: ConvertConfig, outputs: dict[str, Path]) -> None:
    """Refuse outputs that exist, unless the settings or an interrupted run allow to replace them.

    Raises:
        OutputError: If one exists and may not be replaced.
    """
    if not (config.overwrite or can_go_on(outputs["video"])):
        refuse_existing(outputs)


def refuse_existing(outputs: dict[str, Path], instead: str = "another --output") -> None:
    """Refuse to replace outputs that exist.

    Args:
        outputs: The outputs by the name of their stream.
        instead: What to pass instead, for the message.

    Raises:
        OutputError: If one exists.
    """
    found = existing(outputs)
    if found:
        raise OutputError(
            f"{found[0]} exists already; pass --overwrite to replace it, or {instead}"
        )


def refuse_input(source: Path, footage: Footage | None, outputs: dict[str, Path]) -> None:
    """Refuse outputs that would replace the source.

    Raises:
        OutputError: If an output is the source, or the folder of the source's images.
    """
    inputs = [source]
    if isinstance(footage, ImageSequence):
        inputs = [footage.files[0], footage.files[0].parent]
    for target in outputs.values():
        with writing(target):
            if target.exists() and any(target.samefile(path) for path in inputs if path.exists()):
                raise OutputError(f"the output {target} is the input itself; give another --output")


def refuse_unfit(kind: str, source: Path, target: Path) -> None:
    """Refuse an output whose type does not fit the source.

    Raises:
        OutputError: If it does not fit.
    """
    suffix = target.suffix.lower()
    if kind == "photos" and target.is_file():
        raise OutputError(
            f"the output {target} is a file, but photos from a folder are written to a folder: "
            "give another --output"
        )
    own = {source.suffix.lower()} & film.SUFFIXES  # which no other photo becomes
    known = PHOTO_SUFFIXES | own if kind == "photo" else writers.VIDEO_SUFFIXES
    if kind == "video" and suffix == ".png" and animation_of(source):
        return  # else a .png is more likely meant to be a photo
    is_folder = not suffix or suffix == ".swapped" or target.is_dir()
    if kind == "photos" or suffix in known or (kind != "photo" and is_folder):
        return
    what = "photo" if kind == "photo" else "video"
    raise OutputError(
        f"cannot write {target}: {source} is a {kind}, and a {what} is written as one of "
        f"{', '.join(sorted(known))}"
    )


def inapplicable(config: ConvertConfig, form: str, kind: str) -> dict[str, str]:
    """Return the settings that have no effect on this output although they were changed.

    Args:
        config: Settings.
        form: The form of the output.
        kind: The kind of the source.

    Returns:
        What each of them applies to, in words, by the name of the setting.
    """
    options = field_options(ConvertConfig)
    found = {}
    for field in dataclasses.fields(cast(Any, ConvertConfig)):
        forms = options[field.name].forms
        if forms and form not in forms and getattr(config, field.name) != field.default:
            found[field.name] = ", ".join(FORMS[name] for name in forms)
    if config.fps is not None and kind != "sequence":
        found["fps"] = "image sequences"
    if config.images != "auto" and kind not in ("photos", "sequence"):
        found["images"] = "folders of images"
    return found


def refuse_inapplicable(config: ConvertConfig, form: str, kind: str, source: Path) -> None:
    """Refuse settings that have no effect on this output, instead of ignoring them.

    Args:
        config: Settings.
        form: The form of the output.
        kind: The kind of the source.
        source: The source, for the message.

    Raises:
        SettingsError: If a setting differs from its default but does not apply.
    """
    for name, applies in inapplicable(config, form, kind).items():
        raise SettingsError(
            f"--{name} does not apply to {FORMS[form]}, only to {applies}: leave it out for "
            f"{source}"
        )


def refuse_unmarked(config: ConvertConfig, form: str) -> None:
    """Refuse ``intermediate`` where all outputs are final ones, which are marked.

    Raises:
        SettingsError: If no output is an intermediate.
    """
    if config.intermediate and form not in IMAGES and not (config.layers or config.matte):
        raise SettingsError(
            f"--intermediate applies to image sequences, --layers and --matte; {FORMS[form]} is a "
            "final output, which is always marked"
        )


def refuse_preview(source: Path, kind: str, output: Path) -> None:
    """Refuse a preview of anything but footage in time, and one that is not a PNG.

    Raises:
        InputError: If the source is neither a video nor an image sequence.
        OutputError: If the output is not a PNG, or is the source.
    """
    if kind not in ("video", "sequence"):
        raise InputError(f"{source} is not a video or an image sequence; a preview needs one")
    if output.suffix.lower() != ".png":
        raise OutputError(
            f"cannot write {output}: a preview is an image, so use a name ending in .png"
        )
