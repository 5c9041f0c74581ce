"""What an app's OpenAPI schema says about maintenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any

from fastapi import FastAPI

from ..answers.answer import JSON, PROBLEM, Answer, in_words
from ..exceptions import InvalidConfiguration, MaintenanceActive
from ..gate.exemptions import Exemptions
from ..guard import has_stock_handler
from ..model.decision import Decision, Facts, Mark
from ..model.modes import MaintenanceMode
from ..model.policy import decide
from ..model.text import in_one_line
from ..switches.app_switch import DEFAULT, answering_app
from ..switches.registry import registry
from ..switches.views import view_of
from .apps import answer_of, guards_of, middleware_options, switch_of
from .routes import Operation, operations_of

Json = dict[str, Any]

_MARK = "x-maintenance"
_IS_DOCUMENTED = "__fastapi_maintenance_documented__"


def document_maintenance(app: FastAPI, *, whole_app: bool | None = None) -> None:
    """Have an app's OpenAPI schema, and with it the docs pages, tell of maintenance.

    Every operation that can be blocked gets the answer that it is blocked with; one under
    ``@force_maintenance_mode_on`` is marked as unavailable. While a switch of the app is on, the description begins
    with a banner.

    The schema is read when somebody asks for it, so this can be called before or after routes are added. A function
    that replaces ``app.openapi`` must be set before. A mounted app has a schema of its own, and needs its own call.

    Args:
        app: The app whose ``openapi()`` is extended.
        whole_app: Whether a middleware stands before all of the app's routes. By default that is so if the app has
            ``MaintenanceModeMiddleware``, or if no route has a ``MaintenanceGuard``, which leaves a middleware around
            the app. Say ``True`` for an app with guards that is mounted in one with the middleware.

    Raises:
        InvalidConfiguration: It isn't a FastAPI app.
    """
    if not isinstance(app, FastAPI):
        raise InvalidConfiguration(f"document_maintenance({app!r}): a FastAPI app is needed")
    original = app.openapi
    if hasattr(original, _IS_DOCUMENTED):
        return

    def openapi() -> Json:
        # FastAPI keeps what it made, and so it must stay as FastAPI made it.
        return _Documentation(app, whole_app).of(original())

    setattr(openapi, _IS_DOCUMENTED, True)
    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation tells to extend a schema


@dataclass(frozen=True, slots=True)
class _Face:
    """Something that blocks requests, and what they get then."""

    answer: Answer
    exemptions: tuple[Exemptions, ...]
    handled: bool
    """Whether the app has an answer of its own, of which nothing is known."""
    negotiated: bool = True

    def can_block(self, operation: Operation) -> bool:
        """Return whether not every path of an operation is exempt."""
        patterns = [path for exemptions in self.exemptions for path in exemptions.paths]
        return not all(
            any(exemptions.of_request(_ANYBODY, path, is_docs=False) for exemptions in self.exemptions)
            for path in _samples(operation, patterns)
        )

    def response(self, schemas: Mapping[str, str]) -> Json:
        """Return the OpenAPI response."""
        headers = {
            name: {"schema": {"type": "string"}, "example": value} for name, value in self.answer.fixed_headers.items()
        }
        documented: Json = {"description": "Under maintenance", "headers": _RETRY_AFTER | headers}
        if not self.handled:
            kinds = (JSON, PROBLEM) if self.negotiated else (JSON,)
            documented["content"] = {
                kind: {"schema": {"$ref": f"#/components/schemas/{schemas[kind]}"}} for kind in kinds
            }
        return documented


_ANYBODY: Json = {"method": "GET", "headers": [], "client": None}

_PARAMETER = re.compile(r"\{([^}]*)\}")
_ANYTHING = "\ue000"
"""Stands for any value: no exempt path spells it, so what covers it is ``*`` or ``**``, which cover all others too."""


def _samples(operation: Operation, patterns: Iterable[str]) -> Iterator[str]:
    """Yield paths of an operation: exempt paths that cover these cover all that can be exempt by their path."""
    names = _PARAMETER.findall(operation.path)
    # With more segments than an exempt path has, it takes a ``**`` to cover them, which covers any number.
    enough = 2 + max((pattern.count("/") for pattern in patterns), default=0)
    for counts in product(*(range(enough) if name in operation.deep else (1,) for name in names)):
        path = operation.path
        for name, count in zip(names, counts, strict=True):
            path = path.replace(f"{{{name}}}", "/".join([_ANYTHING] * count))
        if 0 not in counts or "//" not in path:
            yield path


class _Documentation:
    """What is to be told of one app, at one time."""

    def __init__(self, app: FastAPI, whole_app: bool | None) -> None:
        self.app = app
        self.operations: dict[tuple[str, str], Operation] = {}
        for operation in operations_of(app):
            for method in operation.methods:
                # The first one is what the router runs, even if the schema describes a later one.
                self.operations.setdefault((operation.path, method.lower()), operation)
        self.options = middleware_options(app)
        own_exemptions = self.options.get("exemptions")
        self.exemptions = (own_exemptions,) if isinstance(own_exemptions, Exemptions) else ()
        self.is_covered = bool(self.options) or not self._switches() if whole_app is None else whole_app

    def of(self, schema: Json) -> Json:
        """Return the app's schema with everything that is to be told; what was given stays as it is."""
        components = schema.get("components", {})
        known = components.get("schemas", {})
        names = {kind: _free_name(model, known) for kind, model in _MODELS.items()}
        paths, is_used = {}, False
        for path, item in schema.get("paths", {}).items():
            paths[path] = dict(item)
            for method in item:
                operation = self.operations.get((path, method))
                if operation is not None:
                    paths[path][method] = documented = self._operation(operation, item[method], names)
                    is_used = is_used or documented is not item[method]
        if is_used:
            models = {names[kind]: model for kind, model in _MODELS.items()}
            components = {**components, "schemas": known | models}
            schema = {**schema, "paths": paths, "components": components}
        return self._with_banner(schema)

    def _operation(self, operation: Operation, described: Json, names: Mapping[str, str]) -> Json:
        if operation.mark is Mark.OFF:
            return described
        is_forced_on = operation.mark is Mark.ON
        responses = dict(described.get("responses", {}))
        for face in self._faces(operation):
            if is_forced_on or face.can_block(operation):
                responses.setdefault(str(face.answer.status), face.response(names))
        if responses != described.get("responses"):
            described = {**described, "responses": responses}
        if is_forced_on and _MARK not in described:
            summary, description = described.get("summary", ""), described.get("description", "")
            described = {
                **described,
                "summary": f"{summary} (unavailable)".strip(),
                "description": f"**Unavailable:** under maintenance until further notice.\n\n{description}".strip(),
                _MARK: "forced_on",
            }
        return described

    def _faces(self, operation: Operation) -> Iterator[_Face]:
        """Yield what can block an operation, outermost first."""
        if self.is_covered:
            yield _Face(answer_of(self.options), self.exemptions, self.options.get("response_handler") is not None)
        handlers = self.app.exception_handlers
        is_registered = MaintenanceActive in handlers
        is_automatic = self.is_covered and has_stock_handler(handlers)
        for guard in guards_of(operation):
            terms = guard.terms
            handler = terms.response_handler or (None if terms.answer else self.options.get("response_handler"))
            answer = terms.answer or answer_of(self.options)
            is_answered = is_registered or (is_automatic and answer.status not in handlers)
            yield _Face(
                answer=answer,
                exemptions=(terms.exemptions, *self.exemptions),
                handled=is_answered and handler is not None,
                negotiated=is_answered,
            )

    def _switches(self) -> list[str]:
        """Return the names of the switches of the app's guards."""
        guards = (guard for operation in self.operations.values() for guard in guards_of(operation))
        return list(dict.fromkeys(guard.name for guard in guards))

    def _with_banner(self, schema: Json) -> Json:
        banners = [_banner(decision) for decision in self._blocking()]
        if not banners:
            return schema
        info = schema.get("info", {})
        paragraphs = filter(None, [*banners, info.get("description")])
        return {**schema, "info": {**info, "description": "\n\n".join(paragraphs)}}

    def _blocking(self) -> Iterator[Decision]:
        """Yield what blocks at least some requests to the app's switches now, the default one first."""
        app = answering_app() or switch_of(self.options)
        facts, now = Facts(runs=True, mark=None, method=None), datetime.now(UTC)
        for name in dict.fromkeys((DEFAULT, *self._switches())):
            state = view_of(registry.of_app(app, name)).latest()
            decision = decide(facts, state, now, switch=name, instead=app.instead_of(name))
            if decision.blocked:
                yield decision


def _banner(decision: Decision) -> str:
    """Return a block of Markdown that tells of one switch."""
    words = "Read-only for maintenance" if decision.mode is MaintenanceMode.READ_ONLY else "Under maintenance"
    part = "" if decision.switch == DEFAULT else f" ({decision.switch})"
    sentences = [f"**{words}{part}.**"]
    if decision.until is not None:
        sentences.append(f"Expected back: {in_words(decision.until)}.")
    if decision.reason:
        sentences.append(_as_markdown(decision.reason))
    return "> " + " ".join(sentences)


_MARKUP = re.compile(r"[&<>\"'\\`*_\[\]~|^$]")


def _as_markdown(text: str) -> str:
    """Return text as Markdown shows it on one line, as text: neither markup nor HTML, which docs pages let through."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", in_one_line(text))


_RETRY_AFTER: Json = {
    "Retry-After": {
        "description": "The seconds after which to try again",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
}

_FACTS: Json = {
    "mode": {"type": "string", "enum": ["read_only"], "description": "There while only changes are refused"},
    "reason": {"type": "string", "description": "Why, if it is known"},
    "until": {"type": "string", "format": "date-time", "description": "The end, if it is known"},
}
_MODELS: dict[str, Json] = {
    JSON: {
        "title": "MaintenanceAnswer",
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"type": "string"}, **_FACTS},
    },
    PROBLEM: {
        "title": "MaintenanceProblem",
        "description": "A problem document (RFC 9457)",
        "type": "object",
        "required": ["type", "title", "status", "detail", "retry_after"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            **_FACTS,
            "retry_after": {"type": "integer", "minimum": 0, "description": "As Retry-After"},
        },
    },
}


def _free_name(model: Json, known: Mapping[str, Any]) -> str:
    """Return the name under which a model can stand beside the app's own."""
    name: str = model["title"]
    return name if known.get(name, model) == model else f"fastapi_maintenance__{name}"
