"""The operator's page in a real browser; the screenshots are for looking at."""

import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fastapi_maintenance import (
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    get_maintenance_state,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.model.state import MaintenanceState
from tests.support.servers import uvicorn_server

from .test_page_in_chromium import HOSTILE, SCREENSHOTS, SIZES, SWITCHES

SECONDS = 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium once."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture
def url() -> Iterator[str]:
    """Run a service with two switches and return where its operators go."""
    configure_backend("memory")
    configure_backend("memory", name="billing")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)
    app.get("/bills", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: "bills")
    app.include_router(maintenance_admin(insecure=True, user=lambda _: "ops@desk"), prefix="/admin")
    with uvicorn_server(app) as server:
        yield server.http("/admin/")


@contextmanager
def tab(browser: Browser, url: str, *, size: str = "desktop", scheme: Any = "light", **options: Any) -> Iterator[Page]:
    """Open the page; nothing is to be complained about, and nothing blocked by its own policy."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert [told for told in complaints if "Failed to load resource" not in told] == []


def elsewhere(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Return what code of the service returns; not in this thread, where Playwright has an event loop."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(anyio.run(work)))
    thread.start()
    thread.join()
    return results[0]


def state(name: str = "default") -> MaintenanceState:
    found: MaintenanceState = elsewhere(lambda: get_maintenance_state(name=name))
    return found


def section(page: Page, name: str = "default") -> Any:
    return page.locator(f"section[data-name={name}]")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_switch_is_switched_on_and_off(browser: Browser, url: str, scripts: bool) -> None:
    """In two steps on, in one off; by the keyboard as well, and without scripts."""
    with tab(browser, url, java_script_enabled=scripts) as page:
        one = section(page, "billing")
        expect(one.locator(".mode")).to_have_text("off")
        button = one.get_by_role("button", name="Yes, switch billing on")
        expect(button).to_be_hidden()
        one.locator("summary", has_text="Switch on").press("Enter")
        one.get_by_label("Reason, which clients see").first.fill("new disks")
        one.get_by_label("Mode").first.select_option("read_only")
        button.press("Enter")
        expect(one.locator(".mode")).to_have_text("READ-ONLY")
        expect(one).to_contain_text("new disks")
        expect(one).to_contain_text("by ops@desk")
        assert (state("billing").mode, state("billing").reason) == ("read_only", "new disks")
        assert state().mode == "off"
        page.reload()  # asks nothing again
        one.get_by_role("button", name="Switch billing off").click()
        expect(one.locator(".mode")).to_have_text("off")
        assert state("billing").version == 2


@pytest.mark.parametrize("scripts", [True, False])
def test_a_maintenance_is_corrected(browser: Browser, url: str, scripts: bool) -> None:
    """The form begins with what is on, and keeps what was typed when it is refused."""
    until = datetime.now(UTC) + timedelta(hours=2)
    elsewhere(lambda: set_maintenance_mode("read_only", reason="old disks", until=until, retry_after=600))
    with tab(browser, url, java_script_enabled=scripts) as page:
        one = section(page)
        one.locator("summary", has_text="Change").click()
        reason, end = one.get_by_label("Reason, which clients see").first, one.get_by_label("Until (UTC")
        expect(one.get_by_label("Mode").first).to_have_value("read_only")
        expect(reason).to_have_value("old disks")
        expect(end).to_have_value(f"{until:%Y-%m-%dT%H:%M}")
        expect(one.get_by_label("Retry-After")).to_have_value("600")
        page.screenshot(path=SCREENSHOTS / "admin-change.png", full_page=True)
        reason.fill("new disks")
        one.get_by_role("button", name="Change default").click()
        expect(one).to_contain_text("new disks")
        now = state()
        assert (now.mode, now.reason, now.until, now.retry_after) == ("read_only", "new disks", until, 600)
        one.locator("summary", has_text="Change").click()
        reason.fill("newer disks")
        end.fill("2020-01-01T00:00")
        one.get_by_role("button", name="Change default").click()
        expect(page.get_by_role("alert")).to_contain_text("until must be in the future")
        expect(reason).to_be_visible()
        expect(reason).to_have_value("newer disks")
        expect(end).to_have_value("2020-01-01T00:00")
        page.screenshot(path=SCREENSHOTS / "admin-refused.png", full_page=True)
        end.fill("")
        one.get_by_role("button", name="Change default").click()
        expect(one).to_contain_text("newer disks")
        assert (state().until, state().mode) == (None, "read_only")


def test_a_maintenance_is_planned_and_cancelled(browser: Browser, url: str) -> None:
    with tab(browser, url) as page:
        one = section(page)
        one.locator("summary", has_text="Plan").click()
        start = datetime.now(UTC) + timedelta(days=1)
        one.get_by_label("From (UTC)").fill(f"{start:%Y-%m-%dT%H:%M}")
        one.get_by_label("To (UTC)").fill(f"{start + timedelta(hours=2):%Y-%m-%dT%H:%M}")
        one.get_by_label("Reason, which clients see").last.fill("backup")
        one.get_by_label("Again by").fill("FREQ=WEEKLY")
        one.get_by_role("button", name="Plan it").click()
        expect(one).to_contain_text(f"{start:%Y-%m-%d %H:%M} UTC to ")
        expect(one).to_contain_text("again by FREQ=WEEKLY in UTC: backup")
        page.screenshot(path=SCREENSHOTS / "admin-planned.png", full_page=True)
        one.get_by_role("button", name="Cancel").click()
        expect(one).not_to_contain_text("backup")
        assert state().windows == {}


def test_a_hold_is_refused_first_and_then_broken(browser: Browser, url: str) -> None:
    """Off names its owner; the owner learns of it."""
    entered, broken = threading.Event(), threading.Event()

    async def migrate() -> None:
        async with maintenance_mode_on(owner="migration 42", reason="copying invoices") as block:
            entered.set()
            await anyio.to_thread.run_sync(block.lost.wait, SECONDS)
        if block.lost.is_set():
            broken.set()

    thread = threading.Thread(target=anyio.run, args=(migrate,))
    thread.start()
    entered.wait(SECONDS)
    with tab(browser, url) as page:
        one = section(page)
        expect(one.locator(".mode")).to_have_text("ON")
        expect(one).to_contain_text("on by migration 42: copying invoices")
        page.screenshot(path=SCREENSHOTS / "admin-held.png", full_page=True)
        one.get_by_role("button", name="Switch default off").click()
        expect(page.get_by_role("alert")).to_contain_text("held on by migration 42")
        one.get_by_role("button", name="Break this hold").click()
        expect(one.locator(".mode")).to_have_text("off")
    assert broken.wait(SECONDS)
    thread.join(SECONDS)


def test_of_two_tabs_the_second_learns_what_has_happened(browser: Browser, url: str) -> None:
    """By a note while it is open, and by a refusal that it can understand."""
    with tab(browser, url) as first, tab(browser, url) as second:
        section(first).locator("summary", has_text="Switch on").click()
        section(first).get_by_label("Reason, which clients see").first.fill("first come")
        section(first).get_by_role("button", name="Yes, switch default on").click()
        expect(section(first).locator(".mode")).to_have_text("ON")
        expect(second.locator("#changed")).to_be_visible(timeout=SECONDS * 1000)
        section(second).locator("summary", has_text="Switch on").click()
        section(second).get_by_role("button", name="Yes, switch default on").click()
        expect(second.get_by_role("alert")).to_contain_text("Nothing was done: somebody else changed 'default'")
        expect(section(second)).to_contain_text("first come")
        second.screenshot(path=SCREENSHOTS / "admin-conflict.png", full_page=True)
        assert state().version == 1


def test_what_others_wrote_stays_text(browser: Browser, url: str) -> None:
    elsewhere(lambda: set_maintenance_mode(True, reason=HOSTILE))
    with tab(browser, url) as page:
        expect(page).to_have_title("● Maintenance")
        assert page.locator("img, b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_worth_looking_at(browser: Browser, url: str, scheme: str, size: str) -> None:
    """At three in the morning as well: nothing is wider than the screen."""
    start = datetime.now(UTC) + timedelta(days=1)

    async def fill() -> None:
        await set_maintenance_mode(True, reason="We are moving to a larger database.")
        end = start + timedelta(hours=1)
        await schedule_maintenance(start, end, name="billing", reason="backup", rrule="FREQ=DAILY", zone="UTC")

    elsewhere(fill)
    with tab(browser, url, size=size, scheme=scheme) as page:
        page.locator("summary").first.click()
        page.screenshot(path=SCREENSHOTS / f"admin-{size}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert Path(SCREENSHOTS / f"admin-{size}-{scheme}.png").stat().st_size > 10_000
