"""A command that runs under maintenance: its signals, its end, and ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ..holds.block import MaintenanceBlock
from .terminal import note

NOT_FOUND = 127
"""The exit status of shells where there is no such command."""
_SIGNALLED = 128
"""What shells add to the number of the signal that ended a command."""

_SECONDS_BETWEEN_LOOKS = 0.2
_OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT)

# Becomes the command, which is told to end when this process does: else, if this one is killed, the command goes on
# while its maintenance expires. A program of its own: a process with threads can't safely run code after a fork.
_TIED = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(143)
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
    signal.signal(ignored, signal.SIG_DFL)
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(126)
"""


class CommandFailed(Exception):
    """The command ended with another status than 0, and the block is to know."""


@dataclass(kw_only=True)
class Run:
    """One command, for the duration of a block that holds a switch."""

    command: Sequence[str]
    drain_seconds: float
    kill_after_seconds: float
    stops_when_lost: bool
    fails_block: bool
    """Whether a command that fails makes the block fail."""

    def __post_init__(self) -> None:
        self.status: int | None = None
        """The exit status, as shells tell it, once there is one."""
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []
        """Signals that came when there was no command to send them to."""
        self._was_told_to_end = False
        self._asked_to_end = asyncio.Event()
        self._killing: asyncio.TimerHandle | None = None

    def is_found(self) -> bool:
        """Return whether there is such a command."""
        return shutil.which(self.command[0]) is not None

    def take_signals(self) -> None:
        """Have signals end the command in place of this process, from now until the event loop ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                loop.add_signal_handler(number, self._signalled, number)

    async def within(self, block: MaintenanceBlock) -> None:
        """Wait, run the command, and wait for its end.

        Raises:
            CommandFailed: Its status is not 0, and ``fails_block`` says so.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_seconds):
                await self._asked_to_end.wait()
        if self._early:
            self.status = _SIGNALLED + self._early[0]
            return
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())] if sys.platform == "linux" else []
        self._process = await asyncio.create_subprocess_exec(*tied, *self.command)
        for number in self._early:
            self._signalled(number)
        watching = asyncio.create_task(self._stop_when_lost(block))
        try:
            self.status = _status(await self._process.wait())
        finally:
            watching.cancel()
            if self._killing is not None:
                self._killing.cancel()
        if self.status and self.fails_block:
            raise CommandFailed

    def _signalled(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
            self._asked_to_end.set()
            return
        if self._process.returncode is not None or (number in _OF_TERMINALS and _has_the_terminal()):
            return  # the terminal has told the command as well, which may have its own use for it
        if self._was_told_to_end:
            self._kill()
            return
        self._was_told_to_end = True
        self._send(number)
        if number is not signal.SIGINT:
            self._kill_later()

    async def _stop_when_lost(self, block: MaintenanceBlock) -> None:
        while not (self.stops_when_lost and block.lost.is_set()):  # noqa: ASYNC110 - an event for threads
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        note("warning: the hold is lost, so the command is told to end")
        self._send(signal.SIGTERM)
        self._kill_later()

    def _kill_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._killing = self._killing or loop.call_later(self.kill_after_seconds, self._kill)

    def _kill(self) -> None:
        note("warning: the command does not end, so it is killed")
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            cast("asyncio.subprocess.Process", self._process).send_signal(number)


def _status(returncode: int) -> int:
    """Return an exit status as shells tell it."""
    return _SIGNALLED - returncode if returncode < 0 else returncode


def _has_the_terminal() -> bool:
    """Return whether a terminal sends its signals to this process, and with it to what it started."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    except OSError:
        return False
