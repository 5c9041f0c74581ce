"""The fields of the default answer in JSON and in a problem document, for the bodies and for their OpenAPI schema."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from ..model.decision import Decision, Rule
from ..model.modes import PARTIAL, PartialTexts
from ..model.text import encodable

JSON, PROBLEM = "application/json", "application/problem+json"

Seconds = Annotated[int, Field(ge=0)]


class MaintenanceAnswer(TypedDict):
    """The default answer in JSON."""

    detail: str
    mode: NotRequired[
        Annotated[str, Field(description="Present while other requests pass", json_schema_extra={"enum": PARTIAL})]
    ]
    reason: NotRequired[Annotated[str, Field(description="The reason, if known")]]
    until: NotRequired[
        Annotated[str, Field(description="The expected end, if known", json_schema_extra={"format": "date-time"})]
    ]


class MaintenanceProblem(MaintenanceAnswer):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    title: str
    status: int
    retry_after: Annotated[Seconds, Field(description="Same as Retry-After")]


@functools.cache
def build_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of the bodies by media type."""
    return {
        JSON: TypeAdapter(MaintenanceAnswer).json_schema(),
        PROBLEM: TypeAdapter(MaintenanceProblem).json_schema(),
    }


def build_answer(decision: Decision, detail: str) -> MaintenanceAnswer:
    """Return the body in JSON: ``detail``, and mode, reason and end as far as known."""
    answer: MaintenanceAnswer = {"detail": encodable(detail)}
    if partial_texts_of(decision) is not None:
        answer["mode"] = decision.mode.value
    if decision.reason:
        answer["reason"] = encodable(decision.reason)
    if decision.until is not None:
        answer["until"] = format_iso(decision.until)
    return answer


def build_problem(decision: Decision, detail: str, status: int) -> MaintenanceProblem:
    """Return the body as a problem document, for a decision with ``retry_after``."""
    return {
        # It has no meaning beyond the status, whose phrase is then the title (RFC 9457, section 4.2.1).
        "type": "about:blank",
        "title": _phrase_of(status),
        "status": status,
        **build_answer(decision, detail),
        "retry_after": decision.retry_after or 0,
    }


def _phrase_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # an unregistered status
        return "Under Maintenance"


def partial_texts_of(decision: Decision) -> PartialTexts | None:
    """Return the texts for a client that was refused by a mode under which other requests pass."""
    return decision.mode.texts if decision.rule is Rule.MODE else None


def format_iso(end: datetime) -> str:
    """Return a time in UTC for programs."""
    return end.astimezone(UTC).isoformat()
