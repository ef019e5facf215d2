"""Numbers of ``evaluate`` for a model and settings, kept in the model's folder, side by side.

``evaluations/usual.json`` holds what ``evaluate --save-json`` wrote with the usual settings, and
``evaluations/color-linear_mask-hull.json`` what it wrote with others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from faceswap.errors import InputError, SettingsError
from faceswap.evaluation.measures import MEASURES, Measure
from faceswap.evaluation.results import EvaluationReport, Score, definitions
from faceswap.review.conversion.choices import Look
from faceswap.review.jobs import options
from faceswap.review.workspace import MODEL, Place, refuse_link
from faceswap.types import Identity

FOLDER = Path("evaluations")  # in the model's folder
USUAL = "usual"
# Settings that evaluate knows; it measures faces, so the edge of the mask and the blend are fixed.
MEASURED = ("color", "mask", "identity_strength", "expression_range")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model with settings.

    Attributes:
        model: The model.
        look: The settings.
    """

    model: Place
    look: Look

    @property
    def _settings(self) -> dict[str, Any]:
        """What evaluate is told, by the name of the setting."""
        return {name: v for name, v in self.look.settings().items() if name in MEASURED}

    @property
    def title(self) -> str:
        """The model and the settings that differ from the usual ones, for people."""
        told = ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in self._settings.items())
        return f"{self.model.name} with {told or 'the usual settings'}"

    @property
    def path(self) -> Path:
        """The file of its numbers."""
        told = [
            f"{name.replace('_', '-')}-{value:g}" if isinstance(value, float)
            else f"{name}-{value}" for name, value in self._settings.items()
        ]  # fmt: skip
        return self.model.path / FOLDER / f"{'_'.join(told) or USUAL}.json"

    def numbers(self) -> EvaluationReport | None:
        """Return its numbers; None if there are none, or the model has been trained since.

        Raises:
            InputError: If the file is damaged or a link.
        """
        refuse_link(self.path.parent)
        refuse_link(self.path)
        try:
            data = self.path.read_bytes()
            measured = self.path.stat().st_mtime_ns
            trained = (self.model.path / MODEL).stat().st_mtime_ns
            return msgspec.json.decode(data, type=EvaluationReport) if measured > trained else None
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{self.path} is no evaluation that can be read: {error}") from error

    def arguments(self, a: Place, b: Place, root: Path) -> list[str]:
        """Return the command that measures it on the held-out faces of two facesets.

        Args:
            a: a's faceset.
            b: b's faceset.
            root: The workspace.

        Raises:
            SettingsError: If a and b are the same faceset.
        """
        if a.id == b.id:
            raise SettingsError("a and b are the same faceset; choose two people")
        args = ["evaluate", f"./{self.model.name}", "--a", f"./{a.name}", "--b", f"./{b.name}"]
        args += ["--save-json", f"./{self.path.relative_to(root).as_posix()}", "--overwrite"]
        return args + options(self._settings)


def table(left: EvaluationReport | None, right: EvaluationReport | None, to: Identity) -> list[Any]:
    """Return a row for each measure of swaps that show the face of ``to``.

    Returns:
        "name"; "about", what it means; "goal", which way is better; "left", "right" and "real", the
        scores of both and of real faces, or None; and "better", "left" or "right" if the intervals
        do not overlap, else None.
    """
    own: Identity = "a" if to == "b" else "b"
    about, rows = definitions(), []
    for name, measure in MEASURES.items():
        scores = [getattr(r.direction(own), name) if r else None for r in (left, right)]
        known = left or right
        real = getattr(known.direction(own).baselines.real, name) if known else None
        title = name.replace("_", " ")
        rows.append({
            "name": title, "about": about.get(title, ""), "goal": measure.goal,
            "left": scores[0], "right": scores[1], "real": real,
            "better": _better(measure, *scores),
        })  # fmt: skip
    return rows


def _better(measure: Measure, left: Score | None, right: Score | None) -> str | None:
    """Return which of two scores is certainly nearer to the goal; None if neither is."""
    one, other = _interval(left), _interval(right)
    if left is None or right is None or one is None or other is None:
        return None
    if one[0] <= other[1] and other[0] <= one[1]:
        return None
    return "left" if measure.distance(left.value) < measure.distance(right.value) else "right"


def _interval(score: Score | None) -> tuple[float, float] | None:
    if score is None or score.low is None or score.high is None:
        return None
    return score.low, score.high
