"""The background thread: one for the process, whatever event loops the process has."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import gc
import importlib.util
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from fastapi_maintenance.concurrency import io_thread
from tests.support.scripts import output_of

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def _thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test start and stop a thread that no other test uses."""
    monkeypatch.setattr(io_thread, "_running", None)
    monkeypatch.setattr(io_thread, "_lock", threading.Lock())
    yield
    io_thread.stop()


def threads() -> list[threading.Thread]:
    """Return the thread of this test, if it runs."""
    return [] if io_thread._running is None else [io_thread._running._thread]


async def name_of_thread() -> str:
    return threading.current_thread().name


async def for_ever(begun: threading.Event | None = None) -> None:
    if begun is not None:
        begun.set()
    await asyncio.get_running_loop().create_future()


# Running


@both_loops
async def test_coroutines_run_on_one_thread_of_their_own() -> None:
    """Under asyncio and trio, which is started by the first one."""
    assert threads() == []
    assert await io_thread.run(name_of_thread()) == "fastapi-maintenance"
    one = threads()
    assert one[0].daemon
    await io_thread.run(name_of_thread())
    assert threads() == one


def test_code_without_an_event_loop_can_wait_too() -> None:
    """By the future."""
    assert io_thread.submit(name_of_thread()).result(20) == "fastapi-maintenance"


def test_a_function_that_is_to_be_called_starts_the_thread_as_well() -> None:
    """And is called on it."""
    names: list[str] = []
    called = threading.Event()

    def call() -> None:
        names.append(threading.current_thread().name)
        called.set()

    io_thread.call_soon(call)
    assert called.wait(20)
    assert names == ["fastapi-maintenance"]


@both_loops
async def test_nothing_of_the_callers_context_comes_along() -> None:
    """A task that lives as long as the process would keep a request's headers for as long."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="empty")
    token = variable.set("a secret")
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def look() -> None:
        seen.put(variable.get())

    await io_thread.run(look())
    io_thread.call_soon(lambda: seen.put(variable.get()))
    await io_thread.run(io_thread.run_within(look(), 5))
    io_thread.caller_in_this_loop()(lambda: seen.put(variable.get()))
    io_thread.starter_in_this_loop()(look)
    found = [await anyio.to_thread.run_sync(lambda: seen.get(timeout=20)) for _ in range(5)]
    assert found == ["empty"] * 5
    variable.reset(token)


def test_every_event_loop_of_a_process_is_served() -> None:
    """One after the other, and several at the same time."""
    names: list[str] = []

    def ask() -> None:
        names.append(asyncio.run(io_thread.run(name_of_thread())))

    asking = [threading.Thread(target=ask) for _ in range(5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    ask()
    assert names == ["fastapi-maintenance"] * 6


@both_loops
async def test_what_a_coroutine_raises_comes_out_at_the_caller() -> None:
    """As it is."""
    fault = LookupError("no such switch")

    async def fail() -> None:
        raise fault

    with pytest.raises(LookupError) as error:
        await io_thread.run(fail())
    assert error.value is fault


@both_loops
async def test_a_cancelled_caller_cancels_its_coroutine() -> None:
    """Nobody wants its result any more."""
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            await for_ever(begun)
        finally:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(io_thread.run, wait())
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(ended.wait, 20)


@both_loops
async def test_a_callers_loop_is_free_while_it_waits() -> None:
    """And the thread's loop is free while the caller blocks."""
    has_ticked = threading.Event()

    async def until_ticked() -> str:
        assert await asyncio.to_thread(has_ticked.wait, 20)
        return "ticked"

    async def tick() -> None:
        for _ in range(4):
            await anyio.sleep(0.001)
        has_ticked.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        assert await io_thread.run(until_ticked()) == "ticked"
    blocked = io_thread.submit(asyncio.sleep(0.01, "beat"))
    assert blocked.result(20) == "beat"  # which is blocking code, as users have it


@both_loops
async def test_a_future_that_several_wait_for_survives_those_who_go() -> None:
    """Whoever is cancelled leaves it to the others, and what it is done with later does no harm."""
    shared: concurrent.futures.Future[None] = concurrent.futures.Future()
    finished: list[int] = []

    async def wait(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            await io_thread.wait_for(shared)
            finished.append(number)

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for number, scope in enumerate(scopes):
            tasks.start_soon(wait, number, scope)
        await anyio.sleep(0.01)
        scopes[1].cancel()
        await anyio.sleep(0.01)
        assert not shared.cancelled()
        await anyio.to_thread.run_sync(shared.set_result, None)
    assert sorted(finished) == [0, 2]
    await io_thread.wait_for(shared)


def test_a_result_that_comes_after_trio_has_ended_is_nobodys() -> None:
    """The thread does not stumble over the loop that is gone."""
    future: concurrent.futures.Future[None] = concurrent.futures.Future()

    async def give_up() -> None:
        with anyio.move_on_after(0.01):
            await io_thread.wait_for(future)

    anyio.run(give_up, backend="trio")
    future.set_result(None)


# Limits and cancellation


async def test_a_coroutine_in_time_is_not_disturbed() -> None:
    """Its result, or what it raises, is its own."""

    async def fail() -> None:
        raise LookupError

    assert await io_thread.run(io_thread.run_within(asyncio.sleep(0, "done"), 20)) == "done"
    with pytest.raises(LookupError):
        await io_thread.run(io_thread.run_within(fail(), 20))


async def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    """The message has the limit."""
    ended = threading.Event()

    async def wait() -> None:
        try:
            await for_ever()
        finally:
            ended.set()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        await io_thread.run(io_thread.run_within(wait(), 0.01))
    assert ended.is_set()


def stubborn(times: int, seen: list[int]) -> Callable[[], Any]:
    """Return a coroutine function that swallows so many cancellations."""

    async def wait() -> None:
        for number in range(times):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                seen.append(number)
        await asyncio.get_running_loop().create_future()

    return wait


async def test_a_cancellation_that_gets_lost_is_repeated() -> None:
    """Until the task has ended."""
    seen: list[int] = []
    with pytest.raises(TimeoutError):
        await io_thread.run(io_thread.run_within(stubborn(3, seen)(), 0.01))
    assert seen == [0, 1, 2]


async def test_a_bounded_coroutine_ends_with_whoever_waits_for_it() -> None:
    """Cancelled from outside as well."""
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            await for_ever(begun)
        finally:
            ended.set()

    task = asyncio.create_task(io_thread.run(io_thread.run_within(wait(), 3600)))
    await anyio.to_thread.run_sync(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await anyio.to_thread.run_sync(ended.wait, 20)


async def test_tasks_that_have_ended_need_no_cancelling() -> None:
    """There may be none at all."""

    async def cancel_all() -> bool:
        ended = asyncio.create_task(asyncio.sleep(0))
        await ended
        await io_thread.cancel_tasks([])
        await io_thread.cancel_tasks([ended])
        return ended.cancelled()

    assert await io_thread.run(cancel_all()) is False


# The end


def test_what_is_begun_while_stopping_may_end_by_itself() -> None:
    """As a driver begins to close what was cancelled."""
    begun, ended = threading.Event(), threading.Event()

    async def close() -> None:
        await asyncio.sleep(0.05)
        ended.set()

    async def work() -> None:
        try:
            await for_ever(begun)
        finally:
            kept.append(asyncio.create_task(close()))

    kept: list[asyncio.Task[None]] = []
    io_thread.submit(work())
    assert begun.wait(20)
    io_thread.stop()
    assert ended.is_set()


def test_what_is_being_stopped_starts_no_other_thread() -> None:
    """A store that is read at the end tells what it has: a new thread can't be had then, since Python 3.12."""
    called, begun = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            await for_ever(begun)
        finally:
            io_thread.call_soon(called.set)

    io_thread.submit(work())
    begun.wait(20)
    io_thread.stop()
    assert called.is_set()
    assert io_thread._running is None
    assert threads() == []


def test_stopping_ends_all_that_runs_and_the_thread() -> None:
    """Stubborn or not; the loop is closed, and nothing warns of what was left."""
    seen: list[int] = []
    ended: list[str] = []
    begun = threading.Event()

    async def wait() -> None:
        try:
            await for_ever(begun)
        finally:
            ended.append("ended")

    futures = [io_thread.submit(wait()), io_thread.submit(stubborn(2, seen)())]
    begun.wait(20)
    (thread,), running = threads(), io_thread._running
    assert running is not None
    io_thread.stop()
    assert (ended, seen) == (["ended"], [0, 1])
    assert not thread.is_alive()
    assert running._loop.is_closed()
    for future in futures:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(20)
    del futures, running
    gc.collect()


def test_after_the_end_there_may_be_another_beginning() -> None:
    """Stopping what does not run does nothing."""
    io_thread.stop()
    first = io_thread.submit(name_of_thread()).result(20)
    io_thread.stop()
    io_thread.stop()
    assert io_thread.submit(name_of_thread()).result(20) == first


def test_a_thread_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends must not wait for it without end; its loop can't be closed under it."""
    monkeypatch.setattr(io_thread, "_SECONDS_TO_STOP", 0.01)
    begun, go_on = threading.Event(), threading.Event()

    async def hang() -> None:
        begun.set()
        go_on.wait(20)

    io_thread.submit(hang())
    begun.wait(20)
    (thread,), running = threads(), io_thread._running
    assert running is not None
    io_thread.stop()
    assert thread.is_alive()
    assert not running._loop.is_closed()
    go_on.set()
    thread.join(20)
    running._loop.call_soon(running._loop.stop)
    running._loop.run_forever()  # what it had still to do
    running._loop.close()


def test_a_process_that_ends_stops_its_thread() -> None:
    """Whatever is still running, without a word."""
    code = """
import asyncio, threading
from fastapi_maintenance.concurrency import io_thread

begun = threading.Event()

async def wait():
    try:
        begun.set()
        await asyncio.sleep(3600)
    finally:
        print("ended")

io_thread.submit(wait())
begun.wait()
"""
    assert output_of(code) == "ended\n"


# Forks


FORK = """
import asyncio, os, sys, threading
from fastapi_maintenance.concurrency import io_thread

async def thread():
    return threading.get_ident()

waiting = io_thread.submit(asyncio.sleep(3600))
before = io_thread.submit(thread()).result()
resets = []
io_thread.call_after_fork(lambda: resets.append(1))
child = os.fork()
if not child:
    assert threading.active_count() == 1
    assert resets == [1]
    assert asyncio.run(io_thread.run(asyncio.sleep(0, "child"))) == "child"
    assert threading.active_count() == 2
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert resets == []
assert io_thread.submit(thread()).result() == before
assert not waiting.done()
print("done")
"""


def test_a_forked_child_has_a_thread_of_its_own() -> None:
    """The parent's is not there, and what ran on it goes on in the parent only. Either ends without a word."""
    assert output_of(FORK) == "done\n"


class Resettable:
    def __init__(self, resets: list[str]) -> None:
        self.resets = resets

    def reset(self) -> None:
        self.resets.append("a method")


def test_a_fork_may_happen_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while another thread holds the lock, which nobody would give back in the child."""
    resets: list[str] = []
    monkeypatch.setattr(io_thread, "_after_fork", [])
    monkeypatch.setattr(io_thread, "_methods_after_fork", weakref.WeakKeyDictionary())
    assert io_thread.call_after_fork(lambda: resets.append("reset")) is io_thread._after_fork[0]
    one, another = Resettable(resets), Resettable(resets)
    assert [io_thread.call_after_fork(each.reset)() for each in (one, another)] == [None, None]
    del another, resets[:]
    io_thread.submit(name_of_thread()).result(20)
    running = io_thread._running
    assert running is not None
    with io_thread._lock:
        io_thread._reset_in_child()
        assert io_thread.submit(name_of_thread()).result(20) == "fastapi-maintenance"
    assert resets == ["a method", "reset"]
    assert io_thread._running is not running
    assert io_thread._inherited.pop() is running
    running.stop()


def test_a_system_without_forks_has_no_hook_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as Windows, where the module can be imported all the same."""
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setattr(atexit, "register", lambda function: function)
    spec = importlib.util.spec_from_file_location("fastapi_maintenance._without_forks", io_thread.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.submit(name_of_thread()).result(20) == "fastapi-maintenance"
    module.stop()


LOCKED = """
import asyncio, os, signal, sys, threading
from fastapi_maintenance import configure_backend, get_maintenance_mode, set_maintenance_mode
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend, memory
from fastapi_maintenance.switches.registry import registry

is_held, is_over = threading.Event(), threading.Event()

class OneBit(BaseStateBackend):
    value = False
    async def get_value(self):
        return self.value
    async def set_value(self, value):
        if threading.current_thread() is not threading.main_thread():
            hold()
        self.value = value

def hold():
    is_held.set()
    is_over.wait()

def hold_registry():
    with registry._lock:
        hold()

def hold_memory():
    with memory._changing:
        hold()

def hold_one_bit():
    asyncio.run(set_maintenance_mode(True))

async def use():
    for value in (True, False):
        await set_maintenance_mode(value)
        assert await get_maintenance_mode() is value

configure_backend(OneBit() if sys.argv[1] == "one_bit" else MemoryBackend())
thread = threading.Thread(target=globals()["hold_" + sys.argv[1]])
thread.start()
is_held.wait()
child = os.fork()
if not child:
    signal.alarm(60)
    asyncio.run(use())
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
is_over.set()
thread.join()
asyncio.run(use())
print("done")
"""


@pytest.mark.parametrize("what", ["registry", "memory", "one_bit"])
def test_a_forked_child_waits_for_no_thread_of_its_parent(what: str) -> None:
    """One that was just finding a backend, or changing a switch, is not there to give its lock back."""
    assert output_of(LOCKED, what) == "done\n"
