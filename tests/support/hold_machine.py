"""Holds, operators and clocks in any order: what a switch says, against a model of some lines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fastapi_maintenance import HoldLost, MaintenanceBlock, SwitchIsHeld, maintenance_mode_off, maintenance_mode_on
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.model.change import Change
from fastapi_maintenance.model.modes import MaintenanceMode
from fastapi_maintenance.switches.control import change_mode
from fastapi_maintenance.switches.views.lookup import view_of
from fastapi_maintenance.switches.views.view import View
from tests.support.places import Place
from tests.support.traffic import until

T = TypeVar("T")

TTL = 1000.0
"""Seconds; so long that no heartbeat comes by itself."""
TASKS = range(3)
STEPS_PER_EXAMPLE = 50


@dataclass
class _Held:
    """One hold as the model has it."""

    kind: Literal["on", "off"]
    masks: frozenset[int]
    expires: float
    """By the model's clock."""


@dataclass
class _Entered:
    """A block that has been entered and neither left nor crashed."""

    number: int
    block: MaintenanceBlock
    task: int


class HoldMachine(RuleBasedStateMachine):
    """One switch, three tasks that hold it, operators, and a clock that moves."""

    place: ClassVar[Place]
    steps: ClassVar[int] = 0
    """How many steps were made, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.backend = self.place.backend()
        self.view: View = view_of(self.backend)
        self.contexts = [contextvars.copy_context() for _ in TASKS]
        self.entered: list[_Entered] = []
        self.enclosing: dict[int, list[int]] = {task: [] for task in TASKS}
        self.stored = MaintenanceMode.OFF
        self.holds: dict[int, _Held] = {}
        self.now = 0.0
        self.numbers = 0
        self.run(self.view.apply(Change(break_holds=True)))
        self.run(change_mode(MaintenanceMode.OFF, self.backend))

    def run(self, coroutine: Coroutine[Any, Any, T], task: int | None = None) -> T:
        """Run something in one of the tasks."""
        return self.runner.run(coroutine, context=None if task is None else self.contexts[task])

    def teardown(self) -> None:
        """End all blocks: the switch is what operators left, and no task is left."""
        for entered in list(self.entered):
            self.leave_one(entered, entered.task)
        self.says_what_it_should()
        if isinstance(self.backend, StoreBackend):
            self.run(self.backend.aclose())
        self.runner.close()

    # The model

    def drop_expired(self) -> None:
        """Drop what has expired: no clock that is put back brings it to life."""
        self.holds = {number: held for number, held in self.holds.items() if self.now < held.expires}

    def mode(self) -> MaintenanceMode:
        alive = {number: held for number, held in self.holds.items() if self.now < held.expires}
        masked = {number for held in alive.values() if held.kind == "off" for number in held.masks}
        if any(held.kind == "on" and number not in masked for number, held in alive.items()):
            return MaintenanceMode.ON
        if any(held.kind == "off" for held in alive.values()):
            return MaintenanceMode.OFF
        return self.stored

    # What happens

    @rule(task=st.sampled_from(TASKS), kind=st.sampled_from(["on", "off"]))
    def enter(self, task: int, kind: Literal["on", "off"]) -> None:
        make = maintenance_mode_on if kind == "on" else maintenance_mode_off
        block = make(self.backend, ttl=TTL)
        self.run(block.__aenter__(), task)
        self.numbers += 1
        masks = frozenset(self.enclosing[task]) if kind == "off" else frozenset()
        expires = self.now + TTL if self.view.has_leases else float("inf")
        self.holds[self.numbers] = _Held(kind, masks, expires)
        if kind == "on":
            self.enclosing[task].append(self.numbers)
        self.entered.append(_Entered(self.numbers, block, task))

    @precondition(lambda self: self.entered)
    @rule(choice=st.integers(0, 99), elsewhere=st.booleans())
    def leave(self, choice: int, elsewhere: bool) -> None:
        entered = self.entered[choice % len(self.entered)]
        self.leave_one(entered, (entered.task + elsewhere) % len(TASKS))

    def leave_one(self, entered: _Entered, task: int) -> None:
        self.run(entered.block.__aexit__(None, None, None), task)
        self.entered.remove(entered)
        if entered.number in self.enclosing[task]:
            self.enclosing[task].remove(entered.number)
        self.holds.pop(entered.number, None)  # one that was broken is left alone

    @precondition(lambda self: self.entered and self.view.has_leases)
    @rule(choice=st.integers(0, 99))
    def crash(self, choice: int) -> None:
        """The block's process dies: nobody renews its hold, nobody gives it back."""
        entered = self.entered.pop(choice % len(self.entered))
        for lease in entered.block._leases:
            lease.stop_renewing()
        # Its task died with it, so nothing is entered there any more.
        self.contexts[entered.task] = contextvars.copy_context()
        self.enclosing[entered.task] = []

    @precondition(lambda self: self.entered and self.view.has_leases)
    @rule(choice=st.integers(0, 99))
    def beat(self, choice: int) -> None:
        """The heart of one block beats: its hold lives on, unless it was broken."""
        entered = self.entered[choice % len(self.entered)]
        [lease] = entered.block._leases
        if entered.number in self.holds:
            self.run(lease.renew())
            self.holds[entered.number].expires = self.now + TTL
            return
        with pytest.raises(HoldLost) as broken:
            self.run(lease.renew())
        assert not broken.value.expired

    @precondition(lambda self: self.view.has_leases)
    @rule(seconds=st.sampled_from([TTL * 0.4, TTL * 1.1, -TTL * 0.2]))
    def move_clock(self, seconds: float) -> None:
        """The store's clock moves: for holds that is the same as if all of them expired earlier or later.

        A hold that has expired so is lost, and is taken again by its block, if that still runs.
        """
        by = timedelta(seconds=seconds)
        state = self.run(self.stored_state())
        holds = {
            id_: hold.model_copy(update={"expires_at": hold.expires_at - by})
            for id_, hold in state.holds.items()
            if hold.expires_at is not None
        }
        self.drop_expired()
        self.run(self.view.apply(Change(put_holds=holds, is_renewal=True)))
        self.now += seconds
        for entered in self.entered:
            held = self.holds.get(entered.number)
            if held is not None and self.now >= held.expires:
                [lease] = entered.block._leases
                self.run(until(lambda lease=lease: lease.id in self.view.latest().holds))  # type: ignore[misc]
                assert entered.block.lost.is_set()
                held.expires = self.now + TTL

    @rule(mode=st.sampled_from(list(MaintenanceMode)))
    def operator_sets(self, mode: MaintenanceMode) -> None:
        if mode is MaintenanceMode.READ_ONLY and not self.view.stores_reasons:
            mode = MaintenanceMode.ON
        self.run(change_mode(mode, self.backend))
        self.stored = mode

    @rule()
    def operator_tries_off(self) -> None:
        alive = [held for held in self.holds.values() if held.kind == "on" and self.now < held.expires]
        try:
            self.run(change_mode(MaintenanceMode.OFF, self.backend, break_holds=False))
        except SwitchIsHeld as error:
            owners = error.owners
        else:
            owners = ()
            self.stored = MaintenanceMode.OFF
        assert len(owners) == len(alive)

    @rule()
    def operator_breaks(self) -> None:
        """Every hold goes, and every block that had one learns of it."""
        self.run(change_mode(MaintenanceMode.OFF, self.backend, break_holds=True))
        self.stored, self.holds = MaintenanceMode.OFF, {}
        for entered in self.entered:
            assert entered.block.lost.wait(10), entered

    # What has to be so

    async def stored_state(self) -> Any:
        """Return the state as another process reads it."""
        if not isinstance(self.backend, StoreBackend):
            return await self.view.read()
        other = self.place.backend()
        try:
            return await view_of(other).read()
        finally:
            await other.aclose()

    @invariant()
    def says_what_it_should(self) -> None:
        """In this process and in others."""
        type(self).steps += 1
        expected, now = self.mode(), datetime.now(UTC)
        assert self.run(self.stored_state()).mode_at(now) is expected
        state = self.view.peek()
        if state is not None:
            assert state.mode_at(now) is expected


def run_machine(place: Place, steps: int) -> int:
    """Make at least so many steps at one place; return how many it were."""
    kind = type(f"HoldsOf{place.kind}", (HoldMachine,), {"place": place, "steps": 0})
    while kind.steps < steps:  # type: ignore[attr-defined]
        left = steps - kind.steps  # type: ignore[attr-defined]
        run_state_machine_as_test(
            kind,
            settings=settings(
                max_examples=max(1, left // STEPS_PER_EXAMPLE),
                stateful_step_count=STEPS_PER_EXAMPLE,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    made: int = kind.steps  # type: ignore[attr-defined]
    return made
