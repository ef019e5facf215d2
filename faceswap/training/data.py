"""What training begins with: facesets, settings and perhaps a saved state become a run."""

import copy
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faceswap.config import ModelName, TrainConfig
from faceswap.errors import InputError, ModelError, NoFacesError, SettingsError
from faceswap.faces.faceset import Faceset
from faceswap.faces.masks import outline
from faceswap.faces.recognition import centroid
from faceswap.models import autoencoder, modelfile, sampling
from faceswap.models.architectures import PRESETS, ModelConfig
from faceswap.models.autoencoder import Autoencoder
from faceswap.provenance.consent import Notes, merge_notes
from faceswap.training import augment
from faceswap.training.checkpoint import Faces, TrainingState
from faceswap.training.distributed import World
from faceswap.training.optimizer import RECIPES, Optimizer
from faceswap.types import Embedding, Identity, OnProgress, Progress, ignore_progress

MIN_FACES = 25
MAX_EMBEDDED_FACES = 32  # faces of a person whose mean embedding the model keeps, about 0.1 s each


def prepare(
    a: Path, b: Path, folder: Path, config: TrainConfig, state: dict[str, Any] | None,
    device: torch.device, on_progress: OnProgress = ignore_progress,
) -> tuple[TrainingState, Faces, Faces]:  # fmt: skip
    """A fresh run, and the faces that training sees and those that it does not.

    The persons' centroids are measured if the state holds none; it takes seconds.
    """
    other = (
        modelfile.load(Path(config.init_from)).network if config.init_from and not state else None
    )
    preset = _choose_model(config, state, folder, device, other)
    facesets: dict[Identity, Faceset] = {"a": _faces(a, preset), "b": _faces(b, preset)}
    if a.resolve() == b.resolve():
        raise SettingsError(f"a and b are both {a}: training needs the faces of two people")
    names = (facesets["a"].name, facesets["b"].name)
    if state and state["names"] not in (list(names), ["a", "b"]):
        raise SettingsError(
            f"{folder} was trained on {' and '.join(state['names'])}, not {' and '.join(names)}: "
            "give another --output, or --restart to begin again"
        )
    held_out = (state or {}).get("held_out") or {
        key: faceset.held_out(config.holdout) for key, faceset in facesets.items()
    }
    trained = {key: f.subset(held_out[key], inside=False) for key, f in facesets.items()}
    run = _start(preset, config, names, _color_shift(trained), device, other)
    run.held_out = held_out
    run.consent = _consent(config, state, {"a": a, "b": b}, folder)
    if not (state or {}).get("centroids"):
        run.centroids = _centroids(trained, on_progress)
    seen = {key: _with_masks(f, preset).to(device) for key, f in trained.items()}
    unseen = {key: f.subset(held_out[key]).crops.to(device) for key, f in facesets.items()}
    return run, seen, unseen


def _consent(
    config: TrainConfig, state: dict[str, Any] | None, facesets: dict[Identity, Path], folder: Path
) -> Notes:
    """What the model notes of consent."""
    given: dict[Identity, str | None] = {"a": config.consent_a, "b": config.consent_b}
    try:
        return merge_notes(given, (state or {}).get("consent"), facesets)
    except ValueError as error:
        raise ModelError(f"the resume state in {folder} is damaged: {error}") from error


def _centroids(
    facesets: dict[Identity, Faceset], on_progress: OnProgress
) -> dict[Identity, Embedding]:
    """Each person's mean embedding, of some of the faces that training sees."""
    some = {key: faceset.evenly(MAX_EMBEDDED_FACES) for key, faceset in facesets.items()}
    total, done = sum(len(faceset.keys) for faceset in some.values()), count(1)

    def embedded() -> None:
        on_progress(Progress(next(done), total, "faces", "embedded"))

    return {key: centroid(faceset, embedded) for key, faceset in some.items()}


def _with_masks(faceset: Faceset, preset: ModelConfig) -> Tensor:
    """The crops, and with a mask head the outlines of the faces as a fourth channel."""
    if not preset.mask_head:
        return faceset.crops
    size = faceset.crops.shape[-1]
    crops = faceset.crops.new_empty((len(faceset.crops), 4, size, size))
    crops[:, :3] = faceset.crops
    for crop, points in zip(crops, faceset.landmarks, strict=True):
        crop[3] = torch.from_numpy(outline(points, size) * 255)
    return crops


def _faces(folder: Path, preset: ModelConfig) -> Faceset:
    faceset = Faceset.read(folder, preset.crop_size)
    if len(faceset.crops) < MIN_FACES:
        raise NoFacesError(
            f"{folder} holds {len(faceset.crops)} faces; training needs at least {MIN_FACES} "
            "(some hundreds are better): extract more photos or a video"
        )
    if abs(faceset.coverage - preset.coverage) > 1e-6:
        raise InputError(
            f"{folder} has coverage {faceset.coverage}, the model needs {preset.coverage}: "
            "extract it again"
        )
    return faceset


def _choose_model(
    config: TrainConfig, state: dict[str, Any] | None, folder: Path, device: torch.device,
    other: Autoencoder | None,
) -> ModelConfig:  # fmt: skip
    """The architecture: what is there goes on; else what was asked; else what suits the device."""
    existing = ModelConfig.from_dict(state["model"]) if state else other.config if other else None
    if existing is None:
        suited: ModelName = "small" if device.type == "cpu" else "medium"
        preset = PRESETS[suited if config.model == "auto" else config.model]
        return preset.at_size(config.size) if config.size else preset
    if config.model not in ("auto", existing.name) or config.size not in (None, existing.size):
        asked = f"'{existing.name if config.model == 'auto' else config.model}'"
        asked += f" of {config.size} px" if config.size else ""
        what = (
            "give another --output, or --restart to begin again" if state
            else "only a model of the same kind and size can take its weights"
        )  # fmt: skip
        raise SettingsError(
            f"{folder if state else config.init_from} holds a model '{existing.name}' of "
            f"{existing.size} px, not {asked}: {what}"
        )
    return existing


def _color_shift(facesets: dict[Identity, Faceset]) -> tuple[float, float, float]:
    """Mean colour of b's faces minus a's, RGB in [0, 1], over the whole crops."""
    mean = {  # crop by crop: the whole set in float64 would take eight times its memory
        key: torch.stack([crop.double().mean(dim=(1, 2)) for crop in f.crops]).mean(0) / 255
        for key, f in facesets.items()
    }
    red, green, blue = (mean["b"] - mean["a"]).tolist()
    return red, green, blue


def _start(
    preset: ModelConfig,
    config: TrainConfig,
    names: tuple[str, str],
    color_shift: tuple[float, float, float],
    device: torch.device,
    other: Autoencoder | None,
) -> TrainingState:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = autoencoder.build(preset)
    if other:  # its bottleneck knows two other people
        fresh = {k: v for k, v in network.state_dict().items() if "latent" in k or k == "means"}
        network.load_state_dict(other.state_dict() | fresh)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RECIPES[preset.name]
    optimizer = Optimizer(network, recipe, config.learning_rate or recipe.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    run = TrainingState(network, optimizer, generator, names, color_shift)
    if recipe.average:
        run.average = copy.deepcopy(network).requires_grad_(False)
    return run


CROPS_PER_PASS = 64  # faces at a time when all of them are looked at


def training_pair(
    run: TrainingState, crops: Tensor, key: Identity, size: int, world: World, warp: bool = True,
    jitter: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The next ``size`` faces of an identity, warped and as they should come out.

    All processes of ``world`` draw the same numbers for all faces; each gets its part.

    Args:
        run: Gives the order of the faces, the random numbers, the model and the colour shift.
        crops: The identity's faces, (N, 3, S, S) uint8; a fourth channel is their masks.
        key: The identity.
        size: Faces in all processes together.
        world: The processes.
        warp: Whether to warp; without it only the small similarity changes remain.
        jitter: Standard deviation of the logarithm of a face's random light; 0: none.

    Returns:
        Two tensors (size / processes, channels, side, side) float32 in [0, 1], the first always of
        three channels.
    """
    mine = world.shard(size)
    indices = next_indices(run, key, len(crops), size)[mine]
    config = run.network.config
    noise = augment.draw_transform(size, run.generator).shard(mine)
    displacement = augment.draw_warp(size, run.generator)[mine] * warp
    matrices = augment.transform_matrices(noise, config.crop_size)
    picked = crops[indices.to(crops.device)]
    warped, target = augment.random_warp(picked, displacement, config, matrices)
    warped, target = colored(run, warped[:, :3], key), colored(run, target, key)
    if jitter:
        gain = augment.sample_gain(size, jitter, run.generator)[mine]
        warped, target = augment.apply_gain(warped, gain), augment.apply_gain(target, gain)
    return warped, target


def next_indices(run: TrainingState, key: str, count: int, size: int) -> Tensor:
    """Deal faces like cards: every face once, shuffled, before any comes again."""
    order = run.orders.get(key, torch.empty(0, dtype=torch.int64))
    order = order[order < count]  # the faceset may have shrunk since
    while len(order) < size:
        order = torch.cat([order, torch.randperm(count, generator=run.generator)])
    run.orders[key] = order[size:].clone()
    return order[:size]


def colored(run: TrainingState, images: Tensor, key: Identity) -> Tensor:
    """Give a's faces b's mean colour."""
    return sampling.shift_color(images, run.color_shift) if key == "a" else images


def network_crops(run: TrainingState, crops: Tensor, key: Identity) -> list[Tensor]:
    """What the network sees of all faces of an identity unwarped, in batches."""
    return [
        colored(run, sampling.network_crop(some[:, :3], run.network.config), key)
        for some in torch.split(crops, CROPS_PER_PASS)
    ]
