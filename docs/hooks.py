"""Hooks of the site's build.

- ``{{ fields NAME }}`` in a page becomes a table of the fields of a settings class or a report.
- Cross-references of docstrings, ``:func:`~package.module.name```, are shown as code.
"""

import dataclasses
import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

import faceswap
from faceswap.config import Option

FIELDS = re.compile(r"^\{\{ fields (\w+) \}\}$", re.MULTILINE)
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(~?)([\w.]+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the tables of fields."""
    return FIELDS.sub(lambda found: _table(getattr(faceswap, found[1])), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show the names that roles refer to, shortened to the last part after ``~``."""
    return ROLE.sub(
        lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html
    )


def _table(record: type) -> str:
    """Return a Markdown table of a dataclass's fields."""
    hints = get_type_hints(record, include_extras=True)
    rows = [_row(field, hints[field.name]) for field in dataclasses.fields(record)]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def _row(field: "dataclasses.Field[Any]", hint: Any) -> str:
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    meaning = " ".join(
        note.help if isinstance(note, Option) else note.description or ""
        for note in notes
        if isinstance(note, Option | Meta)
    )
    seam = any(isinstance(note, Option) and note.seam for note in notes)
    shown = "a name or an object" if seam else f"`{_type(kind)}`"
    default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
    cells = (f"`{field.name}`", shown, default, re.sub(r"\s*\[default: .*\]", ".", meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(hint: Any) -> str:
    """Return a type as a reader writes it, without metadata and module names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(_type, arguments))
    if origin:
        inside = ", ".join("..." if kind is ... else _type(kind) for kind in arguments)
        return f"{origin.__name__}[{inside}]"
    return "None" if hint is NoneType else getattr(hint, "__name__", str(hint))
