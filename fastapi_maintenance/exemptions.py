"""Which requests pass although their switch is on: preflights, docs pages, paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from .exceptions import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class Exemptions:
    """What stays open during maintenance, beside the endpoints under ``@force_maintenance_mode_off``.

    Args:
        paths: Paths as the app's routes spell them, without ``root_path``: ``/health`` is that path alone,
            ``*`` stands for anything within one segment, ``**`` for any number of whole segments, none included
            (``/internal/**`` is ``/internal`` and all below it). Upper and lower case differ, one slash at the end
            does not count. A request's path with empty, ``.`` or ``..`` segments or control characters is never
            exempt by its path.
        docs: FastAPI's own pages (docs, ReDoc, schema, OAuth2 redirect) of every app, at the URLs that it has.
        preflight: CORS preflights, without which a browser reports a network error instead of the 503.

    Raises:
        InvalidConfiguration: A path that can match nothing, or more than it says.
    """

    paths: Iterable[str] = ()
    docs: bool = True
    preflight: bool = True
    _patterns: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.paths, str):
            raise InvalidConfiguration(f"paths={self.paths!r} is one string; write paths=({self.paths!r},)")
        paths: object = self.paths
        if not isinstance(paths, Iterable):
            raise InvalidConfiguration(f"paths={paths!r}: a tuple of paths is needed, such as ('/health',)")
        paths = tuple(paths)
        for name, value in (("docs", self.docs), ("preflight", self.preflight)):
            if value not in (True, False):
                raise InvalidConfiguration(f"{name}={value!r}: True or False is needed")
        patterns = [_pattern(path) for path in paths]
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "_patterns", re.compile("|".join(patterns)) if patterns else None)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Refuse to be a request's data: FastAPI asks for it when it is given a class in place of a guard."""
        raise InvalidConfiguration(
            "Depends(MaintenanceGuard) would guard nothing: write Depends(MaintenanceGuard(...)), with an instance"
        )

    def of_request(self, scope: Scope, path: str, *, is_docs: bool) -> str | None:
        """Return why a request is exempt, or ``None``; ``path`` is the one that the app's routes see."""
        if self.preflight and is_preflight(scope):
            return "preflight"
        if self.docs and is_docs:
            return "docs"
        if self._patterns is not None and not _ODD.search(path) and self._patterns.fullmatch(path):
            return "path"
        return None


_ODD = re.compile(r"//|/\.{1,2}(?:/|$)|[\x00-\x1f\x7f\\]")
"""Paths that a router and a proxy or file system may read differently."""


def _pattern(path: object) -> str:
    """Return the regular expression of one exempt path."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidConfiguration(f"exempt path {path!r}: a string that begins with '/' is needed, such as '/health'")
    for sign, advice in {
        "{": "write '*' where the route has a parameter",
        "?": "leave the query out",
        "#": "leave the fragment out",
        "%": "write the decoded path",
    }.items():
        if sign in path:
            raise InvalidConfiguration(f"exempt path {path!r} has {sign!r}: {advice}")
    if _ODD.search(path):
        raise InvalidConfiguration(f"exempt path {path!r}: empty, '.' and '..' segments are never exempt")
    if path == "/":
        return "/"
    pattern = ""
    for segment in path.strip("/").split("/"):
        if segment == "**":
            pattern += "(?:/[^/]+)*"
        elif "**" in segment:
            raise InvalidConfiguration(f"exempt path {path!r}: '**' stands for whole segments, as in '/files/**'")
        elif segment == "*":
            pattern += "/[^/]+"
        else:
            pattern += "/" + "[^/]*".join(re.escape(part) for part in segment.split("*"))
    return pattern + "/?"


def is_preflight(scope: Scope) -> bool:
    """Return whether a request is a CORS preflight (Fetch standard, "CORS-preflight request")."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
