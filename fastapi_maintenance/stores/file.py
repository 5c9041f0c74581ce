"""Documents in files: one file each, for all processes of one host and for operators with a shell.

Reading never creates or changes anything. Writing keeps two more files beside it: ``<file>.lock``, which stays, and
``<file>.lock.new``, which becomes the file.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import hashlib
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, TypeVar

from ..exceptions import BackendUnavailable, CorruptState, DeadlinePassed, InvalidConfiguration
from ..state import MAX_VERSION, UNIX_EPOCH, MaintenanceMode, MaintenanceState, is_plain, parse_mode
from .contract import MAX_BYTES, Conflict, DocumentStore, Reading, is_switch_name
from .file_lock import try_lock, unlock
from .threads import run_in_thread

T = TypeVar("T")

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BARE = "bare "
"""The epoch of a bare word begins with this."""

_SECONDS_BETWEEN_TRIES = 0.004
_SHARE_OF_THE_FILE = 0.8
"""The part of a write's time in which the file may be replaced; the rest is for the answer, which is then certain."""
_random = random.Random()  # noqa: S311 - no secret

# Without O_NONBLOCK, a pipe that nobody writes to would block for ever. No system has all of these.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
_HAS_OWNERS = hasattr(os, "geteuid")
"""Windows has access control lists in their place, which a new file inherits."""
_MAX_LINKS = 40
"""As many as Linux follows."""


class FileStore(DocumentStore):
    """Documents in files; a bare word such as ``1`` is read and written as the document that it stands for.

    Every call runs on a daemon thread, so a file system that hangs stops nothing else. A file that hangs has one such
    thread: further calls are refused until the system has answered.

    Args:
        path: The file of the default switch. ``state.json`` has ``state.billing.json`` beside it.

    Raises:
        InvalidConfiguration: The path can't be a file's.
    """

    missing_is_off: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not Path(self.path).name or "\0" in self.path:
            raise InvalidConfiguration(f"file_path={self.path!r} must be the name of a file")
        self._default = Path(self.path).absolute()
        self._under_way: set[tuple[int, str]] = set()
        """The switches for which a call is under way, each with the process."""

    def path_of(self, switch: str) -> Path:
        """Return the absolute path of a switch's file."""
        path = self._default
        if switch == "default":
            return path
        # "switch.lock" is the lock of "switch"; no other switch's name can meet the files that writing needs.
        suffix = path.suffix or (".switch" if switch == "lock" else "")
        return path.with_name(f"{path.stem}.{switch}{suffix}")

    def describe(self, key: str) -> str:
        """Return the file's path."""
        path = self.path if key == "default" else str(Path(self.path).with_name(self.path_of(key).name))
        return f"LocalFileBackend({path!r})"

    def address(self, key: str) -> str:
        """Return the file's URL."""
        return self.path_of(key).as_uri()

    @property
    def is_absolute(self) -> bool:
        """Whether the path was given as an absolute one."""
        return Path(self.path).is_absolute()

    async def read(self, key: str) -> Reading:
        """Return the document that the file stands for now.

        The file is read each time: it is small, and its modification time may be the same after a change.

        Raises:
            BackendUnavailable: The file can't be read.
            CorruptState: It is no regular file, is empty, or has something else.
        """
        return await self._run(key, lambda: self._read(key))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Replace the file as a whole under its lock, if nobody has written it since."""
        deadline = time.monotonic() + seconds * _SHARE_OF_THE_FILE
        return await self._run(key, lambda: self._replace(key, content, revision, deadline))

    async def names(self) -> list[str]:
        """Return the switches that have a file, by the names of the files beside the default one's."""
        return await self._run("", self._names)

    async def try_writing(self, key: str) -> str | None:
        """Write a file without a name into the directory; the lock is not created, nor taken."""
        await self._run(key, lambda: self._try_writing(key))
        return None

    async def _run(self, key: str, call: Callable[[], T]) -> T:
        this = os.getpid(), key  # in a forked child nothing is under way
        # For a caller that was cancelled. A file that hangs gets no second thread.
        while this in self._under_way:  # noqa: ASYNC110 - an event belongs to one loop
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        self._under_way.add(this)

        def job() -> T:
            try:
                return call()
            finally:
                self._under_way.remove(this)

        return await run_in_thread(job)

    def _read(self, key: str) -> Reading:
        """Return the document that a file stands for."""
        path = self._behind_links(key)
        return _document(*self._read_raw(key, path), where=str(path))

    def _read_raw(self, key: str, path: Path) -> tuple[Reading, os.stat_result | None]:
        """Return a file's content as it is, and the system's record of the file."""
        try:
            fd = os.open(path, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return Reading(None, None), None
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error
        try:
            file = os.fstat(fd)
            _refuse_stranger(path, file)
            if not stat.S_ISREG(file.st_mode):
                raise CorruptState(str(path), "it is no regular file")
            content = _content(fd)
            return Reading(content, _revision(content, file)), file
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error
        finally:
            os.close(fd)

    def _replace(self, key: str, content: bytes, revision: str | None, deadline: float) -> Reading:
        path = self._behind_links(key)
        new = path.with_name(f"{path.name}.lock.new")
        try:
            with self._locked(key, path, deadline) as lock:
                found, former = self._read_raw(key, path)
                if found.revision != revision:
                    raise Conflict(_document(found, former, where=str(path)))
                new.unlink(missing_ok=True)  # left by a process that died here
                word = _bare_word(content, found, former)
                try:
                    file = _write_new(new, word or content, former)
                    self._check_lock(key, lock, path)
                    _move(new, path, deadline)
                except BaseException:
                    new.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise BackendUnavailable(self.describe(key), _explained(error, path)) from error
        _flush_directory(path.parent)
        written = word or content
        return _document(Reading(written, _revision(written, file)), file, where=str(path))

    def _check_lock(self, key: str, lock: int, path: Path) -> None:
        if not _is_at(lock, _lock_of(path)):
            problem = f"{_lock_of(path)} was removed, so others may be writing: try again"
            raise BackendUnavailable(self.describe(key), problem)

    def _names(self) -> list[str]:
        path = self._default
        try:
            entries = [entry.name for entry in path.parent.iterdir()]
        except OSError as error:
            raise BackendUnavailable(self.describe("default"), _explained(error, path)) from error
        found = {"default"} if path.name in entries else set()
        for entry in entries:
            switch = entry.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
            if is_switch_name(switch) and self.path_of(switch).name == entry:
                found.add(switch)
        return sorted(found)

    def _try_writing(self, key: str) -> None:
        path = self._behind_links(key)
        self._read(key)
        try:
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackendUnavailable(self.describe(key), _explained(error, path)) from error

    def _behind_links(self, key: str) -> Path:
        """Return a switch's path without links in it.

        They are followed here and not by the system, since that would follow those of strangers as well.
        """
        try:
            return _resolve(self.path_of(key))
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error

    @contextlib.contextmanager
    def _locked(self, key: str, path: Path, deadline: float) -> Iterator[int]:
        """Hold the lock of a file, for all processes of this host; gives the descriptor of the lock file.

        The lock file stays: removing it would take away the lock that another process is about to get.
        """
        while True:
            lock = _opened(_lock_of(path))
            try:
                if try_lock(lock):
                    if _is_at(lock, _lock_of(path)):
                        break
                    unlock(lock)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
            if time.monotonic() >= deadline:
                raise BackendUnavailable(self.describe(key), f"other processes held {_lock_of(path)} all the time")
            time.sleep(_random.uniform(_SECONDS_BETWEEN_TRIES / 2, _SECONDS_BETWEEN_TRIES))
        try:
            yield lock
        finally:
            # Closing is not enough where a process was forked meanwhile: it has the descriptor as well.
            unlock(lock)
            os.close(lock)


def _move(new: Path, path: Path, deadline: float) -> None:
    """Put a file in the place of another, unless it is too late.

    Raises:
        DeadlinePassed: It is.
    """
    while True:
        if time.monotonic() >= deadline:
            raise DeadlinePassed
        try:
            new.replace(path)
        except PermissionError:
            if os.name != "nt":  # Windows refuses it while somebody reads the file
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


class _OfStrangerError(OSError):
    """Something might be anybody's."""


def _resolve(path: Path) -> Path:
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
        _refuse_stranger(entry, found)
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


def _refuse_stranger(path: Path, found: os.stat_result) -> None:
    """Refuse to use what anybody may have put where it is."""
    if not _HAS_OWNERS:
        return
    directory = path.parent.stat()
    trusted = (0, directory.st_uid, os.geteuid())
    if directory.st_mode & stat.S_IWOTH and found.st_uid not in trusted:
        raise _OfStrangerError(
            errno.EACCES,
            f"{path} belongs to user {found.st_uid}, in a directory that everybody may write in: it could be a trap; "
            "remove it, or use a directory that only this service and its operators may write in",
        )


def _content(fd: int) -> bytes:
    """Return what a file has, up to one byte more than it may have."""
    raw = b""
    while len(raw) <= MAX_BYTES and (part := os.read(fd, MAX_BYTES + 1 - len(raw))):
        raw += part
    return raw


def _revision(content: bytes, file: os.stat_result) -> str:
    """Return the revision of a file. Modification times repeat on fast writes, and contents do as well."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return f"{file.st_ino}-{file.st_mtime_ns}-{file.st_size}-{digest}"


def _document(found: Reading, file: os.stat_result | None, *, where: str) -> Reading:
    """Return the document that a file's content stands for, in place of the content.

    Raises:
        CorruptState: It is neither a word nor a document.
    """
    if found.content is None or file is None:
        return found
    try:
        return found._replace(content=_document_of(found.content, file))
    except ValueError as error:
        raise CorruptState(where, str(error), revision=found.revision) from None


def _document_of(content: bytes, file: os.stat_result) -> bytes:
    """Return the document that a file's content stands for, or raise a ``ValueError`` that says what is wrong."""
    if len(content) > MAX_BYTES:
        msg = f"more than {MAX_BYTES} bytes"
        raise ValueError(msg)
    try:
        # PowerShell's echo writes UTF-16.
        text = (
            content.decode("utf-16") if content.startswith(_UTF16) else content.removeprefix(codecs.BOM_UTF8).decode()
        )
    except UnicodeDecodeError:
        msg = "it is no text"
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
        msg = f"{text[:20]!r} is neither 1/on/true/yes, 0/off/false/no or read_only, nor a JSON document"
        raise ValueError(msg) from None
    version = min(max(file.st_mtime_ns // 1000, 0), MAX_VERSION)
    modified = UNIX_EPOCH + timedelta(microseconds=version)
    return MaintenanceState(
        # Named after the word, so that followers see a change even between two files of the same version.
        epoch=f"{_BARE}{mode}",
        version=version,
        mode=mode,
        since=None if mode is MaintenanceMode.OFF else modified,
        updated_at=modified,
    ).to_json()


def _bare_word(document: bytes, found: Reading, former: os.stat_result | None) -> bytes | None:
    """Return the word that says all that a document says, if there is one.

    A word says by the file's time since when it applies, so it can't say that a maintenance goes on.
    """
    state = MaintenanceState.from_json(document, where="the new document")
    before = None
    with contextlib.suppress(CorruptState):
        content = _document(found, former, where="").content
        before = None if content is None else MaintenanceState.from_json(content, where="")
    goes_on = before is not None and state.since is not None and state.since == before.since
    if goes_on or not is_plain(state):
        return None
    return b"0" if state.mode is MaintenanceMode.OFF else b"1"


def _write_new(new: Path, content: bytes, former: os.stat_result | None) -> os.stat_result:
    """Create a file to replace a former one, with its owner and permissions where the system lets us."""
    # O_EXCL: what was put there by others, such as a link, is not followed.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664 if former is None else 0o600)
    with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
        if former is not None and _HAS_OWNERS:
            _give(fd, former.st_uid, former.st_gid)
            os.fchmod(fd, former.st_mode & 0o777)
        stream.write(content)
        stream.flush()
        # Two changes within one tick of the kernel's clock must not look the same.
        moment = max(time.time_ns(), former.st_mtime_ns + 1000 if former is not None else 0)
        if os.utime in os.supports_fd:
            os.utime(fd, ns=(moment, moment))
        os.fsync(fd)
        if os.utime in os.supports_fd:
            return os.fstat(fd)
    os.utime(new, ns=(moment, moment))  # after closing, by which Windows sets the time as well
    return new.stat()


def _give(fd: int, user: int, group: int) -> None:
    """Change the owner and the group of a file, as far as the system lets us."""
    for change in (-1, group), (user, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, *change)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _opened(lock: Path) -> int:
    """Open a lock file, or create one that exactly those can open who may write in its directory.

    Whoever can open it, even for reading only, can hold the lock for ever.
    """
    try:
        # Without O_CREAT first: in directories such as /tmp, Linux refuses that for a file of another user.
        fd = os.open(lock, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        fd = os.open(lock, os.O_RDWR | _FLAGS | os.O_CREAT, 0o600)
    try:
        found, directory = os.fstat(fd), lock.parent.stat()
        _refuse_stranger(lock, found)
        if _HAS_OWNERS and found.st_uid == os.geteuid():
            _admit_writers_of(directory, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _admit_writers_of(directory: os.stat_result, fd: int) -> None:
    """Let those open a file who may write in a directory, as far as the system lets us, and nobody else."""
    _give(fd, directory.st_uid, directory.st_gid)
    is_for_group = directory.st_mode & stat.S_IWGRP and os.fstat(fd).st_gid == directory.st_gid
    os.fchmod(fd, 0o660 if is_for_group else 0o600)


def _is_at(fd: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _flush_directory(directory: Path) -> None:
    """Have the directory survive a power cut, where the file system knows how.

    The change counts already, so nothing that fails here can be reported as its failure.
    """
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _explained(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no directory {path.parent}: create it, and let this process write in it"
    if isinstance(error, _OfStrangerError):
        return str(error.strerror)
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a symbolic link: remove it"
    if isinstance(error, PermissionError):
        return f"{error.strerror}: {error.filename}; this process must be able to write in {path.parent}"
    return f"{error.strerror}, while it was written"
