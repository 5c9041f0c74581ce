"""What passes is untouched: context, messages, streams, disconnects and cancellation, on asyncio and on trio."""

import asyncio
import contextvars
import gc
import socket
import threading
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    maintenance_guard,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.switches.passage import current
from tests.support.asgi import call, client, get, lifespan, request, scope_of, status
from tests.support.servers import uvicorn_server

pytestmark = pytest.mark.anyio
# Older Starlettes leave a generator of theirs to the garbage collector, which trio does not like.
starlettes_leftovers = pytest.mark.filterwarnings("ignore:Async generator 'starlette:ResourceWarning")
every_loop = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

SECONDS = 10
OUR_KEY = "fastapi_maintenance"

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Way = Callable[[App], MaintenanceModeMiddleware]


def off(app: App) -> MaintenanceModeMiddleware:
    return MaintenanceModeMiddleware(app, enable_maintenance=False)


def forced_off(app: App) -> MaintenanceModeMiddleware:
    return MaintenanceModeMiddleware(force_maintenance_mode_off(app), enable_maintenance=True)


def exempt(app: App) -> MaintenanceModeMiddleware:
    async def everybody(request: Request) -> bool:
        return True

    return MaintenanceModeMiddleware(app, enable_maintenance=True, exempt_handler=everybody)


def exempt_by_body(app: App) -> MaintenanceModeMiddleware:
    async def reads_everything(request: Request) -> bool:
        await request.body()
        return True

    return MaintenanceModeMiddleware(app, enable_maintenance=True, exempt_handler=reads_everything)


WAYS: list[Way] = [off, forced_off, exempt, exempt_by_body]
every_way = pytest.mark.parametrize("way", WAYS)
without_reading = pytest.mark.parametrize("way", [off, forced_off, exempt])


async def never() -> Message:
    """Receive nothing, for as long as a test may take."""
    with anyio.fail_after(SECONDS):
        await anyio.sleep_forever()
    raise AssertionError


# Context


@every_loop
@every_way
async def test_a_contextvar_set_in_the_endpoint_is_visible_outside(way: Way) -> None:
    """A logger's or tracer's middleware around ours sees what the endpoint set, and the endpoint what it set."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []
    app = FastAPI()

    @app.get("/")
    async def log_in() -> None:
        seen.append(user.get())
        user.set("alice")

    inner = way(app)

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        user.set("guest")
        await inner(scope, receive, send)
        seen.append(user.get())

    assert await status(outermost) == 200
    assert seen == ["guest", "alice"]


@every_way
async def test_the_answering_app_is_forgotten_after_the_request(way: Way) -> None:
    """What the middleware keeps in the context for the request is gone after it, however it ends."""

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        assert current.get() is not None
        raise LookupError("app")

    with pytest.raises(LookupError):
        await way(fails)(scope_of(), once_then_never({"type": "http.request"}), never_sent)
    assert current.get() is None


async def never_sent(message: Message) -> None:
    pytest.fail(f"{message} was sent")


@every_loop
async def test_a_request_thrown_away_in_another_context_raises_nothing(anyio_backend: str) -> None:
    """A server that drops a request closes its coroutine from wherever it is."""

    @types.coroutine
    def pause() -> Generator[None, None, None]:
        yield

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await pause()

    for way in (off, forced_off):
        started = way(waits)(scope_of(), never, never_sent)
        contextvars.copy_context().run(started.send, None)
        started.close()
        forgotten = way(waits)(scope_of(), never, never_sent)
        contextvars.copy_context().run(forgotten.send, None)
        del forgotten
        gc.collect()
    assert current.get() is None


# Messages


@every_loop
@without_reading
async def test_the_app_gets_the_servers_own_receive_and_send(way: Way) -> None:
    """Nothing stands between server and app: each message is the very object that was sent."""
    got: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend([scope, receive, send])

    async def send(message: Message) -> None: ...

    scope = scope_of()
    await way(app)(scope, never, send)
    assert got == [scope, never, send]


EVERY_KIND: list[Message] = [
    {"type": "http.response.debug", "info": {"template": "t"}},
    {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
    {"type": "http.response.push", "path": "/style.css", "headers": []},
    {"type": "http.response.start", "status": 200, "headers": [(b"trailer", b"x-sum")], "trailers": True},
    {"type": "http.response.body", "body": b"a", "more_body": True},
    {"type": "http.response.zerocopysend", "file": 3},
    {"type": "http.response.pathsend", "path": "/tmp/file"},
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
]


@every_loop
@every_way
async def test_messages_of_every_kind_pass_one_by_one(way: Way) -> None:
    """Early hints, trailers, files sent by path: each arrives before the app goes on, and is the same object."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for number, message in enumerate(EVERY_KIND, 1):
            await send(message)
            assert len(sent) == number

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await way(app)(scope_of(), receive, send)
    assert all(one is other for one, other in zip(sent, EVERY_KIND, strict=True))


@every_loop
@every_way
async def test_a_stream_arrives_chunk_by_chunk(way: Way) -> None:
    """Each chunk is out before the next one is made."""
    sent: list[bytes] = []
    out_before_next: list[int] = []
    app = FastAPI()

    @app.get("/")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(100):
                out_before_next.append(len(sent))
                yield b"%d" % number

        return StreamingResponse(chunks())

    async def send(message: Message) -> None:
        if message.get("body"):
            sent.append(message["body"])

    await way(app)(scope_of(), once_then_never({"type": "http.request"}), send)
    assert sent == [b"%d" % number for number in range(100)]
    assert out_before_next == list(range(100))


def once_then_never(*messages: Message) -> Receive:
    """Receive these messages and then nothing."""
    left = iter(messages)

    async def receive() -> Message:
        for message in left:
            return message
        return await never()

    return receive


@every_loop
@every_way
async def test_a_body_in_pieces_arrives_in_the_same_pieces(way: Way) -> None:
    """The app receives the messages that the server has, those that a handler read included, in their order."""
    pieces: list[Message] = [
        {"type": "http.request", "body": bytes([number]) * 8192, "more_body": number < 7} for number in range(8)
    ]
    pieces.append({"type": "http.disconnect"})
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not received or received[-1]["type"] != "http.disconnect":
            received.append(await receive())

    await way(app)(scope_of(method="POST"), once_then_never(*pieces), never_sent)
    assert all(one is other for one, other in zip(received, pieces, strict=True))


@every_loop
async def test_a_handler_that_read_some_of_the_body_leaves_all_of_it() -> None:
    """An exempt handler may look at the beginning of an upload and decide by it."""
    looked_at: list[bytes] = []

    async def begins_well(request: Request) -> bool:
        async with aclosing(request.stream()) as stream:
            looked_at.append(await anext(stream))
        return looked_at == [b"0"]

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=begins_well)

    @app.post("/")
    async def upload(request: Request) -> Response:
        return Response(await request.body())

    pieces: list[Message] = [
        {"type": "http.request", "body": b"%d" % number, "more_body": number < 3} for number in range(4)
    ]
    answer = await call(app, scope_of(method="POST"), *pieces)
    assert (answer.status, answer.body, looked_at) == (200, b"0123", [b"0"])


@every_loop
@every_way
async def test_64_kib_of_body_are_untouched_both_ways(way: Way) -> None:
    """A large body comes back as it was sent."""
    app = FastAPI()

    @app.post("/")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    body = bytes(range(256)) * 256
    answer = await request(way(app), "POST", "/", content=body)
    assert (answer.status_code, answer.content) == (200, body)


@every_loop
@every_way
async def test_background_tasks_run_before_the_request_is_over(way: Way) -> None:
    """The whole ASGI call counts, after the answer was sent as well."""
    order: list[str] = []
    app = FastAPI()

    @app.get("/")
    async def answer(tasks: BackgroundTasks) -> str:
        tasks.add_task(order.append, "background")
        return "answer"

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            order.append("sent")

    await way(app)(scope_of(), once_then_never({"type": "http.request"}), send)
    order.append("over")
    assert order == ["sent", "background", "over"]


@every_loop
@every_way
async def test_what_the_app_raises_comes_out_as_it_is(way: Way) -> None:
    """The same object, in no group, with no other exception around it."""
    error = LookupError("app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        await way(app)(scope_of(), once_then_never({"type": "http.request"}), never_sent)
    assert caught.value is error
    assert error.__context__ is None


# Scope


@every_way
async def test_the_scope_of_a_passed_request_has_one_key_more(way: Way) -> None:
    """All else in the scope is what the server put there, nested values included."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = scope_of("/a", headers={"x-a": "1"}, root_path="/r", extensions={"tls": {}}, state={"a": [1]})
    before = dict(scope)
    copy = repr(scope)
    await way(app)(scope, once_then_never({"type": "http.request"}), never_sent)
    assert seen == [scope]
    assert set(scope) - set(before) == {OUR_KEY}
    assert all(scope[key] is value for key, value in before.items())
    assert repr(before) == copy


@every_way
async def test_routing_finds_the_scope_as_it_does_without_us(way: Way) -> None:
    """Inside the app, and in its endpoint, the scope has what it has without the middleware, and our key."""
    seen: list[dict[str, Any]] = []

    def service() -> App:
        app, router, mounted = FastAPI(), APIRouter(prefix="/router"), FastAPI()

        @router.get("/{item}")
        async def routed(request: Request) -> None:
            seen.append(comparable(request.scope))

        @mounted.get("/{item}")
        async def in_mounted(request: Request) -> None:
            seen.append(comparable(request.scope))

        app.include_router(router, prefix="/v1")
        app.mount("/mounted", mounted)

        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(comparable(scope))
            await app(scope, receive, send)

        return noting

    for path in ("/v1/router/7", "/mounted/7"):
        seen.clear()
        assert await status(service(), path) == 200
        bare = seen.copy()
        seen.clear()
        assert await status(way(service()), path) == 200
        for scope in seen:
            del scope[OUR_KEY]
        assert seen == bare


def comparable(scope: Scope) -> dict[str, Any]:
    """Return a scope with the names of objects that differ from app to app."""
    plain = (str, bytes, list, type(None))
    return {key: value if isinstance(value, plain) else type(value).__qualname__ for key, value in scope.items()}


@every_way
async def test_lifespan_and_unknown_kinds_of_connections_pass(way: Way) -> None:
    """The app starts and stops under maintenance, and what we do not know is not ours to judge."""
    started: list[str] = []

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        started.append("up")
        yield
        started.append("down")

    kinds = await lifespan(way(FastAPI(lifespan=life)))
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert started == ["up", "down"]

    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await way(app)({"type": "future"}, never, never_sent)
    assert seen == [{"type": "future"}]


# Cancellation and disconnects


@every_loop
@every_way
async def test_a_cancelled_request_is_cancelled_in_the_endpoint(way: Way) -> None:
    """The endpoint sees the cancellation, may clean up, and nothing of the request is left behind."""
    events: list[str] = []
    inside = anyio.Event()
    app = FastAPI()

    @app.get("/")
    async def wait() -> None:
        inside.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            events.append("cancelled")
            raise
        finally:
            events.append("cleaned up")

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, way(app), scope_of())
            await inside.wait()
            tasks.cancel_scope.cancel()
    assert events == ["cancelled", "cleaned up"]
    assert current.get() is None


@every_loop
@pytest.mark.parametrize("as_exempt", [False, True])
async def test_a_cancelled_handler_does_not_turn_into_an_answer(as_exempt: bool) -> None:
    """Cancellation is no failure of the handler: nothing is sent, nothing passes."""
    inside = anyio.Event()

    async def waits(request: Request) -> Any:
        inside.set()
        await anyio.sleep_forever()

    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        enable_maintenance=True,
        exempt_handler=waits if as_exempt else None,
        response_handler=None if as_exempt else waits,
    )
    app.get("/")(lambda: pytest.fail("the endpoint ran"))
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope_of(), never, never_sent)
            await inside.wait()
            tasks.cancel_scope.cancel()


@every_loop
@every_way
async def test_a_disconnect_reaches_the_app(way: Way) -> None:
    """``http.disconnect`` comes after the body, and ``is_disconnected`` says so."""
    seen: list[bool] = []
    app = FastAPI()

    @app.post("/")
    async def upload(request: Request) -> None:
        await request.body()
        seen.append(await request.is_disconnected())

    for gone in (False, True):
        messages: list[Message] = [{"type": "http.request", "body": b"b"}]
        if gone:
            messages.append({"type": "http.disconnect"})
        await way(app)(scope_of(method="POST"), once_then_never(*messages), ignored)
    assert seen == [False, True]


async def ignored(message: Message) -> None: ...


def leave(port: int, path: str, *, after: int) -> None:
    """Send a request to a server and hang up after so many bytes of its answer."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while after > 0:
            after -= len(connection.recv(after))


@every_way
def test_a_client_that_hangs_up_is_noticed_by_an_endpoint_that_asks(way: Way) -> None:
    """Over a real connection ``request.is_disconnected()`` turns true while the endpoint works."""
    inside, noticed = threading.Event(), threading.Event()
    app = FastAPI()

    @app.get("/")
    async def work(request: Request) -> None:
        inside.set()
        with anyio.fail_after(SECONDS):
            while not await request.is_disconnected():
                await anyio.lowlevel.checkpoint()
        noticed.set()

    with uvicorn_server(way(app)) as server:
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert inside.wait(SECONDS)
            assert not noticed.is_set()
        assert noticed.wait(SECONDS)


@every_way
def test_a_client_that_hangs_up_ends_the_stream(way: Way) -> None:
    """Over a real connection an endless stream is cancelled when its client leaves in the middle."""
    ended = threading.Event()
    app = FastAPI()

    @app.get("/")
    async def endless() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await anyio.lowlevel.checkpoint()
            finally:
                ended.set()

        return StreamingResponse(chunks())

    with uvicorn_server(way(app)) as server:
        leave(server.port, "/", after=100_000)
        assert ended.wait(SECONDS)


def test_a_client_that_hangs_up_during_its_own_503_harms_nobody() -> None:
    """The refusal of a client that is gone raises nothing, and the next one is answered."""
    ended = threading.Event()

    async def endless(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await anyio.lowlevel.checkpoint()
            finally:
                ended.set()

        return StreamingResponse(chunks(), 503) if request.url.path == "/" else Response("later", 503)

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, response_handler=endless)
    app.get("/{path:path}")(lambda path: None)
    with uvicorn_server(app) as server:
        leave(server.port, "/", after=100_000)
        assert ended.wait(SECONDS)
        assert httpx.get(server.http("/next"), timeout=SECONDS).text == "later"


# Several requests, several apps


@every_loop
async def test_concurrent_requests_do_not_mix() -> None:
    """A hundred requests that are all inside at once get each their own judgement and answer."""
    everybody_in = anyio.Event()
    inside: list[str] = []

    async def meet(path: str) -> None:
        inside.append(path)
        if len(inside) == 100:
            everybody_in.set()
        await everybody_in.wait()

    async def is_even(request: Request) -> bool:
        await meet(request.url.path)
        return int(request.url.path.rpartition("/")[2]) % 2 == 0

    async def refused(request: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        return Response(f"refused {request.url.path}", 503)

    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=is_even, response_handler=refused
    )

    @app.get("/items/{item}")
    async def read(item: int) -> str:
        await anyio.lowlevel.checkpoint()
        return f"item {item}"

    answers: dict[int, httpx.Response] = {}

    async def ask(number: int) -> None:
        answers[number] = await get(app, f"/items/{number}")

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)
    for number, answer in answers.items():
        if number % 2:
            assert (answer.status_code, answer.text) == (503, f"refused /items/{number}")
        else:
            assert (answer.status_code, answer.json()) == (200, f"item {number}")


@every_loop
async def test_two_apps_answer_at_once_each_by_its_own_switch() -> None:
    """``get_maintenance_mode()`` in an endpoint means the app that is answering, whoever else is."""
    backends = [MemoryBackend(), MemoryBackend(True)]
    arrived: list[int] = []
    both_in = anyio.Event()
    said: dict[int, tuple[bool, bool]] = {}

    def service(number: int) -> FastAPI:
        app = FastAPI()
        app.add_middleware(MaintenanceModeMiddleware, backend=backends[number])

        @app.get("/")
        @force_maintenance_mode_off
        async def ask() -> None:
            first = await get_maintenance_mode()
            arrived.append(number)
            if len(arrived) == 2:
                both_in.set()
            await both_in.wait()
            said[number] = first, await get_maintenance_mode()

        return app

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(get, service(number))
    assert said == {0: (False, False), 1: (True, True)}


class Around:
    """A middleware that asks for the mode before and after."""

    def __init__(self, app: App, said: list[bool]) -> None:
        self.app = app
        self.said = said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask, answer, ask again."""
        self.said.append(await get_maintenance_mode())
        await self.app(scope, receive, send)
        self.said.append(await get_maintenance_mode())


def mounted_with_a_switch_of_its_own(said: list[bool], around: Callable[[Around], App]) -> FastAPI:
    """Return an app under maintenance, in which another one is mounted and forced off."""
    outer, inner = FastAPI(), FastAPI()
    inner.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend())

    @inner.get("/")
    async def ask_inside() -> None:
        said.append(await get_maintenance_mode())

    outer.mount("/inner", force_maintenance_mode_off(around(Around(inner, said))))
    outer.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    return outer


@every_loop
async def test_an_app_around_a_mounted_one_is_the_answering_one_again_after_it() -> None:
    """``get_maintenance_mode()`` means the mounted app inside of its middleware, the outer one around it."""
    said: list[bool] = []
    app = mounted_with_a_switch_of_its_own(said, lambda around: around)
    assert await status(app, "/inner/") == 200
    assert said == [True, False, True]


@every_loop
async def test_a_mark_on_an_opaque_app_holds_for_an_app_with_a_middleware_in_it() -> None:
    """What is mounted as forced off is open, whatever it consists of."""

    def opaque(around: Around) -> App:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await around(scope, receive, send)

        return call

    assert await status(mounted_with_a_switch_of_its_own([], opaque), "/inner/") == 200


# Trio as well


@every_loop
async def test_everything_that_waits_works_on_both_loops(anyio_backend: str) -> None:
    """Handlers, a backend of the user's own, blocks, guards and streams need neither of the two loops."""

    class Own(BaseStateBackend):
        value = False

        async def get_value(self) -> bool:
            await anyio.lowlevel.checkpoint()
            return self.value

        async def set_value(self, value: bool) -> None:
            await anyio.lowlevel.checkpoint()
            self.value = value

    def is_tester(request: Request) -> bool:
        return "x-tester" in request.headers

    async def page(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"back ", b"soon"):
                await anyio.lowlevel.checkpoint()
                yield piece

        return StreamingResponse(pieces(), 503)

    backend = Own()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, exempt_handler=is_tester, response_handler=page)
    app.get("/")(lambda: "sync")
    app.get("/guarded", dependencies=[Depends(maintenance_guard)])(lambda: "guarded")
    async with client(app) as user:
        for path in ("/", "/guarded"):
            assert (await user.get(path)).status_code == 200
            async with maintenance_mode_on(backend):
                assert backend.value
                refused, tested = await user.get(path), await user.get(path, headers={"x-tester": ""})
            assert (refused.status_code, refused.text, tested.status_code) == (503, "back soon", 200)
            await set_maintenance_mode(True)
            assert (await user.get(path)).status_code == 503
            await set_maintenance_mode(False)
            assert (await user.get(path)).status_code == 200


# Other middlewares


class Naming(BaseHTTPMiddleware):
    """A user's middleware of the usual kind, which notes what it sees and adds a header."""

    def __init__(self, app: ASGIApp, name: str, seen: list[str]) -> None:
        super().__init__(app)
        self.name = name
        self.seen = seen

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Note the request, and the status of its answer."""
        self.seen.append(f"{self.name} {request.url.path}")
        response: Response = await call_next(request)
        self.seen.append(f"{self.name} {response.status_code}")
        response.headers[f"x-{self.name}"] = "yes"
        return response


@starlettes_leftovers
@every_loop
async def test_the_usual_middlewares_inside_and_outside_work() -> None:
    """The one outside sees the 503 and may add to it; the one inside does not run for what is refused."""
    seen: list[str] = []
    app = FastAPI()
    app.add_middleware(Naming, name="inside", seen=seen)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    app.add_middleware(Naming, name="outside", seen=seen)

    @app.post("/open")
    @force_maintenance_mode_off
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/closed")
    async def closed() -> None:
        pytest.fail("the endpoint ran")

    refused = await get(app, "/closed")
    assert (refused.status_code, refused.headers["x-outside"]) == (503, "yes")
    assert seen == ["outside /closed", "outside 503"]
    seen.clear()
    passed = await request(app, "POST", "/open", content=b"x" * 65536)
    assert (passed.status_code, passed.content) == (200, b"x" * 65536)
    assert passed.headers["x-inside"] == passed.headers["x-outside"] == "yes"
    assert seen == ["outside /open", "inside /open", "inside 200", "outside 200"]
    seen.clear()
    assert await status(app, "/none") == 404
    assert seen == ["outside /none", "inside /none", "inside 404", "outside 404"]


@starlettes_leftovers
@every_loop
@pytest.mark.parametrize("inside", [True, False])
async def test_function_middlewares_work_in_either_order(inside: bool) -> None:
    """``@app.middleware("http")`` before or after ours changes neither judgement nor stream."""
    app = FastAPI()
    if not inside:
        app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)

    @app.middleware("http")
    async def timing(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-timing"] = "1"
        return response

    if inside:
        app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)

    @app.get("/open")
    @force_maintenance_mode_off
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(pieces())

    app.get("/closed")(lambda: pytest.fail("the endpoint ran"))
    opened, closed = await get(app, "/open"), await get(app, "/closed")
    assert (opened.status_code, opened.text, opened.headers["x-timing"]) == (200, "ab", "1")
    assert closed.status_code == 503
    assert ("x-timing" in closed.headers) is not inside


@starlettes_leftovers
@every_loop
async def test_a_middleware_inside_that_answers_itself_is_left_to_it() -> None:
    """What an inner middleware answers without the router is its own affair, once the request passed."""
    app = FastAPI()

    @app.middleware("http")
    async def teapot(request: Request, call_next: Any) -> Response:
        return Response("teapot", 418)

    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    app.get("/open")(force_maintenance_mode_off(lambda: None))
    app.get("/closed")(lambda: None)
    assert [await status(app, path) for path in ("/open", "/none", "/closed")] == [418, 418, 503]


class OwnDispatch(MaintenanceModeMiddleware):
    """A user's subclass, which goes through ``BaseHTTPMiddleware``."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Decide as ever."""
        return await super().dispatch(request, call_next)


@starlettes_leftovers
@every_loop
@pytest.mark.parametrize("override", [False, None])
async def test_a_subclass_with_its_own_dispatch_passes_bodies_streams_and_tasks(override: bool | None) -> None:
    """What goes through Starlette's own machinery arrives as well, if not as cheaply."""
    done: list[str] = []
    app = FastAPI()
    backend = MemoryBackend(True)

    async def reads_everything(request: Request) -> bool:
        return len(await request.body()) == 65536

    app.add_middleware(OwnDispatch, enable_maintenance=override, backend=backend, exempt_handler=reads_everything)

    @app.post("/")
    async def echo(request: Request, tasks: BackgroundTasks) -> StreamingResponse:
        body = await request.body()
        tasks.add_task(done.append, "task")

        async def halves() -> AsyncIterator[bytes]:
            yield body[:100]
            yield body[100:]

        return StreamingResponse(halves(), background=tasks)

    body = bytes(range(256)) * 256
    answer = await request(app, "POST", "/", content=body)
    assert (answer.status_code, answer.content, done) == (200, body, ["task"])
    refused = await request(app, "POST", "/", content=b"short")
    assert refused.status_code == (503 if override is None else 200)


@every_loop
async def test_a_forced_on_endpoint_anywhere_leaves_the_others_untouched() -> None:
    """With a mark in the process requests are resolved even while off; what passes is as untouched as ever."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=False)
    app.get("/closed")(force_maintenance_mode_on(lambda: None))

    @app.post("/{path:path}")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    body = bytes(range(256)) * 256
    assert (await request(app, "POST", "/any", content=body)).content == body
    assert await status(app, "/closed") == 503


async def test_one_app_can_be_served_by_several_event_loops() -> None:
    """An app that answers in one loop goes on to answer in another, as with several threads that serve it."""

    class Own(BaseStateBackend):
        async def get_value(self) -> bool:
            await asyncio.sleep(0)
            return True

        async def set_value(self, value: bool) -> None: ...

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=Own(), exempt_handler=lambda request: False)
    app.get("/")(lambda: None)

    def in_a_loop_of_its_own() -> list[int]:
        async def ask() -> list[int]:
            return [await status(app) for _ in range(5)]

        return asyncio.run(ask())

    results = await asyncio.gather(*(asyncio.to_thread(in_a_loop_of_its_own) for _ in range(4)))
    assert results == [[503] * 5] * 4
