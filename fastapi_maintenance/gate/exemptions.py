"""Which requests pass although their switch is on: preflights, docs pages, paths, networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from starlette.types import Scope

from ..exceptions import InvalidConfiguration
from .bypass import Bypass

PREFLIGHT = "preflight"
"""Why a preflight is exempt, as long as it has not come to an endpoint."""


@dataclass(frozen=True, slots=True)
class Exemptions:
    """What stays open during maintenance, beside the endpoints under ``@force_maintenance_mode_off``.

    Args:
        paths: Paths as the app's routes spell them, without ``root_path``: ``/health`` is that path alone,
            ``*`` stands for anything within one segment, ``**`` for any number of whole segments, none included
            (``/internal/**`` is ``/internal`` and all below it). Upper and lower case differ, one slash at the end
            does not count. A request's path with empty, ``.`` or ``..`` segments or control characters, or with dots,
            slashes and the like that are still encoded, is never exempt by its path.
        networks: Where clients are let in from, such as ``10.0.0.0/8``, ``2001:db8::/32`` or the one address
            ``192.0.2.7``. Judged by ``scope["client"]`` alone, which is the neighbour on the wire unless the server
            was told to trust a proxy: behind one that it wasn't told of, every client has the proxy's address. An
            IPv4 address is the same when it comes as ``::ffff:192.0.2.7``; an IPv6 zone does not count. A client
            without an address, as on a unix socket, is in no network.
        docs: FastAPI's own pages (docs, ReDoc, schema, OAuth2 redirect) of every app, at the URLs that it has.
        preflight: CORS preflights on their way to a ``CORSMiddleware``, without which a browser reports a network
            error instead of the 503. One that reaches an endpoint is judged there like any other request.
        bypass: Lets holders of a token pass.

    Raises:
        InvalidConfiguration: A path that can match nothing, or more than it says; a network that is none.
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
                raise InvalidConfiguration(f"{name}={value!r}: True or False is needed")
        patterns = [_pattern(path) for path in paths]
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "_patterns", re.compile("|".join(patterns)) if patterns else None)
        object.__setattr__(self, "networks", networks)
        object.__setattr__(self, "_networks", tuple(_network(network) for network in networks))
        if self.bypass is not None and not isinstance(self.bypass, Bypass):
            raise InvalidConfiguration(f"bypass: a Bypass(...) is needed, not {type(self.bypass).__name__}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Refuse to be a request's data: FastAPI asks for it when it is given a class in place of a guard."""
        raise InvalidConfiguration(
            "Depends(MaintenanceGuard) would guard nothing: write Depends(MaintenanceGuard(...)), with an instance"
        )

    def of_request(self, scope: Scope, path: str, *, is_docs: bool, preflight: bool = True) -> str | None:
        """Return why a request is exempt, or ``None``; ``path`` is the one that the app's routes see.

        ``preflight`` says whether a ``CORSMiddleware`` may still answer it.
        """
        if preflight and self.preflight and is_preflight(scope):
            return PREFLIGHT
        if self.docs and is_docs:
            return "docs"
        if self._patterns is not None and self._patterns.fullmatch(path) and not _ODD.search(path):
            return "path"
        if self._networks and self._is_near(scope.get("client")):
            return "network"
        return None

    def _is_near(self, client: Any) -> bool:
        """Return whether a client, as ASGI tells it, is in one of the networks."""
        host = client[0] if client else None
        if not isinstance(host, str):
            return False
        try:
            address = _same_in_ipv4(ip_address(host))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def items_of(option: str, value: object) -> tuple[Any, ...]:
    """Return the items of an option that takes several."""
    if isinstance(value, str):
        raise InvalidConfiguration(f"{option}={value!r} is one string; write {option}=({value!r},)")
    if not isinstance(value, Iterable):
        raise InvalidConfiguration(f"{option}={value!r}: several are needed, such as a tuple of strings")
    return tuple(value)


_ODD = re.compile(r"//|/\.{1,2}(?:[/;]|$)|[\x00-\x1f\x7f\\]|%(?:[01][0-9a-f]|25|2e|2f|3b|5c|7f)", re.IGNORECASE)
"""Paths that a router and a proxy or file system may read differently, also if they decode them once more."""


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
    blocks = [""]
    for segment in path.strip("/").split("/"):
        if segment == "**":
            blocks.append("")
        elif "**" in segment:
            raise InvalidConfiguration(f"exempt path {path!r}: '**' stands for whole segments, as in '/files/**'")
        else:
            blocks[-1] += _segment(segment)
    return _one_after_the_other(blocks, "(?:/[^/]++)*") + "/?"


def _segment(segment: str) -> str:
    """Return the regular expression of one segment of an exempt path."""
    if segment == "*":
        return "/[^/]++"
    parts = [re.escape(part) for part in segment.split("*")]
    return f"/(?>{_one_after_the_other(parts, '[^/]*')}(?![^/]))"


def _one_after_the_other(parts: list[str], between: str) -> str:
    """Return the regular expression of parts with anything between two of them.

    But for the last part, which is at the end, the first place where a part fits is as good as any later one. So no
    other place is tried: all combinations of places would take seconds, for a path that a client chose for that.
    """
    if len(parts) == 1:
        return parts[0]
    first, *middle, last = parts
    return first + "".join(f"(?>{between}?{part})" for part in middle) + between + last


_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as a socket for both versions tells them (RFC 4291, section 2.5.5.2)."""


def _network(network: object) -> IPv4Network | IPv6Network:
    """Return one network that clients are let in from."""
    if isinstance(network, (IPv4Network, IPv6Network)):
        return _same_in_ipv4_network(network)
    if not isinstance(network, str) or not _CIDR.fullmatch(network):
        raise InvalidConfiguration(
            f"network {network!r}: text such as '10.0.0.0/8', '2001:db8::/32' or '192.0.2.7' is needed, "
            "with the number of bits, not a mask, and without a zone"
        )
    try:
        return _same_in_ipv4_network(ip_network(network))
    except ValueError as error:
        advice = "; text such as '10.0.0.0/8', '2001:db8::/32' or '192.0.2.7' is needed"
        with suppress(ValueError):
            advice = f"; write {str(ip_network(network, strict=False))!r}, or one address without '/'"
        raise InvalidConfiguration(f"network {network!r}: {error}{advice}") from None


_CIDR = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")


def _same_in_ipv4_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _same_in_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_preflight(scope: Scope) -> bool:
    """Return whether a request is a CORS preflight (Fetch standard, "CORS-preflight request")."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope.get("headers", ())}
    return b"origin" in names and b"access-control-request-method" in names
