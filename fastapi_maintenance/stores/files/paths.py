"""Resolves symbolic links, and refuses files that untrusted users may have created."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Without O_NONBLOCK, opening a pipe that has no writer would block for ever. No system has all of these flags.
FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
HAS_OWNERS = hasattr(os, "geteuid")
"""False on Windows, where a new file inherits access control lists."""
_MAX_LINKS = 40
"""The limit of Linux."""


class UntrustedFileError(OSError):
    """Any user may have created this file."""


def resolve(path: Path) -> Path:
    """Return a path with its symbolic links resolved, up to the first name that does not exist.

    Raises:
        UntrustedFileError: Any user may have created a link, directory or file of the path.
        OSError: There are too many links.
    """
    at, rest, links = Path(path.anchor), list(path.parts[:0:-1]), 0
    while rest:
        name = rest.pop()
        entry = at.parent if name == ".." else at / name
        try:
            found = entry.lstat()
        except FileNotFoundError:
            return entry.joinpath(*reversed(rest))
        refuse_untrusted(entry, found)
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


def refuse_untrusted(path: Path, found: os.stat_result) -> None:
    """Raise ``UntrustedFileError`` if any user may have created a file."""
    if not HAS_OWNERS:
        return
    directory = path.parent.stat()
    trusted = (0, directory.st_uid, os.geteuid())
    if directory.st_mode & stat.S_IWOTH and found.st_uid not in trusted:
        raise UntrustedFileError(
            errno.EACCES,
            f"{path} belongs to user {found.st_uid}, in a directory that everybody can write in: it could be a trap; "
            "remove it, or use a directory that only this service and its operators can write in",
        )
