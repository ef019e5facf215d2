"""Faces at the refiners' resolution, and the photos whose detail guides the refiners."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.arrays import LUMA, Image, Points
from faceswap.crops import eyes, masks
from faceswap.crops.guidance import Guide, Look, to_view
from faceswap.faces.landmarks import predict_again
from faceswap.facesets.faceset import Faceset
from faceswap.models import sampling
from faceswap.models.architectures import ModelConfig
from faceswap.models.exemplars import Exemplars, identity_map
from faceswap.models.refiner import Refiner, refine, scale_for
from faceswap.models.sampling import to_bytes, to_images, to_tensor
from faceswap.training.checkpoint import TrainingState
from faceswap.types import DIRECTIONS, Identity

Float32 = npt.NDArray[np.float32]

SOFT = 0.4  # share of the faces that are too soft to be exemplars
USUAL = 0.7  # only this share of the faces, the least odd, may be exemplars
BLOCKS, BLOCK = 10, 12  # oddness is measured in 10 x 10 blocks of 12 x 12 pixels
MOVING = (slice(36, 42), slice(42, 48), slice(48, 60))  # landmarks of the eyes and of the lips
AXES = 8  # exemplars differ along this many principal components of the landmarks
NEAREST = 4  # a face may get any of this many photos that resemble it most
FACES_PER_PASS = 32
PAINTED = 120  # faces from which the landmarks of painted faces are learned
MIN_PAINTED = 20  # with fewer, landmarks are assumed to stay where they are
SHRINKAGE = 0.3  # ridge penalty, as a share of the mean variance of the landmarks
CANVAS = 256  # pixels of the painted faces in which landmarks are predicted


@dataclass(frozen=True, slots=True, eq=False)
class Portraits:
    """Network crops of a person's faces at the refiners' resolution.

    Attributes:
        images: uint8 (N, 3 or 4, S, S); the fourth channel is the face's outline.
        guide: The person's photos; None if there are none.
        photos: Number of the photo that lies over each face, (N,).
        details: Its detail, uint8 (N, 3, S, S); None without photos.
        points: Landmarks (N, 68, 2), shares of the network crop.
        gaze: Where the faces look, (N,); NaN if unknown.
    """

    images: Tensor
    guide: Guide | None
    photos: npt.NDArray[np.int64]
    details: Tensor | None
    points: npt.NDArray[np.float32]
    gaze: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Portraits":
        """Return the faces with their images on a device."""
        details = None if self.details is None else self.details.to(device)
        return replace(self, images=self.images.to(device), details=details)

    def at(self, chosen: slice) -> "Portraits":
        """Return some of the faces."""
        details = None if self.details is None else self.details[chosen]
        return Portraits(
            self.images[chosen], self.guide, self.photos[chosen], details, self.points[chosen],
            self.gaze[chosen],
        )  # fmt: skip

    def looks(self) -> list[Look]:
        """Return where the features of each face are."""
        return [Look(points, float(gaze))
                for points, gaze in zip(self.points, self.gaze, strict=True)]  # fmt: skip


def portraits(
    faceset: Faceset, crops: Tensor, model: ModelConfig, guide: Guide | None,
    own: dict[str, int] | None = None, seed: int = 0, on_face: Callable[[], None] = lambda: None,
) -> Portraits:  # fmt: skip
    """Cut the network crops of a faceset and lay photos over them.

    Half of the faces get the first photo, which guides all frames of a video, and the others one of
    those that resemble them most.

    Args:
        faceset: The faces; may be empty.
        crops: The same faces, perhaps with outlines, (N, 3 or 4, C, C) uint8.
        model: The network's geometry.
        guide: The person's photos; None lays none.
        own: Numbers of the photos that show faces of this faceset, by key. A face is not its own
            guide.
        seed: Decides the photos.
        on_face: Called after each face that a photo was laid over.
    """
    large = model.enlarged(scale_for(model))
    size = faceset.crops.shape[-1]
    images = [
        to_bytes(sampling.network_crop(some, large, "bicubic"))
        for some in torch.split(crops, FACES_PER_PASS)
    ]
    joined = torch.cat(images) if images else crops[..., : large.size, : large.size]
    views = [to_view(landmarks, size, model.view) for landmarks in faceset.landmarks]
    points = np.stack(views) if views else np.empty((0, 68, 2), np.float32)
    gaze = np.array([
        eyes.gaze(eyes.irises(_image(crop), landmarks))
        for crop, landmarks in zip(faceset.crops, faceset.landmarks, strict=True)
    ])  # fmt: skip
    numbers = np.zeros(len(joined), np.int64)
    result = Portraits(joined, guide, numbers, None, points, gaze)
    if guide is None or not len(joined):
        return result
    random = np.random.default_rng(seed)
    details = []
    for index, (key, look) in enumerate(zip(faceset.keys, result.looks(), strict=True)):
        image = _image(joined[index])
        distances = guide.distances(look.points, image)
        if own and key in own:
            distances[own[key]] = np.inf
        near = np.argsort(distances)[: min(NEAREST, max(len(distances) - 1, 1))]
        first = index % 2 and np.isfinite(distances[0])
        numbers[index] = 0 if first else int(random.choice(near))
        details.append(guide.detail(int(numbers[index]), look))
        on_face()
    return replace(result, details=to_tensor(details))


def with_eyes(decoded: Tensor, faces: Portraits) -> Tensor:
    """Lay the eyes of the photos over decoded faces (B, 3, H, H) in [0, 1]."""
    if faces.guide is None:
        return decoded
    laid = [
        faces.guide.eyes_on(image, int(number), look)
        for image, number, look in zip(to_images(decoded), faces.photos, faces.looks(), strict=True)
    ]
    return to_tensor(laid).to(decoded.device).float() / 255


def refined_swaps(
    decoded: Tensor, guide: Guide | None, footage: Portraits, refiner: Refiner
) -> Tensor:
    """Refine faces (B, 3, H, H) that were decoded from those of the other person.

    Each gets the photo that resembles it most.

    Args:
        decoded: The decoded faces.
        guide: Photos of the person whom they show.
        footage: The faces that they were decoded from.
        refiner: That person's refiner.
    """
    if guide is None:
        return refine(refiner, decoded)
    faces, details = [], []
    for image, look in zip(to_images(decoded), footage.looks(), strict=True):
        painted = guide.painted(look)
        nearest = int(np.argmin(guide.distances(painted.points, image)))
        face, detail = guide.lay(nearest, painted, image)
        faces.append(face)
        details.append(detail)
    device = decoded.device
    return refine(refiner, to_tensor(faces).to(device).float() / 255, to_tensor(details).to(device))


def _image(crop: Tensor) -> Image:
    return np.ascontiguousarray(crop[:3].permute(1, 2, 0).numpy())


def choose_exemplars(
    faceset: Faceset, model: ModelConfig, most: int
) -> tuple[Exemplars, list[str]]:
    """Choose sharp photos with different poses and expressions, the most usual one first.

    Those that the user chose come before all others.

    Args:
        faceset: The faces to choose from, at least one.
        model: The network's geometry.
        most: Number of photos to choose, at least 1.

    Returns:
        The photos, with no map and no usual look yet, and their keys.
    """
    size = faceset.crops.shape[-1]
    images = [_image(crop) for crop in faceset.crops]
    points = np.stack([to_view(p, size, model.view) for p in faceset.landmarks])
    strengths = [_sharpness(image, p, size)
                 for image, p in zip(images, faceset.landmarks, strict=True)]  # fmt: skip
    odd = _oddness(images, points, model)
    usable = (strengths >= np.quantile(strengths, SOFT)) & (odd <= np.quantile(odd, USUAL))
    own = [i for i, key in enumerate(faceset.keys) if key in faceset.exemplars]
    usable[own] = True
    sharp = np.flatnonzero(usable | (odd == odd.min()))
    shapes = points[:, 17:].reshape(len(points), -1).astype(np.float64)
    centered = shapes - np.median(shapes, axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    spread = centered[sharp] @ axes[:AXES].T
    usual = np.argsort((spread**2).sum(axis=1))
    chosen = [int(i) for i in usual if sharp[i] in own][:most] or [int(usual[0])]
    apart = ((spread[:, None] - spread[chosen]) ** 2).sum(axis=2).min(axis=1)
    while len(chosen) < min(most, len(sharp)):
        farthest = int(np.argmax(apart))
        chosen.append(farthest)
        apart = np.minimum(apart, ((spread - spread[farthest]) ** 2).sum(axis=1))
    numbers = sharp[chosen]
    unknown = np.full((2, 2), np.nan, np.float32)
    exemplars = Exemplars([images[i] for i in numbers], points[numbers], identity_map(), unknown)
    return exemplars, [faceset.keys[i] for i in numbers]


def _sharpness(image: Image, points: Points, size: int) -> float:
    luma = image.astype(np.float32) @ LUMA
    fine = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), size / 128))
    inside = masks.outline(points, size) > 0
    return float(fine[inside].mean()) if inside.any() else 0.0


def _oddness(images: list[Image], points: Float32, model: ModelConfig) -> npt.NDArray[np.float64]:
    """Return how much each photo's detail deviates from the others' in its oddest block, (N,).

    Hands, hats, microphones and printed words deviate most. Eyes and mouth, which move, do not
    count.
    """
    unknown = np.full((2, 2), np.nan, np.float32)
    photos = Exemplars(images, points, identity_map(), unknown)
    guide = Guide(photos, model.view, BLOCKS * BLOCK)
    usual = np.median(points, axis=0).astype(np.float32)
    laid = [guide.detail(i, Look(usual, np.nan)).mean(axis=2) for i in range(len(images))]
    deviations = np.abs(laid - np.median(laid, axis=0))
    blocks = deviations.reshape(-1, BLOCKS, BLOCK, BLOCKS, BLOCK).mean(axis=(2, 4))
    pixels = usual * (BLOCKS * BLOCK) - np.float32(0.5)
    skin = masks.outline(pixels, BLOCKS * BLOCK)
    for part in MOVING:
        skin[masks.hull_of(pixels[part], *skin.shape) > 0] = 0
    counted = skin.reshape(BLOCKS, BLOCK, BLOCKS, BLOCK).mean(axis=(1, 3)) > 0.5
    relative = blocks / np.maximum(np.median(blocks, axis=0), 1e-6)
    oddest: npt.NDArray[np.float64] = relative[:, counted].max(axis=1, initial=0)
    return oddest


def guide_of(exemplars: Exemplars, model: ModelConfig) -> Guide:
    """Return the guide for faces of a network's refiner."""
    return Guide(exemplars, model.view, scale_for(model) * model.size)


@torch.no_grad()
def measure_paintings(run: TrainingState, faces: dict[Identity, Portraits], landmarks: str) -> None:
    """Learn where the landmarks of swapped faces lie from those of the footage's faces.

    A ridge regression on faces that the other person's decoder paints, in which the landmarks are
    predicted again.

    Args:
        run: The run; its exemplars are updated.
        faces: Training faces.
        landmarks: The choice of landmark models.

    Raises:
        InputError: If the landmark model cannot be used.
    """
    network = run.ema_or_model.eval()
    for of, to in DIRECTIONS:
        if to not in run.exemplars or not len(faces[of]):
            continue
        some = faces[of].at(slice(None, None, max(len(faces[of]) // PAINTED, 1)))
        known, found = [], []
        for number in range(0, len(some), FACES_PER_PASS):
            part = some.at(slice(number, number + FACES_PER_PASS))
            painted = network.swap(seen(run, part, of), to, 1.0)[:, :3].float().cpu()
            for image, points in zip(painted, part.points, strict=True):
                again = _landmarks_of(image, points, network.config.view, landmarks)
                if again is not None:
                    known.append(points)
                    found.append(again)
        exemplars = run.exemplars[to]
        enough = len(found) >= MIN_PAINTED
        painted_map = _ridge(np.array(known), np.array(found)) if enough else identity_map()
        usual = np.array([_usual(faces[of]), _usual(faces[to])], np.float32)
        run.exemplars[to] = replace(exemplars, painted=painted_map, usual=usual)
    network.train()


def colored(run: TrainingState, images: Tensor, key: str) -> Tensor:
    """Shift a's faces to b's mean colour; leave all others unchanged."""
    return sampling.shift_color(images, run.color_shift) if key == "a" else images


def shown(run: TrainingState, faces: Portraits, key: Identity) -> Tensor:
    """Return the images of faces with the colours that training gives them, (N, 3, S, S)."""
    device = next(run.network.parameters()).device
    return colored(run, faces.images[:, :3].to(device).float() / 255, key)


def seen(run: TrainingState, faces: Portraits, key: Identity) -> Tensor:
    """Return what the network sees of faces, (N, 3, size, size) in [0, 1]."""
    images, scale = shown(run, faces, key), scale_for(run.network.config)
    return F.avg_pool2d(images, scale) if scale > 1 else images


def _landmarks_of(painted: Tensor, points: Points, view: float, landmarks: str) -> Points | None:
    """Predict the landmarks of a painted face, as shares of the network crop; None if it fails."""
    inner = round(view * CANVAS)
    enlarged = cv2.resize(painted.permute(1, 2, 0).numpy(), (inner, inner),
                          interpolation=cv2.INTER_CUBIC)  # fmt: skip
    before = (CANVAS - inner) // 2
    after = CANVAS - inner - before
    canvas = cv2.copyMakeBorder(enlarged, before, after, before, after, cv2.BORDER_REPLICATE)
    image = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    offset = np.float32(before - 0.5)
    inside = np.asarray(points * inner + offset, np.float32)
    found = predict_again(image, inside, landmarks)
    return None if found is None else np.asarray((found - offset) / inner, np.float32)


def _usual(faces: Portraits) -> tuple[float, float]:
    """Return the usual gaze and opening of the eyes."""
    seeing = faces.gaze[np.isfinite(faces.gaze)]
    openings = [eyes.opening(points) for points in faces.points]
    return float(np.median(seeing)) if len(seeing) else float("nan"), float(np.median(openings))


def _ridge(known: Float32, found: Float32) -> Float32:
    """Fit an affine map (137, 136) from landmarks (N, 68, 2) to others."""
    x, y = (points.reshape(len(points), -1).astype(np.float64) for points in (known, found))
    center, target = x.mean(axis=0), y.mean(axis=0)
    covariance = (x - center).T @ (x - center) / len(x)
    shrinkage = SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance + shrinkage, (x - center).T @ (y - target) / len(x))
    return np.vstack([weights, target - center @ weights]).astype(np.float32)
