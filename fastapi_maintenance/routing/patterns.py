"""A tree that looks up routes by path, and the patterns read from their regular expressions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor


class _Pattern(NamedTuple):
    """The path segments that a route's regular expression matches."""

    segments: tuple[str | None, ...]
    """The first segments; ``None`` is any non-empty segment."""
    is_open: bool
    """Whether one or more arbitrary segments follow."""
    is_certain: bool
    """Whether each path with these segments matches, and no convertor raises."""

    @property
    def is_literal(self) -> bool:
        """Return whether it matches a single path."""
        return not self.is_open and None not in self.segments


class Node:
    """The routes whose paths begin with the same segments, by leaf number."""

    __slots__ = ("_any", "_below", "_by_segment", "_here")

    def __init__(self) -> None:
        self._by_segment: dict[str, Node] = {}
        self._any: Node | None = None
        """The node for any non-empty segment."""
        self._here: list[int] = []
        """The routes that end here."""
        self._below: list[int] = []
        """The routes that match any path below this node."""

    def add(self, pattern: _Pattern, number: int) -> None:
        """Add a leaf number at the node of its pattern."""
        node = self
        for segment in pattern.segments:
            if segment is None:
                node._any = node._any or Node()
                node = node._any
            else:
                node = node._by_segment.setdefault(segment, Node())
        (node._below if pattern.is_open else node._here).append(number)

    def leaf_numbers_of(self, path: str) -> list[int]:
        """Return the numbers of the leaves that may match a path, unordered."""
        segments = path.split("/")
        numbers: list[int] = []
        others: list[tuple[Node, int]] = []
        """The branches still to visit, each with the number of segments already consumed."""
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
"""Convertors that match within one segment, and their expressions."""


def pattern_of(described: Any) -> _Pattern | None:
    """Return a route's pattern, or ``None`` if it is not written as Starlette writes it."""
    try:
        return _read(described)
    except (AttributeError, TypeError):  # not a regular expression
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
        template += _unescape(literal) + _PARAMETER
        convertors.append(convertor)
    if not _is_literal(rest):
        return None
    return _build_pattern(template + _unescape(rest), convertors)


_PARAMETER = "\0"
"""The placeholder for a parameter in a template; a path that contains it is not read."""


def _build_pattern(template: str, convertors: list[Any]) -> _Pattern | None:
    """Return the pattern of a template; its parameters' convertors are in order."""
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


def _unescape(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal, flags=re.DOTALL)


def _is_literal(expression: str) -> bool:
    """Return whether an expression is the result of ``re.escape`` for some text."""
    return re.escape(_unescape(expression)) == expression
