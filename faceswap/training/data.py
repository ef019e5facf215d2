"""Prepare a training run from facesets, settings and an optional saved state; make its batches."""

import copy
import logging
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from faceswap.arrays import Embedding
from faceswap.config import TrainConfig
from faceswap.crops.masks import outline
from faceswap.errors import InputError, ModelError, NoFacesError, SettingsError
from faceswap.facesets.faceset import Faceset, index_in, read_header, read_keys, weights_in
from faceswap.facesets.people import ONE_PERSON
from faceswap.facesets.recognition import centroid
from faceswap.facesets.weights import behind
from faceswap.models import autoencoder, modelfile, sampling
from faceswap.models.architectures import ModelConfig, preset_of
from faceswap.models.autoencoder import Autoencoder
from faceswap.models.refiner import scale_for
from faceswap.provenance.consent import Notes, merge_notes
from faceswap.training import augment, holdout
from faceswap.training.checkpoint import Faces, HeldOut, ResumeState, TrainingState
from faceswap.training.checks import warn_about_likeness, warn_about_people, warn_about_poses
from faceswap.training.companions import companions
from faceswap.training.dealing import deck_of
from faceswap.training.distributed import ALONE, World
from faceswap.training.optimizer import Optimizer, recipe_of
from faceswap.training.portraits import (
    Portraits,
    choose_exemplars,
    colored,
    guide_of,
    portraits,
)
from faceswap.types import Identity, OnProgress, Progress, counted, ignore_progress

log = logging.getLogger(__name__)

MIN_FACES = 25
LARGE_FACES = 384  # faces per person that the refiners learn from
MAX_EMBEDDED_FACES = 32  # faces per person for the centroid, about 0.1 s each


@dataclass(frozen=True, slots=True, eq=False)
class TrainingFaces:
    """The faces of both people, uint8, by identity.

    Attributes:
        seen: Crops to train on, (N, 3 or 4, S, S); the fourth channel is the face's outline.
        large: A sample of the same faces for the refiners.
        unseen: Held-out faces, at the size of these; may be empty.
        also: Crops of the companions, by name.
        decks: Numbers of the faces that are dealt in a pass, by identity, see :func:`deck_of`; each
            face once if it has none.
    """

    seen: Faces
    large: dict[Identity, Portraits]
    unseen: dict[Identity, Portraits]
    also: dict[str, Tensor] = field(default_factory=dict)
    decks: dict[str, Tensor] = field(default_factory=dict)


def prepare(
    a: Path, b: Path, folder: Path, config: TrainConfig, state: ResumeState | None,
    device: torch.device, on_progress: OnProgress = ignore_progress, world: World = ALONE,
) -> tuple[TrainingState, TrainingFaces]:  # fmt: skip
    """Build a run with initial weights, and load the faces.

    A saved state decides the architecture and the held-out faces here; its weights are loaded later
    by :func:`checkpoint.restore`. Centroids that no state holds are measured, which takes seconds.

    Args:
        a: Faceset folder of identity a.
        b: Faceset folder of identity b.
        folder: The model's folder, for error messages.
        config: Settings.
        state: The state to resume from; None starts a new run.
        device: Where the network and the faces go.
        on_progress: Called after each face that is measured for a centroid or compared with photos.
        world: The processes that train together.

    Returns:
        The run and the faces, on the device.

    Raises:
        InputError: If a folder is not a faceset, its coverage differs from the model's, a
            ``CONSENT.md`` cannot be read, or dlib's weights or the landmark model cannot be used.
        NoFacesError: If a person has fewer than MIN_FACES faces.
        ModelError: If the state or the model in ``config.init_from`` is missing or corrupt.
        SettingsError: If the settings contradict the state or the initial model, the facesets are
            exchanged or of other people than the state, the architecture is unknown, a folder is
            given twice, or a consent note is invalid.
    """
    init_network = (
        modelfile.load(Path(config.init_from)).network if config.init_from and not state else None
    )
    preset = _choose_model(config, state, folder, device, init_network)
    facesets: dict[Identity, Faceset] = {"a": _faces(a, preset), "b": _faces(b, preset)}
    if a.resolve() == b.resolve():
        raise SettingsError(f"a and b are both {a}: training needs the faces of two people")
    names = (facesets["a"].name, facesets["b"].name)
    also = {faceset.name: faceset for faceset in (_faces(Path(f), preset) for f in config.also)}
    if len({*also, *names}) < len(config.also) + len({*names}):
        raise SettingsError(
            f"--also needs people with names of their own besides {' and '.join(names)}, each "
            f"once, not {', '.join(config.also)}"
        )
    folders: dict[Identity, Path] = {"a": a, "b": b}
    if state and state.names not in (names, ("a", "b")):
        _check_renamed(state, folders, facesets, folder, config.landmarks)
    held_out, left_out = _unseen_keys(facesets, config, state)
    if state:
        _warn_about_unseen(facesets, held_out)
    trained = {
        key: f.subset({*held_out[key], *left_out[key]}, inside=False) for key, f in facesets.items()
    }
    run = _start(preset, config, names, _color_shift(trained), device, init_network, world)
    run.held_out, run.left_out = held_out, left_out
    run.weights = _weights_behind(config, [a, b, *map(Path, config.also)])
    recipe = recipe_of(preset.name)
    rate = config.learning_rate or recipe.learning_rate
    run.companions = companions(list(also), run.network, recipe, rate)
    run.consent = _consent(config, state, {"a": a, "b": b}, folder)
    if not (state and state.centroids):
        warn_about_people(trained)
        warn_about_poses(trained)
        run.centroids = _centroids(trained, config.landmarks, on_progress)
        warn_about_likeness(run.centroids)
    seen = {key: _with_masks(f, preset).to(device) for key, f in trained.items()}
    large, unseen = {}, {}
    exemplars = config.exemplars if recipe_of(preset.name).refine else 0
    samples = {key: _sample_of(faceset) for key, faceset in trained.items()}
    total, done = sum(len(samples[key]) + len(held_out[key]) for key in trained), count(1)

    def laid_over() -> None:
        on_progress(Progress(next(done), total, "faces", "compared with photos"))

    for key in trained:
        sample = _read_large(folders[key], samples[key], preset)
        guide, own = None, {}
        if exemplars:
            run.exemplars[key], chosen = choose_exemplars(sample, preset, exemplars)
            guide, own = guide_of(run.exemplars[key], preset), {k: i for i, k in enumerate(chosen)}
        masked = _with_masks(sample, preset)
        large[key] = portraits(sample, masked, preset, guide, own, config.seed, laid_over).to(
            device
        )
        present = facesets[key].subset(held_out[key])
        if present.keys:
            present = _read_large(folders[key], present.keys, preset)
        unseen[key] = portraits(
            present, present.crops, preset, guide, None, config.seed, laid_over
        ).to(device)
    crops = {name: _with_masks(faceset, preset).to(device) for name, faceset in also.items()}
    decks: dict[str, Tensor] = {}
    if recipe.even:
        decks = {key: deck_of(faceset.landmarks) for key, faceset in trained.items()}
    return run, TrainingFaces(seen, large, unseen, crops, decks)


def _sample_of(faceset: Faceset) -> list[str]:
    """Return the keys of the faces that the refiners learn from, with the chosen exemplars."""
    keys = faceset.evenly(LARGE_FACES).keys
    others = set(faceset.keys) - set(keys)
    return keys + [key for key in faceset.exemplars if key in others]


def _read_large(folder: Path, keys: list[str], preset: ModelConfig) -> Faceset:
    """Read faces at the refiner's resolution, or at the stored one if that is lower."""
    faceset = Faceset.read(folder, keys=keys)
    wanted = round(preset.size * scale_for(preset) / preset.view)
    stored = faceset.crops.shape[-1]
    return faceset.resized(max(min(stored, wanted), preset.crop_size))


def _check_renamed(
    state: ResumeState, folders: dict[Identity, Path], facesets: dict[Identity, Faceset],
    folder: Path, landmarks: str,
) -> None:  # fmt: skip
    """Refuse facesets of other people than those of a state, but not if only their folders differ.

    Two facesets may use the same file names, so both the faces' keys and the person must agree.

    Args:
        state: The state, which names other people.
        folders: The facesets' folders.
        facesets: Their faces.
        folder: The model's folder, for messages.
        landmarks: The choice of landmark models.

    Raises:
        SettingsError: If the facesets are exchanged, or not known to be those of the state.
    """
    names = tuple(faceset.name for faceset in facesets.values())
    if names == state.names[::-1]:
        raise SettingsError(
            f"a and b are the wrong way round: {folder} was trained with {state.names[0]} as a and "
            f"{state.names[1]} as b; pass --a {state.names[0]} --b {state.names[1]}"
        )
    renamed = []
    for before, (key, faceset) in zip(state.names, facesets.items(), strict=True):
        if faceset.name == before:
            continue
        if not _is_of_state(state, key, folders[key], faceset, landmarks):
            raise SettingsError(
                f"{folder} was trained on {' and '.join(state.names)}, not {' and '.join(names)}: "
                f"if {before} was renamed to {faceset.name}, rename it back; otherwise give "
                "another --output, or pass --restart to start over"
            )
        renamed.append(f"{before} is now {faceset.name}")
    log.warning("%s goes on with the same faces under other names: %s", folder, ", ".join(renamed))


def _is_of_state(
    state: ResumeState, key: Identity, folder: Path, faceset: Faceset, landmarks: str
) -> bool:
    """Return whether a faceset lists all faces that a state held out, and shows the same person."""
    held_out, known = state.held_out.get(key), state.centroids.get(key)
    if not held_out or known is None or not set(held_out) <= read_keys(folder).keys():
        return False
    found = centroid(faceset.evenly(MAX_EMBEDDED_FACES), choice=landmarks)
    return float(np.linalg.norm(found - known)) < ONE_PERSON


def _warn_about_unseen(facesets: dict[Identity, Faceset], held_out: HeldOut) -> None:
    """Warn if faces that training held out are missing when it goes on."""
    for key, faceset in facesets.items():
        wanted = held_out[key]
        present = len(set(wanted) & set(faceset.keys))
        if wanted and not present:
            log.warning(
                "%s: all %s that training held out were deleted, so it goes on without held-out "
                "scores and cannot be evaluated", faceset.name, counted(len(wanted), "face"),
            )  # fmt: skip
        elif present < len(wanted):
            log.warning(
                "%s: only %d of the %s that training held out are left for held-out scores",
                faceset.name, present, counted(len(wanted), "face"),
            )  # fmt: skip


def _unseen_keys(
    facesets: dict[Identity, Faceset], config: TrainConfig, state: ResumeState | None
) -> tuple[HeldOut, HeldOut]:
    """Return the keys of the faces to hold out, and of those that resemble them too much.

    A run keeps the choice that it began with.
    """
    if state and state.held_out:
        return state.held_out, state.left_out
    splits = {key: holdout.split(faceset, config.holdout) for key, faceset in facesets.items()}
    return (
        {key: chosen.held_out for key, chosen in splits.items()},
        {key: chosen.left_out for key, chosen in splits.items()},
    )


def _weights_behind(config: TrainConfig, folders: list[Path]) -> tuple[str, ...]:
    """Return the names of the weights behind the facesets and this training."""
    found = set(behind(config))
    for folder in folders:
        found.update(weights_in(read_header(index_in(folder))))
    return tuple(sorted(found))


def _consent(
    config: TrainConfig, state: ResumeState | None, facesets: dict[Identity, Path], folder: Path
) -> Notes:
    """Merge the consent notes of the settings, the state and the faceset folders."""
    given: dict[Identity, str | None] = {"a": config.consent_a, "b": config.consent_b}
    try:
        return merge_notes(given, state.consent if state else None, facesets)
    except ValueError as error:
        raise ModelError(f"the resume state in {folder} is corrupt: {error}") from error


def _centroids(
    facesets: dict[Identity, Faceset], landmarks: str, on_progress: OnProgress
) -> dict[Identity, Embedding]:
    """Measure each person's mean face embedding over a sample of the training faces."""
    samples = {key: faceset.evenly(MAX_EMBEDDED_FACES) for key, faceset in facesets.items()}
    total, done = sum(len(faceset.keys) for faceset in samples.values()), count(1)

    def embedded() -> None:
        on_progress(Progress(next(done), total, "faces", "embedded"))

    return {key: centroid(faceset, embedded, landmarks) for key, faceset in samples.items()}


def _with_masks(faceset: Faceset, preset: ModelConfig) -> Tensor:
    """Return the crops, with face masks as a fourth channel if the model has a mask head."""
    if not preset.mask_head:
        return faceset.crops
    size = faceset.crops.shape[-1]
    crops = faceset.crops.new_empty((len(faceset.crops), 4, size, size))
    crops[:, :3] = faceset.crops
    for number, crop in enumerate(crops):
        crop[3] = torch.from_numpy(faceset.mask(number))
    return crops


def _faces(folder: Path, preset: ModelConfig) -> Faceset:
    faceset = Faceset.read(folder, preset.crop_size)
    if len(faceset.crops) < MIN_FACES:
        raise NoFacesError(
            f"{folder} holds {counted(len(faceset.crops), 'face')}; training needs at least "
            f"{MIN_FACES} (several hundred are better): extract more photos or a video"
        )
    if abs(faceset.coverage - preset.coverage) > 1e-6:
        raise InputError(
            f"{folder} has coverage {faceset.coverage}, but the model needs {preset.coverage}: "
            "extract the faces again"
        )
    return faceset


def _choose_model(
    config: TrainConfig, state: ResumeState | None, folder: Path, device: torch.device,
    init_network: Autoencoder | None,
) -> ModelConfig:  # fmt: skip
    """Choose the architecture: the existing model's, else the configured or the device's default.

    The existing model is the state to resume from, or the initial model.
    """
    existing = init_network.config if init_network else None
    existing = state.model if state else existing
    if existing is None:
        default = "small" if device.type == "cpu" else "medium"
        preset = preset_of(default if config.model == "auto" else config.model)
        return preset.at_size(config.size) if config.size else preset
    if config.model not in ("auto", existing.name) or config.size not in (None, existing.size):
        asked = f"'{existing.name if config.model == 'auto' else config.model}'"
        asked += f" of {config.size} px" if config.size else ""
        advice = (
            "give another --output, or pass --restart to start over" if state
            else "leave out --model and --size, which must match the model to start from"
        )  # fmt: skip
        raise SettingsError(
            f"{folder if state else config.init_from} holds a model '{existing.name}' of "
            f"{existing.size} px, not {asked}: {advice}"
        )
    return existing


def _color_shift(facesets: dict[Identity, Faceset]) -> tuple[float, float, float]:
    """Return the mean colour of b's faces minus that of a's, without backgrounds, in [0, 1]."""
    mean = {key: _mean_color(faceset) for key, faceset in facesets.items()}
    red, green, blue = (mean["b"] - mean["a"]).tolist()
    return red, green, blue


def _mean_color(faceset: Faceset) -> Tensor:
    """Return the mean over all faces of the mean colour inside the face, RGB (3,) in [0, 1]."""
    size, colors = faceset.crops.shape[-1], []
    for crop, points in zip(faceset.crops, faceset.landmarks, strict=True):
        inside = torch.from_numpy(outline(points, size) > 0)
        # The landmarks of a face at the edge of a photo may lie outside the crop.
        pixels = crop[:, inside] if inside.any() else crop.flatten(1)
        colors.append(pixels.double().mean(dim=1) / 255)
    return torch.stack(colors).mean(dim=0)


def _start(
    preset: ModelConfig,
    config: TrainConfig,
    names: tuple[str, str],
    color_shift: tuple[float, float, float],
    device: torch.device,
    init_network: Autoencoder | None,
    world: World,
) -> TrainingState:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = autoencoder.build(preset)
    if init_network:  # keep the fresh bottleneck, as the trained one is specific to other people
        fresh = {
            k: v
            for k, v in network.state_dict().items()
            if "latent" in k or k in autoencoder.STATISTICS
        }
        network.load_state_dict(init_network.state_dict() | fresh)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = recipe_of(preset.name)
    optimizer = Optimizer(network, recipe, config.learning_rate or recipe.learning_rate, world)
    generator = torch.Generator().manual_seed(config.seed)
    run = TrainingState(network, optimizer, generator, names, color_shift)
    if recipe.average:
        run.average = copy.deepcopy(network).requires_grad_(False)
    return run


CROPS_PER_PASS = 64  # faces in one forward pass outside training; bounds its memory


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The random numbers of a batch. The faces are sampled where these tensors are.

    Attributes:
        indices: Numbers of the faces, (B,) int64.
        places: From :func:`augment.places`, (B, 56).
        gain: Gains of red, green and blue, (B, 3); None changes no colours.
    """

    indices: Tensor
    places: Tensor
    gain: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Return the tensors without None, in an order that :meth:`of` takes."""
        return [self.indices, self.places, *([] if self.gain is None else [self.gain])]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Self:
        """Take the tensors of a draw."""
        return cls(tensors[0], tensors[1], tensors[2] if len(tensors) > 2 else None)

    def to(self, device: torch.device) -> Self:
        """Copy the numbers to a device without waiting for it."""
        return self.of([sampling.upload(each, device) for each in self.tensors()])


def draw_batch(
    run: TrainingState, deck: Tensor, key: str, size: int, world: World, warp: bool = True,
    jitter: float = 0.0, flip: bool = True,
) -> Draw:  # fmt: skip
    """Draw the random numbers of the next batch of an identity.

    Every process draws the random numbers of the whole batch and keeps those of its own shard.

    Args:
        run: Provides the order of the faces, the generator and the model.
        deck: Numbers of the identity's faces to deal in a pass.
        key: The identity, or "also/" and the name of a companion.
        size: Batch size over all processes.
        world: The processes that train together.
        warp: Whether to warp the inputs; small similarity transforms are always applied.
        jitter: Standard deviation of the log of a face's random colour gain; 0 disables it.
        flip: Whether some faces are mirrored.
    """
    shard = world.shard(size)
    indices = next_indices(run, key, deck, size)[shard]
    config = run.network.config
    noise = augment.draw_transform(size, run.generator).shard(shard)
    noise = noise if flip else replace(noise, flip=torch.zeros_like(noise.flip))
    displacement = augment.draw_warp(size, run.generator)[shard] * warp
    matrices = augment.transform_matrices(noise, config.crop_size)
    gain = augment.sample_gain(size, jitter, run.generator)[shard] if jitter else None
    return Draw(indices, augment.places(displacement, config, matrices), gain)


def sample_batch(run: TrainingState, crops: Tensor, key: str, draw: Draw) -> tuple[Tensor, Tensor]:
    """Sample a batch of an identity: warped inputs and their targets.

    Args:
        run: Provides the model and the colour shift.
        crops: The identity's faces, (N, 3, S, S) uint8, or (N, 4, S, S) with masks.
        key: See :func:`draw_batch`.
        draw: The random numbers, on the device of the crops.

    Returns:
        Inputs (B, 3, side, side) and targets (B, 3 or 4, side, side), float32 in [0, 1].
    """
    warped, target = augment.sample_pair(crops[draw.indices], draw.places, run.network.config)
    warped, target = colored(run, warped[:, :3], key), colored(run, target, key)
    if draw.gain is not None:
        warped = augment.apply_gain(warped, draw.gain)
        target = augment.apply_gain(target, draw.gain)
    return warped, target


def next_indices(run: TrainingState, key: str, deck: Tensor, size: int) -> Tensor:
    """Draw the next ``size`` face numbers of a deck that is shuffled for each pass."""
    order = run.orders.get(key, torch.empty(0, dtype=torch.int64))
    order = order[order <= deck.max()]  # the faceset may have shrunk since the last run
    while len(order) < size:
        order = torch.cat([order, deck[torch.randperm(len(deck), generator=run.generator)]])
    run.orders[key] = order[size:].clone()
    return order[:size]


def network_crops(run: TrainingState, crops: Tensor, key: Identity) -> list[Tensor]:
    """Return the unwarped network crops of an identity's faces, in batches.

    Args:
        run: The training state.
        crops: The identity's faces, (N, 3 or 4, S, S) uint8.
        key: The identity.
    """
    return [
        colored(run, sampling.network_crop(batch[:, :3], run.network.config), key)
        for batch in torch.split(crops, CROPS_PER_PASS)
    ]
