"""What commands say at their end: lines for people, or with ``--json`` one object for programs.

Progress and warnings go to standard error, so that standard output holds the result alone. The
objects are described by ``docs/schemas/<command>.json``.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from faceswap.errors import DeviceError, FaceswapError, InputError, OutputError
from faceswap.files import reason

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130


def json_option(command: F) -> F:
    """Give a command ``--json``."""
    text = "Print one JSON object for programs; progress goes to standard error."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def wants_json() -> bool:
    """Whether this call asks for JSON: even one that click cannot understand."""
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]


def is_rank_zero() -> bool:
    """Whether this process may print: of several that train together, the first."""
    return os.environ.get("RANK", "0") == "0"


def show(as_json: bool, facts: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Print a result, once and at the end.

    Raises:
        OutputError: If standard output takes nothing (any more).
    """
    try:
        for line in (
            [json.dumps(to_jsonable(facts), allow_nan=False)] if as_json else map(sanitize, lines)
        ):
            click.echo(line)
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - or Python's own end fails too
        raise OutputError(f"cannot write to standard output: {reason(error)}") from error


def echo_err(text: str) -> None:
    """Print a line on standard error; that nobody takes it is no reason to stop the work."""
    with suppress(OSError):
        click.echo(sanitize(text), err=True)


def echo(text: str, as_json: bool) -> None:
    """Print a line before the work: for people with the result, for programs beside it."""
    if as_json:
        echo_err(text)
    else:
        show(False, {}, [text])


def sanitize(text: str) -> str:
    r"""A line as a terminal may have it: what is not printable becomes an escape such as ``\x1b``.

    Names and notes come from files of strangers; they must not move the cursor, or look like lines
    of their own.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def report_and_exit(
    as_json: bool, facts: Mapping[str, Any], lines: Sequence[str], worst: FaceswapError | None
) -> None:
    """Print a result, then end with an error if it is a bad one: as JSON in the same object."""
    if worst and as_json:
        kind, message = type(worst).__name__, str(worst)
        show(True, {**facts, **failure(kind, message, worst.exit_code)}, ())
        echo_err(f"faceswap: error: {worst}")
        sys.exit(worst.exit_code)
    show(as_json, facts, lines)
    if worst:
        raise worst


def to_jsonable(value: Any) -> Any:
    """A value as JSON holds it: paths as texts, records as objects, what is no number as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def failure(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    """An error as programs get it."""
    return {"error": {"kind": kind, "message": message, "exit_code": exit_code}}


@contextmanager
def error_boundary() -> Iterator[None]:
    """Run the command line; end the process with what its errors mean.

    A FaceswapError becomes one line on standard error. With ``--json`` every error is an object on
    standard output too, unless the command has printed its result already.
    """
    try:
        yield
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        _end("UsageError", error.format_message(), error.exit_code)
    except FaceswapError as error:
        echo_err(f"faceswap: error: {error}")
        _end(type(error).__name__, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        message = "interrupted; what was finished is kept"
        echo_err(f"faceswap: {message}")
        _end("Interrupted", message, INTERRUPTED)
    except MemoryError:
        message = "the memory does not suffice: close other programs, or try smaller inputs"
        echo_err(f"faceswap: error: {message}")
        _end(DeviceError.__name__, message, DeviceError.exit_code)
    except OSError as error:  # asking whether a file is there is refused: no right, too long a name
        if error.filename is None:
            raise
        message = f"{os.fsdecode(error.filename)}: {reason(error)}"
        echo_err(f"faceswap: error: {message}")
        _end(InputError.__name__, message, InputError.exit_code)
    except Exception as error:  # a bug, which keeps its traceback
        if wants_json() and is_rank_zero():
            with suppress(OutputError):
                show(True, failure(type(error).__name__, str(error), 1), ())
        raise


def _end(kind: str, message: str, exit_code: int) -> None:
    if wants_json() and is_rank_zero():
        with suppress(OutputError):  # said already
            show(True, failure(kind, message, exit_code), ())
    sys.exit(exit_code)
