"""Bypass tokens: testers get in during maintenance by a link, a cookie or a header.

A token is signed, expires, and is bound to its switches and to the maintenance that they are under.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict
from starlette.types import Scope

from ..backends.base import BaseStateBackend, StateBackend
from ..exceptions import InvalidConfiguration, MissingExtra, NotUnderMaintenance
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..switches.app_switch import DEFAULT, instead_of_meant
from ..switches.registry import registry
from ..switches.views import view_of
from .callbacks import call

if TYPE_CHECKING:
    from itsdangerous import Signer


logger = logging.getLogger("fastapi_maintenance")

DEFAULT_LIFETIME = timedelta(hours=8)
MAX_LIFETIME = timedelta(days=30)

_LEAST_SECRET_BYTES = 16
_MOST_TOKEN_CHARACTERS = 2048
"""What fits into a cookie, with room for others."""
_MAX_TOKENS = 32
"""How many tokens of one request are verified for one switch."""
_MAX_COOKIE_BYTES = 65_536
"""How much of the cookies is read: servers and proxies with limits accept no more."""

_HOST_PREFIX = "__Host-"
"""Makes browsers refuse the cookie from anybody but this very host, by https (RFC 6265bis)."""

_URL_ATTRIBUTES = ("url.query", "url.full", "http.url", "http.target")
"""The attributes of a span that have the query, by both semantic conventions of OpenTelemetry."""

_SCOPE_KEY = "fastapi_maintenance.bypass"
"""Where the scope of a request keeps what was taken out of its query."""

_FORM = r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{43})"
_TOKEN = re.compile(_FORM)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


_NO_TIME = "since "
"""What identifies a maintenance of which nobody knows when it began."""


def maintenance_ids(state: MaintenanceState, now: datetime) -> list[str]:
    """Return what tells the maintenance that a switch is under from those before and after it.

    It is the time at which the stored mode began to block, the starts of the windows that go on, and the blocks that
    hold the switch on; a new token is bound to the first of these, and good for as long as that one is there. So one
    for tonight does not open next week's occurrence of the same window, and a corrected maintenance, which keeps its
    ``since``, keeps its tokens. A store of on or off only (an environment variable, a backend of two methods) knows no
    time: there it is always the same.
    """
    if state.version == 0:
        return [_NO_TIME]
    began = [] if state.stored_mode_at(now) is MaintenanceMode.OFF else [state.since]
    if state.windows:
        began += [going_on.start for going_on in state.timetable.all_at(now)]
    since = [_NO_TIME if at is None else f"since {at.astimezone(UTC).isoformat()}" for at in began]
    held = [f"held {id_}" for id_, hold in state.holds_at(now).items() if hold.kind == "on"]
    return [*since, *held] or [_NO_TIME]


def _digests(switch: str, state: MaintenanceState, now: datetime) -> list[str]:
    """Return the identities of a switch's maintenance as tokens have them."""
    ids = maintenance_ids(state, now)
    return [hashlib.sha256(f"{switch} {id_}".encode()).hexdigest()[:16] for id_ in ids]


class Claims(BaseModel):
    """What a token says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    holder: str
    expires: int
    """Seconds since 1970."""
    opens: dict[str, str]
    """The switches, and of each the maintenance."""

    def admit(self, switch: str, state: MaintenanceState, now: datetime) -> bool:
        """Return whether a holder of this passes while ``switch`` is in ``state``."""
        return self.opens.get(switch) in _digests(switch, state, now)


Revoked = Callable[[str], bool | Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class Bypass:
    """Lets holders of a token pass, as ``Exemptions(bypass=Bypass(secret))``. Needs the extra ``bypass``.

    A token comes by a link, ``?maintenance_bypass=<token>`` on any URL, which is answered with a cookie and a
    redirect to the same URL without it; or in the header ``X-Maintenance-Bypass``. It opens the switches that it was
    made for, until it expires, the maintenance is over, it is revoked, or the secret is changed. It never opens an
    endpoint under ``@force_maintenance_mode_on``.

    Args:
        secret: At least 16 random bytes, as text or bytes: ``python -c "import secrets;
            print(secrets.token_urlsafe(32))"``. The same for all workers, another for each service. Of several, the
            first one signs, and tokens of the others are still good: so a secret is replaced.
        parameter: The link's query parameter.
        header: The header for API clients.
        cookie: What the cookie's name begins with.
        revoked: Called with the ``holder`` of a valid token; a true answer refuses it. Sync (run off the event loop)
            or async, such as ``{"alice"}.__contains__``. One that raises refuses everybody.

    Raises:
        InvalidConfiguration: The secret is too short, or another option can't work.
        MissingExtra: ``itsdangerous`` isn't installed.
    """

    secret: InitVar[str | bytes | Iterable[str | bytes]]
    _: KW_ONLY
    parameter: str = "maintenance_bypass"
    header: str = "X-Maintenance-Bypass"
    cookie: str = "maintenance_bypass"
    revoked: Revoked | None = None
    _in_query: re.Pattern[bytes] = field(init=False, repr=False)
    _in_cookies: re.Pattern[str] = field(init=False, repr=False)
    _signer: Signer = field(init=False, repr=False)

    def __post_init__(self, secret: str | bytes | Iterable[str | bytes]) -> None:
        for option in ("parameter", "header", "cookie"):
            value = getattr(self, option)
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise InvalidConfiguration(f"{option}={value!r}: letters, digits, '_' and '-' are needed")
        if self.revoked is not None and not callable(self.revoked):
            raise InvalidConfiguration(
                f"revoked={self.revoked!r}: a function is needed, such as {{'alice'}}.__contains__"
            )
        secrets = _secrets(secret)
        try:
            from itsdangerous import Signer  # noqa: PLC0415 - an optional dependency
        except ImportError:
            raise MissingExtra("Bypass", "bypass") from None
        signer = Signer(
            secrets[::-1],  # the last one signs
            salt=b"fastapi_maintenance.bypass",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        object.__setattr__(self, "_signer", signer)
        # One search, as it is done for every request that has a query: each letter as it is, or encoded.
        letters = "".join(f"(?:{letter}|(?i:%{ord(letter):02x}))" for letter in self.parameter)
        object.__setattr__(self, "_in_query", re.compile(rf"(?:^|&){letters}(?:=([^&]*+))?(?=&|\Z)".encode()))
        cookie = rf"(?:^|;)[ \t]*+({_HOST_PREFIX})?{self.cookie}\.([^;=]++)=({_FORM})[ \t]*+(?=;|\Z)"
        object.__setattr__(self, "_in_cookies", re.compile(cookie))

    async def token(
        self,
        *switches: str,
        lifetime: timedelta | float = DEFAULT_LIFETIME,
        holder: str = "",
        backend: BaseStateBackend | None = None,
    ) -> str:
        """Return a token for the maintenance that switches are under now.

        Args:
            switches: Their names; none means the default one. A guard of ``"billing"`` blocks by the default switch
                as well: a token that is to pass both is made for both.
            lifetime: Seconds or a ``timedelta``, 30 days at most.
            holder: Whom it is for, to be revoked by. Whoever has the token can read it.
            backend: As for ``get_maintenance_state``.

        Raises:
            NotUnderMaintenance: A switch is off, so there is no maintenance that a token could be bound to. Where
                the store has on or off only, a token can be made beforehand.
            InvalidConfiguration: An option can't work.
            InvalidSwitchName: A name can't be a switch's.
            AmbiguousSwitch: As for ``get_maintenance_state``.
        """
        now = datetime.now(UTC)
        seconds = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
        if not 0 < seconds <= MAX_LIFETIME.total_seconds():
            raise InvalidConfiguration(f"lifetime={lifetime!r}: more than 0 seconds and at most 30 days are needed")
        opens = {}
        for switch in switches or (DEFAULT,):
            opens[switch] = _digests(switch, await _state_under_maintenance(switch, backend, now), now)[0]
        token = self.sign(Claims(holder=holder, expires=math.ceil(now.timestamp() + seconds), opens=opens))
        if len(token) > _MOST_TOKEN_CHARACTERS:
            raise InvalidConfiguration(
                f"a token of {len(token)} characters can't be a cookie, at most {_MOST_TOKEN_CHARACTERS} can: "
                "name fewer switches or a shorter holder"
            )
        return token

    async def link(
        self,
        url: str,
        *switches: str,
        lifetime: timedelta | float = DEFAULT_LIFETIME,
        holder: str = "",
        backend: BaseStateBackend | None = None,
    ) -> str:
        """Return ``url`` with a new token in its query; takes and raises what ``token`` does.

        ``url`` begins with ``https://``, ``http://`` or ``/``. A token that it has is replaced.
        """
        parts = urlsplit(url)
        if not (parts.scheme in ("http", "https") and parts.netloc) and not (url[:1] == "/" and not parts.netloc):
            raise InvalidConfiguration(f"url={url!r}: one that begins with 'https://', 'http://' or '/' is needed")
        token = await self.token(*switches, lifetime=lifetime, holder=holder, backend=backend)
        kept, _ = self._parted(parts.query.encode())
        query = "&".join([*filter(None, [kept.decode()]), f"{self.parameter}={token}"])
        return parts._replace(query=query).geturl()

    def sign(self, claims: Claims) -> str:
        """Return the token that says ``claims``."""
        from itsdangerous import base64_encode  # noqa: PLC0415 - an optional dependency

        return self._signer.sign(base64_encode(claims.model_dump_json())).decode()

    def claims_of(self, token: str, now: datetime) -> Claims | None:
        """Return what a token says, or ``None`` unless it is one of ours, letter by letter, and not expired."""
        from itsdangerous import BadData, base64_decode, base64_encode  # noqa: PLC0415 - an optional dependency

        form = _TOKEN.fullmatch(token) if len(token) <= _MOST_TOKEN_CHARACTERS else None
        # The last letter of a signature has two bits to spare, which decoding ignores.
        if form is None or base64_encode(base64_decode(form[1])).decode() != form[1]:
            return None
        try:
            said = base64_decode(self._signer.unsign(token))  # compares in constant time
            claims = Claims.model_validate_json(said)
        except (BadData, ValueError):  # not ours, or what another version of this package said
            return None
        return claims if now.timestamp() < claims.expires else None

    async def admits(self, scope: Scope, switch: str, state: MaintenanceState, now: datetime) -> bool:
        """Return whether a request has a token that opens ``switch`` while it is in ``state``."""
        for token in islice(self._presented(scope, switch), _MAX_TOKENS):
            claims = self.claims_of(token, now)
            if claims is not None and claims.admit(switch, state, now) and not await self._is_revoked(claims):
                return True
        return False

    def take(self, scope: Scope) -> bool:
        """Take the token out of a request's query, so that nobody after us sees it; return whether there was one.

        The scope is changed in place: what logs the request at its end, as servers do, sees the query without it.
        """
        query = scope.get("query_string", b"")
        if query and self._in_query.search(query):
            kept, token = self._parted(query)
            scope["query_string"] = kept
            scope.setdefault(_SCOPE_KEY, _Taken()).tokens.setdefault(self.parameter, token)
            self._redact_spans(scope)
        return self._taken(scope) is not None

    def _redact_spans(self, scope: Scope) -> None:
        """Take the token out of the spans of a request that were begun before us.

        FastAPI's own span is outside of every middleware, and another one may be the current one by now.
        """
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return
        spans: tuple[Any, Any] = trace.get_current_span(), getattr(scope.get("fastapi.telemetry"), "span", None)
        for span in spans:
            attributes = getattr(span, "attributes", None)
            if not isinstance(attributes, Mapping) or not span.is_recording():  # only an SDK's span can be read
                continue
            for name in _URL_ATTRIBUTES:
                value = attributes.get(name)
                if isinstance(value, str):
                    span.set_attribute(name, self._redact(value, is_query=name == "url.query"))

    def _redact(self, url: str, *, is_query: bool) -> str:
        """Return a URL or a query without our parameter."""
        place, mark, query = ("", "", url) if is_query else url.partition("?")
        kept = self._parted(query.encode(errors="surrogatepass"))[0].decode(errors="surrogatepass")
        return f"{place}{mark}{kept}" if kept else place

    async def answer_to_link(
        self, scope: Scope, blocking: Callable[[str], Awaitable[MaintenanceState | None]], now: datetime
    ) -> Mapping[str, str] | None:
        """Return the headers of the redirect that gives the holder of a link its cookie, or ``None``.

        Only requests that read are redirected: another one would lose its body, and is let pass by its token.

        Args:
            scope: What ``take`` took a token from.
            blocking: Returns the state of a switch that blocks anything now, else ``None``.
            now: An aware time.
        """
        token = self._taken(scope)
        if token is None or scope.get("method") not in ("GET", "HEAD"):
            return None
        claims = self.claims_of(token, now)
        if claims is None:
            return None
        for switch in claims.opens:
            state = await blocking(switch)
            if state is not None and claims.admit(switch, state, now):
                break
        else:
            return None
        if await self._is_revoked(claims):
            return None
        logger.info("bypass: the link of %r was opened, for %s", claims.holder, ", ".join(claims.opens))
        return {
            "Location": _same_place(scope),
            "Set-Cookie": self._cookie(scope, token, claims, now),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }

    def _cookie(self, scope: Scope, token: str, claims: Claims, now: datetime) -> str:
        # One for each set of switches, so that a link for another part of the service takes nothing away.
        name = ".".join((self.cookie, *sorted(claims.opens)))
        is_secure = scope.get("scheme") == "https"
        return (
            f"{_HOST_PREFIX if is_secure else ''}{name}={token}; Max-Age={int(claims.expires - now.timestamp())}; "
            f"Path=/; HttpOnly; SameSite=Lax{'; Secure' if is_secure else ''}"
        )

    async def _is_revoked(self, claims: Claims) -> bool:
        if self.revoked is None:
            return False
        try:
            return bool(await call(self.revoked, claims.holder))
        except Exception:
            logger.exception("bypass: revoked() failed, so the token of %r is refused", claims.holder)
            return True

    def _parted(self, query: bytes) -> tuple[bytes, str]:
        """Return a query without our parameter, and the parameter's first value."""
        query = b"&" + query
        first = self._in_query.search(query)
        # A longer value is no token, even if all of its characters are encoded, and its beginning is too long for one.
        value = first[1][: 4 * _MOST_TOKEN_CHARACTERS] if first and first[1] else b""
        return self._in_query.sub(b"", query)[1:], unquote(value.decode("latin-1"))

    def _taken(self, scope: Scope) -> str | None:
        taken: _Taken | None = scope.get(_SCOPE_KEY)
        return None if taken is None else taken.tokens.get(self.parameter)

    def _presented(self, scope: Scope, switch: str) -> Iterator[str]:
        """Yield the tokens for a switch that a request came with, those first that nobody else can have put there."""
        token = self._taken(scope)
        if token is not None:
            yield token
        header, cookies = self.header.lower().encode(), []
        for name, value in scope.get("headers", ()):
            if name.lower() == header:
                yield value.decode("latin-1").strip()
            elif name.lower() == b"cookie":
                cookies.append(value)
        found = self._in_cookies.findall(b";".join(cookies)[:_MAX_COOKIE_BYTES].decode("latin-1"))
        # Neighbouring hosts can set cookies for this one, except those with the prefix.
        for _, switches, token, _ in sorted(found, key=lambda cookie: not cookie[0]):
            if switch in switches.split("."):
                yield token


def hand_over(scope: Scope, inner: Scope) -> None:
    """Give the tokens that were taken out of a request's query to a request that is made within it."""
    if _SCOPE_KEY in scope:
        inner.setdefault(_SCOPE_KEY, scope[_SCOPE_KEY])


class _Taken:
    """What was taken out of a request's query: parameter to token. Not to be shown, so it has no ``repr``."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}


def _secrets(secret: object) -> list[bytes]:
    """Return the secrets as bytes; an error tells their length and never what they are."""
    given = [secret] if isinstance(secret, (str, bytes)) else secret if isinstance(secret, Iterable) else ()
    secrets: list[bytes] = []
    for one in given:
        if not isinstance(one, (str, bytes)):
            secrets = []
            break
        # What is no UTF-8 in a variable comes as surrogates.
        secrets.append(one if isinstance(one, bytes) else one.encode(errors="surrogatepass"))
    if not secrets:
        raise InvalidConfiguration(
            f"secret: text, bytes, or several of these are needed, not {type(secret).__name__}; is the variable set?"
        )
    shortest = min(map(len, secrets))
    if shortest < _LEAST_SECRET_BYTES:
        raise InvalidConfiguration(
            f"secret: {shortest} bytes can be guessed, at least {_LEAST_SECRET_BYTES} random ones are needed: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return secrets


async def _state_under_maintenance(switch: str, backend: BaseStateBackend | None, now: datetime) -> MaintenanceState:
    """Return the state of a switch for a token that is made from outside or inside a request."""
    meant = registry.meant(backend, switch)
    view = view_of(meant)
    state = view.peek() or await view.read()
    instead = instead_of_meant(backend, switch)
    if isinstance(meant, StateBackend) and state.mode_at(now, instead=instead) is MaintenanceMode.OFF:
        raise NotUnderMaintenance(switch)
    return state


def _same_place(scope: Scope) -> str:
    """Return a reference from a request's URL to the same URL with the query that the request has now.

    It is relative (RFC 3986, section 4.2) and begins with ``?`` or ``./``: with no host, scheme or leading slash in
    it, nobody can read it as another host's, and a prefix that a proxy took away stays. ``?`` alone would keep the
    query for some clients, such as those on ``urllib.parse.urljoin``.
    """
    query = scope["query_string"]
    if query:
        return "?" + quote(query, safe="%!$&'()*+,;=:@/?~")
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    return "./" + quote(path.rpartition(b"/")[2], safe="%!$&'()*+,;=:@~")
