"""Text that may be shown: without control characters, and in one line where that matters."""

from __future__ import annotations

import re

from ..exceptions import InvalidConfiguration

_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ufeff]")
"""Control characters, and the marks by which a text can reverse what follows it (Unicode Annex 9, section 2.1)."""
_DIRECTIONS = re.compile(r"[\u061c\u200e\u200f\u2066-\u2069]")
"""Further marks of direction: they belong into texts that are written from right to left, and into no log."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def legible(text: str) -> str:
    """Return what a person can read of a text: without controls, with plain line ends, encodable as UTF-8."""
    text = re.sub(r"\r\n?|\x85|[\u2028\u2029]", "\n", text)
    return encodable(_UNSHOWN.sub("", text)).strip()


def in_one_line(text: str) -> str:
    """Return what a person can read of a text, in one line."""
    return " ".join(_DIRECTIONS.sub("", legible(text)).split())


def encodable(text: str) -> str:
    """Return a text that can be encoded as UTF-8, which half a surrogate pair can't."""
    return _SURROGATE.sub("\ufffd", text)


def check_text(value: object, name: str) -> None:
    """Raise ``InvalidConfiguration`` if a value is no text that can be stored."""
    try:
        str.encode(value)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        raise InvalidConfiguration(f"{name}={value!r}: a text is needed") from None
