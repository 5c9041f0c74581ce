"""The lock file beside a document, on every system."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from .paths import FLAGS, HAS_OWNERS, refuse_stranger

try:
    import fcntl
except ImportError:
    import msvcrt as _msvcrt
    from typing import Any

    msvcrt: Any = _msvcrt

    def try_lock(fd: int) -> bool:
        """Lock a file that is open for writing; return ``False`` where another process has the lock."""
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def try_lock(fd: int) -> bool:
        """Lock a file that is open for writing; return ``False`` where another process has the lock."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def give(fd: int, user: int, group: int) -> None:
    """Change the owner and the group of a file, as far as the system lets us."""
    for change in (-1, group), (user, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, *change)


def lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def opened(lock: Path) -> int:
    """Open a lock file, or create one that exactly those can open who may write in its directory.

    Whoever can open it, even for reading only, can hold the lock for ever.
    """
    try:
        # Without O_CREAT first: in directories such as /tmp, Linux refuses that for a file of another user.
        fd = os.open(lock, os.O_RDWR | FLAGS)
    except FileNotFoundError:
        fd = os.open(lock, os.O_RDWR | FLAGS | os.O_CREAT, 0o600)
    try:
        found, directory = os.fstat(fd), lock.parent.stat()
        refuse_stranger(lock, found)
        if HAS_OWNERS and found.st_uid == os.geteuid():
            _admit_writers_of(directory, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _admit_writers_of(directory: os.stat_result, fd: int) -> None:
    """Let those open a file who may write in a directory, as far as the system lets us, and nobody else."""
    give(fd, directory.st_uid, directory.st_gid)
    is_for_group = directory.st_mode & stat.S_IWGRP and os.fstat(fd).st_gid == directory.st_gid
    os.fchmod(fd, 0o660 if is_for_group else 0o600)


def is_at(fd: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
