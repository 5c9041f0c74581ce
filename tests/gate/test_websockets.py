"""Websocket handshakes: judged like requests, and refused with a real response by every server that can."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response as Denial
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from fastapi_maintenance import (
    Exemptions,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_exception_handler,
    maintenance_guard,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from tests.support.asgi import BODY, DETAIL, Answer, call, handshake, scope_of
from tests.support.servers import SERVERS, Server

# One of uvicorn's implementations stands on what `websockets` calls its legacy; it warns at every connection.
pytestmark = pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning")

SECONDS = 10

Serve = Callable[[ASGIApp], AbstractContextManager[Server]]
Handler = Callable[[Request], Response]


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Return what starts a server: each kind in turn."""
    return SERVERS[request.param]


def refusal_of(url: str, **options: Any) -> Denial:
    """Return the response with which a server refuses a handshake."""
    with pytest.raises(InvalidStatus) as caught, connect(url, open_timeout=SECONDS, **options):
        pytest.fail("the handshake was accepted")
    return caught.value.response


@dataclass
class Echo:
    """A websocket endpoint that counts how often it ran."""

    runs: int = 0

    async def __call__(self, websocket: WebSocket) -> None:
        """Send everything back until the client goes."""
        self.runs += 1
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)


Face = Callable[[Echo, Handler | None], FastAPI]


def behind_middleware(echo: Echo, handler: Handler | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, response_handler=handler)
    app.add_api_websocket_route("/ws", echo)
    return app


def behind_guard(echo: Echo, handler: Handler | None) -> FastAPI:
    app = FastAPI()
    configure_backend("memory", initial=True)
    guard = MaintenanceGuard(response_handler=handler)
    app.add_api_websocket_route("/ws", echo, dependencies=[Depends(guard)])
    return app


def behind_answering_guard(echo: Echo, handler: Handler | None) -> FastAPI:
    app = behind_guard(echo, handler)
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    return app


FACES: dict[str, Face] = {
    "middleware": behind_middleware,
    "guard": behind_guard,
    "guard-with-exception-handler": behind_answering_guard,
}
CUSTOM_FACES = [face for name, face in FACES.items() if name != "guard"]


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_a_client_sees_a_refused_handshake_as_503_with_retry_after(serve: Serve, face: Face) -> None:
    """The default answer arrives as a response to the handshake, and the endpoint never runs."""
    echo = Echo()
    with serve(face(echo, None)) as server:
        denial = refusal_of(server.ws())
    assert (denial.status_code, denial.headers["Retry-After"]) == (503, "3600")
    assert denial.headers["Cache-Control"] == "no-store"
    assert denial.headers["Content-Type"] == "application/json"
    assert denial.body == b'{"detail":"%s"}' % DETAIL.encode()
    assert echo.runs == 0


def html(request: Request) -> Response:
    return HTMLResponse(f"<h1>{request.url.path} will be back</h1>", status_code=503, headers={"Retry-After": "7"})


def file(request: Request) -> Response:
    return FileResponse(Path(__file__), status_code=503, headers={"Retry-After": "7"})


def stream(request: Request) -> Response:
    def chunks() -> Iterator[str]:
        yield from ("back ", "at ", "noon")

    return StreamingResponse(chunks(), status_code=503, headers={"Retry-After": "7"})


THIS_FILE = Path(__file__).read_bytes()
CUSTOM: dict[Handler, bytes] = {
    html: b"<h1>/ws will be back</h1>",
    file: THIS_FILE,
    stream: b"back at noon",
}


@pytest.mark.parametrize("face", CUSTOM_FACES)
@pytest.mark.parametrize("handler", CUSTOM)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_client_sees_the_apps_own_response_as_the_denial(kind: str, handler: Handler, face: Face) -> None:
    """A page, a file and a stream are sent as the response to the handshake."""
    echo = Echo()
    with SERVERS[kind](face(echo, handler)) as server:
        denial = refusal_of(server.ws())
    assert (denial.status_code, denial.headers["Retry-After"]) == (503, "7")
    assert denial.body == CUSTOM[handler]
    assert echo.runs == 0


def conversation() -> FastAPI:
    """Return an app with a websocket that uses everything a websocket has."""
    app = FastAPI()

    @app.websocket("/talk/{room}")
    async def talk(websocket: WebSocket, room: int, answer_to: int = 0) -> None:
        await websocket.accept(websocket.scope["subprotocols"][0], [(b"x-room", b"%d" % room)])
        await websocket.send_text(await websocket.receive_text() + f" {answer_to}")
        await websocket.send_bytes(await websocket.receive_bytes() + b"!")
        await websocket.close(4321, "enough")

    return app


def test_an_accepted_websocket_passes_untouched_both_ways(serve: Serve) -> None:
    """Subprotocol, headers, texts, bytes and the close arrive as the app sent them."""
    app = conversation()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=False)
    with (
        serve(app) as server,
        connect(server.ws("/talk/7?answer_to=6"), subprotocols=[Subprotocol("v2")], open_timeout=SECONDS) as client,
    ):
        assert client.subprotocol == "v2"
        assert client.response is not None
        assert client.response.headers["x-room"] == "7"
        client.send("what is")
        assert client.recv(SECONDS) == "what is 6"
        client.send(b"\x00\xff")
        assert client.recv(SECONDS) == b"\x00\xff!"
        with pytest.raises(ConnectionClosed):
            client.recv(SECONDS)
        assert (client.close_code, client.close_reason) == (4321, "enough")


def test_an_accepted_websocket_outlives_the_start_of_maintenance(serve: Serve) -> None:
    """Handshakes are judged, conversations are not: the next handshake is refused."""
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.websocket("/ws")
    async def switch_on(websocket: WebSocket) -> None:
        await websocket.accept()
        await set_maintenance_mode(True)
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    with serve(app) as server:
        with connect(server.ws(), open_timeout=SECONDS) as client:
            client.send("still here")
            assert client.recv(SECONDS) == "still here"
            assert refusal_of(server.ws()).status_code == 503
            client.send("and still")
            assert client.recv(SECONDS) == "and still"
        assert refusal_of(server.ws()).status_code == 503


def test_the_app_learns_how_a_client_left(serve: Serve) -> None:
    """The close code that the server tells arrives at the endpoint, as it does without the middleware."""
    codes: dict[str, int] = {}

    def listener(name: str) -> FastAPI:
        app = FastAPI()

        @app.websocket("/ws")
        async def listen(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as left:
                codes[name] = left.code

        return app

    bare, behind = listener("bare"), listener("behind")
    behind.add_middleware(MaintenanceModeMiddleware, enable_maintenance=False)
    for app in (bare, behind):
        with serve(app) as server, connect(server.ws(), open_timeout=SECONDS) as client:
            client.close(4444)
    assert codes["behind"] == codes["bare"]


def test_a_path_without_a_websocket_is_refused_as_ever(serve: Serve) -> None:
    """What does not exist is no maintenance: the router's own refusal stays."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    app.add_api_websocket_route("/ws", Echo())
    with serve(app) as server:
        assert refusal_of(server.ws("/none")).status_code == 403


def test_an_apps_own_refusal_is_left_alone(serve: Serve) -> None:
    """An endpoint that refuses does so with its own code while nothing is under maintenance."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=False)

    @app.websocket("/ws")
    async def refuse(websocket: WebSocket) -> None:
        raise WebSocketException(1008)

    with serve(app) as server:
        assert refusal_of(server.ws()).status_code == 403


def test_credentials_sent_with_the_handshake_exempt_it(serve: Serve) -> None:
    """A handler that looks at the headers of the handshake lets the client talk to the endpoint."""

    def is_tester(request: Request) -> bool:
        return request.headers.get("authorization") == "Bearer tester"

    echo = Echo()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=is_tester)
    app.add_api_websocket_route("/ws", echo)
    tester = {"Authorization": "Bearer tester"}
    with serve(app) as server:
        assert refusal_of(server.ws()).status_code == 503
        assert echo.runs == 0
        with connect(server.ws(), open_timeout=SECONDS, additional_headers=tester) as client:
            client.send("hello")
            assert client.recv(SECONDS) == "hello"
    assert echo.runs == 1


@pytest.mark.anyio
@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
@pytest.mark.parametrize("handler", [None, html])
async def test_without_the_denial_extension_the_handshake_is_closed_with_1013(
    face: Face, handler: Handler | None
) -> None:
    """A server that knows no denial gets the close alone: no accept before it, no response instead of it."""
    echo = Echo()
    answer = await handshake(face(echo, handler), "/ws", "hello", denial=False)
    assert [message["type"] for message in answer.sent] == ["websocket.close"]
    assert answer.close_code == 1013
    assert echo.runs == 0


@pytest.mark.anyio
async def test_the_reason_of_the_close_says_maintenance() -> None:
    """What is sent with the close code tells a maintenance from an overload, within the 123 bytes there are."""
    for face in FACES.values():
        answer = await handshake(face(Echo(), None), denial=False)
        assert answer.sent[0]["reason"] == DETAIL
        assert len(DETAIL.encode()) <= 123


@pytest.mark.anyio
async def test_extensions_that_a_server_does_not_mention_are_none() -> None:
    """A scope without ``extensions`` is one of a server that knows no denial."""
    scope = scope_of("/ws", kind="websocket")
    del scope["extensions"]
    answer = await call(behind_middleware(Echo(), None), scope)
    assert answer.close_code == 1013


@pytest.mark.anyio
@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
async def test_a_denial_is_one_complete_response(face: Face) -> None:
    """The server gets one start and one last piece of body, nothing before and nothing after."""
    answer = await handshake(face(Echo(), None))
    assert [message["type"] for message in answer.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert not answer.sent[-1].get("more_body", False)


@pytest.mark.anyio
@pytest.mark.parametrize("face", CUSTOM_FACES)
async def test_a_denial_does_not_offer_what_only_requests_have(face: Face) -> None:
    """A file is sent piece by piece even where the server could send it by its path."""
    app = face(Echo(), file)
    answer = await handshake(
        app, extensions={"http.response.pathsend": {}, "websocket.http.response": {}}, denial=True
    )
    assert answer.body == THIS_FILE
    assert {message["type"] for message in answer.sent} == {
        "websocket.http.response.start",
        "websocket.http.response.body",
    }


@pytest.mark.anyio
@pytest.mark.parametrize("face", CUSTOM_FACES)
async def test_a_redirect_can_be_the_denial(face: Face) -> None:
    """Whatever status the app's own response has is the one that is sent."""

    def elsewhere(request: Request) -> Response:
        return RedirectResponse("https://status.example")

    answer = await handshake(face(Echo(), elsewhere))
    assert (answer.status, answer.headers["location"]) == (307, "https://status.example")


@pytest.mark.anyio
@pytest.mark.parametrize("face", CUSTOM_FACES)
async def test_a_response_that_cannot_be_sent_leaves_the_default_denial(
    face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is missing becomes the default 503 for a handshake, too."""

    def missing(request: Request) -> Response:
        return FileResponse("/nonexistent/page.html", status_code=503)

    answer = await handshake(face(Echo(), missing))
    assert (answer.status, answer.json()) == (503, BODY)
    assert "could not be sent" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("face", CUSTOM_FACES)
async def test_a_handler_that_raises_leaves_the_default_denial(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    """A handshake gets the default 503 rather than a 500 that hides the maintenance."""

    def broken(request: Request) -> Response:
        raise LookupError("no such page")

    answer = await handshake(face(Echo(), broken))
    assert (answer.status, answer.headers["retry-after"]) == (503, "3600")
    assert "no such page" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["on", "read_only"])
async def test_every_blocking_mode_blocks_handshakes(mode: str) -> None:
    """A handshake opens a channel in both directions, so ``read_only`` refuses it although it is a GET."""
    backend = MemoryBackend()
    await set_maintenance_mode(mode, backend)  # type: ignore[arg-type] # one of the modes
    configure_backend(backend)
    guarded, plain = FastAPI(), FastAPI()
    plain.add_middleware(MaintenanceModeMiddleware, backend=backend)
    plain.add_api_websocket_route("/ws", Echo())
    guarded.add_api_websocket_route("/ws", Echo(), dependencies=[Depends(maintenance_guard)])
    assert (await handshake(plain)).status == 503
    assert (await handshake(guarded)).status == 503
    await set_maintenance_mode(False, backend)
    assert (await handshake(plain)).accepted
    assert (await handshake(guarded)).accepted


@pytest.mark.anyio
async def test_marks_count_for_websockets() -> None:
    """Forced on is refused in normal operation, forced off is open in maintenance."""
    for override, path in ((False, "/closed"), (True, "/open")):
        app = FastAPI()
        app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=override)
        app.add_api_websocket_route("/closed", force_maintenance_mode_on(Echo()))
        app.add_api_websocket_route("/open", force_maintenance_mode_off(Echo()))
        app.add_api_websocket_route("/plain", Echo())
        answers = {name: await handshake(app, name) for name in ("/closed", "/open", "/plain")}
        assert answers["/closed"].status == 503
        assert answers["/open"].accepted
        assert answers["/plain"].accepted is (path == "/closed")


@pytest.mark.anyio
async def test_starlettes_websocket_endpoints_are_judged() -> None:
    """A class that Starlette dispatches to is refused like a function, and its mark counts."""

    class Plain(WebSocketEndpoint):
        encoding = "text"

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_text(data)

    @force_maintenance_mode_off
    class Open(Plain):
        pass

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    app.router.routes.extend([WebSocketRoute("/plain", Plain), WebSocketRoute("/open", Open)])
    assert (await handshake(app, "/plain")).status == 503
    assert (await handshake(app, "/open", "hello")).texts == ["hello"]


@pytest.mark.anyio
async def test_websockets_of_included_routers_and_mounted_apps_are_judged() -> None:
    """The way to the endpoint does not matter."""
    app, router, mounted = FastAPI(), APIRouter(prefix="/rooms"), FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    router.add_api_websocket_route("/{room}", Echo())
    mounted.add_api_websocket_route("/ws", Echo())
    app.include_router(router, prefix="/v1")
    app.mount("/mounted", mounted)
    assert (await handshake(app, "/v1/rooms/1")).status == 503
    assert (await handshake(app, "/mounted/ws")).status == 503
    assert (await handshake(app, "/mounted/none")).status != 503


@pytest.mark.anyio
async def test_a_guard_on_router_or_app_refuses_handshakes() -> None:
    """A dependency of the whole router, or of the whole app, holds for its websockets."""
    configure_backend("memory", name="chat", initial=True)
    guard = Depends(MaintenanceGuard("chat"))
    app, router, whole = FastAPI(), APIRouter(prefix="/chat", dependencies=[guard]), FastAPI(dependencies=[guard])
    router.add_api_websocket_route("/{room}", Echo())
    app.include_router(router)
    app.add_api_websocket_route("/ws", Echo())
    whole.add_api_websocket_route("/ws", Echo())
    assert (await handshake(app, "/chat/1")).status == 503
    assert (await handshake(app)).accepted
    assert (await handshake(whole)).status == 503


@pytest.mark.anyio
async def test_a_guard_refuses_before_the_endpoints_own_parameters_fail() -> None:
    """A handshake that lacks a required header gets the 503, not the validation's refusal."""
    configure_backend("memory", initial=True)
    app = FastAPI()

    @app.websocket("/ws", dependencies=[Depends(maintenance_guard)])
    async def strict(websocket: WebSocket, x_token: str = Header()) -> None:
        pytest.fail("the endpoint ran")

    assert (await handshake(app)).status == 503


def test_handlers_get_a_real_request_of_a_handshake(serve: Serve) -> None:
    """Exempt and response handler see the GET request that the handshake is on the wire."""
    seen: list[Request] = []
    received: list[tuple[bytes, bool]] = []

    async def look(request: Request) -> bool:
        seen.append(request)
        received.append((await request.body(), await request.is_disconnected()))
        return False

    async def look_again(request: Request) -> Response:
        await look(request)
        return PlainTextResponse("later", 503)

    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=look, response_handler=look_again
    )
    app.add_api_websocket_route("/ws/{room}", Echo())
    with serve(app) as server:
        host = f"127.0.0.1:{server.port}"
        headers = {"Cookie": "session=s1"}
        denial = refusal_of(server.ws("/ws/5?token=t1"), origin="https://app.example", additional_headers=headers)
    assert (denial.status_code, denial.body) == (503, b"later")
    assert received == [(b"", False)] * 2
    assert len(seen) == 2
    for request in seen:
        assert type(request) is Request
        assert (request.method, str(request.url)) == ("GET", f"ws://{host}/ws/5?token=t1")
        assert (request.headers["origin"], request.headers["upgrade"]) == ("https://app.example", "websocket")
        assert (request.cookies, dict(request.query_params)) == ({"session": "s1"}, {"token": "t1"})
        assert request.client is not None
        assert request.app is app


@pytest.mark.anyio
async def test_a_handler_that_read_the_handshake_leaves_it_for_the_app() -> None:
    """What an exempt handler received is received again by the endpoint: connect first, then the texts."""

    async def reads_all(request: Request) -> bool:
        return await request.body() == b""

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=reads_all)
    app.add_api_websocket_route("/ws", Echo())
    answer = await handshake(app, "/ws", "one", "two")
    assert answer.texts == ["one", "two"]


@pytest.mark.anyio
async def test_a_handler_sees_a_client_that_left_during_the_handshake() -> None:
    """A websocket's disconnect is a request's disconnect to a handler, and reaches the app after it."""
    gone: list[bool] = []
    received: list[str] = []

    async def is_gone(request: Request) -> bool:
        await request.body()
        gone.append(await request.is_disconnected())
        return True

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.extend([(await receive())["type"], (await receive())["type"]])

    middleware = MaintenanceModeMiddleware(app, enable_maintenance=True, exempt_handler=is_gone)
    scope = scope_of("/ws", kind="websocket", extensions={"websocket.http.response": {}})
    await call(middleware, scope, {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006})
    assert gone == [True]
    assert received == ["websocket.connect", "websocket.disconnect"]


@pytest.mark.anyio
async def test_a_guards_handlers_get_a_real_request_of_a_handshake() -> None:
    """A dependency's exempt handler, too, sees a request, not a websocket."""
    seen: list[tuple[type[object], str, str]] = []

    def look(request: Request) -> bool:
        seen.append((type(request), request.method, request.url.path))
        return request.query_params.get("token") == "t1"

    configure_backend("memory", initial=True)
    app = FastAPI()
    guard = Depends(MaintenanceGuard(exempt_handler=look))
    app.add_api_websocket_route("/ws", Echo(), dependencies=[guard])
    assert (await handshake(app)).status == 503
    assert (await handshake(app, "/ws", "hello", query_string=b"token=t1")).texts == ["hello"]
    assert seen == [(Request, "GET", "/ws")] * 2


@pytest.mark.anyio
async def test_exempt_paths_count_for_handshakes() -> None:
    """A websocket at an exempt path is open, behind the middleware and behind a guard."""
    configure_backend("memory", initial=True)
    exemptions = Exemptions(paths=("/rooms/*",))
    plain, guarded = FastAPI(), FastAPI()
    plain.add_middleware(MaintenanceModeMiddleware, exemptions=exemptions)
    guard = Depends(MaintenanceGuard(exemptions=exemptions))
    for app, dependencies in ((plain, []), (guarded, [guard])):
        app.add_api_websocket_route("/rooms/{room}", Echo(), dependencies=dependencies)
        app.add_api_websocket_route("/ws", Echo(), dependencies=dependencies)
        assert (await handshake(app, "/rooms/1")).accepted
        assert (await handshake(app, "/ws")).status == 503


@pytest.mark.anyio
async def test_middleware_and_guard_on_one_app_agree() -> None:
    """A guarded websocket behind the middleware is refused once, by the middleware, and opens with it."""
    backend = MemoryBackend(True)
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    app.add_api_websocket_route("/ws", Echo(), dependencies=[Depends(maintenance_guard)])
    answer = await handshake(app)
    assert [message["type"] for message in answer.sent].count("websocket.http.response.start") == 1
    await set_maintenance_mode(False, backend)
    assert (await handshake(app)).accepted


@pytest.mark.anyio
async def test_a_subclass_with_its_own_dispatch_still_refuses_handshakes() -> None:
    """``dispatch`` sees requests only; handshakes are judged without it."""

    class Named(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response = await super().dispatch(request, call_next)
            response.headers["x-named"] = "yes"
            return response

    app = FastAPI()
    app.add_middleware(Named, enable_maintenance=True)
    app.add_api_websocket_route("/ws", Echo())
    assert (await handshake(app)).status == 503


@pytest.mark.anyio
@pytest.mark.parametrize("denial", [True, False])
async def test_the_apps_own_handler_for_http_errors_does_not_lose_a_guards_refusal(denial: bool) -> None:
    """An app that answers every ``HTTPException`` its own way still does not let the handshake in."""

    async def own(connection: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        return PlainTextResponse("own", exc.status_code, headers=exc.headers)

    echo = Echo()
    app = behind_guard(echo, None)
    app.add_exception_handler(HTTPException, own)
    answer = await handshake(app, denial=denial)
    assert not answer.accepted
    assert answer.status == 503 if denial else answer.close_code == 1013
    assert len([message for message in answer.sent if message["type"].endswith(("start", "close"))]) == 1
    assert echo.runs == 0


@pytest.mark.anyio
async def test_async_streams_are_denials_too() -> None:
    """A stream made by an async generator arrives piece by piece, and ends."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def handler(request: Request) -> Response:
        return StreamingResponse(pieces(), status_code=503)

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, response_handler=handler)
    app.add_api_websocket_route("/ws", Echo())
    answer: Answer = await handshake(app)
    bodies: list[Message] = [message for message in answer.sent if message["type"].endswith("body")]
    assert [message["body"] for message in bodies] == [b"a", b"b", b""]
    assert [message["more_body"] for message in bodies] == [True, True, False]
