"""A shared store under the servers that people use: all workers agree, from the first request to a prompt end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, Self

import psutil  # type: ignore[import-untyped]  # it has no types, and its stubs are one more dependency
import pytest
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, set_maintenance_mode
from fastapi_maintenance.backends.base import StoreBackend
from tests.programs.hold_process import holder
from tests.programs.store_scripts import patient
from tests.support.places import Place
from tests.support.proxies import BadNetwork
from tests.support.scripts import ROOT, STRICT, complaints_in
from tests.support.servers import Server, hypercorn_server, uvicorn_server
from tests.support.stores import PostgresServer, RedisServer, free_port
from tests.support.traffic import Processor, wait_until

EXIT_SECONDS = 3.0
"""How long a process takes to end at most, whatever its store does; the store would have it wait for a minute."""
AGREE_SECONDS = 5.0
"""How long it takes at most until all workers have said that they heard of a change; how fast they hear of it is
measured elsewhere, without a server and its clients in between."""


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    redis_server.run("FLUSHALL")
    return redis_server.url


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'switch'}"


@contextmanager
def operator(url: str) -> Iterator[Callable[[bool], None]]:
    """Give the switch to an operator, outside of any server."""
    backend = patient(url)
    try:
        yield lambda value: asyncio.run(set_maintenance_mode(value, backend))
    finally:
        asyncio.run(backend.aclose())


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of the answer to a request on a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


class Hammer:
    """Clients that ask ``/`` again and again, each on a connection of its own, from before a server listens."""

    def __init__(self, port: int, *, clients: int = 4) -> None:
        self.statuses: list[int] = []
        self._port = port
        self._should_end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._should_end.set()
        for thread in self._threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self._threads)

    def _ask(self) -> None:
        while not self._should_end.is_set():
            try:
                self.statuses.append(get(self._port, "/")[0])
            except (OSError, HTTPException):  # it does not listen yet, or no more
                time.sleep(0.01)


SLOW_SECONDS = 0.2


@pytest.fixture
def store_that_says_on(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer
) -> Iterator[tuple[StoreBackend, Callable[[bool], None]]]:
    """Make a backend whose store says "on" already, and give it to an operator; the backend knows nothing yet."""
    redis_server.run("FLUSHALL")
    with ExitStack() as at_end:
        url = url_to_follow = {
            "file": f"file://{tmp_path / 'switch'}",
            "sqlite": f"sqlite+aiosqlite:///{tmp_path / 'state.db'}",
        }.get(request.param, redis_server.url)
        if request.param == "slow-redis":
            network = at_end.enter_context(BadNetwork(redis_server.port, delay_seconds=SLOW_SECONDS))
            url_to_follow = f"redis://127.0.0.1:{network.port}/0"
        backend = patient(url_to_follow)
        at_end.callback(lambda: asyncio.run(backend.aclose()))
        switch = at_end.enter_context(operator(url))
        switch(True)
        yield backend, switch


async def _nothing() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("store_that_says_on", "serve"),
    [
        ("slow-redis", partial(uvicorn_server, lifespan="on")),
        ("slow-redis", partial(uvicorn_server, lifespan="off")),
        ("slow-redis", hypercorn_server),
        ("sqlite", partial(uvicorn_server, lifespan="on")),
        ("file", partial(uvicorn_server, lifespan="off")),
    ],
    ids=["slow-redis-uvicorn", "slow-redis-uvicorn-without-lifespan", "slow-redis-hypercorn", "sqlite", "file"],
    indirect=["store_that_says_on"],
)
def test_a_server_that_starts_during_maintenance_lets_nothing_pass(
    store_that_says_on: tuple[StoreBackend, Callable[[bool], None]],
    serve: Callable[[FastAPI], AbstractContextManager[Server]],
) -> None:
    """The first requests wait until the state is known, however long the store takes."""
    backend, switch = store_that_says_on
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    app.add_api_route("/", _nothing)
    with serve(app) as server, Hammer(server.port) as hammer:
        wait_until(lambda: len(hammer.statuses) > 50, 30)
        during = list(hammer.statuses)
        switch(False)
        wait_until(lambda: hammer.statuses[-1] == 200, AGREE_SECONDS)
    assert set(during) == {503}
    assert set(hammer.statuses) == {200, 503}


@dataclass
class ServerProcess:
    """A server in a process of its own, with workers."""

    port: int
    process: subprocess.Popen[bytes]
    _log: IO[bytes]
    said: str = ""
    """All that it and its workers said, once it has ended."""
    ended_in: float = 0.0
    """How many seconds that took."""

    @property
    def log(self) -> str:
        """Return what it and its workers have said until now."""
        self._log.seek(0)
        return self._log.read().decode()

    def worker(self) -> dict[str, Any]:
        """Return what one of the workers says of itself."""
        answer: dict[str, Any] = json.loads(get(self.port, "/worker")[1])
        return answer

    def all_say(self, workers: int, *, on: bool) -> float:
        """Wait until all workers say so in their last answers; return for how many seconds it took."""
        begin = time.monotonic()
        says: dict[int, dict[str, Any]] = {}

        def ask(_: int) -> None:
            answer = self.worker()
            says[answer.pop("pid")] = answer

        with ThreadPoolExecutor(2 * workers) as pool:

            def agree() -> bool:
                list(pool.map(ask, range(2 * workers)))
                return len(says) == workers and all(answer["on"] is on for answer in says.values())

            wait_until(agree, 15)
        assert list(says.values()) == [{"on": on, "knowledge": "ready", "followers": 1}] * workers
        return time.monotonic() - begin


@contextmanager
def server_process(url: str, port: int, *command: str, **environment: str) -> Iterator[ServerProcess]:
    """Run a server of ``tests.programs.served:app`` until the block ends; it has to end in time then."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "default", "-m", *command],
            cwd=ROOT,
            env=os.environ | {"FASTAPI_MAINTENANCE_BACKEND": url} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        served = ServerProcess(port, process, log)
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), 30)
            assert process.poll() is None, served.log
            yield served
        finally:
            begin = time.monotonic()
            # One that has ended, and was found to have, is no process any more.
            family = psutil.Process(process.pid).children(recursive=True) if process.returncode is None else []
            process.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs(family, 15)
            for one in alive:
                one.kill()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            served.ended_in = time.monotonic() - begin
            assert not alive, served.log
            served.said = served.log


def _answers(port: int, status: int) -> bool:
    return get(port, "/")[0] == status


def _listens(port: int) -> bool:
    try:
        get(port, "/worker")
    except (OSError, HTTPException):
        return False
    return True


def complaints(log: str, port: int) -> list[str]:
    """Return the lines that tell of something that went wrong."""
    signs = ("Traceback", "ResourceWarning: ", "was destroyed", "never awaited", "never retrieved")
    own = (f"laddr=('127.0.0.1', {port})", "Enable tracemalloc")  # uvicorn leaves what it listens on to the system
    return [
        line
        for line in log.splitlines()
        if any(sign in line for sign in signs) and not any(of_server in line for of_server in own)
    ]


def served_by(server: str, port: int) -> list[str]:
    bind = f"127.0.0.1:{port}"
    return {
        "uvicorn": ["uvicorn", "tests.programs.served:app", "--port", str(port), "--workers", "4", "--no-access-log"],
        "gunicorn": [
            "gunicorn",
            "tests.programs.served:app",
            "--bind",
            bind,
            "--workers",
            "3",
            "--worker-class",
            "asgi",
        ],
        "hypercorn": [
            "hypercorn",
            "tests.programs.served:app",
            "--bind",
            bind,
            "--workers",
            "2",
            "--worker-class",
            "trio",
        ],
    }[server]


@pytest.mark.parametrize(
    ("server", "workers", "store", "options"),
    [
        ("uvicorn", 4, "redis_url", {}),
        ("gunicorn", 3, "redis_url", {}),
        ("gunicorn", 3, "redis_url", {"GUNICORN_CMD_ARGS": "--preload", "ASKED_BEFORE_FORK": "1"}),
        (
            "gunicorn",
            3,
            "file_url",
            {
                "GUNICORN_CMD_ARGS": "--preload --worker-class uvicorn.workers.UvicornWorker",
                "ASKED_BEFORE_FORK": "1",
            },
        ),
        ("hypercorn", 2, "file_url", {}),
    ],
    ids=lambda value: "-".join(value.values()) or "plain" if isinstance(value, dict) else str(value),
)
def test_all_workers_agree(
    server: str, workers: int, store: str, options: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """From the first request on, through every change; nothing is left behind at the end."""
    url, port = request.getfixturevalue(store), free_port()
    with operator(url) as switch:
        switch(True)
        with (
            Hammer(port) as hammer,
            server_process(url, port, *served_by(server, port), **options) as served,
        ):
            served.all_say(workers, on=True)
            assert set(hammer.statuses) == {503}
            seconds = []
            for value in (False, True, False):
                switch(value)
                seconds.append(served.all_say(workers, on=value))
        assert complaints(served.said, port) == []
        assert set(hammer.statuses) == {200, 503}
        assert max(seconds) < AGREE_SECONDS
        print(
            f"all agree within {max(seconds):.2f} s, {len(hammer.statuses)} requests, ended in {served.ended_in:.2f} s"
        )


def test_a_server_ends_at_once_while_its_store_hangs() -> None:
    port = free_port()
    with RedisServer() as redis:
        with server_process(redis.url, port, "uvicorn", "tests.programs.served:app", "--port", str(port)) as served:
            served.all_say(1, on=False)
            redis.pause()
            time.sleep(1.2)  # a reading is under way
            assert get(port, "/")[0] == 200
        assert served.ended_in < EXIT_SECONDS
        # It can't be read any more, which it says; and that is all.
        assert complaints(served.said, port) == []
    print(f"ended in {served.ended_in:.2f} s")


def test_a_worker_that_was_stopped_lets_nobody_in_while_code_holds_its_switch(redis_url: str, file_url: str) -> None:
    """Stopped for longer than the hold lives without a renewal, and it was renewed: whoever queued gets a 503."""
    ttl, seconds = 3.0, 4.0
    file = Place("LocalFileBackend", {"file_path": file_url.removeprefix("file://")})
    places = {redis_url: Place("RedisBackend", {"url": redis_url}), file_url: file}
    with ExitStack() as at_end:
        holders = [at_end.enter_context(holder(place, ttl)) for place in places.values()]
        ports = [free_port() for _ in places]
        workers = [
            at_end.enter_context(
                server_process(url, port, "uvicorn", "tests.programs.served:app", "--port", str(port))
            ).process
            for url, port in zip(places, ports, strict=True)
        ]
        for port in ports:
            wait_until(partial(_answers, port, 503), 20)
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
            at_end.callback(worker.send_signal, signal.SIGCONT)  # or it would not end
        clients = [at_end.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for port in ports * 8]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(seconds)
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
        assert [client.recv(12) for client in clients] == [b"HTTP/1.1 503"] * len(clients)
        for held in holders:
            assert held.process.communicate("leave\n", 20)[0] == "left\n", "this machine is too busy to renew a hold"
        for port in ports:
            wait_until(partial(_answers, port, 200), 20)


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "hypercorn"])
def test_no_server_starts_with_a_store_that_can_not_be_one(server: str) -> None:
    """The reason is told, without the password."""
    port = free_port()
    command = [word.replace("tests.programs.served", "examples.quickstart") for word in served_by(server, port)]
    if server == "uvicorn":
        command[command.index("4")] = "1"  # with more, its supervisor starts workers again and again
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | {"FASTAPI_MAINTENANCE_BACKEND": "reddis://:hunter2@localhost"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0 or server == "hypercorn"
    assert "no backend 'reddis'; known: env" in ended.stderr, ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr


@contextmanager
def script(name: str, url: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of ``tests.programs.store_scripts``."""
    process = subprocess.Popen(
        [sys.executable, *STRICT, "-m", "tests.programs.store_scripts", name, url],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def output_of(process: subprocess.Popen[str]) -> Any:
    """Return what a program printed at its end, which left nothing to complain about."""
    out, err = process.communicate(timeout=40)
    assert (process.returncode, complaints_in(err)) == (0, []), out + err
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[str]:
    """Return the URL of a store that says "on"."""
    redis_server.run("FLUSHALL")
    urls = {
        "redis": redis_server.url,
        "file": f"file://{tmp_path / 'switch'}",
        "sqlite": f"sqlite+aiosqlite:///{tmp_path / 'state.db'}",
    }
    with operator(urls[request.param]) as switch:
        switch(True)
        yield urls[request.param]


@pytest.mark.parametrize(
    ("name", "url", "output"),
    [
        ("many_event_loops", "redis", ["MainThread", "fastapi-maintenance"]),
        ("many_event_loops", "sqlite", ["MainThread", "fastapi-maintenance"]),
        ("by_test_client", "file", ["MainThread", "fastapi-maintenance"]),
        ("forked_child", "redis", [200, 503, 503, 200]),
        ("forked_child", "sqlite", [200, 503, 503, 200]),
        ("prefork_workers", "file", ["MainThread", "fastapi-maintenance"]),
        ("prefork_workers", "redis", ["MainThread", "fastapi-maintenance"]),
    ],
    indirect=["url"],
)
def test_a_program_gets_right_answers_and_leaves_nothing_behind(name: str, output: object, url: str) -> None:
    """In development mode, with warnings for errors: nothing is said at the end."""
    with script(name, url) as process:
        assert output_of(process) == output


def test_many_event_loops_share_few_connections(redis_server: RedisServer, redis_url: str) -> None:
    """Whatever the number of event loops, and none stay at the end."""

    def connections() -> int:
        return len(redis_server.run("CLIENT LIST")) - 1  # not the one that asks

    with operator(redis_url) as switch:
        switch(True)
    wait_until(lambda: connections() == 0)
    most = 0
    with script("many_event_loops", redis_url) as process:
        while process.poll() is None:
            most = max(most, connections())
            time.sleep(0.02)
        output_of(process)
    assert 1 <= most <= 4
    wait_until(lambda: connections() == 0)


@contextmanager
def hanging_store(kind: str, directory: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Give a store's URL, and what makes it hang until the block ends."""
    with ExitStack() as at_end:
        if kind == "redis":
            redis = at_end.enter_context(RedisServer())
            yield redis.url, redis.pause
        elif kind == "postgres":
            postgres = at_end.enter_context(PostgresServer())
            yield postgres.url(), postgres.pause
        elif kind == "sqlite":
            other = at_end.enter_context(closing(sqlite3.connect(directory / "state.db", isolation_level=None)))
            yield f"sqlite+aiosqlite:///{directory / 'state.db'}", partial(other.execute, "BEGIN EXCLUSIVE")
        else:
            lock = at_end.enter_context((directory / "switch.lock").open("w"))
            yield f"file://{directory / 'switch'}", partial(fcntl.flock, lock, fcntl.LOCK_EX)


@pytest.mark.parametrize("store", ["redis", "postgres", "sqlite", "file"])
def test_a_process_ends_at_once_whatever_its_store_does(store: str, tmp_path: Path) -> None:
    """And without a word, whether it reads or changes something then."""
    with hanging_store(store, tmp_path) as (url, hang):
        with operator(url) as switch:
            switch(True)
        with script("leaves_while_asking", url) as reading, script("leaves_while_changing", url) as changing:
            for process in (reading, changing):
                assert process.stdout is not None
                assert process.stdout.readline() == "following\n"
            hang()
            time.sleep(1.2)  # a reading is under way
            for process in (reading, changing):
                seconds = ended_in(process)
                assert seconds < EXIT_SECONDS
                assert output_of(process) is None
                print(f"ended in {seconds:.2f} s")


def ended_in(process: subprocess.Popen[str]) -> float:
    """Tell a program to end; return how many seconds it took, without those that it had no processor for."""
    processor = Processor(process.pid)
    begin, waited = time.monotonic(), processor.waited_for()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    options = os.WEXITED | os.WNOWAIT | os.WNOHANG
    wait_until(lambda: os.waitid(os.P_PID, process.pid, options) is not None, 20)
    seconds = time.monotonic() - begin - (processor.waited_for() - waited)
    processor.close()
    return seconds
