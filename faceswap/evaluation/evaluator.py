"""Evaluate a model's swaps on the faces of two facesets that training held out.

Three baselines that need no model are measured for comparison: a blur, the other person's average
face, and the unswapped original.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from faceswap.arrays import Image, Points
from faceswap.config import ConvertConfig, EvaluateConfig
from faceswap.errors import InputError, NoFacesError
from faceswap.evaluation import report
from faceswap.evaluation.metrics import (
    FaceMeasurement,
    IdentityScale,
    Numbers,
    compare,
    flicker,
    mean,
    mean_lab,
    nme,
    seam,
)
from faceswap.evaluation.report import Sample
from faceswap.evaluation.results import (
    Baselines,
    DirectionScores,
    EvaluationReport,
    FlickerScores,
    ReconstructionScores,
    SwapScores,
)
from faceswap.faces import tracking
from faceswap.faces.detection import DetectorSpec
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
from faceswap.swapping.painter import DecodeFaces
from faceswap.swapping.render import matched
from faceswap.swapping.swapper import Swapper, prepare_video
from faceswap.training import checkpoint
from faceswap.types import DIRECTIONS, Identity, OnProgress, Progress, ignore_progress

CENTROID_FACES = 150  # minimum sample of training faces whose embeddings are averaged
MIN_CLIP = 8  # consecutive frames needed to measure flicker
UNTOUCHED_SEAM = (0.0, 1.0)  # colour step and gradient ratio of an unswapped face

T = TypeVar("T")

# Face before and after the swap, mean Lab colour of each, and the landmarks that placed the swap
_Moment = tuple[FaceMeasurement, FaceMeasurement, tuple[Numbers, Numbers], Points]


@dataclass(frozen=True, slots=True, eq=False)
class _Swapped:
    """One swap and its measurements."""

    crop: Image  # of the original
    pasted: Image  # the crop with the swap pasted in
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
) -> EvaluationReport:
    """Measure a model on the faces that its training held out.

    Args:
        model: The model's folder or file.
        a: Faceset of identity a.
        b: Faceset of identity b.
        config: Settings.
        on_progress: Called after each measured swap.
        clip: Footage of a, to measure flicker on.
        html: Where to write a page with the numbers and images.

    Raises:
        InputError: If a folder is not a faceset, or the clip cannot be read.
        DeviceError: If this machine does not have the configured device.
        ModelError: If the model cannot be read.
        NoFacesError: If a faceset has no held-out faces, or the clip too few frames with a face.
        OutputError: If the page cannot be written.
    """
    config = config or EvaluateConfig()
    device = devices.resolve_device(config.device)
    trained = modelfile.load(Path(model), device)
    facesets: dict[Identity, Faceset] = {"a": Faceset.read(Path(a)), "b": Faceset.read(Path(b))}
    unseen = {key: _unseen(faceset, key, trained, config) for key, faceset in facesets.items()}
    counter = _Counter(on_progress, 4 * sum(len(f.crops) for f in unseen.values()))
    known = {key: _known(f, trained.held_out[key]) for key, f in facesets.items()}
    centroids = {key: centroid(f, landmarks=config.landmarks) for key, f in known.items()}
    originals = {
        key: [_measure(*face, config.landmarks) for face in pictures_of(f)]
        for key, f in unseen.items()
    }
    samples: dict[str, list[Sample]] = {}
    swapped: dict[Identity, DirectionScores] = {}
    for own, other in DIRECTIONS:
        scale = IdentityScale(centroids[own], centroids[other], originals[own], originals[other])
        scores: dict[str, SwapScores] = {}
        for name, decoder in _decoders(trained, known[other]).items():
            settings = _settings(config, other)
            if decoder and settings.mask in DECODED_MASKS:  # only the model decodes a mask
                settings = replace(settings, mask="hull")
            swapper = Swapper(trained, settings, device, decoder)
            faces = zip(counter.each(pictures_of(unseen[own])), originals[own], strict=True)
            swaps = [_swap(swapper, image, box, before.landmarks) for (image, box), before in faces]
            measured = [swap.measured for swap in swaps]
            seams = [swap.seam for swap in swaps]
            scores[name] = compare(originals[own], measured, seams, scale)
            if not decoder:
                direction = f"{own}_to_{other}"
                samples[direction] = _samples(
                    direction, unseen[own].keys, originals[own], swaps, scale
                )
        seams = [UNTOUCHED_SEAM] * len(originals[own])
        scores["original"] = compare(originals[own], originals[own], seams, scale)
        counter.add(len(originals[own]))
        of_model = asdict(scores.pop("model"))
        swapped[own] = DirectionScores(**of_model, baselines=Baselines(**scores))
    found = EvaluationReport(
        names=trained.names,
        steps=trained.step,
        identity_strength=config.identity_strength,
        faces={key: len(faceset.crops) for key, faceset in unseen.items()},
        a_to_b=swapped["a"],
        b_to_a=swapped["b"],
        a_to_a=reconstruct(trained, unseen["a"], "a", device),
        b_to_b=reconstruct(trained, unseen["b"], "b", device),
    )
    if clip:
        swapper = Swapper(trained, _settings(config, "b"), device)
        found = replace(found, flicker=measure_clip(Path(clip), swapper, config, on_progress))
    if html:
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        page = report.page(found, samples, folder / checkpoint.METRICS_FILE)
        write_bytes(Path(html), page.encode(errors="replace"))
    return found


def _unseen(
    faceset: Faceset, key: Identity, trained: TrainedModel, config: EvaluateConfig
) -> Faceset:
    """Return the held-out faces, or as many of them as the settings ask for, evenly spaced."""
    held_out = faceset.subset(trained.held_out[key])
    if not held_out.keys:
        raise NoFacesError(
            f"{faceset.name} contains none of the {len(trained.held_out[key])} faces that training "
            "held out: pass the faceset that the model was trained on (see train --holdout)"
        )
    return held_out.evenly(config.faces) if config.faces else held_out


def _known(faceset: Faceset, held_out: list[str]) -> Faceset:
    """Return an even sample of the training faces, or of all faces if training saw none of them."""
    seen = faceset.subset(held_out, inside=False)
    seen = seen if seen.keys else faceset
    return seen.subset(seen.keys[:: max(len(seen.keys) // CENTROID_FACES, 1)])


def _measure(image: Image, box: Box, landmarks: str | None) -> FaceMeasurement:
    points = predict_landmarks(image, box, landmarks)
    return FaceMeasurement(points, compute_embedding(image, points))


def _settings(config: EvaluateConfig, to: Identity) -> ConvertConfig:
    return ConvertConfig(
        to=to,
        color=config.color,
        mask=config.mask,
        identity_strength=config.identity_strength,
        smooth=config.smooth,
        landmarks=config.landmarks,
    )


def _swap(swapper: Swapper, image: Image, box: Box, landmarks: Points) -> _Swapped:
    """Swap the face in a crop, given its box and landmarks, and measure the result."""
    frame = Frame(image, 0, Fraction(0), Path("crop"))
    ((swap,),) = swapper.prepare([(frame, [Face(box, 1.0, landmarks)])])
    swap = matched(swap, swapper.config)
    pasted = paste(frame, swap, swapper.config.blend).image
    return _Swapped(
        image,
        pasted,
        _measure(pasted, box, swapper.config.landmarks),
        seam(swap.aligned.image, _in_crop(swap), swap.mask),
    )


def _decoders(trained: TrainedModel, known: Faceset) -> dict[str, DecodeFaces | None]:
    """Return the face decoders to compare by name; None stands for the model's own."""
    return {
        "model": None,
        "blur": blur_decoder(trained.network.config),
        "average": average_decoder(known, trained),
    }


def _samples(
    direction: str,
    keys: list[str],
    originals: list[FaceMeasurement],
    swaps: list[_Swapped],
    scale: IdentityScale,
) -> list[Sample]:
    """Return the model's swaps as samples for the HTML page."""
    return [
        Sample(
            key=key,
            direction=direction,
            original=swap.crop,
            swapped=swap.pasted,
            identity=scale.scaled(swap.measured),
            nme=nme(before.landmarks, swap.measured.landmarks),
        )
        for key, before, swap in zip(keys, originals, swaps, strict=True)
    ]


def _in_crop(swap: Swap) -> Image:
    """Return the aligned crop with the swap pasted in."""
    below, above = swap.aligned.image.astype(np.float32), swap.image.astype(np.float32)
    return rounded(alpha(below, above, swap.mask))


def measure_clip(
    clip: Path, swapper: Swapper, config: EvaluateConfig, on_progress: OnProgress
) -> FlickerScores:
    """Swap the largest face in each frame of a clip and measure the flicker.

    Raises:
        InputError: If the clip cannot be read.
        NoFacesError: If fewer than 8 consecutive frames show a face.
    """
    if reader.kind_of(clip) != "video":
        raise InputError(f"{clip} is not a video; --clip needs one")
    runs: list[list[_Moment]] = [[]]  # stretches of frames without a gap
    total = config.clip_frames or reader.probe(clip).frames or None
    frames = islice(reader.read_video(clip), config.clip_frames or None)
    with DetectorPool(config.min_score, 0) as pool:
        # Always HOG, so that every machine measures with the same detector.
        spec = DetectorSpec("hog", config.landmarks)
        found = tracking.track_faces(frames, pool, spec, config.smooth)
        largest = ((frame, faces[:1]) for frame, faces in found)
        for frame, swaps in prepare_video(swapper, largest):
            if swaps:
                runs[-1].append(_moment(frame, matched(swaps[0], swapper.config), swapper))
            elif runs[-1]:
                runs.append([])
            on_progress(Progress(frame.index + 1, total, "frames"))
    longest = max(runs, key=len)
    if len(longest) < MIN_CLIP:
        raise NoFacesError(
            f"{clip}: flicker needs {MIN_CLIP} frames in a row that show a face, but the longest "
            f"such stretch has {len(longest)}"
        )
    originals, swapped, colors, placed = map(list, zip(*longest, strict=True))
    return flicker(originals, swapped, colors, placed)


def _moment(frame: Frame, swap: Swap, swapper: Swapper) -> _Moment:
    """Measure the face of a frame before and after its swap."""
    placed = swap.aligned.face.landmarks
    box = typical_box(placed)  # the detector's box would jump from frame to frame
    after = paste(frame, swap, swapper.config.blend).image
    colors = (mean_lab(swap.aligned.image, swap.mask), mean_lab(_in_crop(swap), swap.mask))
    own = swapper.config.landmarks
    return _measure(frame.image, box, own), _measure(after, box, own), colors, placed


def blur_decoder(config: ModelConfig) -> DecodeFaces:
    """Return a decoder that only blurs the crop, like an untrained model."""

    def decode_faces(crops: list[Image]) -> list[Image]:
        blurred = [cv2.GaussianBlur(crop, (0, 0), len(crop) / 12) for crop in crops]
        return [_square_of(np.asarray(crop, np.uint8), config) for crop in blurred]

    return decode_faces


def average_decoder(faceset: Faceset, trained: TrainedModel) -> DecodeFaces:
    """Return a decoder that always outputs a faceset's average face, whatever the expression."""
    config = trained.network.config
    mean_crop = sampling.network_crop(faceset.resized(config.crop_size).crops, config).mean(dim=0)
    average: Image = (mean_crop * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return lambda crops: [average] * len(crops)


def _square_of(crop: Image, config: ModelConfig) -> Image:
    """Cut the network crop, (size, size, 3), out of the middle of a face crop."""
    margin = round(len(crop) * (1 - config.view) / 2)
    inner = crop[margin : len(crop) - margin, margin : len(crop) - margin]
    side = (config.size, config.size)
    return np.asarray(cv2.resize(inner, side, interpolation=cv2.INTER_AREA), np.uint8)


@torch.no_grad()
def reconstruct(
    trained: TrainedModel, faceset: Faceset, identity: Identity, device: torch.device
) -> ReconstructionScores:
    """Measure how well a person's own decoder reproduces unseen faces of that person."""
    network = trained.network
    crops = faceset.resized(network.config.crop_size).crops
    batch = sampling.network_crop(crops, network.config).to(device)
    if identity == "a":
        batch = sampling.shift_color(batch, trained.color_shift)
    decoded = network(batch, identity)[:, :3].cpu().numpy()
    target = batch.cpu().numpy()
    options: dict[str, Any] = {"channel_axis": 0, "data_range": 1.0}
    pairs = list(zip(target, decoded, strict=True))
    return ReconstructionScores(
        ssim=mean(structural_similarity(t, p, win_size=7, **options) for t, p in pairs),  # type: ignore[no-untyped-call]
        psnr=mean(peak_signal_noise_ratio(t, p, data_range=1.0) for t, p in pairs),  # type: ignore[no-untyped-call]
        l1=mean(np.abs(t - p).mean() for t, p in pairs),
    )


class _Counter:
    """Reports how many of the faces have been measured."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items and count each when the next one is requested."""
        for item in items:
            yield item
            self.add(1)

    def add(self, count: int) -> None:
        self._done += count
        self._on_progress(Progress(self._done, self._total, "faces"))
