"""A command that runs under maintenance, and its signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ..holds.block import MaintenanceBlock
from .terminal import print_note

NOT_FOUND = 127
"""The exit status of shells for an unknown command."""
_SIGNAL_STATUS_BASE = 128
"""Shells add this to the number of the signal that ended a command."""

_LOST_HOLD_POLL_SECONDS = 0.2
_TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)

# Becomes the command after asking Linux for SIGTERM at the death of this process: otherwise the command would outlive
# its maintenance. It is a separate program because a process with threads can't safely run code after a fork.
_TIED = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(143)
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
    signal.signal(ignored, signal.SIG_DFL)
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
    sys.exit(126)
"""


class CommandFailed(Exception):
    """The command failed, and the block must fail with it."""


@dataclass(kw_only=True)
class Run:
    """One command that runs inside a block that holds a switch."""

    command: Sequence[str]
    drain_seconds: float
    kill_after_seconds: float
    stops_when_lost: bool
    fails_block: bool
    """Whether a failing command makes the block fail."""

    def __post_init__(self) -> None:
        self.status: int | None = None
        """The exit status as shells report it, or ``None`` before the end."""
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []
        """Signals that came before the command started."""
        self._was_signalled = False
        self._early_signal = asyncio.Event()
        self._killing: asyncio.TimerHandle | None = None

    def take_signals(self) -> None:
        """Forward signals to the command until the event loop ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
                loop.add_signal_handler(number, self._on_signal, number)

    async def within(self, block: MaintenanceBlock) -> None:
        """Wait, run the command, and wait for its end.

        Raises:
            CommandFailed: Its status is not 0, and ``fails_block`` is set.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_seconds):
                await self._early_signal.wait()
        if self._early:
            self.status = _SIGNAL_STATUS_BASE + self._early[0]
            return
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())] if sys.platform == "linux" else []
        self._process = await asyncio.create_subprocess_exec(*tied, *self.command)
        for number in self._early:
            self._on_signal(number)
        watching = asyncio.create_task(self._stop_when_lost(block))
        try:
            returncode = await self._process.wait()
            self.status = _SIGNAL_STATUS_BASE - returncode if returncode < 0 else returncode
        finally:
            watching.cancel()
            if self._killing is not None:
                self._killing.cancel()
        if self.status and self.fails_block:
            raise CommandFailed

    def _on_signal(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
            self._early_signal.set()
            return
        if self._process.returncode is not None or (number in _TERMINAL_SIGNALS and _is_in_foreground()):
            return  # the terminal has sent it to the command as well
        if self._was_signalled:
            self._kill()
            return
        self._was_signalled = True
        self._send(number)
        if number is not signal.SIGINT:
            self._kill_later()

    async def _stop_when_lost(self, block: MaintenanceBlock) -> None:
        while not (self.stops_when_lost and block.lost.is_set()):  # noqa: ASYNC110 - an event for threads
            await asyncio.sleep(_LOST_HOLD_POLL_SECONDS)
        print_note("warning: the hold is lost, so the command gets SIGTERM")
        self._send(signal.SIGTERM)
        self._kill_later()

    def _kill_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._killing = self._killing or loop.call_later(self.kill_after_seconds, self._kill)

    def _kill(self) -> None:
        print_note("warning: the command does not end, so it is killed")
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has already ended
            cast("asyncio.subprocess.Process", self._process).send_signal(number)


def _is_in_foreground() -> bool:
    """Return whether a terminal sends its signals to this process and its children."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    except OSError:
        return False
