"""Print results: lines for people, or with ``--json`` one object for programs.

Progress and warnings go to standard error, so that with ``--json`` standard output holds only the
object. ``docs/schemas/<command>.json`` describes the objects.
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
from msgspec import UNSET

from faceswap.errors import DeviceError, FaceswapError, InputError, OutputError
from faceswap.files import reason
from faceswap.types import Failure

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130


def json_option(command: F) -> F:
    """Give a command the option ``--json``."""
    text = "Print one JSON object for programs; progress goes to standard error."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def wants_json() -> bool:
    """Return whether this call asks for JSON, even if click cannot parse the call."""
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]


def is_rank_zero() -> bool:
    """Return whether this process prints; of several that train together, only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def show(as_json: bool, result: Any, lines: Sequence[str]) -> None:
    """Print the result of a command.

    Args:
        as_json: Whether to print the result as JSON instead of the lines.
        result: A report, or a mapping.
        lines: The report in words.

    Raises:
        OutputError: If standard output cannot be written.
    """
    try:
        for line in (
            [json.dumps(to_jsonable(result), allow_nan=False)] if as_json else map(sanitize, lines)
        ):
            click.echo(line)
    except OSError as error:
        # Python flushes sys.stdout on exit and would fail again.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        raise OutputError(f"cannot write to standard output: {reason(error)}") from error


def echo_err(text: str) -> None:
    """Print a line on standard error; a closed or full stream must not stop the work."""
    with suppress(OSError):
        click.echo(sanitize(text), err=True)


def echo(text: str, as_json: bool) -> None:
    """Print a line before the result; with JSON it goes to standard error instead.

    Raises:
        OutputError: If standard output cannot be written.
    """
    if as_json:
        echo_err(text)
    else:
        show(False, {}, [text])


def sanitize(text: str) -> str:
    r"""Escape characters that are not printable, such as ``\x1b``.

    Names and notes come from other people's files. They must not move the cursor or fake a line.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def report_and_exit(
    as_json: bool, result: Any, lines: Sequence[str], worst: FaceswapError | None
) -> None:
    """Print a result, then report an error if there is one.

    With JSON, the object on standard output has the error under the key ``error``, and the process
    exits with the error's code. Otherwise the error is raised.

    Args:
        as_json: Whether to print the result as JSON instead of the lines.
        result: A report, or a mapping.
        lines: The report in words.
        worst: The error, or None.

    Raises:
        FaceswapError: The given error, without JSON.
        OutputError: If standard output cannot be written.
    """
    if worst and as_json:
        failure = Failure(type(worst).__name__, str(worst), worst.exit_code)
        show(True, {**to_jsonable(result), "error": failure}, ())
        echo_err(f"faceswap: error: {worst}")
        sys.exit(worst.exit_code)
    show(as_json, result, lines)
    if worst:
        raise worst


def to_jsonable(value: Any) -> Any:
    """Convert a value to types that ``json.dumps`` accepts.

    Dataclasses become objects, without the fields that are UNSET. Paths become strings, and numbers
    that are not finite become null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        value = {name: item for name, item in fields.items() if item is not UNSET}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def error_boundary() -> Iterator[None]:
    """Run the command line and turn its errors into messages and exit codes.

    A FaceswapError becomes one line on standard error. With ``--json`` every error is also an
    object on standard output, unless the command has already printed its result.
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
        message = "interrupted; finished work is kept"
        echo_err(f"faceswap: {message}")
        _end("Interrupted", message, INTERRUPTED)
    except MemoryError:
        message = "out of memory: close other programs, or try smaller inputs"
        echo_err(f"faceswap: error: {message}")
        _end(DeviceError.__name__, message, DeviceError.exit_code)
    except OSError as error:  # Path.is_file() raises if a name is too long or access is denied
        if error.filename is None:
            raise
        message = f"{os.fsdecode(error.filename)}: {reason(error)}"
        echo_err(f"faceswap: error: {message}")
        _end(InputError.__name__, message, InputError.exit_code)
    except Exception as error:  # a bug: Python prints the traceback
        _show_failure(type(error).__name__, str(error), 1)
        raise


def _end(kind: str, message: str, exit_code: int) -> None:
    _show_failure(kind, message, exit_code)
    sys.exit(exit_code)


def _show_failure(kind: str, message: str, exit_code: int) -> None:
    """Print an error as JSON if this call asks for it; standard error already shows it."""
    if wants_json() and is_rank_zero():
        with suppress(OutputError):
            show(True, {"error": Failure(kind, message, exit_code)}, ())
