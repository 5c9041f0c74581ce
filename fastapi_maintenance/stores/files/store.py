"""Documents in files: one file each, for all processes of one host and for operators with a shell.

Reading never creates or changes anything. Writing keeps two more files beside it: ``<file>.lock``, which stays, and
``<file>.lock.new``, which becomes the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

from ...concurrency.daemon_threads import run_in_thread
from ...exceptions import BackendUnavailable, CorruptState, DeadlinePassed, InvalidConfiguration
from ..contract import Conflict, DocumentStore, Reading, is_switch_name
from .content import bare_word, read_content, revision_of, to_document
from .lock import give, is_at, lock_of, opened, try_lock, unlock
from .paths import FLAGS, HAS_OWNERS, OfStrangerError, refuse_stranger, resolve

T = TypeVar("T")

_SECONDS_BETWEEN_TRIES = 0.004
_SHARE_OF_THE_FILE = 0.8
"""The part of a write's time in which the file may be replaced; the rest is for the answer, which is then certain."""
_random = random.Random()  # noqa: S311 - no secret


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
        return to_document(*self._read_raw(key, path), where=str(path))

    def _read_raw(self, key: str, path: Path) -> tuple[Reading, os.stat_result | None]:
        """Return a file's content as it is, and the system's record of the file."""
        try:
            fd = os.open(path, os.O_RDONLY | FLAGS)
        except FileNotFoundError:
            return Reading(None, None), None
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error
        try:
            file = os.fstat(fd)
            refuse_stranger(path, file)
            if not stat.S_ISREG(file.st_mode):
                raise CorruptState(str(path), "it is no regular file")
            content = read_content(fd)
            return Reading(content, revision_of(content, file)), file
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
                    raise Conflict(to_document(found, former, where=str(path)))
                new.unlink(missing_ok=True)  # left by a process that died here
                word = bare_word(content, found, former)
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
            return resolve(self.path_of(key))
        except OSError as error:
            raise BackendUnavailable(self.describe(key), error.strerror) from error

    @contextlib.contextmanager
    def _locked(self, key: str, path: Path, deadline: float) -> Iterator[int]:
        """Hold the lock of a file, for all processes of this host; gives the descriptor of the lock file.

        The lock file stays: removing it would take away the lock that another process is about to get.
        """
        while True:
            lock = opened(lock_of(path))
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
                raise BackendUnavailable(self.describe(key), f"other processes held {lock_of(path)} all the time")
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


def _write_new(new: Path, content: bytes, former: os.stat_result | None) -> os.stat_result:
    """Create a file to replace a former one, with its owner and permissions where the system lets us."""
    # O_EXCL: what was put there by others, such as a link, is not followed.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664 if former is None else 0o600)
    with open(fd, "wb") as stream:  # noqa: PTH123 - a descriptor
        if former is not None and HAS_OWNERS:
            give(fd, former.st_uid, former.st_gid)
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
    if isinstance(error, OfStrangerError):
        return str(error.strerror)
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a symbolic link: remove it"
    if isinstance(error, PermissionError):
        return f"{error.strerror}: {error.filename}; this process must be able to write in {path.parent}"
    return f"{error.strerror}, while it was written"
