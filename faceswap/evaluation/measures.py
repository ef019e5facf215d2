"""Which way each score should go, and which baselines a model must beat in it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from faceswap.evaluation.results import Baselines, DirectionScores, Score, SwapScores
from faceswap.faces.blendshapes import PARTS

Goal = Literal["higher", "lower", "one"]  # "one": both more and less are wrong

BASELINES: tuple[str, ...] = tuple(Baselines.__slots__)
TRIVIAL = ("blur", "average")
NO_SWAP = ("blur", "average", "footage")


@dataclass(frozen=True, slots=True)
class Measure:
    """How to read a score.

    Attributes:
        goal: Which way is better.
        rivals: The baselines that a useful model beats. The footage is none where it is perfect by
            definition.
    """

    goal: Goal
    rivals: tuple[str, ...]

    def distance(self, value: float) -> float:
        """Return how far a value is from the goal; more is worse."""
        if self.goal == "one":
            return abs(math.log(max(value, 1e-6)))
        return -value if self.goal == "higher" else value


MEASURES: dict[str, Measure] = {
    "identity_transfer": Measure("higher", ("blur", "footage")),
    "typicality": Measure("higher", NO_SWAP),
    "diversity": Measure("one", ("average",)),
    **{f"sharpness_{band}": Measure("one", TRIVIAL) for band in (1, 2, 3, 4)},
    **{f"swd_{level}": Measure("lower", NO_SWAP) for level in ("fine", "mid", "coarse")},
    "catch_light": Measure("one", TRIVIAL),
    "mouth_contrast": Measure("one", TRIVIAL),
    "mouth_structure": Measure("higher", TRIVIAL),
    **{f"nme{part}": Measure("lower", TRIVIAL) for part in ("", "_jaw", "_eyes", "_mouth")},
    "eye_correlation": Measure("higher", TRIVIAL),
    "mouth_correlation": Measure("higher", TRIVIAL),
    "gaze_correlation": Measure("higher", TRIVIAL),
    "gaze_slope": Measure("one", TRIVIAL),
    **{f"expression_{part}": Measure("lower", TRIVIAL) for part in PARTS},
    "pose_error_deg": Measure("lower", TRIVIAL),
    "light_correlation": Measure("higher", TRIVIAL),
    "light_slope": Measure("one", TRIVIAL),
    "light_error": Measure("lower", TRIVIAL),
    "seam_color_step": Measure("lower", TRIVIAL),
    "seam_forehead": Measure("lower", TRIVIAL),
    "seam_jaw": Measure("lower", TRIVIAL),
    "seam_gradient_ratio": Measure("one", TRIVIAL),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a measure, the model's score, the baselines' and those it loses to."""

    name: str
    model: Score | None
    baselines: dict[str, Score | None]
    worse_than: tuple[str, ...]


def rows(scores: DirectionScores) -> Iterator[Row]:
    """Yield a row for each measure of one direction."""
    for name, measure in MEASURES.items():
        model: Score | None = getattr(scores, name)
        others: dict[str, SwapScores] = {
            baseline: getattr(scores.baselines, baseline) for baseline in BASELINES
        }
        found: dict[str, Score | None] = {k: getattr(v, name) for k, v in others.items()}
        worse = (rival for rival in measure.rivals if _loses(measure, model, found[rival]))
        yield Row(name, model, found, tuple(worse))


def _loses(measure: Measure, model: Score | None, rival: Score | None) -> bool:
    """Return whether a model is worse than a baseline, beyond its own interval."""
    if model is None or rival is None:
        return False
    ends = [end for end in (model.value, model.low, model.high) if end is not None]
    best = min(measure.distance(end) for end in ends)
    if measure.goal == "one" and min(ends) <= 1 <= max(ends):
        return False
    return best > measure.distance(rival.value)
