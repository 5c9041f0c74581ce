"""Document maintenance in an app's OpenAPI schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from ..answers.answer import DEFAULT_ANSWER, Answer, format_end
from ..answers.body import JSON, PROBLEM, Seconds, build_schemas
from ..exceptions import InvalidConfiguration, MaintenanceActive
from ..gate.exemptions import Exemptions
from ..gate.options import Options
from ..guard import has_stock_handler
from ..model.decision import Decision, Facts, Mark
from ..model.policy import decide
from ..model.text import in_one_line
from ..switches.app_switch import DEFAULT, AppSwitch
from ..switches.passage import answering_app
from ..switches.registry import registry
from ..switches.views.lookup import view_of
from .apps import find_guarded_switches, find_guards, find_middleware
from .routes import Operation, operations_of

Json = dict[str, Any]

_MARK = "x-maintenance"
_IS_DOCUMENTED = "__fastapi_maintenance_documented__"


def document_maintenance(app: FastAPI, *, whole_app: bool | None = None) -> None:
    """Document maintenance in an app's OpenAPI schema and docs pages.

    Every operation that can be blocked gets the answer to blocked requests as a response; an operation under
    ``@force_maintenance_mode_on`` is marked as unavailable. While a switch of the app is on, the description begins
    with a banner.

    The schema is extended each time it is requested, so call this before or after adding routes, but after replacing
    ``app.openapi``. A mounted app has its own schema and requires its own call.

    Args:
        app: The app whose ``openapi()`` is extended.
        whole_app: Whether a middleware covers all of the app's routes. By default, this is true if the app has
            ``MaintenanceModeMiddleware``, or if no route has a ``MaintenanceGuard``, since then the middleware must
            be around the app. Pass ``True`` for an app with guards that is mounted in an app with the middleware.

    Raises:
        InvalidConfiguration: ``app`` is not a FastAPI app.
    """
    if not isinstance(app, FastAPI):
        raise InvalidConfiguration(f"document_maintenance: app must be a FastAPI app, got {app!r}")
    original = app.openapi
    if hasattr(original, _IS_DOCUMENTED):
        return

    def openapi() -> Json:
        # FastAPI caches its schema, which must not be modified.
        return _Documentation(app, whole_app).extend(original())

    setattr(openapi, _IS_DOCUMENTED, True)
    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend a schema


@dataclass(frozen=True, slots=True)
class _Blocker:
    """A middleware or guard that can block requests, and its answer."""

    answer: Answer
    exemptions: tuple[Exemptions, ...]
    has_handler: bool
    """Whether the app's own handler answers, so that the content is unknown."""
    negotiated: bool = True

    def can_block(self, operation: Operation) -> bool:
        """Return whether at least one path of an operation is not exempt."""
        patterns = [path for exemptions in self.exemptions for path in exemptions.paths]
        return not all(
            any(exemptions.of_request(_ANYBODY, path, is_docs=False) for exemptions in self.exemptions)
            for path in _sample_paths_of(operation, patterns)
        )

    def build_response(self, schemas: Mapping[str, str]) -> Json:
        """Return the OpenAPI response."""
        headers = {
            name: {"schema": {"type": "string"}, "example": value} for name, value in self.answer.fixed_headers.items()
        }
        retry_after: Json = {
            "description": "Seconds to wait before the next attempt",
            "required": True,
            "schema": TypeAdapter(Seconds).json_schema(),
        }
        documented: Json = {"description": "Under maintenance", "headers": {"Retry-After": retry_after, **headers}}
        if not self.has_handler:
            kinds = (JSON, PROBLEM) if self.negotiated else (JSON,)
            documented["content"] = {
                kind: {"schema": {"$ref": f"#/components/schemas/{schemas[kind]}"}} for kind in kinds
            }
        return documented


_ANYBODY: Json = {"method": "GET", "headers": [], "client": None}

_PARAMETER = re.compile(r"\{([^}]*)\}")
_ANYTHING = "\ue000"
"""A placeholder for any value: no exempt path contains it, so only ``*`` and ``**`` cover it, and they cover all."""


def _sample_paths_of(operation: Operation, patterns: Iterable[str]) -> Iterator[str]:
    """Yield sample paths of an operation: exemptions that cover these cover all of its paths."""
    names = _PARAMETER.findall(operation.path)
    # Only ``**`` covers more segments than an exempt path has, and it covers any number.
    enough = 2 + max((pattern.count("/") for pattern in patterns), default=0)
    for counts in product(*(range(enough) if name in operation.deep else (1,) for name in names)):
        path = operation.path
        for name, count in zip(names, counts, strict=True):
            path = path.replace(f"{{{name}}}", "/".join([_ANYTHING] * count))
        if 0 not in counts or "//" not in path:
            yield path


class _Documentation:
    """Extends the schema of one app for one request of it."""

    def __init__(self, app: FastAPI, whole_app: bool | None) -> None:
        self.app = app
        self.operations: dict[tuple[str, str], Operation] = {}
        for operation in operations_of(app):
            for method in operation.methods:
                # The router runs the first operation, even if the schema describes a later one.
                self.operations.setdefault((operation.path, method.lower()), operation)
        self.switches = find_guarded_switches(self.operations.values())
        middleware = find_middleware(app)
        self.switch = AppSwitch() if middleware is None else middleware.switch
        self.options = None if middleware is None else middleware.options
        self.is_covered = middleware is not None or not self.switches if whole_app is None else whole_app

    def extend(self, schema: Json) -> Json:
        """Return an extended copy of the app's schema."""
        components = schema.get("components", {})
        known = components.get("schemas", {})
        models = build_schemas()
        names = {kind: _free_name_of(model, known) for kind, model in models.items()}
        paths, is_used = {}, False
        for path, item in schema.get("paths", {}).items():
            paths[path] = dict(item)
            for method in item:
                operation = self.operations.get((path, method))
                if operation is not None:
                    paths[path][method] = documented = self._extend_operation(operation, item[method], names)
                    is_used = is_used or documented is not item[method]
        if is_used:
            ours = {names[kind]: model for kind, model in models.items()}
            components = {**components, "schemas": known | ours}
            schema = {**schema, "paths": paths, "components": components}
        return self._add_banner(schema)

    def _extend_operation(self, operation: Operation, described: Json, names: Mapping[str, str]) -> Json:
        if operation.mark is Mark.OFF:
            return described
        is_forced_on = operation.mark is Mark.ON
        responses = dict(described.get("responses", {}))
        for blocker in self._blockers_of(operation):
            if is_forced_on or blocker.can_block(operation):
                responses.setdefault(str(blocker.answer.status), blocker.build_response(names))
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

    def _blockers_of(self, operation: Operation) -> Iterator[_Blocker]:
        """Yield the middleware and guards that can block an operation, outermost first."""
        outer = self.options or Options()
        if self.is_covered:
            yield _Blocker(outer.answer or DEFAULT_ANSWER, (outer.exemptions,), outer.response_handler is not None)
        handlers = self.app.exception_handlers
        is_registered = MaintenanceActive in handlers
        is_automatic = self.is_covered and has_stock_handler(handlers)
        for guard in find_guards(operation.dependencies):
            options = guard.options.within(self.options)
            answer = options.answer or DEFAULT_ANSWER
            is_answered = is_registered or (is_automatic and answer.status not in handlers)
            yield _Blocker(
                answer=answer,
                exemptions=(guard.options.exemptions, outer.exemptions),
                has_handler=is_answered and options.response_handler is not None,
                negotiated=is_answered,
            )

    def _add_banner(self, schema: Json) -> Json:
        banners = [_banner_of(decision) for decision in self._blocking_decisions()]
        if not banners:
            return schema
        info = schema.get("info", {})
        paragraphs = filter(None, [*banners, info.get("description")])
        return {**schema, "info": {**info, "description": "\n\n".join(paragraphs)}}

    def _blocking_decisions(self) -> Iterator[Decision]:
        """Yield the blocking decisions of the app's switches now, the default switch first."""
        app = answering_app() or self.switch
        facts, now = Facts(runs=True, mark=None, method=None), datetime.now(UTC)
        for name in dict.fromkeys((DEFAULT, *self.switches)):
            state = view_of(registry.of_app(app, name)).latest()
            decision = decide(facts, state, now, switch=name, override=app.override_of(name))
            if decision.blocked:
                yield decision


def _banner_of(decision: Decision) -> str:
    """Return a Markdown block quote about one switch."""
    words = "Under maintenance" if decision.mode.texts is None else decision.mode.texts.banner
    part = "" if decision.switch == DEFAULT else f" ({decision.switch})"
    sentences = [f"**{words}{part}.**"]
    if decision.until is not None:
        sentences.append(f"Expected back: {format_end(decision.until)}.")
    if decision.reason:
        sentences.append(_escape_markdown(decision.reason))
    return "> " + " ".join(sentences)


_MARKUP = re.compile(r"[&<>\"'\\`*_\[\]~|^$]")


def _escape_markdown(text: str) -> str:
    """Return text on one line with Markdown and HTML escaped, since docs pages render both."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", in_one_line(text))


def _free_name_of(model: Json, known: Mapping[str, Any]) -> str:
    """Return a schema name for a model that no other model of the app has."""
    name: str = model["title"]
    return name if known.get(name, model) == model else f"fastapi_maintenance__{name}"
