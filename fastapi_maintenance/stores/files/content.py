"""Converts between documents and the content of files, which is a bare word or a JSON document."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from datetime import timedelta

from ...exceptions import CorruptState
from ...model.limits import MAX_BYTES, MAX_VERSION
from ...model.modes import ACCEPTED_WORDS, MaintenanceMode, parse_mode
from ...model.moments import UNIX_EPOCH
from ...model.state import MaintenanceState
from ..contract import Reading

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BARE = "bare "
"""The epoch of a bare word begins with this."""


def read_content(fd: int) -> bytes:
    """Return the content of a file, at most ``MAX_BYTES + 1`` bytes."""
    raw = b""
    while len(raw) <= MAX_BYTES and (part := os.read(fd, MAX_BYTES + 1 - len(raw))):
        raw += part
    return raw


def revision_of(content: bytes, file: os.stat_result) -> str:
    """Return the revision of a file. Neither its modification time nor its content alone identifies a write."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return f"{file.st_ino}-{file.st_mtime_ns}-{file.st_size}-{digest}"


def to_document(found: Reading, file: os.stat_result | None, *, where: str) -> Reading:
    """Return the reading of a file with its content converted to a document.

    Raises:
        CorruptState: The content is neither a word nor a document.
    """
    if found.content is None or file is None:
        return found
    try:
        return found._replace(content=_document_of(found.content, file))
    except ValueError as error:
        raise CorruptState(where, str(error), revision=found.revision) from None


def _document_of(content: bytes, file: os.stat_result) -> bytes:
    """Return the document that a file's content means, or raise a ``ValueError`` that names the problem."""
    if len(content) > MAX_BYTES:
        msg = f"more than {MAX_BYTES} bytes"
        raise ValueError(msg)
    try:
        # PowerShell's echo writes UTF-16.
        text = (
            content.decode("utf-16") if content.startswith(_UTF16) else content.removeprefix(codecs.BOM_UTF8).decode()
        )
    except UnicodeDecodeError:
        msg = "it is not text"
        raise ValueError(msg) from None
    text = text.strip()
    if not text:
        msg = "it is empty; write 1 or 0 into it, or remove it, which means off"
        raise ValueError(msg)
    if text.startswith("{"):
        return text.encode()
    try:
        mode = parse_mode(text)
    except ValueError:
        msg = f"{text[:20]!r} is neither {ACCEPTED_WORDS}, nor a JSON document"
        raise ValueError(msg) from None
    version = min(max(file.st_mtime_ns // 1000, 0), MAX_VERSION)
    modified = UNIX_EPOCH + timedelta(microseconds=version)
    return MaintenanceState(
        # The epoch contains the word, so followers see a change even if two files have the same version.
        epoch=f"{_BARE}{mode}",
        version=version,
        mode=mode,
        since=None if mode is MaintenanceMode.OFF else modified,
        updated_at=modified,
    ).to_json()


def is_plain(state: MaintenanceState) -> bool:
    """Return whether a plain boolean can express a state, apart from the history of its changes."""
    more = state.model_dump(exclude=_FIELDS_OF_WORD, exclude_defaults=True)
    return state.mode.texts is None and not more and not state.unreadable_windows


_FIELDS_OF_WORD = {"epoch", "version", "mode", "since", "updated_by", "updated_at", "recent_changes", "restored"}


def word_of(document: bytes, found: Reading, former: os.stat_result | None) -> bytes | None:
    """Return ``0`` or ``1`` if that expresses the whole document, or ``None``.

    A word applies since the modification time of its file, so it can't express a maintenance that began earlier.
    """
    state = MaintenanceState.from_json(document, where="the new document")
    before = None
    with contextlib.suppress(CorruptState):
        content = to_document(found, former, where="").content
        before = None if content is None else MaintenanceState.from_json(content, where="")
    began_earlier = before is not None and state.since is not None and state.since == before.since
    if began_earlier or not is_plain(state):
        return None
    return b"0" if state.mode is MaintenanceMode.OFF else b"1"
