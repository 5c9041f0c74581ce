"""Whether an object can still be reached, without the garbage collector; and which switch a call means by that."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import gc
import itertools
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fastapi_maintenance import (
    AmbiguousSwitch,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    get_maintenance_mode,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.switches.reachability import find_reachable
from fastapi_maintenance.switches.registry import registry
from tests.support.asgi import running, status

pytestmark = pytest.mark.anyio

COLLECT = gc.collect


@pytest.fixture(autouse=True)
def _nothing_collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let garbage wait, and nobody call for the collector."""
    gc.disable()

    def collect(*_: object) -> int:
        pytest.fail("a collection on the way of a call")

    with monkeypatch.context() as patch:
        patch.setattr(gc, "collect", collect)
        yield
    gc.enable()
    gc.collect()


class Node:
    """An object in a cycle, so that it waits for the collector when it is dropped."""

    def __init__(self, *held: object) -> None:
        self.me = self
        self.held = held

    def method(self) -> None: ...


def app_of(kind: type[Starlette] = FastAPI, **options: Any) -> Any:
    """Return an app with a backend of its own, and endpoints that hold it."""
    app: Any = kind()
    app.add_middleware(MaintenanceModeMiddleware, **{"backend": MemoryBackend(), **options})

    async def show(request: Any) -> Any:
        return app

    app.add_route("/other", show)
    return app


def is_reachable(reference: weakref.ref[Any]) -> bool:
    [verdict] = find_reachable([reference])
    return verdict


# What can be reached


def held_by_a_generator(one: object) -> Generator[None, None, None]:
    held = one
    yield
    print(held)


async def held_by_a_coroutine(one: object) -> None:
    await asyncio.sleep(0)
    print(one)


def generator(one: object) -> object:
    begun = held_by_a_generator(one)
    next(begun)
    return begun


def context(one: object) -> object:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
    made = contextvars.Context()
    made.run(variable.set, one)
    return made


def error(one: object) -> object:
    with pytest.raises(ValueError, match="held") as caught:
        _raise(one)
    return caught


def _raise(one: object) -> None:
    held = one
    raise ValueError(f"held: {id(held)}")


def local(one: object) -> object:
    made = threading.local()
    made.held = one
    return made


HOLDERS: dict[str, Callable[[Any], object]] = {
    "itself": lambda one: one,
    "dict": lambda one: {"a": {"b": one}},
    "node": Node,
    "chain": lambda one: functools.reduce(lambda inner, _: Node(inner), range(6), one),
    "partial": lambda one: functools.partial(print, one),
    "closure": lambda one: lambda: one,
    "default": lambda one: eval("lambda held=one: held", {"one": one}),
    "method": lambda one: one.method,
    "class": lambda one: type("Holder", (), {"held": one}),
    "module": lambda one: vars(types.ModuleType("made")).setdefault("held", [one]),
    "generator": generator,
    "coroutine": held_by_a_coroutine,
    "context": context,
    "error": error,
    "thread local": local,
    "many": lambda one: [Node(one) for _ in range(1_000)],
    "among many": lambda one: [*([number] for number in range(6_000)), one],
}
every_holder = pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)


@every_holder
@pytest.mark.filterwarnings("ignore:coroutine 'held_by_a_coroutine' was never awaited")
def test_what_is_held_can_be_reached_and_what_garbage_holds_can_not(holder: Callable[[Any], object]) -> None:
    """By a local variable; when that is gone, by a cycle that waits for the collector, or by nothing."""
    reference, cycle = _made(holder)
    assert is_reachable(reference)
    del cycle
    assert not is_reachable(reference)
    assert not is_reachable(reference)


def _made(holder: Callable[[Any], object]) -> tuple[weakref.ref[Any], Node]:
    node = Node()
    return weakref.ref(node), Node(holder(node))


@pytest.mark.parametrize("holder", [HOLDERS[name] for name in ("itself", "closure", "generator", "class")])
def test_what_a_module_or_a_running_function_or_c_code_holds_can_be_reached(
    holder: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no Python object says that it does."""
    reference, cycle = _made(holder)
    monkeypatch.setattr(sys.modules[__name__], "kept", cycle, raising=False)
    del cycle
    assert is_reachable(reference)
    monkeypatch.undo()

    reference, cycle = _made(holder)
    begun, may_end = threading.Event(), threading.Event()

    def wait(held: object) -> None:
        begun.set()
        may_end.wait(20)
        del held

    thread = threading.Thread(target=wait, args=[cycle])
    thread.start()
    begun.wait(20)
    del cycle
    assert is_reachable(reference)
    may_end.set()
    thread.join()

    reference, cycle = _made(holder)
    atexit.register(cycle.method)
    atexit_holds = weakref.ref(cycle)
    del cycle
    assert is_reachable(reference)
    atexit.unregister(atexit_holds().method)  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(8))
def test_it_agrees_with_the_collector(seed: int) -> None:
    """On objects that hold each other at random, some of them held from outside."""
    kept, references = _random_graph(random.Random(seed))
    verdicts = find_reachable(references)
    COLLECT()
    assert verdicts == [reference() is not None for reference in references]
    assert len(set(verdicts)) == 2
    del kept


def _random_graph(generator: random.Random) -> tuple[list[object], list[weakref.ref[Any]]]:
    nodes = [Node() for _ in range(60)]
    wrappers = [HOLDERS[name] for name in ("itself", "dict", "closure", "partial", "method", "class", "context")]
    for _ in range(generator.choice((30, 50, 60))):
        holder, held = generator.choices(nodes, k=2)
        holder.held += (generator.choice(wrappers)(held),)
    return [generator.choice(wrappers)(one) for one in generator.sample(nodes, 4)], [weakref.ref(one) for one in nodes]


def test_an_object_that_is_gone_can_not_be_reached() -> None:
    """Among others that can, in their order; and of none there is nothing to say."""
    here = Node()
    references: list[weakref.ref[object]] = [weakref.ref(one) for one in (here, Node.__new__(Node), here)]
    assert find_reachable(references) == [True, False, True]
    assert find_reachable([]) == []


def test_references_that_move_meanwhile_are_somebodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could move those of garbage."""
    reference, cycle = _made(lambda one: [one])
    del cycle
    search = sys.modules["fastapi_maintenance.switches.reachability"]
    referents, calls = gc.get_referents, itertools.count()

    def changing(*objects: object) -> list[Any]:
        found = referents(*objects)
        return found if next(calls) % 2 else found + [one for one in found if isinstance(one, Node)]

    monkeypatch.setattr(search.gc, "get_referents", changing)
    assert is_reachable(reference)


# Which switch is meant


def use_by_client(app: Any) -> None:
    assert TestClient(app).get("/inner/missing").status_code == 404


def use_by_client_with_lifespan(app: Any) -> None:
    with TestClient(app) as client:
        assert client.get("/missing").status_code == 404


def use_by_hand(app: Any) -> None:
    asyncio.run(status(app, "/missing"))


def use_with_error(app: Any) -> None:
    app.add_route("/error", lambda _: 1 / 0)
    try:
        TestClient(app).get("/error")
    except ZeroDivisionError as error:
        app.state.error = error


def use_within_others(app: Any) -> None:
    outer = Starlette()
    outer.mount("/inner", app)
    use_by_client(outer)


USES = [use_by_client, use_by_client_with_lifespan, use_by_hand, use_with_error, use_within_others]
every_use = pytest.mark.parametrize("use", USES)


@pytest.mark.parametrize(("use", "kind"), [*((use, FastAPI) for use in USES), (use_by_client, Starlette)])
def test_an_app_that_nobody_has_is_not_meant(use: Callable[[Any], None], kind: type[Starlette]) -> None:
    """Not one of many, collected or not: each time it is the configured switch that changes."""
    configured = configure_backend("memory")
    for number in range(4):
        app = app_of(kind)
        use(app)
        own = registry.resolve()
        assert own is not configured
        del app
        mode = number % 2 == 0
        asyncio.run(set_maintenance_mode(mode))
        assert asyncio.run(configured.get_value()) is mode
        assert asyncio.run(own.get_value()) is False


@every_use
def test_an_app_that_can_be_reached_is_meant(use: Callable[[Any], None]) -> None:
    """Although others of its kind are waiting to be collected."""
    configured = configure_backend("memory")
    for _ in range(3):
        use(app_of())
    backend = MemoryBackend()
    app = app_of(backend=backend)
    use(app)
    for _ in range(3):
        use(app_of())
    asyncio.run(set_maintenance_mode(True))
    assert backend.peek().mode is MaintenanceMode.ON
    assert configured.peek() == MemoryBackend().peek()
    other = app_of()
    use(other)
    with pytest.raises(AmbiguousSwitch) as error:
        registry.resolve()
    assert error.value.count == 2
    del app
    assert registry.resolve() is not backend
    del other
    assert registry.resolve() is configured


async def test_an_app_whose_lifespan_runs_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any search: its server has it."""
    backend = MemoryBackend()
    async with running(app_of(backend=backend)):
        with monkeypatch.context() as patch:
            patch.setattr(registry_module, "find_reachable", lambda references: [1 / 0 for _ in references])
            assert registry.resolve() is backend
            async with maintenance_mode_on():
                assert await get_maintenance_mode(backend)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
def test_an_app_whose_server_was_dropped_is_not_meant() -> None:
    """Its lifespan never ended, and never will."""
    configured = configure_backend("memory")

    def serve() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it would complain of the task
        block = running(app_of())
        loop.run_until_complete(block.__aenter__())
        assert registry.resolve() is not configured
        loop._ready.clear()  # type: ignore[attr-defined]
        loop.close()

    serve()
    assert registry.resolve() is configured


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_under_trio_an_app_that_runs_is_meant_as_well(anyio_backend: str) -> None:
    """It is searched for."""
    backend = MemoryBackend()
    app = app_of(backend=backend)
    seen: list[object] = []

    async def receive() -> dict[str, str]:
        seen.append(registry.resolve())
        return {"type": "lifespan.shutdown" if len(seen) > 1 else "lifespan.startup"}

    async def send(message: object) -> None:
        await anyio.lowlevel.checkpoint()

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert seen == [backend, backend]


registry_module = sys.modules[type(registry).__module__]
