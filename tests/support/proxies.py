"""Networks that are worse than a loopback interface."""

from __future__ import annotations

import contextlib
import socket
import time

from tests.support.stores import SilentProxy


class BadNetwork(SilentProxy):
    """A proxy that forwards late, and can lose connections without telling anybody.

    Args:
        port: Of the server.
        delay_seconds: How much later everything arrives, in each direction.
    """

    def __init__(self, port: int, *, delay_seconds: float = 0.0) -> None:
        super().__init__(port)
        self._delay_seconds = delay_seconds
        self._lost: set[socket.socket] = set()

    def lose_connections(self) -> None:
        """From now on nothing gets through on the connections that are open; new ones work."""
        self._lost.update(self._open)

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._delay_seconds)
                self._speaks.wait()
                if source not in self._lost:
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
