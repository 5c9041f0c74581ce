"""A file as a switch: what it says, how it is written, and what goes wrong with files."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import itertools
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.exceptions import (
    BackendUnavailable,
    CorruptState,
    DeadlinePassed,
    HoldLost,
    InvalidConfiguration,
    OutcomeUnknown,
    VersionConflict,
)
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.modes import MaintenanceMode
from fastapi_maintenance.model.state import Hold, MaintenanceState
from fastapi_maintenance.stores import MAX_BYTES
from fastapi_maintenance.stores.files import paths, store
from tests.support.scripts import ROOT, output_of
from tests.support.stores import done

OFF, ON, READ_ONLY = MaintenanceMode.OFF, MaintenanceMode.ON, MaintenanceMode.READ_ONLY


def setting(mode: MaintenanceMode, *, reason: str | None = None, until: datetime | None = None) -> Change:
    return set_mode(mode, now=datetime.now(UTC), reason=reason, until=until)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "switch"


@pytest.fixture
def backend(path: Path) -> LocalFileBackend:
    return LocalFileBackend(path, timeout_seconds=10)


def load(backend: StoreBackend) -> MaintenanceState:
    """Return the state; the initial one where there is no file."""
    return done(backend.load()) or MaintenanceState()


# What is read


def test_no_file_means_off_also_after_one_was_seen(backend: LocalFileBackend, path: Path) -> None:
    assert done(backend.load()) is None
    path.write_text("1\n")
    assert load(backend).mode is ON
    path.unlink()
    assert done(backend.load()) is None


@pytest.mark.parametrize("word", ["1", "on", "true", "yes", "ON", " True \r\n", "1\n"])
def test_a_word_switches_on(backend: LocalFileBackend, path: Path, word: str) -> None:
    path.write_text(word)
    assert load(backend).mode is ON


@pytest.mark.parametrize("word", ["0", "off", "false", "no", "Off\n"])
def test_a_word_switches_off(backend: LocalFileBackend, path: Path, word: str) -> None:
    path.write_text(word)
    assert load(backend).mode is OFF


@pytest.mark.parametrize("word", ["read_only", "read-only\n"])
def test_a_word_lets_reading_pass(backend: LocalFileBackend, path: Path, word: str) -> None:
    path.write_text(word)
    assert load(backend).mode is READ_ONLY


@pytest.mark.parametrize(
    "raw", [codecs.BOM_UTF8 + b"1\r\n", "\ufeff1\r\n".encode("utf-16-le"), "\ufeff1\r\n".encode("utf-16-be")]
)
def test_what_windows_shells_write_is_read(backend: LocalFileBackend, path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert load(backend).mode is ON


def test_a_word_has_the_time_of_the_file(backend: LocalFileBackend, path: Path) -> None:
    path.write_text("1")
    os.utime(path, ns=(0, 1_500_000_000_123_456_789))
    state = load(backend)
    assert state.version == 1_500_000_000_123_456
    assert state.since == state.updated_at == datetime(2017, 7, 14, 2, 40, 0, 123456, tzinfo=UTC)
    os.utime(path, ns=(0, -1_000_000_000))
    assert load(backend).version == 0


def test_a_document_is_read(backend: LocalFileBackend, path: Path) -> None:
    state = MaintenanceState(epoch="e", version=3, mode=READ_ONLY, reason="Überholung")
    path.write_bytes(state.to_json())
    assert load(backend) == state


def test_two_words_of_the_same_moment_are_two_states(backend: LocalFileBackend, path: Path) -> None:
    """Modification times repeat on fast writes: a follower sees the change all the same."""
    states = []
    for word in ("1", "0"):
        path.write_text(word)
        os.utime(path, ns=(10**18, 10**18))
        states.append(load(backend))
    assert states[0].version == states[1].version
    assert states[0].epoch != states[1].epoch


def test_reading_creates_nothing(backend: LocalFileBackend, tmp_path: Path) -> None:
    load(backend)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "switch").write_text("1")
    load(backend)
    assert [entry.name for entry in tmp_path.iterdir()] == ["switch"]


# What can't be read


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "it is empty; write 1 or 0 into it, or remove it, which means off"),
        (b" \n", "it is empty"),
        (b"garbage", "'garbage' is neither 1/on/true/yes, 0/off/false/no or read_only, nor a JSON document"),
        (b"x" * 1000, "'xxxxxxxxxxxxxxxxxxxx' is neither"),
        (b"\0\0\0", "is neither"),
        (b"\xff\xfe\xfd", "it is not text"),
        (b"\x80", "it is not text"),
        (b'{"schema":1,"mode":"o', "Invalid JSON"),
        (b'{"schema":2}', "schema"),
        (b'{"mode":"on"}', "its schema is missing"),
        (b"1" + b" " * MAX_BYTES, "more than 65536 bytes"),
        (b"[1]", "is neither"),
    ],
)
def test_what_is_no_state_is_a_failure(backend: LocalFileBackend, path: Path, raw: bytes, problem: str) -> None:
    path.write_bytes(raw)
    with pytest.raises(CorruptState) as raised:
        load(backend)
    assert problem in str(raised.value)
    assert str(path) in str(raised.value)
    with pytest.raises(CorruptState):
        done(backend.apply(setting(ON)))
    assert path.read_bytes() == raw


@settings(deadline=None)  # the disk's time is not ours
@given(raw=st.binary(max_size=200), cut=st.integers(0, 300))
def test_any_content_is_a_state_or_a_failure(tmp_path_factory: pytest.TempPathFactory, raw: bytes, cut: int) -> None:
    """Whatever stands in the file, also part of a document: nothing but these two comes out."""
    path = tmp_path_factory.getbasetemp() / "any"
    whole = MaintenanceState(epoch="e", version=3, mode=ON, holds={"a": Hold(kind="on", owner="o")}).to_json()
    backend = LocalFileBackend(path)
    for content in raw, whole[:cut]:
        path.write_bytes(content)
        with contextlib.suppress(CorruptState):
            assert isinstance(load(backend), MaintenanceState)


def test_a_directory_is_a_failure(backend: LocalFileBackend, path: Path) -> None:
    path.mkdir()
    with pytest.raises(CorruptState, match="not a regular file"):
        load(backend)
    with pytest.raises(CorruptState, match="not a regular file"):
        done(backend.apply(setting(ON)))


def test_a_pipe_is_a_failure_and_blocks_nobody(backend: LocalFileBackend, path: Path) -> None:
    os.mkfifo(path)
    before = time.monotonic()
    with pytest.raises(CorruptState, match="not a regular file"):
        load(backend)
    assert time.monotonic() - before < 20  # opened as one opens a file, it waits for ever


def test_a_device_is_a_failure() -> None:
    with pytest.raises(CorruptState, match="not a regular file"):
        load(LocalFileBackend("/dev/zero"))


def test_a_socket_is_a_failure(backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
        with pytest.raises(BackendUnavailable):
            load(backend)


def test_a_file_below_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(BackendUnavailable, match="Not a directory"):
        load(LocalFileBackend(tmp_path / "file" / "switch"))


def test_a_circle_of_links_is_a_failure(backend: LocalFileBackend, path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(BackendUnavailable, match="symbolic links"):
        load(backend)
    with pytest.raises(BackendUnavailable, match="symbolic links"):
        done(backend.apply(setting(ON)))


def test_an_error_while_reading_is_a_failure(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("1")

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(BackendUnavailable, match="Input/output error"):
        backend.store._read_raw("default", path)  # type: ignore[attr-defined]  # in this thread: others read as well


def as_nobody(script: str, *args: object) -> str:
    """Return the output of a script that root runs as another user, and other users as themselves."""
    drop = "import os, sys\nif os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    imports = (
        # All of them before: the other user may not get at Python's files.
        "import asyncio, fcntl\nfrom datetime import UTC, datetime\n"
        "from fastapi_maintenance.backends.file import LocalFileBackend\n"
        "from fastapi_maintenance.exceptions import *\n"
        "from fastapi_maintenance.model.change import *\nfrom fastapi_maintenance.model.modes import *\n"
        "change = set_mode(MaintenanceMode.ON, now=datetime.now(UTC))\n"
    )
    command = [sys.executable, "-c", imports + drop + script, *map(str, args)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


TRY_BOTH = """
backend = LocalFileBackend(sys.argv[1])
for operation in backend.load(), backend.apply(change):
    try:
        print(asyncio.run(operation).mode)
    except BackendUnavailable as error:
        print(error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that all users may write in; pytest's own are its user's alone, whatever a test makes of them."""
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o711)
        directory = Path(outer).resolve() / "shared"
        directory.mkdir()
        directory.chmod(0o777)
        yield directory
        directory.chmod(0o777)


def test_an_unreadable_file_is_a_failure(shared: Path) -> None:
    """Shown as a user who is not root, who may read everything."""
    path = shared / "switch"
    path.write_text("1")
    path.chmod(0)
    read, written = as_nobody(TRY_BOTH, path).splitlines()
    assert "Permission denied" in read
    assert "Permission denied" in written


def test_a_directory_that_cannot_be_written_is_named(shared: Path) -> None:
    path = shared / "switch"
    path.write_text("1")
    shared.chmod(0o555)
    read, written = as_nobody(TRY_BOTH, path).splitlines()
    assert read == "on"
    assert f"Permission denied: {path}.lock; this process must be able to write in {shared}" in written


def test_a_lock_file_that_is_refused_is_named(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = path.with_name("switch.lock")

    def refused(_: Path) -> int:
        raise PermissionError(13, "Permission denied", str(lock))

    monkeypatch.setattr("fastapi_maintenance.stores.files.store.open_lock", refused)
    with pytest.raises(BackendUnavailable, match=f"Permission denied: {lock}; this process must be able to write in"):
        done(backend.apply(setting(ON)))


@pytest.mark.parametrize("owner", [(65534, 0, 0o700), (0, 65534, 0o770)], ids=["of the user", "of the group"])
def test_whoever_may_write_in_the_directory_can_lock_and_replace(shared: Path, owner: tuple[int, int, int]) -> None:
    """The lock file that root made is enough for a process that is not root."""
    user, group, mode = owner
    shared.chmod(mode)
    if os.geteuid() == 0:
        os.chown(shared, user, group)
    path = shared / "switch"
    done(LocalFileBackend(path).apply(setting(OFF)))
    path.chmod(0o644)
    assert as_nobody(TRY_BOTH, path).split() == ["off", "on"]
    assert path.read_text() == "1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def can_lock(path: Path, flags: int) -> bool:
    """Return whether another user can hold a lock, by descriptors of a kind."""
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    script = f"import fcntl, os, sys; {drop}; fcntl.flock(os.open(sys.argv[1], int(sys.argv[2])), fcntl.LOCK_EX)"
    command = [sys.executable, "-S", "-c", script, str(path), str(flags)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 or "PermissionError" in ended.stderr
    return ended.returncode == 0


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
@pytest.mark.parametrize(("directory", "lock"), [(0o711, 0o600), (0o775, 0o660), (0o1777, 0o660), (0o755, 0o600)])
@pytest.mark.parametrize("former", [None, 0o644])
def test_nobody_else_can_write_or_hold_the_lock(
    shared: Path, umask: int, directory: int, lock: int, former: int | None
) -> None:
    """Whatever the umask: the right to read a file is the right to hold its lock."""
    path, of_lock = shared / "switch", shared / "switch.lock"
    shared.chmod(directory)
    if former is not None:
        of_lock.touch()
        of_lock.chmod(former)
    before = os.umask(umask)
    try:
        done(LocalFileBackend(path).apply(setting(ON)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664 & ~umask
    assert stat.S_IMODE(of_lock.stat().st_mode) == lock
    if os.geteuid() == 0:
        assert not can_lock(of_lock, os.O_RDONLY)
        of_lock.chmod(0o644)
        assert can_lock(of_lock, os.O_RDONLY)


def test_a_lock_of_another_group_is_not_for_the_group(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory's group may write, and this process can't give the lock to it."""

    def refused(fd: int, user: int, group: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    path.parent.chmod(0o770)
    lock = path.with_name("switch.lock")
    lock.touch()
    if os.geteuid() == 0:
        os.chown(lock, 0, 1234)
        done(backend.apply(setting(ON)))
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    os.chown(lock, -1, path.parent.stat().st_gid)
    done(backend.apply(setting(ON)))
    assert stat.S_IMODE(lock.stat().st_mode) == 0o660


def test_a_lock_of_another_user_is_left_as_it_is(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner says who may open it."""
    lock = path.with_name("switch.lock")
    lock.touch()
    lock.chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    done(backend.apply(setting(ON)))
    assert stat.S_IMODE(lock.stat().st_mode) == 0o640


def test_a_lock_that_is_a_link_is_refused(backend: LocalFileBackend, path: Path) -> None:
    lock = path.with_name("switch.lock")
    lock.symlink_to("elsewhere")
    with pytest.raises(BackendUnavailable, match=f"{lock} is a symbolic link: remove it"):
        done(backend.apply(setting(ON)))
    assert not path.with_name("elsewhere").exists()


# In a directory that everybody may write in


@pytest.fixture(params=[0o1777, 0o777], ids=["sticky", "not sticky"])
def public(request: pytest.FixtureRequest, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of root that everybody may write in."""
    shared.chmod(request.param)
    if os.geteuid() != 0:  # then neither this user nor the directory's owner is to be the stranger
        lie_about_owners(monkeypatch)
    return shared


def lie_about_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all that this user has look as root's, except what is given away."""
    lstat, fstat, plain = os.lstat, os.fstat, os.stat
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def lying(look: Callable[..., os.stat_result]) -> Callable[..., Any]:
        def looked(*args: Any, **options: Any) -> Any:
            found = look(*args, **options)
            facts = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            owner = 65534 if (found.st_dev, found.st_ino) in GIVEN_AWAY else 0
            return SimpleNamespace(**facts | {"st_uid": owner})

        return looked

    for name, look in ("lstat", lstat), ("fstat", fstat), ("stat", plain):
        monkeypatch.setattr(os, name, lying(look))


GIVEN_AWAY: set[tuple[int, int]] = set()
"""Devices and numbers of the files that look as another user's, where this one is not root."""


def give_away(path: Path) -> None:
    """Make another user the owner."""
    if os.getuid() == 0:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    else:
        found = path.lstat()
        GIVEN_AWAY.add((found.st_dev, found.st_ino))


def refused(path: Path, entry: Path) -> None:
    """Show that neither reading nor writing goes through something, and that the error names it and the way out."""
    problem = f"{entry} belongs to user 65534, in a directory that everybody can write in: .*; remove it, or use"
    for operation in (
        load,
        lambda backend: done(backend.apply(setting(ON))),
        lambda backend: done(backend.try_writing()),
    ):
        with pytest.raises(BackendUnavailable, match=problem):
            operation(LocalFileBackend(path))


@pytest.mark.parametrize("exists", [True, False])
def test_a_strangers_link_is_not_followed(public: Path, tmp_path: Path, exists: bool) -> None:
    """Neither to read what it leads to nor to create it."""
    target, link = tmp_path / "target", public / "switch"
    if exists:
        target.write_text("0")
    link.symlink_to(target)
    give_away(link)
    refused(link, link)
    assert [file.name for file in tmp_path.iterdir()] == ["target"] * exists
    assert [file.name for file in public.iterdir()] == ["switch"]


def test_a_strangers_file_is_not_read(public: Path) -> None:
    path = public / "switch"
    path.write_text("1")
    give_away(path)
    refused(path, path)


@pytest.mark.parametrize("is_link", [True, False])
def test_a_strangers_directory_is_not_entered(public: Path, tmp_path: Path, is_link: bool) -> None:
    directory = public / "ours"
    if is_link:
        directory.symlink_to(tmp_path)
    else:
        directory.mkdir()
    give_away(directory)
    refused(directory / "switch", directory)
    assert not [*tmp_path.iterdir()]


def test_a_strangers_lock_is_not_waited_for(public: Path) -> None:
    """Its owner could hold it for ever."""
    path, lock = public / "switch", public / "switch.lock"
    lock.touch()
    give_away(lock)
    with pytest.raises(BackendUnavailable, match=f"{lock} belongs to user 65534"):
        done(LocalFileBackend(path).apply(setting(ON)))
    assert not path.exists()


def test_a_file_that_a_stranger_makes_at_the_last_moment_is_not_read(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the path was looked at already."""
    path, resolve = public / "switch", paths.resolve

    def slow(path: Path) -> Path:
        resolved = resolve(path)
        path.write_text("1")
        give_away(path)
        return resolved

    monkeypatch.setattr(store, "resolve", slow)
    with pytest.raises(BackendUnavailable, match=f"{path} belongs to user 65534"):
        load(LocalFileBackend(path))


def test_a_link_that_a_stranger_makes_at_the_last_moment_is_not_followed(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, resolve = public / "switch", paths.resolve
    (tmp_path / "secret").write_text("1")

    def slow(path: Path) -> Path:
        resolved = resolve(path)
        path.symlink_to(tmp_path / "secret")
        return resolved

    monkeypatch.setattr(store, "resolve", slow)
    with pytest.raises(BackendUnavailable, match="symbolic links"):
        load(LocalFileBackend(path))


def test_our_own_links_and_files_work_in_a_public_directory(public: Path, tmp_path: Path) -> None:
    """Also a link to what does not exist yet."""
    (public / "switch").symlink_to("current/state")
    (public / "current").symlink_to(tmp_path)
    backend = LocalFileBackend(public / "switch")
    assert load(backend).mode is OFF
    done(backend.apply(setting(ON)))
    assert load(backend).mode is ON
    assert (tmp_path / "state").read_text() == "1"
    done(LocalFileBackend(public / "other").apply(setting(ON)))
    assert load(LocalFileBackend(public / "other")).mode is ON


def test_a_strangers_files_work_in_a_directory_of_few(shared: Path) -> None:
    """Its group may write in it: operators, say."""
    shared.chmod(0o2775)
    path = shared / "switch"
    path.write_text("1")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    assert load(LocalFileBackend(path)).mode is ON


def test_what_kubernetes_mounts_is_read(public: Path) -> None:
    """A volume of a ConfigMap: a link to a file in a directory behind a link, which is replaced."""
    for day, word in ("1", "0"), ("2", "1"):
        (public / f"..{day}").mkdir()
        (public / f"..{day}" / "switch").write_text(word)
    (public / "switch").symlink_to("..data/switch")
    (public / "..data").symlink_to("..1")
    backend = LocalFileBackend(public / "switch")
    assert load(backend).mode is OFF
    (public / "..new").symlink_to("..2")
    (public / "..new").replace(public / "..data")
    assert load(backend).mode is ON


@pytest.mark.parametrize("path", ["release/../switch", "release/./switch", "release//switch", "release/up/switch"])
def test_a_path_is_resolved_as_the_system_does(tmp_path: Path, path: str) -> None:
    """Two dots behind a link are those of its target."""
    (tmp_path / "releases" / "7" / "up").mkdir(parents=True)
    (tmp_path / "release").symlink_to("releases/7")
    (tmp_path / "releases" / "7" / "up" / "switch").symlink_to("../../switch")
    for switch in (tmp_path / path, tmp_path / "release" / "missing" / "switch"):
        assert str(paths.resolve(switch)) == os.path.realpath(switch)


def test_a_cancelled_reading_does_not_fail_the_next_one(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the first one still runs; the next one waits for it, and a file never has two."""
    path.write_text("1")
    read: Callable[..., Any] = backend.store._read  # type: ignore[attr-defined]
    begun, may_end = threading.Semaphore(0), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.release()
        assert may_end.wait(20)
        return read(*arguments)

    monkeypatch.setattr(backend.store, "_read", slow)

    async def run() -> None:
        first = asyncio.create_task(backend.store.read("default"))
        await asyncio.to_thread(begun.acquire, timeout=20)
        first.cancel()
        second = asyncio.create_task(backend.store.read("default"))
        await asyncio.sleep(0.05)
        assert not begun.acquire(blocking=False)
        may_end.set()
        assert (await second).content is not None

    asyncio.run(run())


FORK_WHILE_READING = """
import asyncio, os, sys, threading
from fastapi_maintenance.stores.files.store import FileStore

store, begun, may_end = FileStore(sys.argv[1]), threading.Event(), threading.Event()
read = FileStore._read

def slow(self, *arguments):
    begun.set()
    may_end.wait()
    return read(self, *arguments)

FileStore._read = slow
thread = threading.Thread(target=asyncio.run, args=(store.read("default"),))
thread.start()
begun.wait()
child = os.fork()
if not child:
    FileStore._read = read
    asyncio.run(asyncio.wait_for(store.read("default"), 20))
    os._exit(0)
may_end.set()
thread.join()
print(os.waitpid(child, 0)[1])
"""


def test_a_child_that_is_forked_while_a_file_is_read_can_read_it(path: Path) -> None:
    """The thread that reads it is the parent's."""
    assert output_of(FORK_WHILE_READING, path) == "0\n"


# What is written


def test_the_bare_form_is_written_while_it_says_all(backend: LocalFileBackend, path: Path) -> None:
    assert done(backend.apply(setting(ON))).mode is ON
    assert path.read_text() == "1"
    assert done(backend.apply(setting(OFF))).mode is OFF
    assert path.read_text() == "0"


@pytest.mark.parametrize(
    "change",
    [
        setting(READ_ONLY),
        setting(ON, reason="migration"),
        setting(ON, until=datetime.now(UTC) + timedelta(hours=1)),
        Change(put_holds={"a": Hold(kind="on")}),
    ],
    ids=["read_only", "reason", "until", "hold"],
)
def test_a_document_is_written_when_there_is_more_to_say(
    backend: LocalFileBackend, path: Path, change: Change
) -> None:
    state = done(backend.apply(change))
    assert json.loads(path.read_bytes())["schema"] == 1
    assert load(backend) == state


def test_who_and_when_do_not_prevent_the_bare_form(backend: LocalFileBackend, path: Path) -> None:
    """Nor does the id of the change: the next change of any kind forgets them anyway."""
    done(backend.apply(set_mode(ON, now=datetime.now(UTC), reason="r")))
    done(backend.apply(set_mode(OFF, now=datetime.now(UTC), by="an operator")))
    assert path.read_text() == "0"
    done(backend.apply(set_mode(ON, now=datetime.now(UTC), by="an operator")))
    assert path.read_text() == "1"


def test_a_maintenance_that_is_active_keeps_its_beginning(backend: LocalFileBackend, path: Path) -> None:
    """A bare word has no room for it: it applies since the file was written."""
    first = done(backend.apply(setting(ON, reason="r")))
    second = done(backend.apply(setting(ON)))
    assert second.since == first.since
    assert second.reason is None
    assert path.read_text().startswith("{")
    assert load(backend).since == first.since


def test_the_file_is_bare_again_after_a_block(backend: LocalFileBackend, path: Path) -> None:
    path.write_text("0\n")
    done(backend.apply(Change(put_holds={"a": Hold(kind="on")})))
    assert path.read_text().startswith("{")
    done(backend.apply(Change(drop_holds=frozenset({"a"}))))
    assert path.read_text() == "0"


def test_what_apply_returns_is_what_is_read(backend: LocalFileBackend) -> None:
    for change in (setting(ON), setting(OFF), setting(ON, reason="r"), setting(ON), setting(READ_ONLY)):
        assert done(backend.apply(change)) == load(backend)


def test_each_change_is_another_state(backend: LocalFileBackend) -> None:
    """Whatever follows the file by epoch and version sees each change, and no version comes twice."""
    changes = [setting(ON), setting(OFF), setting(ON, reason="r"), setting(ON, reason="s"), setting(ON)] * 20
    seen = [load(backend), *(done(backend.apply(change)) for change in changes)]
    assert all((a.epoch, a.version) != (b.epoch, b.version) for a, b in itertools.pairwise(seen))
    assert len({state.version for state in seen}) == len(seen)
    assert [state.version for state in seen] == sorted(state.version for state in seen)


@pytest.mark.parametrize("begin", [None, "0", "1", "document"])
def test_an_expected_version_is_compared(backend: LocalFileBackend, path: Path, begin: str | None) -> None:
    if begin == "document":
        done(backend.apply(setting(READ_ONLY)))
    elif begin is not None:
        path.write_text(begin)
    seen = load(backend).version
    done(backend.apply(Change(fields=setting(ON).fields, expected_version=seen)))
    content = path.read_bytes()
    with pytest.raises(VersionConflict):
        done(backend.apply(Change(fields=setting(OFF).fields, expected_version=seen)))
    assert path.read_bytes() == content


def test_a_version_of_a_word_does_not_come_back(backend: LocalFileBackend) -> None:
    """On, off and on again within one tick of the clock: who saw the first must not overwrite the third."""
    first = done(backend.apply(setting(ON)))
    done(backend.apply(setting(OFF)))
    done(backend.apply(setting(ON)))
    with pytest.raises(VersionConflict):
        done(backend.apply(Change(fields=setting(OFF).fields, expected_version=first.version)))


def test_versions_of_words_grow_when_the_clock_was_set_back(backend: LocalFileBackend, path: Path) -> None:
    path.write_text("0")
    later = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(later, later))
    versions = [load(backend).version, *(done(backend.apply(setting(mode))).version for mode in (ON, OFF))]
    assert versions == sorted(set(versions))
    assert load(backend).version == versions[-1]


def test_a_document_knows_a_change_that_is_tried_again(backend: LocalFileBackend, path: Path) -> None:
    first = Change(put_holds={"a": Hold(kind="on")})
    done(backend.apply(first))
    done(backend.apply(Change(put_holds={"b": Hold(kind="on")})))
    content = path.read_bytes()
    assert done(backend.apply(first)) == load(backend)
    assert path.read_bytes() == content


def test_a_refused_change_leaves_no_trace(backend: LocalFileBackend, tmp_path: Path) -> None:
    with pytest.raises(HoldLost):
        done(backend.apply(Change(required_holds=frozenset({"a"}), is_renewal=True)))
    with pytest.raises(InvalidConfiguration, match="bytes"):
        done(backend.apply(setting(ON, reason="x" * MAX_BYTES)))
    assert list(tmp_path.iterdir()) == []


def test_holds_that_expired_long_ago_leave_the_bare_form(backend: LocalFileBackend, path: Path) -> None:
    """For an hour they stay, so that their owners find them expired."""
    expired = Hold(kind="on", expires_at=datetime.now(UTC) - timedelta(hours=2))
    done(backend.apply(Change(put_holds={"a": expired})))
    done(backend.apply(setting(OFF)))
    assert path.read_text() == "0"


def test_get_and_set_value_are_those_of_0_0_5(backend: LocalFileBackend, path: Path) -> None:
    assert asyncio.run(backend.get_value()) is False
    asyncio.run(backend.set_value(True))
    assert path.read_text() == "1"
    assert asyncio.run(backend.get_value()) is True
    assert backend.file_path == str(path)


# How it is written


def test_permissions_stay(backend: LocalFileBackend, path: Path) -> None:
    path.write_text("0")
    path.chmod(0o640)
    done(backend.apply(setting(ON)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_this_process(backend: LocalFileBackend, path: Path) -> None:
    former = os.umask(0o027)
    try:
        done(backend.apply(setting(ON)))
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_owner_stays_if_the_system_allows(shared: Path) -> None:
    """A change by root leaves the file to its owner; one by another user can't, and is made all the same."""
    path = shared / "switch"
    path.write_text("0")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1235)
    owner = path.stat().st_uid, path.stat().st_gid
    shared.chmod(0o770)
    if os.geteuid() == 0:
        os.chown(shared, 0, 65534)
    done(LocalFileBackend(path).apply(setting(OFF)))
    assert (path.stat().st_uid, path.stat().st_gid) == owner
    path.chmod(0o666)
    assert as_nobody(TRY_BOTH, path).split() == ["off", "on"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/switch")
    backend = LocalFileBackend(tmp_path / "link")
    assert load(backend).mode is OFF
    done(backend.apply(setting(ON)))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "switch").read_text() == "1"
    assert load(backend).mode is ON


def test_two_ways_to_one_file_share_its_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("switch")
    with locked(tmp_path / "switch.lock"), pytest.raises(BackendUnavailable, match="locked"):
        done(LocalFileBackend(tmp_path / "link", timeout_seconds=1).apply(setting(ON)))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "missing" / "switch")
    assert load(backend).mode is OFF
    with pytest.raises(BackendUnavailable, match=f"there is no directory {tmp_path}/missing: create it"):
        done(backend.apply(setting(ON)))


def test_what_a_dead_writer_left_is_no_obstacle(backend: LocalFileBackend, path: Path) -> None:
    leftover = path.with_name("switch.lock.new")
    leftover.symlink_to(path.with_name("elsewhere"))
    done(backend.apply(setting(ON)))
    assert path.read_text() == "1"
    assert not path.is_symlink()
    assert not leftover.is_symlink()
    assert not path.with_name("elsewhere").exists()


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    """With a limit on the size of files, in a process of its own: what a full disk looks like to a writer."""
    done(LocalFileBackend(path).apply(setting(ON, reason="r" * 2000)))
    content = path.read_bytes()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    script = (
        "import asyncio, sys\nfrom datetime import UTC, datetime\n"
        "from fastapi_maintenance.backends.file import LocalFileBackend\n"
        "from fastapi_maintenance.exceptions import *\n"
        "from fastapi_maintenance.model.change import *\nfrom fastapi_maintenance.model.modes import *\n"
        f"{limit}"
        "try: asyncio.run(LocalFileBackend(sys.argv[1]).apply(Change(put_holds={'a': Hold(kind='on')})))\n"
        "except OutcomeUnknown: pass\n"
        "except BackendUnavailable as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    # No coverage data from a process that can't write it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment).stdout
    assert "File too large, while it was written" in told
    assert path.read_bytes() == content
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["switch", "switch.lock"]


def test_a_full_disk_is_told(backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("0")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendUnavailable, match="No space left on device, while it was written"):
        done(backend.apply(setting(ON)))
    assert path.read_text() == "0"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["switch", "switch.lock"]


def test_a_directory_that_can_not_be_flushed_fails_no_change(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems don't know how; the change counts already."""

    def flush(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", flush)
    assert done(backend.apply(setting(ON))).mode is ON
    assert path.read_text() == "1"


# The lock


@contextlib.contextmanager
def locked(lock: Path) -> Iterator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_lock_that_others_hold_is_waited_for(backend: LocalFileBackend, path: Path) -> None:
    with locked(path.with_name("switch.lock")):
        waiting = io_thread.submit(backend.apply(setting(ON)))
        time.sleep(0.1)
        assert not waiting.done()
    assert waiting.result(20).mode is ON


def test_a_lock_that_is_held_for_too_long_is_a_certain_failure(path: Path) -> None:
    """The file is given up before the caller gives up, who then knows that nothing was written."""
    backend = LocalFileBackend(path, timeout_seconds=1)
    with (
        locked(path.with_name("switch.lock")),
        pytest.raises(BackendUnavailable, match=r"other processes kept .*switch\.lock locked") as raised,
    ):
        done(backend.apply(setting(ON)))
    assert not isinstance(raised.value, OutcomeUnknown)
    assert not path.exists()


def test_who_waits_for_the_lock_can_be_cancelled(backend: LocalFileBackend, path: Path) -> None:
    """The next change works; the cancelled one was made or not."""
    with locked(path.with_name("switch.lock")):
        waiting = io_thread.submit(backend.apply(setting(READ_ONLY)))
        time.sleep(0.05)
        assert waiting.cancel()
    assert done(backend.apply(setting(ON))).mode is ON
    assert load(backend).mode is ON


def test_a_lock_file_that_was_replaced_meanwhile_is_no_lock(backend: LocalFileBackend, path: Path) -> None:
    """Who waited for the removed one goes for the new one."""
    lock = path.with_name("switch.lock")
    with contextlib.ExitStack() as former, contextlib.ExitStack() as present:
        former.enter_context(locked(lock))
        waiting = io_thread.submit(backend.apply(setting(ON)))
        time.sleep(0.05)
        other = path.with_name("other.lock")
        present.enter_context(locked(other))
        other.replace(lock)  # at once, so that the one who waits can't come between
        former.close()
        time.sleep(0.05)
        assert not waiting.done()
    assert waiting.result(20).mode is ON


def during_the_write(monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], object]) -> None:
    """Have something happen once the new file is written, and before it replaces the old one."""
    fsync = os.fsync

    def disturbed(fd: int) -> None:
        disturb()
        fsync(fd)

    monkeypatch.setattr(os, "fsync", disturbed)


def test_a_lock_file_that_is_removed_during_the_write_stops_it(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("0")
    during_the_write(monkeypatch, path.with_name("switch.lock").unlink)
    with pytest.raises(BackendUnavailable, match="was removed, so others may be writing"):
        done(backend.apply(setting(ON)))
    assert path.read_text() == "0"


def test_a_lock_file_that_was_removed_before_it_was_got_is_made_again(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that stands nowhere keeps nobody out."""
    flock, lock = fcntl.flock, path.with_name("switch.lock")
    removed: list[Path] = []

    def slow(fd: int, how: int) -> None:
        if how & fcntl.LOCK_EX and not removed:
            lock.unlink()
            removed.append(lock)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    assert done(backend.apply(setting(ON))).mode is ON
    assert lock.exists()


@pytest.mark.parametrize(("seconds", "error"), [(0.9, DeadlinePassed), (1.3, OutcomeUnknown)])
def test_a_write_that_comes_too_late_is_not_made(
    path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, error: type[Exception]
) -> None:
    """Whether the caller still waits or not."""
    path.write_text("0")
    backend = LocalFileBackend(path, timeout_seconds=1)
    during_the_write(monkeypatch, lambda: time.sleep(seconds))
    with pytest.raises(error) as raised:
        done(backend.apply(setting(ON)))
    assert type(raised.value) is error
    load(backend)  # waits for the writer
    assert path.read_text() == "0"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["switch", "switch.lock"]


def test_an_error_of_the_lock_is_told(backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(BackendUnavailable, match="Operation not supported"):
        done(backend.apply(setting(ON)))
    assert not path.exists()


def test_a_forked_child_does_not_keep_the_lock(
    backend: LocalFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child has its parent's descriptors, which is what ``dup`` makes."""
    flock, taken_over = fcntl.flock, []

    def forking(fd: int, how: int) -> None:
        flock(fd, how)
        taken_over.append(os.dup(fd))

    monkeypatch.setattr(fcntl, "flock", forking)
    done(backend.apply(setting(ON)))
    monkeypatch.undo()
    assert done(LocalFileBackend(path, timeout_seconds=0.5).apply(setting(OFF))).mode is OFF
    for fd in taken_over:
        os.close(fd)


# Making one


def test_making_one_touches_nothing(tmp_path: Path) -> None:
    LocalFileBackend(tmp_path / "missing" / "switch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", ".", "/", "a\0b"])
def test_a_path_that_can_not_be_a_file_is_refused(path: str) -> None:
    with pytest.raises(InvalidConfiguration, match="must be the name of a file"):
        LocalFileBackend(path)


def test_a_relative_path_counts_from_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = LocalFileBackend("switch")
    assert backend.file_path == "switch"
    assert repr(backend) == "LocalFileBackend('switch')"
    monkeypatch.chdir("/")
    done(backend.apply(setting(ON)))
    assert (tmp_path / "switch").read_text() == "1"


def test_files_are_read_often() -> None:
    assert LocalFileBackend("switch").poll_seconds == 0.1


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/var/state.json", "billing", "/var/state.billing.json"),
        ("switch", "billing", "switch.billing"),
        ("switch.json", "lock", "switch.lock.json"),
        ("switch", "lock", "switch.lock.switch"),
        (".hidden", "billing", ".hidden.billing"),
    ],
)
def test_a_named_switch_has_a_file_beside(path: str, name: str, expected: str) -> None:
    assert str(LocalFileBackend(path).store.path_of(name)) == str(Path(expected).absolute())  # type: ignore[attr-defined]


def test_a_named_switch_has_the_same_options() -> None:
    options: dict[str, Any] = {
        "poll_seconds": 0.5,
        "timeout_seconds": 3,
        "on_backend_error": "closed",
        "max_stale": 30,
        "initial": MaintenanceMode.ON,
        "init_timeout": 4,
    }
    sibling = LocalFileBackend("state.json", **options).sibling("billing")
    assert {name: getattr(sibling, name) for name in options} == options


def test_nothing_stays_open(backend: LocalFileBackend) -> None:
    """Counted by the number that the next descriptor gets."""

    def next_descriptor() -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        os.close(fd)
        return fd

    load(backend)
    before = next_descriptor()
    for mode in (ON, OFF) * 5:
        done(backend.apply(setting(mode)))
        load(backend)
    assert next_descriptor() == before


def test_writing_is_tried_where_there_is_no_directory(tmp_path: Path) -> None:
    """It says what is missing, and makes nothing."""
    with pytest.raises(BackendUnavailable, match="there is no directory"):
        done(LocalFileBackend(tmp_path / "none" / "switch").try_writing())
    assert not (tmp_path / "none").exists()
