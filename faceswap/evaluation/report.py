"""Render an evaluation as one self-contained HTML page with scores, curves and sample swaps."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import UNSET

from faceswap.arrays import Image
from faceswap.evaluation.results import DirectionScores, EvaluationReport
from faceswap.training import curves
from faceswap.types import DIRECTIONS

GRID, WORST = 24, 10  # most swaps shown: evenly spaced ones per direction, and the worst of both
NME_WEIGHT = 10.0  # an NME of 0.1 is as bad as no identity transfer at all

DEFINITIONS = {
    "identity_transfer": "margin |d - centroid a| - |d - centroid b| of the face embedding d, "
    "scaled: real unseen faces of the footage score 0, real faces of the other person 1",
    "match_rate": "share of swaps within dlib's same-person distance (0.6) of the centroid of the "
    "person swapped in",
    "nme": "mean distance between the 68 landmarks of swap and original, divided by the distance "
    "between the eyes: how much expression and pose was lost",
    "eye_correlation, mouth_correlation": "correlation between swap and original of the ratio "
    "of opening to width",
    "pose_error_deg": "angle between the two head rotations",
    "seam_color_step": "CIEDE2000 step across the mask's edge, minus the original's",
    "seam_gradient_ratio": "gradient across the mask's edge, divided by the original's",
    "ssim, psnr, l1": "unseen faces compared with their reconstruction by their own decoder",
    "flicker": "acceleration of the landmarks, spread of colour and of the face embedding over "
    "time, each minus the original's",
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One swapped face.

    Attributes:
        key: The face's name in its faceset.
        direction: "a_to_b" or "b_to_a".
        original: The crop.
        swapped: The crop with the swap pasted in.
        identity: Scaled identity margin: 1 is a real face of the other person.
        nme: Landmark error of the expression.
    """

    key: str
    direction: str
    original: Image
    swapped: Image
    identity: float
    nme: float

    @property
    def badness(self) -> float:
        """Missing identity transfer plus weighted expression error; higher is worse."""
        return 1 - self.identity + NME_WEIGHT * self.nme

    def side_by_side(self) -> bytes:
        """Return original and swap next to each other as one JPEG."""
        both = cv2.hconcat([self.original, self.swapped])
        _, data = cv2.imencode(".jpg", both[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        return data.tobytes()


def page(report: EvaluationReport, samples: dict[str, list[Sample]], metrics: Path) -> str:
    """Render the page as HTML with its images inside.

    Args:
        report: The scores.
        samples: The model's swaps by direction.
        metrics: The run's ``metrics.jsonl``; without it the page has no curves.
    """
    environment = Environment(
        loader=PackageLoader("faceswap.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    everyone = [sample for direction in samples.values() for sample in direction]
    a, b = report.names
    return environment.get_template("report.html.j2").render(
        report=report,
        a=a,
        b=b,
        directions=[
            _direction(report.a_to_b, f"{b}'s face on {a}", samples["a_to_b"]),
            _direction(report.b_to_a, f"{a}'s face on {b}", samples["b_to_a"]),
        ],
        reconstructions={"a as a": asdict(report.a_to_a), "b as b": asdict(report.b_to_b)},
        flicker=None if report.flicker is UNSET else asdict(report.flicker),
        scatter_png=_scatter(report, samples),
        curves_png=curves.curves(metrics) if metrics.is_file() else None,
        worst=sorted(everyone, key=lambda sample: -sample.badness)[:WORST],
        definitions=DEFINITIONS,
    )


def _direction(scores: DirectionScores, title: str, samples: list[Sample]) -> dict[str, Any]:
    """Return the template's values for one direction."""
    rows, shown = _rows(scores), min(len(samples), GRID)
    return {
        "title": title,
        "rows": rows,
        "measures": list(rows["original"]),
        "picks": [samples[i * len(samples) // shown] for i in range(shown)],
    }


def _rows(scores: DirectionScores) -> dict[str, dict[str, Any]]:
    """Return the scores of the model and of each baseline by name."""
    return {"model": asdict(scores), **asdict(scores.baselines)}


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _scatter(report: EvaluationReport, samples: dict[str, list[Sample]]) -> bytes:
    """Plot each face's identity transfer against its NME; return a PNG.

    Larger dots show the means of the model and of the baselines.
    """
    figure, both = curves.side_by_side(4.6)
    a, b = report.names
    titles = (f"{b}'s face on {a}", f"{a}'s face on {b}")
    for axes, title, (own, other) in zip(both, titles, DIRECTIONS, strict=True):
        swaps = samples[f"{own}_to_{other}"]
        axes.scatter([s.nme for s in swaps], [s.identity for s in swaps], s=12, alpha=0.5)
        for name, row in _rows(report.direction(own)).items():
            axes.plot(row["nme"], row["identity_transfer"], "o", ms=9, label=name)
        # A name may contain "$", which must not be parsed as TeX, or bytes that are not UTF-8.
        axes.set_title(title.encode(errors="replace").decode(), parse_math=False)
        axes.set(xlabel="NME", ylabel="identity transfer")
        axes.legend()
    return curves.as_png(figure)
