"""Bypass tokens: testers pass during maintenance with a link, a cookie or a header.

A token is signed, expires, and is bound to its switches and their current maintenance.
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
from ..switches.app_switch import DEFAULT, AppSwitch
from ..switches.control import get_maintenance_state
from ..switches.passage import SCOPE_KEY, Passage, override_of_meant, passage_of, with_outer_passages
from ..switches.registry import registry
from .callbacks import call

if TYPE_CHECKING:
    from itsdangerous import Signer


logger = logging.getLogger("fastapi_maintenance")

DEFAULT_LIFETIME = timedelta(hours=8)
MAX_LIFETIME = timedelta(days=30)

_LEAST_SECRET_BYTES = 16
_MOST_TOKEN_CHARACTERS = 2048
"""A cookie can hold this, with room for other cookies."""
_MAX_TOKENS = 32
"""The most tokens of one request that are verified for one switch."""
_MAX_COOKIE_BYTES = 65_536
"""The most bytes of cookies that are read; servers and proxies with limits accept no more."""

_HOST_PREFIX = "__Host-"
"""Browsers accept a cookie with this prefix only from this host, over https (RFC 6265bis)."""

_URL_ATTRIBUTES = ("url.query", "url.full", "http.url", "http.target")
"""The span attributes that contain the query, in both semantic conventions of OpenTelemetry."""

_FORM = r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{43})"
_TOKEN = re.compile(_FORM)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


_NO_TIME = "since "
"""Identifies a maintenance with an unknown start."""


def maintenance_ids(state: MaintenanceState, now: datetime) -> list[str]:
    """Return the identities of a switch's current maintenance.

    They are the time at which the stored mode began to block, the starts of the active windows, and the blocks that
    hold the switch on. A new token is bound to the first identity and valid while that exists. So a token for tonight
    does not open next week's occurrence of the same window, and a corrected maintenance, which keeps its ``since``,
    keeps its tokens. A store of on or off only (an environment variable, a two-method backend) has no times, so its
    identity is always the same.
    """
    if state.version == 0:
        return [_NO_TIME]
    began = [] if state.stored_mode_at(now) is MaintenanceMode.OFF else [state.since]
    if state.windows:
        began += [occurrence.start for occurrence in state.timetable.all_at(now)]
    since = [_NO_TIME if at is None else f"since {at.astimezone(UTC).isoformat()}" for at in began]
    held = [f"held {id_}" for id_, hold in state.holds_at(now).items() if hold.kind == "on"]
    return [*since, *held] or [_NO_TIME]


def _maintenance_digests(switch: str, state: MaintenanceState, now: datetime) -> list[str]:
    """Return the identities of a switch's maintenance as tokens contain them."""
    ids = maintenance_ids(state, now)
    return [hashlib.sha256(f"{switch} {id_}".encode()).hexdigest()[:16] for id_ in ids]


class Claims(BaseModel):
    """The content of a token."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    holder: str
    expires: int
    """Seconds since 1970."""
    opens: dict[str, str]
    """The digest of the maintenance for each switch."""

    def admit(self, switch: str, state: MaintenanceState, now: datetime) -> bool:
        """Return whether the holder passes while ``switch`` is in ``state``."""
        return self.opens.get(switch) in _maintenance_digests(switch, state, now)


Revoked = Callable[[str], bool | Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class Bypass:
    """Lets holders of a token pass, as ``Exemptions(bypass=Bypass(secret))``. Needs the extra ``bypass``.

    A client sends the token by a link, ``?maintenance_bypass=<token>`` on any URL, which is answered with a cookie and
    a redirect to the same URL without the token; or in the header ``X-Maintenance-Bypass``. The token opens its
    switches until it expires, the maintenance is over, it is revoked, or the secret is changed. It never opens an
    endpoint under ``@force_maintenance_mode_on``.

    Args:
        secret: At least 16 random bytes, as text or bytes: ``python -c "import secrets;
            print(secrets.token_urlsafe(32))"``. The same for all workers, another for each service. Of several
            secrets the first signs, and tokens of the others remain valid; this is how to replace a secret.
        parameter: The link's query parameter.
        header: The header for API clients.
        cookie: The start of the cookie's name.
        revoked: Called with the ``holder`` of a valid token; a true result refuses the token. Sync (run off the event
            loop) or async, such as ``{"alice"}.__contains__``. If it raises, the token is refused.

    Raises:
        InvalidConfiguration: The secret is too short, or another option is invalid.
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
                raise InvalidConfiguration(f"{option} must be letters, digits, '_' and '-', got {value!r}")
        if self.revoked is not None and not callable(self.revoked):
            raise InvalidConfiguration(
                f"revoked must be a function, such as {{'alice'}}.__contains__, got {self.revoked!r}"
            )
        secrets = _check_secrets(secret)
        try:
            from itsdangerous import Signer  # noqa: PLC0415 - an optional dependency
        except ImportError:
            raise MissingExtra("Bypass", "bypass") from None
        signer = Signer(
            secrets[::-1],  # itsdangerous signs with the last one
            salt=b"fastapi_maintenance.bypass",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        object.__setattr__(self, "_signer", signer)
        # A single search, because every request with a query is searched: each letter is plain or encoded.
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
        """Return a token for the current maintenance of switches.

        Args:
            switches: Their names; none means the default switch. A guard of ``"billing"`` blocks by the default switch
                as well: name both for a token that passes both.
            lifetime: Seconds or a ``timedelta``, 30 days at most.
            holder: Who the token is for; lets you revoke it. Anyone with the token can read it.
            backend: As for ``get_maintenance_state``.

        Raises:
            NotUnderMaintenance: A switch is off, so it has no maintenance to bind the token to. If the store has on or
                off only, a token can be made beforehand.
            InvalidConfiguration: An option is invalid.
            InvalidSwitchName: A name is invalid.
            AmbiguousSwitch: As for ``get_maintenance_state``.
        """
        now = datetime.now(UTC)
        seconds = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
        if not 0 < seconds <= MAX_LIFETIME.total_seconds():
            raise InvalidConfiguration(f"lifetime must be more than 0 seconds and at most 30 days, got {lifetime!r}")
        opens = {}
        for switch in switches or (DEFAULT,):
            opens[switch] = _maintenance_digests(switch, await _state_under_maintenance(switch, backend, now), now)[0]
        token = self.sign(Claims(holder=holder, expires=math.ceil(now.timestamp() + seconds), opens=opens))
        if len(token) > _MOST_TOKEN_CHARACTERS:
            raise InvalidConfiguration(
                f"a token must be at most {_MOST_TOKEN_CHARACTERS} characters to fit into a cookie, got {len(token)}: "
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
        """Return ``url`` with a new token in its query; arguments and errors as for ``token``.

        ``url`` begins with ``https://``, ``http://`` or ``/``. A token in it is replaced.
        """
        parts = urlsplit(url)
        if not (parts.scheme in ("http", "https") and parts.netloc) and not (url[:1] == "/" and not parts.netloc):
            raise InvalidConfiguration(f"url must begin with 'https://', 'http://' or '/', got {url!r}")
        token = await self.token(*switches, lifetime=lifetime, holder=holder, backend=backend)
        kept, _ = self._split_query(parts.query.encode())
        query = "&".join([*filter(None, [kept.decode()]), f"{self.parameter}={token}"])
        return parts._replace(query=query).geturl()

    def sign(self, claims: Claims) -> str:
        """Return a signed token with ``claims``."""
        from itsdangerous import base64_encode  # noqa: PLC0415 - an optional dependency

        return self._signer.sign(base64_encode(claims.model_dump_json())).decode()

    def claims_of(self, token: str, now: datetime) -> Claims | None:
        """Return a token's content, or ``None`` if it is expired or not exactly as we signed it."""
        from itsdangerous import BadData, base64_decode, base64_encode  # noqa: PLC0415 - an optional dependency

        form = _TOKEN.fullmatch(token) if len(token) <= _MOST_TOKEN_CHARACTERS else None
        # Decoding ignores two spare bits in the last letter of a signature.
        if form is None or base64_encode(base64_decode(form[1])).decode() != form[1]:
            return None
        try:
            payload = base64_decode(self._signer.unsign(token))  # compares in constant time
            claims = Claims.model_validate_json(payload)
        except (BadData, ValueError):  # not ours, or of another version of this package
            return None
        return claims if now.timestamp() < claims.expires else None

    async def admits(self, scope: Scope, switch: str, state: MaintenanceState, now: datetime) -> bool:
        """Return whether a request has a token that opens ``switch`` while it is in ``state``."""
        for token in islice(self._tokens_for(scope, switch), _MAX_TOKENS):
            claims = self.claims_of(token, now)
            if claims is not None and claims.admit(switch, state, now) and not await self._is_revoked(claims):
                return True
        return False

    def take(self, scope: Scope, app: AppSwitch) -> bool:
        """Return whether a request's query had a token; move it out of the query, so that nobody after us sees it.

        The scope is changed in place, so that the server's access log has the query without the token.
        """
        query = scope.get("query_string", b"")
        if query and self._in_query.search(query):
            kept, token = self._split_query(query)
            scope["query_string"] = kept
            passage = passage_of(scope)
            if passage is None:
                passage = scope[SCOPE_KEY] = Passage(app, scope, None)
            passage.tokens = {self.parameter: token, **(passage.tokens or {})}
            self._redact_spans(scope)
        return self._token_of_link(scope) is not None

    def _redact_spans(self, scope: Scope) -> None:
        """Remove the token from the spans of a request that began before us.

        FastAPI's own span is outside of every middleware, and another span may be current by now.
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
        kept = self._split_query(query.encode(errors="surrogatepass"))[0].decode(errors="surrogatepass")
        return f"{place}{mark}{kept}" if kept else place

    async def answer_to_link(
        self, scope: Scope, blocking: Callable[[str], Awaitable[MaintenanceState | None]], now: datetime
    ) -> Mapping[str, str] | None:
        """Return the headers of the redirect that sets the cookie for a valid link, or ``None``.

        Only GET and HEAD are redirected: any other request would lose its body, and passes by its token.

        Args:
            scope: A scope after ``take``.
            blocking: Returns the state of a switch if it blocks anything now, else ``None``.
            now: An aware time.
        """
        token = self._token_of_link(scope)
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
            "Location": _relative_location(scope),
            "Set-Cookie": self._cookie(scope, token, claims, now),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }

    def _cookie(self, scope: Scope, token: str, claims: Claims, now: datetime) -> str:
        # One cookie for each set of switches, so that a link for another part of the service replaces none.
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

    def _split_query(self, query: bytes) -> tuple[bytes, str]:
        """Return a query without our parameter, and the parameter's first value."""
        query = b"&" + query
        first = self._in_query.search(query)
        # A longer value is no token, even fully encoded; cut off, it is still too long to be a token.
        value = first[1][: 4 * _MOST_TOKEN_CHARACTERS] if first and first[1] else b""
        return self._in_query.sub(b"", query)[1:], unquote(value.decode("latin-1"))

    def _token_of_link(self, scope: Scope) -> str | None:
        tokens = [passage.tokens or {} for passage in with_outer_passages(passage_of(scope))]
        return next((taken[self.parameter] for taken in tokens if self.parameter in taken), None)

    def _tokens_for(self, scope: Scope, switch: str) -> Iterator[str]:
        """Yield the tokens of a request for a switch; those that no other host can have set come first."""
        token = self._token_of_link(scope)
        if token is not None:
            yield token
        header, cookies = self.header.lower().encode(), []
        for name, value in scope.get("headers", ()):
            if name.lower() == header:
                yield value.decode("latin-1").strip()
            elif name.lower() == b"cookie":
                cookies.append(value)
        found = self._in_cookies.findall(b";".join(cookies)[:_MAX_COOKIE_BYTES].decode("latin-1"))
        # Sibling hosts can set cookies for this host, except cookies with the prefix.
        for _, switches, token, _ in sorted(found, key=lambda cookie: not cookie[0]):
            if switch in switches.split("."):
                yield token


def _check_secrets(secret: object) -> list[bytes]:
    """Return the secrets as bytes; an error has their length and never their content."""
    given = [secret] if isinstance(secret, (str, bytes)) else list(secret) if isinstance(secret, Iterable) else []
    if not given or not all(isinstance(one, (str, bytes)) for one in given):
        raise InvalidConfiguration(
            f"secret must be text, bytes, or several of these, not {type(secret).__name__}; is the variable set?"
        )
    # Bytes of a variable that are no UTF-8 come as surrogates.
    secrets = [one if isinstance(one, bytes) else one.encode(errors="surrogatepass") for one in given]
    shortest = min(map(len, secrets))
    if shortest < _LEAST_SECRET_BYTES:
        raise InvalidConfiguration(
            f"secret must be at least {_LEAST_SECRET_BYTES} random bytes, got {shortest} bytes: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return secrets


async def _state_under_maintenance(switch: str, backend: BaseStateBackend | None, now: datetime) -> MaintenanceState:
    """Return a switch's state for a new token; raise ``NotUnderMaintenance`` if it is off in a store with times."""
    state = await get_maintenance_state(backend, name=switch)
    override = override_of_meant(backend, switch)
    has_times = isinstance(registry.resolve(backend, switch), StateBackend)
    if has_times and state.mode_at(now, override=override) is MaintenanceMode.OFF:
        raise NotUnderMaintenance(switch)
    return state


def _relative_location(scope: Scope) -> str:
    """Return a relative reference from a request's URL to the same URL with the request's current query.

    It begins with ``?`` or ``./`` (RFC 3986, section 4.2): without host, scheme or leading slash it can't lead to
    another host, and a prefix that a proxy removed remains. ``?`` alone would keep the query in some clients, such as
    users of ``urllib.parse.urljoin``.
    """
    query = scope["query_string"]
    if query:
        return "?" + quote(query, safe="%!$&'()*+,;=:@/?~")
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    return "./" + quote(path.rpartition(b"/")[2], safe="%!$&'()*+,;=:@~")
