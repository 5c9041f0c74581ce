"""Programs that use a switch in a shared store, each run in a process of its own that takes warnings for errors.

``python -m tests.programs.store_scripts <function> <URL of the store>``: the store says "on" when one begins. It
prints JSON at the end, and raises when it finds something wrong.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import trio
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    get_maintenance_mode,
    is_maintenance_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.switches.backend_urls import backend_from_url
from tests.support.asgi import status
from tests.support.traffic import wait_until


def patient(url: str) -> StoreBackend:
    """Return the backend of a URL, with time enough for busy machines: who waits for its store does so for long."""
    backend = backend_from_url(url)
    assert isinstance(backend, StoreBackend)
    backend.timeout_seconds, backend.init_timeout = 60, 30
    return backend


def app() -> FastAPI:
    made = FastAPI()
    made.add_middleware(MaintenanceModeMiddleware)
    made.add_api_route("/", _nothing)
    return made


async def _nothing() -> dict[str, str]:
    return {}


def threads() -> list[str]:
    """Return the threads that stay; those for files end by themselves."""
    names = sorted(thread.name for thread in threading.enumerate())
    return [name for name in names if name != "fastapi-maintenance-io"]


def many_event_loops(_: str) -> object:
    """Run many event loops one after the other, of asyncio and of trio, in one process."""
    served = app()
    for mode in (True, False, True):
        asyncio.run(set_maintenance_mode(mode))
        for _attempt in range(5):
            assert asyncio.run(get_maintenance_mode()) is mode
            assert trio.run(get_maintenance_mode) is mode
            assert asyncio.run(status(served)) == (503 if mode else 200)
            assert trio.run(status, served) == (503 if mode else 200)
            assert is_maintenance_on() is mode
    return threads()


def by_test_client(_: str) -> object:
    """Ask by Starlette's test client, with its lifespan and without, several apps and clients."""
    for mode in (True, False):
        asyncio.run(set_maintenance_mode(mode))
        expected = 503 if mode else 200
        served = app()
        client = TestClient(served)
        assert [client.get("/").status_code for _ in range(3)] == [expected] * 3
        with TestClient(served) as client:
            assert [client.get("/").status_code for _ in range(3)] == [expected] * 3
        with TestClient(app(), backend="trio") as client:
            assert client.get("/").status_code == expected
    return threads()


def forked_child(_: str) -> object:
    """Serve the same app in a parent and in forked children, which ask again for themselves."""
    served = app()
    assert asyncio.run(status(served)) == 503
    context = multiprocessing.get_context("fork")
    answers = []
    for mode in (False, True):
        asyncio.run(set_maintenance_mode(mode))
        ours, theirs = context.Pipe()
        child = context.Process(target=_in_child, args=(served, theirs))
        child.start()
        answers += [ours.recv()]
        asyncio.run(set_maintenance_mode(not mode))  # which the child has to hear of
        answers += [ours.recv()]
        child.join(10)
        assert child.exitcode == 0
        assert asyncio.run(status(served)) == (200 if mode else 503)
    return answers


def _in_child(served: FastAPI, parent: Connection) -> None:
    first = asyncio.run(status(served))
    parent.send(first)
    wait_until(lambda: asyncio.run(status(served)) != first, 3)  # more than an interval of polling
    parent.send(asyncio.run(status(served)))


def prefork_workers(_: str) -> object:
    """Be a job queue: the parent asks before it forks its workers, and they ask before each job."""
    assert is_maintenance_on()
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    children = []
    for _worker in range(3):
        ours, theirs = context.Pipe()
        children.append(context.Process(target=_work, args=(theirs,)))
        children[-1].start()
        pipes.append(ours)

    def answers() -> set[str]:
        for pipe in pipes:
            pipe.send("job")
        return {pipe.recv() for pipe in pipes}

    assert answers() == {"paused"}
    for mode in (False, True):
        asyncio.run(set_maintenance_mode(mode))
        assert is_maintenance_on() is mode
        expected = {"paused" if mode else "done"}
        wait_until(lambda: answers() == expected, 3)  # noqa: B023 - it is called in this round only
    for pipe in pipes:
        pipe.send(None)
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    return threads()


def _work(jobs: Connection) -> None:
    while jobs.recv() is not None:
        jobs.send("paused" if is_maintenance_on() else "done")
    assert threads() == ["MainThread", "fastapi-maintenance"]


def leaves_while_asking(_: str) -> object:
    """Leave when told to, whatever the store does then."""
    asyncio.run(set_maintenance_mode(True))
    assert is_maintenance_on()
    print("following", flush=True)
    sys.stdin.readline()
    return None


def leaves_while_changing(_: str) -> object:
    """Leave with a change under way."""
    assert is_maintenance_on()
    print("following", flush=True)
    sys.stdin.readline()

    async def change() -> None:
        task = asyncio.create_task(set_maintenance_mode(False))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(change())
    return None


def main(name: str, url: str) -> None:
    logging.getLogger("fastapi_maintenance").addHandler(logging.NullHandler())  # else it would go where errors go
    script: Any = globals()[name]
    configure_backend(patient(url))
    print(json.dumps(script(url)))


if __name__ == "__main__":
    main(*sys.argv[1:])
