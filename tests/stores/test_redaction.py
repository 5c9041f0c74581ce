"""Credentials never reach names, errors and logs: one place replaces them, and every backend uses it."""

from __future__ import annotations

import logging
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import configure_backend
from fastapi_maintenance.backends import RedisBackend, SQLAlchemyBackend
from fastapi_maintenance.exceptions import BackendUnavailable, MaintenanceError
from fastapi_maintenance.stores.redaction import redact_repr, redact_text, redact_url
from tests.support.stores import free_port

SECRET = "s3cr/t @:%"
PASSWORDS = st.text(st.characters(exclude_categories=["C"], exclude_characters="*?ha"), min_size=5)


@given(PASSWORDS)
def test_a_url_loses_its_credentials(password: str) -> None:
    """Encoded or not: a URL whose password is not encoded is invalid, and is named in an error."""
    for secret in (password, quote(password, ""), quote_plus(password)):
        assert redact_url(f"redis://user:{secret}@host/0") == "redis://***@host/0"
    assert redact_url(f"redis://host/0?password={quote(password, '')}") == "redis://host/0?***"


@given(PASSWORDS, st.text())
def test_a_text_loses_its_secrets(password: str, other: str) -> None:
    """In every form in which a server or driver may quote them, also where one is a part of another."""
    text = " and ".join((password, quote(password, ""), quote_plus(password), password * 2))
    shown = redact_text(text, [password, None, "", password * 2])
    assert shown == "*** and *** and *** and ***"
    assert redact_text(other, [None, ""]) == other


def test_an_invalid_backend_is_quoted_only_if_it_is_text() -> None:
    assert redact_repr(f"redis://{SECRET}@host") == "'redis://***@host'"
    assert redact_repr([SECRET]) == "<list>"
    assert [redact_repr(value) for value in (None, True, int)] == ["None", "True", "<class 'int'>"]


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{quote(SECRET, '')}@127.0.0.1:{{port}}/0",
        f"redis://127.0.0.1:{{port}}/0?password={quote(SECRET, '')}",
        f"postgresql+asyncpg://user:{quote(SECRET, '')}@127.0.0.1:{{port}}/db",
    ],
)
@pytest.mark.anyio
async def test_backends_show_no_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither their names nor their errors, with the causes, nor the logs."""
    caplog.set_level(logging.DEBUG)
    kind = RedisBackend if url.startswith("redis") else SQLAlchemyBackend
    backend = kind(url.format(port=free_port()), timeout_seconds=0.5, init_timeout=0.1)
    with pytest.raises(BackendUnavailable) as error:
        await backend.set_value(True)
    await backend.aclose()
    shown = [repr(backend), str(backend), repr(backend.sibling("billing")), caplog.text]
    shown += traceback.format_exception(error.value)
    assert_without_secret("\n".join(shown))


@pytest.mark.parametrize(
    "url", [f"{scheme}://user:{SECRET}@host" for scheme in ("reddis", "redis", "mysql", "memory")]
)
def test_errors_about_a_url_show_no_password(url: str) -> None:
    with pytest.raises(MaintenanceError) as error:
        configure_backend(url)
    assert_without_secret("".join(traceback.format_exception(error.value)))


def assert_without_secret(shown: str) -> None:
    for secret in (SECRET, quote(SECRET, ""), quote_plus(SECRET)):
        assert secret not in shown
