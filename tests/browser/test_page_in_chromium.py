"""The maintenance page as a real browser shows it; the screenshots are for looking at."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, Page, sync_playwright

from fastapi_maintenance import Answer, MaintenanceModeMiddleware, set_maintenance_mode
from fastapi_maintenance.backends import MemoryBackend
from tests.support.servers import Server, uvicorn_server

SCREENSHOTS = Path(__file__).parent / "screenshots"
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SIZES = {"desktop": (1280, 800), "phone": (390, 844), "small-phone": (320, 568)}
REASON = "We are moving to a larger database. Your data is safe, and nothing will be lost."
HOSTILE = (
    "</p></section></main><script>document.title = 'taken over'</script><img src=x onerror=\"document.title='x'\">"
    "<meta http-equiv=refresh content=0> \"double\" 'single' & &amp; <b>bold</b> 🚧 👩‍💻\r\nSet-Cookie: stolen=1\r\n"
    "\0NUL \u202egnirts desrever\u202c שלום עולם ${title} $$ "
)
REASONS = {
    "reason": REASON,
    "none": None,
    "hostile": HOSTILE,
    "long": "Lorem ipsum dolor sit amet, " * 40 + "x" * 880,
}
STATUS_IN_CONSOLE = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
"""What Chromium itself says of every page with this status."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium once."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=SWITCHES)
        yield chromium
        chromium.close()


@dataclass
class Service:
    """A running service with one page, and when that was asked for."""

    server: Server
    backend: MemoryBackend
    asked: list[datetime] = field(default_factory=list)

    def close(self, reason: str | None = None, until: datetime | None = None) -> None:
        """Put the service under maintenance."""
        change = partial(set_maintenance_mode, True, self.backend, reason=reason, until=until)
        # Not here: Playwright has an event loop in this thread.
        thread = threading.Thread(target=anyio.run, args=(change,))
        thread.start()
        thread.join()


@contextmanager
def service(answer: Answer | None = None) -> Iterator[Service]:
    """Run a service."""
    backend = MemoryBackend()
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def shop() -> HTMLResponse:
        return HTMLResponse("<title>Shop</title><link rel=icon href='data:,'><h1>Open</h1>")

    app.add_middleware(MaintenanceModeMiddleware, backend=backend, answer=answer)
    asked: list[datetime] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        asked.append(datetime.now(UTC))
        await app(scope, receive, send)

    with uvicorn_server(noting) as server:
        yield Service(server, backend, asked)


@dataclass
class Visit:
    """A page that a reader opened, and what happened behind it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self, url: str) -> None:
        """Nothing was complained about, and nothing but the page was loaded."""
        assert [complaint for complaint in self.complaints if complaint != STATUS_IN_CONSOLE] == []
        assert self.requests == [url]


@contextmanager
def reader(browser: Browser, *, size: str = "desktop", scheme: Any = "light", **options: Any) -> Iterator[Visit]:
    """Open a window of a reader in Berlin."""
    width, height = SIZES[size]
    settings: dict[str, Any] = {"timezone_id": "Europe/Berlin", "locale": "en-GB", "color_scheme": scheme} | options
    context = browser.new_context(viewport={"width": width, "height": height}, **settings)
    visit = Visit(context.new_page())
    visit.page.on("console", lambda message: visit.complaints.append(message.text))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    try:
        yield visit
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reason", REASONS)
def test_the_page_stands_up_to_every_reader_and_reason(browser: Browser, reason: str, size: str, scheme: str) -> None:
    """Nothing overflows, nothing is loaded, nothing complains; the reason is text."""
    until = None if reason == "none" else datetime.now(UTC) + timedelta(minutes=25)
    with service() as shop, reader(browser, size=size, scheme=scheme) as visit:
        shop.close(REASONS[reason], until)
        response = visit.page.goto(shop.server.http())
        assert response is not None
        assert response.status == 503
        visit.page.wait_for_timeout(100)
        visit.page.screenshot(path=SCREENSHOTS / f"{reason}-{size}-{scheme}.png")
        visit.assert_quiet(shop.server.http())
        assert visit.page.title() == "We’ll be back soon"
        assert len(shop.asked) == 1
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.page.evaluate("document.scripts.length") == 1
        assert visit.page.locator("main img, main b, main script").count() == 0
        assert visit.page.evaluate("document.cookie") == ""
        if reason == "hostile":
            shown = visit.page.locator(".reason").inner_text()
            assert shown.startswith("</p></section></main><script>document.title = 'taken over'</script><img src=x")
            assert "🚧 👩‍💻\nSet-Cookie: stolen=1\nNUL gnirts desrever שלום עולם ${title} $$" in shown
        if reason == "long":
            assert len(visit.page.locator(".reason").inner_text()) > 1_990


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_as_shown_is_that_of_wcag_aa(browser: Browser, scheme: str) -> None:
    """Each text against the nearest ground that is painted below it."""
    with service() as shop, reader(browser, scheme=scheme) as visit:
        shop.close(REASON, datetime.now(UTC) + timedelta(minutes=25))
        visit.page.goto(shop.server.http())
        ratios: dict[str, float] = visit.page.evaluate("""() => {
            const luminance = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
                    const value = part / 255;
                    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ground = (element) => {
                const colour = getComputedStyle(element).backgroundColor;
                return /, 0\\)$/.test(colour) ? ground(element.parentElement) : colour;
            };
            const ratios = {};
            for (const element of document.querySelectorAll("h1, h2, p, time, span, a")) {
                const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))];
                ratios[element.tagName + element.className + element.innerText] =
                    (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            }
            return ratios;
        }""")
    assert len(ratios) >= 9
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize(
    ("zone", "locale", "shown"),
    [
        ("Europe/Berlin", "en-GB", "Wednesday, 1 January 2081 at 00:30 CET"),
        ("America/New_York", "en-US", "Tuesday, December 31, 2080 at 6:30 PM EST"),
        ("Asia/Kolkata", "de-DE", "Wednesday, January 1, 2081 at 5:00 AM GMT+5:30"),
    ],
)
def test_the_end_is_shown_in_the_readers_own_zone(browser: Browser, zone: str, locale: str, shown: str) -> None:
    """In the page's language, as it is written where the reader lives."""
    with service() as shop, reader(browser, timezone_id=zone, locale=locale) as visit:
        shop.close(until=datetime(2080, 12, 31, 23, 29, 59, tzinfo=UTC))
        visit.page.goto(shop.server.http())
        # Newer browsers separate time and half of day by a narrow space.
        assert visit.page.locator("time").inner_text().replace("\u202f", " ") == shown
        assert visit.page.locator(".left").inner_text().startswith("in ")


def test_the_time_left_is_told_in_words(browser: Browser) -> None:
    """Minutes, hours, days."""
    for span, words in (
        (timedelta(seconds=50), "any moment now"),
        (timedelta(minutes=25), "in 25 minutes"),
        (timedelta(hours=3), "in 3 hours"),
        (timedelta(days=3), "in 3 days"),
    ):
        with service() as shop, reader(browser) as visit:
            shop.close(until=datetime.now(UTC) + span)
            visit.page.goto(shop.server.http())
            assert visit.page.locator(".left").inner_text() == words


@pytest.mark.parametrize("scripts", [True, False])
def test_the_page_reloads_when_the_end_is_due_and_not_before(browser: Browser, scripts: bool) -> None:
    """With and without scripts, and then it is the service's own page."""
    with service() as shop, reader(browser, java_script_enabled=scripts) as visit:
        until = datetime.now(UTC) + timedelta(seconds=2.5)
        shop.close(REASON, until)
        visit.page.goto(shop.server.http())
        assert visit.page.locator("h1").inner_text() == "We’ll be back soon"
        visit.page.get_by_text("Open").wait_for(timeout=15_000)
        assert len(shop.asked) == 2
        assert until <= shop.asked[1] < until + timedelta(seconds=5)


def test_the_page_waits_on_when_the_clock_of_the_reader_is_wrong(browser: Browser) -> None:
    """How long it takes counts, by the server; a clock that is a day ahead reloads nothing early."""
    with service() as shop, reader(browser) as visit:
        visit.page.clock.install(time=datetime.now(UTC) + timedelta(days=1))
        until = datetime.now(UTC) + timedelta(seconds=2.5)
        shop.close(until=until)
        visit.page.goto(shop.server.http())
        assert visit.page.locator(".left").inner_text() == "any moment now"
        time.sleep(1)
        assert len(shop.asked) == 1
        visit.page.get_by_text("Open").wait_for(timeout=15_000)
        assert until <= shop.asked[1]


def test_a_page_with_a_far_end_does_not_reload(browser: Browser) -> None:
    """A timer that is too long for a browser would be due at once."""
    for days in (20, 24, 26, 60, 4000):
        with service() as shop, reader(browser) as visit:
            shop.close(until=datetime.now(UTC) + timedelta(days=days))
            visit.page.goto(shop.server.http())
            visit.page.wait_for_timeout(300)
            assert len(shop.asked) == 1
            visit.assert_quiet(shop.server.http())


def test_a_form_is_not_sent_again(browser: Browser) -> None:
    """The answer to a POST says when to come back, and leaves the rest to the reader."""
    with service() as shop, reader(browser) as visit:
        visit.page.goto(shop.server.http())
        visit.page.set_content(f"<form method=post action='{shop.server.http()}'><button>Buy")
        shop.close(REASON, datetime.now(UTC) + timedelta(seconds=1.5))
        visit.page.get_by_role("button").click()
        visit.page.get_by_text("We’ll be back soon").wait_for()
        assert visit.page.get_by_role("link").count() == 0
        visit.page.wait_for_timeout(3000)
        assert len(shop.asked) == 2
        visit.page.screenshot(path=SCREENSHOTS / "post-desktop-light.png")


def test_the_page_works_without_scripts(browser: Browser) -> None:
    """The end is there in UTC, and the link leads back to the same page."""
    with service() as shop, reader(browser, java_script_enabled=False) as visit:
        shop.close(REASON, datetime(2080, 12, 31, 23, 30, tzinfo=UTC))
        visit.page.goto(shop.server.http("/?basket=1"))
        assert visit.page.locator("time").inner_text() == "2080-12-31 23:30 UTC"
        visit.page.screenshot(path=SCREENSHOTS / "no-scripts-desktop-light.png")
        visit.page.get_by_role("link", name="Try again now").click()
        visit.page.wait_for_load_state()
        assert len(shop.asked) == 2
        assert visit.page.url == shop.server.http("/?basket=1")


def test_nothing_moves_for_readers_who_asked_for_that(browser: Browser) -> None:
    """``prefers-reduced-motion``."""
    running = "document.getAnimations().length"
    with service() as shop:
        shop.close()
        with reader(browser, reduced_motion="reduce") as visit:
            visit.page.goto(shop.server.http())
            assert visit.page.evaluate(running) == 0
        with reader(browser, reduced_motion="no-preference") as visit:
            visit.page.goto(shop.server.http())
            assert visit.page.evaluate(running) == 1


def test_the_keyboard_reaches_the_link_and_shows_it(browser: Browser) -> None:
    """One stop, with an outline."""
    with service() as shop, reader(browser) as visit:
        shop.close(REASON, datetime.now(UTC) + timedelta(minutes=25))
        visit.page.goto(shop.server.http())
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.innerText") == "Try again now"
        assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        visit.page.screenshot(path=SCREENSHOTS / "focus-desktop-light.png")


def test_the_policy_stops_what_is_put_into_the_page(browser: Browser) -> None:
    """Were there a hole in the escaping, no foreign script would run."""
    with service() as shop, reader(browser) as visit:
        shop.close()
        visit.page.goto(shop.server.http())
        visit.page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken over'";
            document.body.append(script);
        }""")
        assert visit.page.title() == "We’ll be back soon"
        assert any("Content Security Policy" in complaint for complaint in visit.complaints)
