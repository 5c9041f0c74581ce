"""Content negotiation: the media type that a client prefers (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_ELEMENT = re.compile(rf'(?:[^,"]|{_QUOTED}?)++')
"""One element of a list. A quoted string may contain commas; without its closing quote it takes the whole rest."""
_MEDIA_RANGE = re.compile(rf"[ \t]*+(\*/\*(?!{_WORD})|(?!\*/){_WORD}/{_WORD})")
_PARAMETER = re.compile(rf"[ \t]*+;[ \t]*+(?:({_WORD})=({_WORD}|{_QUOTED}))?")
_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)

_MAX_BYTES = 1024
_MAX_RANGES = 32
"""Limits of a header that is read. Browsers send about 150 bytes and eight ranges; clients can send megabytes."""


class _Range(NamedTuple):
    """A media range: ``*/*``, ``text/*`` or ``text/html``."""

    type: str
    subtype: str
    quality: float

    @property
    def specificity(self) -> int:
        """Return 0 for ``*/*``, 1 for ``text/*``, 2 for ``text/html``."""
        return (self.type != "*") + (self.subtype != "*")

    def has(self, media_type: str) -> bool:
        """Return whether a media type is within this range."""
        main, _, sub = media_type.partition("/")
        return self.type in ("*", main) and self.subtype in ("*", sub)


def preferred_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return the media type, out of ``offered``, that the client of an ``Accept`` header prefers.

    The higher weight wins; among equal weights the more specific range (``text/html, */*`` asks for ``text/html``),
    then the first in ``offered``. Without a header, and if nothing offered is acceptable, it is the first: RFC 9110
    lets a server then ignore the header.

    An element that is no valid media range with an optional weight is ignored, and so is an element with parameters
    (``text/html;level=1``), because nothing offered has any; ``charset=utf-8`` matches all of them.

    A header of more than 1,024 bytes or 32 ranges is ignored as a whole.

    Args:
        accept: The header's value; several headers of one request are joined by commas.
        offered: Lower-case media types without parameters, the server's favourite first.
    """
    if not accept or accept == "*/*" or len(accept) > _MAX_BYTES:
        return offered[0]
    return _preferred_type(accept, tuple(offered))


@functools.lru_cache(maxsize=128)
def _preferred_type(accept: str, offered: tuple[str, ...]) -> str:
    best, best_rank = offered[0], (0.0, 2)
    ranges = list(_parse_ranges(accept))
    for media_type in offered:
        # The most specific range that matches decides.
        matching = [(range_.specificity, range_.quality) for range_ in ranges if range_.has(media_type)]
        specificity, quality = max(matching, default=(0, 0.0))
        if (quality, specificity) > best_rank:
            best, best_rank = media_type, (quality, specificity)
    return best


def _parse_ranges(accept: str) -> Iterator[_Range]:
    """Yield the valid media ranges of a header without foreign parameters."""
    elements = _ELEMENT.findall(accept)
    for element in elements if len(elements) <= _MAX_RANGES else ():
        start = _MEDIA_RANGE.match(element)
        if start is None:
            continue
        quality, end, fits = "1", start.end(), True
        while (parameter := _PARAMETER.match(element, end)) is not None:
            end = parameter.end()
            name, value = (parameter[1] or "").lower(), parameter[2]
            if name == "q":  # at any position: older clients put their extensions behind it
                quality = value
            elif name:
                fits = fits and name == "charset" and value.strip('"').lower() == "utf-8"
        if fits and not element[end:].strip(" \t") and _WEIGHT.fullmatch(quality):
            main, _, sub = start[1].lower().partition("/")
            yield _Range(main, sub, float(quality))
