#!/usr/bin/env python3
"""Count the faults in footage that the report of a conversion finds, and its false alarms.

    scripts/benchmarks/troubles.py [--clip FILE ...] [--other FILE] [--untouched FILE ...]
        [--model PATH] [--detector NAME] [--frames N] [--keep FOLDER]

Makes a copy of each clip for each kind of fault. Runs of 1, 3 and 10 frames of a copy carry the
fault in the picture, or are missing from the file. Each copy is converted, and every faulty frame
that the report marks with a kind that describes it counts as found (see ``FAULTS``). The untouched
clips show how many frames are marked for no reason: ``SEEN`` lists what a person saw in the marked
frames of the development clips. In any other clip, every mark counts as a false alarm.

Without --model, an untrained one swaps the faces, because what it paints does not matter.
With --keep, the faulty copies and their reports are left in that folder.
The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from faceswap.arrays import Image, Mask
from faceswap.config import COVERAGE, ConvertConfig
from faceswap.crops.masks import outline
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import (
    Face,
    align_face,
    compose,
    face_matrix,
    invert,
    transform,
    warp_image,
    warp_mask,
)
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame
from faceswap.media.reader import read_video
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.converter import convert
from faceswap.swapping.troubles import Kind
from faceswap.tracking.tracker import track_faces

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "video"
DEFAULT = [CLIPS / "pair_a.mp4", CLIPS / "talking_512.mp4"]
OTHER = CLIPS / "pair_b.mp4"
UNTOUCHED = [
    CLIPS / f"{name}.mp4"
    for name in ("one_face_720p", "pair_a", "pair_b", "talking_512", "turning_head_720p",
                 "shot_changes_360p")
]  # fmt: skip
LENGTHS = (1, 3, 10)  # frames of the runs that carry a fault
SOUND = 27  # frames between two runs; with it, runs begin everywhere in the tracker's spans
FIRST = 14  # frame of the first run
SIZE = 256  # side of the crops in which faces are altered
RATE = 30
# What a person saw in the marked frames of the untouched clips: kind and frames, by clip.
SEEN: dict[str, list[tuple[Kind, int, int]]] = {
    "shot_changes_360p": [
        ("small face", 0, 19),  # 26 pixels
        ("mask anomaly", 0, 2),  # half of that face is left out
        ("mask anomaly", 14, 14),  # a microphone is pasted over
        ("extreme pose", 20, 41),  # a profile
        ("low score", 28, 28),  # a swap in the dark
        ("mask anomaly", 30, 32),  # a strip of the profile is pasted
        ("low score", 33, 41),  # and beside it
        ("mask anomaly", 36, 41),  # first a strip again, then more than the profile
        ("no face", 42, 42),  # the profile is not found
        ("low score", 43, 74),  # an audience in the dark, out of focus; the profile is not found
        ("sudden jump", 51, 64),  # swaps there move by a sixth of their width for a frame
        ("lost face", 75, 81),  # neither the audience nor the profile is found
        ("lost face", 211, 218),  # a profile is not found yet
        ("low score", 219, 219),  # a face in the dark is swapped for one frame
        ("lost face", 220, 234),  # that face is not found
        ("low score", 235, 235),  # it is swapped for another frame
        ("extreme pose", 239, 274),  # profiles
        ("sudden jump", 250, 252),  # a swap shrinks by a fifth and grows again, twice
        ("mask anomaly", 270, 272),  # the mask of a profile shrinks to patches
    ],
}

Found = tuple[Frame, Face]
# Alters a frame. It also takes the number of the faulty frame in its run, and that of the variant
# of the fault, both counted from 0.
Alter = Callable[[Found, int, int], Image]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: The kind of trouble that it stands for.
        what: What is done to the frames.
        accepted: The kinds of trouble that describe the faulty frames truly.
        is_sequence: Whether the faulty copy is a folder of numbered images instead of a video.
    """

    name: Kind
    what: str
    accepted: tuple[Kind, ...]
    is_sequence: bool = False


FAULTS = (
    Fault("no match", "another clip is cut in", ("no match", "identity flicker")),
    Fault("low score", "blurred, dark or noisy face", ("low score", "lost face", "no face")),
    # Whose eyes are hidden may not be recognised, and is not swapped then.
    Fault("mask anomaly", "opaque thing before half of the face",
          ("mask anomaly", "low score", "lost face", "no match")),
    Fault("identity flicker", "another person's face pasted on",
          ("identity flicker", "no match")),
    Fault("no face", "head painted out", ("no face", "lost face")),
    Fault("missing frame", "frames left out of a video", ("missing frame",)),
    Fault("missing frame", "numbers left out of a sequence", ("missing frame",), is_sequence=True),
    # The smallest are below the limit of the detector.
    Fault("small face", "picture shrunk into a corner of a plain frame",
          ("small face", "lost face", "no face")),
)  # fmt: skip


def runs(frames: int) -> Iterator[range]:
    """Yield the runs of faulty frames in a clip of so many frames."""
    first = FIRST
    for length in cycle(LENGTHS):
        if first + length + SOUND > frames:
            return
        yield range(first, first + length)
        first += length + SOUND


def faces_of(clip: Path, count: int) -> list[Found]:
    """Return the frames of a clip, each with its largest face or that of a frame nearby."""
    with DetectorPool(0.2, 1) as pool:
        tracked = list(islice(track_faces(read_video(clip), pool, DetectorSpec()), count))
    known = [index for index, (_, faces) in enumerate(tracked) if faces]
    nearest = [min(known, key=lambda place: abs(place - index)) for index in range(len(tracked))]
    return [(frame, tracked[near][1][0]) for (frame, _), near in zip(tracked, nearest, strict=True)]


def width_of(face: Face) -> float:
    """Return the width of a face's box in pixels."""
    return face.box.right - face.box.left


def laid_over(image: Image, layer: Image, mask: Mask) -> Image:
    """Blend a layer (H, W, 3) into an image by a mask (H, W)."""
    share = mask[..., None]
    return np.rint(image * (1 - share) + layer * share).astype(np.uint8)


def oval_over(found: Found, scale: float) -> Mask:
    """Return a soft oval over a face, whose width is a multiple of the box's."""
    frame, face = found
    height, width = frame.shape
    mask = np.zeros((height, width), np.float32)
    half = scale * width_of(face) / 2
    center = face.landmarks[17:].mean(axis=0)
    cv2.ellipse(mask, (round(float(center[0])), round(float(center[1]))),
                (round(half), round(1.2 * half)), 0, 0, 360, 1.0, -1)  # fmt: skip
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.06 * width_of(face)), np.float32)


def cut_in(others: list[Found], found: Found, number: int, variant: int) -> Image:
    """Show a frame of another clip, in the size of this one."""
    height, width = found[0].shape
    image = others[(40 * variant + number) % len(others)][0].image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def with_face_of(others: list[Found], found: Found, number: int, variant: int) -> Image:
    """Paste the face of another person over the face, in its mean colour."""
    frame, face = found
    height, width = frame.shape
    other, other_face = others[(40 * variant + number) % len(others)]
    to_frame = compose(invert(face_matrix(face.landmarks, SIZE, COVERAGE)),
                       face_matrix(other_face.landmarks, SIZE, COVERAGE))  # fmt: skip
    pasted = warp_image(other.image, to_frame, width, height)
    crop = align_face(other, other_face, SIZE, COVERAGE)
    shape = outline(transform(other_face.landmarks, crop.matrix), SIZE)
    soft = np.asarray(cv2.GaussianBlur(shape, (0, 0), 4), np.float32)
    mask = warp_mask(soft, compose(to_frame, invert(crop.matrix)), width, height)
    inside = mask > 0.5
    shift = frame.image[inside].mean(axis=0) - pasted[inside].mean(axis=0)
    return laid_over(frame.image, np.clip(pasted + shift, 0, 255).astype(np.uint8), mask)


def unclear(found: Found, number: int, variant: int) -> Image:
    """Blur the face, or darken the picture, or drown it in noise, little or much."""
    image, width = found[0].image, width_of(found[1])
    noise = np.random.default_rng(100 * variant + number).normal(0, 1, image.shape)
    what, amount = (
        ("blur", 0.07), ("dark", 0.09), ("blur", 0.09), ("noise", 70), ("dark", 0.05),
    )[variant % 5]  # fmt: skip
    if what == "blur":
        blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), amount * width), np.uint8)
        return laid_over(image, blurred, oval_over(found, 1.8))
    if what == "dark":
        return np.clip(image * amount + 6 + 4 * noise, 0, 255).astype(np.uint8)
    return np.clip(image * 0.4 + 60 + amount * noise, 0, 255).astype(np.uint8)


def half_hidden(found: Found, number: int, variant: int) -> Image:
    """Put a thing before the left, the lower, the upper or the right half of the face."""
    frame, face = found
    height, width = frame.shape
    shape = np.zeros((SIZE, SIZE), np.float32)
    middle, inside = SIZE // 2, outline(
        transform(face.landmarks, face_matrix(face.landmarks, SIZE, COVERAGE)), SIZE)  # fmt: skip
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    slack, sway = 20, 2 * (number % 3)
    top, bottom = int(rows[0]) - slack, int(rows[-1]) + slack
    left, right = int(columns[0]) - slack, int(columns[-1]) + slack
    corners = [
        ((left, top), (middle + sway, bottom)),
        ((left, middle + sway), (right, bottom)),
        ((left, top), (right, middle + sway)),
        ((middle + sway, top), (right, bottom)),
    ][variant % 4]
    cv2.rectangle(shape, *corners, 1.0, -1)
    matrix = invert(face_matrix(face.landmarks, SIZE, COVERAGE))
    mask = warp_mask(np.asarray(cv2.GaussianBlur(shape, (0, 0), 2), np.float32), matrix, width,
                     height)  # fmt: skip
    color = [(40, 70, 150), (30, 30, 32), (90, 130, 60), (255, 255, 255)][variant % 4]
    return laid_over(frame.image, np.full_like(frame.image, color), mask)


def without_head(found: Found, number: int, variant: int) -> Image:  # noqa: ARG001 - an Alter
    """Paint the head out with what surrounds it."""
    image, mask = found[0].image, oval_over(found, 2.2)
    height, width = mask.shape
    small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    hole = cv2.resize(mask, (width // 4, height // 4)) > 0.02
    filled = cv2.inpaint(small, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(filled, (0, 0), 4)
    return laid_over(image, np.asarray(cv2.resize(soft, (width, height)), np.uint8), mask)


def in_corner(found: Found, number: int, variant: int) -> Image:  # noqa: ARG001 - an Alter
    """Shrink the picture so that the face is 20 to 36 pixels wide, into a corner."""
    image, face = found[0].image, found[1]
    height, width = found[0].shape
    scale = (36, 28, 20)[variant % 3] / width_of(face)
    small = cv2.resize(image, (round(scale * width), round(scale * height)),
                       interpolation=cv2.INTER_AREA)  # fmt: skip
    plain = np.full_like(image, 90)
    plain[: small.shape[0], : small.shape[1]] = small
    return plain


def altered(frames: list[Found], alter: Alter) -> tuple[list[Image], set[int]]:
    """Alter runs of frames; return all images, and the places of the faulty ones."""
    images = [frame.image for frame, _ in frames]
    places: set[int] = set()
    for run, places_of_run in enumerate(runs(len(frames))):
        variant = run % len(LENGTHS) + run // len(LENGTHS)  # no length has always the same one
        for number, place in enumerate(places_of_run):
            images[place] = alter(frames[place], number, variant)
            places.add(place)
    return images, places


def write_clip(path: Path, images: Iterable[Image], times: Iterable[int]) -> None:
    """Write frames at these numbers of frame lengths, hardly compressed."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "8", "preset": "ultrafast"}
        stream.codec_context.time_base = Fraction(1, RATE)
        for image, time in zip(images, times, strict=True):
            height, width = (side - side % 2 for side in image.shape[:2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            even = np.ascontiguousarray(image[:height, :width])
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_images(folder: Path, images: Iterable[Image], numbers: Iterable[int]) -> None:
    """Write frames as images with these numbers."""
    folder.mkdir()
    for image, number in zip(images, numbers, strict=True):
        path = folder / f"frame.{1001 + number}.jpg"
        cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_faulty(fault: Fault, frames: list[Found], others: list[Found], path: Path) -> set[int]:
    """Write a copy of a clip with faults of one kind; return the places of the faulty frames."""
    write = write_images if fault.is_sequence else write_clip
    if fault.name == "missing frame":
        missing = {place for run in runs(len(frames)) for place in run}
        kept = [place for place in range(len(frames)) if place not in missing]
        write(path, (frames[place][0].image for place in kept), kept)
        return {at for at in range(1, len(kept)) if kept[at] - kept[at - 1] > 1}
    alters: dict[Kind, Alter] = {
        "no match": partial(cut_in, others), "low score": unclear, "mask anomaly": half_hidden,
        "identity flicker": partial(with_face_of, others), "no face": without_head,
        "small face": in_corner,
    }  # fmt: skip
    images, places = altered(frames, alters[fault.name])
    write(path, images, range(len(images)))
    return places


def marks(source: Path, target: Path, model: Path, settings: ConvertConfig) -> dict[int, set[Kind]]:
    """Convert footage; return the kinds of trouble that the report finds in each frame."""
    report = convert(source, target, model, settings).report
    target.unlink()
    assert report is not None, "a video has a report"
    found = json.loads(report.read_text())
    marked: dict[int, set[Kind]] = {frame["index"]: set() for frame in found["frames"]}
    for trouble in found["troubles"]:
        for index in range(trouble["first"], trouble["last"] + 1):
            marked[index].add(trouble["kind"])
    return marked


def untrained(folder: Path) -> Path:
    """Write a model with random weights; return its folder."""
    network = autoencoder.build(PRESETS["small"])
    trained = modelfile.TrainedModel(network, ("a", "b"), (0, 0, 0), 0)
    modelfile.save(folder / "model" / modelfile.MODEL_FILE, trained)
    return folder / "model"


def is_seen(clip: Path, index: int, kind: Kind) -> bool:
    """Return whether a person saw this trouble in a frame of an untouched clip."""
    return any(
        kind == known and first <= index <= last for known, first, last in SEEN.get(clip.stem, ())
    )


def spans(places: Iterable[int]) -> str:
    """Write places briefly, such as "3-5, 9"."""
    runs_of: list[list[int]] = []
    for place in sorted(places):
        if runs_of and place == runs_of[-1][1] + 1:
            runs_of[-1][1] = place
        else:
            runs_of.append([place, place])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs_of)


def count_found(
    chosen: argparse.Namespace, folder: Path, model: Path, settings: ConvertConfig
) -> list[tuple[Fault, int, int]]:
    """Count the faulty frames, and those that are found, for each kind of fault."""
    others = faces_of(chosen.other, chosen.frames)
    counts = {fault: [0, 0] for fault in FAULTS}
    for clip in chosen.clip:
        frames = faces_of(clip, chosen.frames)
        photo = folder / f"{clip.stem}.png"
        cv2.imwrite(str(photo), frames[0][0].image[..., ::-1])
        chosen_face = replace(settings, who=(str(photo),))
        for fault in chosen.faults:
            kind = fault.name.replace(" ", "-") + ("-sequence" if fault.is_sequence else "")
            copy = folder / f"{clip.stem}-{kind}"
            copy = copy if fault.is_sequence else copy.with_name(f"{copy.name}.mp4")
            places = write_faulty(fault, frames, others, copy)
            target = folder / f"{clip.stem}-{kind}.swapped.mp4"
            marked = marks(copy, target, model, chosen_face)
            missed = {at for at in places if not marked[at] & {*fault.accepted}}
            counts[fault][0] += len(places)
            counts[fault][1] += len(places) - len(missed)
            if missed:
                print(f"missed in {clip.name}, {fault.what}: {spans(missed)}", flush=True)
    return [(fault, *counts[fault]) for fault in chosen.faults]


def count_alarms(
    chosen: argparse.Namespace, folder: Path, model: Path, settings: ConvertConfig
) -> list[tuple[str, int, int, int]]:
    """Count the frames of each untouched clip, those marked, and those marked for no reason."""
    rows = []
    for clip in chosen.untouched:
        target = folder / f"{clip.stem}-untouched.swapped.mp4"
        marked = marks(clip, target, model, replace(settings, end=end_of(clip, chosen.frames)))
        for kind in sorted({kind for kinds in marked.values() for kind in kinds}):
            seen = spans(at for at, kinds in marked.items() if kind in kinds)
            print(f"marked in {clip.name}, {kind}: {seen}", flush=True)
        alarms = [
            at for at, kinds in marked.items()
            if any(not is_seen(clip, at, kind) for kind in kinds)
        ]  # fmt: skip
        rows.append((clip.name, len(marked), sum(map(bool, marked.values())), len(alarms)))
    return rows


def end_of(clip: Path, frames: int) -> str | None:
    """Return the time after so many frames of a clip, as a setting; None if it has no more."""
    times = [frame.time for frame in islice(read_video(clip), frames + 1)]
    return f"{float(times[-1] + times[-2]) / 2 - float(times[0]):.4f}" if times[frames:] else None


def percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):6.1f} %"


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clip", type=Path, action="append", help="clip to put the faults into; repeatable"
    )
    parser.add_argument("--other", type=Path, default=OTHER, help="clip of another person")
    parser.add_argument("--untouched", type=Path, nargs="*", default=UNTOUCHED)
    parser.add_argument("--fault", action="append", choices=[f.name for f in FAULTS],
                        help="only this kind; repeatable")  # fmt: skip
    parser.add_argument("--model", type=Path, help="[default: an untrained one]")
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--frames", type=int, default=300, help="of each clip, at most")
    parser.add_argument("--keep", type=Path, help="folder for the copies and their reports")
    chosen = parser.parse_args()
    chosen.clip = DEFAULT if chosen.clip is None else chosen.clip
    chosen.faults = [f for f in FAULTS if chosen.fault is None or f.name in chosen.fault]
    missing = [p for p in (*chosen.clip, chosen.other, *chosen.untouched) if not p.is_file()]
    if missing:
        parser.error(f"{missing[0]} is missing; pass --clip, --other and --untouched")
    return chosen


def main() -> None:
    """Print one table of the faults found, one of the untouched clips, and one JSON object."""
    chosen = options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model = chosen.model or untrained(Path(temporary))
        settings = ConvertConfig(  # nothing that only changes the look of a swap
            detector=chosen.detector, workers=1, overwrite=True, match_detail=False, color="none"
        )
        found = count_found(chosen, folder, model, settings)
        alarms = count_alarms(chosen, folder, model, settings)
    print(f"{'fault':18}{'what':44}frames  found   share")
    for fault, frames, hits in found:
        print(f"{fault.name:18}{fault.what:44}{frames:6}{hits:7}{percent(hits, frames)}")
    all_faulty, all_hits = sum(row[1] for row in found), sum(row[2] for row in found)
    print(f"{'all':62}{all_faulty:6}{all_hits:7}{percent(all_hits, all_faulty)}")
    print(f"{'untouched clip':62}frames marked false alarms")
    for name, frames, marked, false in alarms:
        print(f"{name:62}{frames:6}{marked:7}{percent(false, frames)}")
    all_frames, all_false = sum(row[1] for row in alarms), sum(row[3] for row in alarms)
    print(f"{'all':75}{percent(all_false, all_frames)}")
    print(json.dumps({
        "faults": {fault.what: [frames, hits] for fault, frames, hits in found},
        "found": round(all_hits / max(all_faulty, 1), 4),
        "false_alarms": round(all_false / max(all_frames, 1), 4),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
