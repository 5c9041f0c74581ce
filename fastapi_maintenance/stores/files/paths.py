"""Paths without links, and files that strangers may have put there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Without O_NONBLOCK, a pipe that nobody writes to would block for ever. No system has all of these.
FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
HAS_OWNERS = hasattr(os, "geteuid")
"""Windows has access control lists in their place, which a new file inherits."""
_MAX_LINKS = 40
"""As many as Linux follows."""


class OfStrangerError(OSError):
    """Something might be anybody's."""


def resolve(path: Path) -> Path:
    """Return a path without links in it, up to the first name that does not exist.

    Raises:
        OSError: There are too many links, or one that might be anybody's.
    """
    at, rest, links = Path(path.anchor), list(path.parts[:0:-1]), 0
    while rest:
        name = rest.pop()
        entry = at.parent if name == ".." else at / name
        try:
            found = entry.lstat()
        except FileNotFoundError:
            return entry.joinpath(*reversed(rest))
        refuse_stranger(entry, found)
        if not stat.S_ISLNK(found.st_mode):
            at = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = entry.readlink()
        rest += target.parts[:0:-1] if target.anchor else target.parts[::-1]
        at = Path(target.anchor) if target.anchor else at
    return at


def refuse_stranger(path: Path, found: os.stat_result) -> None:
    """Refuse to use what anybody may have put where it is."""
    if not HAS_OWNERS:
        return
    directory = path.parent.stat()
    trusted = (0, directory.st_uid, os.geteuid())
    if directory.st_mode & stat.S_IWOTH and found.st_uid not in trusted:
        raise OfStrangerError(
            errno.EACCES,
            f"{path} belongs to user {found.st_uid}, in a directory that everybody may write in: it could be a trap; "
            "remove it, or use a directory that only this service and its operators may write in",
        )
