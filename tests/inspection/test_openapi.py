"""What an app's OpenAPI schema says about maintenance, and that FastAPI's own copy never hears of it."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Security
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fastapi_maintenance import (
    Answer,
    Exemptions,
    InvalidConfiguration,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    document_maintenance,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_exception_handler,
    maintenance_guard,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from tests.support.asgi import get, request

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


def nothing() -> None:
    """Do nothing."""


def own_answer(request: Request) -> Response:
    return PlainTextResponse("later", 503)


def shop(*, dependencies: Any = (), **options: Any) -> FastAPI:
    """Return an app with routes of every kind, documented."""
    app = FastAPI(description="Sells shoes.", dependencies=[*dependencies], **options)
    app.get("/items/{item_id}")(lambda item_id: None)
    app.get("/health")(force_maintenance_mode_off(lambda: None))
    app.get("/closed")(force_maintenance_mode_on(lambda: None))
    app.get("/hidden", include_in_schema=False)(nothing)
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.post("/orders")(lambda: None)
    inner.delete("/closed")(force_maintenance_mode_on(lambda: None))
    inner.get("/open")(force_maintenance_mode_off(lambda: None))
    outer.include_router(inner)
    app.include_router(outer)
    document_maintenance(app)
    return app


def with_middleware(**options: Any) -> FastAPI:
    app = shop()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def operations(schema: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }


def blocked(app: FastAPI, status: str = "503") -> set[str]:
    """Return the operations that have the answer."""
    return {name for name, operation in operations(app.openapi()).items() if status in operation["responses"]}


EVERYTHING = {"GET /items/{item_id}", "POST /outer/inner/orders", "GET /closed", "DELETE /outer/inner/closed"}


def resolved(schema: Json, part: Json) -> Json:
    """Return what a reference leads to."""
    found: Json = schema["components"]["schemas"][part["$ref"].removeprefix("#/components/schemas/")]
    return found


# What is told of operations


async def test_every_route_that_can_be_blocked_has_the_answer() -> None:
    """Through included routers, too; what is forced off has none, what is hidden stays so."""
    app = with_middleware()
    assert blocked(app) == EVERYTHING
    described = operations(app.openapi())
    assert set(described) == EVERYTHING | {"GET /health", "GET /outer/inner/open"}
    assert described["GET /health"] == operations(app.openapi_schema or {})["GET /health"]


async def test_the_documented_answer_is_the_one_that_clients_get() -> None:
    """Status, headers and bodies of real answers fit what is told of them."""
    until = datetime.now(UTC) + timedelta(hours=1)
    backend = MemoryBackend()
    app = with_middleware(backend=backend)
    await set_maintenance_mode("read_only", backend, reason="new disks", until=until)
    app.post("/items/{item_id}")(lambda: None)
    schema = app.openapi()
    documented = operations(schema)["POST /items/{item_id}"]["responses"]["503"]
    assert set(documented["headers"]) == {"Retry-After", "Cache-Control", "X-Content-Type-Options", "Vary"}
    assert documented["headers"]["Retry-After"]["schema"] == {"type": "integer", "minimum": 0}
    assert set(documented["content"]) == {"application/json", "application/problem+json"}
    for kind, content in documented["content"].items():
        got = await request(app, "POST", "/items/1", headers={"Accept": kind})
        assert int(got.headers["retry-after"]) >= 0
        for name in ("Cache-Control", "Vary"):
            assert got.headers[name] == documented["headers"][name]["example"]
        model = resolved(schema, content["schema"])
        body = got.json()
        assert set(body) == set(model["properties"])
        assert set(model["required"]) | {"mode", "reason", "until"} == set(body)
        assert body["mode"] in model["properties"]["mode"]["enum"]
        types = {"string": str, "integer": int}
        assert all(isinstance(body[name], types[told["type"]]) for name, told in model["properties"].items())


async def test_routes_that_are_forced_on_are_marked_as_unavailable() -> None:
    """Where a list of operations shows it, in words, and for programs."""
    app = with_middleware(enable_maintenance=False)

    @app.get("/described", summary="Old report", description="Reports.")
    @force_maintenance_mode_on
    async def described() -> None: ...

    found = operations(app.openapi())
    marked = {name for name, operation in found.items() if operation.get("x-maintenance") == "forced_on"}
    assert marked == {"GET /closed", "DELETE /outer/inner/closed", "GET /described"}
    assert found["GET /described"]["summary"] == "Old report (unavailable)"
    assert found["GET /described"]["description"] == (
        "**Unavailable:** under maintenance until further notice.\n\nReports."
    )
    assert found["GET /closed"]["description"] == "**Unavailable:** under maintenance until further notice."


async def test_marks_count_as_they_are_when_the_schema_is_asked_for() -> None:
    """Also those of the whole app, and those set after the schema was made."""
    app = FastAPI()

    async def report() -> None: ...

    app.get("/report")(report)
    app.get("/other")(force_maintenance_mode_on(lambda: None))
    document_maintenance(app)
    assert blocked(app) == {"GET /report", "GET /other"}
    force_maintenance_mode_off(app)
    assert blocked(app) == {"GET /other"}
    force_maintenance_mode_on(report)
    assert operations(app.openapi())["GET /report"]["x-maintenance"] == "forced_on"


async def test_the_first_of_two_equal_routes_counts() -> None:
    """It is the one that runs, whichever the schema describes."""
    app = FastAPI()
    app.get("/report", operation_id="first")(force_maintenance_mode_off(lambda: None))
    app.get("/report", operation_id="second")(force_maintenance_mode_on(lambda: None))
    document_maintenance(app)
    assert blocked(app) == set()


async def test_exempt_paths_are_not_documented_as_blocked() -> None:
    """Unless the endpoint is forced on."""
    app = with_middleware(exemptions=Exemptions(paths=["/items/*", "/outer/**", "/closed"]))
    assert blocked(app) == {"GET /closed", "DELETE /outer/inner/closed"}


class Day(Convertor[str]):
    """A convertor of the app's own, of two segments."""

    regex = "[0-9]+/[0-9]+"

    def convert(self, value: str) -> str:
        """Return it."""
        return value

    def to_string(self, value: str) -> str:
        """Return it."""
        return value


register_url_convertor("day", Day())


@pytest.mark.parametrize(
    ("route", "covering", "covering_some"),
    [
        (
            "/hooks/{x}",
            ["/hooks/*", "/hooks/**", "/*/*", "/**", "/hooks/**/*"],
            ["/hooks/a", "/hooks/a*", "/*"],
        ),
        (
            "/hooks/{x:int}/log",
            ["/hooks/*/log", "/hooks/**", "/**/log"],
            ["/hooks/*", "/hooks/1/log"],
        ),
        ("/v{x}.json", ["/v*", "/*.json", "/v*.json", "/*"], ["/v1*", "/v1.json", "/*a"]),
        ("/files/{p:path}", ["/files/**", "/**"], ["/files/*", "/files/*/**", "/files/*/*", "/files"]),
        ("/files/{p:path}/edit", ["/files/**/edit", "/files/**"], ["/files/*/edit", "/files/**/a/edit"]),
        ("/{p:path}/to/{q:path}", ["/**/to/**", "/**"], ["/*/to/**", "/**/to/*"]),
        ("/days/{d:day}", ["/days/**"], ["/days/*", "/days/*/*"]),
    ],
)
async def test_exempt_paths_cover_routes_with_parameters(
    route: str, covering: list[str], covering_some: list[str]
) -> None:
    """What covers only some of a route's paths leaves others that are answered with 503."""
    for patterns, is_documented in ((covering, False), (covering_some, True)):
        for pattern in patterns:
            app = FastAPI()
            app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(paths=[pattern]))
            router = APIRouter()
            router.get(route)(nothing)
            app.include_router(router)
            document_maintenance(app)
            assert bool(blocked(app)) is is_documented, pattern


async def test_exempt_paths_may_cover_a_route_together() -> None:
    app = FastAPI()
    paths = ["/files", "/files/*", "/files/*/*/**"]
    app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(paths=paths))
    app.get("/files/{p:path}")(nothing)
    document_maintenance(app)
    assert blocked(app) == set()


async def test_an_answer_of_the_route_itself_stays() -> None:
    """What the app's author says of 503 is left alone."""
    app = with_middleware()
    app.get("/report", responses={503: {"description": "No paper"}})(nothing)
    assert operations(app.openapi())["GET /report"]["responses"]["503"] == {"description": "No paper"}


async def test_what_the_route_itself_says_of_maintenance_stays() -> None:
    """Nothing is added to what its author wrote."""
    app, forced = with_middleware(), force_maintenance_mode_on(lambda: None)
    app.get("/report", summary="Report", openapi_extra={"x-maintenance": "until spring"})(forced)
    described = operations(app.openapi())["GET /report"]
    assert (described["x-maintenance"], described["summary"]) == ("until spring", "Report")


async def test_the_configured_answer_is_documented() -> None:
    """Its status and its headers."""
    app = with_middleware(answer=Answer(status=502, headers={"x-team": "shop"}))
    assert blocked(app) == set()
    assert blocked(app, "502") == EVERYTHING
    documented = operations(app.openapi())["GET /closed"]["responses"]["502"]
    assert documented["headers"]["x-team"] == {"schema": {"type": "string"}, "example": "shop"}


async def test_nothing_is_told_of_the_body_of_the_apps_own_answer() -> None:
    """Only the handler knows what it is."""
    app = with_middleware(response_handler=own_answer)
    assert blocked(app) == EVERYTHING
    assert "content" not in operations(app.openapi())["GET /closed"]["responses"]["503"]


@pytest.mark.parametrize("version", ["3.1.0", "3.0.2"])
async def test_models_of_the_app_keep_their_names(version: str) -> None:
    """One that is called as ours stands beside it."""

    class MaintenanceAnswer(BaseModel):
        minutes: int

    app = FastAPI()
    app.openapi_version = version
    app.get("/report")(lambda: None)
    document_maintenance(app)
    assert set(app.openapi()["components"]["schemas"]) == {"MaintenanceAnswer", "MaintenanceProblem"}
    app.get("/own", response_model=MaintenanceAnswer)(lambda: None)
    app.openapi_schema = None
    schema = app.openapi()
    models = schema["components"]["schemas"]
    assert set(models["MaintenanceAnswer"]["properties"]) == {"minutes"}
    content = operations(schema)["GET /report"]["responses"]["503"]["content"]
    assert set(resolved(schema, content["application/json"]["schema"])["properties"]) == {
        "detail",
        "mode",
        "reason",
        "until",
    }


# Who can block


async def test_with_guards_alone_only_guarded_routes_are_documented() -> None:
    """On the route, the router, at any depth of dependencies."""

    def signed_in(_: None = Depends(MaintenanceGuard("accounts"))) -> None: ...

    app = FastAPI()
    router = APIRouter(prefix="/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
    router.get("/invoices")(lambda: None)
    router.get("/open")(force_maintenance_mode_off(lambda: None))
    app.include_router(router)
    app.get("/me", dependencies=[Security(signed_in)])(lambda: None)
    app.get("/free")(lambda: None)
    app.get("/closed")(force_maintenance_mode_on(lambda: None))
    document_maintenance(app)
    assert blocked(app) == {"GET /billing/invoices", "GET /me"}
    documented = operations(app.openapi())["GET /me"]["responses"]["503"]
    assert set(documented["content"]) == {"application/json"}
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    documented = operations(app.openapi())["GET /me"]["responses"]["503"]
    assert set(documented["content"]) == {"application/json", "application/problem+json"}


@pytest.mark.parametrize("own", [None, HTTPException, 502, 404])
async def test_with_the_middleware_a_guards_refusal_has_both_forms_unless_the_app_answers(own: Any) -> None:
    """As the guard itself finds out."""

    async def answer(request: Request, exc: Exception) -> Response:
        return own_answer(request)

    app = FastAPI(exception_handlers={} if own is None else {own: answer})
    app.add_middleware(MaintenanceModeMiddleware)
    guard = MaintenanceGuard("billing", answer=Answer(status=502))
    app.get("/me", dependencies=[Depends(guard)])(lambda: None)
    document_maintenance(app)
    kinds = {"application/json"} if own in (HTTPException, 502) else {"application/json", "application/problem+json"}
    assert set(operations(app.openapi())["GET /me"]["responses"]["502"]["content"]) == kinds


async def test_a_guard_of_the_app_covers_it() -> None:
    """As a dependency of everything."""
    assert blocked(shop(dependencies=[Depends(maintenance_guard)])) == EVERYTHING


async def test_it_can_be_said_that_a_middleware_stands_around() -> None:
    """For a mounted app with guards; without any, it is taken for granted."""
    assert blocked(shop()) == EVERYTHING
    for whole_app, expected in ((None, {"GET /me"}), (False, {"GET /me"}), (True, {"GET /me", "GET /free"})):
        app = FastAPI()
        app.get("/me", dependencies=[Depends(maintenance_guard)])(lambda: None)
        app.get("/free")(lambda: None)
        document_maintenance(app, whole_app=whole_app)
        assert blocked(app) == expected


async def test_middleware_is_found_however_it_was_added() -> None:
    """At construction, as a subclass, with positional arguments, behind other middleware."""

    class Mine(MaintenanceModeMiddleware):
        """A subclass."""

    def plain(app: Any) -> Any:
        return app

    answer = Answer(status=502)
    guarded = {"dependencies": [Depends(MaintenanceGuard("billing"))]}
    for middleware in (
        Middleware(MaintenanceModeMiddleware, answer=answer),
        Middleware(Mine, None, None, None, None, answer=answer),
    ):
        app = FastAPI(middleware=[Middleware(plain), middleware])
        app.get("/free")(lambda: None)
        app.get("/me", **guarded)(lambda: None)  # type: ignore[arg-type]
        document_maintenance(app)
        assert blocked(app, "502") == {"GET /free", "GET /me"}


async def test_a_guards_own_answer_stands_beside_the_middlewares() -> None:
    """Both can happen, so both are told; a handler belongs to whose it is."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, response_handler=own_answer)
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    own = MaintenanceGuard("billing", answer=Answer(status=502), exemptions=Exemptions(paths=["/exempt"]))
    for path in ("/me", "/exempt"):
        app.get(path, dependencies=[Depends(own)])(lambda: None)
    document_maintenance(app)
    found = operations(app.openapi())
    assert "content" not in found["GET /me"]["responses"]["503"]
    assert "content" in found["GET /me"]["responses"]["502"]
    assert set(found["GET /exempt"]["responses"]) == {"200", "503"}


# When


async def test_nothing_is_read_before_the_schema_is_asked_for() -> None:
    """Routes and middleware that come after the call are documented as well."""
    app = FastAPI()
    document_maintenance(app)
    assert app.openapi_schema is None
    router = APIRouter()
    app.include_router(router, prefix="/late")
    router.get("/report")(lambda: None)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    assert (await get(app, "/late/report")).status_code == (503 if blocked(app) else 404)


async def test_fastapis_own_schema_stays_as_fastapi_made_it() -> None:
    """What is kept in ``app.openapi_schema`` knows nothing of maintenance, whatever the mode was meanwhile."""
    app = with_middleware(enable_maintenance=True)
    app.openapi()
    kept = copy.deepcopy(app.openapi_schema)
    assert "aintenance" not in json.dumps(kept)
    first, second = app.openapi(), app.openapi()
    assert first == second
    assert "aintenance" in json.dumps(first)
    assert app.openapi_schema == kept


async def test_calling_it_twice_is_calling_it_once() -> None:
    """Nothing is told twice."""
    app = with_middleware()
    once = app.openapi()
    document_maintenance(app)
    assert app.openapi() == once


async def test_a_schema_of_the_apps_own_is_extended() -> None:
    """The documented way to customize: a function in place of ``app.openapi``, set before."""
    app = FastAPI()
    app.get("/report")(lambda: None)
    app.get("/left-out")(lambda: None)

    def own() -> Json:
        schema = get_openapi(title="Own", version="1", routes=app.routes)
        del schema["paths"]["/left-out"]
        schema["paths"]["/report"]["parameters"] = []
        schema["paths"]["/elsewhere"] = {"get": {"responses": {}}}
        return schema

    app.openapi = own  # type: ignore[method-assign]
    document_maintenance(app)
    schema = app.openapi()
    assert "503" in schema["paths"]["/report"]["get"]["responses"]
    assert schema["paths"]["/report"]["parameters"] == []
    assert schema["paths"]["/elsewhere"] == {"get": {"responses": {}}}


async def test_an_empty_schema_stays_empty() -> None:
    """No models for nobody, and no error without the usual parts."""
    app = FastAPI()
    document_maintenance(app)
    assert app.openapi() == app.openapi_schema
    app.openapi_schema = {"openapi": "3.1.0"}
    assert app.openapi()["openapi"] == "3.1.0"


@pytest.mark.parametrize("app", [None, APIRouter(), FastAPI])
async def test_only_a_fastapi_app_can_be_documented(app: Any) -> None:
    """Said at once, with what was given."""
    with pytest.raises(InvalidConfiguration, match="document_maintenance: app must be a FastAPI app, got "):
        document_maintenance(app)


# The banner


async def test_the_docs_page_shows_a_banner_while_the_mode_is_on() -> None:
    """In the description of the schema that the docs page loads, and gone with the mode."""
    backend = MemoryBackend()
    app = with_middleware(backend=backend)
    assert (await get(app, "/openapi.json")).json()["info"]["description"] == "Sells shoes."
    until = datetime(2080, 1, 1, 12, 30, tzinfo=UTC)
    for mode, words in {
        MaintenanceMode.ON: "Under maintenance",
        MaintenanceMode.READ_ONLY: "Read-only for maintenance",
    }.items():
        await set_maintenance_mode(mode, backend, reason="new disks", until=until)
        assert (await get(app, "/docs")).status_code == 200
        description = (await get(app, "/openapi.json")).json()["info"]["description"]
        assert description == f"> **{words}.** Expected back: 2080-01-01 12:30 UTC. new disks\n\nSells shoes."
    await set_maintenance_mode(False, backend)
    assert (await get(app, "/openapi.json")).json()["info"]["description"] == "Sells shoes."
    async with maintenance_mode_on(backend, reason="migrating"):
        description = (await get(app, "/openapi.json")).json()["info"]["description"]
        assert description == "> **Under maintenance.** migrating\n\nSells shoes."


async def test_an_app_without_a_description_gets_one() -> None:
    """The banner alone; nothing of the app is left out."""
    app = FastAPI(title="Shop")
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    document_maintenance(app)
    info = (await get(app, "/openapi.json")).json()["info"]
    assert info == {"title": "Shop", "version": "0.1.0", "description": "> **Under maintenance.**"}


async def test_the_banner_is_that_of_the_middleware_around() -> None:
    """A mounted app has the switch of the app that it is mounted in."""
    outer, inner = FastAPI(), FastAPI()
    document_maintenance(inner)
    outer.mount("/inner", inner)
    outer.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    assert "description" not in inner.openapi()["info"]
    assert (await get(outer, "/inner/openapi.json")).json()["info"]["description"] == "> **Under maintenance.**"


async def test_switches_of_guards_have_banners_of_their_own() -> None:
    """Named, so that readers know which part it is."""
    configure_backend("memory", name="billing", initial=True)
    configure_backend("memory", name="accounts")
    app = FastAPI()
    for name in ("billing", "accounts"):
        app.get(f"/{name}", dependencies=[Depends(MaintenanceGuard(name))])(lambda: None)
    document_maintenance(app)
    assert app.openapi()["info"]["description"] == "> **Under maintenance (billing).**"
    configure_backend("memory", initial=True)
    assert app.openapi()["info"]["description"] == ("> **Under maintenance.**\n\n> **Under maintenance (billing).**")


async def test_the_banner_knows_what_takes_io_to_know() -> None:
    """A user's own backend is asked by the middleware on the way to the schema."""

    class Own(BaseStateBackend):
        value = True

        async def get_value(self) -> bool:
            return self.value

        async def set_value(self, value: bool) -> None:
            self.value = value

    backend = Own()
    app = with_middleware(backend=backend)
    assert (await get(app, "/openapi.json")).json()["info"]["description"].startswith("> **Under maintenance.**")
    backend.value = False
    assert (await get(app, "/openapi.json")).json()["info"]["description"] == "Sells shoes."


async def test_a_reason_is_text_to_the_docs_pages() -> None:
    """Neither HTML, nor Markdown, nor more than one line: docs pages would take it for what it looks like."""
    backend = MemoryBackend()
    app = with_middleware(backend=backend)
    reason = (
        "<img src=x onerror=alert(1)>\r\n\r\n# Big\n[link](javascript:alert(1)) **bold** _it_ `code` ~x~ &lt; |\\\0"
    )
    await set_maintenance_mode(MaintenanceMode.ON, backend, reason=reason)
    line = app.openapi()["info"]["description"].split("\n\n")[0]
    assert line.startswith("> **Under maintenance.** &#60;img src=x onerror=alert(1)&#62; # Big &#91;link&#93;")
    shown = line.removeprefix("> **Under maintenance.** ")
    assert not set("<>\"'\\`*_[]~|\n\r\0") & set(shown)


async def test_the_banner_tells_an_end_that_no_minute_follows() -> None:
    """``datetime.max`` is how some write for ever."""
    backend = MemoryBackend()
    await set_maintenance_mode(True, backend, until=datetime.max.replace(tzinfo=UTC))
    description = (await get(with_middleware(backend=backend), "/openapi.json")).json()["info"]["description"]
    assert "> **Under maintenance.** Expected back: 9999-12-31 23:59 UTC." in description
