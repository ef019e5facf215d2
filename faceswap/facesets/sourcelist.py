"""Know the photos and videos behind a faceset again after users renamed, replaced or deleted them.

``sources.jsonl`` lists them. Their faces refer to a source by a key that never changes, because
models name the faces that they held out by it. A file is the source it was if its path, size and
modification time still agree, or else if its SHA-256 does.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from faceswap.errors import InputError
from faceswap.files import (
    append_lines,
    drop_torn_line,
    parse_json,
    read_lines,
    sha256_of,
    write_bytes,
)

SOURCES = "sources.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """A photo or a video behind a faceset.

    Attributes:
        key: Its permanent key: the name that it had when it was first read.
        name: Its name now, relative to the folder that was extracted.
        path: Where it was last seen, absolute; None if a damaged list does not tell.
        bytes: Its size; None if an old list lacks it.
        modified: Its modification time in seconds since 1970; None if an old list lacks it.
        sha256: Its hash; None if an old list lacks it.
    """

    key: str
    name: str
    path: Path | None
    bytes: int | None
    modified: float | None
    sha256: str | None

    @property
    def gone(self) -> bool:
        """Whether no file is at its path any more."""
        try:
            return self.path is not None and not self.path.exists()
        except OSError:  # it may exist in a folder that this user may not search
            return False


@dataclass(frozen=True, slots=True)
class Recognised:
    """What became of the sources of a faceset, given the files of a run.

    Attributes:
        keys: The key of each file.
        known: The sources that remain, by key. Files of the run that are new are not among them.
        renamed: Names before and after, of sources that have another name or place now.
        replaced: Sources whose path holds another content now.
        gone: Remaining sources whose file no longer exists.
    """

    keys: dict[Path, str]
    known: dict[str, Source]
    renamed: list[tuple[str, str]]
    replaced: list[Source]
    gone: list[Source]


def located(path: Path) -> Path:
    """Return a file's absolute path. A link to a file stays one, as users delete the link."""
    return path.parent.resolve() / path.name


def append_source(folder: Path, path: Path, key: str) -> None:
    """List a file that a faceset has not read before.

    Raises:
        InputError: If the file cannot be read.
        OutputError: If the list cannot be written.
    """
    digest = sha256_of(path)
    size, modified = _state_of(path)
    line = _line(Source(key, key, located(path), size, modified, digest), folder)
    append_lines(folder / SOURCES, [line])


def write_sources(folder: Path, sources: Iterable[Source]) -> None:
    """Replace the list of a faceset's sources. Those without a hash are told from the faces again.

    Raises:
        OutputError: If the list cannot be written.
    """
    lines = [_line(source, folder) + "\n" for source in sources if source.sha256]
    write_bytes(folder / SOURCES, "".join(lines).encode())


def read_sources(
    folder: Path, settings: Mapping[str, Any], sizes: Mapping[str, int | None]
) -> dict[str, Source]:
    """Read the sources of a faceset, by key.

    Those that the list lacks, because it is damaged or the faceset is older than the list, are told
    from the faces.

    Args:
        folder: The faceset's folder.
        settings: The settings in the faceset's header.
        sizes: The size of each source in bytes by key, as far as the faces tell.
    """
    listed = _read_list(folder)
    for key, size in sizes.items():
        if key not in listed:
            listed[key] = Source(key, key, _old_path(folder, settings, key), size, None, None)
    return listed


def _old_path(folder: Path, settings: Mapping[str, Any], name: str) -> Path | None:
    """Return where a source of an old faceset is: its settings name the file or folder."""
    root = settings.get("source")
    if not isinstance(root, str):
        return None
    path = _absolute(folder, root)
    return path if path.name == name and not path.is_dir() else located(path / name)


def _absolute(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder.resolve() / path))


def _line(source: Source, folder: Path) -> str:
    assert source.path, "a source with a hash has been read"
    try:
        path = Path(os.path.relpath(source.path, folder.resolve()))
    except ValueError:  # another drive of Windows
        path = source.path
    record: dict[str, Any] = {"source": source.name, "path": path.as_posix(), "bytes": source.bytes}
    record |= {"modified": source.modified, "sha256": source.sha256}
    return json.dumps(record | ({"key": source.key} if source.key != source.name else {}))


def _read_list(folder: Path) -> dict[str, Source]:
    """Read ``sources.jsonl``. Damaged lines are ignored, so their sources are hashed again."""
    listed: dict[str, Source] = {}
    file = folder / SOURCES
    if not file.is_file():
        return listed
    for line in read_lines(file):
        try:
            record = parse_json(line)
            name, path = _text(record["source"]), _text(record["path"])
            key = _text(record.get("key", name))
            listed[key] = Source(
                key,
                name,
                _absolute(folder, path),
                int(record["bytes"]),
                float(record["modified"]),
                _text(record["sha256"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return listed


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def drop_torn_source(folder: Path) -> None:
    """Cut off a last line that a kill left unfinished.

    Raises:
        OutputError: If the list is a link or cannot be written.
    """
    if (folder / SOURCES).is_file():
        drop_torn_line(folder / SOURCES)


def recognise(files: Mapping[Path, str], sources: Mapping[str, Source]) -> Recognised:
    """Find out which files are known sources, and what became of the other sources.

    Args:
        files: Photos and videos with their names relative to what is extracted. Each file is given
            once.
        sources: The known sources by key.
    """
    at = {source.path: source for source in sources.values() if source.path}
    same: dict[Path, Source] = {}
    for path, name in files.items():
        before = at.get(located(path)) or _without_path(sources, name)
        now = _unchanged(before, path) if before else None
        if now:
            same[path] = now
    others = [path for path in files if path not in same]
    moved = _moved(others, files, sources, {source.key for source in same.values()})
    placed = {source.key for source in (*same.values(), *moved.values())}
    changed = {located(path) for path in others}
    replaced = [s for s in sources.values() if s.key not in placed and s.path in changed]
    dropped = {source.key for source in replaced}
    known = {key: source for key, source in sources.items() if key not in {*placed, *dropped}}
    gone = [source for source in known.values() if source.gone]
    known |= {source.key: source for source in same.values()}
    names = {source.name for source in known.values()}
    renamed = []
    for path, source in moved.items():
        name = _unused_name(path, files[path], names)
        names.add(name)
        known[source.key] = replace(source, name=name)
        if name != source.name:
            renamed.append((source.name, name))
    keys = {path: source.key for path, source in (*same.items(), *moved.items())}
    for path in others:
        if path not in moved:
            keys[path] = _unused_name(path, files[path], {*names, *known, *keys.values()})
    return Recognised(keys, known, renamed, replaced, gone)


def _without_path(sources: Mapping[str, Source], name: str) -> Source | None:
    source = sources.get(name)
    return source if source and source.path is None else None


def _unchanged(source: Source, path: Path) -> Source | None:
    """Return a source as it is now, or None if the file at its path has another content."""
    size, modified = _state_of(path)
    if (size, modified) == (source.bytes, source.modified):
        return source
    if source.bytes not in (None, size):
        return None
    digest = _hash_of(path)
    if source.sha256 not in (None, digest):
        return None
    return replace(source, path=located(path), bytes=size, modified=modified, sha256=digest)


def _moved(
    others: list[Path], files: Mapping[Path, str], sources: Mapping[str, Source],
    placed: Collection[str],
) -> dict[Path, Source]:  # fmt: skip
    """Return which files are sources that had another name or place before.

    A source can only have moved if its own file is gone or has another content. A copy of the same
    name counts, too, as long as this run does not read the original.
    """
    changed = {located(path) for path in others}
    free = [source for source in sources.values() if source.key not in placed]
    moved: dict[Path, Source] = {}
    for path in others:
        size, modified = _state_of(path)
        candidates = [
            s for s in free
            if s.sha256 and s.bytes == size
            and (s.gone or s.path in changed or s.name == files[path])
        ]  # fmt: skip
        digest = _hash_of(path) if candidates else None
        found = [source for source in candidates if source.sha256 == digest]
        if found:
            best = min(found, key=lambda source: source.name != files[path])
            free.remove(best)
            moved[path] = replace(best, path=located(path), bytes=size, modified=modified)
    return moved


def _unused_name(path: Path, name: str, used: Collection[str]) -> str:
    """Return a file's name, with as many folders before it as make it unique."""
    parts = located(path).parts[1:]
    longer = ("/".join(parts[-n:]) for n in range(len(Path(name).parts) + 1, len(parts) + 1))
    numbered = (f"{name} ({number})" for number in count(2))
    return next(each for each in chain([name], longer, numbered) if each not in used)


def _state_of(path: Path) -> tuple[int | None, float | None]:
    """Return a file's size and modification time, which are None if it cannot be looked at."""
    try:
        state = path.stat()
    except OSError:  # reading it will report the reason
        return None, None
    return state.st_size, state.st_mtime


def _hash_of(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except InputError:  # reading it will report the reason
        return None
