"""The paths of routes, as a tree to look them up in."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor


class _Pattern(NamedTuple):
    """What a route's regular expression says of a path's segments."""

    segments: tuple[str | None, ...]
    """The first ones; ``None`` is any that is not empty."""
    is_open: bool
    """Whether more follow, at least one, of which nothing is said."""
    is_certain: bool
    """Whether each path that is so matches, and no convertor raises."""

    @property
    def is_literal(self) -> bool:
        """Return whether one path alone is meant."""
        return not self.is_open and None not in self.segments


class Node:
    """The paths that begin with the same segments."""

    __slots__ = ("_any", "_below", "_by_segment", "_here")

    def __init__(self) -> None:
        self._by_segment: dict[str, Node] = {}
        self._any: Node | None = None
        """For any segment that is not empty."""
        self._here: list[int] = []
        """What ends here."""
        self._below: list[int] = []
        """What goes on from here in any way."""

    def add(self, pattern: _Pattern, number: int) -> None:
        """Put a leaf where paths that match its pattern lead to."""
        node = self
        for segment in pattern.segments:
            if segment is None:
                node._any = node._any or Node()
                node = node._any
            else:
                node = node._by_segment.setdefault(segment, Node())
        (node._below if pattern.is_open else node._here).append(number)

    def led_to(self, path: str) -> list[int]:
        """Return what a path leads to, in no order."""
        segments = path.split("/")
        numbers: list[int] = []
        others: list[tuple[Node, int]] = []
        """Other ways to go, with how many segments they have behind them."""
        node, behind = self, 0
        while True:
            following = None
            if behind == len(segments):
                numbers += node._here
            else:
                numbers += node._below
                segment = segments[behind]
                behind += 1
                following = node._by_segment.get(segment)
                if node._any is not None and segment:
                    if following is not None:
                        others.append((node._any, behind))
                    else:
                        following = node._any
            if following is not None:
                node = following
            elif others:
                node, behind = others.pop()
            else:
                return numbers


_WITHOUT_SLASH = {StringConvertor: "[^/]+", IntegerConvertor: "[0-9]+", FloatConvertor: r"[0-9]+(\.[0-9]+)?"}
"""Convertors that take one segment at most, and their expressions."""


def pattern_of(described: Any) -> _Pattern | None:
    """Return what a route's pattern says, or ``None`` if it is not written as Starlette writes it."""
    try:
        return _read(described)
    except (AttributeError, TypeError):  # it is something else that can match
        return None


def _read(described: Any) -> _Pattern | None:
    expression: re.Pattern[str] = described.path_regex
    text = expression.pattern
    if expression.flags != re.UNICODE or not text.startswith("^") or not text.endswith("$"):
        return None
    rest, template, convertors = text[1:-1], "", []
    for name, convertor in described.param_convertors.items():
        literal, group, rest = rest.partition(f"(?P<{name}>{convertor.regex})")
        if not group or not _is_literal(literal):
            return None
        template += _unescaped(literal) + _PARAMETER
        convertors.append(convertor)
    if not _is_literal(rest):
        return None
    return _pattern(template + _unescaped(rest), convertors)


_PARAMETER = "\0"
"""What stands for a parameter in a template; a path that has it itself is not read."""


def _pattern(template: str, convertors: list[Any]) -> _Pattern | None:
    """Return what a template says, with its parameters' convertors in order."""
    if template.count(_PARAMETER) != len(convertors) or not template.startswith("/"):
        return None
    segments: list[str | None] = []
    is_certain = True
    parts = template.split("/")
    for part in parts:
        if _PARAMETER not in part:
            segments.append(part)
            continue
        convertor = convertors.pop(0)
        kind = type(convertor)
        if part == _PARAMETER and _WITHOUT_SLASH.get(kind) == convertor.regex:
            is_certain = is_certain and kind is StringConvertor
            segments.append(None)
            continue
        takes_the_rest = kind is PathConvertor and convertor.regex == ".*" and template.endswith("/" + _PARAMETER)
        is_last = len(segments) == len(parts) - 1
        return _Pattern(tuple(segments), True, is_certain and takes_the_rest and is_last)
    return _Pattern(tuple(segments), False, is_certain)


def _unescaped(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal, flags=re.DOTALL)


def _is_literal(expression: str) -> bool:
    """Return whether an expression is what ``re.escape`` makes of some text."""
    return re.escape(_unescaped(expression)) == expression
