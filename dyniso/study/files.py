"""Files that are whole or absent, say when they were damaged, and leave nothing behind: runs and checkpoints share it.

A file is written under a temporary name, sealed by a checksum of all its bytes, flushed to disk, and renamed. Whoever
works in a folder holds it (`holding`); what a process that died has left there is swept by the next one that holds it
alone. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SEAL = "sha256:" + 64 * "0"  # a file holds this once; its zeros become the checksum of all bytes as they were with them
SEALED = re.compile(rb"sha256:([0-9a-f]{64})")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
ROOM = 2**20  # bytes that a folder must take before it is worth training for


class UnusableError(ValueError):
    """A stored file is damaged, or holds runs of other settings. The message names it and says what to do."""


def folder_named(variable: str, default: str) -> Path:
    """The folder that an environment variable names, or a default where it is empty or not set; "~" is the home.

    >>> folder_named("A_VARIABLE_THAT_IS_NOT_SET", "runs")
    PosixPath('runs')
    """
    return expanded(os.environ.get(variable) or default)


def expanded(folder: str | Path) -> Path:
    """A folder with its "~" spelt out, as every program here does it.

    Raises:
        OSError: a home that is not known.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise OSError(f"{str(folder)!r} is below a home that is not known; write the whole path") from error


def require_writable(folder: Path, advice: str) -> None:
    """Raise OSError now, in one line and not after hours of training, if results cannot be written to `folder`.

    It is tried with a file of `ROOM` bytes, so a full disk is noticed as well as a folder without the right to write.

    Args:
        advice: what to do then, the end of the message.
    """
    probe = folder / f".room.{uuid.uuid4().hex}.tmp"
    try:
        str(folder.absolute()).encode()  # duckdb takes UTF-8 only
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(ROOM))
        finally:
            probe.unlink(missing_ok=True)
    except UnicodeEncodeError:
        raise OSError(f"cannot write to {str(folder)!r}: its path is not UTF-8; {advice}") from None
    except OSError as error:
        raise OSError(f"cannot write to {str(folder)!r}: {error.strerror}; {advice}") from None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file that holds `SEAL`, and give it its name once it is sealed and on the disk.

    Raises:
        OSError: it cannot be written; whatever had that name before is still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as file:
            content = file.read()
            file.seek(content.rindex(SEAL.encode()) + len("sha256:"))
            file.write(hashlib.sha256(content).hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_names(path.parent)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def flush_names(folder: Path) -> None:
    """Make the disk know of a new name in a folder, which survives a loss of power only then."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def is_whole(content: bytes) -> bool | None:
    """Whether the bytes of a file are those that were sealed; None where it has no seal.

    >>> is_whole(b"no seal"), is_whole(SEAL.encode())
    (None, False)
    """
    seals = list(SEALED.finditer(content))
    if not seals:
        return None
    start, end = seals[-1].span(1)
    unsealed = content[:start] + 64 * b"0" + content[end:]
    return hashlib.sha256(unsealed).hexdigest().encode() == seals[-1][1]


@contextmanager
def holding(folder: Path, sweep: Callable[[], None]) -> Iterator[None]:
    """Work in a folder beside other processes; whoever comes while no other is there sweeps it first.

    The lock is on the folder itself and the system's own: it goes with its process, however that ends. On a file
    system that knows no such locks nothing is swept.

    Args:
        sweep: removes what only a process that died can have left, besides its temporary files.
    """
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # others are here, or there are no locks
            pass
        else:
            for path in [p for p in folder.iterdir() if TEMPORARY.fullmatch(p.name)]:
                path.unlink(missing_ok=True)
            sweep()
        with suppress(OSError):
            fcntl.flock(place, fcntl.LOCK_SH)
        yield
    finally:
        os.close(place)
