"""What an evaluation reports. ``docs/schemas/evaluate.json`` is generated from these records."""

from dataclasses import dataclass
from typing import Annotated, get_type_hints

from msgspec import UNSET, Meta, UnsetType

from faceswap.types import BOTH_IDENTITIES, Count, Identity


@dataclass(frozen=True, slots=True)
class Score:
    """A number, and how far it would move with other faces of the same people."""

    value: float
    low: Annotated[
        float | None,
        Meta(description="Lower end of the 95 % bootstrap interval; null with less than 3 faces."),
    ]
    high: Annotated[float | None, Meta(description="Upper end.")]


@dataclass(frozen=True, slots=True)
class SwapScores:
    """How some faces compare with those of the wanted person, and with the footage.

    A score is null where it is not defined, for example the mouth's without an open mouth.
    """

    identity_transfer: Annotated[
        Score | None,
        Meta(
            description="Mean margin of the face embeddings, scaled: 0 is no transfer, 1 is a real "
            "face of the other person. Blind to softness, and the average face wins it."
        ),
    ]
    typicality: Annotated[
        Score | None,
        Meta(
            description="Two-sided percentile of the embedding's distance from the wanted person's "
            "centroid among those of real unseen faces, mean over faces: real faces score 0.5. "
            "Faces that are too far, or too near like an average face, score less."
        ),
    ]
    diversity: Annotated[
        Score | None,
        Meta(
            description="Spread of the embeddings (root of the covariance's trace), divided by "
            "that of real unseen faces. Below 1 the faces look alike."
        ),
    ]
    sharpness_1: Annotated[
        Score | None,
        Meta(
            description="Contrast of the finest octave (1-2 px at 256 px) inside the face, divided "
            "by that of real faces: root of the ratio of median band energies. 1 is right, less is "
            "soft, much more is noise."
        ),
    ]
    sharpness_2: Annotated[Score | None, Meta(description="The same, 2-4 px.")]
    sharpness_3: Annotated[Score | None, Meta(description="The same, 4-8 px.")]
    sharpness_4: Annotated[Score | None, Meta(description="The same, 8-16 px.")]
    swd_fine: Annotated[
        Score | None,
        Meta(
            description="Sliced Wasserstein distance x 1000 of 7 px Laplacian patches to those of "
            "real faces, finest level (Karras 2018, both sets normalised by the real one's)."
        ),
    ]
    swd_mid: Annotated[Score | None, Meta(description="The same at half the resolution.")]
    swd_coarse: Annotated[
        Score | None,
        Meta(description="The same at a quarter, which mostly shows the light of the scene."),
    ]
    catch_light: Annotated[
        Score | None,
        Meta(
            description="Brightest pixel of the iris minus its median, median over faces, divided "
            "by that of real faces. Dead eyes score little."
        ),
    ]
    mouth_contrast: Annotated[
        Score | None,
        Meta(
            description="Range of luma (5th to 95th percentile) inside open lips, median over "
            "faces, divided by that of real faces. Missing teeth score little."
        ),
    ]
    mouth_structure: Annotated[
        Score | None,
        Meta(description="Correlation of the pixels inside open lips with the footage's."),
    ]
    nme: Annotated[
        Score | None,
        Meta(
            description="Mean distance between the 68 landmarks of swap and footage, divided by "
            "the distance between the eyes: how much expression and pose was lost."
        ),
    ]
    nme_jaw: Annotated[Score | None, Meta(description="The same over landmarks 1 to 17.")]
    nme_eyes: Annotated[
        Score | None, Meta(description="The same over the landmarks of eyes and brows.")
    ]
    nme_mouth: Annotated[Score | None, Meta(description="The same over the mouth's landmarks.")]
    eye_correlation: Annotated[
        Score | None,
        Meta(
            description="Pearson correlation of the eyes' opening over their width in swap and "
            "footage."
        ),
    ]
    mouth_correlation: Annotated[
        Score | None, Meta(description="The same correlation of the mouth.")
    ]
    gaze_correlation: Annotated[
        Score | None,
        Meta(description="The same correlation of the irises' position between the eye corners."),
    ]
    gaze_slope: Annotated[
        Score | None,
        Meta(
            description="Slope of the swap's iris position over the footage's: 1 follows it fully, "
            "0 stares."
        ),
    ]
    expression_eyes: Annotated[
        Score | None,
        Meta(
            description="Mean absolute difference of the eyes' blendshape scores (MediaPipe, from "
            "0 to 1) of swap and footage: blinks, squints and gaze that got lost."
        ),
    ]
    expression_brows: Annotated[Score | None, Meta(description="The same of the brows.")]
    expression_mouth: Annotated[Score | None, Meta(description="The same of mouth and jaw.")]
    pose_error_deg: Annotated[
        Score | None,
        Meta(description="Mean angle between the head rotations of swap and footage."),
    ]
    light_correlation: Annotated[
        Score | None,
        Meta(
            description="Correlation of the low-frequency luma of the swap's skin with that of "
            "the footage's."
        ),
    ]
    light_slope: Annotated[
        Score | None,
        Meta(
            description="Slope of the logarithm of the low-frequency luma of the swap's skin over "
            "that of the footage's: 1 keeps the contrast of the light, 0 is flat."
        ),
    ]
    light_error: Annotated[
        Score | None,
        Meta(
            description="Root mean square difference of the skin's low-frequency luma, in levels."
        ),
    ]
    seam_color_step: Annotated[
        Score | None,
        Meta(
            description="CIEDE2000 colour step across the mask's edge, minus the footage's. Can be "
            "gamed by a wide feather, so read it with identity_transfer and light_error."
        ),
    ]
    seam_forehead: Annotated[
        Score | None,
        Meta(
            description="90th percentile of that step, minus the footage's, over the upper edge "
            "(normal within 45 degrees of the face's upright)."
        ),
    ]
    seam_jaw: Annotated[
        Score | None, Meta(description="The same over the lower edge, along the jaw.")
    ]
    seam_gradient_ratio: Annotated[
        Score | None,
        Meta(description="Gradient across the mask's edge, divided by the footage's."),
    ]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Faces that need no swap or no training, measured in the same way.

    In ``real``, ``limit`` and ``own_decoder`` the scores against real faces come from real faces of
    the wanted person, and the scores against the footage from the footage.
    """

    blur: Annotated[SwapScores, Meta(description="The footage's face, blurred.")]
    average: Annotated[SwapScores, Meta(description="The wanted person's average face.")]
    footage: Annotated[SwapScores, Meta(description="The unswapped footage.")]
    own_decoder: Annotated[
        SwapScores,
        Meta(description="Unseen faces of each person reproduced by that person's own decoder."),
    ]
    limit: Annotated[
        SwapScores,
        Meta(description="Real faces scaled down to the network's size and up again."),
    ]
    real: Annotated[
        SwapScores,
        Meta(
            description="The best that can be expected: real faces of the wanted person that "
            "training has seen, against those that it has not."
        ),
    ]


@dataclass(frozen=True, slots=True)
class OcclusionScores:
    """How a swap treats what is in front of a face, on synthetic occluders whose shape is known."""

    faces: Count
    kept: Annotated[
        Score | None,
        Meta(description="Share of the occluder inside the face that is unchanged to 8 levels."),
    ]
    lost: Annotated[
        Score | None,
        Meta(
            description="Share of the face beside the occluder that is swapped without it but not "
            "with it."
        ),
    ]
    iou: Annotated[
        Score | None,
        Meta(
            description="Intersection over union, inside the face, of the occluder and of what was "
            "left unswapped because of it."
        ),
    ]


@dataclass(frozen=True, slots=True)
class DirectionScores(SwapScores):
    """The scores of a model's swaps in one direction, and those of the baselines."""

    baselines: Baselines
    occlusion: OcclusionScores


@dataclass(frozen=True, slots=True)
class ReconstructionScores:
    """How well a person's own decoder reproduces unseen faces, at 256 px, inside the face."""

    ssim: Annotated[
        Score | None,
        Meta(description="Structural similarity of luma, uniform 7 px window (Wang 2004)."),
    ]
    ssim_eyes: Annotated[Score | None, Meta(description="The same around eyes and brows.")]
    ssim_mouth: Annotated[Score | None, Meta(description="The same around the mouth.")]
    ssim_jaw: Annotated[Score | None, Meta(description="The same along the jaw.")]
    ssim_skin: Annotated[Score | None, Meta(description="The same everywhere else in the face.")]
    psnr: Annotated[Score | None, Meta(description="Decibels.")]
    l1: Annotated[Score | None, Meta(description="Mean absolute difference of values in [0, 1].")]


@dataclass(frozen=True, slots=True)
class ReconstructionRows:
    """A person's own decoder, and what no network of its size can exceed."""

    decoded: ReconstructionScores
    limit: Annotated[
        ReconstructionScores,
        Meta(description="The faces scaled down to the network's size and up again."),
    ]


@dataclass(frozen=True, slots=True)
class FlickerScores:
    """How a swapped clip moves from frame to frame, compared with its footage."""

    frames: Annotated[int, Meta(ge=0, description="Frames measured, without a gap.")]
    landmark_acceleration: Annotated[
        float,
        Meta(
            description="Mean length of the landmarks' second difference, divided by the distance "
            "between the eyes; the swap's over the footage's. 1 is natural, and a frozen face "
            "scores less."
        ),
    ]
    placement_acceleration: Annotated[
        float,
        Meta(
            description="The same measure of the landmarks that placed the swap, on its own: the "
            "head's motion and the jitter of the pasted face."
        ),
    ]
    color_spread: Annotated[
        float,
        Meta(
            description="Standard deviation of the mean Lab colour over time (norm over the three "
            "channels); the swap's over the footage's."
        ),
    ]
    embedding_spread: Annotated[
        float,
        Meta(
            description="Root mean square distance of the face embeddings from their mean; the "
            "swap's over the footage's."
        ),
    ]
    boiling: Annotated[
        list[float],
        Meta(
            description="For four octaves from the finest: what a warp of the previous frame along "
            "the picture's own flow cannot explain, divided by the octave's contrast; the swap's "
            "over the footage's. 1 is natural, more boils."
        ),
    ]
    boiling_of_footage: Annotated[
        list[float], Meta(description="The footage's own residuals over contrast.")
    ]
    eye_correlation: Annotated[
        float | None,
        Meta(description="Correlation over the clip; a frozen face scores 0."),
    ]
    mouth_correlation: float | None
    gaze_correlation: float | None
    gaze_slope: float | None


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
    a_to_a: ReconstructionRows
    b_to_b: ReconstructionRows
    flicker: Annotated[
        FlickerScores | UnsetType, Meta(description="Only present if a clip was measured.")
    ] = UNSET

    def direction(self, own: Identity) -> DirectionScores:
        """The scores of swaps on the footage of ``own``."""
        return self.a_to_b if own == "a" else self.b_to_a


def definitions() -> dict[str, str]:
    """Return what each score means, from the descriptions of the report's records."""
    found = {}
    for record in (SwapScores, OcclusionScores, ReconstructionScores, FlickerScores):
        for name, hint in get_type_hints(record, include_extras=True).items():
            notes = [m.description for m in getattr(hint, "__metadata__", ()) if m.description]
            if notes:
                found[name.replace("_", " ")] = notes[0]
    return found
