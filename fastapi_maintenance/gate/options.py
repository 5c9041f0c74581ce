"""The options that the middleware and a guard share: who is exempt, and how all others are answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import datetime

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
"""The reason for which the holder of a token is exempt."""


class Options:
    """The exemptions and the answer of a middleware or a guard."""

    def __init__(
        self,
        exemptions: Exemptions | None = None,
        exempt_handler: ExemptHandler | None = None,
        response_handler: ResponseHandler | None = None,
        answer: Answer | None = None,
    ) -> None:
        if answer is not None and not isinstance(answer, Answer):
            raise InvalidConfiguration(f"answer must be an Answer(...), got {answer!r}")
        if exemptions is not None and not isinstance(exemptions, Exemptions):
            raise InvalidConfiguration(f"exemptions must be an Exemptions(...), got {exemptions!r}")
        for name, handler in (("exempt_handler", exempt_handler), ("response_handler", response_handler)):
            if handler is not None and not callable(handler):
                raise InvalidConfiguration(f"{name} must be a function that takes the request, got {handler!r}")
        self.exemptions = exemptions if exemptions is not None else Exemptions()
        self.exempt_handler = exempt_handler
        self.response_handler = response_handler
        self.answer = answer
        self.has_further_exemptions = exempt_handler is not None or self.exemptions.bypass is not None
        """Whether a bypass or a handler can exempt a request as well."""
        self._handler_takes_decision = response_handler is not None and takes_decision(response_handler)

    def within(self, outer: Options | None) -> Options:
        """Return these options, with the answer and the handler taken from ``outer`` if unset.

        An answer of these options overrides the handler of ``outer``.
        """
        if outer is None or self.answer is not None:
            return self
        if self.response_handler is None:
            return outer
        options = copy(self)
        options.answer = outer.answer
        return options

    def answer_to(self, decision: Decision, now: datetime) -> tuple[Answer, Decision]:
        """Return the default answer, and the decision with its ``retry_after``."""
        answer = self.answer or DEFAULT_ANSWER
        return answer, answer.with_retry_after(decision, now)

    async def exemption(
        self, request: Request, path: str, switch: str, state: MaintenanceState, now: datetime, *, is_docs: bool
    ) -> str | None:
        """Return why a request is exempt, or ``None``; a preflight is not, nor is a request whose handler raises."""
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

    async def refusal(self, decision: Decision, request: Request, now: datetime) -> Refusal:
        """Return the answer to a blocked request, over HTTP or a websocket; sending it can't fail.

        It is that of the ``response_handler``, or the default answer in the media type that the client prefers.
        """
        answer, decision = self.answer_to(decision, now)
        default = answer.response(decision, request, now)
        own = await self._custom_response(decision, request)
        return Refusal(default if own is None else own, default)

    async def _custom_response(self, decision: Decision, request: Request) -> Response | None:
        """Return the response of ``response_handler``, or ``None`` if there is none or it failed."""
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
