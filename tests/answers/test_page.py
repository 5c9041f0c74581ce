"""The page that ships with the package, and templates of one's own."""

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from fastapi_maintenance import Answer, Decision, MaintenanceMode
from fastapi_maintenance.answers.page import CONDITIONS, PLACEHOLDERS, SHIPPED, SHIPPED_POLICY, Page
from fastapi_maintenance.model.decision import Rule
from fastapi_maintenance.model.text import encodable, in_one_line, legible
from tests.support.asgi import scope_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(minutes=30)
NOTHING = dict.fromkeys(PLACEHOLDERS, "")


def page(
    reason: str | None = None, until: datetime | None = None, method: str = "GET", answer: Answer | None = None
) -> str:
    """Return the page that a browser gets."""
    answer = answer or Answer()
    decision = answer.with_retry_after(Decision(True, Rule.MODE, "default", MaintenanceMode.ON, reason, until), NOW)
    request = Request(scope_of("/", method, headers={"Accept": "text/html"}))
    return bytes(answer.response(decision, request, NOW).body).decode()


class Outline(HTMLParser):
    """What stands in a page: its elements in order, and the text of each."""

    VOID = ("meta", "link", "circle", "path", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text with the innermost element."""
        if self._open and data.strip():
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    def tags(self) -> list[str]:
        """Return the names of the elements in order."""
        return [tag for tag, _ in self.elements]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("until", [None, UNTIL])
@pytest.mark.parametrize("reason", [None, "new disks"])
def test_the_page_is_whole_whatever_is_known(reason: str | None, until: datetime | None, method: str) -> None:
    """Every element is closed, nothing of the template is left, no section is empty."""
    text = page(reason, until, method)
    outline = Outline(text)
    assert text.startswith("<!doctype html>\n<html lang=")
    assert not re.search(r"\$|<!--", re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL))
    assert outline.texts["title"] == outline.texts["h1"] == "We’ll be back soon"
    assert ("new disks" in text) is (reason is not None)
    assert ("2026-11-20 12:30 UTC" in text) is (until is not None)
    assert ("We don’t know yet" in text) is (until is None)
    assert outline.tags().count("section") == 1 + (reason is not None)


def test_the_page_is_accessible() -> None:
    """Language, a title, one first heading and no level left out, zoom, marks for decoration, an isolated reason."""
    outline = Outline(page("new disks", UNTIL))
    elements = dict(reversed(outline.elements))
    assert elements["html"]["lang"] == "en"
    assert [tag for tag in outline.tags() if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h2"]
    assert outline.tags().count("main") == 1
    assert elements["svg"]["aria-hidden"] == "true"
    viewport = next(attributes for _, attributes in outline.elements if attributes.get("name") == "viewport")
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert elements["time"]["datetime"] == "2026-11-20T12:30:00+00:00"
    reason = next(attributes for _, attributes in outline.elements if attributes.get("class") == "reason")
    assert reason["dir"] == "auto"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address in it leads out of the page: its icon is in it, and its link leads to where the reader is."""
    text = page("new disks", UNTIL)
    outline = Outline(text)
    for _, attributes in outline.elements:
        assert not {"src", "srcset", "style", "onload", "onclick", "action"} & set(attributes)
    icon, *links = [attributes["href"] or "" for _, attributes in outline.elements if "href" in attributes]
    assert icon.startswith("data:image/svg+xml,")
    assert links == [""]
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_allows_this_script_and_style_and_nothing_else() -> None:
    """By their digests, in the page as it is sent; a page of one's own comes without a policy."""
    text = page("<script>alert(1)</script>", UNTIL)
    scripts, styles = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style"))
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in (*scripts, *styles)]
    expected_policy = (
        f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert expected_policy == SHIPPED_POLICY
    for own, expected in ((Answer(), SHIPPED_POLICY), (Answer(html="<p>$title"), None)):
        told = own.with_retry_after(Decision(True, Rule.MODE, "default", MaintenanceMode.ON), NOW)
        for kind, policy in (("text/html", expected), ("application/json", None)):
            response = own.response(told, Request(scope_of(headers={"Accept": kind})), NOW)
            assert response.headers.get("content-security-policy") == policy


def test_a_policy_of_ones_own_stands_above_the_pages() -> None:
    """Headers of an answer are stronger than the default ones."""
    answer = Answer(headers={"content-security-policy": "default-src 'self'"})
    told = answer.with_retry_after(Decision(True, Rule.MODE, "default", MaintenanceMode.ON), NOW)
    response = answer.response(told, Request(scope_of(headers={"Accept": "text/html"})), NOW)
    assert response.headers.getlist("content-security-policy") == ["default-src 'self'"]


def test_the_page_reloads_itself_only_where_that_is_harmless_and_due() -> None:
    """With a known end that is not too far for a browser's timer, and by GET only: no form is sent again."""
    far = NOW + timedelta(days=40)
    text = page(None, UNTIL)
    assert 'data-reload="1800"' in text
    assert '<noscript><meta http-equiv="refresh" content="1800"></noscript>' in text
    assert "reloads by itself" in text
    for text in (page(), page(None, UNTIL, "POST"), page(None, far)):
        assert 'data-reload=""' in text
        assert "refresh" not in text
        assert "reloads by itself" not in text
    assert 'href=""' in page(None, far)
    assert 'href=""' not in page(None, UNTIL, "POST")


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_no_text_becomes_markup(reason: str, title: str, detail: str) -> None:
    """The elements of the page are the same, whatever stands in reason, title and detail."""
    if not legible(title) or not legible(detail):
        return
    elements = Outline(page(reason + "x", UNTIL, answer=Answer(title=title, detail=detail))).elements
    assert elements == Outline(page("x", UNTIL)).elements


def test_the_ends_minute_is_not_before_the_end() -> None:
    """People are told minutes: rounded up."""
    for seconds, told in ((0, "12:30"), (1, "12:31"), (59.999, "12:31"), (60, "12:31")):
        assert f"2026-11-20 {told} UTC</time>" in page(None, UNTIL + timedelta(seconds=seconds))


# Contrast


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"), [("text", "card"), ("quiet", "card"), ("accent", "card"), ("accent", "tint")]
)
def test_the_contrast_is_that_of_wcag_aa(scheme: str, text: str, ground: str) -> None:
    """4.5 to 1 at least for every text."""
    light, dark = page().split("prefers-color-scheme: dark", 1)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    brighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= 4.5


def test_what_moves_moves_only_for_those_who_do_not_mind() -> None:
    """Every animation and transition stands behind prefers-reduced-motion."""
    before, _, after = page().partition("prefers-reduced-motion: no-preference")
    assert not re.search(r"\b(animation|transition):", before)
    assert "animation:" in after


# Templates of one's own


def test_a_template_has_all_placeholders_and_conditions() -> None:
    """Each is filled with escaped text, each block is kept or left out."""
    template = " ".join(f"{name}=${name}" for name in PLACEHOLDERS) + "".join(
        f"<!-- if {name} -->[{name}]<!-- endif --><!-- if not {name} -->[no {name}]<!-- endif -->"
        for name in CONDITIONS
    )
    values = {name: f"<{name} & $title>" for name in PLACEHOLDERS}
    known = Page(template).render(values, get=True)
    for name in PLACEHOLDERS:
        assert f"{name}=&lt;{name} &amp; $title&gt;" in known
    assert known.endswith("[reason][until][get][reload]")
    assert Page(template).render(NOTHING, get=False).endswith("[no reason][no until][no get][no reload]")


def test_two_dollar_signs_are_one() -> None:
    """As in ``string.Template``; braces are allowed, too."""
    assert Page("$$5 ${title}s").render(NOTHING | {"title": "Sale"}, get=True) == "$5 Sales"


def test_the_shipped_page_is_a_template_like_any_other() -> None:
    """It can be copied and changed."""
    text = resources.files("fastapi_maintenance").joinpath("pages/maintenance.html").read_text("utf-8")
    assert Page(text) == SHIPPED
    assert page("new disks", UNTIL, answer=Answer(html=text)) == page("new disks", UNTIL)


# Text for people


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  a\r\nb\rc\x85d\u2028e\u2029f \n", "a\nb\nc\nd\ne\nf"),
        ("a\0b\x1b[31mc\x7fd\x9fe\ufefff", "ab[31mcdef"),
        ("a\tb", "a\tb"),
        ("\u202ea\u202db\u202cc", "abc"),
        ("\u200fשלם\u2067x\u2069", "\u200fשלם\u2067x\u2069"),
        ("\ud83da\udea7", "\ufffda\ufffd"),
        ("🚧 👩‍💻", "🚧 👩‍💻"),
    ],
)
def test_what_people_see_has_no_controls(text: str, shown: str) -> None:
    """Line ends are line ends, marks that reverse text are gone, letters of every script stay."""
    assert legible(text) == shown


@given(st.text(st.characters()))
def test_what_is_encodable_is(text: str) -> None:
    """Anything, half a surrogate pair included; and what was so before stays as it is."""
    encoded = encodable(text).encode()
    if not re.search(r"[\ud800-\udfff]", text):
        assert encoded.decode() == text


def test_a_line_of_a_log_has_no_marks_of_direction() -> None:
    """Not even those that texts written from right to left may have."""
    assert in_one_line("a\n\u2066b\u2067\u2068\u2069\u200ec\u200f\u061c\u202e d") == "a bc d"
