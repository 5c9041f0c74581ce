"""One contender's process: obeys commands, a JSON object per line, and answers each with another.

``worker.py CONTENDER`` takes the commands prepare, check, run and park on stdin. ``worker.py CONTENDER --count`` is
for callgrind: it has a process per run length, so that their difference can be taken. ``worker.py CONTENDER --start
SCENE`` tells what it took until the first answer, since the process began.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TextIO

# At the end, so that an installed fastapi_maintenance comes before the checkout's.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from starlette.types import ASGIApp, Message, Receive, Scope

from benchmarks import contenders
from benchmarks.apps import Lobby, Receiver, build_app, request_scope, request_scopes, stub_router
from benchmarks.cases import COUNTED, UPLOAD_CHUNKS, WAIT_PATH, Contender, Measure, Scene, Shot

RUN_LENGTHS = (100, 300)
"""Requests in the two runs whose difference is taken."""


class Stage:
    """A scene that is ready to get requests."""

    def __init__(self, contender: contenders.Plain, scene: Scene, store: str = "") -> None:
        self.scene = scene
        self.runner = asyncio.Runner()
        self.runner.run(contender.begin(scene, store))
        self.fastapi = build_app(scene, contender.mark)
        self.app = self._around(contender.middleware(scene))
        self.scopes = {shot: request_scopes(scene, shot, self.fastapi) for shot in scene.shots}
        gc.collect()
        gc.freeze()  # the routes of a big app are not the garbage of its requests

    def _around(self, middleware: tuple[Any, dict[str, Any]] | None) -> ASGIApp:
        if self.scene.measure is Measure.WHOLE:
            if middleware is not None:
                kind, options = middleware
                self.fastapi.add_middleware(kind, **options)
            return self.fastapi
        inner = stub_router(self.fastapi)
        if middleware is None:
            return inner
        kind, options = middleware
        app: ASGIApp = kind(inner, **options)
        return app

    def check(self, shot: Shot) -> int:
        """Send one request and return the status of the answer."""
        return self.runner.run(_checked(self.app, self.scopes[shot][0], self._receiving(shot)()))

    def run(self, shot: Shot, count: int, cpu: int | None = None) -> int:
        """Send requests one after another, on one CPU, and return the nanoseconds of CPU time that they took."""
        if cpu is not None and sys.platform == "linux":
            os.sched_setaffinity(0, {cpu})
        return self.runner.run(_timed(self.app, self.scopes[shot], self._receiving(shot), count))

    def park(self, count: int) -> int:
        """Have requests wait at the same time and return the bytes that Python has allocated for them."""
        return self.runner.run(_parked(self.app, self.fastapi.state.lobby, count))

    def _receiving(self, shot: Shot) -> Callable[[], Receive]:
        if shot is Shot.UPLOAD:
            return lambda: Receiver(UPLOAD_CHUNKS)
        return Receiver


async def _checked(app: ASGIApp, scope: Scope, receive: Receive) -> int:
    messages: list[Message] = []

    async def record(message: Message) -> None:
        messages.append(message)

    await app(dict(scope), receive, record)
    status: int = messages[0]["status"]
    return status


async def _timed(app: ASGIApp, scopes: list[Scope], receiving: Callable[[], Receive], count: int) -> int:
    requests = islice(cycle(scopes), count)
    # CPU time, because nothing in these requests waits, but other processes may want the CPU.
    begin = time.process_time_ns()
    for scope in requests:
        await app(dict(scope), receiving(), _ignore)
    return time.process_time_ns() - begin


async def _parked(app: ASGIApp, lobby: Lobby, count: int) -> int:
    sizes = []
    for waiting in (count // 10, count):  # the first time what is set up once is set up
        gc.collect()
        tracemalloc.start()
        tasks = [asyncio.ensure_future(app(request_scope(WAIT_PATH), Receiver(), _ignore)) for _ in range(waiting)]
        while lobby.waiting < waiting:
            await asyncio.sleep(0)
            for task in tasks:
                if task.done():
                    task.result()  # it failed
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        lobby.doors.set()
        await asyncio.gather(*tasks)
        lobby.doors.clear()
    return sizes[-1]


async def _ignore(_: Message) -> None:
    """Send nowhere."""


def obey(name: Contender, commands: TextIO, answers: TextIO) -> None:
    """Carry out commands until there are no more."""
    stage: Stage | None = None
    for line in commands:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if command["do"] == "prepare":
                contender = contenders.make(name)
                stage = Stage(contender, Scene.from_json(command["scene"]), command["store"])
                answer = {"versions": _versions(contender)}
            elif stage is not None and command["do"] == "check":
                answer = {"status": stage.check(Shot(command["shot"]))}
            elif stage is not None and command["do"] == "run":
                answer = {"ns": stage.run(Shot(command["shot"]), command["count"], command["cpu"])}
            elif stage is not None and command["do"] == "park":
                answer = {"bytes": stage.park(command["count"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _versions(contender: contenders.Plain) -> dict[str, str | None]:
    return {
        "itself": contender.version(),
        "python": sys.version.split()[0],
        **{
            name: contenders.version_of(name)
            for name in ("fastapi", "starlette", "pydantic", "anyio", "uvicorn", "redis")
        },
    }


def count(name: Contender, answers: TextIO) -> None:
    """Run each counted shot in two processes of its own, and tell their ids; callgrind counts per process."""
    contender = contenders.make(name)
    for index, (scene, shot) in enumerate(COUNTED):
        if os.fork():
            os.wait()
            continue
        stage = Stage(contender, scene)
        for length in RUN_LENGTHS:
            if os.fork():
                os.wait()
                continue
            answer: dict[str, Any] = {"index": index, "count": length, "pid": os.getpid()}
            try:
                answer["status"] = stage.check(shot)
                stage.run(shot, length)
            except Exception as error:
                answer["error"] = f"{type(error).__name__}: {error}"
            print(json.dumps(answer), file=answers, flush=True)
            return
        return


def start(name: Contender, scene: Scene) -> dict[str, float]:
    """Return the seconds of processor time of each step to the first answer."""
    sys.modules["redis"] = None  # type: ignore[assignment]  # as if it weren't installed: nothing here is about it
    contender = contenders.make(name)
    moments = [0, time.process_time_ns()]
    with asyncio.Runner() as runner:
        runner.run(contender.begin(scene, ""))
        app = build_app(scene, contender.mark)
        middleware = contender.middleware(scene)
        if middleware is not None:
            kind, options = middleware
            app.add_middleware(kind, **options)
        moments += runner.run(_started(app, request_scopes(scene, Shot.MIDDLE, app)[0]))
    steps = zip(("import", "start-up", "first"), moments, moments[1:], strict=False)
    return {step: (end - begin) / 1e9 for step, begin, end in steps}


async def _started(app: ASGIApp, scope: Scope) -> list[int]:
    """Have an app start and answer a request; return the moments after each."""
    is_up, is_told = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal is_told
        if is_told:
            await asyncio.get_running_loop().create_future()
        is_told = True
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        is_up.set()

    lifespan = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    await asyncio.wait((lifespan, asyncio.ensure_future(is_up.wait())), return_when=asyncio.FIRST_COMPLETED)
    if lifespan.done():
        lifespan.result()
    moments = [time.process_time_ns()]
    await _checked(app, scope, Receiver())
    moments.append(time.process_time_ns())
    lifespan.cancel()
    return moments


def main() -> None:
    """Serve one contender."""
    # What a contender prints must not look like an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender = Contender(sys.argv[1])
    if sys.argv[2:] == ["--count"]:
        count(contender, answers)
    elif sys.argv[2:3] == ["--start"]:
        try:
            told: Any = start(contender, Scene.from_json(json.loads(sys.argv[3])))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        print(json.dumps(told), file=answers, flush=True)
    else:
        obey(contender, sys.stdin, answers)


if __name__ == "__main__":
    main()
