"""Records of an evaluation, from which ``docs/schemas/evaluate.json`` is generated."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from faceswap.types import BOTH_IDENTITIES, Count, Identity


@dataclass(frozen=True, slots=True)
class SwapScores:
    """How the swaps of one direction compare with the faces they replace."""

    identity_transfer: Annotated[
        float,
        Meta(
            description="Mean margin of the face embeddings, scaled: 0 is no transfer, 1 is a real "
            "face of the other person."
        ),
    ]
    match_rate: Annotated[
        float,
        Meta(
            description="Share of swaps within dlib's same-person distance (0.6) of the centroid "
            "of the person swapped in."
        ),
    ]
    nme: Annotated[
        float,
        Meta(
            description="Mean distance between the 68 landmarks of swap and original, divided by "
            "the distance between the eyes: how much expression and pose was lost."
        ),
    ]
    eye_correlation: Annotated[
        float | None,
        Meta(
            description="Pearson correlation between swap and original of the eyes' ratio of "
            "opening to width; null if it is undefined."
        ),
    ]
    mouth_correlation: Annotated[
        float | None, Meta(description="The same correlation for the mouth.")
    ]
    pose_error_deg: Annotated[
        float, Meta(description="Mean angle between the head rotations of swap and original.")
    ]
    seam_color_step: Annotated[
        float,
        Meta(description="CIEDE2000 colour step across the mask's edge, minus the original's."),
    ]
    seam_gradient_ratio: Annotated[
        float,
        Meta(description="Gradient across the mask's edge, divided by the original's."),
    ]


@dataclass(frozen=True, slots=True)
class Baselines:
    """The scores of images made without a trained model, measured like the model's swaps."""

    blur: Annotated[SwapScores, Meta(description="The original face, blurred.")]
    average: Annotated[SwapScores, Meta(description="The other person's average face.")]
    original: Annotated[SwapScores, Meta(description="The unswapped original.")]


@dataclass(frozen=True, slots=True)
class DirectionScores(SwapScores):
    """The scores of a model's swaps in one direction, and those of the baselines."""

    baselines: Baselines


@dataclass(frozen=True, slots=True)
class ReconstructionScores:
    """How well a person's own decoder reproduces unseen faces of that person."""

    ssim: Annotated[
        float,
        Meta(description="Structural similarity, uniform 7 px window, at the network's size."),
    ]
    psnr: Annotated[float, Meta(description="Peak signal-to-noise ratio in dB.")]
    l1: Annotated[float, Meta(description="Mean absolute difference of values in [0, 1].")]


@dataclass(frozen=True, slots=True)
class FlickerScores:
    """How much more a swapped clip varies from frame to frame than its footage does."""

    frames: Annotated[int, Meta(ge=0, description="Frames measured, without a gap.")]
    landmark_acceleration: Annotated[
        float,
        Meta(
            description="Mean length of the landmarks' second difference, divided by the distance "
            "between the eyes; the swap's minus the original's."
        ),
    ]
    placement_acceleration: Annotated[
        float,
        Meta(
            description="The same measure for the landmarks that placed the swap, without "
            "subtracting the original's: the head's motion plus the jitter of the pasted face."
        ),
    ]
    color_spread: Annotated[
        float,
        Meta(
            description="Standard deviation of the mean Lab colour over time (norm over the three "
            "channels); the swap's minus the original's."
        ),
    ]
    embedding_spread: Annotated[
        float,
        Meta(
            description="Root mean square distance of the face embeddings from their mean; the "
            "swap's minus the original's."
        ),
    ]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """How good a model's swaps are on faces that training held out."""

    names: Annotated[tuple[str, str], Meta(description="The names of a and b.")]
    steps: Annotated[int, Meta(ge=0, description="Training steps of the model.")]
    identity_strength: float
    faces: Annotated[
        dict[Identity, Count], BOTH_IDENTITIES, Meta(description="Faces measured, by identity.")
    ]
    a_to_b: Annotated[DirectionScores, Meta(description="b's face on footage of a.")]
    b_to_a: Annotated[DirectionScores, Meta(description="a's face on footage of b.")]
    a_to_a: ReconstructionScores
    b_to_b: ReconstructionScores
    flicker: Annotated[
        FlickerScores | UnsetType, Meta(description="Only present if a clip was measured.")
    ] = UNSET

    def direction(self, own: Identity) -> DirectionScores:
        """Return the scores of swaps on the footage of ``own``."""
        return self.a_to_b if own == "a" else self.b_to_a
