"""The store that keeps each document in a file, for all processes of one host and for operators with a shell.

Reading never creates or changes anything. Writing creates two more files: ``<file>.lock``, which stays, and
``<file>.lock.new``, which becomes the file.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import random
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

from ...exceptions import BackendUnavailable, CorruptState, DeadlinePassed, InvalidConfiguration
from ..contract import Conflict, DocumentStore, Reading, is_switch_name
from .content import read_content, revision_of, to_document, word_of
from .lock import change_owner, is_at, lock_of, open_lock, try_lock, unlock
from .paths import FLAGS, HAS_OWNERS, UntrustedFileError, refuse_untrusted, resolve

T = TypeVar("T")

_SECONDS_BETWEEN_TRIES = 0.004
_SHARE_OF_THE_FILE = 0.8
"""The part of a write's time in which the file may be replaced; the rest is reserved for a certain answer."""
_random = random.Random()  # noqa: S311 - no secret


class FileStore(DocumentStore):
    """Keeps documents in files; a bare word such as ``1`` is read and written as the document that it means.

    Every call runs on a daemon thread of its own, so a file system that hangs blocks nothing else. A file that hangs
    occupies only one thread: further calls wait for it until they time out.

    Args:
        path: The file of the default switch. For ``state.json``, the switch ``billing`` has ``state.billing.json``.

    Raises:
        InvalidConfiguration: The path can't be the path of a file.
    """

    missing_is_off: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not Path(self.path).name or "\0" in self.path:
            raise InvalidConfiguration(f"file_path={self.path!r} must be the name of a file")
        self._default = Path(self.path).absolute()
        self._under_way: set[tuple[int, str]] = set()
        """The calls in progress, by process and switch."""

    def path_of(self, switch: str) -> Path:
        """Return the absolute path of a switch's file."""
        path = self._default
        if switch == "default":
            return path
        # "switch.lock" is the lock of "switch"; no other switch name collides with the files that writing creates.
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
        """Whether the given path is absolute."""
        return Path(self.path).is_absolute()

    async def read(self, key: str) -> Reading:
        """Return the document that the file means.

        Each call reads the file: it is small, and a change may leave its modification time the same.

        Raises:
            BackendUnavailable: The file can't be read.
            CorruptState: The file is not a regular file, is empty, or is neither a word nor a document.
        """
        return await self._run(key, lambda: self._read(key))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Replace the whole file under its lock if it still has this revision; return the new reading."""
        deadline = time.monotonic() + seconds * _SHARE_OF_THE_FILE
        return await self._run(key, lambda: self._replace(key, content, revision, deadline))

    async def names(self) -> list[str]:
        """Return the switches that have a file, by the names of the files in the directory."""
        return await self._run("", self._names)

    async def try_writing(self, key: str) -> str | None:
        """Check that the directory is writable with an unnamed temporary file; the lock is not used."""
        await self._run(key, lambda: self._try_writing(key))
        return None

    async def _run(self, key: str, call: Callable[[], T]) -> T:
        this = os.getpid(), key  # a forked child has none of its parent's calls
        # A call that was cancelled may still be in progress. A file that hangs must not occupy a second thread.
        while this in self._under_way:  # noqa: ASYNC110 - an event belongs to one loop
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        self._under_way.add(this)
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        answer.set_running_or_notify_cancel()  # a cancelled caller does not stop the call

        def job() -> None:
            try:
                try:
                    result = call()
                finally:
                    self._under_way.remove(this)
                answer.set_result(result)
            except BaseException as error:  # noqa: BLE001 - raised in the caller
                answer.set_exception(error)

        threading.Thread(target=job, name="fastapi-maintenance-io", daemon=True).start()
        return await asyncio.wrap_future(answer)

    def _read(self, key: str) -> Reading:
        path = self._resolve_path(key)
        return to_document(*self._read_raw(key, path), where=str(path))

    def _read_raw(self, key: str, path: Path) -> tuple[Reading, os.stat_result | None]:
        """Return a file's unconverted content and its ``stat`` result."""
        try:
            fd = os.open(path, os.O_RDONLY | FLAGS)
        except FileNotFoundError:
            return Reading(None, None), None
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error
        try:
            file = os.fstat(fd)
            refuse_untrusted(path, file)
            if not stat.S_ISREG(file.st_mode):
                raise CorruptState(str(path), "it is not a regular file")
            content = read_content(fd)
            return Reading(content, revision_of(content, file)), file
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error
        finally:
            os.close(fd)

    def _replace(self, key: str, content: bytes, revision: str | None, deadline: float) -> Reading:
        path = self._resolve_path(key)
        new = path.with_name(f"{path.name}.lock.new")
        try:
            with self._hold_lock(key, path, deadline) as lock:
                found, former = self._read_raw(key, path)
                if found.revision != revision:
                    raise Conflict(to_document(found, former, where=str(path)))
                new.unlink(missing_ok=True)  # left by a process that died here
                word = word_of(content, found, former)
                try:
                    file = _write_new(new, word or content, former)
                    self._check_lock(key, lock, path)
                    _move(new, path, deadline)
                except BaseException:
                    new.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise BackendUnavailable(self.describe(key), _explain(error, path)) from error
        _flush_directory(path.parent)
        written = word or content
        return to_document(Reading(written, revision_of(written, file)), file, where=str(path))

    def _check_lock(self, key: str, lock: int, path: Path) -> None:
        if not is_at(lock, lock_of(path)):
            problem = f"{lock_of(path)} was removed, so others may be writing: try again"
            raise BackendUnavailable(self.describe(key), problem)

    def _names(self) -> list[str]:
        path = self._default
        try:
            entries = [entry.name for entry in path.parent.iterdir()]
        except OSError as error:
            raise BackendUnavailable(self.describe("default"), _explain(error, path)) from error
        found = {"default"} if path.name in entries else set()
        for entry in entries:
            switch = entry.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
            if is_switch_name(switch) and self.path_of(switch).name == entry:
                found.add(switch)
        return sorted(found)

    def _try_writing(self, key: str) -> None:
        path = self._resolve_path(key)
        self._read(key)
        try:
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackendUnavailable(self.describe(key), _explain(error, path)) from error

    def _resolve_path(self, key: str) -> Path:
        """Return a switch's path without symbolic links.

        The system must not resolve them, because it would follow the links of untrusted users as well.
        """
        try:
            return resolve(self.path_of(key))
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error

    @contextlib.contextmanager
    def _hold_lock(self, key: str, path: Path, deadline: float) -> Iterator[int]:
        """Hold the lock of a file against all processes of this host; yield the descriptor of the lock file.

        The lock file stays: another process may already have opened it to lock it next.
        """
        while True:
            lock = open_lock(lock_of(path))
            try:
                if try_lock(lock):
                    if is_at(lock, lock_of(path)):
                        break
                    unlock(lock)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
            if time.monotonic() >= deadline:
                raise BackendUnavailable(self.describe(key), f"other processes kept {lock_of(path)} locked")
            time.sleep(_random.uniform(_SECONDS_BETWEEN_TRIES / 2, _SECONDS_BETWEEN_TRIES))
        try:
            yield lock
        finally:
            # Closing is not enough: a child that was forked meanwhile has the descriptor as well.
            unlock(lock)
            os.close(lock)


def _move(new: Path, path: Path, deadline: float) -> None:
    """Replace a file with another file.

    Raises:
        DeadlinePassed: The deadline passed before the replacement.
    """
    while True:
        if time.monotonic() >= deadline:
            raise DeadlinePassed
        try:
            new.replace(path)
        except PermissionError:
            if os.name != "nt":  # Windows refuses this while somebody reads the file
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def _write_new(new: Path, content: bytes, former: os.stat_result | None) -> os.stat_result:
    """Create a file with the owner and permissions of the former file, as far as the system allows it."""
    # O_EXCL: a file or link that others created under this name is not used.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664 if former is None else 0o600)
    with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
        if former is not None and HAS_OWNERS:
            change_owner(fd, former.st_uid, former.st_gid)
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
    os.utime(new, ns=(moment, moment))  # after closing, because closing sets the time on Windows
    return new.stat()


def _flush_directory(directory: Path) -> None:
    """Write a directory to disk, so that the change survives a power cut, if the file system supports that.

    The change is already in effect, so an error here must not be reported as its failure.
    """
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _explain(error: OSError, path: Path) -> str:
    """Return the cause of an error and its remedy."""
    if isinstance(error, FileNotFoundError):
        return f"there is no directory {path.parent}: create it, and let this process write in it"
    if isinstance(error, UntrustedFileError):
        return str(error.strerror)
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a symbolic link: remove it"
    if isinstance(error, PermissionError):
        return f"{error.strerror}: {error.filename}; this process must be able to write in {path.parent}"
    return f"{error.strerror}, while it was written"
