"""Write files atomically, append to logs, and lock folders against other processes.

A kill, a crash or a full disk leaves either the whole old file or the whole new one. Only a log can
end in a torn line, which :func:`read_lines` and :func:`drop_torn_line` remove.
"""

import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Never

from faceswap.errors import BusyError, InputError, OutputError

# Yields a temporary path and moves that file to the given path when the block succeeds. Writers
# take a Publish as an argument, so that they do not depend on signing. See Signer.publisher.
Publish = Callable[[Path], AbstractContextManager[Path]]
# Returns a Publish, given the file that an output is made from and whether it has a watermark.
Publisher = Callable[[Path, bool], Publish]

MAX_NAME = 255  # bytes of a file name
MAX_STEM = 40  # characters of the original name that a temporary name repeats
LOCK = "lock"  # name of the lock file in a folder that only one process may use


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it over ``path`` if the block succeeds.

    The temporary file has ``path``'s suffix, because libraries choose the format by it. It is
    flushed to disk before the move and removed if the block raises, so ``path`` is always either
    the whole old file or the whole new one.

    Raises:
        OutputError: If the folder cannot be created, or the file cannot be flushed or moved. An
            error that the block raises is passed on unchanged.
    """
    temporary = temporary_beside(path, path.suffix)
    try:
        make_folder(path.parent)
        yield temporary
        with writing(path):
            fsync(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the disk may be failing; keep the first error
            temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush a file to disk, so that it survives a power cut.

    Raises:
        OSError: If the file cannot be flushed.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """Return a hidden path beside ``path`` that no other process uses and :func:`sweep` recognises.

    Its name is short, because ``path`` may already have the longest name that the disk allows.
    """
    unique = f"{os.getpid()}-{_machine_id()}{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem[:MAX_STEM]}.{unique}.part{suffix}")


@cache
def _machine_id() -> str:
    """Return four hex digits that identify this machine or container.

    A process id is unique only within one of them.
    """
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:4]


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes left in a folder.

    Only files that this machine wrote are deleted. In a folder that several machines share, there
    is no way to find out whether another machine's process is still alive. On Windows, nothing is
    deleted.

    Raises:
        OutputError: If a file cannot be deleted. A folder that cannot be deleted is left.
    """
    if os.name != "posix" or not folder.is_dir():  # os.kill(pid, 0) is only harmless on POSIX
        return
    with writing(folder):
        for path in folder.glob(".*.part*"):
            found = re.fullmatch(
                rf"\..+\.(\d+)-{_machine_id()}[0-9a-f]{{8}}\.part(\.\w+)?", path.name, re.DOTALL
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
    except (PermissionError, OverflowError):  # another user's process, or not a process id
        return True
    return True


def lock_file(path: Path, what: str) -> IO[bytes]:
    """Lock a file against other processes until it is closed or this process ends.

    Args:
        path: The file, which is created if it does not exist.
        what: Start of the error message, such as "training of models/x is under way".

    Returns:
        The open file. Closing it releases the lock.

    Raises:
        BusyError: If another process holds the lock.
        OutputError: If the file cannot be opened or locked, or is a link.
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
        file.close()  # the previous holder unlinked it; retry on the new inode


@contextmanager
def exclusive_folder(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes out of a folder during the block; create the folder if needed.

    The folder holds a lock file during the block. The operating system unlocks it if the process is
    killed, so a leftover lock file does no harm.

    Args:
        folder: The folder. It is deleted afterwards if it was created here and is still empty.
        what: Start of the error message, such as "training of models/x is under way".

    Raises:
        BusyError: If another process holds the lock.
        OutputError: If the folder or its lock file cannot be written.
    """
    new = not folder.exists()
    make_folder(folder)
    lock = folder / LOCK
    file = lock_file(lock, what)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot delete an open file
            lock.unlink()
        file.close()
        if new:
            with suppress(OSError):  # not empty: keep the results
                folder.rmdir()


def fitting(stem: str, ending: str) -> str:
    """Return a file name of a stem and an ending; the stem is cut if the name is too long.

    Most file systems allow 255 bytes.
    """
    room = MAX_NAME - len(os.fsencode(ending))
    cut = os.fsencode(stem)[:room].decode(sys.getfilesystemencoding(), "ignore")
    return f"{stem if len(os.fsencode(stem)) <= room else cut}{ending}"


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        OutputError: If a file has this name, or the folder cannot be created.
    """
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError while writing ``path`` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return what an error says in one line, such as 'No space left on device'."""
    stated = getattr(error, "strerror", None) or str(error).strip()
    return (stated or type(error).__name__).splitlines()[0]


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_write(path) as temporary, writing(path):
        temporary.write_bytes(data)


def _open_no_follow(path: Path, mode: Literal["ab", "r+b"]) -> IO[bytes]:
    """Open a file to change it in place, but refuse a symbolic link.

    A folder from a stranger may hold a link that points to one of the user's own files.

    Raises:
        OSError: If the file cannot be opened, or is a link to another file.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; writing would change the file that it points to")
    no_link = getattr(os, "O_NOFOLLOW", 0)  # also refuse a link that appears after the check
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | no_link, 0o666))


def append_lines(path: Path, lines: list[str], lasting: bool = False) -> None:
    """Append whole lines in one write and flush them to the operating system.

    A kill during the write can tear the last line; :func:`read_lines` drops it.

    Args:
        path: The file, which is created if it does not exist.
        lines: The lines, without line breaks.
        lasting: Whether to wait until the lines are on disk and would survive a power cut.

    Raises:
        OutputError: If the file cannot be written, or is a link.
    """
    make_folder(path.parent)
    with writing(path), _open_no_follow(path, "ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines that :func:`append_lines` wrote to a file, without a torn last line.

    Raises:
        OSError: If the file cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()


def parse_json(line: str) -> Any:
    """Parse a line of JSON that may be damaged.

    Raises:
        ValueError: If it is not JSON or is nested too deeply, or if it holds a number that is not
            finite or an integer of more than 18 characters.
    """
    try:
        return json.loads(
            line, parse_constant=_reject_number, parse_float=_finite_float, parse_int=_short_int
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _reject_number(word: str) -> Never:
    raise ValueError(f"{word} is not a valid number")


def _short_int(digits: str) -> int:
    return int(digits) if len(digits) < 19 else _reject_number(digits[:20])


def _finite_float(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _reject_number(digits)


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left unfinished, so that more lines can be appended.

    Raises:
        OutputError: If the file is missing or a link, or cannot be written.
    """
    with writing(path), _open_no_follow(path, "r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
