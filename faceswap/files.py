"""Writing files so that a kill, a crash or a full disk never leaves half of one."""

import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Never

from faceswap.errors import BusyError, InputError, OutputError

# Opens a temporary file and, when the block ends well, moves it to the path that was given. Writers
# get one as an argument, so that they need not know who signs their outputs: see Signer.publisher.
Publish = Callable[[Path], AbstractContextManager[Path]]

MAX_STEM = 40  # characters of a name that a temporary one repeats
LOCK = "lock"  # in a folder in which one process alone may work


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; move it over ``path`` if the block succeeds.

    The temporary file has ``path``'s suffix, so that a library can choose a format by it. It is
    flushed to disk before the move, and removed if the block raises: at every moment ``path`` is
    the whole old file or the whole new one.

    Raises:
        OutputError: If the disk refuses (full, read-only, not permitted).
    """
    temporary = temporary_beside(path, path.suffix)
    try:
        make_folder(path.parent)
        yield temporary
        with writing(path):
            fsync(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # gone after success; beyond help on a broken disk
            temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file is on the disk, where a power cut leaves it.

    Raises:
        OSError: If the disk refuses.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """A hidden name beside ``path`` that no other process uses, and that :func:`sweep` knows.

    It is short even if ``path`` has the longest name that a disk takes.
    """
    unique = f"{os.getpid()}-{_here()}{secrets.token_hex(2)}"
    return path.with_name(f".{path.stem[:MAX_STEM]}.{unique}.part{suffix}")


@cache
def _here() -> str:
    """Four digits for where process numbers count: this machine, or this container on it."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:4]


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes left in a folder.

    Only those of this machine: of a folder that several share, no process elsewhere can be asked
    whether it is alive.

    Raises:
        OutputError: If the disk refuses.
    """
    if os.name != "posix" or not folder.is_dir():  # elsewhere a process cannot be asked harmlessly
        return
    with writing(folder):
        for path in folder.glob(".*.part*"):
            found = re.fullmatch(
                rf"\..+\.(\d+)-{_here()}[0-9a-f]{{4}}\.part(\.\w+)?", path.name, re.DOTALL
            )
            if found and not _alive(int(found[1])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's process, or no process number
        return True
    return True


def lock_file(path: Path, what: str) -> IO[bytes]:
    """Lock a file against other processes until it is closed, or this process ends in any way.

    Args:
        path: The file; it is made if need be.
        what: What an error says is under way.

    Raises:
        BusyError: If another process holds it.
        OutputError: If the disk refuses.
    """
    while True:
        with writing(path):
            file = _open_no_follow(path, "ab")
        try:
            if os.name == "posix":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            file.close()
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise BusyError(f"{what} in another process; wait for it or stop it") from error
            raise OutputError(f"cannot lock {path}: {reason(error)}") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # its last holder has deleted it meanwhile: another may lock a new one


@contextmanager
def exclusive_folder(folder: Path, what: str) -> Iterator[None]:
    """Be the only process that works in a folder, which is made if need be.

    A lock file lies in it meanwhile. One that a killed process left is free, and taken over.

    Args:
        folder: The folder; deleted afterwards if it was made for nothing.
        what: What an error says is under way.

    Raises:
        OutputError: If another process works there, or the disk refuses.
    """
    new = not folder.exists()
    make_folder(folder)
    lock = folder / LOCK
    file = lock_file(lock, what)
    try:
        yield
    finally:
        with suppress(OSError):  # an open file may not go everywhere; it is free then
            lock.unlink()
        file.close()
        if new:
            with suppress(OSError):  # not empty: the work was not for nothing
                folder.rmdir()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; it may exist.

    Raises:
        OutputError: If a file stands in its place, or the disk refuses.
    """
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The short words for an operating system error, such as 'No space left on device'."""
    return (error.strerror or str(error)).splitlines()[0]


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step.

    Raises:
        OutputError: If the disk refuses.
    """
    with atomic_write(path) as temporary, writing(path):
        temporary.write_bytes(data)


def _open_no_follow(path: Path, mode: Literal["ab", "r+b"]) -> IO[bytes]:
    """Open a file to change it in place; a link, as a folder from a stranger may hold, is refused.

    Raises:
        OSError: If the disk refuses, or it is a link to another file.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link to another file, which would be changed")
    no_link = getattr(os, "O_NOFOLLOW", 0)  # nor one that appears meanwhile
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | no_link, 0o666))


def append_lines(path: Path, lines: list[str], lasting: bool = False) -> None:
    """Append whole lines in one write and flush them to the operating system.

    A kill in between can leave one torn last line, which :func:`read_lines` drops.

    Args:
        path: The file; it is made if need be.
        lines: Without their ends.
        lasting: Whether to wait until they are on the disk, where a power cut leaves them.

    Raises:
        OutputError: If the disk refuses.
    """
    make_folder(path.parent)
    with writing(path), _open_no_follow(path, "ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def read_lines(path: Path) -> list[str]:
    """Read the whole lines of a text file that grows by :func:`append_lines`."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()


def parse_json(line: str) -> Any:
    """The value of a line of JSON that may have been damaged.

    Raises:
        ValueError: If it is none, or holds a number that is none or beyond all bounds.
    """
    try:
        return json.loads(
            line, parse_constant=_no_number, parse_float=_finite, parse_int=_countable
        )
    except RecursionError as error:
        raise ValueError("too many brackets") from error


def _no_number(word: str) -> Never:
    raise ValueError(f"{word} is no number")


def _countable(digits: str) -> int:
    return int(digits) if len(digits) < 19 else _no_number(digits[:20])


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left unfinished, so that appending can go on.

    Raises:
        OutputError: If the disk refuses.
    """
    with writing(path), _open_no_follow(path, "r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
