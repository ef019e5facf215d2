"""Evaluate: a model and two facesets -> numbers that say how good its swaps are.

Every face measured is one that training has not seen. Beside the model stand three swaps that
anybody could make without one: a blur, the other person's average face, and the original itself.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from faceswap.config import ConvertConfig, EvaluateConfig
from faceswap.errors import InputError, NoFacesError
from faceswap.evaluation import report
from faceswap.evaluation.metrics import (
    FaceMeasurement,
    IdentityScale,
    Numbers,
    Report,
    compare,
    flicker,
    mean,
    mean_lab,
    nme,
    seam,
)
from faceswap.evaluation.report import Sample
from faceswap.faces import tracking
from faceswap.faces.dlib_backend import compute_embedding, predict_landmarks
from faceswap.faces.faceset import Faceset
from faceswap.faces.geometry import Box, Face, typical_box
from faceswap.faces.masks import DECODED_MASKS
from faceswap.faces.pool import DetectorPool
from faceswap.faces.recognition import centroid, pictures_of
from faceswap.files import write_bytes
from faceswap.media import reader
from faceswap.media.frame import Frame, rounded
from faceswap.models import devices, modelfile, sampling
from faceswap.models.architectures import ModelConfig
from faceswap.models.modelfile import TrainedModel
from faceswap.swapping.compositor import Swap, alpha, paste
from faceswap.swapping.swapper import FaceDecoder, Swapper
from faceswap.training import checkpoint
from faceswap.types import (
    DIRECTIONS,
    Identity,
    Image,
    OnProgress,
    Points,
    Progress,
    ignore_progress,
)

CENTROID_FACES = 150  # training faces whose embeddings are averaged
MIN_CLIP = 8  # frames in a row, for flicker


_Moment = tuple[FaceMeasurement, FaceMeasurement, tuple[Numbers, Numbers], Points]


@dataclass(frozen=True, slots=True, eq=False)
class _Swapped:
    """A swap and what was measured on it."""

    crop: Image  # the original's
    pasted: Image  # the crop with the swap in it
    measured: FaceMeasurement
    seam: tuple[float, float]


def evaluate(
    model: str | Path,
    a: str | Path,
    b: str | Path,
    config: EvaluateConfig | None = None,
    on_progress: OnProgress = ignore_progress,
    *,
    clip: str | Path | None = None,
    html: str | Path | None = None,
) -> Report:
    """Measure a model on the faces that its training held out.

    Args:
        model: The model's folder or file.
        a: Faceset of identity a.
        b: Faceset of identity b.
        config: Settings.
        on_progress: Called after each measured swap.
        clip: Footage of a, to measure flicker on.
        html: Where to write a page with the numbers and pictures.

    Returns:
        ``a_to_b`` and ``b_to_a``: see :func:`metrics.compare`, :func:`metrics.seam`, with
        ``baselines`` of the same measures; ``a_to_a`` and ``b_to_b``: see :func:`reconstruct`;
        ``faces``: how many were measured; with a clip ``flicker``: see :func:`metrics.flicker`.

    Raises:
        InputError: If a folder is no faceset, or the clip cannot be read.
        ModelError: If the model cannot be read.
        NoFacesError: If a faceset holds no face that the model has not seen, or the clip too few.
        OutputError: If the page cannot be written.
    """
    config = config or EvaluateConfig()
    device = devices.resolve_device(config.device)
    trained = modelfile.load(Path(model), device)
    facesets: dict[Identity, Faceset] = {"a": Faceset.read(Path(a)), "b": Faceset.read(Path(b))}
    unseen = {key: _unseen(faceset, key, trained, config) for key, faceset in facesets.items()}
    counter = _Counter(on_progress, 4 * sum(len(f.crops) for f in unseen.values()))
    known = {key: _known(f, trained.held_out[key]) for key, f in facesets.items()}
    centroids = {key: centroid(f) for key, f in known.items()}
    originals = {key: [_measure(*face) for face in pictures_of(f)] for key, f in unseen.items()}
    found: Report = {
        "names": list(trained.names), "steps": trained.step, "likeness": config.identity_strength,
        "faces": {key: len(f.crops) for key, f in unseen.items()},
    }  # fmt: skip
    samples: dict[str, list[Sample]] = {}
    for own, other in DIRECTIONS:
        scale = IdentityScale(centroids[own], centroids[other], originals[own], originals[other])
        rows = {}
        for name, decoder in _decoders(trained, known[other]).items():
            settings = _settings(config, other)
            if decoder and settings.mask in DECODED_MASKS:  # only the model paints one
                settings = replace(settings, mask="hull")
            swapper = Swapper(trained, settings, device, decoder)
            faces = zip(counter.each(pictures_of(unseen[own])), originals[own], strict=True)
            swaps = [_swap(swapper, image, box, before.landmarks) for (image, box), before in faces]
            measured = [swap.measured for swap in swaps]
            rows[name] = compare(originals[own], measured, scale) | _seams(swaps)
            if not decoder:
                ema_or_model = _samples(unseen[own].keys, originals[own], swaps, scale)
                samples[f"{own}_to_{other}"] = ema_or_model
        untouched = {"seam_color_step": 0.0, "seam_gradient_ratio": 1.0}
        rows["original"] = compare(originals[own], originals[own], scale) | untouched
        counter.each_done(len(originals[own]))
        found[f"{own}_to_{other}"] = rows.pop("model") | {"baselines": rows}
        found[f"{own}_to_{own}"] = reconstruct(trained, unseen[own], own, device)
    if clip:
        swapper = Swapper(trained, _settings(config, "b"), device)
        found["flicker"] = measure_clip(Path(clip), swapper, config, on_progress)
    if html:
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        page = report.page(found, samples, folder / checkpoint.METRICS_FILE)
        write_bytes(Path(html), page.encode(errors="replace"))
    return found


def _unseen(
    faceset: Faceset, key: Identity, trained: TrainedModel, config: EvaluateConfig
) -> Faceset:
    """The faces that training held out, or as many of them as the settings ask for."""
    held_out = faceset.subset(trained.held_out[key])
    if not held_out.keys:
        raise NoFacesError(
            f"none of the {len(trained.held_out[key])} faces that training held out is among "
            f"{faceset.name}'s: give the faceset the model was trained on (train --holdout)"
        )
    return held_out.evenly(config.faces) if config.faces else held_out


def _known(faceset: Faceset, held_out: list[str]) -> Faceset:
    """At most some 150 faces that training has seen; of all faces if it has seen none."""
    seen = faceset.subset(held_out, inside=False)
    seen = seen if seen.keys else faceset
    return seen.subset(seen.keys[:: max(len(seen.keys) // CENTROID_FACES, 1)])


def _measure(image: Image, box: Box) -> FaceMeasurement:
    landmarks = predict_landmarks(image, box)
    return FaceMeasurement(landmarks, compute_embedding(image, landmarks))


def _settings(config: EvaluateConfig, to: Identity) -> ConvertConfig:
    return ConvertConfig(
        to=to,
        color=config.color,
        mask=config.mask,
        identity_strength=config.identity_strength,
        smooth=config.smooth,
    )


def _swap(swapper: Swapper, image: Image, box: Box, landmarks: Points) -> _Swapped:
    """Swap the face of a crop, whose box and landmarks are known, and measure it."""
    frame = Frame(image, 0, Fraction(0), Path("crop"))
    ((swap,),) = swapper.prepare([(frame, [Face(box, 1.0, landmarks)])])
    swap = swapper.matched(swap)
    pasted = paste(frame, swap, swapper.config.blend).image
    return _Swapped(
        image, pasted, _measure(pasted, box), seam(swap.aligned.image, _in_crop(swap), swap.mask)
    )


def _decoders(trained: TrainedModel, known: Faceset) -> dict[str, FaceDecoder | None]:
    """What paints the swaps that are compared; None: the model."""
    return {
        "model": None,
        "blur": blur_decoder(trained.network.config),
        "average": average_decoder(known, trained),
    }


def _samples(
    keys: list[str], originals: list[FaceMeasurement], swaps: list[_Swapped], scale: IdentityScale
) -> list[Sample]:
    """The model's swaps as the page shows them."""
    return [
        Sample(
            key, swap.crop, swap.pasted, scale.scaled(swap.measured),
            nme(before.landmarks, swap.measured.landmarks),
        )
        for key, before, swap in zip(keys, originals, swaps, strict=True)
    ]  # fmt: skip


def _in_crop(swap: Swap) -> Image:
    """The aligned crop with the swap in it."""
    below, above = swap.aligned.image.astype(np.float32), swap.image.astype(np.float32)
    return rounded(alpha(below, above, swap.mask))


def _seams(swaps: list[_Swapped]) -> Report:
    """The seams' mean (:func:`metrics.seam`)."""
    return {
        "seam_color_step": mean(s.seam[0] for s in swaps),
        "seam_gradient_ratio": mean(s.seam[1] for s in swaps),
    }


def measure_clip(
    clip: Path, swapper: Swapper, config: EvaluateConfig, on_progress: OnProgress
) -> Report:
    """Swap the largest face of a clip's frames and measure what flickers.

    Raises:
        InputError: If the clip cannot be read.
        NoFacesError: If fewer than 8 frames in a row show a face.
    """
    if reader.kind_of(clip) != "video":
        raise InputError(f"{clip} is no video; --clip needs one")
    runs: list[list[_Moment]] = [[]]  # without a gap each
    total = config.clip_frames or reader.probe(clip).frames or None
    frames = islice(reader.read_video(clip), config.clip_frames or None)
    with DetectorPool(config.min_score, 0) as pool:
        found = tracking.track_faces(
            frames, pool, "hog", config.smooth
        )  # one ruler for all machines
        largest = ((frame, faces[:1]) for frame, faces in found)
        for frame, swaps in swapper.prepare_video(largest):
            if swaps:
                runs[-1].append(_moment(frame, swapper.matched(swaps[0]), swapper))
            elif runs[-1]:
                runs.append([])
            on_progress(Progress(frame.index + 1, total, "frames"))
    longest = max(runs, key=len)
    if len(longest) < MIN_CLIP:
        raise NoFacesError(
            f"{clip}: flicker needs {MIN_CLIP} frames in a row that show a face, there are "
            f"{len(longest)}"
        )
    originals, swapped, colors, placed = map(list, zip(*longest, strict=True))
    return {"frames": len(longest)} | flicker(originals, swapped, colors, placed)


def _moment(frame: Frame, swap: Swap, swapper: Swapper) -> _Moment:
    """The face of a frame before and after its swap, and both mean colours within the mask."""
    placed = swap.aligned.face.landmarks
    box = typical_box(placed)  # the detector's would jump from frame to frame
    after = paste(frame, swap, swapper.config.blend).image
    pictures = (swap.aligned.image, _in_crop(swap))
    colors = (mean_lab(pictures[0], swap.mask), mean_lab(pictures[1], swap.mask))
    return _measure(frame.image, box), _measure(after, box), colors, placed


def blur_decoder(config: ModelConfig) -> FaceDecoder:
    """A face of one soft blur: what an untrained model paints, and nobody in particular."""

    def decode_faces(crops: list[Image]) -> list[Image]:
        blurred = [cv2.GaussianBlur(crop, (0, 0), len(crop) / 12) for crop in crops]
        return [_square_of(np.asarray(crop, np.uint8), config) for crop in blurred]

    return decode_faces


def average_decoder(faceset: Faceset, trained: TrainedModel) -> FaceDecoder:
    """The same average of a person's faces for everybody: right identity, no expression."""
    config = trained.network.config
    view = sampling.network_crop(faceset.resized(config.crop_size).crops, config).mean(dim=0)
    average: Image = (view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return lambda crops: [average] * len(crops)


def _square_of(crop: Image, config: ModelConfig) -> Image:
    """The middle of a crop, which the network sees, as (size, size, 3)."""
    margin = round(len(crop) * (1 - config.view) / 2)
    inner = crop[margin : len(crop) - margin, margin : len(crop) - margin]
    side = (config.size, config.size)
    return np.asarray(cv2.resize(inner, side, interpolation=cv2.INTER_AREA), np.uint8)


@torch.no_grad()
def reconstruct(
    trained: TrainedModel, faceset: Faceset, identity: Identity, device: torch.device
) -> Report:
    """How well a person's own decoder paints unseen faces of that person.

    Returns:
        ssim: Structural similarity, uniform 7 px window, at the network's size.
        psnr: Decibels. l1: Mean absolute difference of values in [0, 1].
    """
    network = trained.network
    crops = faceset.resized(network.config.crop_size).crops
    view = sampling.network_crop(crops, network.config).to(device)
    if identity == "a":
        view = sampling.shift_color(view, trained.color_shift)
    decoded = network(view, identity)[:, :3].cpu().numpy()
    target = view.cpu().numpy()
    options: dict[str, Any] = {"channel_axis": 0, "data_range": 1.0}
    pairs = list(zip(target, decoded, strict=True))
    return {
        "ssim": mean(structural_similarity(t, p, win_size=7, **options) for t, p in pairs),  # type: ignore[no-untyped-call]
        "psnr": mean(peak_signal_noise_ratio(t, p, data_range=1.0) for t, p in pairs),  # type: ignore[no-untyped-call]
        "l1": mean(np.abs(t - p).mean() for t, p in pairs),
    }


class _Counter:
    """Counts measured swaps."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def each(self, items: list[tuple[Image, Box]]) -> Any:
        """Yield items, counting each when the next is asked for."""
        for item in items:
            yield item
            self.each_done(1)

    def each_done(self, count: int) -> None:
        self._done += count
        self._on_progress(Progress(self._done, self._total, "faces"))
