"""A lock on an open file, for all processes of this host: ``flock`` on POSIX, ``locking`` on Windows."""

from __future__ import annotations

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
