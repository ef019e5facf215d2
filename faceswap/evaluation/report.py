"""An evaluation as one self-contained HTML page: scores, curves, swaps, and the worst of them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
from msgspec import UNSET

from faceswap import pages
from faceswap.arrays import Image
from faceswap.evaluation.measures import BASELINES, rows
from faceswap.evaluation.results import (
    DirectionScores,
    EvaluationReport,
    definitions,
)
from faceswap.training import curves
from faceswap.types import DIRECTIONS

GRID, WORST = 24, 10  # faces shown: evenly spaced ones per direction, and the worst of both
NME_WEIGHT = 10.0  # an expression error of 0.1 counts as much as the whole identity


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
        """The identity that is missing plus the expression that was lost."""
        return 1 - self.identity + NME_WEIGHT * self.nme

    def side_by_side(self) -> bytes:
        """Return original and swap as one JPEG."""
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
    everyone = [sample for direction in samples.values() for sample in direction]
    a, b = report.names
    return pages.render(
        "faceswap.evaluation",
        "report.html.j2",
        report=report,
        a=a,
        b=b,
        directions=[
            _direction(report.a_to_b, f"{b}'s face on {a}", samples["a_to_b"]),
            _direction(report.b_to_a, f"{a}'s face on {b}", samples["b_to_a"]),
        ],
        reconstructions={
            f"{key} as {key}, {name}": asdict(getattr(rows, name))
            for key, rows in (("a", report.a_to_a), ("b", report.b_to_b))
            for name in ("decoded", "limit")
        },
        flicker=None if report.flicker is UNSET else asdict(report.flicker),
        scatter_png=_scatter(report, samples),
        curves_png=curves.curves(metrics) if metrics.is_file() else None,
        worst=sorted(everyone, key=lambda sample: -sample.badness)[:WORST],
        definitions=definitions(),
    )


def _direction(scores: DirectionScores, title: str, samples: list[Sample]) -> dict[str, Any]:
    """Return what the page shows of one direction."""
    return {
        "title": title,
        "baselines": BASELINES,
        "rows": list(rows(scores)),
        "occlusion": scores.occlusion,
        "picks": samples[:: max(len(samples) // GRID, 1)][:GRID],
    }


def _scatter(report: EvaluationReport, samples: dict[str, list[Sample]]) -> bytes:
    """Plot identity over expression error: a dot per face, and the means of model and baselines."""
    figure, both = curves.side_by_side(4.6)
    a, b = report.names
    titles = (f"{b}'s face on {a}", f"{a}'s face on {b}")
    for axes, title, (own, other) in zip(both, titles, DIRECTIONS, strict=True):
        swaps = samples[f"{own}_to_{other}"]
        axes.scatter([s.nme for s in swaps], [s.identity for s in swaps], s=12, alpha=0.5)
        scores = report.direction(own)
        points = {"model": scores, **{name: getattr(scores.baselines, name) for name in BASELINES}}
        for name, row in points.items():
            if row.nme and row.identity_transfer:
                axes.plot(row.nme.value, row.identity_transfer.value, "o", ms=9, label=name)
        # A name may contain "$", which must not be parsed as TeX, or bytes that are not UTF-8.
        axes.set_title(title.encode(errors="replace").decode(), parse_math=False)
        axes.set(xlabel="NME", ylabel="identity transfer")
        axes.legend()
    return curves.as_png(figure)
