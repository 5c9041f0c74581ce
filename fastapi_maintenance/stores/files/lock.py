"""The lock file beside a document, for Unix and Windows."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from .paths import FLAGS, HAS_OWNERS, refuse_untrusted

try:
    import fcntl
except ImportError:
    import msvcrt as _msvcrt
    from typing import Any

    msvcrt: Any = _msvcrt

    def try_lock(fd: int) -> bool:
        """Lock a file that is open for writing; return ``False`` if another process holds the lock."""
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Release the lock."""
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def try_lock(fd: int) -> bool:
        """Lock a file that is open for writing; return ``False`` if another process holds the lock."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Release the lock."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def change_owner(fd: int, user: int, group: int) -> None:
    """Change the owner and the group of a file, as far as the system allows it."""
    for change in (-1, group), (user, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, *change)


def lock_of(path: Path) -> Path:
    """Return the path of the lock file of a document."""
    return path.with_name(f"{path.name}.lock")


def open_lock(lock: Path) -> int:
    """Return the descriptor of a lock file, which is created if necessary.

    Only users who can write in its directory can open it: everybody who can open it, even for reading, can hold the
    lock for ever.
    """
    try:
        # First without O_CREAT, which Linux refuses for another user's file in directories such as /tmp.
        fd = os.open(lock, os.O_RDWR | FLAGS)
    except FileNotFoundError:
        fd = os.open(lock, os.O_RDWR | FLAGS | os.O_CREAT, 0o600)
    try:
        found, directory = os.fstat(fd), lock.parent.stat()
        refuse_untrusted(lock, found)
        if HAS_OWNERS and found.st_uid == os.geteuid():
            _admit_writers_of(directory, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _admit_writers_of(directory: os.stat_result, fd: int) -> None:
    """Let only users who can write in a directory open a file, as far as the system allows it."""
    change_owner(fd, directory.st_uid, directory.st_gid)
    is_for_group = directory.st_mode & stat.S_IWGRP and os.fstat(fd).st_gid == directory.st_gid
    os.fchmod(fd, 0o660 if is_for_group else 0o600)


def is_at(fd: int, path: Path) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
