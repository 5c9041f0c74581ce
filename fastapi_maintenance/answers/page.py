"""The maintenance page: its template, what fills it, and what it may load."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template

PLACEHOLDERS = ("title", "detail", "read_only", "reason", "until", "until_text", "seconds")
"""What a template can name with a ``$``."""
CONDITIONS = ("read_only", "reason", "until", "get", "reload")
"""What a template's optional blocks can depend on."""

_BLOCK = re.compile(r"<!-- if (not )?(\w+) -->(.*?)<!-- endif -->", re.DOTALL)
_BLOCK_EDGE = re.compile(r"<!--\s*(?:if\b|endif\b).*?-->", re.DOTALL)
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """A page's template: HTML in which ``$name`` stands for a value, already escaped, and ``$$`` for a dollar sign.

    What stands between ``<!-- if reason -->`` and ``<!-- endif -->`` is left out where there is no reason, what stands
    between ``<!-- if not reason -->`` and ``<!-- endif -->`` where there is one. Blocks don't nest.

    Raises:
        ValueError: Naming what is wrong, and what is accepted.
    """

    template: str

    def __post_init__(self) -> None:
        for _, condition, block in _BLOCK.findall(self.template):
            if condition not in CONDITIONS:
                msg = f"'<!-- if {condition} -->' is no condition; accepted: {', '.join(CONDITIONS)}"
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
            msg = f"nothing is known for {', '.join(unknown)}; accepted: {known}, and '$$' for a dollar sign"
            raise ValueError(msg)

    def render(self, values: Mapping[str, str], *, get: bool) -> str:
        """Return the page.

        Args:
            values: Plain text for each placeholder; what isn't known is empty.
            get: Whether the client got here by a method that it can safely repeat.
        """
        conditions = {"get": get, "reload": bool(values["seconds"])}

        def kept(block: re.Match[str]) -> str:
            negation, condition, text = block.groups()
            holds = conditions.get(condition, bool(values.get(condition)))
            return text if holds is (negation is None) else ""

        escaped = {name: html.escape(value) for name, value in values.items()}
        return Template(_BLOCK.sub(kept, self.template)).substitute(escaped)

    def content_security_policy(self) -> str:
        """Return the policy under which this page's own scripts and styles work, and nothing else does.

        They are allowed by their digest, so there must be no placeholders in them.
        """
        digests: dict[str, list[str]] = {"script": [], "style": []}
        for kind, text in _INLINE.findall(self.template):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            digests[kind].append(f"'sha256-{digest}'")
        return (
            f"default-src 'none'; script-src {' '.join(digests['script'])}; style-src {' '.join(digests['style'])}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        )


def _check_edges(text: str) -> None:
    """Make sure that a block has no other one in it, or half of one."""
    edge = _BLOCK_EDGE.search(text)
    if edge is not None:
        msg = f"{edge[0]!r} has no other half: blocks go from '<!-- if reason -->' to '<!-- endif -->', and don't nest"
        raise ValueError(msg)


SHIPPED = Page(resources.files("fastapi_maintenance").joinpath("pages/maintenance.html").read_text("utf-8"))
SHIPPED_POLICY = SHIPPED.content_security_policy()
