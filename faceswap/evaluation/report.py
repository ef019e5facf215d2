"""An evaluation as one self-contained page: numbers, curves, originals and swaps, the worst."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path

import cv2

from faceswap.evaluation.metrics import Report
from faceswap.training import curves
from faceswap.types import Image

DIRECTIONS = ("a_to_b", "b_to_a")
GRID, WORST = 24, 10  # faces shown of each direction, evenly picked; and of both, the worst
NME_WEIGHT = 10.0  # an expression error of 0.1 counts as much as the whole identity

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 78em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.model { font-weight: bold; background: #eef4fb; }
.faces { display: flex; flex-wrap: wrap; gap: .6em; }
figure { margin: 0; } figcaption { font-size: 12px; color: #555; max-width: 22em; }
figure.pair img { width: 11em; } img { max-width: 100%; }
"""

DEFINITIONS = {
    "identity_transfer": "margin |d - centroid a| - |d - centroid b| of the face embedding, scaled"
    " so that real unseen faces of the footage score 0 and real ones of the other person 1",
    "match_rate": "share of swaps within the same-person distance 0.6 of the wanted centroid",
    "nme": "mean distance between the 68 landmarks of swap and original over the distance between"
    " the eyes: what was lost of expression and pose",
    "eye_correlation, mouth_correlation": "of the opening over the width, swap against original",
    "pose_error_deg": "angle between the two head rotations",
    "seam_color_step": "CIEDE2000 step across the mask's edge, minus the original's",
    "seam_gradient_ratio": "gradient across the mask's edge, over the original's",
    "ssim, psnr, l1": "unseen faces painted by their own decoder, against the faces",
    "flicker": "acceleration of landmarks, spread of colour and of embedding over time, each minus"
    " the original's",
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One swapped face: its key, the original crop, the swap in it, identity and NME."""

    key: str
    original: Image
    swapped: Image
    identity: float
    nme: float

    @property
    def badness(self) -> float:
        """What is missing of the identity plus what is lost of the expression."""
        return 1 - self.identity + NME_WEIGHT * self.nme


def page(report: Report, samples: dict[str, list[Sample]], metrics: Path) -> str:
    """The page as HTML, pictures inside.

    Args:
        report: From :func:`evaluator.evaluate`.
        samples: The model's swaps of each direction.
        metrics: The run's ``metrics.jsonl``; without it the page has no curves.
    """
    a, b = (html.escape(name) for name in report["names"])
    count = report["faces"]
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>{a} and {b}</title><style>{STYLE}</style>",
        f"<h1>{a} (a) and {b} (b)</h1><p>Step {report['steps']}, likeness "
        f"{report['likeness']:g}, {count['a']} unseen faces of a and {count['b']} of b. "
        "All faces marked as swapped were made by a machine.</p>",
    ]
    for direction in DIRECTIONS:
        parts.append(f"<h2>{_title(report, direction)}</h2>{_numbers(report[direction])}")
    parts.append(_open_no_follow(report))
    if "flicker" in report:
        parts.append("<h2>Flicker</h2>" + _list(report["flicker"]))
    parts.append("<h2>Identity against expression</h2>" + _picture(_front(report, samples)))
    if metrics.is_file():
        parts.append("<h2>Training</h2>" + _picture(curves.curves(metrics)))
    everyone = [(one.badness, d, one) for d in DIRECTIONS for one in samples[d]]
    worst = sorted(everyone, key=lambda item: -item[0])[:WORST]
    parts.append("<h2>The ten worst</h2>" + _faces([(d, one) for _, d, one in worst]))
    for direction in DIRECTIONS:
        some = samples[direction]
        picks = some[:: max(len(some) // GRID, 1)][:GRID]
        parts.append(f"<h2>{_title(report, direction)}: original and swap</h2>")
        parts.append(_faces([(direction, one) for one in picks]))
    parts.append("<h2>What the numbers mean</h2>" + _list(DEFINITIONS))
    return "\n".join(parts) + "\n"


def _title(report: Report, direction: str) -> str:
    a, b = (html.escape(name) for name in report["names"])
    return f"{b}'s face on {a}" if direction == "a_to_b" else f"{a}'s face on {b}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _numbers(result: Report) -> str:
    """A table: a row for the model and each baseline, a column for each measure."""
    measures = [name for name in result if name != "baselines"]
    return _table({"model": result, **result["baselines"]}, measures)


def _table(rows: dict[str, Report], measures: list[str]) -> str:
    head = "".join(f"<th>{name.replace('_', ' ')}" for name in measures)
    body = "".join(
        f"<tr class='{name}'><td>{name}" + "".join(f"<td>{_cell(row[m])}" for m in measures)
        for name, row in rows.items()
    )
    return f"<table><tr><th>{head}{body}</table>"


def _open_no_follow(report: Report) -> str:
    rows = {"a as a": report["a_to_a"], "b as b": report["b_to_b"]}
    return f"<h2>Own faces painted again</h2>{_table(rows, list(report['a_to_a']))}"


def _list(values: Report) -> str:
    items = (f"<li><b>{name}</b>: {html.escape(str(value))}" for name, value in values.items())
    return f"<ul>{''.join(items)}</ul>"


def _faces(samples: list[tuple[str, Sample]]) -> str:
    figures = []
    for direction, one in samples:
        both = cv2.hconcat([one.original, one.swapped])
        _, data = cv2.imencode(".jpg", both[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        caption = (
            f"{direction.replace('_', ' ')}: identity {one.identity:.2f}, NME {one.nme:.3f}<br>"
            f"{html.escape(one.key)}"
        )
        image = f"<img alt='original and swap' src='{_inline(data.tobytes(), 'jpeg')}'>"
        figures.append(f"<figure class='pair'>{image}<figcaption>{caption}</figcaption></figure>")
    return f"<div class='faces'>{''.join(figures)}</div>"


def _picture(png: bytes) -> str:
    return f"<img alt='chart' src='{_inline(png, 'png')}'>"


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _front(report: Report, samples: dict[str, list[Sample]]) -> bytes:
    """Identity over expression error, a dot a face; the baselines' means beside the model's."""
    figure, both = curves.side_by_side(4.6)
    for axes, direction in zip(both, DIRECTIONS, strict=True):
        some = samples[direction]
        axes.scatter([s.nme for s in some], [s.identity for s in some], s=12, alpha=0.5)
        rows = {"model": report[direction], **report[direction]["baselines"]}
        for name, row in rows.items():
            axes.plot(row["nme"], row["identity_transfer"], "o", ms=9, label=name)
        title = html.unescape(_title(report, direction)).encode(errors="replace").decode()
        axes.set_title(title, parse_math=False)  # "$" in a name is no TeX
        axes.set(xlabel="NME", ylabel="identity transfer")
        axes.legend()
    return curves.as_png(figure)
