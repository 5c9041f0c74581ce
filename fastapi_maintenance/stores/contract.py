"""The interface of a document store: one small document per switch, changed by compare-and-set.

A store needs only ``read`` and ``replace`` to keep modes, reasons, ends, windows and holds. Changes are applied to
documents in Python, once for all stores.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, NamedTuple

_NO_REVISION = str(2**53 - 1)
"""A revision that no document has; stores whose revisions are numbers can parse it."""
_SWITCH_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def is_switch_name(name: object) -> bool:
    """Return whether a name is valid for a switch."""
    return isinstance(name, str) and _SWITCH_NAME.fullmatch(name) is not None


class Reading(NamedTuple):
    """A document at one moment."""

    content: bytes | None
    """``None``: there is no document."""
    revision: str | None
    """Opaque, and new after each write; ``None``: there is no document."""
    now: datetime | None = None
    """The store's time at that moment, with a time zone; ``None``: the store uses this host's clock."""


class Conflict(Exception):
    """The document does not have the revision to replace; nothing was written.

    Args:
        reading: The current document, if the store can return it in the same round trip.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        self.reading = reading
        super().__init__("the document has another revision")


class DocumentStore(ABC):
    """Keeps one small document per switch.

    A store needs only ``read`` and ``replace``. Neither retries: the caller does, for all stores. All methods run on
    one private event loop and may be cancelled. For one switch, only one method runs at a time, besides ``watch``.
    """

    missing_is_off: ClassVar[bool] = False
    """Whether removing the document means off, as with a file. If not, a missing document was lost and is restored."""

    @abstractmethod
    async def read(self, key: str) -> Reading:
        """Return the document of a switch and the store's time at the same moment.

        Read at most ``MAX_BYTES + 1`` bytes: longer documents are refused.

        Args:
            key: The switch's name.

        Raises:
            BackendUnavailable: The store did not answer; the message says why. Other exceptions mean the same.
        """

    @abstractmethod
    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Replace the document if it still has this revision; return the new reading.

        Args:
            key: The switch's name.
            content: At most ``MAX_BYTES``.
            revision: The revision to replace; ``None``: create the document.
            seconds: How long the caller waits. If the store can, it must not write later.
            quiet: Don't notify those who watch: only the expiry of a hold has changed.

        Raises:
            Conflict: The document has another revision.
            BackendUnavailable: The store did not answer, and nothing was written.
            OutcomeUnknown: The document may have been written. Other exceptions mean the same.
        """

    async def names(self) -> list[str] | None:
        """Return the names of the switches that have a document, or ``None`` if this store can't list them."""
        return None

    async def watch(self, key: str, changed: Callable[[], None]) -> None:  # noqa: B027 - optional
        """Call ``changed`` once the store has confirmed the subscription, and after each write that is not quiet.

        Return at once if the store pushes nothing, which is the default. A call only causes the document to be read,
        so pushes alone can't change the switch.

        Raises:
            BackendUnavailable: The subscription failed or was lost. Other exceptions mean the same.
        """

    async def try_writing(self, key: str) -> str | None:
        """Check that this process can write, without changing anything; return why that can't be checked, or ``None``.

        Raises:
            BackendUnavailable: This process can't write; the message says why.
        """
        with contextlib.suppress(Conflict):
            await self.replace(key, b"0", _NO_REVISION, seconds=1)
        return None

    def describe(self, key: str) -> str:
        """Return the name of a document for logs and errors, without credentials."""
        return f"<{type(self).__name__} of switch {key!r}>"

    def address(self, key: str) -> str:
        """Return the location of a document for operators, without credentials."""
        return self.describe(key)

    async def aclose(self) -> None:  # noqa: B027 - optional
        """Close the connections; the next call opens them again."""
