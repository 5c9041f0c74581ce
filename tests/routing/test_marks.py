"""Marks: what can carry one, what it changes about the object (nothing), and which one counts."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from fastapi_maintenance import force_maintenance_mode_off, force_maintenance_mode_on
from fastapi_maintenance.model.decision import Mark
from fastapi_maintenance.routing import marks
from fastapi_maintenance.routing.marks import forced_on_anywhere, mark_of, marked_anywhere


class Callable_:  # noqa: N801 - a class whose objects are called
    def __call__(self) -> str:
        return "called"

    def method(self) -> str:
        return "method"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


def function() -> str:
    return "function"


def fresh() -> Any:
    """Return a function that nobody marked."""

    def endpoint(item: int = 1) -> int:
        return item

    return endpoint


@pytest.mark.parametrize("force", [force_maintenance_mode_on, force_maintenance_mode_off])
def test_a_decorator_returns_the_very_same_object(force: Any) -> None:
    """No wrapper, no other signature, no slower call."""
    endpoint = fresh()
    assert force(endpoint) is endpoint
    assert endpoint(3) == 3


def test_functions_of_every_kind_carry_marks() -> None:
    """Async, sync and lambda."""

    async def endpoint() -> None: ...

    assert mark_of(force_maintenance_mode_on(endpoint)) is Mark.ON
    assert mark_of(force_maintenance_mode_off(lambda: None)) is Mark.OFF
    assert mark_of(fresh()) is None


def test_the_last_decorator_wins() -> None:
    """Marking again replaces the mark."""
    endpoint = force_maintenance_mode_on(force_maintenance_mode_off(fresh()))
    assert mark_of(endpoint) is Mark.ON


def test_a_class_and_its_methods_carry_marks_of_their_own() -> None:
    """An ``HTTPEndpoint`` may have one on itself and another on a method."""

    @force_maintenance_mode_on
    class Page(HTTPEndpoint):
        @force_maintenance_mode_off
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("page")

        async def post(self, request: Request) -> Response:
            return PlainTextResponse("posted")

    assert (mark_of(Page), mark_of(Page.get), mark_of(Page.post)) == (Mark.ON, Mark.OFF, None)


def test_subclasses_inherit_the_mark_of_a_class() -> None:
    """Until they are marked themselves, which leaves the base alone."""

    @force_maintenance_mode_on
    class Base(HTTPEndpoint): ...

    class Derived(Base): ...

    assert mark_of(Derived) is Mark.ON
    force_maintenance_mode_off(Derived)
    assert (mark_of(Base), mark_of(Derived)) == (Mark.ON, Mark.OFF)


def test_a_callable_object_has_the_mark_of_its_call_method() -> None:
    """What runs is ``__call__``, so a mark there counts for the object, and before one on the object."""

    class Marked:
        @force_maintenance_mode_off
        def __call__(self) -> None: ...

    endpoint = Marked()
    assert mark_of(endpoint) is Mark.OFF
    force_maintenance_mode_on(endpoint)
    assert mark_of(endpoint) is Mark.OFF


def test_a_mark_on_one_object_is_not_on_its_siblings() -> None:
    """Marking an object does not mark its class."""
    one, other = Callable_(), Callable_()
    force_maintenance_mode_on(one)
    assert (mark_of(one), mark_of(other)) == (Mark.ON, None)


def test_a_bound_method_keeps_its_mark() -> None:
    """``self.method`` is a new object at each access; the mark belongs to the object and the function."""
    one, other = Callable_(), Callable_()
    bound = one.method
    assert force_maintenance_mode_on(bound) is bound
    assert (mark_of(one.method), mark_of(other.method), mark_of(one)) == (Mark.ON, None, None)
    assert (mark_of(one.of_class), mark_of(Callable_.method)) == (None, None)


def test_several_bound_methods_of_one_object_carry_marks_of_their_own() -> None:
    """The second mark leaves the first."""

    class Pages:
        def one(self) -> None: ...
        def two(self) -> None: ...
        @force_maintenance_mode_on
        def three(self) -> None: ...

    pages = Pages()
    force_maintenance_mode_on(pages.one)
    force_maintenance_mode_off(pages.two)
    assert [mark_of(pages.one), mark_of(pages.two), mark_of(pages.three)] == [Mark.ON, Mark.OFF, Mark.ON]
    force_maintenance_mode_off(pages.three)
    assert mark_of(pages.three) is Mark.OFF
    assert mark_of(Pages().three) is Mark.ON


def test_a_class_method_carries_a_mark() -> None:
    """It is bound to the class."""

    class Pages:
        @classmethod
        def one(cls) -> None: ...

    force_maintenance_mode_off(Pages.one)
    assert mark_of(Pages.one) is Mark.OFF
    assert mark_of(Pages) is None


def test_a_static_method_keeps_its_mark() -> None:
    """Whichever decorator stands first: what the class gives out is the function alone."""

    class Pages:
        @force_maintenance_mode_on
        @staticmethod
        def above() -> None: ...

        @staticmethod
        @force_maintenance_mode_on
        def below() -> None: ...

    assert (mark_of(Pages.above), mark_of(Pages.below)) == (Mark.ON, Mark.ON)


def test_a_partial_has_the_mark_of_what_it_calls() -> None:
    """Unless it is marked itself; partials of partials alike."""
    inner = force_maintenance_mode_off(fresh())
    partial = functools.partial(functools.partial(inner, 1))
    assert mark_of(partial) is Mark.OFF
    force_maintenance_mode_on(partial)
    assert (mark_of(partial), mark_of(inner)) == (Mark.ON, Mark.OFF)
    assert mark_of(functools.partial(fresh())) is None


def test_a_wrapper_has_the_mark_of_what_it_wraps() -> None:
    """Also when it was made before the mark was set."""
    inner = fresh()

    @functools.wraps(inner)
    def wrapper(*args: Any) -> Any:
        return inner(*args)

    assert mark_of(wrapper) is None
    force_maintenance_mode_on(inner)
    assert mark_of(wrapper) is Mark.ON


def test_mounted_apps_carry_marks() -> None:
    """Static files and whole apps are ASGI apps like any other."""
    files = StaticFiles(directory=".")
    app = FastAPI()
    assert force_maintenance_mode_off(files) is files
    assert force_maintenance_mode_on(app) is app
    assert (mark_of(files), mark_of(app), mark_of(StaticFiles(directory="."))) == (Mark.OFF, Mark.ON, None)


def test_an_object_that_wraps_itself_does_not_hang() -> None:
    """Wrappers are followed only so far."""
    endpoint = fresh()
    endpoint.__wrapped__ = endpoint
    assert mark_of(endpoint) is None


def test_an_object_that_has_every_attribute_has_no_mark() -> None:
    """What such an object answers is not mistaken for a mark."""

    class Anything:
        def __call__(self) -> None: ...
        def __getattr__(self, name: str) -> str:
            return name

    assert mark_of(Anything()) is None


@pytest.mark.parametrize("nothing", [None, "health", 3, ("GET", "/")])
def test_what_can_not_be_called_can_not_be_marked(nothing: Any) -> None:
    """The message says what it was, and what is needed."""
    assert mark_of(nothing) is None
    with pytest.raises(TypeError, match="endpoint must be a function, a class, another callable or an ASGI app, got "):
        force_maintenance_mode_on(nothing)


class Slotted:
    __slots__ = ()

    def __call__(self) -> None: ...

    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("carrier", "kind"),
    [(print, "builtin_function"), (Slotted(), "Slotted"), (Slotted().method, "Slotted"), (int, "type")],
)
def test_what_takes_no_attributes_is_refused_with_a_way_out(carrier: Any, kind: str) -> None:
    """A mark that is silently lost would be worse."""
    with pytest.raises(TypeError, match=f"because {kind}.* take no attributes: mark a function or functools.partial"):
        force_maintenance_mode_off(carrier)


@pytest.mark.usefixtures("nothing_marked")
def test_the_process_knows_whether_anything_was_marked() -> None:
    """So that a request costs nothing while nothing was; a refused mark does not count."""
    with pytest.raises(TypeError):
        force_maintenance_mode_on(print)
    assert (marked_anywhere(), forced_on_anywhere()) == (False, False)
    force_maintenance_mode_off(fresh())
    assert (marked_anywhere(), forced_on_anywhere()) == (True, False)
    force_maintenance_mode_on(fresh())
    assert (marked_anywhere(), forced_on_anywhere()) == (True, True)


def test_a_router_is_refused_where_fastapi_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before FastAPI 0.137 an included router leaves its routes only, so its mark would be lost."""
    monkeypatch.setattr(marks, "INCLUDED_ROUTERS_ARE_KEPT", False)
    with pytest.raises(TypeError, match=r"an APIRouter can't be marked .* mark the endpoints"):
        force_maintenance_mode_on(APIRouter())
