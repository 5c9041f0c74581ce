"""Which requests the desk accepts."""

from __future__ import annotations

import re
from ipaddress import ip_address

from fastapi import Request, Response
from starlette.status import HTTP_403_FORBIDDEN, HTTP_415_UNSUPPORTED_MEDIA_TYPE

from .refusals import NOT_KEPT, refusal


def keep_out_of_caches(response: Response) -> None:
    """Have no cache keep what the API answers."""
    response.headers.update(NOT_KEPT)


# Against other machines and sites


_HOST = re.compile(r"(?:(localhost)|\[([0-9a-f:.]++)\]|([0-9.]++))(?::[0-9]*+)?", re.IGNORECASE)
_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def own_machine(request: Request) -> None:
    """Refuse clients on other machines, and pages of other sites whose names lead here (DNS rebinding)."""
    client, hosts = request.client, request.headers.getlist("host")
    if client is not None and len(hosts) == 1 and not any(name in request.headers for name in _OF_PROXIES):
        is_test = client.host == "testclient"
        name = _HOST.fullmatch(hosts[0])
        is_local = name is not None and (name[1] or _is_loopback(name[2] or name[3]))
        if (is_test or _is_loopback(client.host)) and (is_local or (is_test and hosts == ["testserver"])):
            return
    raise refusal(
        HTTP_403_FORBIDDEN,
        "maintenance_admin(insecure=True) answers only clients on this machine that ask for localhost, with no proxy "
        f"or unix socket in between, not {None if client is None else client.host!r} asking for {hosts!r}; anywhere "
        "else, replace insecure=True by dependencies=[Depends(...)] with what lets operators in",
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def same_site(request: Request) -> None:
    """Refuse a change that a page of another site makes its visitor's browser ask for."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site is not None and site not in ("same-origin", "none")
    # Only the host is compared: a proxy that ends TLS changes the scheme.
    if foreign or (origin is not None and origin.partition("://")[2] != request.headers.get("host")):
        raise refusal(HTTP_403_FORBIDDEN, "this request comes from another site")


def json_only(request: Request) -> None:
    """Refuse bodies that a form of another site can send: only JSON needs the site's consent (CORS)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refusal(HTTP_415_UNSUPPORTED_MEDIA_TYPE, f"Content-Type {kind!r}: application/json is needed")
