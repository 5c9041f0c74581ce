"""The command line: through real processes against real stores, and in process what needs none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest
import typer
from fastapi import FastAPI

from fastapi_maintenance import (
    Bypass,
    Exemptions,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    configure_backend,
    maintenance_mode_on,
)
from fastapi_maintenance.backends import LocalFileBackend, MemoryBackend, RedisBackend, SQLAlchemyBackend
from fastapi_maintenance.backends.base import BaseStateBackend
from fastapi_maintenance.cli import main, reports
from fastapi_maintenance.cli.running import Run
from fastapi_maintenance.cli.store import complete_names
from fastapi_maintenance.cli.terminal import details_of, document_of, summary_of
from fastapi_maintenance.cli.values import add_duration, operator_name, parse_duration, parse_seconds, parse_time
from fastapi_maintenance.exceptions import BackendUnavailable, InvalidConfiguration
from fastapi_maintenance.model.change import Change
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.stores import urls
from fastapi_maintenance.switches.views.lookup import view_of
from tests.support.commands import end_of, has_come, run, run_here, started
from tests.support.memory_store import MemoryStore
from tests.support.scripts import ROOT
from tests.support.servers import uvicorn_server
from tests.support.stores import PostgresServer, RedisServer, SilentProxy, done, free_port

NOW = datetime(2026, 3, 1, 3, tzinfo=UTC)
HOSTILE = "mig\x1b[31mration\r\n[red]42[/red]\x07 \u202e:boom:"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer("--requirepass", "s3cret", password="s3cret") as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "switch"


@pytest.fixture
def url(file: Path) -> str:
    return f"file://{file}"


@pytest.fixture(params=["file", "redis", "postgresql"])
def any_url(request: pytest.FixtureRequest, file: Path) -> str:
    match request.param:
        case "file":
            return f"file://{file}"
        case "redis":
            server = request.getfixturevalue("redis_server")
            server.run("FLUSHALL")
            return f"redis://:s3cret@127.0.0.1:{server.port}/0"
        case _:
            server = request.getfixturevalue("postgres_server")
            server.run('DROP TABLE IF EXISTS "fastapi_maintenance"')
            url: str = server.url()
            return url


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its status, output and complaints."""
    status = main(arguments)
    out, error = capsys.readouterr()
    return status, out, error


def test_status_takes_the_options_of_the_former_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """A type and its option; with a name, too, the place is the one that was given."""
    monkeypatch.setenv("CLOSED", "on")
    file.write_text("1")
    for options in ("--backend", "env", "--var-name", "CLOSED"), ("--backend", "file", "--file-path", str(file)):
        for names in (), ("billing",):
            status, out, error = here(capsys, "status", *names, *options, "--exit-code", "--json")
            assert (status, json.loads(out)["mode"], error) == (1, "on", "")
    status, out, _ = here(capsys, "status", "--backend", "file", "--file-path", str(file.with_name("none")))
    assert (status, out.split("\n")[0]) == (0, "default: OFF (there is no file)")
    assert not file.with_name("none").exists()


@pytest.mark.parametrize("backend", [(), ("--backend", "redis"), ("--backend", "{other}")])
@pytest.mark.parametrize(
    ("option", "kind", "other", "url"),
    [("--var-name", "env", "file", "env://x"), ("--file-path", "file", "env", "file:x")],
)
def test_an_option_of_the_former_version_goes_with_its_type(
    capsys: pytest.CaptureFixture[str], option: str, kind: str, other: str, url: str, backend: tuple[str, ...]
) -> None:
    """Else it would be passed over in silence."""
    status, out, error = here(capsys, "status", option, "x", *(part.format(other=other) for part in backend))
    assert (status, out) == (2, "")
    assert f"{option} 'x' must come with --backend {kind}; --backend {url} is equivalent" in error


def test_a_day_of_an_operator(any_url: str) -> None:
    """On, with all options; seen; off; a named switch; each says what was before and at which version it is now."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": any_url}
    nothing, was = "OFF (there is no file)", "was OFF"
    if not any_url.startswith("file:"):
        nothing, was = "no document: off, unless running workers keep an earlier state", "nothing was stored"
    shown = run_here("status", env=env)
    assert (shown.status, shown.error) == (0, "")
    assert shown.out.startswith(f"default: {nothing}\n")
    assert ("hint: 'fastapi-maintenance on' and " in shown.out) is (was != "was OFF")

    turned = run_here("on", "--for", "1h30m", "--reason", HOSTILE, "--retry-after", "10m", "--backend", any_url)
    assert (turned.status, turned.error) == (0, "")
    assert re.fullmatch(
        rf"default: ON until [\d-]+ [\d:]+ UTC \({was}\), version 1: mig\[31mration \[red\]42\[/red\] :boom:\n",
        turned.out,
    )

    shown = run_here("status", "--exit-code", env=env)
    assert shown.status == 1
    assert shown.out.startswith("default: ON until ")
    assert not CONTROLS.search(shown.out)
    assert "s3cret" not in shown.out
    assert "correct" not in shown.out
    known = run_here("status", "--json", env=env).json()
    assert (known["mode"], known["blocked"], known["reason"], known["version"]) == ("on", True, HOSTILE, 1)
    assert known["retry_after"] == 600
    assert known["updated_by"] == operator_name()
    assert timedelta(hours=1) < datetime.fromisoformat(known["until"]) - datetime.now(UTC) < timedelta(minutes=90)

    turned = run_here("off", "--json", env=env)
    changed = turned.json()
    assert (turned.status, changed["mode"], changed["before"], changed["switch"]) == (0, "off", "on", "default")
    assert run_here("status", "--exit-code", "--quiet", env=env) == type(turned)(0, "", "")

    refused = run_here("down", "billing", "--read-only", env=env)
    assert (refused.status, refused.out) == (1, "")
    assert "switch 'billing' has no state in" in refused.complaint
    shown = run_here("status", "billing", "--exit-code", env=env)
    assert (shown.status, shown.error) == (0, "")
    assert shown.out.startswith(f"billing: {nothing}\n")
    assert run_here("status", "billing", "--json", env=env).json()["stored"] is False
    turned = run_here("down", "billing", "--read-only", "--new", env=env)
    assert (turned.status, turned.out, turned.error) == (0, f"billing: READ-ONLY ({was}), version 1\n", "")
    shown = run_here("status", "billing", "--exit-code", env=env)
    assert (shown.status, shown.out.split("\n")[0]) == (1, "billing: READ-ONLY")
    assert run_here("up", "billing", "--quiet", env=env) == type(turned)(0, "", "")


def test_reading_creates_nothing(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Neither files nor databases nor tables; examining may write, and leaves nothing either."""
    postgres_server.run('DROP TABLE IF EXISTS "fastapi_maintenance"')
    for url in (f"file://{tmp_path / 'switch'}", f"sqlite+aiosqlite:///{tmp_path / 'db'}", postgres_server.url()):
        for command in ("status", "doctor"):
            ended = run_here(command, "--backend", url)
            assert (ended.status, ended.error) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert postgres_server.run("SELECT to_regclass('fastapi_maintenance') IS NULL") == ["t"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ("on --backend bogus://u:hunter2@h", 2, "no backend 'bogus'"),
        ("on --backend redis://u:hunter2@h:x", 2, "port"),
        ("on --backend memory://", 2, "memory of another process"),
        ("on --backend {file} --for 2x", 2, "such as 90s, 15m, 2h"),
        ("on --backend {file} --for 0s", 2, "--for must be a duration"),
        ("on --backend {file} --for 1h --until 2030-01-01T00:00Z", 2, "--for and --until"),
        ("on --backend {file} --until 2020-01-01T00:00Z", 2, "--until must be in the future, got '2020-01-01T00:00Z'"),
        ("on --backend {file} --until 2030-01-01T00:00", 2, "2030-01-01T00:00Z"),
        ("on --backend {file} --until 05:00", 2, "(the date is missing)"),
        ("on --backend {file} --until tomorrow", 2, "--until must be a time with a zone"),
        ("on --backend {file} --retry-after -1", 2, "got '-1'"),
        ("on --backend {file} --frobnicate", 2, "--frobnicate"),
        ("on --backend {file} Billing!", 2, "invalid switch name 'Billing!'"),
        ("off --backend {file} default two", 1, "switch 'two' has no state in"),
        ("on --backend {file} default Two!", 2, "invalid switch name 'Two!'"),
        ("status --backend file:/nowhere/at/all", 1, "there is no directory /nowhere/at"),
        ("status --backend file:/nowhere/at/all --exit-code", 2, "there is no directory /nowhere/at"),
        ("status --backend {file} Two! --exit-code", 2, "invalid switch name 'Two!'"),
        ("nonsense", 2, "nonsense"),
        ("on", 1, "FASTAPI_MAINTENANCE_MODE can't be set from here, nothing was changed"),
        ("run --backend redis://u:hunter2@127.0.0.1:{port} -- true", 1, "is not available"),
        ("run --backend file:/nowhere/at/all -- true", 1, "there is no directory"),
        ("run -- true", 1, "FASTAPI_MAINTENANCE_MODE can't be set from here, nothing was changed"),
        ("on --backend file:/nowhere/at/all", 1, "there is no directory"),
        ("status --backend redis://u:hunter2@127.0.0.1:{port}", 1, "is not available"),
        ("status --backend redis://u:hunter2@127.0.0.1:{port} --exit-code", 2, "is not available"),
        ("on --backend postgresql+asyncpg://u:hunter2@127.0.0.1:{port}/x", 1, "is not available"),
        ("watch --backend {file} --interval soon", 2, "got 'soon'"),
        ("on --backend {file} biling", 1, "switch 'biling' has no state in"),
        ("off --backend {file} biling", 1, "--new sets it for the first time"),
        ("schedule --backend {file} 2099-01-01T00:00Z 1h biling", 1, "switch 'biling' has no state in"),
        ("run --backend {file} biling -- true", 1, "switch 'biling' has no state in"),
        ("run --backend {file}", 2, "must come after '--': fastapi-maintenance run -- COMMAND"),
        ("run --backend {file} --", 2, "must come after '--': fastapi-maintenance run -- COMMAND"),
        ("run --backend {file} alembic upgrade head", 2, ": fastapi-maintenance run -- alembic upgrade head"),
        ("run --backend {file} alembic", 2, "run -- alembic, or fastapi-maintenance run alembic -- COMMAND if 'al"),
        ("run --backend {file} alembic --sql upgrade", 2, "must come after '--': fastapi-maintenance run -- COMMAND"),
        ("run --backend {file} a b -- true", 2, "at most one switch before '--', got 'a b'"),
        ("run --backend {file} --ttl 0 -- true", 2, "--ttl must be seconds or a duration, at least 1"),
        ("run --backend {file} --drain soon -- true", 2, "--drain must be seconds or a duration"),
        ("watch --backend {file} --interval 0", 2, "--interval must be seconds or a duration, at least 1"),
        ("run --backend {file} --on-failure explode -- true", 2, "explode"),
        ("run --backend {file} -- no-such-command", 127, "no-such-command"),
        ("bypass --backend {file}", 2, "FASTAPI_MAINTENANCE_BYPASS_SECRET"),
        ("bypass --backend {file} --secret-file /nowhere", 2, "No such file"),
        ("bypass --backend {file} --secret-file {binary}", 2, "it is not text"),
        ("doctor shop", 2, "such as shop.main:app"),
        ("doctor no_such_module:app", 2, "No module named 'no_such_module'"),
        ("doctor json:dumps", 2, "must be a FastAPI"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: Path, arguments: str, status: int, complaint: str
) -> None:
    """With the right exit status; nothing was changed, and no password is told."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\xff")
    words = arguments.format(file=f"file://{file}", port=free_port(), binary=binary).split(" ")
    got, out, error = here(capsys, *words)
    [line] = error.splitlines()
    assert (got, out) == (status, "")
    assert line.startswith("error: ")
    assert complaint in line
    assert "hunter2" not in line
    assert list(tmp_path.iterdir()) == [binary]


def test_a_corrupt_file_is_told_and_left_alone(capsys: pytest.CaptureFixture[str], file: Path, url: str) -> None:
    """It is neither on nor off."""
    file.write_text("garbage{\x1b[2J")
    for arguments, expected in (["status"], 1), (["status", "--exit-code"], 2), (["on"], 1), (["off"], 1):
        status, out, error = here(capsys, *arguments, "--backend", url)
        assert (status, out, len(error.splitlines())) == (expected, "", 1)
        assert not CONTROLS.search(error)
    assert file.read_text() == "garbage{\x1b[2J"
    status, out, _ = here(capsys, "doctor", "--backend", url)
    assert status == 1
    assert out.startswith(f"failed default, {url}: readable: ")


def test_what_redis_can_not_read_is_left_alone_until_it_is_forgotten(redis_server: RedisServer) -> None:
    """As with a file; the error says how."""
    redis_server.run("SET", "fastapi-maintenance:{default}", "garbage")
    store = ("--backend", f"redis://:s3cret@127.0.0.1:{redis_server.port}/0")
    turned = run_here("on", *store)
    assert (turned.status, turned.out) == (1, "")
    assert turned.complaint.endswith("; 'fastapi-maintenance forget' replaces it")
    forgotten = run_here("forget", "default", *store)
    assert forgotten.status == 0
    assert "(forgotten, was unreadable)" in forgotten.out
    assert forgotten.complaint.startswith("warning: ")
    assert run_here("on", *store).status == 0


def test_without_the_extra_one_line_says_what_to_install() -> None:
    """And nothing else of the package needs it."""
    code = (
        "import sys; sys.modules['{0}'] = None\n"
        "import fastapi_maintenance.middleware\n"
        "from fastapi_maintenance.cli import main; sys.exit(main(['status']))"
    )
    for missing in ("typer", "rich"):
        ended = subprocess.run(
            [sys.executable, "-c", code.format(missing)], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == ("error: the command line needs an extra: pip install 'fastapi-maintenance[cli]'\n")


def test_another_missing_module_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broken is not told to be an extra."""
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi_maintenance.cli.doctor", None)
    with pytest.raises(ImportError, match="doctor"):
        main(["status"])


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What nobody foresaw has a traceback."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fastapi_maintenance.cli.changes.stores_of", fails)
    with pytest.raises(ZeroDivisionError):
        main(["off", "--backend", url])


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_has_the_status_that_shells_give_it(
    monkeypatch: pytest.MonkeyPatch, url: str, interrupt: type[BaseException]
) -> None:
    """Ctrl-C while a store is slow to answer, whatever Typer makes of it."""

    def interrupted(*_: object) -> None:
        raise interrupt

    monkeypatch.setattr("fastapi_maintenance.cli.changes.stores_of", interrupted)
    assert main(["off", "--backend", url]) == 130


def test_the_help_has_examples_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own, and names that can be found."""
    status, out, error = here(capsys)
    assert (status, out) == (2, "")
    assert "Usage: fastapi-maintenance" in error
    assert here(capsys, "--version")[1].startswith("fastapi-maintenance 1.")
    for command in ("on", "off", "status", "watch", "schedule", "cancel", "run", "bypass", "doctor"):
        status, out, error = here(capsys, command, "--help")
        assert (status, error) == (0, "")
        assert re.search(rf"^  fastapi-maintenance {command}\b", out, re.MULTILINE)


def test_all_commands_and_options_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """In docs/cli.md."""
    documented = ROOT.joinpath("docs/cli.md").read_text("utf-8")
    commands = re.findall(r"^  (\w+) ", here(capsys, "--help")[1].partition("Commands:")[2], re.MULTILINE)
    assert len(commands) == 11
    for command in commands:
        assert f"| `{command}" in documented
        options = re.findall(
            r"^ .*?(--[a-z-]+)", here(capsys, command, "--help")[1].partition("Options:")[2], re.MULTILINE
        )
        assert [option for option in options if option not in documented and option != "--help"] == []


def test_the_shell_can_complete() -> None:
    """Typer's completion works under our name."""
    ended = run(
        env={
            "_FASTAPI_MAINTENANCE_COMPLETE": "complete_bash",
            "COMP_WORDS": "fastapi-maintenance st",
            "COMP_CWORD": "1",
        }
    )
    assert ended.out.split() == ["status"]


def test_holds_keep_a_switch_from_being_turned_off(capsys: pytest.CaptureFixture[str], file: Path, url: str) -> None:
    """Their owners are named; --break-holds takes them away; on under an off-hold says what counts."""
    backend = LocalFileBackend(file)

    async def hold(kind: Literal["on", "off"]) -> None:
        end = datetime.now(UTC) + timedelta(hours=1)
        held = Hold(kind=kind, owner="worker\x1b[1m 7", reason="nightly", expires_at=end)
        await backend.apply(Change(put_holds={"one": held}))

    asyncio.run(hold("on"))
    status, out, error = here(capsys, "off", "--backend", url)
    assert (status, out) == (1, "")
    assert error == (
        "error: the switch is held on by worker[1m 7, nothing was changed: wait for them, or break their holds; "
        "--break-holds breaks them\n"
    )
    _, out, _ = here(capsys, "status", "--backend", url)
    assert out.startswith("default: ON: nightly\n")
    assert "  stored mode: off\n" in out
    assert re.search(
        r"  hold: on by worker\[1m 7 \(nightly\), until it is given back, or at \S+ \S+ UTC if its process has died\n",
        out,
    )
    assert "next change" not in out, "it is renewed before it expires"
    assert json.loads(here(capsys, "status", "--json", "--backend", url)[1])["next_change_at"] is None
    assert here(capsys, "status", "--json", "--backend", url)[1].count('"owner": "worker\\u001b[1m 7"') == 1
    assert here(capsys, "off", "--break-holds", "--backend", url)[0] == 0
    asyncio.run(hold("off"))
    status, out, error = here(capsys, "on", "--for", "1h", "--backend", url)
    assert status == 0
    assert out.startswith("default: OFF (was OFF)")
    assert error == "warning: on is stored, but code holds the switch, so off applies\n"
    assert re.search(r"stored mode: on, until ", here(capsys, "status", "--backend", url)[1])
    assert here(capsys, "off", "--break-holds", "--backend", url)[2] == ""


def test_the_environment_can_be_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is wrong with it is told in a line."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "read_only")
    assert here(capsys, "status")[1] == (
        "default: READ-ONLY\n"
        "  version: 0\n"
        "  store: env://FASTAPI_MAINTENANCE_MODE\n"
        "  note: a variable of this shell, not of the app; "
        "--backend URL or FASTAPI_MAINTENANCE_BACKEND selects the app's store\n"
    )
    assert "this shell" not in here(capsys, "status", "--json")[1]
    assert here(capsys, "status", "--quiet") == (0, "", "")
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE_SHOP", "banana")
    status, out, error = here(capsys, "status", "shop")
    assert (status, out.split("\n")[0]) == (0, "shop: OFF")
    assert error.startswith("warning: environment variable FASTAPI_MAINTENANCE_MODE_SHOP is read as off: ")
    assert len(error.splitlines()) == 1
    status, out, _ = here(capsys, "doctor")
    assert status == 0
    assert "note   default, env://FASTAPI_MAINTENANCE_MODE: writable: environment variable" in out


def test_whoever_has_read_enough_may_close_the_pipe(url: str) -> None:
    """As ``| head`` does: no traceback."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        for more in (), ("--json",):
            ended = run("status", *more, "--backend", url, stdout=closed)
            assert (ended.status, ended.error) == (1, "")


def test_a_terminal_that_knows_ascii_only_gets_all(url: str) -> None:
    """Escaped, and without a failure."""
    ascii_only: Any = {"encoding": "ascii", "env": {"FASTAPI_MAINTENANCE_BACKEND": url}}
    turned = run_here("on", "ünder-mäintenance", **ascii_only)
    assert turned.complaint.startswith("error: invalid switch name '\\xfcnder-m\\xe4intenance'")
    assert run_here("on", "--reason", "für später", **ascii_only).status == 0
    shown = run_here("status", **ascii_only)
    assert (shown.status, shown.error) == (0, "")
    assert "f\\xfcr sp\\xe4ter" in shown.out


def read_all(terminal: int, until: bytes) -> bytes:
    """Return what comes on a terminal until something has come."""
    told, give_up = b"", time.monotonic() + 60
    while until not in told:
        assert time.monotonic() < give_up, told
        if select.select([terminal], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):
                told += os.read(terminal, 65536)
    return told


def test_colours_are_for_terminals_only(url: str, file: Path) -> None:
    """Not where NO_COLOR is set; nowhere else either, see the other tests; and watching is live there."""
    file.write_text("1")
    for more, expected in ({}, b"\x1b[1;31mON"), ({"NO_COLOR": "1"}, b"\x1b[1mON"):
        ours, theirs = pty.openpty()
        with started(
            "watch", "--interval", "1s", "--backend", url, stdout=theirs, env={"TERM": "xterm", **more}
        ) as it:
            told = read_all(ours, b"Ctrl-C ends this")
            assert expected in told
            file.write_text("garbage")
            told = read_all(ours, b"unknown: ")
            told += b"" if b"document" in told else read_all(ours, b"document")
            assert b"no readable maintenance state" in b" ".join(told.split())  # lines end where the terminal does
            it.send_signal(signal.SIGINT)
            assert it.wait(60) == 0
        file.write_text("1")
        os.close(ours)
        os.close(theirs)


def test_watching_tells_each_change_once(url: str, file: Path) -> None:
    """A line for each, in words or JSON; failures too; Ctrl-C is how it ends, so that is no failure."""
    watch = ("watch", "--interval", "1s", "--backend", url)
    with started(*watch) as plain, started(*watch, "--json") as programs:
        assert plain.stdout is not None
        assert programs.stdout is not None
        assert re.fullmatch(r"[\d-]+ [\d:]+ UTC  default: OFF \(there is no file\)\n", plain.stdout.readline())
        assert json.loads(programs.stdout.readline())["mode"] == "off"
        time.sleep(1.5)  # to be read again
        file.write_text("on")
        assert plain.stdout.readline().endswith("  default: ON\n")  # a bare word has a time and no version
        assert json.loads(programs.stdout.readline())["mode"] == "on"
        file.write_text("\x1b[31m")
        told = plain.stdout.readline()
        assert "default: unknown: " in told
        assert "\x1b" not in told
        assert json.loads(programs.stdout.readline())["error"]
        for process in (plain, programs):
            process.send_signal(signal.SIGINT)
            assert end_of(process).status == 0


def test_a_link_lets_testers_in(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Only while there is maintenance; the secret comes from a variable, a file or standard input."""
    secret = "0123456789abcdef0123456789abcdef"
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BYPASS_SECRET", secret)
    status, _, error = here(capsys, "bypass", "--url", "https://api.example/")
    assert status == 1
    assert "not under maintenance" in error
    assert here(capsys, "on")[0] == here(capsys, "on", "billing", "--new")[0] == 0
    status, out, error = here(capsys, "bypass", "--url", "https://api.example/x?y=1", "--holder", "alice")
    assert (status, error) == (0, "")
    assert re.fullmatch(r"https://api\.example/x\?y=1&maintenance_bypass=[\w.-]+\n", out)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BYPASS_SECRET")
    (tmp_path / "secret").write_text(f"{secret}\n")
    file = str(tmp_path / "secret")
    made = json.loads(
        here(capsys, "bypass", "default", "billing", "--secret-file", file, "--parameter", "let_me", "--json")[1]
    )
    assert made["link"].startswith("/?let_me=")
    assert made["switches"] == ["default", "billing"]
    with (tmp_path / "secret").open() as stdin:
        ended = run("bypass", "--secret-file", "-", env={"FASTAPI_MAINTENANCE_BACKEND": url}, stdin=stdin)
    assert ended.out.startswith("/?maintenance_bypass=")
    claims = Bypass(secret).claims_of(made["link"].partition("=")[2], datetime.now(UTC))
    assert claims is not None
    assert set(claims.opens) == {"default", "billing"}


def test_a_link_stays_good_while_the_maintenance_is_corrected(
    capsys: pytest.CaptureFixture[str], url: str, monkeypatch: Any
) -> None:
    """And is over when the switch was off in between; ``since`` says the same."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BYPASS_SECRET", "0123456789abcdef0123456789abcdef")
    exemptions = Exemptions(bypass=Bypass("0123456789abcdef0123456789abcdef"))
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=configure_backend(url), exemptions=exemptions)
    app.post("/")(lambda: None)

    def since_after(*command: str) -> str:
        assert here(capsys, *command)[0] == 0
        time.sleep(0.3)  # the server polls the file
        since: str = json.loads(here(capsys, "status", "--json")[1])["since"]
        return since

    with uvicorn_server(app) as server:
        began = since_after("on")
        link = server.http(here(capsys, "bypass")[1].strip())
        for correction in ("--for", "2h"), ("--reason", "new disks"), ("--read-only",), ():
            assert since_after("on", *correction) == began
            assert httpx.post(link).status_code == 200, correction
        assert since_after("off") is None
        assert since_after("on") > began
        assert httpx.post(link).status_code == 503


def test_a_store_that_fails_is_no_switch_that_is_off(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Whoever wants a link is told which it is."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BYPASS_SECRET", "0123456789abcdef0123456789abcdef")
    status, _, error = here(capsys, "bypass", "--backend", f"redis://127.0.0.1:{free_port()}")
    assert status == 1
    assert "is not available" in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("1h30m", timedelta(minutes=90)),
        (" 1d2h3m4s ", timedelta(days=1, hours=2, minutes=3, seconds=4)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    """Units from the largest to the smallest."""
    assert parse_duration(text, "--for") == expected


@pytest.mark.parametrize(
    "text", ["", "90", "0s", "-1h", "1.5h", "1h 30m", "30m1h", "2w", "9" * 12 + "d", "9" * 5000 + "s", "٣h"]
)
def test_what_is_no_duration(text: str) -> None:
    """Neither is a number without a unit."""
    with pytest.raises(InvalidConfiguration, match="--for "):
        parse_duration(text, "--for")


def test_seconds_may_be_a_duration() -> None:
    """As HTTP has them, or as people do."""
    for text, expected in {"0": 0, "0s": 0, "600": 600, " 10m ": 600}.items():
        assert parse_seconds(text, "--retry-after") == expected
    for wrong in "", "0", "0s", "-5", "soon", "9" * 10, "9" * 5000 + "s":
        with pytest.raises(InvalidConfiguration, match="--ttl must be seconds or a duration, at least 1, such as"):
            parse_seconds(wrong, "--ttl", least=1)


def test_moments_have_a_zone() -> None:
    """What has none is shown with the one of this machine and with UTC."""
    assert parse_time("2026-03-01T04:00+01:00", "--until") == NOW
    assert parse_time(" 2026-03-01T03:00Z ", "--until") == NOW
    with pytest.raises(InvalidConfiguration, match=r"2026-03-01T00:00[+-]\d\d:\d\d .*2026-03-01T00:00Z"):
        parse_time("2026-03-01", "--until")
    with pytest.raises(InvalidConfiguration, match="must have a time zone"):
        parse_time("0001-01-01T00:00", "--until")
    with pytest.raises(InvalidConfiguration, match="by the year 9999"):
        add_duration(NOW, timedelta(days=999_999_999), "--for")


def test_somebody_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a user may have none."""

    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", nobody)
    assert operator_name().startswith("somebody@")


def test_what_has_ended_is_not_on() -> None:
    """Whatever is stored."""
    state = MaintenanceState(mode=MaintenanceMode.ON, until=NOW, reason="done", version=3)
    assert str(summary_of("shop", state, NOW)) == "shop: OFF"
    assert details_of(state, NOW, "there") == [
        ("stored mode", "on, ended 2026-03-01 03:00:00 UTC"),
        ("version", "3"),
        ("store", "there"),
    ]
    assert document_of("shop", state, NOW, "there")["reason"] is None


def test_holds_without_owner_or_end_are_told() -> None:
    """Those of older versions and sticky ones."""
    state = MaintenanceState(holds={"one": Hold(kind="on")}, retry_after=60)
    assert ("hold", "on, until it is given back") in details_of(state, NOW, "")
    assert ("retry after", "60 s") in details_of(state, NOW, "")
    assert document_of("shop", state, NOW, "")["holds"] == [
        {"id": "one", "kind": "on", "owner": "", "reason": None, "expires_at": None}
    ]


def test_the_time_that_a_file_has_for_a_version_is_no_version(
    capsys: pytest.CaptureFixture[str], file: Path, url: str
) -> None:
    """Sixteen digits tell people nothing: of a bare word, and of what follows it. Programs compare them."""
    file.write_text("1")
    store = ("--backend", url)
    for arguments in (
        ["status"],
        ["doctor"],
        ["off"],
        ["on", "--reason", "disks"],
        ["status"],
        ["schedule", "2099-03-01T02:00Z", "1h"],
        ["run", "--ttl", "5s", "--", sys.executable, "-c", ""],
    ):
        status, out, error = here(capsys, *arguments[:1], *store, *arguments[1:])
        assert status == 0
        assert "version" not in out + error
        assert not re.search(r"\d{16}", out + error)
    known = json.loads(here(capsys, "status", *store, "--json")[1])
    assert known["version"] > 10**15
    [window] = known["windows"]
    cancelled = here(capsys, "cancel", window["id"], *store)[1]
    assert cancelled == f"default: ON ({window['id']} is cancelled): disks\n"


def child(*lines: str) -> list[str]:
    """Return a command that runs Python, and says ``ready`` before the last line."""
    *first, last = lines
    code = "\n".join(["import os, pathlib, signal, sys, time", *first, "print('ready', flush=True)", last])
    return [sys.executable, "-c", code]


IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
SLEEPS = "time.sleep(300)"


def mode_at(url: str) -> str:
    mode: str = run_here("status", "--json", "--backend", url).json()["mode"]
    return mode


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def test_a_command_runs_under_maintenance(url: str, tmp_path: Path) -> None:
    """Its output, its standard input and its exit status are its own; maintenance is on while it runs, then off."""
    (tmp_path / "input").write_text("words")
    code = (
        "import subprocess, sys; print(sys.stdin.read());"
        "status = [sys.executable, '-m', 'fastapi_maintenance', 'status'];"
        "print(subprocess.run(status, stdout=subprocess.PIPE, text=True).stdout); sys.exit(7)"
    )
    with (tmp_path / "input").open() as stdin:
        ended = run(
            *("run", "--reason", "nightly", "--drain", "1s", "--", sys.executable, "-c", code, "--", "--quiet"),
            env={"FASTAPI_MAINTENANCE_BACKEND": url},
            stdin=stdin,
        )
    assert ended.status == 7
    out = ended.out.splitlines()
    assert out[:2] == ["words", "default: ON: nightly"]
    assert f"hold: on by {operator_name()}, process " in ended.out
    assert ended.error.splitlines() == ["default: ON while the command runs, version 1", "default: OFF"]
    assert mode_at(url) == "off"


@pytest.mark.parametrize(("any_url", "drain"), [("file", "0s"), ("file", "1s"), ("redis", "0s")], indirect=["any_url"])
def test_a_command_begins_when_all_workers_have_seen_the_switch(any_url: str, drain: str) -> None:
    """Each reads its store every so often, and sees a push at once only while its connection for that is alive."""
    code = (
        "import asyncio, time; print(time.time());"
        "from fastapi_maintenance import get_maintenance_state;"
        "print(asyncio.run(get_maintenance_state()).updated_at.timestamp())"
    )
    ended = run(
        *("run", "--drain", drain, "--", sys.executable, "-c", code), env={"FASTAPI_MAINTENANCE_BACKEND": any_url}
    )
    begun, changed = map(float, ended.out.splitlines())
    waited = begun - changed
    poll_seconds = 0.1 if any_url.startswith("file:") else 1.0
    assert waited > max(int(drain[0]), 1.09 * poll_seconds)


def test_a_command_that_fails_says_nothing_of_what_is_kept_if_it_is_to_be_quiet(url: str) -> None:
    ended = run("run", "eu", "--new", "--on-failure", "keep", "--quiet", "--backend", url, "--", "false")
    assert (ended.status, ended.error) == (1, "")
    assert run_here("status", "eu", "--backend", url, "--exit-code").status == 1


def test_a_command_that_fails_keeps_the_service_closed_if_asked(url: str) -> None:
    """In one change with the end of the hold; one that succeeds opens it."""
    keep = ("run", "--on-failure", "keep", "--reason", "half-way", "--backend", url, "--")
    assert run(*keep, "true").status == 0
    assert mode_at(url) == "off"
    ended = run(*keep, "false")
    assert ended.status == 1
    assert ended.error.splitlines()[1:] == [
        "default: ON: half-way",
        "the command ended with 1; default stays ON, open it with: fastapi-maintenance off --backend ...",
    ]
    known = run_here("status", "--json", "--backend", url).json()
    assert (known["stored_mode"], known["holds"]) == ("on", [])
    env = {"FASTAPI_MAINTENANCE_BACKEND": url}
    ended = run(
        "run", "eu", "--new", "--on-failure", "keep", "--", sys.executable, "-c", "raise SystemExit(7)", env=env
    )
    assert (ended.status, ended.error.splitlines()[-1]) == (
        7,
        "the command ended with 7; eu stays ON, open it with: fastapi-maintenance off eu",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_the_commands(url: str, number: signal.Signals) -> None:
    """It may end in its own way, and maintenance lasts until then."""
    handler = f"signal.signal({int(number)}, lambda *_: (time.sleep(0.5), print('bye', flush=True), sys.exit(9)))"
    with started("run", "--quiet", "--backend", url, "--", *child(handler, SLEEPS)) as process:
        wait_for(process, "ready")
        process.send_signal(number)
        ended = end_of(process)
        assert (ended.status, ended.out, ended.error) == (9, "bye\n", "")
    assert mode_at(url) == "off"


def test_a_command_ended_by_a_signal_has_the_status_that_shells_give_it(url: str) -> None:
    """128 and the signal's number."""
    with started("run", "--quiet", "--backend", url, "--", *child(SLEEPS)) as process:
        wait_for(process, "ready")
        process.send_signal(signal.SIGTERM)
        assert end_of(process).status == 128 + signal.SIGTERM
    assert mode_at(url) == "off"


def test_a_command_that_does_not_end_is_killed(url: str) -> None:
    """After --kill-after, or by a second signal."""
    stubborn = child(IGNORES_SIGTERM, SLEEPS)
    with started("run", "--quiet", "--kill-after", "1s", "--backend", url, "--", *stubborn) as process:
        wait_for(process, "ready")
        process.send_signal(signal.SIGTERM)
        ended = end_of(process)
        assert (ended.status, ended.complaint) == (
            128 + signal.SIGKILL,
            "warning: the command does not end, so it is killed",
        )
    with started("run", "--quiet", "--kill-after", "1h", "--backend", url, "--", *stubborn) as process:
        wait_for(process, "ready")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert end_of(process).status == 128 + signal.SIGKILL
    assert mode_at(url) == "off"


def test_whoever_waits_may_be_told_to_end(url: str) -> None:
    """Before the command has begun: then it never does."""
    with started("run", "--drain", "1h", "--backend", url, "--", "echo", "never") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("default: ON while the command runs")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        ended = end_of(process)
        assert (ended.status, ended.out) == (128 + signal.SIGTERM, "")
    assert mode_at(url) == "off"


def test_a_signal_is_not_lost_while_the_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is anybody to send it to; one that comes when it has ended is nobody's."""
    running = Run(
        command=child(SLEEPS), drain_seconds=0, kill_after_seconds=60, stops_when_lost=False, fails_block=False
    )
    begin = asyncio.create_subprocess_exec

    async def slowly(*command: str) -> asyncio.subprocess.Process:
        process = await begin(*command, stdout=subprocess.DEVNULL)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        return process

    async def runs() -> None:
        running.take_signals()
        await running.within(maintenance_mode_on(MemoryBackend()))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    asyncio.run(runs())
    assert running.status == 128 + signal.SIGTERM


def test_ignored_signals_stay_ignored(url: str) -> None:
    """As nohup has it, for the command too."""
    with started(
        *("run", "--quiet", "--backend", url, "--", *child("time.sleep(1)", "print('done')")),
        begin="signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    ) as process:
        wait_for(process, "ready")
        process.send_signal(signal.SIGHUP)
        assert end_of(process).status == 0


def test_a_killed_process_leaves_neither_command_nor_maintenance(url: str, tmp_path: Path) -> None:
    """The command is told to end, and the lease expires."""
    said = tmp_path / "said"
    handler = f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(said)!r}).touch(), sys.exit()))"
    with started("run", "--ttl", "3s", "--backend", url, "--", *child(handler, SLEEPS)) as process:
        wait_for(process, "ready")
        process.kill()
        has_come(said)
        assert mode_at(url) in ("on", "off")
        give_up = time.monotonic() + 60
        while mode_at(url) == "on":
            assert time.monotonic() < give_up


def test_a_command_learns_that_its_hold_is_broken(url: str, tmp_path: Path) -> None:
    """By a warning; or it is told to end."""
    until = "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.1)\ntime.sleep(3)"
    for number, (options, status) in enumerate([((), 0), (("--stop-when-lost",), 128 + signal.SIGTERM)]):
        broken = tmp_path / str(number)
        command = child("print('begun', flush=True)", until)
        with started("run", "--ttl", "3s", *options, "--backend", url, "--", *command, str(broken)) as process:
            wait_for(process, "begun")
            wait_for(process, "ready")
            assert run_here("off", "--break-holds", "--backend", url).status == 0
            broken.touch()
            ended = end_of(process)
            assert ended.status == status
            assert "is lost, its block runs without it" in ended.error
            assert ("gets SIGTERM" in ended.error) is bool(options)


def test_what_can_not_be_run_is_told(url: str, tmp_path: Path) -> None:
    """As shells do; maintenance is over then."""
    (tmp_path / "script").write_bytes(b"\x7fELFnonsense")
    (tmp_path / "script").chmod(0o755)
    ended = run("run", "--quiet", "--backend", url, "--", str(tmp_path / "script"))
    assert ended.status == 126
    assert "Exec format error" in ended.complaint
    assert mode_at(url) == "off"


def test_commands_get_their_signals_as_python_does_not_have_them(url: str) -> None:
    """``yes | head`` ends ``yes`` in silence."""
    shell = "yes | head -1; echo ${PIPESTATUS[0]}"
    ended = run("run", "--quiet", "--backend", url, "--", "bash", "-c", shell)
    assert ended.out.split() == ["y", str(128 + signal.SIGPIPE)]


def test_a_store_that_goes_away_does_not_change_the_commands_status() -> None:
    """The hold expires by itself; what was to be kept can't be, which is told."""
    for on_failure, told in (("release", "it expires"), ("keep", "is not available")):
        with (
            RedisServer() as server,
            started(
                *("run", "--on-failure", on_failure, "--ttl", "60s", "--backend", server.url, "--"),
                *child("sys.stdin.read()", "sys.exit(5)"),
                stdin=subprocess.PIPE,
            ) as process,
        ):
            assert process.stderr is not None
            process.stderr.readline()
            server.kill()
            ended = end_of(process)
            assert ended.status == 5
            assert told in ended.error


def test_the_terminals_own_signals_come_once(url: str) -> None:
    """Ctrl-C reaches the command from the terminal; it is not told a second time, nor killed by more of them."""
    handler = "seen = []\nsignal.signal(signal.SIGINT, lambda *_: (seen.append(1), print('interrupted', flush=True)))"
    ours, theirs = pty.openpty()
    command = child(handler, "while len(seen) < 3: time.sleep(0.05)\ntime.sleep(0.5)")
    terminal: Any = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": False}
    with started("run", "--quiet", "--backend", url, "--", *command, begin="os.login_tty(0)", **terminal) as process:
        os.close(theirs)
        printed = read_all(ours, b"ready")
        for _ in range(3):
            os.write(ours, b"\x03")
            printed += read_all(ours, b"interrupted")
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                printed += part
        assert (process.wait(60), printed.count(b"interrupted")) == (0, 3), printed
    os.close(ours)


def test_maintenance_is_planned_and_cancelled(any_url: str) -> None:
    """Once or again and again; shown by status; by the id that is told."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": any_url}
    planned = run_here("schedule", "2099-03-01T02:00Z", "2h30m", "--reason", HOSTILE, env=env)
    assert (planned.status, planned.error) == (0, "")
    found = re.fullmatch(
        r"default: planned, version 1: (\S+): on from 2099-03-01 02:00:00 UTC to 2099-03-01 04:30:00 UTC \((.*)\)\n",
        planned.out,
    )
    assert found is not None
    weekly = ("--zone", "Europe/Berlin", "--rrule", "FREQ=WEEKLY;BYDAY=SU", "--read-only")
    made = run_here("schedule", "2099-01-04T02:30", "2099-01-04T03:00", *weekly, "--json", env=env).json()
    assert made["window"]["start"] == "2099-01-04T01:30:00Z"
    shown = run_here("status", env=env).out
    assert "  next change: READ-ONLY from 2099-01-04 01:30:00 UTC\n" in shown
    assert "again by FREQ=WEEKLY;BYDAY=SU in Europe/Berlin" in shown
    assert not CONTROLS.search(shown)
    assert [window["id"] for window in run_here("status", "--json", env=env).json()["windows"]] == [
        found[1],
        made["window"]["id"],
    ]
    cancelled = run_here("cancel", found[1], env=env)
    assert cancelled.out == f"default: OFF ({found[1]} is cancelled), version 3\n"
    refused = run_here("cancel", found[1], env=env)
    assert (refused.status, refused.out) == (1, "")
    assert refused.complaint.startswith(f"error: no window '{found[1]}'")
    assert run_here("cancel", made["window"]["id"], "--json", env=env).json()["windows"] == []


def test_a_window_that_goes_on_is_ended_by_off(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """And is shown while it does, as what it is: nothing is stored as on."""
    begin = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert here(capsys, "schedule", begin, "1h", "--backend", url, "--quiet") == (0, "", "")
    status, out, _ = here(capsys, "status", "--exit-code", "--backend", url)
    assert status == 1
    assert re.match(r"default: ON until .*\n  stored mode: off\n", out)
    assert here(capsys, "off", "--backend", url)[1].startswith("default: OFF (was ON)")
    assert here(capsys, "status", "--exit-code", "--backend", url)[0] == 0
    window = json.loads(here(capsys, "schedule", "2099-01-01T00:00Z", "1h", "--backend", url, "--json")[1])["window"]
    assert here(capsys, "cancel", window["id"], "--backend", url, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ("schedule 2099-01-01T00:00 1h", 2, "START must have a time zone, got '2099-01-01T00:00'"),
        ("schedule soon 1h --zone UTC", 2, "START must be a time with a zone"),
        ("schedule 2099-01-01T00:00Z later", 2, "END must be a time with a zone"),
        ("schedule 2099-01-01T00:00Z 2098-01-01T00:00 --zone UTC", 2, "is not after the start"),
        ("schedule 2099-01-01T00:00 1h --zone Europe/Nowhere", 2, "--zone 'Europe/Nowhere'"),
        ("schedule 9999-12-31T23:00Z 99h", 2, "by the year 9999"),
        ("schedule 2020-01-01T00:00Z 1h", 2, "has no occurrence after now"),
        ("schedule 2099-01-01T00:00Z 1h --rrule NONSENSE --zone UTC", 2, "NONSENSE"),
        ("schedule 2099-01-01T00:00Z 1h --backend env://", 1, "can't be set from here"),
        ("schedule 2099-01-01T00:00Z 1h --backend redis://127.0.0.1:{port}", 1, "is not available"),
        ("cancel one --backend env://", 1, "can't be set from here"),
        ("cancel one", 1, "no window 'one'"),
    ],
)
def test_what_can_not_be_planned_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: Path,
    url: str,
    arguments: str,
    status: int,
    complaint: str,
) -> None:
    """Nothing was changed."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    got, out, error = here(capsys, *arguments.format(port=free_port()).split(" "))
    [line] = error.splitlines()
    assert (got, out) == (status, "")
    assert line.startswith("error: ")
    assert complaint in line
    assert not file.exists()


def test_the_doctor_finds_a_store_well(any_url: str) -> None:
    """Reachable, writable, its clock; nothing is changed by that."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": any_url}
    assert run_here("on", "--reason", "x", env=env).status == 0
    before = run_here("status", "--json", env=env).json()
    examined = run_here("doctor", env=env)
    assert (examined.status, examined.error) == (0, "")
    readable, writable, clock = examined.out.splitlines()
    assert re.fullmatch(r"ok     default, [a-z+]+://.*: readable: ON, version 1, in \d+ ms", readable)
    assert writable.startswith("ok     default")
    assert writable.endswith("writable: yes")
    assert ("clock: this host's" in clock) is any_url.startswith("file")
    assert clock.startswith("ok     ")
    assert run_here("status", "--json", env=env).json() == before
    assert "s3cret" not in examined.out
    assert "horse" not in examined.out


def test_the_doctor_finds_what_is_wrong_with_a_store(redis_server: RedisServer, file: Path, tmp_path: Path) -> None:
    """A replica that takes no writes, a directory that can't be written; exit status 1."""
    user = f"redis://:s3cret@127.0.0.1:{redis_server.port}/0"
    redis_server.run("FLUSHALL")
    redis_server.run("REPLICAOF", "127.0.0.1", str(free_port()))
    try:
        examined = run_here("doctor", "--backend", user)
    finally:
        redis_server.run("REPLICAOF", "NO", "ONE")
    assert (examined.status, examined.error) == (1, "")
    assert f"writable: redis://127.0.0.1:{redis_server.port}/0, key " in examined.out
    assert "read only replica" in examined.out
    examined = run_here("doctor", "--backend", f"file://{tmp_path / 'none' / 'switch'}")
    assert examined.status == 1
    assert "there is no directory" in examined.out
    unreachable = run_here("doctor", "--json", "--backend", f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    assert unreachable.status == 1
    [check] = unreachable.json()["checks"]
    assert (check["what"], check["result"]) == ("readable", "failed")


def test_the_doctor_tells_what_an_app_blocks() -> None:
    """Every route with its mark, its switches, and what becomes of requests: asked of the real resolver."""
    examined = run_here("doctor", "tests.programs.shop:app", "--json", env={"FASTAPI_MAINTENANCE_MODE": "read_only"})
    assert (examined.status, examined.error) == (1, "")
    rows = {(row["method"], row["path"]): row for row in examined.json()["routes"]}
    told = {key: (row["now"], row["when_on"]) for key, row in rows.items()}
    open_, closed, shadowed = "open", "503: default", ", as another route before it"
    assert told == {
        ("GET", "/openapi.json"): ("open: exempt, docs",) * 2,
        ("GET", "/items/{item_id}/{when}/{path}"): (open_, closed),
        ("GET", "/items/{item_id}/1/x"): (f"{open_}{shadowed}", f"{closed}{shadowed}"),
        ("GET", "/health"): ("open: forced off",) * 2,
        ("GET", "/uuid/{one}"): (open_, closed),
        ("GET", "/public/{page}"): ("open: exempt, path",) * 2,
        ("GET", "/odd/{one}"): ("unknown: no example path",) * 2,
        ("GET", "/strict/{one}"): ("unknown: matching raises ZeroDivisionError: ",) * 2,
        ("GET", "/gone"): ("503: forced on",) * 2,
        ("GET", "/reports"): (open_, closed),
        ("GET", "/billing/invoices/{number}"): ("503: billing", closed),
        ("POST", "/billing/invoices/{number}"): (closed, closed),
        ("WEBSOCKET", "/billing/live"): (closed, closed),
        ("GET", "/page"): (open_, closed),
        ("PUT", "/page"): (closed, closed),
        ("ANY", "/static/*"): (closed, closed),
        ("GET", "/inner/open"): (open_, closed),
        ("GET", "/inner/closed"): ("unknown: default can't be read", closed),
        ("GET", "{tenant}.example/tenant"): (open_, closed),
        ("PUT", "{tenant}.example/tenant"): (closed, closed),
        ("GET", "{tenant:tests_odd}.example/tenant"): ("unknown: no example path",) * 2,
        ("PUT", "{tenant:tests_odd}.example/tenant"): ("unknown: no example path",) * 2,
        ("GET", "/wrapped/open"): (open_, closed),
        ("GET", "/plain/"): (open_, closed),
        ("PUT", "/plain/"): (closed, closed),
        ("ANY", "/<OwnKind>"): ("unknown: no example path",) * 2,
        ("GET", "/wrapped/closed"): ("unknown: default can't be read", closed),
    }
    assert rows["GET", "/gone"]["mark"] == "forced on"
    assert rows["GET", "/reports"]["switches"] == "default, reports"
    results = {
        (check["subject"].partition(",")[0], check["what"]): check["result"] for check in examined.json()["checks"]
    }
    assert results["reports", "writable"] == "note"
    assert results["default", "readable"] in ("ok", "failed")


def test_the_doctor_gives_the_app_the_store_that_is_named(url: str, file: Path) -> None:
    """Where it brings none of its own."""
    file.write_text("1")
    examined = run_here("doctor", "tests.programs.shop:app", "--json", "--backend", url)
    rows = {row["path"]: row["now"] for row in examined.json()["routes"]}
    assert rows["/page"] == "503: default"
    assert any(check["subject"] == f"default, {url}" for check in examined.json()["checks"])


@pytest.mark.parametrize(
    ("target", "told"),
    [("tests.programs.shop:wrapped", "503: default"), ("tests.programs.shop:bare", "open: nothing guards it")],
)
def test_the_doctor_knows_apps_that_are_wrapped_and_apps_that_are_bare(target: str, told: str) -> None:
    """A middleware around the app counts; without any there is nothing that blocks."""
    examined = run_here("doctor", target)
    head, row, remark = examined.out.splitlines()[-3:]
    assert head.split() == ["METHOD", "PATH", "MARK", "SWITCHES", "NOW", "WHEN", "ON"]
    assert row.split()[:2] == ["GET", "/"]
    assert row.count(told) == 2
    assert remark.startswith("An exempt_handler, ")


def test_a_store_that_does_not_answer_is_not_waited_for(
    redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    """When it is asked what time it is: a silent one, and one that is not there."""
    with SilentProxy(redis_server.port) as proxy:
        proxy.fall_silent()
        silent = RedisBackend(f"redis://:s3cret@127.0.0.1:{proxy.port}/0", timeout_seconds=0.3)
        with pytest.raises(BackendUnavailable, match=r"no answer within 0\.3 s"):
            asyncio.run(silent.store_time())
    absent = SQLAlchemyBackend(postgres_server.url(port=free_port()))
    with pytest.raises(BackendUnavailable, match="is not available"):
        asyncio.run(absent.store_time())


# Several switches, and what is said of stores


def test_an_emptied_store_is_not_said_to_be_off(redis_server: RedisServer) -> None:
    """Workers keep what it had: only a mode that is set anew says what they do."""
    redis_server.run("FLUSHALL")
    env = {"FASTAPI_MAINTENANCE_BACKEND": f"redis://:s3cret@127.0.0.1:{redis_server.port}/0"}
    backend = RedisBackend(env["FASTAPI_MAINTENANCE_BACKEND"], on_emptied="keep")
    worker = view_of(backend)
    assert run("on", env=env).status == 0
    assert asyncio.run(worker.read()).mode is MaintenanceMode.ON
    redis_server.run("FLUSHALL")
    keeps = "no document: off, unless running workers keep an earlier state"
    with started("watch", env=env) as watched:
        assert watched.stdout is not None
        assert watched.stdout.readline().endswith(f"UTC  default: {keeps}\n")
    store = f"redis://127.0.0.1:{redis_server.port}/0, key fastapi-maintenance:{{default}}"
    hint = "'fastapi-maintenance on' and 'fastapi-maintenance off' store one, which all workers follow"
    shown = run("status", "--exit-code", env=env)
    assert (shown.status, shown.error) == (0, "")
    assert shown.out == f"default: {keeps}\n  version: 0\n  store: {store}\n  hint: {hint}\n"
    examined = run("doctor", env=env)
    assert examined.status == 0
    assert examined.out.startswith(f"note   default, {store}: readable: {keeps}; {hint}; in ")
    assert worker.latest().mode is MaintenanceMode.ON
    turned = run("off", "--json", env=env).json()
    assert (turned["mode"], turned["before"]) == ("off", None)
    give_up = time.monotonic() + 60
    while worker.latest().mode is MaintenanceMode.ON:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    asyncio.run(backend.aclose())


def test_several_switches_are_set_and_shown(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """Each once and in the order in which they are named; in JSON as a list of what one is said to be."""
    store = ("--backend", url)
    turned = here(capsys, "on", "default", "billing", "default", "--new", "--reason", "disks", *store)
    assert turned == (0, "default: ON (was OFF), version 1: disks\nbilling: ON (was OFF), version 1: disks\n", "")
    status, out, error = here(capsys, "status", "billing", "default", "orders", "--exit-code", *store)
    assert (status, error) == (1, "")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "billing: ON: disks",
        "default: ON: disks",
        "orders: OFF (there is no file)",
    ]
    one = json.loads(here(capsys, "status", "billing", "--json", *store)[1])
    assert json.loads(here(capsys, "status", "billing", "default", "--json", *store)[1])[0] == one
    status, out, error = here(capsys, "off", "billing", "default", "--json", *store)
    assert (status, error) == (0, "")
    assert [(one["switch"], one["mode"], one["before"]) for one in json.loads(out)] == [
        ("billing", "off", "on"),
        ("default", "off", "on"),
    ]
    assert here(capsys, "status", "billing", "default", "--exit-code", "--quiet", *store) == (0, "", "")


def test_when_one_of_several_switches_fails_it_is_said_what_was_done(
    capsys: pytest.CaptureFixture[str], file: Path, url: str
) -> None:
    """A wrong name changes none; what fails when it is set leaves the others set."""
    store = ("--backend", url)
    assert here(capsys, "on", "default", "billing", "orders", "--new", *store)[0] == 0
    assert here(capsys, "off", "default", "biling", "orders", *store)[:2] == (1, "")
    assert here(capsys, "off", "default", "Billing", *store)[:2] == (2, "")
    assert file.read_text() == "1"

    soon = datetime.now(UTC) + timedelta(hours=1)
    held = Change(put_holds={"one": Hold(kind="on", owner="nightly", expires_at=soon)})
    asyncio.run(LocalFileBackend(file.with_name("switch.billing")).apply(held))
    file.with_name("switch.broken").write_text("garbage")
    status, out, error = here(capsys, "off", "default", "billing", "broken", "orders", *store)
    assert (status, out) == (1, "default: OFF (was ON)\norders: OFF (was ON)\n")
    refused, unreadable, summed_up = error.splitlines()
    assert refused.startswith("error: billing: the switch is held on by nightly, nothing was changed")
    assert unreadable.startswith("error: broken: ")
    assert summed_up == "done: default, orders; failed: billing, broken"
    status, out, error = here(capsys, "on", "broken", "billing", "--json", *store)
    assert (status, error.splitlines()[-1]) == (1, "done: billing; failed: broken")
    broken, billing = json.loads(out)
    assert (broken["switch"], broken["mode"], broken["store"]) == ("broken", None, f"{url}.broken")
    assert "garbage" in broken["error"]
    assert (billing["switch"], billing["mode"]) == ("billing", "on")
    status, out, error = here(capsys, "on", "broken", "default", "--quiet", *store)
    assert (status, out, error.splitlines()[-1]) == (1, "", "done: default; failed: broken")
    assert here(capsys, "on", "broken", "--json", *store)[:2] == (1, "")

    status, out, error = here(capsys, "status", "broken", "default", "--exit-code", *store)
    assert (status, error.splitlines()[-1]) == (2, "done: default; failed: broken")
    assert out.startswith("default: ON\n")
    status, out, _ = here(capsys, "status", "broken", "default", "--json", *store)
    assert (status, json.loads(out)[0]["error"], json.loads(out)[1]["mode"]) == (1, broken["error"], "on")


def test_a_hold_against_one_of_several_switches_is_warned_of_by_its_name(
    capsys: pytest.CaptureFixture[str], file: Path, url: str
) -> None:
    """And the other one is on."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    asyncio.run(LocalFileBackend(file).apply(Change(put_holds={"one": Hold(kind="off", expires_at=soon)})))
    status, out, error = here(capsys, "on", "default", "billing", "--new", "--backend", url)
    assert (status, out) == (0, "default: OFF (was OFF), version 2\nbilling: ON (was OFF)\n")
    assert error == "warning: default: on is stored, but code holds the switch, so off applies\n"


def test_a_relative_file_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands in another folder sees that the service's file is another one."""
    folder, elsewhere = tmp_path / "here", tmp_path / "else where"
    folder.mkdir()
    elsewhere.mkdir()
    env = {"FASTAPI_MAINTENANCE_BACKEND": "file:switch"}
    monkeypatch.chdir(folder)
    assert run_here("on", env=env).out == f"default: ON (was OFF), in {folder}/switch\n"
    monkeypatch.chdir(elsewhere)
    shown = run_here("status", env=env).out.splitlines()
    assert shown[0] == "default: OFF (there is no file)"
    assert shown[-1] == f"  store: file://{tmp_path}/else%20where/switch"
    monkeypatch.chdir(folder)
    planned = run_here("schedule", "2099-01-01T00:00Z", "1h", env=env).out
    found = re.match(rf"default: planned, in {folder}/switch: (\w+): on from ", planned)
    assert found is not None
    cancelled = run_here("cancel", found[1], env=env).out
    assert cancelled == f"default: ON ({found[1]} is cancelled), in {folder}/switch\n"
    held = run_here("run", "--", "true", env=env)
    assert held.error.startswith(f"default: ON while the command runs, in {folder}/switch\n")
    database = run_here("status", "--backend", "sqlite+aiosqlite:///switch.db", "--json").json()
    assert database["store"] == f"sqlite+aiosqlite:///{folder}/switch.db, row default"
    assert not any(elsewhere.iterdir())


def test_json_has_one_form_of_time_and_nothing_of_python(url: str) -> None:
    """In UTC, to the second, with ``Z``: of every command, also of what has failed."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": url}
    said = [run_here("on", "--for", "2h", "--json", env=env).out]
    said.append(run_here("schedule", "2099-01-01T00:00Z", "2h", "--json", env=env).out)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'fastapi_maintenance', 'status', '--json'])"
    said.append(run("run", "--quiet", "--", sys.executable, "-c", code, env=env).out)
    said.append(run_here("doctor", "--json", env=env).out)
    with started("watch", "--json", env=env) as watched:
        assert watched.stdout is not None
        said.append(watched.stdout.readline())
    times = re.findall(r'"(\d{4}-[^"]*)"', "".join(said))
    assert len(times) > 12
    assert [at for at in times if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)] == []
    assert not re.search(r"Backend\(|<|datetime", "".join(said))


@pytest.mark.parametrize("absent", ["redis://127.0.0.1:{port}/0", "file:/nowhere/at/all"])
def test_json_names_a_store_that_fails_as_one_that_works(capsys: pytest.CaptureFixture[str], absent: str) -> None:
    """By where it is, and not by what Python shows of it."""
    store = ("--json", "--backend", absent.format(port=free_port()))
    status, out, _ = here(capsys, "status", "default", "billing", *store)
    assert status == 1
    for failed in json.loads(out):
        assert failed["error"].startswith(f"{failed['store']} is not available: ")
    status, out, _ = here(capsys, "doctor", *store)
    assert status == 1
    assert "Backend(" not in out


def test_examples_in_the_help_are_never_in_the_past(capsys: pytest.CaptureFixture[str]) -> None:
    """And the first day of a rule is one of its days."""
    shown = "".join(here(capsys, command, "--help")[1] for command in ("on", "schedule", "run", "off", "status"))
    days = [datetime.fromisoformat(day).date() for day in re.findall(r"\d{4}-\d\d-\d\d", shown)]
    assert len(days) >= 4
    assert min(days) > datetime.now(UTC).date()
    assert {day.isoweekday() for day in days} == {7}


def test_seconds_need_no_unit(url: str) -> None:
    """Where Python's names for it take seconds, too."""
    begun = time.monotonic()
    ended = run("run", "--drain", "1", "--ttl", "60", "--kill-after", "0", "--quiet", "--backend", url, "--", "true")
    assert (ended.status, ended.error) == (0, "")
    assert time.monotonic() - begun > 1


def test_a_window_of_another_switch_is_found(any_url: str) -> None:
    """The one that was asked of may be any; where nobody has it, that is said with what may help."""
    env = {"FASTAPI_MAINTENANCE_BACKEND": any_url}
    assert run_here("on", "billing", "reports", "--new", env=env).status == 0
    made = run_here("schedule", "2099-03-01T02:00Z", "1h", "billing", "--json", env=env).json()["window"]["id"]
    for asked in "default", "reports":
        refused = run_here("cancel", made, asked, env=env)
        assert (refused.status, refused.out) == (1, "")
        assert refused.complaint == (
            f"error: no window '{made}', nothing was changed; there is none; "
            f"it belongs to switch 'billing': fastapi-maintenance cancel {made} billing"
        )
    refused = run_here("cancel", "nonsense", "billing", env=env)
    assert refused.complaint == (
        f"error: no window 'nonsense', nothing was changed; there is '{made}'; "
        "'fastapi-maintenance cancel nonsense NAME' cancels a window of another switch"
    )
    assert run_here("cancel", made, "billing", env=env).status == 0


def test_a_window_is_not_looked_for_where_the_store_does_not_list_its_switches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The answer says how to cancel it all the same."""
    monkeypatch.setattr(LocalFileBackend, "switch_names", BaseStateBackend.switch_names)
    assert here(capsys, "on", "billing", "--new", "--backend", url)[0] == 0
    made = json.loads(here(capsys, "schedule", "2099-03-01T02:00Z", "1h", "billing", "--json", "--backend", url)[1])
    status, _, error = here(capsys, "cancel", made["window"]["id"], "--backend", url)
    assert status == 1
    assert error.endswith("NAME' cancels a window of another switch\n")


@pytest.mark.parametrize("granted", ["SELECT", "SELECT, UPDATE (name)", "SELECT, INSERT"])
def test_the_doctor_finds_a_database_user_who_can_not_write(postgres_server: PostgresServer, granted: str) -> None:
    """Locking a row is no writing: who may do that need not be allowed to change it."""
    postgres_server.run('DROP TABLE IF EXISTS "fastapi_maintenance"')
    user = postgres_server.url()
    assert run_here("on", "--backend", user).status == 0
    postgres_server.run(f"CREATE ROLE reader LOGIN PASSWORD '{postgres_server.password}'")
    try:
        postgres_server.run(f'GRANT {granted} ON "fastapi_maintenance" TO reader')
        before = run_here("status", "--json", "--backend", user).json()
        examined = run_here("doctor", "--backend", user.replace("//postgres:", "//reader:"))
    finally:
        postgres_server.run("DROP OWNED BY reader")
        postgres_server.run("DROP ROLE reader")
    assert examined.status == 1
    readable, writable = examined.out.splitlines()
    assert readable.startswith("ok     default, postgresql+asyncpg://reader:***@")
    assert writable.startswith("failed default, postgresql+asyncpg://reader:***@")
    assert "permission denied for table fastapi_maintenance" in writable
    assert run_here("status", "--json", "--backend", user).json() == before


def test_the_doctor_makes_no_table(tmp_path: Path) -> None:
    """In a database that others use already."""
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as database:
        database.execute("CREATE TABLE items (id INTEGER)")
        examined = run_here("doctor", "--backend", f"sqlite+aiosqlite:///{tmp_path / 'db'}")
        assert examined.status == 0
        assert "writable: not tried: nothing is stored yet; the first change creates the table" in examined.out
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("items",)]


def test_the_doctor_warns_of_what_is_likely_a_mistake() -> None:
    """Exempt paths that no route has, of apps and guards; guards that answer browsers in JSON. It is no failure."""
    examined = run_here("doctor", "tests.programs.careless:app", "--json")
    assert (examined.status, examined.error) == (0, "")
    warned = [(one["subject"], one["what"]) for one in examined.json()["checks"] if one["result"] == "warn"]
    paths = ("/helth", "/item/**", "/items/*/x", "/inner/z", "/invoice/*")
    assert warned == [*((f"exempt path {path}", "matches") for path in paths)]
    examined = run_here("doctor", "tests.programs.careless:plain")
    assert examined.status == 0
    assert [line.partition(" is around it")[0] for line in examined.out.splitlines() if line.startswith("warn")] == [
        "warn   guard of billing: answers: JSON to browsers as well: no middleware"
    ]
    for careful, warnings in {"answered": 0, "answered_by_status": 0, "covered": 0, "guarded": 1}.items():
        examined = run_here("doctor", f"tests.programs.careless:{careful}", "--json")
        assert [one["result"] for one in examined.json()["checks"]].count("warn") == warnings


def test_a_store_that_fails_does_not_list_its_switches(
    redis_server: RedisServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """It says so within its time-out. A database without a table has no switches."""
    postgres_server.run('DROP TABLE IF EXISTS "fastapi_maintenance"')
    assert done(SQLAlchemyBackend(postgres_server.url()).switch_names()) == []
    with SilentProxy(redis_server.port) as proxy:
        proxy.fall_silent()
        for failing, problem in (
            (LocalFileBackend(tmp_path / "none" / "switch"), "there is no directory"),
            (RedisBackend(f"redis://:s3cret@127.0.0.1:{proxy.port}/0", timeout_seconds=0.3), r"within 0\.3 s"),
            (RedisBackend(f"redis://127.0.0.1:{redis_server.port}/0"), "Authentication required"),
        ):
            with pytest.raises(BackendUnavailable, match=problem):
                done(failing.switch_names())


def test_stores_with_names_of_their_own_list_their_switches(redis_server: RedisServer) -> None:
    """Those beside them, and no other's: with signs in a key that patterns of Redis have a meaning for."""
    redis_server.run("FLUSHALL")
    user = f"redis://:s3cret@127.0.0.1:{redis_server.port}/0"
    for key in "shop[1]*", "shop1x", "{default}?":
        mine = RedisBackend(user, key=key)
        done(mine.apply(Change(fields={"mode": MaintenanceMode.ON})))
        done(mine.sibling("billing").apply(Change(fields={"mode": MaintenanceMode.ON})))
        assert done(mine.switch_names()) == ["default", "billing"]


# All switches of a store


@pytest.mark.parametrize("kind", ["file", "sql"])
def test_all_switches_of_a_store_are_listed_turned_off_and_forgotten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    """A forgotten switch is listed no longer, and must be set as a new one."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'db'}" if kind == "sql" else f"file://{tmp_path / 'switch'}"
    store = ("--backend", url)
    refused = here(capsys, "list", *store)
    assert refused[:2] == (1, "")
    assert refused[2].startswith("error: no switch is stored in ")
    assert here(capsys, "off", "--all", *store)[:2] == (1, "")
    assert json.loads(here(capsys, "status", "--json", *store)[1])["switch"] == "default"
    assert here(capsys, "on", "orders", "billing", "--new", "--for", "2h", "--reason", "disks", *store)[0] == 0
    assert here(capsys, "off", *store)[0] == 0

    listed = here(capsys, "list", *store)[1].splitlines()
    assert [line.partition(" until ")[0] for line in listed] == ["default: OFF", "billing: ON", "orders: ON"]
    assert listed[1].endswith(": disks")
    names = ["default", "billing", "orders"]
    assert [one["switch"] for one in json.loads(here(capsys, "list", "--json", *store)[1])] == names
    assert [one["switch"] for one in json.loads(here(capsys, "status", "--json", *store)[1])] == names
    assert here(capsys, "status", "--exit-code", "--quiet", *store)[0] == 1

    assert here(capsys, "off", "--all", "billing", *store)[0] == 2
    assert "billing: OFF (was ON)" in here(capsys, "off", "--all", *store)[1]
    assert here(capsys, "forget", "biling", *store)[:2] == (1, "")
    version = ", version 3" if kind == "sql" else ""
    assert here(capsys, "forget", "billing", *store)[1] == f"billing: OFF (forgotten, was OFF){version}\n"
    assert [line.split(":")[0] for line in here(capsys, "list", *store)[1].splitlines()] == ["default", "orders"]
    assert json.loads(here(capsys, "status", "billing", "--json", *store)[1])["stored"] is False
    assert here(capsys, "on", "billing", *store)[:2] == (1, "")
    assert here(capsys, "on", "billing", "--new", *store)[0] == 0
    assert len(here(capsys, "list", *store)[1].splitlines()) == 3


def test_a_held_switch_is_forgotten_only_where_its_holds_are_broken(
    capsys: pytest.CaptureFixture[str], file: Path, url: str
) -> None:
    held = Change(put_holds={"one": Hold(kind="on", owner="nightly")})
    asyncio.run(LocalFileBackend(file.with_name("switch.billing")).apply(held))
    file.with_name("switch.broken").write_text("garbage")
    store = ("--backend", url)
    status, out, error = here(capsys, "list", *store)
    assert (status, out) == (1, "billing: ON (held on by nightly)\n")
    assert error.startswith("error: broken: ")
    assert "held on by nightly" in here(capsys, "forget", "billing", *store)[2]
    assert here(capsys, "forget", "billing", "--break-holds", *store)[0] == 0
    assert here(capsys, "list", *store)[0] == 1


@pytest.mark.parametrize("content", ["", "garbage", '{"schema": 1, "mode": 3}', "x" * 70_000])
def test_a_file_that_cannot_be_read_can_be_forgotten(
    capsys: pytest.CaptureFixture[str], file: Path, url: str, content: str
) -> None:
    """Whatever it has."""
    broken = file.with_name("switch.broken")
    broken.write_text(content)
    status, out, error = here(capsys, "forget", "broken", "--backend", url)
    assert (status, out.startswith("broken: OFF (forgotten")) == (0, True)
    assert "replacing a document that can't be read" in error
    assert json.loads(here(capsys, "status", "broken", "--json", "--backend", url)[1])["mode"] == "off"


def test_status_shows_the_switch_of_a_store_that_fails_when_it_lists_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path, url: str
) -> None:
    async def failing(_: object) -> list[str]:
        raise BackendUnavailable("<store>", "down")

    file.write_text("1")
    monkeypatch.setattr(reports, "list_switches", failing)
    status, out, error = here(capsys, "status", "--backend", url)
    assert (status, out.startswith("default: ON")) == (0, True)
    assert error == "warning: the other switches of the store can't be listed: <store> is not available: down\n"


def test_a_store_that_cannot_list_its_switches_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list",), ("off", "--all"):
        status, out, error = here(capsys, *command, "--backend", "env://SOME_SWITCH")
        assert (status, out) == (1, "")
        assert "can't list its switches: name them, such as 'status default billing'" in error


def test_where_switches_cannot_be_listed_status_shows_the_default_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = here(capsys, "status", "--json", "--backend", "env://SOME_SWITCH")
    assert (status, json.loads(out)["switch"], error) == (0, "default", "")


def test_a_switch_that_fails_once_it_was_listed_keeps_no_other_from_being_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(urls, "_factories", {"dict": lambda url: store})
    for name in "billing", "default":
        store.put(name, MaintenanceState(mode=MaintenanceMode.ON).to_json())

    def fail() -> None:
        if store.reads == 3:  # each was read once for the list
            raise ConnectionError("reset by peer")

    store.before_read = fail
    status, out, error = here(capsys, "list", "--backend", "dict://here")
    assert (status, out) == (1, "billing: ON\n")
    assert error.startswith("error: default: ")
    assert "reset by peer" in error
    store.reads = 0
    status, out, _ = here(capsys, "list", "--json", "--backend", "dict://here")
    default, billing = json.loads(out)
    assert (status, default["switch"], default["mode"], billing["mode"]) == (1, "default", None, "on")
    assert "reset by peer" in default["error"]


def test_the_list_says_which_mode_comes_next(capsys: pytest.CaptureFixture[str], url: str) -> None:
    store = ("--backend", url)
    assert here(capsys, "schedule", "2099-03-01T02:00Z", "1h", *store)[0] == 0
    assert here(capsys, "list", *store)[1] == "default: OFF (ON from 2099-03-01 02:00:00 UTC)\n"


def test_the_shell_completes_the_names_of_switches(file: Path, url: str) -> None:
    """From the store that the command names; nothing where that fails."""
    file.with_name("switch.billing").write_text("1")
    for backend, expected in (url, ["billing"]), ("nonsense://", []):
        words = f"fastapi-maintenance off --backend {backend} bi"
        complete = {"_FASTAPI_MAINTENANCE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
        ended = run(env=complete)
        assert (ended.out.split(), ended.error) == (expected, "")


def test_the_shell_completes_no_names_that_cannot_be_listed() -> None:
    """Variables have no list, and that is no failure."""
    assert complete_names(SimpleNamespace(params={"backend": "env://SOME_SWITCH"}), "") == []


def test_the_place_of_the_former_version_is_that_of_one_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """Two of them can't be in it."""
    status, out, error = here(capsys, "status", "a", "b", "--backend", "env", "--var-name", "X")
    assert (status, out) == (2, "")
    assert "--var-name must come with one switch, got a, b" in error


def test_a_store_that_is_gone_after_a_command_is_said_to_be_gone(tmp_path: Path) -> None:
    """The command's own status stays."""
    folder = tmp_path / "folder"
    folder.mkdir()
    ended = run("run", "--backend", f"file://{folder}/switch", "--", "rm", "-r", str(folder))
    assert ended.status == 0
    assert "there is no directory" in ended.error


def test_a_switch_that_cannot_be_held_runs_no_command(tmp_path: Path) -> None:
    """The store can be read, and its lock can't be taken."""
    (tmp_path / "switch.lock").symlink_to("elsewhere")
    ended = run("run", "--backend", f"file://{tmp_path}/switch", "--", "touch", str(tmp_path / "ran"))
    assert ended.status == 1
    assert "is a symbolic link: remove it" in ended.error
    assert not (tmp_path / "ran").exists()
