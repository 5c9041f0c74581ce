"""A file as a switch: for all processes of one host, and for operators with a shell.

Reading never creates or changes anything. Writing keeps two more files beside it: ``<file>.lock``, which stays, and
``<file>.lock.new``, which becomes the file.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import os
import stat
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .. import background
from ..exceptions import BackendUnavailable, CorruptState, DeadlinePassed, InvalidConfiguration, ReadOnlyBackend
from ..state import MAX_BYTES, MAX_VERSION, UNIX_EPOCH, Change, MaintenanceMode, MaintenanceState, is_plain, parse_mode
from .base import FollowedBackend, OnBackendError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BARE = "bare "
"""What the epoch of a bare word begins with."""

_SECONDS_BETWEEN_TRIES = 0.004

# Without O_NONBLOCK, a pipe that nobody writes to would block for ever. Windows has none of these.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_MAX_LINKS = 40
"""As many as Linux follows."""


class LocalFileBackend(FollowedBackend):
    """Maintenance by a file: ``echo 1 > file`` switches on, ``echo 0 > file`` or ``rm file`` switches off.

    The file is the switch: no file means off, also after there was one. It holds a word (``1``, ``on``, ``true``,
    ``yes``; ``0``, ``off``, ``false``, ``no``; ``read_only``) or the state as a JSON document. What is neither, or an
    empty file, is a failure: the last known state stays. So is anything that is no regular file.

    A bare ``1`` or ``0`` is written whenever that says all. Such a file has no room for a version or for the ids of
    changes: its version is the time of its last modification in microseconds, 0 without a file, so that
    ``expected_version`` works; and a change that is tried again is made again, which a plain on or off survives.

    Changes are made under ``flock``, one after the other, each by a new file that replaces the former one: readers
    see the old one or the new one, and a full disk leaves the old one. The file keeps its permissions, and its owner
    where the system lets it; a new one is never writable by everybody. A symbolic link stays, and its target is
    replaced. The directory must be writable, and on one host: locks and replacing mean little on a network share.
    Whoever may write in the directory may take the lock, and nobody else. Windows can read only.

    In a directory that everybody may write in, such as ``/tmp``, links and files are refused unless they belong to
    this process's user, to root, or to the directory's owner.

    Args:
        file_path: The file; a relative one counts from the working directory of now.
        poll_seconds: How often the file is read.
        timeout_seconds: How long one change may take.
        on_backend_error: As for every followed backend, and so are the others.
        max_stale: Seconds.
        initial: What counts while the file could never be read.
        init_timeout: Seconds.

    Raises:
        InvalidConfiguration: The path or an option can't work.
    """

    def __init__(
        self,
        file_path: str | os.PathLike[str],
        *,
        poll_seconds: float = 0.1,
        timeout_seconds: float = 1.0,
        on_backend_error: OnBackendError = "keep",
        max_stale: float | None = None,
        initial: bool | MaintenanceMode = False,
        init_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            poll_seconds=poll_seconds,
            timeout_seconds=timeout_seconds,
            on_backend_error=on_backend_error,
            max_stale=max_stale,
            initial=initial,
            init_timeout=init_timeout,
        )
        self.file_path = os.fspath(file_path)
        if not Path(self.file_path).name or "\0" in self.file_path:
            raise InvalidConfiguration(f"file_path={self.file_path!r}: the name of a file is needed")
        self._path = Path(self.file_path).absolute()

    def __repr__(self) -> str:
        return f"LocalFileBackend({self.file_path!r})"

    def __str__(self) -> str:
        return self._path.as_uri()

    def sibling(self, name: str) -> LocalFileBackend:
        """Return the backend of a named switch: ``state.json`` has ``state.billing.json`` beside it."""
        path = Path(self.file_path)
        # "switch.lock" is the lock of "switch"; no other switch's name can meet the files that writing needs.
        suffix = path.suffix or (".switch" if name == "lock" else "")
        return LocalFileBackend(
            path.with_name(f"{path.stem}.{name}{suffix}"),
            **self._options(),
        )

    async def names_beside(self) -> list[str]:
        """Return the names in the files beside this one, whatever those have.

        Raises:
            BackendUnavailable: The directory can't be read.
        """
        begin, end = f"{self._path.stem}.", self._path.suffix
        try:
            files = [file.name for file in self._path.parent.iterdir()]
        except OSError as error:
            raise BackendUnavailable(repr(self), _explained(error, self._path)) from error
        return [
            file.removeprefix(begin).removesuffix(end)
            for file in files
            if file.startswith(begin) and file.endswith(end) and file != self._path.name
        ]

    def has_file(self) -> bool:
        """Return whether there is a file, which need not be readable.

        Raises:
            BackendUnavailable: There is no directory for it either, so nobody can switch on.
        """
        path = self._behind_links()
        if not path.parent.is_dir():
            raise BackendUnavailable(repr(self), _explained(FileNotFoundError(), path))
        return path.exists()

    async def load(self) -> MaintenanceState:
        """Return the state that the file has now; off without a file.

        The file is read each time, at once on the event loop: it is small and local, and its modification time may
        be the same after a change.

        Raises:
            BackendUnavailable: The file can't be read, or might be anybody's.
            CorruptState: It is no regular file, is empty, too large, or has something else.
        """
        return self._read(self._behind_links())[0]

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change and return the state after it.

        Raises:
            ChangeRejected: The change does not fit what the file has now, or came too late.
            BackendUnavailable: The file could not be written, or others held its lock; nothing was changed.
            CorruptState: The file has something else, which is left as it is.
            ReadOnlyBackend: On Windows.
        """
        deadline = time.monotonic() + self.timeout_seconds
        path = self._behind_links()
        try:
            async with self._locked(path, deadline) as lock:
                # No await from here on: neither a cancellation nor another task comes between.
                before, file = self._read(path)
                after = change.applied_once_to(before, datetime.now(UTC))
                if after is before:
                    return before
                # A maintenance that began before this change is no bare word, whose file says that it begins now.
                word = None if after.since is not None and after.since == before.since else _bare(after)
                return self._replace(path, file, after, lock, deadline, word=word)
        except OSError as error:
            raise BackendUnavailable(repr(self), _explained(error, path)) from error

    async def try_writing(self) -> str | None:
        """Write a file without a name into the directory; the lock is not created, nor taken.

        Raises:
            BackendUnavailable: It can't be written.
            CorruptState: The file has something that no change replaces.
        """
        path = self._behind_links()
        self._read(path)
        try:
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackendUnavailable(repr(self), _explained(error, path)) from error
        return None

    def _behind_links(self) -> Path:
        """Return the path without links in it.

        They are followed here and not by the system, since that would follow those of strangers as well.
        """
        try:
            return _resolve(self._path)
        except OSError as error:
            raise BackendUnavailable(repr(self), error.strerror) from error

    def _read(self, path: Path) -> tuple[MaintenanceState, os.stat_result | None]:
        """Return the state of a file, ready to be changed, and what the system knows of the file."""
        try:
            fd = os.open(path, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return MaintenanceState(), None
        except OSError as error:
            raise BackendUnavailable(repr(self), error.strerror) from error
        try:
            file = os.fstat(fd)
            _refuse_stranger(path, file)
            if not stat.S_ISREG(file.st_mode):
                raise CorruptState(str(path), "it is no regular file")
            return _parsed(_content(fd), file, where=str(path)), file
        except OSError as error:
            raise BackendUnavailable(repr(self), error.strerror) from error
        finally:
            os.close(fd)

    def _replace(
        self,
        path: Path,
        former: os.stat_result | None,
        state: MaintenanceState,
        lock: int,
        deadline: float,
        *,
        word: bytes | None,
    ) -> MaintenanceState:
        """Put a state in the place of the former file, as a whole or not at all, and return it as it can be read.

        It is written as ``word``, if there is one that says it all.
        """
        if state.epoch.startswith(_BARE):
            state = state.model_copy(update={"epoch": uuid.uuid4().hex})
        new = path.with_name(f"{path.name}.lock.new")
        new.unlink(missing_ok=True)  # left by a process that died here
        try:
            file = _write_new(new, word or state.to_json(), former)
            self._check(lock, path, deadline)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
        return _of_bare(state.mode, file) if word else state

    def _check(self, lock: int, path: Path, deadline: float) -> None:
        """Make sure that the change may still be made."""
        if not _is_at(lock, _lock_of(path)):
            raise BackendUnavailable(repr(self), f"{_lock_of(path)} was removed, so others may be writing: try again")
        if time.monotonic() >= deadline:
            raise DeadlinePassed

    @contextlib.asynccontextmanager
    async def _locked(self, path: Path, deadline: float) -> AsyncIterator[int]:
        """Hold the lock of a file, for all processes of this host; gives the descriptor of the lock file.

        The lock file stays: who removed it would take away the lock that another is about to get.
        """
        try:
            import fcntl  # noqa: PLC0415 - not on Windows
        except ImportError:
            raise ReadOnlyBackend(
                f"the file {self.file_path}",
                "this system has no flock; write 1 or 0 into the file by other means, or use another backend",
            ) from None
        while True:
            lock = _opened(_lock_of(path))
            try:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_at(lock, _lock_of(path)):
                        break
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
            if time.monotonic() >= deadline:
                raise BackendUnavailable(
                    repr(self), f"other processes held {_lock_of(path)} for {self.timeout_seconds:g} s"
                )
            await asyncio.sleep(background.jittered(_SECONDS_BETWEEN_TRIES))
        try:
            yield lock
        finally:
            # Closing is not enough where a process was forked meanwhile: it has the descriptor as well.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


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
    directory = path.parent.stat()
    trusted = (0, directory.st_uid, os.geteuid() if hasattr(os, "geteuid") else 0)
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


def _parsed(raw: bytes, file: os.stat_result, *, where: str) -> MaintenanceState:
    """Return the state of a file's content: a word or a document."""
    if len(raw) > MAX_BYTES:
        raise CorruptState(where, f"more than {MAX_BYTES} bytes")
    try:
        # PowerShell's echo writes UTF-16.
        text = raw.decode("utf-16") if raw.startswith(_UTF16) else raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise CorruptState(where, "it is no text") from None
    text = text.strip()
    if not text:
        raise CorruptState(where, "it is empty; write 1 or 0 into it, or remove it, which means off")
    if text.startswith("{"):
        return MaintenanceState.from_json(text, where=where)
    try:
        mode = parse_mode(text)
    except ValueError:
        raise CorruptState(
            where,
            f"{text[:20]!r} is neither 1/on/true/yes, 0/off/false/no or read_only, nor a JSON document",
        ) from None
    return _of_bare(mode, file)


def _of_bare(mode: MaintenanceMode, file: os.stat_result) -> MaintenanceState:
    """Return the state of a file that has a bare word."""
    version = min(max(file.st_mtime_ns // 1000, 0), MAX_VERSION)
    modified = UNIX_EPOCH + timedelta(microseconds=version)
    return MaintenanceState(
        # Named after the word, so that followers see a change even between two files of the same version.
        epoch=f"{_BARE}{mode}",
        version=version,
        mode=mode,
        since=None if mode is MaintenanceMode.OFF else modified,
        updated_at=modified,
    )


def _bare(state: MaintenanceState) -> bytes | None:
    """Return the word that says all that a state says, if there is one."""
    if not is_plain(state):
        return None
    return b"0" if state.mode is MaintenanceMode.OFF else b"1"


def _write_new(new: Path, content: bytes, former: os.stat_result | None) -> os.stat_result:
    """Create a file to replace a former one, with its owner and permissions where the system lets us."""
    # O_EXCL: what was put there by others, such as a link, is not followed.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664 if former is None else 0o600)
    with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
        if former is not None:
            _give(fd, former)
            os.fchmod(fd, former.st_mode & 0o777)
        stream.write(content)
        stream.flush()
        # Two changes within one tick of the kernel's clock must not look the same.
        moment = max(time.time_ns(), former.st_mtime_ns + 1000 if former is not None else 0)
        os.utime(fd, ns=(moment, moment))
        os.fsync(fd)
        return os.fstat(fd)


def _give(fd: int, to: os.stat_result) -> None:
    """Give a file to the group and the owner of another one, as far as the system lets us."""
    for user, group in (-1, to.st_gid), (to.st_uid, -1):
        with contextlib.suppress(OSError):  # EPERM, or EINVAL for users whom this container does not have
            os.fchown(fd, user, group)


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
        if found.st_uid == os.geteuid():
            _admit_writers_of(directory, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _admit_writers_of(directory: os.stat_result, fd: int) -> None:
    """Let those open a file who may write in a directory, as far as the system lets us, and nobody else."""
    _give(fd, directory)
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
