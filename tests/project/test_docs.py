"""README and docs are true: code runs, commands parse, links lead somewhere, and nothing that there is goes unsaid."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import fastapi_maintenance
from fastapi_maintenance import backends, exceptions, stores, testing
from fastapi_maintenance.backends import FollowOptions, StoreBackend
from fastapi_maintenance.cli.commands import app as command_line
from fastapi_maintenance.cli.values import parse_duration, parse_seconds
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.desk import router
from fastapi_maintenance.model.decision import Rule
from fastapi_maintenance.model.policy import PRECEDENCE
from fastapi_maintenance.switches.registry import registry
from tests.support.commands import run
from tests.support.scripts import ROOT
from tests.support.stores import RedisServer

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PACKAGE = Path(fastapi_maintenance.__file__).parent
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)?(?:#([\w-]+))?\)")


async def nothing() -> None:
    """Stand for work of the reader's own."""


GIVEN: dict[str, dict[str, Any]] = {
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
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BYPASS_SECRET", "x" * 32)
    monkeypatch.setenv("OPERATORS_PASSWORD", "secret")
    (tmp_path / "maintenance.html").write_text("<p>$detail</p>")
    (tmp_path / "shop").mkdir()
    yield tmp_path
    for _, backend in registry.in_use():
        if isinstance(backend, StoreBackend) and backend.stop_following is not None:
            io_thread.submit(backend.stop_following()).result(20)


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
    assert len(blocks_of(ROOT / "README.md")) >= 3


def test_the_readme_begins_with_how_to_run_and_test_it() -> None:
    """By targets that there are, before anything has to be installed."""
    begin, install, _ = (ROOT / "README.md").read_text("utf-8").partition("## Install")
    assert install
    targets = re.findall(r"^(\w[\w-]*):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"demo", "test"} == {command.removeprefix("make ") for command in SPAN.findall(begin) if "make " in command}
    assert {"demo", "test"} <= set(targets)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in slugs, (path, anchor)


def test_the_picture_of_a_terminal_shows_every_line_whole() -> None:
    """Each is drawn in a box of its own, for which rich forgets the last one's."""
    picture = (ROOT / "docs" / "images" / "cli.svg").read_text("utf-8")
    boxes = set(re.findall(r'<clipPath id="([\w-]+)"', picture))
    drawn = re.findall(r'<text [^>]*clip-path="url\(#([\w-]+)\)">([^<]*)</text>', picture)
    assert len(drawn) > 5
    assert [text for box, text in drawn if text.strip() and box not in boxes] == []


# Commands


COMMANDS = get_command(command_line)
OF_EACH_COMMAND = {"--backend", "--json", "--quiet", "-q", "--new", "--help", "-h"}
"""Options that are explained once for all commands."""


def shown_commands(page: Path) -> list[list[str]]:
    """Return the arguments of each ``fastapi-maintenance`` that a page shows, in a block or within a line."""
    text = page.read_text("utf-8")
    lines: list[str] = []
    for _, language, code in FENCE.findall(text):
        joined = code.replace("\\\n", " ")
        if language == "console":  # what follows a prompt; the rest is output
            lines += re.findall(r"^\$ (.*)$", joined, re.MULTILINE)
        elif language in ("sh", "bash", "shell"):
            lines += joined.splitlines()
    lines += [span for span in SPAN.findall(FENCE.sub("", text)) if span.startswith("fastapi-maintenance ")]
    words = [shlex.split(line, comments=True) for line in lines]
    for line in words:
        if line[:3] == ["python", "-m", "fastapi_maintenance"]:
            line[:3] = ["fastapi-maintenance"]
    ours = [line for line in words if "fastapi-maintenance" in line and line[0] != "pip"]
    return [line[line.index("fastapi-maintenance") + 1 :] for line in ours]


def parse(arguments: list[str]) -> None:
    """Read the arguments of a command as the command line does, and do nothing."""
    own, command = arguments, []
    if arguments[0] == "run" and "--" in arguments:
        end = arguments.index("--")
        own, command = arguments[:end], arguments[end + 1 :]
        assert command, arguments
    groups: Any = COMMANDS
    outer = groups.make_context("fastapi-maintenance", list(own))
    name, subcommand, rest = groups.resolve_command(outer, list(own))
    given = subcommand.make_context(name, rest, parent=outer).params
    for parameter in subcommand.params:
        value = given[parameter.name]
        if value in (None, "never"):
            continue
        if parameter.metavar == "DURATION":
            parse_duration(value, parameter.opts[0])
        elif parameter.metavar == "SECONDS":
            parse_seconds(value, parameter.opts[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_can_be_read(page: Path) -> None:
    for arguments in shown_commands(page):
        parse(arguments)


def test_commands_are_shown() -> None:
    """So that a typo in the patterns doesn't leave nothing to test; and a wrong one is noticed."""
    assert sum(len(shown_commands(page)) for page in PAGES) > 25
    for wrong in (["onn"], ["on", "--four", "2h"], ["cancel"], ["run", "--drain", "x", "--", "true"]):
        with pytest.raises(Exception, match=r"No such|Missing|must be seconds or a duration"):
            parse(wrong)


SAY_WHAT_THEY_DID = ("on", "off", "status", "schedule", "cancel")


def said_on(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the commands of a page that do what they say and end, each with what is shown of its answer."""
    for _, language, code in FENCE.findall(page.read_text("utf-8")):
        for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:] if language == "console" else ():
            command, _, shown = part.partition("\n")
            if re.match(rf"fastapi-maintenance ({'|'.join(SAY_WHAT_THEY_DID)})\b", command):
                yield command, shown


@pytest.mark.parametrize("page", [page for page in PAGES if [*said_on(page)]], ids=lambda page: page.name)
def test_commands_say_what_is_shown(page: Path, tmp_path: Path) -> None:
    """Times, ids, versions, people and stores apart; commands that are shown without an answer have to succeed."""
    ids: dict[str, str] = {}
    with store_shown_on(page, tmp_path) as url:
        for command, shown in said_on(page):
            words = [ids.get(word, word) for word in shlex.split(next_year(command), comments=True)[1:]]
            ended = run(*words, cwd=tmp_path, env={"FASTAPI_MAINTENANCE_BACKEND": url})
            assert (ended.status, ended.error) == (0, ""), command
            ids |= dict(zip(ID.findall(shown), ID.findall(ended.out), strict=False))
            if shown:
                assert general(ended.out) == general(next_year(shown)), command


@contextmanager
def store_shown_on(page: Path, directory: Path) -> Iterator[str]:
    """Yield an empty store of the kind that a page means: Redis has a version where a file has none."""
    if "FASTAPI_MAINTENANCE_BACKEND=redis://" not in page.read_text("utf-8"):
        yield f"file://{directory}/switch"
        return
    with RedisServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


ID = re.compile(r"\b[0-9a-f]{12}\b")


def next_year(text: str) -> str:
    """Return a text of which the year that is still to come will be so for ever."""
    return text.replace("2027-", f"{datetime.now(UTC).year + 1}-")


def general(said: str) -> str:
    """Return what a command says without what differs from time to time and place to place."""
    for pattern, general_word in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
        (r"\b[0-9a-f]{12}\b", "ID"),
        (r"(version:?) \d+", r"\1 N"),
        (r"by \S+@\S+", "by SOMEBODY"),
        (r", in /[^:\s]+", ", in PLACE"),
    ):
        said = re.sub(pattern, general_word, said)
    return said.strip()


def commands() -> dict[str, Any]:
    """Return the commands by their names, those included that stand for another."""
    groups: Any = COMMANDS
    return dict(groups.commands)


def options_of(command: Any) -> set[str]:
    """Return the options of a command, as one writes them."""
    return {option for parameter in command.params for option in parameter.opts if option.startswith("-")}


def test_every_command_is_in_the_docs_with_its_options() -> None:
    """In the line of the table that begins with it, or has it as its other name."""
    rows = re.findall(r"^\| (`.*) \|$", (DOCS / "cli.md").read_text("utf-8"), re.MULTILINE)
    missing = []
    for name, command in commands().items():
        row = next((row for row in rows if re.match(rf"`{name}\b[^|]*\||[^|]*also `{name}`[^|]*\|", row)), "")
        told = {word for span in SPAN.findall(row) for word in span.split()}
        missing += [(name, option) for option in sorted(options_of(command) - OF_EACH_COMMAND - told)]
        missing += [] if row else [(name, "the command itself")]
    assert missing == []


def test_every_option_of_all_commands_is_in_the_docs() -> None:
    told = words_in_code(DOCS / "cli.md")
    wanted = {option for command in commands().values() for option in options_of(command)} | options_of(COMMANDS)
    assert sorted(wanted - told) == []


def words_in_code(page: Path) -> set[str]:
    """Return the words that a page has in its code font, blocks included."""
    text = page.read_text("utf-8")
    code = [code for _, _, code in FENCE.findall(text)] + SPAN.findall(FENCE.sub("", text))
    return {word.strip("()[],.:;'\"") for part in code for word in part.split()}


# Options, rules, variables, names


PLACES: dict[Callable[..., Any], str] = {
    fastapi_maintenance.Answer: "answers.md",
    fastapi_maintenance.Bypass: "bypass.md",
    fastapi_maintenance.Bypass.link: "bypass.md",
    fastapi_maintenance.Bypass.token: "bypass.md",
    fastapi_maintenance.Exemptions: "exemptions.md",
    fastapi_maintenance.MaintenanceGuard: "switches.md",
    fastapi_maintenance.MaintenanceModeMiddleware: "switches.md",
    fastapi_maintenance.cancel_maintenance: "windows.md",
    fastapi_maintenance.configure_backend: "backends.md",
    fastapi_maintenance.document_maintenance: "answers.md",
    fastapi_maintenance.forget_switch: "switches.md",
    fastapi_maintenance.get_maintenance_mode: "switches.md",
    fastapi_maintenance.get_maintenance_state: "switches.md",
    fastapi_maintenance.get_maintenance_status: "backends.md",
    fastapi_maintenance.in_flight: "draining.md",
    fastapi_maintenance.is_maintenance_on: "switches.md",
    fastapi_maintenance.list_switches: "switches.md",
    fastapi_maintenance.maintenance_mode_off: "holds.md",
    fastapi_maintenance.maintenance_mode_on: "holds.md",
    fastapi_maintenance.on_change: "events.md",
    fastapi_maintenance.schedule_maintenance: "windows.md",
    fastapi_maintenance.set_maintenance_mode: "switches.md",
    router.maintenance_admin: "admin.md",
    backends.EnvVarBackend: "backends.md",
    backends.LocalFileBackend: "backends.md",
    backends.MemoryBackend: "backends.md",
    backends.RedisBackend: "backends.md",
    backends.SQLAlchemyBackend: "backends.md",
    testing.assert_blocked: "testing.md",
    testing.assert_open: "testing.md",
    testing.maintenance: "testing.md",
}
"""The page that explains the options of what can be called."""

SEEN: dict[type, str] = {
    fastapi_maintenance.Decision: "answers.md",
    fastapi_maintenance.SwitchStatus: "backends.md",
    fastapi_maintenance.Transition: "events.md",
}
"""The page that explains what users are given."""


def options_without_a_word(function: Callable[..., Any], text: str) -> list[str]:
    """Return the options that a text does not name: by themselves, with ``=``, or in what looks like a call."""
    spans = SPAN.findall(FENCE.sub("", text))
    name = function.__name__
    calls = "\n".join(span for span in spans if f"{name}(" in span)
    blocks = "\n".join(code for _, _, code in FENCE.findall(text) if name in code)
    missing = []
    for option, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:  # see FollowOptions
            continue
        by_itself = any(span == option or span.startswith(f"{option}=") for span in spans)
        in_a_call = re.search(rf"\b{option}\b", calls) or re.search(rf"\b{option}=", blocks)
        if not by_itself and not in_a_call and option not in ("self", "app"):
            missing.append(option)
    return missing


@pytest.mark.parametrize("function", PLACES, ids=lambda function: function.__name__)
def test_every_option_is_in_the_docs(function: Callable[..., Any]) -> None:
    assert options_without_a_word(function, (DOCS / PLACES[function]).read_text("utf-8")) == []


@pytest.mark.parametrize("function", PLACES, ids=lambda function: function.__name__)
def test_every_default_in_a_table_is_the_real_one(function: Callable[..., Any]) -> None:
    table = dict(
        re.findall(r"^\| `(\w+)` \| `([^`|]+)` \|", (DOCS / PLACES[function]).read_text("utf-8"), re.MULTILINE)
    )
    for option in inspect.signature(function).parameters.values():
        if option.name in table and option.default is not option.empty:
            told = table[option.name]
            real = None if told.endswith("()") else ast.literal_eval(told)  # None stands for one without options
            assert option.default == real, option


@pytest.mark.parametrize("given", SEEN, ids=lambda given: given.__name__)
def test_everything_that_users_are_given_is_in_the_docs(given: Any) -> None:
    told = set(SPAN.findall((DOCS / SEEN[given]).read_text("utf-8")))
    assert [field.name for field in fields(given) if field.name not in told] == []


def test_every_option_for_following_a_store_is_in_the_docs() -> None:
    told = re.findall(r"^\| `(\w+)` \|", (DOCS / "backends.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(FollowOptions.__annotations__.keys() - set(told)) == []


def test_every_function_with_options_has_a_page() -> None:
    """What takes nothing but the object that it is for needs none."""
    simple = {"force_maintenance_mode_on", "force_maintenance_mode_off", "maintenance_exception_handler"}
    functions = {
        name for name in fastapi_maintenance.__all__ if inspect.isfunction(getattr(fastapi_maintenance, name))
    }
    assert sorted(functions - simple - {function.__name__ for function in PLACES}) == []


def test_every_rule_is_in_the_docs_in_its_order() -> None:
    rows = re.findall(r"^\| \d \| `(\w+)` \|", (DOCS / "precedence.md").read_text("utf-8"), re.MULTILINE)
    assert rows == [rule.value for rule in Rule]
    assert len(PRECEDENCE) == len(Rule) - 1  # the two marks are one function


def test_every_environment_variable_is_in_the_docs() -> None:
    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    read = variables_read()
    assert {"FASTAPI_MAINTENANCE_MODE", "FASTAPI_MAINTENANCE_BACKEND"} < read
    assert sorted(variable for variable in read if not re.search(rf"\b{variable}\b", told)) == []


def variables_read() -> set[str]:
    """Return the names of environment variables that stand in the package: ours, and what is looked up by its name."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text("utf-8")
        strings = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        found |= {
            value for value in strings if isinstance(value, str) and re.fullmatch(r"FASTAPI_MAINTENANCE_\w+", value)
        }
        found |= set(re.findall(r"(?:getenv\(|environ(?:\.get\(|\[))[\"'](\w+)", text))
    return found


def test_extras_that_are_named_exist() -> None:
    """And all of them are named, for the parts that need them."""
    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = {extra for group in re.findall(r"fastapi-maintenance\[([\w,]+)\]", told) for extra in group.split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert named == set(project["optional-dependencies"])


def test_every_error_is_in_the_docs() -> None:
    told = words_in_code(DOCS / "errors.md")
    errors = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__ and name in fastapi_maintenance.__all__
    }
    assert "MaintenanceError" in errors
    assert sorted(errors - told) == []


def test_every_public_name_is_in_the_docs() -> None:
    """All that can be called; what it returns or raises, the reference shows."""
    told = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "reference.md")
    public = {name: getattr(fastapi_maintenance, name) for name in fastapi_maintenance.__all__}
    names = [name for name, value in public.items() if not isinstance(value, type)]
    assert [name for name in names if not re.search(rf"\b{name}\b", told)] == []


def test_every_public_name_is_in_the_reference() -> None:
    shown = set(
        re.findall(r"^::: fastapi_maintenance\.([\w.]+)$", (DOCS / "reference.md").read_text("utf-8"), re.MULTILINE)
    )
    assert "exceptions" in shown  # all of it
    errors = {name for name in fastapi_maintenance.__all__ if hasattr(exceptions, name)}
    wanted = set(fastapi_maintenance.__all__) - errors
    for module in (backends, stores, testing):
        wanted |= {f"{module.__name__.rpartition('.')[2]}.{name}" for name in module.__all__}
    wanted.add("admin.maintenance_admin")
    assert sorted(wanted - shown) == []


# The site


def test_every_page_is_on_the_site() -> None:
    """The changelog is put there by ``docs/hooks.py``."""
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^ +- (?:[^:\n]+: )?([\w.-]+\.md)$", site, re.MULTILINE)
    assert sorted(listed) == sorted(["changelog.md", *(page.name for page in DOCS.glob("*.md"))])
