"""Dependencies that refuse requests from other machines and sites."""

from __future__ import annotations

import re
from ipaddress import ip_address

from fastapi import Request, Response
from starlette.status import HTTP_403_FORBIDDEN, HTTP_415_UNSUPPORTED_MEDIA_TYPE

from .refusals import NO_STORE, refusal_of


def forbid_caching(response: Response) -> None:
    """Forbid caching of the response."""
    response.headers.update(NO_STORE)


_HOST = re.compile(r"(?:(localhost)|\[([0-9a-f:.]++)\]|([0-9.]++))(?::[0-9]*+)?", re.IGNORECASE)
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def require_own_machine(request: Request) -> None:
    """Refuse clients on other machines, and sites whose names resolve to this one (DNS rebinding)."""
    client, hosts = request.client, request.headers.getlist("host")
    if client is not None and len(hosts) == 1 and not any(name in request.headers for name in _PROXY_HEADERS):
        is_test = client.host == "testclient"
        name = _HOST.fullmatch(hosts[0])
        is_local = name is not None and (name[1] or _is_loopback(name[2] or name[3]))
        if (is_test or _is_loopback(client.host)) and (is_local or (is_test and hosts == ["testserver"])):
            return
    host = None if client is None else client.host
    raise refusal_of(
        HTTP_403_FORBIDDEN,
        "maintenance_admin(insecure=True) accepts only clients on this machine that request localhost, without a "
        f"proxy or unix socket, got client {host!r} requesting {hosts!r}; elsewhere, replace insecure=True with "
        "dependencies=[Depends(...)] that admit only operators",
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def require_same_site(request: Request) -> None:
    """Refuse a change requested by another site in the operator's browser (CSRF)."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site is not None and site not in ("same-origin", "none")
    # Only the host is compared, because a proxy that terminates TLS changes the scheme.
    if foreign or (origin is not None and origin.partition("://")[2] != request.headers.get("host")):
        raise refusal_of(HTTP_403_FORBIDDEN, "this request comes from another site")


def require_json(request: Request) -> None:
    """Refuse bodies other than JSON: another site's form can send those without a CORS preflight."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refusal_of(HTTP_415_UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be application/json, got {kind!r}")
