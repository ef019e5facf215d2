"""Types without arrays that the stages exchange: identities, counts, progress and failures.

The command line imports this module for ``--help``, so it must not import NumPy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

Identity = Literal["a", "b"]
Count = Annotated[int, Meta(ge=0)]
# Marks a dict that always has both identities as keys, for the JSON schemas.
BOTH_IDENTITIES = Meta(
    extra_json_schema={"propertyNames": {"enum": ["a", "b"]}, "required": ["a", "b"]}
)
DIRECTIONS: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))  # (footage, new face)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed, or one of several conversions."""

    kind: Annotated[
        str,
        Meta(
            description="Class of the error, such as InputError; UsageError if the command line "
            "is wrong, Interrupted after Ctrl-C or SIGTERM; for a bug, the class of the Python "
            "exception."
        ),
    ]
    message: Annotated[str, Meta(description="The error message, a single line except for bugs.")]
    exit_code: Annotated[int, Meta(ge=1, description="The exit code of the process.")]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a long call: ``done`` of ``total`` units, and a short note such as the loss.

    ``total`` is None if it is unknown. ``unit`` is a plural such as "frames" or "steps". Work that
    is limited by time counts "minutes" and says in ``steps`` how many steps it has done.
    """

    done: float
    total: float | None
    unit: str
    note: str = ""
    steps: int | None = None


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing; the default of every ``on_progress``."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 face" or "0 faces"; the plural must end in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def named(names: Sequence[str], most: int) -> str:
    """Return the first names in one line, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def clock(seconds: float, digits: int) -> str:
    """Return a time with decimal digits of a second, such as "1:02.040", with hours if needed."""
    unit = 10**digits
    whole, part = divmod(max(round(seconds * unit), 0), unit)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{head}:{rest:02}.{part:0{digits}}"
