"""Evaluate: a model and two facesets -> numbers that say how good its swaps are.

Only faces that training has not seen are measured. Beside the model stand baselines that need no
swap: a blur, the other person's average face, the footage, each person's own decoder, the network's
resolution, and real faces.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

from faceswap.arrays import LUMA, Embedding, Image, Mask, Points
from faceswap.config import ConvertConfig, EvaluateConfig, identity_name
from faceswap.crops import eyes
from faceswap.crops.masks import DECODED_MASKS, hull_of
from faceswap.errors import InputError, NoFacesError, SettingsError
from faceswap.evaluation import flicker as clips
from faceswap.evaluation import report, texture
from faceswap.evaluation.bootstrap import mean_of
from faceswap.evaluation.flicker import Boiling, Moment
from faceswap.evaluation.metrics import (
    EYES_AND_BROWS,
    JAW,
    MOUTH,
    FaceMeasurement,
    IdentityScale,
    Scorer,
    Seam,
    mean_lab,
    measure_face,
    nme,
    seam,
)
from faceswap.evaluation.occluders import occlude
from faceswap.evaluation.report import Sample
from faceswap.evaluation.results import (
    Baselines,
    DirectionScores,
    EvaluationReport,
    FlickerScores,
    OcclusionScores,
    ReconstructionRows,
    ReconstructionScores,
    SwapScores,
)
from faceswap.evaluation.texture import Area
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import AlignedFace, Face, invert, typical_box, warp_mask
from faceswap.faces.landmarks import predict
from faceswap.faces.pool import DetectorPool
from faceswap.facesets.faceset import Faceset, evenly, index_in, read_header, read_keys
from faceswap.facesets.recognition import centroid, pictures_of
from faceswap.files import write_bytes
from faceswap.media import sources
from faceswap.media.footage import video_at
from faceswap.media.frame import Frame, rounded
from faceswap.models import devices, modelfile, sampling
from faceswap.models.architectures import ModelConfig
from faceswap.models.modelfile import TrainedModel
from faceswap.swapping.compositor import Swap, alpha, paste
from faceswap.swapping.explicit import refuse_explicit_frames
from faceswap.swapping.outputs import refuse_existing
from faceswap.swapping.painter import DecodeFaces, FaceDecoder
from faceswap.swapping.render import matched
from faceswap.swapping.swapper import Swapper, prepare_video
from faceswap.tracking import tracker
from faceswap.training import checkpoint
from faceswap.types import DIRECTIONS, Identity, OnProgress, Progress, counted, ignore_progress

log = logging.getLogger(__name__)

CENTROID_FACES = 150  # training faces whose embeddings are averaged
MIN_CLIP = 8  # consecutive frames needed to measure flicker
UNTOUCHED_SEAM = Seam(0.0, 0.0, 0.0, 1.0)  # of an unswapped face
OCCLUDED_FACES = 24  # faces that synthetic occluders are put on
UNCHANGED = 8  # levels that a pixel of an occluder may change, so that no eye sees it
REGION_GROWTH = 0.04  # width added around the landmarks of eyes and mouth, as a share of the crop
SSIM_WINDOW = 7  # pixels


@dataclass(frozen=True, slots=True, eq=False)
class _Original:
    """An unseen face and its measurements."""

    image: Image  # (256, 256, 3)
    near: Points
    placed_by: str
    area: Area
    measured: FaceMeasurement


@dataclass(frozen=True, slots=True, eq=False)
class _Swapped:
    """One replaced face and its measurements."""

    pasted: Image  # the crop with the new face pasted in
    measured: FaceMeasurement
    seam: Seam


@dataclass(frozen=True, slots=True, eq=False)
class _Person:
    """The measurements of a person that both directions share."""

    keys: list[str]
    originals: list[_Original]
    own_decoder: list[_Swapped]
    limit: list[_Swapped]
    real: list[FaceMeasurement]  # of faces that training has seen

    @property
    def measured(self) -> list[FaceMeasurement]:
        return [original.measured for original in self.originals]

    @property
    def embeddings(self) -> list[Embedding]:
        return [original.measured.embedding for original in self.originals]


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
        ExplicitFootageError: If the clip looks sexually explicit.
        InputError: If a folder is not a faceset, or the clip cannot be read.
        ModelError: If the model cannot be read.
        NoFacesError: If a faceset has no held-out faces, or the clip too few frames with a face.
        SettingsError: If a and b are exchanged.
        OutputError: If the page cannot be written, or exists and ``config.overwrite`` is not set.
    """
    config = config or EvaluateConfig()
    if html and not config.overwrite:
        refuse_existing({"html": Path(html)}, "another file")
    device = devices.resolve_device(config.device)
    trained = modelfile.load(Path(model), device)
    folders: dict[Identity, Path] = {"a": Path(a), "b": Path(b)}
    listed: dict[Identity, dict[str, bool]] = {key: read_keys(f) for key, f in folders.items()}
    _refuse_exchanged(folders, listed, trained)
    unseen, known = {}, {}
    for key, faces in folders.items():
        not_seen = [*trained.held_out[key], *trained.left_out[key]]
        unseen[key] = _read(faces, _unseen(faces, listed[key], key, trained, config))
        known[key] = _read(faces, _known(listed[key], not_seen))
    # Of each person: originals, own decoder, limit, real faces; then swaps, blur and average.
    counter = _Counter(on_progress, 7 * sum(len(f.keys) for f in unseen.values()))
    people = {
        key: _measure_person(trained, key, unseen[key], known[key], config, device, counter)
        for key in folders
    }
    centroids = {key: centroid(f, choice=config.landmarks) for key, f in known.items()}
    samples: dict[str, list[Sample]] = {}
    swapped: dict[Identity, DirectionScores] = {}
    for own, other in DIRECTIONS:
        scale = IdentityScale(
            centroids[own], centroids[other], people[own].embeddings, people[other].embeddings
        )
        scorer = Scorer(scale, people[other].measured)
        rows = _unswapped_rows(scorer, people[own], people[other])
        for name, decoder in _decoders(trained, known[other]).items():
            swapper = Swapper(trained, _settings(config, other, decoder), device, decoder)
            swaps = [_swap(swapper, face) for face in counter.each(people[own].originals)]
            rows[name] = _scores(scorer, swaps, people[own], swaps)
            if not decoder:
                direction = f"{own}_to_{other}"
                samples[direction] = _samples(direction, people[own], swaps, scale)
        of_model = rows.pop("model")
        fields = {name: getattr(of_model, name) for name in SwapScores.__slots__}
        swapper = Swapper(trained, _settings(config, other), device)
        swapped[own] = DirectionScores(
            **fields,
            baselines=Baselines(**rows),
            occlusion=measure_occlusion(swapper, people[own].originals),
        )
    found = EvaluationReport(
        names=trained.names,
        steps=trained.step,
        identity_strength=config.identity_strength,
        faces={key: len(faceset.crops) for key, faceset in unseen.items()},
        a_to_b=swapped["a"],
        b_to_a=swapped["b"],
        a_to_a=_reconstruction(people["a"]),
        b_to_b=_reconstruction(people["b"]),
    )
    if clip:
        swapper = Swapper(trained, _settings(config, "b"), device)
        found = replace(found, flicker=measure_clip(Path(clip), swapper, config, on_progress))
    if html:
        folder = Path(model) if Path(model).is_dir() else Path(model).parent
        page = report.page(found, samples, folder / checkpoint.METRICS_FILE)
        write_bytes(Path(html), page.encode(errors="replace"))
    return found


def _refuse_exchanged(
    folders: dict[Identity, Path], keys: dict[Identity, dict[str, bool]], trained: TrainedModel
) -> None:
    """Refuse the facesets of the model with a and b exchanged, judged by name or by their keys.

    Args:
        folders: The facesets' folders.
        keys: The keys of all their faces.
        trained: The model.

    Raises:
        SettingsError: If they are exchanged.
    """
    a, b = folders["a"], folders["b"]
    names = (identity_name(a), identity_name(b))
    crossed = all(
        trained.held_out[own] and not keys[own].keys() & trained.held_out[own]
        and keys[other].keys() & trained.held_out[own]
        for own, other in DIRECTIONS
    )  # fmt: skip
    if crossed or (names[0] != names[1] and names == trained.names[::-1]):
        raise SettingsError(
            f"a and b are the wrong way round: the model's a is {trained.names[0]} and its b is "
            f"{trained.names[1]}; pass --a {b} --b {a}"
        )


def _read(folder: Path, keys: list[str]) -> Faceset:
    """Read some faces of a faceset, at the size of the measurements."""
    stored = read_header(index_in(folder))["size"]
    read = Faceset.read(folder, min(stored, texture.SIZE), set(keys))
    return read.resized(texture.SIZE)


def _unseen(
    folder: Path, present: dict[str, bool], key: Identity, trained: TrainedModel,
    config: EvaluateConfig,
) -> list[str]:  # fmt: skip
    """Return the held-out faces, or as many of them as the settings ask for, evenly spaced.

    Args:
        folder: The faceset's folder.
        present: The keys of the faceset, and whether their crops exist.
        key: The identity.
        trained: The model.
        config: Settings.

    Raises:
        NoFacesError: If there are none.
    """
    held_out = trained.held_out[key]
    if not held_out:
        raise NoFacesError(
            f"training held out no faces of {trained.names[key == 'b']}, so there are none to "
            "measure: train a new model with train --holdout 0.1"
        )
    name = identity_name(folder)
    wanted = set(held_out)
    found = [face for face, exists in present.items() if exists and face in wanted]
    if found:
        if len(found) < len(held_out):
            log.warning(
                "%s: measuring %d of the %s that training held out; the others were deleted",
                folder, len(found), counted(len(held_out), "face"),
            )  # fmt: skip
        return evenly(found, config.faces) if config.faces else found
    if wanted & present.keys():
        raise NoFacesError(
            f"the crops of all {counted(len(held_out), 'face')} of {name} that training held out "
            "were deleted, and only those can be measured: restore them, or train a new model"
        )
    raise NoFacesError(
        f"{name} contains none of the {counted(len(held_out), 'face')} that training held out: "
        "give the faceset that the model was trained on (see train --holdout)"
    )


def _known(present: dict[str, bool], not_seen: list[str]) -> list[str]:
    """Return about 150 of the faces that training has seen, or of all faces if it has seen none."""
    faces, left = [face for face, exists in present.items() if exists], set(not_seen)
    seen = [face for face in faces if face not in left] or faces
    return seen[:: max(len(seen) // CENTROID_FACES, 1)]


def _measure_person(
    trained: TrainedModel,
    key: Identity,
    unseen: Faceset,
    known: Faceset,
    config: EvaluateConfig,
    device: torch.device,
    counter: "_Counter",
) -> _Person:
    """Measure a person's faces: unseen ones, reproductions of these, and known ones."""
    view = trained.network.config.view
    originals = [
        _original(*picture, view, config.landmarks) for picture in counter.each(pictures_of(unseen))
    ]
    decoders: dict[str, DecodeFaces] = {
        "own": FaceDecoder(trained, key, 0.0, 0.0, device, of=key),
        "limit": limit_decoder(trained.network.config),
    }
    replaced = {}
    for name, decoder in decoders.items():
        plain = replace(_settings(config, key, decoder), color="none")
        swapper = Swapper(trained, plain, device, decoder)
        replaced[name] = [_swap(swapper, face) for face in counter.each(originals)]
    seen = known.evenly(len(unseen.keys))
    real = [_original(*picture, view, config.landmarks).measured for picture in pictures_of(seen)]
    counter.add(len(originals))
    return _Person(unseen.keys, originals, replaced["own"], replaced["limit"], real)


def _original(image: Image, near: Points, placed_by: str, view: float, landmarks: str) -> _Original:
    points = predict(image, near, landmarks, placed_by)
    area = texture.area_of(points, view)
    embedding = compute_embedding(image, points)
    measured = measure_face(image, points, embedding, area, points)
    return _Original(image, near, placed_by, area, measured)


def _unswapped_rows(scorer: Scorer, own: _Person, other: _Person) -> dict[str, SwapScores]:
    """Score the baselines that no face decoder makes."""
    footage = [_Swapped(o.image, o.measured, UNTOUCHED_SEAM) for o in own.originals]
    return {
        "footage": _scores(scorer, footage, own, footage),
        "own_decoder": _scores(scorer, other.own_decoder, own, own.own_decoder),
        "limit": _scores(scorer, other.limit, own, own.limit),
        "real": scorer.scores(other.real, [], []),
    }


def _scores(
    scorer: Scorer, looks: list[_Swapped], footage: _Person, replaced: list[_Swapped]
) -> SwapScores:
    """Score how faces look beside real ones, and how replaced faces follow their footage."""
    return scorer.scores(
        [face.measured for face in looks],
        list(zip(footage.measured, [face.measured for face in replaced], strict=True)),
        [face.seam for face in replaced],
    )


def _settings(
    config: EvaluateConfig, to: Identity, decoder: DecodeFaces | None = None
) -> ConvertConfig:
    """Return the settings of swaps; only the model itself decodes a mask and matches detail."""
    hull = decoder is not None and config.mask in DECODED_MASKS
    return ConvertConfig(
        to=to,
        color=config.color,
        mask="hull" if hull else config.mask,
        identity_strength=config.identity_strength,
        expression_range=config.expression_range,
        smooth=config.smooth,
        match_detail=decoder is None,  # it would sharpen a blur
        landmarks=config.landmarks,
    )


def _prepared(swapper: Swapper, image: Image, points: Points) -> tuple[Frame, Swap]:
    """Swap the face in a crop, given its landmarks."""
    frame = Frame(image, 0, Fraction(0), Path("crop"))
    ((swap,),) = swapper.prepare([(frame, [Face(typical_box(points), 1.0, points)])])
    return frame, matched(swap, swapper.config)


def _swap(swapper: Swapper, face: _Original) -> _Swapped:
    """Swap an unseen face and measure the result."""
    before = face.measured.landmarks
    frame, swap = _prepared(swapper, face.image, before)
    pasted = paste(frame, swap, swapper.config.blend).image
    points = predict(pasted, face.near, swapper.config.landmarks, face.placed_by)
    embedding = compute_embedding(pasted, points)
    return _Swapped(
        pasted,
        measure_face(pasted, points, embedding, face.area, before),
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
    direction: str, person: _Person, swaps: list[_Swapped], scale: IdentityScale
) -> list[Sample]:
    """Return the model's swaps as the page shows them."""
    return [
        Sample(
            key=key,
            direction=direction,
            original=face.image,
            swapped=swap.pasted,
            identity=scale.scaled(swap.measured.embedding),
            nme=nme(face.measured.landmarks, swap.measured.landmarks),
        )
        for key, face, swap in zip(person.keys, person.originals, swaps, strict=True)
    ]


def _in_crop(swap: Swap) -> Image:
    """Return the aligned crop with the swap pasted in."""
    below, above = swap.aligned.image.astype(np.float32), swap.image.astype(np.float32)
    return rounded(alpha(below, above, swap.mask))


def measure_occlusion(swapper: Swapper, faces: list[_Original]) -> OcclusionScores:
    """Put synthetic occluders in front of faces and measure what a swap leaves of them.

    The landmarks are those of the face without the occluder, so only the mask is measured.
    """
    kept, lost, overlaps = [], [], []
    step = max(len(faces) // OCCLUDED_FACES, 1)
    chosen = faces[::step][:OCCLUDED_FACES]
    for number, face in enumerate(chosen):
        points = face.measured.landmarks
        hidden = occlude(face.image, points, number)
        clear_frame, clear_swap = _prepared(swapper, face.image, points)
        frame, swap = _prepared(swapper, hidden.image, points)
        inside = _mask_in_frame(clear_swap, clear_frame) > 0.5
        left = inside & (_mask_in_frame(swap, frame) <= 0.5)
        occluder = inside & (hidden.occluder > 0.5)
        beside = inside & (hidden.occluder < 0.01)
        if not occluder.any() or not beside.any():
            continue
        pasted = paste(frame, swap, swapper.config.blend).image
        change = np.abs(pasted.astype(int) - hidden.image).max(axis=2)
        kept.append(float((change[occluder] < UNCHANGED).mean()))
        lost.append(float(left[beside].mean()))
        overlaps.append(float((left & occluder).sum() / (left | occluder).sum()))
    return OcclusionScores(len(kept), mean_of(kept), mean_of(lost), mean_of(overlaps))


def _mask_in_frame(swap: Swap, frame: Frame) -> Mask:
    height, width = frame.shape
    return warp_mask(swap.mask, invert(swap.aligned.matrix), width, height)


def measure_clip(
    clip: Path, swapper: Swapper, config: EvaluateConfig, on_progress: OnProgress
) -> FlickerScores:
    """Swap the largest face in each frame of a clip and measure the flicker.

    Raises:
        ExplicitFootageError: If the clip looks sexually explicit.
        InputError: If the clip cannot be read.
        NoFacesError: If fewer than 8 consecutive frames show a face.
    """
    if sources.kind_of(clip) != "video":
        raise InputError(f"{clip} is not a video; --clip needs one")
    runs: list[list[Moment]] = [[]]  # stretches of frames without a gap
    footage = video_at(clip)
    total = config.clip_frames or footage.probe().frames or None
    frames = islice(footage.read(), config.clip_frames or None)
    seen = islice(footage.read(), config.clip_frames or None)
    refuse_explicit_frames(
        clip, ((frame, True) for frame in seen), footage.number_of, total, on_progress
    )
    with DetectorPool(config.min_score, 0, config.landmarks) as pool:
        spec = DetectorSpec("auto", config.landmarks)
        found = tracker.track_faces(frames, pool, spec, config.smooth)
        largest = ((frame, faces[:1]) for frame, faces in found)
        previous: tuple[Image, Image] | None = None
        for frame, swaps in prepare_video(swapper, largest):
            if swaps:
                swap = matched(swaps[0], swapper.config)
                moment, previous = _moment(frame, swap, swapper, previous)
                runs[-1].append(moment)
            elif runs[-1]:
                runs.append([])
                previous = None
            on_progress(Progress(frame.index + 1, total, "frames"))
    longest = max(runs, key=len)
    if len(longest) < MIN_CLIP:
        raise NoFacesError(
            f"{clip}: flicker needs {MIN_CLIP} frames in a row that show a face, but the longest "
            f"such stretch has {len(longest)}"
        )
    return clips.flicker(longest)


def _moment(
    frame: Frame, swap: Swap, swapper: Swapper, previous: tuple[Image, Image] | None
) -> tuple[Moment, tuple[Image, Image]]:
    """Measure the face of a frame before and after its swap, given the previous frame's images."""
    placed, placed_by = swap.aligned.face.landmarks, swap.aligned.face.placed_by
    images = frame.image, paste(frame, swap, swapper.config.blend).image
    choice = swapper.config.landmarks
    points = [predict(image, placed, choice, placed_by) for image in images]
    gazes = [eyes.gaze(eyes.irises(*pair)) for pair in zip(images, points, strict=True)]
    boiling: tuple[Boiling, Boiling] | None = None
    if previous:
        boiling = (
            clips.boiling(previous[0], images[0], placed),
            clips.boiling(previous[1], images[1], placed),
        )
    moment = Moment(
        placed,
        (points[0], points[1]),
        (compute_embedding(images[0], points[0]), compute_embedding(images[1], points[1])),
        (mean_lab(swap.aligned.image, swap.mask), mean_lab(_in_crop(swap), swap.mask)),
        (gazes[0], gazes[1]),
        boiling,
    )
    return moment, images


def blur_decoder(config: ModelConfig) -> DecodeFaces:
    """Return a decoder that only blurs the crop, like an untrained model."""

    def decode_faces(faces: list[AlignedFace]) -> list[Image]:
        blurred = [cv2.GaussianBlur(f.image, (0, 0), len(f.image) / 12) for f in faces]
        return [_square_of(np.asarray(crop, np.uint8), config) for crop in blurred]

    return decode_faces


def average_decoder(faceset: Faceset, trained: TrainedModel) -> DecodeFaces:
    """Return a decoder that always gives a person's average face: the identity, no expression."""
    config = trained.network.config
    mean_crop = sampling.network_crop(faceset.resized(config.crop_size).crops, config).mean(dim=0)
    average: Image = (mean_crop * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return lambda faces: [average] * len(faces)


def _square_of(crop: Image, config: ModelConfig) -> Image:
    """Cut the network crop, (size, size, 3), out of the middle of a face crop."""
    margin = round(len(crop) * (1 - config.view) / 2)
    inner = crop[margin : len(crop) - margin, margin : len(crop) - margin]
    side = (config.size, config.size)
    return np.asarray(cv2.resize(inner, side, interpolation=cv2.INTER_AREA), np.uint8)


def limit_decoder(config: ModelConfig) -> DecodeFaces:
    """Return a decoder that only loses what a network of this size cannot show."""
    return lambda faces: [_square_of(face.image, config) for face in faces]


def _reconstruction(person: _Person) -> ReconstructionRows:
    """Compare a person's unseen faces with what their decoder and its size make of them."""
    return ReconstructionRows(
        _reconstruction_scores(person.originals, person.own_decoder),
        _reconstruction_scores(person.originals, person.limit),
    )


def _reconstruction_scores(
    originals: list[_Original], replaced: list[_Swapped]
) -> ReconstructionScores:
    found: dict[str, list[float]] = {}
    for face, again in zip(originals, replaced, strict=True):
        error = (face.image.astype(np.float64) - again.pasted)[face.area] / 255
        similarity = _ssim_map(face.image, again.pasted)
        numbers = {"l1": float(np.abs(error).mean()) if error.size else np.nan}
        squares = float((error**2).mean()) if error.size else np.nan
        numbers["psnr"] = -10 * float(np.log10(max(squares, 1e-12)))
        for name, region in _regions(face).items():
            numbers[name] = float(similarity[region].mean()) if region.any() else np.nan
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    return ReconstructionScores(**{name: mean_of(values) for name, values in found.items()})


def _ssim_map(one: Image, two: Image) -> Mask:
    """Structural similarity of luma at each pixel, (S, S)."""
    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        one @ LUMA, two @ LUMA, win_size=SSIM_WINDOW, data_range=255.0, full=True
    )
    return np.asarray(similarity, np.float32)


def _regions(face: _Original) -> dict[str, Area]:
    """Return the parts of a face over which the similarity is averaged."""
    points = face.measured.landmarks
    size = len(face.image)
    width = 2 * round(REGION_GROWTH * size) + 1

    def hull(part: list[int] | slice) -> Area:
        drawn = hull_of(points[part], size, size)
        grown: Area = (cv2.dilate(drawn, np.ones((width, width))) > 0) & face.area
        return grown

    line = np.zeros((size, size), np.uint8)
    cv2.polylines(line, [points[JAW].round().astype(np.int32)], False, 1, 2 * width)
    both_eyes, mouth = hull(EYES_AND_BROWS), hull(MOUTH)
    jaw = (line > 0) & face.area & ~both_eyes & ~mouth
    return {
        "ssim": face.area,
        "ssim_eyes": both_eyes,
        "ssim_mouth": mouth,
        "ssim_jaw": jaw,
        "ssim_skin": face.area & ~both_eyes & ~mouth & ~jaw,
    }


T = TypeVar("T")


class _Counter:
    """Reports how many of the faces have been measured."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def each(self, items: list[T]) -> Iterator[T]:
        """Yield items and count each when the next one is requested."""
        for item in items:
            yield item
            self.add(1)

    def add(self, count: int) -> None:
        self._done += count
        self._on_progress(Progress(self._done, self._total, "faces"))
