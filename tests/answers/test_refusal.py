"""What refused clients get: the default answer, the app's own, and the default again when that one fails."""

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.templating import Jinja2Templates
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    Answer,
    InvalidConfiguration,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_on,
    maintenance_exception_handler,
    maintenance_guard,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.switches.control import change_mode
from tests.support.asgi import BODY, DETAIL, call, get, request, scope_of
from tests.support.servers import uvicorn_server

pytestmark = pytest.mark.anyio

SECONDS = 10

Handler = Callable[[Request], Any]
Face = Callable[[Handler | None], FastAPI]


def with_endpoint(app: FastAPI, dependencies: Any = ()) -> FastAPI:
    @app.api_route("/items/{item_id}", methods=["GET", "POST"], dependencies=dependencies)
    async def read_item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    return app


def behind_middleware(handler: Handler | None = None, **options: Any) -> FastAPI:
    """Return an app under maintenance."""
    app = with_endpoint(FastAPI())
    app.add_middleware(
        MaintenanceModeMiddleware, **{"enable_maintenance": True, "response_handler": handler} | options
    )
    return app


def behind_guard(handler: Handler | None = None) -> FastAPI:
    """Return an app whose endpoint is refused by its guard, with the full answer."""
    configure_backend("memory", initial=True)
    app = with_endpoint(FastAPI(), [Depends(MaintenanceGuard(response_handler=handler))])
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    return app


class Named(MaintenanceModeMiddleware):
    """A user's subclass that names the server in every answer."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Decide as ever, then add a header."""
        response = await super().dispatch(request, call_next)
        response.headers["x-server"] = "a1"
        return response


def behind_subclass(handler: Handler | None = None) -> FastAPI:
    """Return an app under maintenance by a middleware with a ``dispatch`` of its own."""
    app = with_endpoint(FastAPI())
    app.add_middleware(Named, enable_maintenance=True, response_handler=handler)
    return app


FACES: list[Face] = [behind_middleware, behind_guard, behind_subclass]
every_face = pytest.mark.parametrize("face", FACES)


def is_default(answer: httpx.Response) -> bool:
    """Check that an answer is the default one."""
    return (
        answer.status_code == 503
        and answer.json() == BODY
        and answer.headers["retry-after"] == "3600"
        and answer.headers["cache-control"] == "no-store"
    )


def traceback_of(caplog: pytest.LogCaptureFixture, error: type[Exception]) -> str:
    """Return what was logged about the one failure, which is an error with the traceback of what was raised."""
    (record,) = [record for record in caplog.records if record.name == "fastapi_maintenance"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    return record.getMessage()


# The default answer


async def test_the_default_answer_is_this_to_the_byte() -> None:
    """Status, body and headers of the default answer, and nothing else."""
    answer = await get(behind_middleware(), "/items/1")
    assert answer.status_code == 503
    assert answer.content == b'{"detail":"Service temporarily unavailable due to maintenance"}'
    assert dict(answer.headers) == {
        "content-type": "application/json",
        "content-length": "63",
        "retry-after": "3600",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "vary": "Accept",
    }


async def test_the_guards_answer_is_the_middlewares_to_the_byte() -> None:
    """With and without the registered handler, a guard's refusal is the default answer."""
    expected = await get(behind_middleware(), "/items/1")
    configure_backend("memory", initial=True)
    stock = with_endpoint(FastAPI(), [Depends(maintenance_guard)])
    for answer in (await get(behind_guard(), "/items/1"), await get(stock, "/items/1")):
        assert answer.status_code == expected.status_code
        assert answer.content == expected.content
        assert answer.headers == expected.headers


@every_face
@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/*;q=0.5, */*;q=0.1"])
async def test_the_default_answer_is_json_for_everybody_who_takes_it(face: Face, accept: str) -> None:
    """A client that takes JSON, or anything, gets JSON."""
    assert is_default(await get(face(None), "/items/1", headers={"Accept": accept}))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_method_does_not_change_the_answer(method: str) -> None:
    """A write is answered like a read, whatever it sends."""
    assert is_default(await request(behind_middleware(), method, "/items/1", content=b"{"))


async def test_head_gets_the_headers_of_get_and_no_body() -> None:
    """Over a real connection the 503 for HEAD says the length of the body and leaves it out."""

    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    app = FastAPI(routes=[Route("/page", page)])
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    with uvicorn_server(app) as server:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            got, head = await client.get(server.http("/page")), await client.head(server.http("/page"))
    for answer in (got, head):
        del answer.headers["date"]
    assert (head.status_code, head.headers) == (503, got.headers)
    assert (head.content, got.json()) == (b"", {"detail": DETAIL})


async def test_head_without_a_route_for_it_stays_405() -> None:
    """FastAPI's GET routes do not answer HEAD, and maintenance does not change that."""
    assert (await request(behind_middleware(), "HEAD", "/items/1")).status_code == 405


# Retry-After


@pytest.mark.parametrize("guarded", [False, True])
async def test_an_end_that_the_operator_gave_becomes_retry_after(guarded: bool) -> None:
    """``until`` of ``set_maintenance_mode`` reaches clients, in another time zone as well."""
    backend = MemoryBackend()
    app = FastAPI()
    if guarded:
        configure_backend(backend)
    else:
        app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    with_endpoint(app, [Depends(maintenance_guard)] if guarded else [])
    end = datetime.now(UTC) + timedelta(seconds=90)
    for until in (end, end.astimezone(tz=None)):
        await set_maintenance_mode(True, backend, until=until)
        answer = await get(app, "/items/1")
        assert (answer.status_code, answer.json()["detail"]) == (503, DETAIL)
        assert 60 < int(answer.headers["retry-after"]) <= 90


async def test_a_block_of_code_has_no_known_end() -> None:
    """While code holds the switch on, an operator's earlier end is not promised."""
    backend = MemoryBackend()
    app = behind_middleware(enable_maintenance=None, backend=backend)
    await set_maintenance_mode(True, backend, until=datetime.now(UTC) + timedelta(seconds=90))
    async with maintenance_mode_on(backend):
        assert (await get(app, "/items/1")).headers["retry-after"] == "3600"


# The app's own answer


def as_json(request: Request) -> Response:
    return JSONResponse({"error": "maintenance"}, 503, {"Retry-After": "42"})


def as_html(request: Request) -> Response:
    return HTMLResponse("<h1>Back soon</h1>", 503, {"Retry-After": "42"})


def as_text(request: Request) -> Response:
    return PlainTextResponse("Back soon", 503, {"Retry-After": "42"})


def as_file(request: Request) -> Response:
    return FileResponse(__file__, 503, {"Retry-After": "42"}, media_type="text/x-python")


def as_stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"Back "
        yield b"soon"

    return StreamingResponse(pieces(), 503, {"Retry-After": "42"}, "text/plain")


def as_sync_stream(request: Request) -> Response:
    def pieces() -> Iterator[str]:
        yield from ("Back ", "soon")

    return StreamingResponse(pieces(), 503, {"Retry-After": "42"}, "text/plain")


SHAPES: dict[Handler, tuple[str, bytes]] = {
    as_json: ("application/json", b'{"error":"maintenance"}'),
    as_html: ("text/html; charset=utf-8", b"<h1>Back soon</h1>"),
    as_text: ("text/plain; charset=utf-8", b"Back soon"),
    as_file: ("text/x-python; charset=utf-8", Path(__file__).read_bytes()),
    as_stream: ("text/plain; charset=utf-8", b"Back soon"),
    as_sync_stream: ("text/plain; charset=utf-8", b"Back soon"),
}


@every_face
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("handler", SHAPES)
async def test_any_response_of_a_handler_is_the_answer(face: Face, is_async: bool, handler: Handler) -> None:
    """Every shape of response is sent as it is, with its own Retry-After, from sync and async handlers."""

    async def in_async(request: Request) -> Response:
        response: Response = handler(request)
        return response

    answer = await get(face(in_async if is_async else handler), "/items/1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "42")
    assert (answer.headers["content-type"], answer.content) == SHAPES[handler]


@every_face
async def test_a_redirect_is_an_answer(face: Face) -> None:
    """A handler may choose another status altogether."""

    def elsewhere(request: Request) -> Response:
        return RedirectResponse("https://status.example/", 302)

    answer = await get(face(elsewhere), "/items/1")
    assert (answer.status_code, answer.headers["location"]) == (302, "https://status.example/")


@every_face
async def test_a_handler_can_negotiate_by_accept(face: Face) -> None:
    """The handler sees the request's headers."""

    def negotiated(request: Request) -> Response:
        return as_html(request) if "text/html" in request.headers["accept"] else as_json(request)

    app = face(negotiated)
    page = await get(app, "/items/1", headers={"Accept": "text/html,*/*;q=0.8"})
    data = await get(app, "/items/1", headers={"Accept": "application/json"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert data.headers["content-type"] == "application/json"


@every_face
async def test_a_template_can_use_the_request_and_the_apps_urls(face: Face, tmp_path: Path) -> None:
    """FastAPI's Jinja2Templates work: the request, the app's URLs and escaping included."""
    (tmp_path / "maintenance.html").write_text(
        "<p>{{ request.query_params['q'] }} <a href={{ request.app.url_path_for('read_item', item_id=2) }}>", "utf-8"
    )
    templates = Jinja2Templates(tmp_path)

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "maintenance.html", status_code=503)

    answer = await get(face(page), "/items/1?q=<b>")
    assert answer.status_code == 503
    assert answer.text == "<p>&lt;b&gt; <a href=/items/2>"


@every_face
async def test_a_message_can_depend_on_the_path(face: Face) -> None:
    """The handler sees where the request was going."""

    def message(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} {request.url.path} later", 503)

    app = face(message)
    assert (await get(app, "/items/1")).text == "GET /items/1 later"
    assert (await request(app, "POST", "/items/2")).text == "POST /items/2 later"


@every_face
async def test_a_handler_can_read_the_body(face: Face) -> None:
    """What the client sent is there for the handler of a refused request."""

    async def echo(request: Request) -> Response:
        return Response(await request.body(), 503)

    assert (await request(face(echo), "POST", "/items/1", content=b"x" * 100_000)).content == b"x" * 100_000


@every_face
async def test_the_background_task_of_a_response_runs(face: Face) -> None:
    """What a response has to do after it was sent is done."""
    done: list[str] = []

    def noted(request: Request) -> Response:
        return PlainTextResponse("later", 503, background=BackgroundTask(done.append, request.url.path))

    assert (await get(face(noted), "/items/1")).text == "later"
    assert done == ["/items/1"]


@every_face
async def test_one_response_can_answer_many_requests(face: Face) -> None:
    """A handler may return the same response object again and again, at the same time."""
    response = PlainTextResponse("later", 503)
    app = face(lambda request: response)
    answers = await asyncio.gather(*(get(app, "/items/1") for _ in range(20)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(503, "later")}


async def test_the_guards_own_answer_stands_above_the_middlewares() -> None:
    """A guard without a handler of its own answers with the middleware's, one with one answers with that."""
    configure_backend("memory", name="billing", initial=True)
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, response_handler=as_text)
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    app.get("/plain", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: None)
    app.get("/own", dependencies=[Depends(MaintenanceGuard("billing", response_handler=as_json))])(lambda: None)
    assert (await get(app, "/plain")).text == "Back soon"
    assert (await get(app, "/own")).json() == {"error": "maintenance"}


async def test_forced_on_endpoints_get_the_apps_own_answer() -> None:
    """An endpoint that is closed for good is answered by the same handler."""
    app = behind_middleware(as_text, enable_maintenance=False)
    app.get("/closed")(force_maintenance_mode_on(lambda: None))
    assert (await get(app, "/closed")).text == "Back soon"


# Kinds of handlers


class Called:
    """Handlers of every kind, which note where they run."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None

    def sync_method(self, request: Request) -> Response:
        self.thread = threading.current_thread()
        return as_text(request)

    async def async_method(self, request: Request) -> Response:
        return self.sync_method(request)

    def sync_with_word(self, word: str, request: Request, *, other: str) -> Response:
        assert (word, other) == ("a", "b")
        return self.sync_method(request)

    async def async_with_word(self, word: str, request: Request, *, other: str) -> Response:
        return self.sync_with_word(word, request, other=other)


class SyncObject(Called):
    """A callable object."""

    def __call__(self, request: Request) -> Response:
        return self.sync_method(request)


class AsyncObject(Called):
    """A callable object whose call is a coroutine."""

    async def __call__(self, request: Request) -> Response:
        return self.sync_method(request)


def off_the_loop(called: Called) -> dict[str, Handler]:
    def function(request: Request) -> Response:
        return called.sync_method(request)

    return {
        "function": function,
        "method": called.sync_method,
        "partial": partial(called.sync_with_word, "a", other="b"),
        "partial of partial": partial(partial(called.sync_with_word, "a"), other="b"),
    }


def on_the_loop(called: Called) -> dict[str, Handler]:
    async def function(request: Request) -> Response:
        return await called.async_method(request)

    def function_that_returns_an_awaitable(request: Request) -> Awaitable[Response]:
        return called.async_method(request)

    return {
        "function": function,
        "sync function that returns an awaitable": function_that_returns_an_awaitable,
        "method": called.async_method,
        "partial": partial(called.async_with_word, "a", other="b"),
        "partial of partial": partial(partial(called.async_with_word, "a"), other="b"),
    }


@pytest.mark.parametrize("as_exempt", [False, True])
@pytest.mark.parametrize("kind", off_the_loop(Called()))
async def test_sync_handlers_run_off_the_event_loop(kind: str, as_exempt: bool) -> None:
    """A blocking handler holds up nobody else."""
    called = Called()
    await call_handler(off_the_loop(called)[kind], as_exempt=as_exempt)
    assert called.thread is not None
    assert called.thread is not threading.current_thread()


@pytest.mark.parametrize("as_exempt", [False, True])
@pytest.mark.parametrize("kind", on_the_loop(Called()))
async def test_async_handlers_run_on_the_event_loop(kind: str, as_exempt: bool) -> None:
    """An async handler may use what belongs to the app's event loop."""
    called = Called()
    await call_handler(on_the_loop(called)[kind], as_exempt=as_exempt)
    assert called.thread is threading.current_thread()


@pytest.mark.parametrize("as_exempt", [False, True])
async def test_callable_objects_are_handlers(as_exempt: bool) -> None:
    """Objects and partials of objects are called like functions, where their ``__call__`` belongs."""
    for make, is_on_loop in ((SyncObject, False), (AsyncObject, True)):
        for is_wrapped in (False, True):
            called = make()
            await call_handler(partial(called) if is_wrapped else called, as_exempt=as_exempt)
            assert (called.thread is threading.current_thread()) is is_on_loop


async def call_handler(handler: Handler, *, as_exempt: bool) -> None:
    """Have a handler called as one of the two, and check that what it returns counts."""
    app = behind_middleware(exempt_handler=handler) if as_exempt else behind_middleware(handler)
    answer = await get(app, "/items/1")
    assert (answer.status_code, answer.text) == ((200, '{"item":1}') if as_exempt else (503, "Back soon"))


async def test_a_blocking_handler_does_not_stop_other_requests() -> None:
    """While one sync handler waits, another request is answered, which is what the first one waits for."""
    answered = threading.Event()

    def waits(request: Request) -> Response:
        if request.url.path == "/items/1":
            assert answered.wait(SECONDS)
        return as_text(request)

    app = behind_middleware(waits)

    async def second() -> None:
        assert (await get(app, "/items/2")).text == "Back soon"
        answered.set()

    first, _ = await asyncio.gather(get(app, "/items/1"), second())
    assert first.text == "Back soon"


# Handlers that fail


def raises(request: Request) -> Response:
    raise LookupError("the page is gone")


async def raises_in_async(request: Request) -> Response:
    raise LookupError("the page is gone")


def raises_http_error(request: Request) -> Response:
    raise HTTPException(500, "the page is gone")


@every_face
@pytest.mark.parametrize("handler", [raises, raises_in_async, raises_http_error])
async def test_a_handler_that_raises_leaves_the_default_answer(
    face: Face, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    """No bug of a handler hides the maintenance behind a 500; what it raised is logged."""
    assert is_default(await get(face(handler), "/items/1"))
    error = HTTPException if handler is raises_http_error else LookupError
    assert "response_handler failed" in traceback_of(caplog, error)
    assert "the page is gone" in caplog.text


@every_face
@pytest.mark.parametrize("returned", [None, "later", {"detail": "later"}, 503, b"later", Response])
async def test_a_handler_that_returns_no_response_leaves_the_default_answer(
    face: Face, returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what was returned, and what was sent instead."""
    assert is_default(await get(face(lambda request: returned), "/items/1"))
    (record,) = [record for record in caplog.records if record.name == "fastapi_maintenance"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"response_handler returned {returned!r}, which is no Starlette Response: "
        "the default maintenance response is sent instead"
    )


@every_face
async def test_a_file_that_is_missing_leaves_the_default_answer(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    """What fails when it is to be sent, before anything was, is no 500 either."""
    assert is_default(await get(face(lambda request: FileResponse("/nonexistent/page.html", 503)), "/items/1"))
    assert "could not be sent" in traceback_of(caplog, RuntimeError)
    assert "/nonexistent/page.html" in caplog.text


@every_face
async def test_a_file_that_is_removed_between_two_requests_leaves_the_default_answer(
    face: Face, tmp_path: Path
) -> None:
    """Each request is answered by what is there then."""
    page = tmp_path / "page.html"
    page.write_text("later", "utf-8")
    app = face(lambda request: FileResponse(page, 503))
    assert (await get(app, "/items/1")).text == "later"
    page.unlink()
    assert is_default(await get(app, "/items/1"))


async def test_a_response_that_fails_after_its_start_is_not_started_again() -> None:
    """What was raised reaches the server, which breaks the connection off: half an answer isn't sold as a whole."""

    def broken(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"ba"
            raise LookupError("no more")

        return StreamingResponse(pieces(), 503)

    sent: list[str] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with pytest.raises(Exception) as caught:  # noqa: PT011 - older Starlettes raise a group
        await behind_middleware(broken)(scope_of("/items/1"), receive, send)
    assert "no more" in "".join(traceback.format_exception(caught.value))
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_client_sees_that_an_answer_broke_off() -> None:
    """Over a real connection, a response that fails after its start is no complete answer."""

    def broken(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"ba"
            raise LookupError("no more")

        return StreamingResponse(pieces(), 503)

    with uvicorn_server(behind_middleware(broken)) as server:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.http("/items/1"))


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("face", ["middleware", "guard", "both"])
async def test_an_exempt_handler_that_raises_exempts_nobody(
    face: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of the handler opens nothing; what it raised is logged."""

    def broken(request: Request) -> bool:
        raise LookupError("no such tester")

    async def broken_in_async(request: Request) -> bool:
        raise LookupError("no such tester")

    handler = broken_in_async if is_async else broken
    configure_backend("memory", name="billing", initial=True)
    app = FastAPI()
    if face != "guard":
        app.add_middleware(
            MaintenanceModeMiddleware,
            enable_maintenance=None if face == "both" else True,
            exempt_handler=handler,
        )
    guard = MaintenanceGuard("billing", exempt_handler=handler if face == "guard" else None)
    with_endpoint(app, [] if face == "middleware" else [Depends(guard)])
    assert is_default(await get(app, "/items/1"))
    assert "exempt_handler failed: GET /items/1 is not exempt" in traceback_of(caplog, LookupError)
    assert "no such tester" in caplog.text


async def test_handlers_are_not_called_for_what_passes_anyway() -> None:
    """Neither handler sees a request that is not refused, nor the exempt handler one that nothing opens."""
    asked: list[str] = []

    def note(request: Request) -> bool:
        asked.append(request.url.path)
        return False

    app = behind_middleware(as_text, enable_maintenance=False, exempt_handler=note)
    app.get("/closed")(force_maintenance_mode_on(lambda: None))
    assert (await get(app, "/items/1")).status_code == 200
    assert (await get(app, "/closed")).status_code == 503
    under = behind_middleware(as_text, exempt_handler=note)
    assert (await get(under, "/none")).status_code == 404
    assert (await request(under, "DELETE", "/items/1")).status_code == 405
    assert asked == []


@pytest.mark.parametrize(("answer", "status"), [(True, 200), (False, 503), (1, 200), (0, 503), (None, 503)])
async def test_an_exempt_handlers_answer_counts_by_its_truth(answer: Any, status: int) -> None:
    """Forgetting to return something exempts nobody."""
    app = behind_middleware(exempt_handler=lambda request: answer)
    assert (await get(app, "/items/1")).status_code == status


# Subclasses


async def test_a_subclass_can_change_the_answer() -> None:
    """What ``super().dispatch`` returns takes headers and cookies."""

    class Marked(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response = await super().dispatch(request, call_next)
            if response.status_code == 503:
                response.headers["x-retry"] = "yes"
                response.set_cookie("seen", "1")
            return response

    app = with_endpoint(FastAPI())
    app.add_middleware(Marked, enable_maintenance=True)
    answer = await get(app, "/items/1")
    assert is_default(answer)
    assert (answer.headers["x-retry"], answer.cookies["seen"]) == ("yes", "1")


async def test_a_file_is_sent_as_an_endpoint_would_send_it() -> None:
    """The app's own answer uses what the server offers, such as sending a file by its path."""

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await as_file(Request(scope))(scope, receive, send)

    offers: list[dict[str, Any]] = [{}, {"http.response.pathsend": {}}]
    for extensions in offers:
        sent = []
        for app in (bare, behind_middleware(as_file)):
            scope = scope_of("/items/1", extensions=extensions)
            answer = await call(app, scope, {"type": "http.request"}, {"type": "http.disconnect"})
            sent.append([message["type"] for message in answer.sent])
        assert sent[0] == sent[1]


async def test_a_subclass_can_change_the_status() -> None:
    """What ``super().dispatch`` returns is a response like any other: its attributes can be set."""
    done: list[int] = []

    class Changed(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response = await super().dispatch(request, call_next)
            assert isinstance(response, Response)
            response.status_code = 429
            response.background = BackgroundTask(done.append, 1)
            return response

    app = with_endpoint(FastAPI())
    app.add_middleware(Changed, enable_maintenance=True)
    assert (await get(app, "/items/1")).status_code == 429
    assert done == [1]


# CORS

ORIGIN = "https://shop.example"


def with_cors(*, outside: bool) -> FastAPI:
    app = with_endpoint(FastAPI())
    if outside:
        app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_methods=["*"])
    if not outside:
        app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    return app


@pytest.mark.parametrize("outside", [True, False])
async def test_the_503_can_be_read_by_a_browser_only_with_cors_outside(outside: bool) -> None:
    """``CORSMiddleware`` that is added after ours stands outside and sees the 503; one added before does not."""
    answer = await get(with_cors(outside=outside), "/items/1", headers={"Origin": ORIGIN})
    assert is_default(answer)
    assert answer.headers.get("access-control-allow-origin") == (ORIGIN if outside else None)


@pytest.mark.parametrize("outside", [True, False])
async def test_a_preflight_passes_in_either_order(outside: bool) -> None:
    """``CORSMiddleware`` answers the preflight; without its 200 a browser would report a network error."""
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = await request(with_cors(outside=outside), "OPTIONS", "/items/1", headers=headers)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_a_guards_503_has_cors_headers() -> None:
    """A guard stands inside of everything, so its refusal is readable in any case."""
    app = behind_guard()
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])
    answer = await get(app, "/items/1", headers={"Origin": ORIGIN})
    assert is_default(answer)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_seconds_that_the_operator_gave_become_retry_after() -> None:
    """Until an end is given, which says more."""
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, answer=Answer(retry_after=10))

    @app.get("/x")
    async def x() -> None: ...

    state = await change_mode(True, backend, reason="moving", retry_after=77)
    assert (state.version, state.retry_after) == (1, 77)
    assert (await get(app, "/x")).headers["retry-after"] == "77"
    await change_mode(True, backend, retry_after=77, until=datetime.now(UTC) + timedelta(seconds=600))
    assert 580 < int((await get(app, "/x")).headers["retry-after"]) <= 600
    await change_mode(True, backend)
    assert (await get(app, "/x")).headers["retry-after"] == "10"
    for wrong in (-1, 1.5, True):
        with pytest.raises(InvalidConfiguration, match="retry_after="):
            await change_mode(True, backend, retry_after=wrong)  # type: ignore[arg-type]
