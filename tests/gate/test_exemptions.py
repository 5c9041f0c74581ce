"""Exemptions: which paths, pages and preflights pass, and which spellings are refused."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_maintenance import Exemptions, InvalidConfiguration
from fastapi_maintenance.gate.exemptions import is_preflight
from tests.support.asgi import scope_of
from tests.support.costs import cost_of

PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


def is_exempt(path: str, *paths: str) -> bool:
    return Exemptions(paths=paths).of_request(scope_of(path), path, is_docs=False) is not None


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/health", ["/health", "/health/"], ["/healthy", "/health/live", "/Health", "/a/health", "/", ""]),
        ("/health/", ["/health", "/health/"], ["/health/live"]),
        ("/", ["/"], ["/a", ""]),
        ("/*", ["/a", "/a/"], ["/", "/a/b"]),
        ("/items/*/price", ["/items/7/price"], ["/items/price", "/items/7/8/price", "/items/7", "/items//price"]),
        ("/v*/ping", ["/v1/ping", "/v/ping"], ["/w1/ping", "/v1/x/ping"]),
        ("/*.js", ["/app.js", "/.js"], ["/app.json", "/static/app.js"]),
        ("/a*b*c", ["/abc", "/aXbXc", "/abbc"], ["/ab", "/ab/c"]),
        ("/internal/**", ["/internal", "/internal/", "/internal/a", "/internal/a/b/"], ["/internals", "/x/internal"]),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/a/b", "/az", "/a/bz"]),
        ("/**", ["/", "/a", "/a/b/c"], []),
        ("/**/ping", ["/ping", "/a/ping", "/a/b/ping"], ["/aping", "/ping/a"]),
        ("/a.b+c", ["/a.b+c"], ["/aXb+c", "/a.bbc"]),
        ("/größe", ["/größe"], ["/grosse"]),
    ],
)
def test_paths_match_by_whole_segments(pattern: str, matching: list[str], others: list[str]) -> None:
    """A star stays within its segment, two of them stand for any number of segments."""
    assert [path for path in matching if not is_exempt(path, pattern)] == []
    assert [path for path in others if is_exempt(path, pattern)] == []


@pytest.mark.parametrize("name", ["/docs", "/health"])
def test_a_path_that_only_begins_alike_is_not_exempt(name: str) -> None:
    """``/docs-export`` is no part of ``/docs``."""
    assert not is_exempt(f"{name}-export", name, f"{name}/**")


@pytest.mark.parametrize(
    "path",
    [
        "/open/../secret",
        "/open/..",
        "/open/./secret",
        "/open//secret",
        "//open/secret",
        "/open/secret\n",
        "/open/\x00",
        "/open/\x7f",
        "/open\\secret",
        "/open/..\\secret",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_not_exempt(path: str) -> None:
    """A proxy or file system may take it for another one."""
    assert is_exempt("/open/file", "/open/**", "/**")
    assert not is_exempt(path, "/open/**", "/**")


def test_dots_within_a_name_are_only_dots() -> None:
    """Only whole segments of one or two dots mean a folder."""
    for path in ("/open/a..b", "/open/...", "/open/.well-known", "/open/a."):
        assert is_exempt(path, "/open/**")


segments = st.text(st.characters(exclude_characters="/", exclude_categories=["Cc", "Cs"]), min_size=1)


@given(st.lists(segments, min_size=1, max_size=4), st.lists(segments, max_size=4))
def test_a_pattern_without_stars_is_that_path_alone(pattern: list[str], path: list[str]) -> None:
    """Whatever characters a path has, it is compared and not interpreted."""
    spelled, asked = "/" + "/".join(pattern), "/" + "/".join(path)
    try:
        exemptions = Exemptions(paths=[spelled])
    except InvalidConfiguration:
        return
    if "*" not in spelled:
        assert exemptions.of_request(scope_of(), spelled, is_docs=False) == "path"
        is_same = asked == spelled
        assert (exemptions.of_request(scope_of(), asked, is_docs=False) == "path") is is_same


def test_nothing_is_exempt_by_default_but_docs_and_preflights() -> None:
    """The default names no paths."""
    exemptions = Exemptions()
    assert exemptions.of_request(scope_of("/health"), "/health", is_docs=False) is None
    assert exemptions.of_request(scope_of("/docs"), "/docs", is_docs=True) == "docs"
    assert exemptions.of_request(scope_of("/", "OPTIONS", headers=PREFLIGHT), "/", is_docs=False) == "preflight"


def test_docs_and_preflights_can_be_closed() -> None:
    """Each by its own option."""
    exemptions = Exemptions(docs=False, preflight=False)
    assert exemptions.of_request(scope_of("/docs"), "/docs", is_docs=True) is None
    assert exemptions.of_request(scope_of("/", "OPTIONS", headers=PREFLIGHT), "/", is_docs=False) is None


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", PREFLIGHT),
        ("OPTIONS", {}),
        ("OPTIONS", {"Origin": "https://shop.example"}),
        ("OPTIONS", {"Access-Control-Request-Method": "POST"}),
    ],
)
def test_other_requests_are_no_preflights(method: str, headers: dict[str, str]) -> None:
    """It takes the method and both headers."""
    assert not is_preflight(scope_of("/", method, headers=headers))


def test_a_preflight_is_known_by_its_headers_in_any_case() -> None:
    """Servers send lower case; a test client may not."""
    scope = scope_of("/", "OPTIONS")
    scope["headers"] = [(b"Origin", b"null"), (b"ACCESS-CONTROL-REQUEST-METHOD", b"PUT")]
    assert is_preflight(scope)


def test_a_websocket_handshake_is_no_preflight() -> None:
    """It has an origin, and no method."""
    assert not is_preflight(scope_of("/ws", kind="websocket", headers=PREFLIGHT))


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("health", "begins with '/'"),
        ("", "begins with '/'"),
        (None, "begins with '/'"),
        (3, "begins with '/'"),
        (b"/health", "begins with '/'"),
        ("/items/{id}", "write '*' where the route has a parameter"),
        ("/health?full=1", "leave the query out"),
        ("/health#top", "leave the fragment out"),
        ("/gr%C3%B6%C3%9Fe", "write the decoded path"),
        ("/a//b", "has '//', '/./', '/../', a backslash"),
        ("/a/../b", "has '//', '/./', '/../', a backslash"),
        ("/a/.", "has '//', '/./', '/../', a backslash"),
        ("/a\n", "a control character"),
        ("/a\\b", "has '//', '/./', '/../', a backslash"),
        ("/files**", "'**' must be a whole segment"),
        ("/***", "'**' must be a whole segment"),
    ],
)
def test_a_path_that_can_not_work_is_refused_at_once(path: Any, advice: str) -> None:
    """The message has the path and what to write instead."""
    with pytest.raises(InvalidConfiguration) as error:
        Exemptions(paths=["/health", path])
    assert repr(path) in str(error.value)
    assert advice in str(error.value)


def test_one_string_is_not_taken_for_its_letters() -> None:
    """A forgotten comma is told, with the correction."""
    with pytest.raises(InvalidConfiguration, match=re.escape("write paths=('/health',)")):
        Exemptions(paths="/health")


def test_paths_may_come_from_any_iterable() -> None:
    """They are read once."""
    exemptions = Exemptions(paths=(path for path in ("/a", "/b")))
    assert exemptions.paths == ("/a", "/b")
    assert exemptions == Exemptions(paths=["/a", "/b"])
    assert hash(exemptions) == hash(Exemptions(paths=("/a", "/b")))
    assert exemptions.of_request(scope_of("/b"), "/b", is_docs=False) == "path"


@pytest.mark.parametrize("options", [{"paths": None}, {"paths": 3}, {"docs": "no"}, {"preflight": None}])
def test_options_of_another_type_are_refused_by_name(options: dict[str, Any]) -> None:
    """A mistake in an option is told where it is made."""
    with pytest.raises(InvalidConfiguration, match=next(iter(options))):
        Exemptions(**options)


# Any pattern, any path


def fits(pattern: Sequence[str], text: Sequence[str], star: str, matches: Callable[[str, str], bool]) -> bool:
    """Return whether a text fits a pattern in which a star stands for any number of items: all ways are tried."""
    if not pattern:
        return not text
    first, rest = pattern[0], pattern[1:]
    if first == star:
        return any(fits(rest, text[skipped:], star, matches) for skipped in range(len(text) + 1))
    return bool(text) and matches(first, text[0]) and fits(rest, text[1:], star, matches)


def fits_plainly(pattern: list[str], path: list[str]) -> bool:
    """Return whether a path's segments fit a pattern's, by what the documentation says."""
    if not pattern:
        return not path  # "/" is that path alone
    return fits(pattern, path, "**", lambda part, segment: fits(part, segment, "*", operator.eq))


few_segments = st.lists(st.text("ab+", min_size=1, max_size=4), max_size=5)
patterns = st.lists(
    st.just("**") | st.text("ab+*", min_size=1, max_size=4).filter(lambda text: "**" not in text), max_size=5
)


@given(patterns, few_segments, st.sampled_from(["", "/"]), st.sampled_from(["", "/"]))
@settings(max_examples=1000)
def test_any_path_matches_as_if_every_way_were_tried(
    pattern: list[str], path: list[str], end_of_pattern: str, end_of_path: str
) -> None:
    """One slash at the end of either does not count."""
    written = f"/{'/'.join(pattern)}" + (end_of_pattern if pattern else "")
    asked = f"/{'/'.join(path)}" + (end_of_path if path else "")
    assert is_exempt(asked, written) is fits_plainly(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/*a*a*b", "/" + "a" * 2_000),
        ("/*a*a*a*a*a*b", "/" + "a" * 200),
        ("/**/*a*a*b/c", "/" + "a" * 2_000),
        ("/**/x/**/y", "/x" * 20_000),
        ("/**/x/**/x/**/y", "/x" * 1_000),
        ("/**/*x*/**/y", "/x" * 20_000),
    ],
)
def test_no_path_takes_long(pattern: str, path: str) -> None:
    """A client chooses it: tried in every way, these would take seconds or years."""
    exemptions = Exemptions(paths=[pattern])
    assert exemptions.of_request(scope_of(), path, is_docs=False) is None
    assert cost_of(lambda: exemptions.of_request(scope_of(), path, is_docs=False)) < 500
