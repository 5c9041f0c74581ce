"""How large a document may become."""

from __future__ import annotations

from ..exceptions import InvalidConfiguration

MAX_BYTES = 64 * 1024
"""The largest document that is stored or read."""

ROOM_FOR_MODE = ROOM_FOR_HOLD = 16 * 1024
"""What the longest reason, in characters that take six bytes each, and all that goes with it can take."""

MAX_REASON = 2000
"""The longest reason that is accepted, in characters."""
MAX_OWNER = 300
"""The longest name of who holds or changes a switch, in characters."""
MAX_HOLDS = 200
"""How many holds a switch may have at a time."""
MAX_RETRY_AFTER = 10**9
"""The most seconds after which clients may be told to come back."""
MAX_VERSION = 2**53 - 1
"""The highest version: JavaScript and Lua know no higher whole numbers. After it a new life (``epoch``) begins."""


def checked_size(document: bytes) -> bytes:
    """Return a document, or raise ``InvalidConfiguration`` if it is too large to be stored."""
    if len(document) > MAX_BYTES:
        raise too_large(len(document))
    return document


def too_large(size: int, limit: int = MAX_BYTES) -> InvalidConfiguration:
    """Return the error for a document of so many bytes."""
    room = "" if limit == MAX_BYTES else ", so that a mode and a hold always fit"
    return InvalidConfiguration(
        f"the state would have {size} bytes, nothing was changed: at most {limit} are stored{room}; "
        "shorten the reasons, or plan fewer windows"
    )
