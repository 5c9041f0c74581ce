"""A store: a place for one small document per switch, changed by compare-and-set.

Every store that has ``read`` and ``replace`` keeps everything: modes, reasons, ends, windows and holds. The meaning of
a change exists once, in Python, for all of them.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, NamedTuple

MAX_BYTES = 64 * 1024
"""The largest document that is stored or read."""

_NO_REVISION = str(2**53 - 1)
"""No document has this revision; a store whose revisions are numbers can read it."""
_SWITCH_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def is_switch_name(name: object) -> bool:
    """Return whether this can be the name of a switch."""
    return isinstance(name, str) and _SWITCH_NAME.fullmatch(name) is not None


class Reading(NamedTuple):
    """A document at one moment."""

    content: bytes | None
    """``None``: there is no document."""
    revision: str | None
    """Opaque; each write makes another one. ``None``: there is no document."""
    now: datetime | None = None
    """The store's own time at that moment, aware; ``None``: the store's clock is the clock of this host."""


class Conflict(Exception):
    """The document has another revision than the one that was to be replaced; nothing was written.

    Args:
        reading: The document that is there, if the store can return it in the same round trip.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        self.reading = reading
        super().__init__("the document has another revision")


class DocumentStore(ABC):
    """A place for one small document per switch.

    ``read`` and ``replace`` are enough. Neither retries: that is done once, for all stores. All methods run on one
    private event loop and may be cancelled. For one switch, one of them runs at a time, ``watch`` apart.
    """

    missing_is_off: ClassVar[bool] = False
    """Whether removing the document is a way to switch off, as with a file.

    Elsewhere a document that disappears was lost, and is put back.
    """

    @abstractmethod
    async def read(self, key: str) -> Reading:
        """Return the document of a switch and the store's time, both of one moment.

        Read at most ``MAX_BYTES + 1`` bytes of it: a longer document is refused, whatever follows.

        Args:
            key: The switch's name.

        Raises:
            BackendUnavailable: The store did not answer, and why. Other exceptions mean the same.
        """

    @abstractmethod
    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Replace the document if it still has this revision; return what was written.

        Args:
            key: The switch's name.
            content: At most ``MAX_BYTES``.
            revision: The revision to replace; ``None``: create the document.
            seconds: How long the caller waits. A store that can must not write later.
            quiet: Nobody has to be woken: only the expiry of a hold has moved.

        Raises:
            Conflict: The document has another revision.
            BackendUnavailable: The store did not answer, and certainly nothing was written.
            OutcomeUnknown: The document may have been written or not. Other exceptions mean the same.
        """

    async def names(self) -> list[str] | None:
        """Return the names of the switches that have a document; ``None``: this store can't list them."""
        return None

    async def watch(self, key: str, changed: Callable[[], None]) -> None:  # noqa: B027 - optional
        """Call ``changed`` after each write that is not quiet, and once the store has confirmed the subscription.

        Returns when the store pushes nothing, which is the default. Only the call is used: the document is then read,
        so whoever may push can't turn the switch.

        Raises:
            BackendUnavailable: The subscription could not be made, or was lost. Other exceptions mean the same.
        """

    async def try_writing(self, key: str) -> str | None:
        """Find out whether this process may write, without changing anything.

        Returns the reason why that can't be found out, if it can't.

        Raises:
            BackendUnavailable: It may not, and why.
        """
        with contextlib.suppress(Conflict):
            await self.replace(key, b"0", _NO_REVISION, seconds=1)
        return None

    def describe(self, key: str) -> str:
        """Return the name of this document for logs and errors, without credentials."""
        return f"<{type(self).__name__} of switch {key!r}>"

    def address(self, key: str) -> str:
        """Return the place of this document as operators read it, without credentials."""
        return self.describe(key)

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Close the connections; the next call opens them again."""
