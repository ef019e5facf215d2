"""Who consented to what: a note on each person, in the model's file and in all that it makes.

A note is a person's own words. It proves nothing; it says what the owner of the model vouches for.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from faceswap.errors import InputError, SettingsError
from faceswap.files import reason

log = logging.getLogger(__name__)


MAX_NOTE = 4000  # characters
CONSENT_FILE = "CONSENT.md"
NOT_STATED = "not stated"

Notes = dict[Literal["a", "b"], str]  # by identity; "" if nothing is stated


def read_notes(values: Any) -> Notes:
    """Notes by identity, checked; those that are not there are not stated.

    Raises:
        ValueError: If they are something else than texts of at most MAX_NOTE printable characters.
    """
    if not isinstance(values, dict) or not set(values) <= {"a", "b"}:
        raise ValueError("consent must be an object of a and b")
    return {"a": _checked(values.get("a", "")), "b": _checked(values.get("b", ""))}


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a consent note must be a text, not {type(text).__name__}")
    text = text.replace("\r\n", "\n").strip()
    if len(text) > MAX_NOTE:
        raise ValueError(f"a consent note has at most {MAX_NOTE} characters, not {len(text)}")
    if not text.translate({ord("\n"): None, ord("\t"): None, 0xFEFF: None}).isprintable():
        raise ValueError("a consent note must be printable text")  # it is shown on terminals
    return str(text)


def merge_notes(
    given: Mapping[Literal["a", "b"], str | None], stored: Any,
    facesets: Mapping[Literal["a", "b"], Path],
) -> Notes:  # fmt: skip
    """The notes that a model keeps: those given, else those it has, else those beside the faces.

    Args:
        given: By identity, a new note or None.
        stored: The model's, or None.
        facesets: By identity, the folder of the faces.

    Raises:
        InputError: If a file of a note cannot be read.
        SettingsError: If a note is too long or no text.
        ValueError: If the model's are.
    """
    known = read_notes(stored or {})
    for key, folder in facesets.items():
        path, note = _file_beside(folder), given[key]
        try:
            if note is not None:
                known[key] = _checked(note)
                continue
            beside = _checked(_text_of(path))
        except ValueError as error:
            raise SettingsError(f"{path if note is None else f'consent_{key}'}: {error}") from error
        if known[key] and beside not in ("", known[key]):
            log.warning("%s differs from the note that the model has, which stays; --consent-%s "
                        "gives another", path, key)  # fmt: skip
        known[key] = known[key] or beside
    return known


def _file_beside(folder: Path) -> Path:
    """Where the note on a person lies: beside the folder of the faces."""
    return (folder.parent if folder.name == "faces" else folder) / CONSENT_FILE


def _text_of(path: Path) -> str:
    """The text of a file, as much as can be judged; empty if there is none."""
    if not path.is_file():
        return ""
    if not path.resolve().is_relative_to(path.parent.resolve()):  # to a key of the user's, say
        raise InputError(
            f"{path} is a link to a file elsewhere, whose text would go into all that the "
            "model makes: put the note itself there"
        )
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(2 * MAX_NOTE)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def in_words(notes: Mapping[Any, str]) -> dict[str, str]:
    """By identity, the note or that there is none."""
    return {key: notes.get(key) or NOT_STATED for key in ("a", "b")}
