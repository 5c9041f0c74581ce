"""Requests in flight, and waiting until those that began before a change are done."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from fastapi_maintenance import (
    DrainTimeout,
    InFlight,
    InvalidConfiguration,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    get_maintenance_mode,
    in_flight,
    maintenance_mode_off,
    maintenance_mode_on,
)
from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend, MemoryBackend
from fastapi_maintenance.holds.in_flight import SERVICE_RESTART, Socket, _Waiter
from tests.support.asgi import call, get, scope_of
from tests.support.servers import SERVERS, uvicorn_server
from tests.support.traffic import until

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

SECONDS = 20
"""How long a test waits for what has to come; the machine may be busy."""


class Work:
    """What endpoints do until they are told to end, and who is doing it."""

    def __init__(self) -> None:
        self.running = 0
        self.may_end = anyio.Event()

    async def __call__(self) -> None:
        self.running += 1
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1


def app_of(work: Callable[[], Awaitable[None]], backend: BaseStateBackend, **options: Any) -> FastAPI:
    """Return an app whose endpoints work in each way in which a request can take long."""
    app = FastAPI()
    app.add_middleware(options.pop("middleware", MaintenanceModeMiddleware), backend=backend, **options)

    @app.get("/slow/{what}")
    async def slow(what: str) -> str:
        await work()
        return what

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun "
            await work()
            yield b"done"

        return StreamingResponse(parts())

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(work)
        return "answered"

    return app


# What is in flight


@both_loops
async def test_what_is_in_flight_is_listed() -> None:
    """With its route as it was declared, until the whole of its ASGI call has ended."""
    work, backend = Work(), MemoryBackend()
    app = app_of(work, backend)
    assert in_flight(backend) == []
    async with anyio.create_task_group() as tasks:
        for path in "/slow/1", "/slow/2", "/stream", "/later":
            tasks.start_soon(get, app, path)
        await until(lambda: work.running == 4)
        found = in_flight(backend)
        assert sorted(found) == [
            InFlight("GET", "/later"),
            InFlight("GET", "/slow/{what}"),
            InFlight("GET", "/slow/{what}"),
            InFlight("GET", "/stream"),
        ]
        work.may_end.set()
    assert in_flight(backend) == []


async def test_what_ends_in_an_error_is_not_in_flight_any_more() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    backend = MemoryBackend()
    app = app_of(fail, backend)
    with pytest.raises(ZeroDivisionError):
        await get(app, "/slow/1")
    assert in_flight(backend) == []


# Waiting


@both_loops
@pytest.mark.parametrize("path", ["/slow/1", "/stream", "/later"])
async def test_a_block_begins_when_earlier_requests_are_done(path: str) -> None:
    """Bodies that are streamed and background tasks included; new requests are refused meanwhile."""
    work, backend = Work(), MemoryBackend()
    app = app_of(work, backend)
    events = []

    async def migrate() -> None:
        async with maintenance_mode_on(backend, drain=SECONDS):
            events.append(("in the block", work.running))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, app, path)
        await until(lambda: work.running)
        tasks.start_soon(migrate)
        await until(lambda: bool(backend.peek().holds))
        assert (await get(app, "/slow/2")).status_code == 503
        assert events == []
        work.may_end.set()
    assert events == [("in the block", 0)]
    assert await get_maintenance_mode(backend) is False


@both_loops
async def test_the_callers_own_request_does_not_count() -> None:
    """Nor what it started: they would wait for themselves."""
    backend, seen = MemoryBackend(), []
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    async def migrate() -> None:
        async with maintenance_mode_on(drain=SECONDS):
            seen.append(len(in_flight()))

    @app.get("/in-the-request")
    async def in_the_request() -> None:
        await migrate()

    @app.get("/in-a-task")
    async def in_a_task() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(migrate)

    @app.get("/afterwards")
    async def afterwards(tasks: BackgroundTasks) -> None:
        tasks.add_task(migrate)

    outer = FastAPI()
    outer.add_middleware(MaintenanceModeMiddleware, backend=backend)
    outer.mount("/inner", app)
    for path in "/in-the-request", "/in-a-task", "/afterwards":
        assert (await get(app, path)).status_code == 200
        assert (await get(outer, f"/inner{path}")).status_code == 200
    assert seen == [1] * 6


@both_loops
@pytest.mark.parametrize("ttl", [1, None])
async def test_what_does_not_end_in_time_is_named_and_maintenance_is_on(ttl: int | None) -> None:
    """For the time to live, or until it is released."""
    work, backend = Work(), MemoryBackend()
    app = app_of(work, backend)
    async with anyio.create_task_group() as tasks:
        for path in "/slow/1", "/slow/2", "/later":
            tasks.start_soon(get, app, path)
        await until(lambda: work.running == 3)
        with pytest.raises(DrainTimeout, match=r"after 0.05 s 3 requests .*maintenance is still on") as error:
            async with maintenance_mode_on(backend, drain=timedelta(seconds=0.05), ttl=ttl):
                raise AssertionError
        assert error.value.count == 3
        assert {method for method, _ in error.value.requests} == {"GET"}
        assert await get_maintenance_mode(backend) is True
        if ttl is None:
            assert error.value.release is not None
            await error.value.release()
            assert await get_maintenance_mode(backend) is False
        else:
            await until(lambda: not backend.peek().holds)
        work.may_end.set()
    async with maintenance_mode_on(backend, drain=1):  # may be tried again
        assert await get_maintenance_mode(backend) is True
    assert await get_maintenance_mode(backend) is False


async def test_a_hold_in_a_store_expires_there_after_a_drain_in_vain(tmp_path: Any) -> None:
    work, backend = Work(), LocalFileBackend(tmp_path / "switch")
    app = app_of(work, backend)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, app, "/slow/1")
            await until(lambda: work.running)
            with pytest.raises(DrainTimeout):
                await maintenance_mode_on(backend, drain=0.05, ttl=1).__aenter__()
            assert await get_maintenance_mode(backend) is True
            work.may_end.set()
        await anyio.sleep(1.2)
        assert await get_maintenance_mode(backend) is False
    finally:
        await backend.aclose()


def test_many_routes_are_not_all_named() -> None:
    error = DrainTimeout(5, [("GET", f"/{number % 12}") for number in range(30)])
    assert error.count == 30
    assert "3 × GET /0, " in str(error)
    assert "and of 2 more routes; maintenance" in str(error)


async def test_a_drain_that_is_cancelled_gives_back() -> None:
    work, backend = Work(), MemoryBackend()
    app = app_of(work, backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, app, "/slow/1")
        await until(lambda: work.running)
        with anyio.move_on_after(0.05):
            await maintenance_mode_on(backend, drain=SECONDS).__aenter__()
        assert await get_maintenance_mode(backend) is False
        work.may_end.set()


class Around(MaintenanceModeMiddleware):
    """A user's subclass."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await super().dispatch(request, call_next)


async def test_requests_through_a_users_dispatch_count_as_well() -> None:
    work, backend = Work(), MemoryBackend()
    app = app_of(work, backend, middleware=Around)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, app, "/stream")
        await until(lambda: work.running)
        with pytest.raises(DrainTimeout):  # and only websockets are closed
            await maintenance_mode_on(backend, drain=0.05, ttl=None, close_websockets=True).__aenter__()
        work.may_end.set()


# Named switches


async def test_of_a_named_switch_the_requests_count_that_came_to_its_guard() -> None:
    """Others go on."""
    work = Work()
    configure_backend("memory", name="billing")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)

    @app.get("/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
    @app.get("/other")
    async def either() -> None:
        await work()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, app, "/other")
        await until(lambda: work.running)
        async with maintenance_mode_on(name="billing", drain=SECONDS):
            assert (await get(app, "/billing")).status_code == 503
        tasks.start_soon(get, app, "/billing")
        await until(lambda: work.running == 2)
        assert len(in_flight(name="billing")) == 1
        with pytest.raises(DrainTimeout, match="1 requests"):
            await maintenance_mode_on(name="billing", drain=0.05, ttl=None).__aenter__()
        work.may_end.set()
    assert in_flight(name="billing") == []


@pytest.mark.parametrize("nested", [False, True])
async def test_a_request_whose_scope_was_copied_on_the_way_is_forgotten_as_well(nested: bool) -> None:
    """By a middleware in between, and in an app that is mounted in another."""
    configure_backend("memory", name="billing")
    app, seen = FastAPI(), []

    class Copying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(dict(scope), receive, send)

    app.add_middleware(Copying)
    app.add_middleware(MaintenanceModeMiddleware)
    app.add_middleware(Copying)

    @app.get("/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
    async def bill() -> None:
        seen.append((len(in_flight(name="billing")), len(in_flight())))

    outer = FastAPI()
    outer.add_middleware(MaintenanceModeMiddleware)
    outer.mount("/inner", app)
    answer = await get(outer, "/inner/billing") if nested else await get(app, "/billing")
    assert answer.status_code == 200
    assert seen == [(1, 2 if nested else 1)]
    assert (in_flight(name="billing"), in_flight()) == ([], [])


async def test_requests_of_which_nobody_sees_the_end_can_not_be_drained() -> None:
    """A guard alone does not; it says so instead of waiting for nothing."""
    configure_backend("memory", name="billing")
    app = FastAPI()

    @app.get("/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
    async def bill() -> None: ...

    assert (await get(app, "/billing")).status_code == 200
    with pytest.raises(InvalidConfiguration, match="add the middleware"):
        await maintenance_mode_on(name="billing", drain=1).__aenter__()
    assert await get_maintenance_mode(name="billing") is False


@pytest.mark.parametrize("has_app", [False, True])
async def test_a_drain_in_a_process_without_an_app_says_that_it_waits_for_nothing(
    has_app: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for a block, however many switches it holds: a script would take it for a drain of the service."""
    backend = configure_backend("memory")
    if has_app:
        app_of(Work(), backend).build_middleware_stack()
    async with maintenance_mode_on(name=["default", "billing"], drain=1):
        assert await get_maintenance_mode()
    async with maintenance_mode_on():
        pass
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    told = (
        "drain=...: no app with MaintenanceModeMiddleware runs in this process, so the drain does not wait; "
        "`fastapi-maintenance run --drain 30s` waits for other processes"
    )
    assert warnings == ([] if has_app else [told])


@pytest.mark.parametrize("drain", [0, -1, True, "30", float("nan"), float("inf"), timedelta()])
def test_what_is_no_time_to_wait_is_refused(drain: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="drain must be seconds or a timedelta above 0, got "):
        maintenance_mode_on(drain=drain)


def test_only_a_drain_closes_websockets() -> None:
    with pytest.raises(InvalidConfiguration, match="close_websockets=True must be given with drain"):
        maintenance_mode_on(close_websockets=True)
    with pytest.raises(TypeError, match="drain"):
        maintenance_mode_off(drain=1)  # type: ignore[call-arg]


# The race between counting and asking


async def test_no_request_slips_through_between_counting_and_asking() -> None:
    """However the two interleave: when the block runs, a request is done or refused, never running."""
    for number in range(2_000):
        await race(number)


class Interleaving(BaseStateBackend):
    """A store that lets others run at each step."""

    def __init__(self, random_: random.Random) -> None:
        self._value = False
        self._random = random_

    async def get_value(self) -> bool:
        value = self._value
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        return value

    async def set_value(self, value: bool) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        self._value = value
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)


async def race(seed: int) -> None:
    """Have some requests and a drain begin at about the same time."""
    random_ = random.Random(seed)
    backend: BaseStateBackend = MemoryBackend() if seed % 2 else Interleaving(random_)
    running = 0
    in_block = False

    async def work() -> None:
        nonlocal running
        assert not in_block, seed
        running += 1
        for _ in range(random_.randrange(6)):
            await asyncio.sleep(0)
        running -= 1

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await work()
        await PlainTextResponse("done")(scope, receive, send)

    middleware = MaintenanceModeMiddleware(app, backend=backend)

    async def request() -> None:
        for _ in range(random_.randrange(10)):
            await asyncio.sleep(0)
        await middleware(scope_of("/"), _never, _nowhere)

    async def drain() -> None:
        nonlocal in_block
        for _ in range(random_.randrange(6)):
            await asyncio.sleep(0)
        async with maintenance_mode_on(backend, drain=SECONDS):
            assert running == 0, seed
            in_block = True
            for _ in range(5):
                await asyncio.sleep(0)
            in_block = False

    await asyncio.gather(drain(), *(request() for _ in range(3)))


async def _never() -> Message:
    return {"type": "http.request", "body": b""}


async def _nowhere(message: Message) -> None: ...


def test_requests_of_other_event_loops_are_waited_for() -> None:
    """Each in a thread of its own, as with a server per thread."""
    backend, running, failures = MemoryBackend(), itertools.count(), []
    busy = [0]
    lock = threading.Lock()
    stop = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with lock:
            busy[0] += 1
        await asyncio.sleep(0.001)
        with lock:
            busy[0] -= 1
        next(running)
        await PlainTextResponse("done")(scope, receive, send)

    middleware = MaintenanceModeMiddleware(app, backend=backend)

    async def requests() -> None:
        while not stop.is_set():
            await middleware(scope_of("/"), _never, _nowhere)
            await asyncio.sleep(0)

    threads = [threading.Thread(target=lambda: asyncio.run(requests())) for _ in range(3)]
    for thread in threads:
        thread.start()

    async def drain() -> None:
        for _ in range(40):
            async with maintenance_mode_on(backend, drain=SECONDS):
                if busy[0]:
                    failures.append(busy[0])
            await asyncio.sleep(0.003)

    try:
        asyncio.run(drain())
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
    assert failures == []
    assert next(running) > 20


async def test_who_has_not_looked_yet_is_told_of_nothing() -> None:
    """A request that ends before is not found."""
    waiter = _Waiter()
    waiter.remove(1)
    assert not waiter.done.done()
    waiter.wait_for(dict)
    assert waiter.done.done()


# Under load, on a real server


async def test_draining_under_load_leaves_nothing_running() -> None:
    """Fifty slow requests of each kind at once: when the block begins, none of them is running."""
    backend, running, may_end = MemoryBackend(), [0], threading.Event()

    async def work() -> None:
        running[0] += 1
        while not may_end.is_set():  # noqa: ASYNC110 - it is set in another event loop
            await asyncio.sleep(0.01)
        await asyncio.sleep(random.uniform(0, 0.2))
        running[0] -= 1

    app = app_of(work, backend)

    @app.get("/migrate")
    @force_maintenance_mode_off
    async def migrate() -> list[int]:
        seen = []
        async with maintenance_mode_on(drain=SECONDS):
            for _ in range(10):
                seen.append(running[0])
                await asyncio.sleep(0.01)
        return seen

    with uvicorn_server(app) as server:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=server.http(), timeout=SECONDS, limits=limits) as client:
            paths = itertools.cycle(["/slow/1", "/stream", "/later"])

            async def ask(path: str) -> int:
                answer = await client.get(path)
                if answer.status_code == 200:
                    assert answer.text in {'"1"', "begun done", '"answered"'}
                return answer.status_code

            first = [asyncio.create_task(ask(next(paths))) for _ in range(50)]
            await until(lambda: running[0] == 50)
            migration = asyncio.create_task(client.get("/migrate"))
            await until(lambda: bool(backend.peek().holds))
            assert set(await asyncio.gather(*(ask(next(paths)) for _ in range(50)))) == {503}
            assert running[0] == 50
            assert not migration.done()
            may_end.set()
            assert set(await asyncio.gather(*first)) == {200}
            assert (await migration).json() == [0] * 10


# Websockets


@pytest.mark.parametrize("serve", [partial(server) for server in SERVERS.values()], ids=SERVERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_websockets_are_closed_with_service_restart_when_asked_for(serve: Any) -> None:
    """The client may come back; the app sees a client that is gone."""
    backend, ended = MemoryBackend(), []
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as error:
            ended.append(error.code)

    async def drain(seconds: float, **options: Any) -> None:
        async with maintenance_mode_on(backend, drain=seconds, ttl=None, **options):
            assert ended

    with serve(app) as server, connect(server.ws("/echo")) as client:
        client.send("hi")
        assert client.recv(SECONDS) == "hi"
        assert in_flight(backend) == [InFlight("websocket", "/echo")]
        with pytest.raises(DrainTimeout, match="1 × websocket /echo") as error:
            asyncio.run(drain(0.3))
        assert error.value.release is not None
        asyncio.run(error.value.release())  # type: ignore[arg-type]
        client.send("still here")
        assert client.recv(SECONDS) == "still here"
        asyncio.run(drain(SECONDS, close_websockets=True))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(SECONDS)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (SERVICE_RESTART, "maintenance")


async def sent_by(app: Callable[[Socket], Awaitable[None]]) -> list[Message]:
    """Return what a server gets from an app that sends through a socket."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        for _ in range(5 if message["type"] == "websocket.send" else 1):  # a server has to wait for the network
            await anyio.lowlevel.checkpoint()
        messages.append(message)

    await app(Socket(send))
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    return messages


@both_loops
async def test_a_websocket_is_closed_once_it_is_accepted_and_not_in_between() -> None:
    async def app(socket: Socket) -> None:
        socket.close_soon()
        await anyio.lowlevel.checkpoint()
        await socket.send({"type": "websocket.accept"})
        with pytest.raises(OSError, match="closed for maintenance"):
            await socket.send({"type": "websocket.send", "text": "late"})
        await socket.send({"type": "websocket.close", "code": 1000})

    types = [(message["type"], message.get("code")) for message in await sent_by(app)]
    assert types == [("websocket.accept", None), ("websocket.close", SERVICE_RESTART)]


@both_loops
async def test_what_the_app_is_sending_is_sent_before_the_websocket_is_closed() -> None:
    async def app(socket: Socket) -> None:
        await socket.send({"type": "websocket.accept"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(socket.send, {"type": "websocket.send", "text": "whole"})
            await anyio.lowlevel.checkpoint()
            socket.close_soon()

    assert [message["type"] for message in await sent_by(app)] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


async def test_a_client_that_is_gone_when_its_websocket_is_closed_is_nobodys_failure() -> None:
    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise OSError("the client is gone")

    socket = Socket(send)
    socket.close_soon()
    await socket.send({"type": "websocket.accept"})
    with pytest.raises(OSError, match="closed for maintenance"):
        await socket.send({"type": "websocket.send", "text": "late"})


async def test_a_websocket_that_the_app_has_closed_is_left_alone() -> None:
    async def app(socket: Socket) -> None:
        await socket.send({"type": "websocket.accept"})
        await socket.send({"type": "websocket.close", "code": 1000})
        socket.close_soon()

    assert [message.get("code") for message in await sent_by(app)] == [None, 1000]


async def test_a_path_that_no_route_has_is_named_in_one_line() -> None:
    """A client chooses it, and the error ends up in logs."""
    work, backend = Work(), MemoryBackend()

    async def anything(scope: Scope, receive: Receive, send: Send) -> None:
        await work()

    app = MaintenanceModeMiddleware(anything, backend=backend)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, app, scope_of("/a\r\nCRITICAL forged\u2028record\x1b[2J"))
        await until(lambda: work.running == 1)
        assert in_flight(backend) == [InFlight("GET", "/a CRITICAL forged record[2J")]
        with pytest.raises(DrainTimeout) as error:
            async with maintenance_mode_on(backend, drain=0.05):
                raise AssertionError
        work.may_end.set()
    assert "1 × GET /a CRITICAL forged record[2J; maintenance is still on" in str(error.value)
    assert str(error.value).isprintable()
