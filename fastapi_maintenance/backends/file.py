"""The backend for a file: for all processes of one host, and for operators with a shell."""

from __future__ import annotations

import os
from typing import Unpack

from ..stores.files.store import FileStore
from .base import FollowOptions, StoreBackend


class LocalFileBackend(StoreBackend):
    """Maintenance by a file: ``echo 1 > file`` switches on, ``echo 0 > file`` or ``rm file`` switches off.

    No file means off, also after a file was removed. The file contains a word (``1``, ``on``, ``true``, ``yes``;
    ``0``, ``off``, ``false``, ``no``; ``read_only``) or the state as a JSON document. Any other content, an empty file
    and anything but a regular file are failures: the last known state stays in effect.

    The file contains only ``1`` or ``0`` if that expresses the whole state. Such a file can't hold a version or the
    ids of changes. Its version is its modification time in microseconds (0 without a file), so ``expected_version``
    works. A change that is tried again is made again, which is harmless for a plain on or off.

    Each change takes a lock, writes a new file and replaces the old file with it: readers see the old or the new file,
    and a full disk leaves the old file. The file keeps its permissions, and its owner if the system allows that. A
    symbolic link stays, and its target is replaced. The directory must be writable and local to one host: locks and
    atomic replacement are unreliable on network shares.

    Args:
        file_path: The file; a relative path is resolved against the present working directory.
        options: See ``FollowOptions``; the file is read every 0.1 s by default.

    Raises:
        InvalidConfiguration: The path or an option is invalid.
    """

    def __init__(self, file_path: str | os.PathLike[str], **options: Unpack[FollowOptions]) -> None:
        options.setdefault("poll_seconds", 0.1)
        super().__init__(FileStore(file_path), **options)
        self.file_path = os.fspath(file_path)
