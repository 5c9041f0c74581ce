"""The requests that pass although their switch is on: preflights, docs pages, paths, networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from starlette.types import Scope

from ..exceptions import InvalidConfiguration
from .bypass import Bypass

PREFLIGHT = "preflight"
"""The reason for which a preflight is exempt until it reaches an endpoint."""


@dataclass(frozen=True, slots=True)
class Exemptions:
    """The requests that stay open during maintenance, besides endpoints under ``@force_maintenance_mode_off``.

    Args:
        paths: Paths as the app's routes spell them, without ``root_path``: ``/health`` is that path alone,
            ``*`` matches anything within one segment, ``**`` any number of whole segments, none included
            (``/internal/**`` is ``/internal`` and all below it). Upper and lower case differ, one slash at the end
            is ignored. A request's path with empty, ``.`` or ``..`` segments or control characters, or with dots,
            slashes and the like that are still encoded, is never exempt by its path.
        networks: The clients' networks, such as ``10.0.0.0/8``, ``2001:db8::/32`` or the single address
            ``192.0.2.7``. Only ``scope["client"]`` is compared: the peer of the connection, unless the server trusts a
            proxy. Behind a proxy that it does not trust, every client has the proxy's address. ``::ffff:192.0.2.7``
            equals the IPv4 address; an IPv6 zone is ignored. A client without an address, as on a unix socket, is in
            no network.
        docs: FastAPI's own pages (docs, ReDoc, schema, OAuth2 redirect) of every app, at their configured URLs.
        preflight: CORS preflights on their way to a ``CORSMiddleware``; without them a browser reports a network
            error instead of the 503. A preflight that reaches an endpoint is judged like any other request.
        bypass: Lets holders of a token pass.

    Raises:
        InvalidConfiguration: A path that matches nothing, or more than it seems to; an invalid network.
    """

    paths: Iterable[str] = ()
    networks: Iterable[str | IPv4Network | IPv6Network] = ()
    docs: bool = True
    preflight: bool = True
    bypass: Bypass | None = None
    _patterns: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        paths, networks = items_of("paths", self.paths), items_of("networks", self.networks)
        for name, value in (("docs", self.docs), ("preflight", self.preflight)):
            if value not in (True, False):
                raise InvalidConfiguration(f"{name} must be True or False, got {value!r}")
        patterns = [_pattern_of(path) for path in paths]
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "_patterns", re.compile("|".join(patterns)) if patterns else None)
        object.__setattr__(self, "networks", networks)
        object.__setattr__(self, "_networks", tuple(_network_of(network) for network in networks))
        if self.bypass is not None and not isinstance(self.bypass, Bypass):
            raise InvalidConfiguration(f"bypass must be a Bypass(...), not {type(self.bypass).__name__}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Raise: FastAPI asks for a schema if ``Depends`` gets the guard's class in place of an instance."""
        raise InvalidConfiguration(
            "Depends(MaintenanceGuard) would guard nothing: write Depends(MaintenanceGuard(...)), with an instance"
        )

    def of_request(self, scope: Scope, path: str, *, is_docs: bool, preflight: bool = True) -> str | None:
        """Return why a request is exempt, or ``None``.

        ``path`` is the path that the app's routes see; ``preflight``: whether a ``CORSMiddleware`` may still answer.
        """
        if preflight and self.preflight and is_preflight(scope):
            return PREFLIGHT
        if self.docs and is_docs:
            return "docs"
        if self._patterns is not None and self._patterns.fullmatch(path) and not _AMBIGUOUS.search(path):
            return "path"
        if self._networks and self._is_in_networks(scope.get("client")):
            return "network"
        return None

    def _is_in_networks(self, client: Any) -> bool:
        """Return whether ASGI's ``client`` is in one of the networks."""
        host = client[0] if client else None
        if not isinstance(host, str):
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def items_of(option: str, value: object) -> tuple[Any, ...]:
    """Return an option's items as a tuple, or raise ``InvalidConfiguration`` for one string or no iterable."""
    if isinstance(value, str):
        raise InvalidConfiguration(f"{option}={value!r} is one string; write {option}=({value!r},)")
    if not isinstance(value, Iterable):
        raise InvalidConfiguration(f"{option} must be an iterable of strings, got {value!r}")
    return tuple(value)


_AMBIGUOUS = re.compile(r"//|/\.{1,2}(?:[/;]|$)|[\x00-\x1f\x7f\\]|%(?:[01][0-9a-f]|25|2e|2f|3b|5c|7f)", re.IGNORECASE)
"""Paths that a router and a proxy or file system may read differently, even after decoding them once more."""


def _pattern_of(path: object) -> str:
    """Return the regular expression for one exempt path."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidConfiguration(f"exempt path must be text that begins with '/', such as '/health', got {path!r}")
    for sign, advice in {
        "{": "write '*' where the route has a parameter",
        "?": "leave the query out",
        "#": "leave the fragment out",
        "%": "write the decoded path",
    }.items():
        if sign in path:
            raise InvalidConfiguration(f"exempt path {path!r} has {sign!r}: {advice}")
    if _AMBIGUOUS.search(path):
        raise InvalidConfiguration(f"exempt path {path!r} has '//', '/./', '/../', a backslash or a control character")
    if path == "/":
        return "/"
    blocks = [""]
    for segment in path.strip("/").split("/"):
        if segment == "**":
            blocks.append("")
        elif "**" in segment:
            raise InvalidConfiguration(f"exempt path {path!r}: '**' must be a whole segment, as in '/files/**'")
        else:
            blocks[-1] += _pattern_of_segment(segment)
    return _join_parts(blocks, "(?:/[^/]++)*") + "/?"


def _pattern_of_segment(segment: str) -> str:
    """Return the regular expression for one segment of an exempt path."""
    if segment == "*":
        return "/[^/]++"
    parts = [re.escape(part) for part in segment.split("*")]
    return f"/(?>{_join_parts(parts, '[^/]*')}(?![^/]))"


def _join_parts(parts: list[str], between: str) -> str:
    """Return the regular expression for parts with ``between`` between each two of them.

    Except for the last part, which is at the end, the first match of a part is as good as any later match. So no other
    is tried: to backtrack through all combinations could take seconds for a path that a client chose for that purpose.
    """
    if len(parts) == 1:
        return parts[0]
    first, *middle, last = parts
    return first + "".join(f"(?>{between}?{part})" for part in middle) + between + last


_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as a dual-stack socket reports them (RFC 4291, section 2.5.5.2)."""


def _network_of(network: object) -> IPv4Network | IPv6Network:
    """Return a parsed network, or raise ``InvalidConfiguration``."""
    if isinstance(network, (IPv4Network, IPv6Network)):
        return _unmap_network(network)
    if not isinstance(network, str) or not _CIDR.fullmatch(network):
        raise InvalidConfiguration(
            f"network must be text such as '10.0.0.0/8', '2001:db8::/32' or '192.0.2.7', "
            f"with the number of bits, not a mask, and without a zone, got {network!r}"
        )
    try:
        return _unmap_network(ip_network(network))
    except ValueError as error:
        advice = "; it must be text such as '10.0.0.0/8', '2001:db8::/32' or '192.0.2.7'"
        with suppress(ValueError):
            advice = f"; write {str(ip_network(network, strict=False))!r}, or one address without '/'"
        raise InvalidConfiguration(f"network {network!r}: {error}{advice}") from None


_CIDR = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")


def _unmap_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def is_preflight(scope: Scope) -> bool:
    """Return whether a request is a CORS preflight (Fetch standard, "CORS-preflight request")."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope.get("headers", ())}
    return b"origin" in names and b"access-control-request-method" in names
