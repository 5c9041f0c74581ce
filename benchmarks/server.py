"""One contender under uvicorn; ``server.py CONTENDER SCENE STORE CPU`` prints its port and serves until killed.

For each line that it gets it tells the processor time that it has used.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

# At the end, so that an installed fastapi_maintenance comes before the checkout's.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import uvicorn
import uvloop

from benchmarks import contenders
from benchmarks.apps import build_app
from benchmarks.cases import Contender, Scene


async def _serve(contender: contenders.Plain, scene: Scene, store: str) -> None:
    await contender.begin(scene, store)
    app = build_app(scene, contender.mark)
    middleware = contender.middleware(scene)
    if middleware is not None:
        kind, options = middleware
        app.add_middleware(kind, **options)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_keep_alive=3600)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        threading.Thread(target=_tell, daemon=True).start()
        await uvicorn.Server(config).serve([listener])


def _tell() -> None:
    for _ in sys.stdin:
        print(json.dumps({"cpu": time.process_time()}), flush=True)


def main(name: str, scene: str, store: str, cpu: str) -> None:
    """Serve, or tell why not."""
    if cpu and sys.platform == "linux":
        os.sched_setaffinity(0, {int(cpu)})
    try:
        uvloop.run(_serve(contenders.make(Contender(name)), Scene.from_json(json.loads(scene)), store))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
