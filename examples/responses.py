"""Answer in your own way during maintenance: one small app for each kind of ``response_handler``.

Run any of them under maintenance, and ask for ``/items/7`` or ``/api/items/7``::

    FASTAPI_MAINTENANCE_MODE=1 uvicorn examples.responses:html_app

A handler takes the request and returns any response of Starlette's or FastAPI's, with the status and headers that it
chooses. It may be a plain function, which runs in a thread, or an async one.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response, status
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.templating import Jinja2Templates

from fastapi_maintenance import MaintenanceModeMiddleware

PAGES = Path(__file__).parent / "pages"
RETRY_AFTER = {"Retry-After": "600"}
UNAVAILABLE = status.HTTP_503_SERVICE_UNAVAILABLE

templates = Jinja2Templates(PAGES)


def shop(response_handler: Callable[[Request], Response | Awaitable[Response]]) -> FastAPI:
    """Return a shop with a page and an API, and its own answer during maintenance."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, response_handler=response_handler)

    @app.get("/items/{item_id}")
    @app.get("/api/items/{item_id}")
    async def read_item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    return app


def as_json(_: Request) -> JSONResponse:
    """Return JSON of your own, with the time after which clients may come back."""
    return JSONResponse({"error": "maintenance", "retry_after": 600}, UNAVAILABLE, RETRY_AFTER)


def as_html(_: Request) -> HTMLResponse:
    """Return a page."""
    return HTMLResponse("<!doctype html><title>Back soon</title><h1>Back soon</h1>", UNAVAILABLE, RETRY_AFTER)


def as_template(request: Request) -> Response:
    """Return a page made of a template."""
    return templates.TemplateResponse(
        request, "maintenance.html.jinja", {"minutes": 10}, status_code=UNAVAILABLE, headers=RETRY_AFTER
    )


def as_file(_: Request) -> FileResponse:
    """Return a file; should it be missing, clients get the default answer."""
    return FileResponse(PAGES / "maintenance.html", UNAVAILABLE, RETRY_AFTER)


def as_plain_text(_: Request) -> PlainTextResponse:
    """Return a line for people with a terminal."""
    return PlainTextResponse("Back soon.\n", UNAVAILABLE, RETRY_AFTER)


def as_redirect(_: Request) -> RedirectResponse:
    """Send clients to a status page on another host; a 302 is not stored."""
    return RedirectResponse("https://status.example/", status.HTTP_302_FOUND)


async def as_stream(_: Request) -> StreamingResponse:
    """Return an answer that is made while it is sent."""

    async def lines() -> AsyncIterator[str]:
        for line in ("Back ", "soon.\n"):
            yield line

    return StreamingResponse(lines(), UNAVAILABLE, RETRY_AFTER, media_type="text/plain")


async def by_accept(request: Request) -> Response:
    """Return a page to browsers and JSON to everybody else."""
    is_browser = "text/html" in request.headers.get("accept", "")
    response = as_html(request) if is_browser else as_json(request)
    response.headers["Vary"] = "Accept"
    return response


async def by_path(request: Request) -> Response:
    """Return what suits the part of the app that was asked for."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": f"{request.url.path} is under maintenance"}, UNAVAILABLE, RETRY_AFTER)
    return HTMLResponse("<!doctype html><h1>The shop is closed until noon.</h1>", UNAVAILABLE, RETRY_AFTER)


json_app = shop(as_json)
html_app = shop(as_html)
template_app = shop(as_template)
file_app = shop(as_file)
text_app = shop(as_plain_text)
redirect_app = shop(as_redirect)
stream_app = shop(as_stream)
accept_app = shop(by_accept)
path_app = shop(by_path)
