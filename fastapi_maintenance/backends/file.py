"""A file as a switch: for all processes of one host, and for operators with a shell."""

from __future__ import annotations

import os
from typing import Unpack

from ..stores.files.store import FileStore
from .base import FollowOptions, StoreBackend


class LocalFileBackend(StoreBackend):
    """Maintenance by a file: ``echo 1 > file`` switches on, ``echo 0 > file`` or ``rm file`` switches off.

    The file is the switch: no file means off, also after there was one. It holds a word (``1``, ``on``, ``true``,
    ``yes``; ``0``, ``off``, ``false``, ``no``; ``read_only``) or the state as a JSON document. What is neither, or an
    empty file, is a failure: the last known state stays. So is anything that is no regular file.

    A bare ``1`` or ``0`` is written whenever that says all. Such a file has no room for a version or for the ids of
    changes: its version is the time of its last modification in microseconds, 0 without a file, so that
    ``expected_version`` works; and a change that is tried again is made again, which a plain on or off survives.

    Changes are made under a lock, one after the other, each by a new file that replaces the former one: readers see
    the old one or the new one, and a full disk leaves the old one. The file keeps its permissions, and its owner where
    the system lets it. A symbolic link stays, and its target is replaced. The directory must be writable, and
    on one host: locks and replacing mean little on a network share.

    Args:
        file_path: The file; a relative one is relative to the working directory of now.
        options: See ``FollowOptions``; the file is read every 0.1 s by default.

    Raises:
        InvalidConfiguration: The path or an option can't work.
    """

    def __init__(self, file_path: str | os.PathLike[str], **options: Unpack[FollowOptions]) -> None:
        options.setdefault("poll_seconds", 0.1)
        super().__init__(FileStore(file_path), **options)
        self.file_path = os.fspath(file_path)
