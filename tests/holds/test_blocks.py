"""Blocks that hold a switch, whatever its backend: in any order, under any cancellation, and as decorators.

What becomes of holds in stores that processes share is tested in test_holds.py.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from tests.support.asgi import get
from tests.support.users_backends import Down, Slow

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
make_backend = pytest.mark.parametrize("make", [MemoryBackend, Slow])
Make = Callable[[bool], BaseStateBackend]


@both_loops
@make_backend
@pytest.mark.parametrize("stored", [True, False])
async def test_a_block_holds_its_switch_for_its_duration(make: Make, stored: bool) -> None:
    """On or off; before and after, the stored mode counts."""
    backend = make(stored)
    async with maintenance_mode_on(backend):
        assert await get_maintenance_mode(backend) is True
    assert await get_maintenance_mode(backend) is stored
    async with maintenance_mode_off(backend):
        assert await get_maintenance_mode(backend) is False
    assert await get_maintenance_mode(backend) is stored
    assert await backend.get_value() is stored


async def test_a_block_tells_its_reason() -> None:
    """To clients and colleagues, while the stored mode stays what it is."""
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, reason="migrating"):
        state = await get_maintenance_state(backend)
        assert state.mode is MaintenanceMode.OFF
        assert state.explanation_at(datetime.now(UTC))[:2] == ("migrating", None)
    assert not (await get_maintenance_state(backend)).holds


@make_backend
async def test_a_block_that_fails_lets_go_and_its_error_through(make: Make) -> None:
    """The error is the block's own."""
    backend = make(False)
    with pytest.raises(ZeroDivisionError):
        async with maintenance_mode_on(backend):
            _ = 1 / 0
    assert await get_maintenance_mode(backend) is False
    assert await backend.get_value() is False


@make_backend
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("stored", [True, False])
async def test_blocks_may_end_in_any_order(make: Make, order: tuple[int, ...], stored: bool) -> None:
    """The switch stays on until the last one leaves, and then is what it was."""
    backend = make(stored)
    blocks = [maintenance_mode_on(backend) for _ in order]
    for block in blocks:
        await block.__aenter__()
    for index in order:
        assert await get_maintenance_mode(backend) is True
        await blocks[index].__aexit__(None, None, None)
    assert await get_maintenance_mode(backend) is stored
    assert await backend.get_value() is stored


@both_loops
@make_backend
async def test_overlapping_tasks_never_open_each_others_maintenance(make: Make) -> None:
    """Many tasks enter and leave at random moments; while any is inside, the switch is on."""
    backend = make(False)
    seen: list[bool] = []

    async def work(before: int, inside: int) -> None:
        for _ in range(before):
            await anyio.lowlevel.checkpoint()
        async with maintenance_mode_on(backend):
            for _ in range(inside):
                seen.append(await get_maintenance_mode(backend))
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(work, number * 7 % 11, 1 + number * 5 % 7)
    assert seen
    assert all(seen)
    assert await get_maintenance_mode(backend) is False
    assert await backend.get_value() is False


@make_backend
async def test_an_off_block_opens_the_on_blocks_that_enclose_it(make: Make) -> None:
    """All of them, and only for its duration."""
    backend = make(True)
    async with maintenance_mode_on(backend), maintenance_mode_on(backend):
        async with maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is False
            async with maintenance_mode_on(backend):
                assert await get_maintenance_mode(backend) is True
            assert await get_maintenance_mode(backend) is False
        assert await get_maintenance_mode(backend) is True


@both_loops
@make_backend
async def test_an_off_block_does_not_open_what_other_code_closed(make: Make) -> None:
    """A block of another task is somebody else's migration."""
    backend = make(False)
    entered, leave = anyio.Event(), anyio.Event()

    async def migration() -> None:
        async with maintenance_mode_on(backend):
            entered.set()
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(migration)
        await entered.wait()
        async with maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is True
        async with maintenance_mode_on(backend), maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is True
        leave.set()
    assert await get_maintenance_mode(backend) is False


async def test_a_task_that_a_block_started_is_inside_of_it() -> None:
    """Its context is a copy of the block's, so it can open what its caller closed."""
    backend = MemoryBackend()

    async def child() -> bool:
        async with maintenance_mode_off(backend):
            return await get_maintenance_mode(backend)

    async with maintenance_mode_on(backend):
        assert await asyncio.create_task(child()) is False


async def test_a_block_that_has_ended_encloses_nothing() -> None:
    """Neither what comes after it, nor a block of another backend."""
    backend, other = MemoryBackend(), MemoryBackend()
    async with maintenance_mode_on(backend):
        pass
    outer = maintenance_mode_on(other)
    await asyncio.create_task(enter(outer))
    async with maintenance_mode_on(backend), maintenance_mode_off(other):
        assert await get_maintenance_mode(other) is True
        assert not any(hold.masks for hold in other.peek().holds.values())
    await outer.__aexit__(None, None, None)
    assert await get_maintenance_mode(other) is False


async def enter(block: Any) -> None:
    await block.__aenter__()


async def test_a_block_may_end_in_another_task_than_it_began_in() -> None:
    """Fixtures and dependencies with ``yield`` do that."""
    backend = MemoryBackend()
    block = maintenance_mode_on(backend)
    await asyncio.create_task(enter(block))
    assert await get_maintenance_mode(backend) is True
    await block.__aexit__(None, None, None)
    assert await get_maintenance_mode(backend) is False


@make_backend
@pytest.mark.parametrize(("block", "held"), [(maintenance_mode_on, True), (maintenance_mode_off, False)])
@pytest.mark.parametrize(("stored", "meanwhile"), list(itertools.product([True, False], repeat=2)))
async def test_what_an_operator_sets_during_a_block_survives_it(
    make: Make, block: Any, held: bool, stored: bool, meanwhile: bool
) -> None:
    """The block counts for its duration, the operator afterwards."""
    backend = make(stored)
    async with block(backend):
        await set_maintenance_mode(meanwhile, backend)
        assert await get_maintenance_mode(backend) is held
    assert await get_maintenance_mode(backend) is meanwhile
    assert await backend.get_value() is meanwhile


async def test_a_block_gives_itself() -> None:
    """So that ``as`` has something."""
    block = maintenance_mode_on(MemoryBackend())
    async with block as entered:
        assert entered is block


async def test_a_block_is_entered_once_at_a_time() -> None:
    """A second entry would lose the first one's hold; after its end it may be entered again."""
    backend = MemoryBackend()
    block = maintenance_mode_on(backend)
    async with block:
        with pytest.raises(RuntimeError, match="entered already; make a new maintenance_mode_on/off"):
            await block.__aenter__()
    assert await get_maintenance_mode(backend) is False
    async with block:
        assert await get_maintenance_mode(backend) is True
    with pytest.raises(RuntimeError, match="this block was never entered"):
        await block.__aexit__(None, None, None)


async def test_a_block_that_could_not_be_entered_may_be_tried_again() -> None:
    """The store was down for a moment."""

    class Flaky(Slow):
        works = False

        async def set_value(self, value: bool) -> None:
            if not self.works:
                raise ConnectionError
            await super().set_value(value)

    backend = Flaky()
    block = maintenance_mode_on(backend)
    with pytest.raises(ConnectionError):
        await block.__aenter__()
    backend.works = True
    async with block:
        assert await get_maintenance_mode(backend) is True
    assert await get_maintenance_mode(backend) is False


async def test_a_block_whose_entry_was_stored_but_not_confirmed_is_taken_back() -> None:
    """A time-out tells nothing about what the store did, and the block is not entered."""

    class LosesAnAnswer(Slow):
        loses = True

        async def set_value(self, value: bool) -> None:
            await super().set_value(value)
            if self.loses:
                self.loses = False
                raise TimeoutError

    backend = LosesAnAnswer()
    with pytest.raises(TimeoutError):
        await maintenance_mode_on(backend).__aenter__()
    assert backend.value is False
    assert await get_maintenance_mode(backend) is False


async def test_a_block_that_its_store_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """On the way in the block's code does not run; what can't be taken back is logged, and nothing is held here."""
    backend = Down()
    backend.is_down = True
    with pytest.raises(ConnectionError, match="down"):
        async with maintenance_mode_on(backend):
            raise AssertionError
    assert await get_maintenance_mode(backend) is False
    assert "could not be released" in caplog.text
    backend.is_down = False
    assert await get_maintenance_mode(backend) is False


async def test_a_block_whose_store_fails_at_its_end_says_so() -> None:
    """The error comes out of the block, with the block's own one as its context."""
    backend = Down()

    async def work() -> None:
        async with maintenance_mode_on(backend):
            backend.is_down = True
            raise ZeroDivisionError

    with pytest.raises(ConnectionError, match="down") as error:
        await work()
    assert isinstance(error.value.__context__, ZeroDivisionError)
    assert await get_maintenance_mode(backend) is False


async def test_a_store_that_fails_while_a_cancelled_block_lets_go_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The cancellation counts, and the failure is not lost either."""
    backend = Down()
    entered = asyncio.Event()

    async def work() -> None:
        async with maintenance_mode_on(backend):
            entered.set()
            await asyncio.sleep(3600)

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    task = asyncio.create_task(work())
    await entered.wait()
    backend.is_down = True
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectionError)) as error:
        await task
    told = isinstance(error.value, ConnectionError) or "down" in caplog.text
    del task, error
    gc.collect()
    assert unhandled == []
    assert told


steps = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["on", "off"])), max_size=16)


@given(st.booleans(), steps, st.booleans())
def test_blocks_in_any_interleaving_leave_the_stored_mode(
    initial: bool, steps: list[tuple[str, str]], memory: bool
) -> None:
    """Each step enters a block or leaves the one of that name; an on-block of another task always wins."""

    async def run() -> None:
        backend = MemoryBackend(initial) if memory else Slow(initial)
        inside: dict[str, Any] = {}
        for name, kind in steps:
            if name in inside:
                await asyncio.create_task(inside.pop(name)[1].__aexit__(None, None, None))
            else:
                block = maintenance_mode_on(backend) if kind == "on" else maintenance_mode_off(backend)
                inside[name] = (kind, block)
                await asyncio.create_task(enter(block))  # a context of its own: nothing encloses it
            kinds = {kind for kind, _ in inside.values()}
            assert await get_maintenance_mode(backend) is ("on" in kinds or (not kinds and initial))
        for _, block in inside.values():
            await block.__aexit__(None, None, None)
        assert await get_maintenance_mode(backend) is initial
        assert await backend.get_value() is initial

    asyncio.run(run())


# Cancellation


@make_backend
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_task_cancelled_at_any_point_leaves_nothing_held(make: Make, others: int, cancellations: int) -> None:
    """Before, while entering, inside, while leaving, and again while it leaves: the switch is what it was."""
    for ticks in range(40):
        backend, before = make(False), asyncio.all_tasks()

        async def work(backend: BaseStateBackend = backend) -> None:
            async with maintenance_mode_on(backend):
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work()) for _ in range(1 + others)]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for _ in range(cancellations):
            tasks[0].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*asyncio.all_tasks() - before)  # whatever finishes its work in the background
        assert await get_maintenance_mode(backend) is False, f"cancelled after {ticks} ticks"
        assert await backend.get_value() is False, f"cancelled after {ticks} ticks"


@both_loops
@make_backend
@pytest.mark.parametrize("others", [0, 1])
async def test_a_scope_cancelled_at_any_point_leaves_nothing_held(make: Make, others: int) -> None:
    """The same for structured cancellation, as by a time-out."""
    for ticks in range(40):
        backend = make(False)

        async def work(scope: anyio.CancelScope, backend: BaseStateBackend = backend) -> None:
            with scope:
                async with maintenance_mode_on(backend):
                    await anyio.lowlevel.checkpoint()

        scopes = [anyio.CancelScope() for _ in range(1 + others)]
        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(work, scope)
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            scopes[0].cancel()
        assert await get_maintenance_mode(backend) is False, f"cancelled after {ticks} ticks"
        assert await backend.get_value() is False, f"cancelled after {ticks} ticks"


@both_loops
async def test_a_block_lets_go_when_everything_is_cancelled() -> None:
    """The way out is shielded, also where its store takes its time."""
    backend = Slow()
    with anyio.CancelScope() as scope:
        async with maintenance_mode_on(backend):
            scope.cancel()
            await anyio.sleep_forever()
    assert backend.value is False
    assert await get_maintenance_mode(backend) is False


# Decorators


@both_loops
async def test_a_decorated_function_holds_the_switch_whenever_it_runs() -> None:
    """With its own block for each call, so that calls may overlap."""
    backend = MemoryBackend()

    @maintenance_mode_on(backend, reason="migrating")
    async def migrate(depth: int, *, label: str) -> str:
        """Migrate."""
        assert await get_maintenance_mode(backend) is True
        assert len(backend.peek().holds) >= depth
        await anyio.lowlevel.checkpoint()
        return await migrate(depth + 1, label=label) if depth < 3 else label

    assert await migrate(1, label="done") == "done"
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(run, migrate)
    assert await get_maintenance_mode(backend) is False
    assert (migrate.__name__, migrate.__doc__) == ("migrate", "Migrate.")
    assert inspect.iscoroutinefunction(migrate)
    assert list(inspect.signature(migrate).parameters) == ["depth", "label"]


async def run(migrate: Any) -> None:
    await migrate(1, label="done")


async def test_a_decorated_function_may_hold_the_switch_off() -> None:
    """Inside of a block that holds it on."""
    backend = MemoryBackend(True)

    @maintenance_mode_off(backend)
    async def check() -> bool:
        return await get_maintenance_mode(backend)

    async with maintenance_mode_on(backend):
        assert await check() is False
        assert await get_maintenance_mode(backend) is True


async def test_only_async_functions_can_be_decorated() -> None:
    """Inside a sync one, or a generator, there is nowhere to hold a switch from."""

    def function() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    for wrong in (function, generator):
        decorator: Any = maintenance_mode_on(MemoryBackend())
        with pytest.raises(TypeError, match="is not an async function"):
            decorator(wrong)


# Where they stand


async def test_a_dependency_with_yield_may_hold_a_switch() -> None:
    """It leaves its block after the endpoint, and the request itself goes on."""
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    async def held() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(maintenance_mode_on())
            yield

    @app.get("/held", dependencies=[Depends(held)])
    async def endpoint() -> bool:
        return await get_maintenance_mode()

    assert (await get(app, "/held")).json() is True
    assert await get_maintenance_mode(backend) is False


def test_a_block_that_can_not_work_is_refused_where_it_is_made() -> None:
    """Not when it is entered, which may be in the night of the migration."""

    async def migrate() -> None: ...

    with pytest.raises(InvalidConfiguration, match=r"with parentheses: @maintenance_mode_on\(\)"):
        maintenance_mode_on(migrate)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match="got 'billing'"):
        maintenance_mode_on("billing")  # type: ignore[arg-type]
    with pytest.raises(InvalidSwitchName):
        maintenance_mode_off(name="Not a name")


async def test_a_cancellation_counts_also_where_the_release_fails_after_it(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever cancelled waits for that, and must not be told of a store instead."""
    entered, letting_go, may_fail = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class FailsLater(Slow):
        async def set_value(self, value: bool) -> None:
            if not value:
                letting_go.set()
                await may_fail.wait()
                raise ConnectionError("down")
            await super().set_value(value)

    backend = FailsLater()

    async def work() -> None:
        async with maintenance_mode_on(backend):
            entered.set()

    task = asyncio.create_task(work())
    await letting_go.wait()
    assert entered.is_set()
    task.cancel()
    await asyncio.wait({task}, timeout=0.01)  # it takes note of the cancellation
    assert not task.done()
    may_fail.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert "a hold could not be released while its block was cancelled" in caplog.text
    assert "ConnectionError: down" in caplog.text
