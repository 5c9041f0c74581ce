"""Allowed networks: which clients are in one, and which spellings are refused."""

# No `from __future__ import annotations`: FastAPI reads the annotations of endpoints made in functions.

import ipaddress
import re
import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_maintenance import (
    Exemptions,
    InvalidConfiguration,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_on,
)
from tests.support.asgi import call, handshake, scope_of, status
from tests.support.servers import uvicorn_server
from tests.support.traffic import wait_until

pytestmark = pytest.mark.anyio


def is_near(host: object, *networks: Any) -> bool:
    """Return whether a client's host is in one of the networks."""
    scope = scope_of(client=(host, 50000))
    return Exemptions(networks=networks).of_request(scope, "/", is_docs=False) == "network"


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        (
            "10.0.0.0/8",
            ["10.0.0.0", "10.255.255.255", "::ffff:10.0.0.1", "::ffff:a00:1"],
            ["11.0.0.1", "9.255.255.255"],
        ),
        ("10.0.0.1", ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.100", "10.0.0.10", "110.0.0.1", "10.0.0.2"]),
        ("10.0.0.1/32", ["10.0.0.1"], ["10.0.0.0"]),
        ("127.0.0.0/8", ["127.0.0.1"], ["::1", "localhost"]),
        ("::1", ["::1", "0:0:0:0:0:0:0:1", "::1%lo"], ["::2", "127.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.1"]),
        ("::1/128", ["::1"], ["::"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:DB8:FFFF::"], ["2001:db9::1", "32.1.13.184"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0", "febf::%1"], ["fec0::1", "fec0::1%fe80"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "::10.1.2.3"]),
        ("::ffff:192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7%eth0"], ["192.0.2.8"]),
        ("::ffff:0:0/96", ["1.2.3.4"], ["::1"]),
        ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["::1", "2001:db8::1", "::1.2.3.4", "64:ff9b::1.2.3.4"]),
        ("::/0", ["::1", "2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        (IPv4Network("10.0.0.0/8"), ["10.0.0.1"], ["11.0.0.1"]),
        (IPv6Network("::ffff:10.0.0.0/104"), ["10.0.0.1"], ["::1"]),
    ],
)
def test_a_client_is_in_a_network_or_not(network: Any, inside: list[str], outside: list[str]) -> None:
    """By numbers, never by how an address is spelled; a mapped address is the IPv4 address that it is."""
    assert [host for host in inside if not is_near(host, network)] == []
    assert [host for host in outside if is_near(host, network)] == []


@pytest.mark.parametrize(
    "client",
    [
        None,
        (),
        [],
        "",
        ("", 0),
        (None, None),
        ("unix:", 0),
        ("/run/service.sock", None),
        ("testclient", 50000),
        ("localhost", 1),
        ("10.0.0.1:80", 1),
        ("[::1]", 1),
        ("010.0.0.1", 1),
        ("10.1", 1),
        ("0x0a000001", 1),
        (" 10.0.0.1", 1),
        ("10.0.0.1\n", 1),
        ("10.0.0.1%eth0", 1),
        ("10.0.0.1/8", 1),
        ("10.0.0.1, 8.8.8.8", 1),
        ("\u0967\u0966.\u0966.\u0966.\u0967", 1),
        ("\u0661\u0660.0.0.1", 1),
        ("::1%", 1),
        (167772161, 1),
        (b"10.0.0.1", 1),
        (IPv4Address("10.0.0.1"), 1),
    ],
)
def test_what_is_no_address_is_in_no_network(client: Any) -> None:
    """Nobody is let in on a guess."""
    everywhere = Exemptions(networks=("0.0.0.0/0", "::/0"))
    assert everywhere.of_request(scope_of(client=client), "/", is_docs=False) is None
    scope = scope_of()
    del scope["client"]
    assert everywhere.of_request(scope, "/", is_docs=False) is None


def test_a_client_may_come_as_a_list() -> None:
    """As ASGI allows for."""
    assert Exemptions(networks=["10.0.0.1"]).of_request(scope_of(client=["10.0.0.1", 1]), "/", is_docs=False)


@settings(deadline=None)
@given(
    st.one_of(st.ip_addresses(network="10.0.0.0/29"), st.ip_addresses(network="2001:db8::/125")),
    st.one_of(st.ip_addresses(network="10.0.0.0/29"), st.ip_addresses(network="2001:db8::/125")),
    st.integers(0, 8),
    st.booleans(),
    st.booleans(),
)
def test_membership_is_that_of_the_highest_bits(
    client: IPv4Address | IPv6Address,
    address: IPv4Address | IPv6Address,
    host_bits: int,
    is_client_mapped: bool,
    is_network_mapped: bool,
) -> None:
    """And mapping either side changes nothing."""
    expected = client.version == address.version and int(client) >> host_bits == int(address) >> host_bits
    first, bits = int(address) >> host_bits << host_bits, address.max_prefixlen - host_bits
    network = f"{type(address)(first)}/{bits}"
    if is_network_mapped and address.version == 4:
        network = f"::ffff:{IPv4Address(first)}/{bits + 96}"
    host = f"::ffff:{client}" if is_client_mapped and client.version == 4 else str(client)
    assert is_near(host, network) is expected


@settings(deadline=None)
@given(st.text(st.sampled_from("0123456789abcdefx.:/% "), max_size=20))
def test_no_text_breaks_it(text: str) -> None:
    """Neither as a client nor as a network."""
    expected = True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        expected = False
    assert is_near(text, "0.0.0.0/0", "::/0") is expected
    try:
        Exemptions(networks=[text])
    except InvalidConfiguration as error:
        assert repr(text) in str(error)  # noqa: PT017 - it need not raise
    else:
        assert str(ipaddress.ip_network(text))


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        ("10.0.0.1/8", "has host bits set; write '10.0.0.0/8', or one address without '/'"),
        ("2001:db8::1/32", "write '2001:db8::/32'"),
        ("::ffff:10.0.0.1/104", "has host bits set"),
        ("10.0.0.0/33", "'10.0.0.0/33'"),
        ("10.0.0/8", "; it must be text such as '10.0.0.0/8', '2001:db8::/32' or '192.0.2.7'"),
        ("10.0.0.0/", "with the number of bits"),
        ("10.0.0.0/255.0.0.0", "not a mask"),
        ("10.0.0.0/0.255.255.255", "not a mask"),
        ("fe80::1%eth0", "without a zone"),
        ("10.*", "text such as"),
        ("localhost", "text such as"),
        ("", "text such as"),
        ("10.0.0.0 /8", "text such as"),
        ("010.0.0.0/8", "'010.0.0.0/8'"),
        (10, "text such as"),
        (b"\n\0\0\1", "text such as"),
        (None, "text such as"),
        (IPv4Address("10.0.0.1"), "text such as"),
    ],
)
def test_a_network_that_is_none_is_refused_at_once(network: Any, advice: str) -> None:
    """The message has it, and what to write instead."""
    with pytest.raises(InvalidConfiguration) as error:
        Exemptions(networks=["127.0.0.1", network])
    assert repr(network) in str(error.value)
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("networks", "advice"), [("10.0.0.0/8", "write networks=('10.0.0.0/8',)"), (None, "must be an iterable")]
)
def test_networks_are_several(networks: Any, advice: str) -> None:
    """One string is not taken for its letters."""
    with pytest.raises(InvalidConfiguration, match=re.escape(advice)):
        Exemptions(networks=networks)


def test_networks_may_come_from_any_iterable() -> None:
    """They are read once, and kept as they were written."""
    exemptions = Exemptions(networks=(network for network in ("10.0.0.0/8", "::1")))
    assert exemptions.networks == ("10.0.0.0/8", "::1")
    assert exemptions == Exemptions(networks=["10.0.0.0/8", "::1"])


def app_for(*networks: str) -> FastAPI:
    """Return an app under maintenance that is open for networks."""
    made = FastAPI()
    made.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exemptions=Exemptions(networks=networks))

    @made.get("/")
    async def read() -> str:
        return "read"

    @made.get("/forced")
    @force_maintenance_mode_on
    async def forced() -> str:
        raise AssertionError

    return made


CLAIMS = {
    "X-Forwarded-For": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "X-Real-IP": "10.0.0.1",
    "X-Client-IP": "10.0.0.1",
    "True-Client-IP": "10.0.0.1",
    "CF-Connecting-IP": "10.0.0.1",
    "X-Forwarded-Host": "10.0.0.1",
    "Host": "10.0.0.1",
}


async def test_what_a_client_says_of_itself_does_not_count() -> None:
    """No header is read."""
    app = app_for("10.0.0.0/8")
    assert (await call(app, scope_of(client=("10.0.0.1", 1)))).status == 200
    assert (await call(app, scope_of(client=("203.0.113.7", 1), headers=CLAIMS))).status == 503
    assert (await call(app, scope_of(client=None, headers=CLAIMS))).status == 503


async def test_a_network_does_not_open_what_is_forced_on() -> None:
    """Nothing does."""
    assert (await call(app_for("10.0.0.0/8"), scope_of("/forced", client=("10.0.0.1", 1)))).status == 503


async def test_a_guard_and_a_websocket_are_open_for_networks_alike() -> None:
    """It is the same decision."""
    configure_backend("memory", initial=True)
    guard = MaintenanceGuard(exemptions=Exemptions(networks=["10.0.0.0/8"]))
    app = FastAPI(dependencies=[Depends(guard)])

    @app.get("/")
    async def read() -> None: ...

    assert (await call(app, scope_of(client=("10.0.0.1", 1)))).status == 200
    assert (await call(app, scope_of(client=("11.0.0.1", 1)))).status == 503
    ws = MaintenanceModeMiddleware(accept, enable_maintenance=True, exemptions=Exemptions(networks=["10.0.0.0/8"]))
    assert (await handshake(ws, client=("10.0.0.1", 1))).accepted
    assert not (await handshake(ws, client=("11.0.0.1", 1))).accepted


async def accept(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})


async def test_a_handler_is_not_asked_about_a_neighbour() -> None:
    """The cheaper answer comes first."""
    asked: list[object] = []

    def ask(request: object) -> bool:
        asked.append(request)
        return False

    app = MaintenanceModeMiddleware(
        FastAPI(),
        enable_maintenance=True,
        exempt_handler=ask,
        exemptions=Exemptions(networks=["203.0.113.7"]),
    )
    assert await status(app, "/docs") == 200
    assert asked == []


@pytest.mark.parametrize(
    ("trusted", "claim", "expected"),
    [
        ("192.0.2.1", "10.0.0.1", 503),
        (None, "10.0.0.1", 200),  # uvicorn trusts 127.0.0.1 unless it is told otherwise
        ("127.0.0.1", "10.0.0.1", 200),
        ("127.0.0.1", "::ffff:10.0.0.1", 200),
        ("127.0.0.1", "10.0.0.1, 203.0.113.7", 503),
        ("127.0.0.1,203.0.113.7", "10.0.0.1, 203.0.113.7", 200),
        ("127.0.0.1", "203.0.113.7, 10.0.0.1", 200),
        ("127.0.0.1", "unknown", 503),
        ("127.0.0.1", "10.0.0.1%eth0", 503),
        ("*", "10.0.0.1, 203.0.113.7", 200),
    ],
)
def test_behind_a_proxy_the_server_says_who_the_client_is(
    monkeypatch: pytest.MonkeyPatch, trusted: str | None, claim: str, expected: int
) -> None:
    """With uvicorn's own option, as the docs tell; trusting everybody means trusting the client."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if trusted is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)  # the option's default
    with uvicorn_server(app_for("10.0.0.0/8")) as server:
        assert httpx.get(server.http(), headers={"X-Forwarded-For": claim}).status_code == expected


def test_a_unix_socket_is_in_no_network(tmp_path: Path) -> None:
    """There the server knows no address."""
    path = str(tmp_path / "socket")
    config = uvicorn.Config(app_for("0.0.0.0/0", "::/0"), uds=path, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 20)
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as one:
            assert one.get("http://x/").status_code == 503
            assert one.get("http://x/", headers=CLAIMS).status_code == 503
    finally:
        server.should_exit = True
        thread.join(20)
