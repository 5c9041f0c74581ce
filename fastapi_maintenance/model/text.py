"""Checks and clean-up of text that is shown or stored."""

from __future__ import annotations

import re

from ..exceptions import InvalidConfiguration

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ufeff]")
"""Control characters, and marks that can reverse the text after them (Unicode Annex 9, section 2.1)."""
_DIRECTIONS = re.compile(r"[\u061c\u200e\u200f\u2066-\u2069]")
"""Other direction marks: right-to-left texts may have them, logs must not."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def legible(text: str) -> str:
    """Return a text without control characters, with plain line ends, encodable as UTF-8."""
    text = re.sub(r"\r\n?|\x85|[\u2028\u2029]", "\n", text)
    return encodable(_CONTROLS.sub("", text)).strip()


def in_one_line(text: str) -> str:
    """Return a legible text in one line."""
    return " ".join(_DIRECTIONS.sub("", legible(text)).split())


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode, with each surrogate replaced."""
    return _SURROGATE.sub("\ufffd", text)


def check_text(value: object, name: str) -> None:
    """Raise ``InvalidConfiguration`` unless a value is a text that UTF-8 can encode."""
    try:
        str.encode(value)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        raise InvalidConfiguration(f"{name} must be a string that UTF-8 can encode, got {value!r}") from None
