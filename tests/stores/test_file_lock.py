"""The file store on a system such as Windows: no ``fcntl``, owners or most flags. A stand-in plays ``msvcrt``."""

from __future__ import annotations

import fcntl
import importlib
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastapi_maintenance.exceptions import BackendUnavailable, DeadlinePassed
from fastapi_maintenance.stores import Reading, files
from fastapi_maintenance.stores.check import check_document_store
from fastapi_maintenance.stores.files import lock, paths
from fastapi_maintenance.stores.files import store as module
from tests.support.stores import done

MISSING = ("fchown", "fchmod", "geteuid", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY")
"""What Windows lacks of that which POSIX has. Python has ``fchmod`` there since 3.13."""


def locking(fd: int, mode: int, nbytes: int) -> None:
    """Stand for ``msvcrt.locking``, by descriptor as there."""
    assert nbytes == 1
    try:
        fcntl.flock(fd, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied") from None


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of the file store as such a system has it."""
    msvcrt: Any = ModuleType("msvcrt")
    msvcrt.LK_UNLCK, msvcrt.LK_NBLCK, msvcrt.locking = 0, 2, locking
    for name in MISSING:
        monkeypatch.delattr(os, name)
    utime = os.utime

    def utime_of_path(path: Path, *, ns: tuple[int, int]) -> None:
        assert isinstance(path, Path), "Windows sets the times of no descriptor"
        utime(path, ns=ns)

    monkeypatch.setattr(os, "utime", utime_of_path)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    for each in (paths, lock, module):
        monkeypatch.delitem(sys.modules, each.__name__)
        monkeypatch.setattr(files, each.__name__.rpartition(".")[2], each)  # to be put back
    return importlib.import_module(module.__name__)


def test_the_store_keeps_its_promises(windows: ModuleType, tmp_path: Path) -> None:
    """It locks, writes, conflicts and unlocks; of several writers one wins."""
    assert windows.try_lock is not lock.try_lock
    check_document_store(lambda: windows.FileStore(tmp_path / "switch"))


def test_a_lock_that_is_held_is_waited_for_and_given_back(windows: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    store = windows.FileStore(path)
    with path.with_name("switch.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackendUnavailable, match=r"other processes kept .*switch\.lock locked"):
            done(store.replace("default", b"1", None, seconds=0.05))
        assert not path.exists()
        threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        done(store.replace("default", document(), None, seconds=10))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.exists()


def document(reason: str = "r") -> bytes:
    return f'{{"schema":1,"epoch":"e","version":1,"mode":"on","reason":"{reason}"}}'.encode()


def test_writing_can_be_tried(windows: ModuleType, tmp_path: Path) -> None:
    assert done(windows.FileStore(tmp_path / "switch").try_writing("default")) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that is to replace another one, on Windows."""
    for name in ("switch", "new"):
        (tmp_path / name).write_text(name)
    new = tmp_path / "new"
    monkeypatch.setattr(os, "name", "nt")
    return new


class Refusing:
    """Refuses so many times to replace a file, as Windows does while somebody reads it."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._replace = os.replace

    def __call__(self, new: Path, path: Path) -> None:
        if self.left:
            self.left -= 1
            raise PermissionError(13, "Access is denied")
        self._replace(new, path)


def test_a_replace_that_is_refused_is_repeated(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing(3)
    monkeypatch.setattr(os, "replace", refusing)
    module._move(new, new.with_name("switch"), time.monotonic() + 10)
    assert refusing.left == 0
    assert new.with_name("switch").read_text() == "new"


def test_a_replace_that_is_refused_until_the_deadline_is_not_made(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing(10**9)
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(DeadlinePassed):
        module._move(new, new.with_name("switch"), time.monotonic() + 0.05)
    assert refusing.left < 10**9 - 1
    assert new.with_name("switch").read_text() == "switch"


def test_elsewhere_a_refusal_is_final(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "posix")
    refusing = Refusing(10**9)
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(PermissionError):
        module._move(new, new.with_name("switch"), time.monotonic() + 10)
    assert refusing.left == 10**9 - 1


def test_each_write_makes_another_revision_within_one_tick_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the same content comes back, and the file gets the number of a former one."""
    store, seen = module.FileStore(tmp_path / "switch"), list[Reading]()
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    for number in range(20):
        revision = seen[-1].revision if seen else None
        seen.append(done(store.replace("default", document("ab"[number % 2]), revision, seconds=10)))
    assert len({reading.revision for reading in seen}) == len(seen)
    assert done(store.read("default")) == seen[-1]
