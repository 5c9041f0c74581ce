"""Every Python block of README and docs runs, a page at a time and in order, and every link leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import hmac
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

import fastapi_maintenance
from fastapi_maintenance import background
from fastapi_maintenance.backends.base import FollowedBackend
from fastapi_maintenance.registry import registry

from .scripts import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)?(?:#([\w-]+))?\)")


async def nothing() -> None:
    """Stand for work of the reader's own."""


GIVEN: dict[str, dict[str, Any]] = {
    "README.md": {
        "migrate": nothing,
        "compare_digest": hmac.compare_digest,
        "SECRET": "secret",
        "PlainTextResponse": PlainTextResponse,
        "Exemptions": fastapi_maintenance.Exemptions,
    },
    "holds.md": {"copy_invoices": nothing},
}
"""What a page takes for granted: the reader's own code, and imports that it has shown elsewhere."""


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the line at which it begins."""
    text = page.read_text("utf-8")
    return [
        (text[: match.start()].count("\n") + 2, inspect.cleandoc(match[2]) if match[1] else match[2])
        for match in BLOCK.finditer(text)
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a page a directory and a process that look like new."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BYPASS_SECRET", "x" * 32)
    monkeypatch.setenv("OPERATORS_PASSWORD", "secret")
    (tmp_path / "maintenance.html").write_text("<p>$detail</p>")
    (tmp_path / "shop").mkdir()
    yield tmp_path
    for _, backend in registry.in_use():
        if isinstance(backend, FollowedBackend) and backend.stop_following is not None:
            background.submit(backend.stop_following()).result(20)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path, place: Path) -> None:
    """In one namespace, as a reader would copy them one after the other."""
    names: dict[str, Any] = {"__name__": f"docs.{page.stem}", **GIVEN.get(page.name, {})}

    for line, block in blocks_of(page):
        source = "\n" * (line - 1) + _with_places(block, place)
        code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)


def _with_places(block: str, place: Path) -> str:
    """Return a block that writes where it may."""
    return block.replace('"/run/', f'"{place}/').replace('"/srv/', f'"{place}/')


def test_pages_have_blocks() -> None:
    """So that a typo in the pattern doesn't leave nothing to test."""
    assert sum(len(blocks_of(page)) for page in PAGES) > 25
    assert len(blocks_of(ROOT / "README.md")) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, (path, anchor)


def test_every_public_name_is_in_the_docs() -> None:
    """All that can be called; what it returns or raises, the reference shows."""
    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    public = {name: getattr(fastapi_maintenance, name) for name in fastapi_maintenance.__all__}
    names = [name for name, value in public.items() if not isinstance(value, type)]
    assert [name for name in names if not re.search(rf"\b{name}\b", told)] == []
