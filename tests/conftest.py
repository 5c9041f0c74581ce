"""What every test may count on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.routing import marks
from tests.support.beginnings import nothing_configured
from tests.support.stores import PostgresServer, RedisServer, followed_views

# A busy machine is no failure: how long something takes is measured elsewhere.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

# Everything is on this machine, and no proxy of its environment has a part in it.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

# Shells have what they start in the background ignore these, and then a test's own processes would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the differential test takes."""
    group = parser.getgroup("differential", "tests/routing/test_differential.py")
    group.addoption("--requests", type=int, default=3_000, help="how many random requests (3000)")
    group.addoption("--seed", type=int, default=0, help="the first scenario's seed (0)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Start a Redis for tests that neither stop, empty nor configure it: each has a key of its own."""
    password = "correct/horse@battery"
    with RedisServer("--requirepass", password, password=password) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL for tests that neither stop nor configure it: each has a table of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def anyio_backend() -> str:
    """Run ``@pytest.mark.anyio`` tests on asyncio; a test parametrizes ``anyio_backend`` for more."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin each test as a new process would: no backend configured, no app made, no variable set; follow no store on.

    A module that configures backends when it is imported is to be imported anew by each test that needs it.
    """
    for variable in [name for name in os.environ if name.startswith("FASTAPI_MAINTENANCE_")]:
        monkeypatch.delenv(variable)
    with nothing_configured():
        yield
    for view in followed_views():
        io_thread.submit(view._stop()).result(20)


@pytest.fixture
def nothing_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a process in which no endpoint was ever marked."""
    monkeypatch.setattr(marks, "_forced_on_anywhere", False)
    monkeypatch.setattr(marks, "_marks_set", 0)
