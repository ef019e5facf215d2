#!/usr/bin/env python3
"""Measure which part of an occluded face a mask pastes over, with exact truth.

    scripts/benchmarks/occlusion.py --cutouts PATH [PATH ...] --clips FILE ... [--out FOLDER]

Occluders are put in front of the faces of clips, where they move about: real hands, microphones and
caps cut out of photos (PATH is a photo or a folder), and drawn ones (a capsule in the colour of the
face, a spoon, a strand of hair, glasses). What is pasted is compared with what is truly visible,
inside the face's outline:

- kept: the share of the occluder that is not pasted over (1 is right)
- lost: the share of the visible face, its skin without the occluder, that is not pasted
- boundary F: harmonic mean of precision and recall of the mask's edge, within 3 of 256 pixels
- flicker: mean change of the mask between successive frames, where the truth does not change

The same is printed for the hull, which looks at no occluder. With --out, pictures are written.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import Image, Mask
from faceswap.config import COVERAGE
from faceswap.crops import parsing
from faceswap.crops.masks import MASKS, outline
from faceswap.crops.parsing import SkinParser
from faceswap.faces import networks
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import AlignedFace, align_face, invert, transform, warp_mask
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.media.reader import read_video
from faceswap.media.sources import search
from faceswap.models.architectures import FIELD_OF_VIEW
from faceswap.swapping.swapper import SKIN_EVERY
from faceswap.tracking.tracker import track_faces

SIZE = 256  # pixels of the crop in which masks are compared
FRAMES = 48  # of each clip and occluder
TOLERANCE = 3  # pixels
MIN_AREA, MAX_AREA = 0.04, 0.5  # share of the face's outline that a cut-out may cover
CUTOUTS = 24  # at most
SURE = 0.95  # the network's probability from which GrabCut does not doubt it
Numbers = npt.NDArray[np.floating]
LENS = np.array([0.85, 0.7])  # half the width and height of a lens, in widths of the eye
IN_FRONT = (2, 4, 5)  # the network's classes body skin, clothes, others


@dataclass(frozen=True, eq=False)
class Occluder:
    """Something in front of a face, in the aligned crop.

    Attributes:
        name: What it is.
        image: Its colours, (SIZE, SIZE, 3).
        alpha: How much of a pixel it covers, (SIZE, SIZE).
    """

    name: str
    image: Image
    alpha: Mask


def cutouts(paths: list[Path]) -> list[Occluder]:
    """Cut hands, microphones and the like out of photos.

    The network's sure answers are the seeds of GrabCut, which follows the edges in the photo.
    """
    found = []
    spec = DetectorSpec()
    for path in (
        photo for each in paths for photo in (search(each).photos if each.is_dir() else [each])
    ):
        frame = read_photo(path)
        for face in spec.detect(frame.image, 0.2)[:1]:
            aligned = align_face(frame, face, SIZE, COVERAGE)
            front = in_front(aligned.image)
            inside = outline(transform(face.landmarks, aligned.matrix), SIZE) > 0
            _, labels, _, _ = cv2.connectedComponentsWithStats(front)
            touching = np.unique(labels[inside & (front > 0)])
            mask = np.isin(labels, touching[touching > 0]).astype(np.float32)
            share = float((mask[inside] > 0).mean())
            if MIN_AREA <= share <= MAX_AREA:
                eroded = cv2.erode(mask, np.ones((3, 3), np.uint8))
                soft = np.asarray(cv2.GaussianBlur(eroded, (0, 0), 1), np.float32)
                found.append((share, Occluder(f"cut-out {path.stem[-8:]}", aligned.image, soft)))
    found.sort(key=lambda pair: -pair[0])
    return [occluder for _, occluder in found[:CUTOUTS]]


def in_front(image: Image) -> Image:
    """Return where something that is no face, hair or background is in a crop, as 0 and 1."""
    small = cv2.resize(image, (parsing.SIDE, parsing.SIDE), interpolation=cv2.INTER_AREA)
    values = networks.channels_first(np.asarray(small, np.uint8))
    (logits,) = networks.load(parsing.WEIGHTS).run(values).values()
    shares = np.exp(logits[0] - logits[0].max(axis=0))
    front = cv2.resize(shares[list(IN_FRONT)].sum(axis=0) / shares.sum(axis=0), (SIZE, SIZE))
    seeds = np.where(front > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[front > SURE], seeds[front < 1 - SURE] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(1)
    if np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():
        front_colors, other_colors = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(image[..., ::-1].copy(), seeds, (0, 0, *image.shape[:2]), other_colors,
                    front_colors, 3, cv2.GC_INIT_WITH_MASK)  # fmt: skip
    return np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)


def at(point: Numbers, right: float, down: float) -> Numbers:
    """Move a point."""
    return np.asarray(point + np.array([right, down]), np.float64)


def drawn(aligned: AlignedFace) -> list[Occluder]:
    """Draw occluders for a face: a capsule in its colour, a spoon, hair and glasses."""
    points = transform(aligned.face.landmarks, aligned.matrix)
    skin = aligned.image[int(points[30, 1]), int(points[30, 0])].astype(np.float32)
    center, mouth = points[30], points[48:60].mean(axis=0)
    result = []

    def add(name: str, shape: Mask, color: Numbers) -> None:
        shade = 0.85 + 0.3 * np.linspace(0, 1, SIZE)[:, None, None]
        texture = np.random.default_rng(1).normal(0, 3, (SIZE, SIZE, 1))
        image = np.clip(color * shade + texture, 0, 255).astype(np.uint8)
        image = np.broadcast_to(image, (SIZE, SIZE, 3)).copy()
        alpha = np.asarray(cv2.GaussianBlur(shape, (0, 0), 0.8), np.float32)
        result.append(Occluder(name, image, alpha))

    def line(ends: list[Numbers], width: int) -> Mask:
        shape = np.zeros((SIZE, SIZE), np.float32)
        pixels = np.array([[point.round() for point in ends]], np.int32)
        cv2.polylines(shape, [*pixels], False, 1.0, width, cv2.LINE_AA)
        return shape

    add("capsule", line([at(center, -70, 55), at(center, 10, 20)], 34), skin)
    spoon = line([at(mouth, 8, 4), at(mouth, 90, 60)], 7)
    cv2.ellipse(spoon, tuple(int(v) for v in mouth), (20, 12), 30, 0, 360, 1.0, -1, cv2.LINE_AA)
    add("spoon", spoon, np.array([150, 152, 158], np.float32))
    bow = np.linspace(0, 1, 20)
    strand = [at(points[19], -10 + 26 * t + 14 * np.sin(3 * t), -50 + 130 * t) for t in bow]
    add("hair", line(strand, 9), np.array([46, 34, 26], np.float32))
    rims = np.zeros((SIZE, SIZE), np.float32)
    for eye in (points[36:42], points[42:48]):
        width = np.linalg.norm(eye[0] - eye[3])
        middle, axes = (tuple(map(int, pair)) for pair in (eye.mean(axis=0), width * LENS))
        cv2.ellipse(rims, middle, axes, 0, 0, 360, 1.0, 4, cv2.LINE_AA)
    rims = np.maximum(rims, line([at(points[39], 4, 0), at(points[42], -4, 0)], 4))
    add("glasses", rims, np.array([28, 26, 30], np.float32))
    return result


def put(frame: Frame, aligned: AlignedFace, occluder: Occluder, step: int) -> tuple[Frame, Mask]:
    """Put an occluder in front of a face; return the frame and the occluder in the crop."""
    across = 10 * np.sin(step / 7), 6 * np.cos(step / 5)
    moved = np.array([[1, 0, across[0]], [0, 1, across[1]]])
    alpha = warp_mask(occluder.alpha, moved, SIZE, SIZE)
    colors = cv2.warpAffine(occluder.image, moved, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    back, (height, width) = invert(aligned.matrix), frame.shape
    cover = warp_mask(alpha, back, width, height)[..., None]
    painted = cv2.warpAffine(colors, back, (width, height), borderMode=cv2.BORDER_REPLICATE)
    image = frame.image * (1 - cover) + painted * cover
    return replace(frame, pixels=np.rint(image).astype(np.uint8)), alpha


def edge(mask: Mask) -> Image:
    """The pixels of a mask at its edge."""
    inside = (mask > 0.5).astype(np.uint8)
    return np.asarray(inside - cv2.erode(inside, np.ones((3, 3), np.uint8)), np.uint8)


def boundary_f(found: Mask, truth: Mask) -> float:
    """Harmonic mean of precision and recall of an edge."""
    near = np.ones((2 * TOLERANCE + 1,) * 2, np.uint8)
    one, other = edge(found), edge(truth)
    near_one, near_other = (np.asarray(cv2.dilate(each, near), np.uint8) for each in (one, other))
    precision = float((one & near_other).sum() / max(one.sum(), 1))
    recall = float((other & near_one).sum() / max(other.sum(), 1))
    return 2 * precision * recall / max(precision + recall, 1e-6)


def main() -> None:
    """Print a table per occluder and mask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutouts", type=Path, nargs="+", required=True)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    real = cutouts(chosen.cutouts)
    rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    pictures: list[Image] = []
    for clip in chosen.clips:
        with DetectorPool(0.2, 1) as pool:
            tracked = list(islice(track_faces(read_video(clip), pool, DetectorSpec()), FRAMES))
        frames = [(frame, faces[0]) for frame, faces in tracked if faces]
        first = align_face(*frames[0], SIZE, COVERAGE)
        bare = [parsing.skin_of(frame, align_face(frame, face, SIZE, COVERAGE)) > 0.5
                for frame, face in frames]  # fmt: skip
        for occluder in [*drawn(first), *real]:
            parser_of = SkinParser(SKIN_EVERY)
            before: dict[str, tuple[Mask, Mask]] = {}
            for step, (frame, face) in enumerate(frames):
                aligned = align_face(frame, face, SIZE, COVERAGE)
                hidden, alpha = put(frame, aligned, occluder, step)
                aligned = parser_of.parse(hidden, align_face(hidden, face, SIZE, COVERAGE))
                hull = MASKS["hull"](aligned, FIELD_OF_VIEW, None)
                hull *= bare[step]
                covered, clear = (hull > 0) & (alpha > 0.5), (hull > 0) & (alpha < 0.05)
                if not covered.any():
                    continue
                truth = (hull * (alpha <= 0.5)).astype(np.float32)
                for name in ("skin", "hull"):
                    mask = MASKS[name](aligned, FIELD_OF_VIEW, None) * bare[step]
                    pasted = mask > 0.5
                    flicker = np.nan
                    if name in before:
                        still = before[name][1] == truth
                        flicker = float(np.abs(mask - before[name][0])[still & (hull > 0)].mean())
                    before[name] = mask, truth
                    rows[name, occluder.name].append([
                        float(1 - pasted[covered].mean()), float(1 - pasted[clear].mean()),
                        boundary_f(mask, truth), flicker,
                    ])  # fmt: skip
                    if name == "skin" and step == len(frames) // 2:
                        shown = aligned.image.copy()
                        shown[pasted] = shown[pasted] // 2 + np.array([0, 90, 0], np.uint8)
                        pictures.append(np.hstack([aligned.image, shown]))
    print("mask  occluder             kept   lost   boundary F  flicker")
    for name in ("skin", "hull"):
        of_mask = {key: values for key, values in rows.items() if key[0] == name}
        for (_, occluder_name), values in of_mask.items():
            cells = np.nanmean(values, axis=0)
            print(f"{name:5} {occluder_name:18}", *(f"{cell:8.3f}" for cell in cells))
        together = np.nanmean([value for values in of_mask.values() for value in values], axis=0)
        print(f"{name:5} {'all':18}", *(f"{cell:8.3f}" for cell in together), flush=True)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for number in range(0, len(pictures), 20):
            some = pictures[number : number + 20]
            some += [np.zeros_like(some[0])] * (-len(some) % 4)
            sheet = np.vstack([np.hstack(some[at : at + 4]) for at in range(0, len(some), 4)])
            cv2.imwrite(str(chosen.out / f"sheet{number // 20}.png"), sheet[..., ::-1])


if __name__ == "__main__":
    main()
