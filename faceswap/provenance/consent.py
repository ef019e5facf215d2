"""Consent notes: who consented to what, stored in the model and in everything that it makes.

A note is free text. It proves nothing; it records what the owner of the model vouches for.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from faceswap.errors import InputError, SettingsError
from faceswap.files import reason

log = logging.getLogger(__name__)


MAX_NOTE = 4000  # characters
CONSENT_FILE = "CONSENT.md"
NOT_STATED = "not stated"

Notes = dict[Literal["a", "b"], str]  # by identity; "" if not stated


def read_notes(values: Any) -> Notes:
    """Validate notes by identity; a missing note counts as not stated.

    Raises:
        ValueError: If ``values`` is not a dict or has a key other than a and b, or a note is not
            printable text of at most MAX_NOTE characters.
    """
    if not isinstance(values, dict) or not set(values) <= {"a", "b"}:
        raise ValueError('consent must be an object with no keys but "a" and "b"')
    return {"a": _checked(values.get("a", "")), "b": _checked(values.get("b", ""))}


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a consent note must be text, not {type(text).__name__}")
    text = text.replace("\r\n", "\n").strip()
    if len(text) > MAX_NOTE:
        raise ValueError(f"a consent note may have at most {MAX_NOTE} characters, not {len(text)}")
    # Escape codes in a note would act on the terminal that prints it.
    if not text.translate({ord("\n"): None, ord("\t"): None, 0xFEFF: None}).isprintable():
        raise ValueError("a consent note must be printable text")
    return str(text)


def merge_notes(
    given: Mapping[Literal["a", "b"], str | None], stored: Any,
    facesets: Mapping[Literal["a", "b"], Path],
) -> Notes:  # fmt: skip
    """Choose each note: the given one, otherwise the model's, otherwise that of ``CONSENT.md``.

    Args:
        given: New notes by identity; None keeps the known note, and "" clears it.
        stored: The notes in the model, or None.
        facesets: Faceset folders by identity.

    Raises:
        InputError: If a ``CONSENT.md`` cannot be read.
        SettingsError: If a given note or a ``CONSENT.md`` is too long or not printable text.
        ValueError: If the notes in the model are invalid.
    """
    known = read_notes(stored or {})
    for key, folder in facesets.items():
        path, note = _consent_file(folder), given[key]
        try:
            if note is not None:
                known[key] = _checked(note)
                continue
            beside = _checked(_read_text(path))
        except ValueError as error:
            raise SettingsError(f"{path if note is None else f'consent_{key}'}: {error}") from error
        if known[key] and beside not in ("", known[key]):
            log.warning("%s differs from the note in the model, which is kept; pass --consent-%s "
                        "to replace it", path, key)  # fmt: skip
        known[key] = known[key] or beside
    return known


def _consent_file(folder: Path) -> Path:
    """Return the path of the note: beside a faceset named ``faces``, inside any other faceset."""
    return (folder.parent if folder.name == "faces" else folder) / CONSENT_FILE


def _read_text(path: Path) -> str:
    """Return the text of a file, at most twice the allowed length; "" if it is missing."""
    if not path.is_file():
        return ""
    if not path.resolve().is_relative_to(path.parent.resolve()):  # the target may be a private key
        raise InputError(
            f"{path} is a link to a file outside its folder, and every output of the model would "
            "publish that file's text; replace the link with a file that contains the note"
        )
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(2 * MAX_NOTE)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def note_on(name: str, text: str) -> str:
    """Return the note on a person as the credentials contain it."""
    return f"consent of {name}: {text}"


def without_consent(notes: Iterable[str]) -> list[str]:
    """Return the names of the people whose consent is not stated, from :func:`note_on`."""
    ends = note_on("\0", NOT_STATED).split("\0")
    return [
        note.removeprefix(ends[0]).removesuffix(ends[1])
        for note in notes if note.startswith(ends[0]) and note.endswith(ends[1])
    ]  # fmt: skip


def in_words(notes: Mapping[Any, str]) -> Notes:
    """Return notes by identity, with ``NOT_STATED`` for an empty or missing one."""
    return {"a": notes.get("a") or NOT_STATED, "b": notes.get("b") or NOT_STATED}
