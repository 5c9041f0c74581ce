"""Limits for the size of a document and its members."""

from __future__ import annotations

from ..exceptions import InvalidConfiguration

MAX_BYTES = 64 * 1024
"""The largest document that is stored or read, in bytes."""

ROOM_FOR_MODE = ROOM_FOR_HOLD = 16 * 1024
"""Bytes for the longest reason, at six bytes per character, and the members that belong to it."""

MAX_REASON = 2000
"""The longest reason, in characters."""
MAX_OWNER = 300
"""The longest name of an owner or author, in characters."""
MAX_HOLDS = 200
"""The most holds of one switch."""
MAX_RETRY_AFTER = 10**9
"""The largest ``retry_after``, in seconds."""
MAX_VERSION = 2**53 - 1
"""The highest version, as JavaScript and Lua have no larger exact integers. After it a new ``epoch`` begins."""


def check_size(size: int, limit: int = MAX_BYTES) -> None:
    """Raise ``InvalidConfiguration`` if a document of ``size`` bytes exceeds the limit."""
    if size > limit:
        room = "" if limit == MAX_BYTES else ", so that a mode and a hold always fit"
        raise InvalidConfiguration(
            f"the state would have {size} bytes, nothing was changed: at most {limit} are stored{room}; "
            "shorten the reasons, or plan fewer windows"
        )
