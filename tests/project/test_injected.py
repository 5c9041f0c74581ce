"""The canary of ``make real-suites`` sees what it is there for: a small test suite with planted findings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.injected.__main__ import Run, differing, problems_of
from tests.injected.injection import HOLE, NEEDLESS, NOTHING, RAN, STOPPED
from tests.injected.known import KNOWN
from tests.support.scripts import ROOT

SUITE = '''
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.testclient import TestClient


def page(request):
    return PlainTextResponse("page")


class Inside:
    """Answers some paths by itself, and others by an endpoint that no router of the app leads to."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope.get("path") == "/answered":
            await PlainTextResponse("answered")(scope, receive, send)
        else:
            hidden = scope.get("path") == "/hidden"
            await (Router([Route("/hidden", page)]) if hidden else self.app)(scope, receive, send)


class Nothing(BaseRoute):
    """Says that it matches, and then leads nowhere."""

    def matches(self, scope):
        return (Match.FULL if scope.get("path") == "/nothing" else Match.NONE), {}

    async def handle(self, scope, receive, send):
        await Router().not_found(scope, receive, send)


def answer_to(path, method="GET"):
    app = Starlette(
        routes=[Route("/page", page, methods=["GET"]), Nothing(), Mount("/mounted", FastAPI())],
        middleware=[Middleware(Inside)],
    )
    return TestClient(app).request(method, path, follow_redirects=False).status_code


def test_agreement():
    assert answer_to("/page") == 200
    assert answer_to("/page", "POST") == 405
    assert answer_to("/page/") == 307
    assert answer_to("/none") == 404
    assert answer_to("/answered") == 200


def test_mounted():
    assert answer_to("/mounted/docs") == 200
    assert answer_to("/mounted/none") == 404


def test_hole():
    assert answer_to("/hidden") == 200


def test_needless():
    assert answer_to("/nothing") == 404


def test_is_bare():
    app = FastAPI()
    step, names = app.build_middleware_stack(), []
    while step is not None:
        names.append(type(step).__name__)
        step = getattr(step, "app", None)
    assert "MaintenanceModeMiddleware" not in names
    assert not app.user_middleware
'''


def run(folder: Path, way: str) -> Run:
    (folder / "test_planted.py").write_text(SUITE, "utf-8")
    reports = folder / way
    reports.mkdir()
    options = ["-q", "-p", "no:cacheprovider", "-p", "injection", "--way", way, "--reports", str(reports)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_planted.py"],
        cwd=folder,
        # The plugins that are installed here would take most of the time.
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "injected"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return Run.read(reports)


def test_what_would_be_blocked_is_compared_with_what_ran(tmp_path: Path) -> None:
    found = run(tmp_path, "on")
    assert found.disagreements == [
        {"test": "test_planted.py::test_hole", "what": "GET /hidden", "finding": HOLE},
        {"test": "test_planted.py::test_needless", "what": "GET /nothing", "finding": NEEDLESS},
    ]
    assert found.counts == {"apps": 12, "connections": 11, RAN: 3, NOTHING: 5, STOPPED: 1, HOLE: 1, NEEDLESS: 1}


def test_a_test_that_ends_otherwise_is_a_difference(tmp_path: Path) -> None:
    bare, off = run(tmp_path, "bare"), run(tmp_path, "off")
    assert set(bare.outcomes.values()) == {"passed"}
    assert not bare.counts
    assert differing(bare.outcomes, off.outcomes) == ["test_planted.py::test_is_bare"]
    assert differing(bare.outcomes, {}) == sorted(bare.outcomes)


def test_a_run_that_injects_little_is_a_failure() -> None:
    problems, _ = problems_of("starlette", "off", Run({}), [])
    assert len(problems) == 1
    problems, _ = problems_of("starlette", "on", Run({}), [])
    assert len(problems) == 2


def test_a_difference_that_has_a_reason_is_no_failure() -> None:
    known = KNOWN[0]
    run = Run({})
    run.counts.update(apps=10_000)
    assert problems_of(known.suite, "off", run, [f"{known.tests}[asyncio]"])[0] == []
    problems, explained = problems_of(known.suite, "off", run, ["tests/test_other.py::test_other"])
    assert (len(problems), explained) == (1, [])
