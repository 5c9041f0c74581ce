"""The maintenance page: a template, its placeholders, and its content security policy."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template

PLACEHOLDERS = ("title", "detail", "read_only", "reason", "until", "until_text", "seconds")
"""The names that a template can use with a ``$``."""
CONDITIONS = ("read_only", "reason", "until", "get", "reload")
"""The conditions of a template's optional blocks."""

_BLOCK = re.compile(r"<!-- if (not )?(\w+) -->(.*?)<!-- endif -->", re.DOTALL)
_BLOCK_EDGE = re.compile(r"<!--\s*(?:if\b|endif\b).*?-->", re.DOTALL)
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """A page's template: HTML in which ``$name`` means a value, already escaped, and ``$$`` a dollar sign.

    A block from ``<!-- if reason -->`` to ``<!-- endif -->`` appears only with a reason, a block from
    ``<!-- if not reason -->`` to ``<!-- endif -->`` only without. Blocks don't nest.

    Raises:
        ValueError: The template is invalid; the message names the problem and the accepted values.
    """

    template: str

    def __post_init__(self) -> None:
        for _, condition, block in _BLOCK.findall(self.template):
            if condition not in CONDITIONS:
                msg = f"'<!-- if {condition} -->' has no valid condition; accepted: {', '.join(CONDITIONS)}"
                raise ValueError(msg)
            _check_edges(block)
        _check_edges(_BLOCK.sub("", self.template))
        template = Template(self.template)
        if not template.is_valid():
            msg = "a '$' begins a placeholder such as '$title'; write '$$' for a dollar sign"
            raise ValueError(msg)
        unknown = [f"${name}" for name in template.get_identifiers() if name not in PLACEHOLDERS]
        if unknown:
            known = ", ".join(f"${name}" for name in PLACEHOLDERS)
            msg = f"unknown placeholder {', '.join(unknown)}; accepted: {known}, and '$$' for a dollar sign"
            raise ValueError(msg)

    def render(self, values: Mapping[str, str], *, get: bool) -> str:
        """Return the page as HTML.

        Args:
            values: Plain text for each placeholder; empty if not known.
            get: Whether the request was a GET or HEAD, which the client can safely repeat.
        """
        conditions = {"get": get, "reload": bool(values["seconds"])}

        def keep_block(block: re.Match[str]) -> str:
            negation, condition, text = block.groups()
            holds = conditions.get(condition, bool(values.get(condition)))
            return text if holds is (negation is None) else ""

        escaped = {name: html.escape(value) for name, value in values.items()}
        return Template(_BLOCK.sub(keep_block, self.template)).substitute(escaped)

    def content_security_policy(self) -> str:
        """Return a policy that allows this page's own scripts and styles, and nothing else.

        It allows them by digest, so they must contain no placeholders.
        """
        digests: dict[str, list[str]] = {"script": [], "style": []}
        for kind, text in _INLINE.findall(self.template):
            digests[kind].append(digest_of(text))
        return (
            f"default-src 'none'; script-src {' '.join(digests['script'])}; style-src {' '.join(digests['style'])}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        )


def _check_edges(text: str) -> None:
    """Raise ``ValueError`` if a text contains the start or end of a block."""
    edge = _BLOCK_EDGE.search(text)
    if edge is not None:
        msg = f"{edge[0]!r} has no other half: blocks are '<!-- if reason -->...<!-- endif -->', and don't nest"
        raise ValueError(msg)


def digest_of(text: str) -> str:
    """Return the source of an inline script or style for a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def read_page_file(name: str) -> str:
    """Return the text of a file in ``pages``."""
    return resources.files("fastapi_maintenance").joinpath("pages", name).read_text("utf-8")


SHIPPED = Page(read_page_file("maintenance.html"))
SHIPPED_POLICY = SHIPPED.content_security_policy()
