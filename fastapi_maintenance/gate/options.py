"""The terms of a gate: who is exempt, and what the others get. The middleware and a guard can be given them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from ..answers.answer import DEFAULT_ANSWER, Answer
from ..answers.refusal import Refusal
from ..exceptions import InvalidConfiguration
from ..model.decision import Decision
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from .callbacks import call, takes_decision
from .exemptions import Exemptions

logger = logging.getLogger("fastapi_maintenance")

ExemptHandler = Callable[[Request], bool | Awaitable[bool]]
ResponseHandler = (
    Callable[[Request], Response | Awaitable[Response]] | Callable[[Request, Decision], Response | Awaitable[Response]]
)

BYPASS = "bypass"
"""Why the holder of a token is exempt."""


class Terms:
    """What middleware and guard can be given alike: who is exempt, and what the others get."""

    def __init__(
        self,
        exemptions: Exemptions | None = None,
        exempt_handler: ExemptHandler | None = None,
        response_handler: ResponseHandler | None = None,
        answer: Answer | None = None,
    ) -> None:
        if answer is not None and not isinstance(answer, Answer):
            raise InvalidConfiguration(f"answer={answer!r}: an Answer(...) is needed")
        if exemptions is not None and not isinstance(exemptions, Exemptions):
            raise InvalidConfiguration(f"exemptions={exemptions!r}: an Exemptions(...) is needed")
        for name, handler in (("exempt_handler", exempt_handler), ("response_handler", response_handler)):
            if handler is not None and not callable(handler):
                raise InvalidConfiguration(f"{name}={handler!r}: a function that takes the request is needed")
        self.exemptions = exemptions if exemptions is not None else Exemptions()
        self.exempt_handler = exempt_handler
        self.response_handler = response_handler
        self.answer = answer
        self.ask_further = exempt_handler is not None or self.exemptions.bypass is not None
        """Whether more than the request decides about who is exempt."""
        self._handler_takes_decision = response_handler is not None and takes_decision(response_handler)

    def within(self, outer: Terms | None) -> Terms:
        """Return the terms to answer by where these stand within others: these, and ``outer`` where they are silent.

        An answer of theirs stands above an ``outer`` handler.
        """
        if outer is None or self.answer is not None:
            return self
        if self.response_handler is None:
            return outer
        terms = copy(self)
        terms.answer = outer.answer
        return terms

    def told(self, decision: Decision, now: datetime) -> tuple[Answer, Decision]:
        """Return the answer that refused clients get by default, and the decision with the seconds they are told."""
        answer = self.answer or DEFAULT_ANSWER
        return answer, answer.told(decision, now)

    async def exemption(
        self, request: Request, path: str, switch: str, state: MaintenanceState, now: datetime, *, is_docs: bool
    ) -> str | None:
        """Return why a request is exempt that is no preflight, or ``None``; a handler that raises exempts nobody."""
        reason = self.exemptions.of_request(request.scope, path, is_docs=is_docs, preflight=False)
        if reason is not None:
            return reason
        bypass = self.exemptions.bypass
        if bypass is not None and await bypass.admits(request.scope, switch, state, now):
            return BYPASS
        if self.exempt_handler is None:
            return None
        try:
            return "handler" if await call(self.exempt_handler, request) else None
        except Exception:
            logger.exception("exempt_handler failed: %s %s is not exempt", request.method, in_one_line(path))
            return None

    def default(self, decision: Decision, request: Request) -> Response:
        """Return the default answer for a blocked request, in the form that its client prefers."""
        now = datetime.now(UTC)
        answer, decision = self.told(decision, now)
        return answer.response(decision, request, now)

    async def refusal(self, decision: Decision, request: Request) -> Refusal:
        """Return the answer for a blocked request, over HTTP or a websocket, which can't fail."""
        _, decision = self.told(decision, datetime.now(UTC))
        default = self.default(decision, request)
        own = await self._own(decision, request)
        return Refusal(default if own is None else own, default)

    async def response(self, decision: Decision, request: Request) -> Response:
        """Return the response for a blocked request; a handler that fails leaves the default one."""
        _, decision = self.told(decision, datetime.now(UTC))
        own = await self._own(decision, request)
        return self.default(decision, request) if own is None else own

    async def _own(self, decision: Decision, request: Request) -> Response | None:
        """Return the response of the app's own handler, or ``None`` if there is none or it failed."""
        handler = self.response_handler
        if handler is None:
            return None
        more = (decision,) if self._handler_takes_decision else ()
        try:
            response = await call(handler, request, *more)
        except Exception:
            logger.exception("response_handler failed: the default maintenance response is sent instead")
            return None
        if not isinstance(response, Response):
            logger.error(
                "response_handler returned %r, which is no Starlette Response: "
                "the default maintenance response is sent instead",
                response,
            )
            return None
        return response
