"""The contenders' virtual environments, all with the same FastAPI and what it needs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import Contender

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "benchmarks" / ".venvs"

# The first three need FastAPI only, and share one.
_FOLDERS = {
    Contender.BARE: "plain",
    Contender.ASGI: "plain",
    Contender.BASE_HTTP: "plain",
    Contender.REFERENCE: "reference",
    Contender.WAYGATE: "waygate",
    Contender.OURS: "ours",
}
_PACKAGES = {
    "reference": ["fastapi-maintenance==0.0.5"],
    "waygate": ["waygate[admin,flags,redis]==0.2.0"],  # it can't be imported without the first two
    "ours": [f"{ROOT}[redis]"],  # a copy: the checkout may change during a run
}
_SERVER = ["uvicorn", "httptools", "uvloop"]


def sources_digest() -> str:
    """Return a short digest of the package in this checkout, which says what was measured."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", *sorted((ROOT / "fastapi_maintenance").rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def python_of(contender: Contender) -> Path:
    """Return a contender's interpreter."""
    return HOME / _FOLDERS[contender] / "bin" / "python"


def make_environments(fastapi: str, *, fresh: bool) -> None:
    """Create the environments that are missing or made for something else.

    ``fastapi`` is the requirement, such as ``fastapi==0.165.0``. Without a version, the newest when the environments
    are made; ``fresh`` makes them anew.
    """
    constraints = HOME / "constraints.txt"
    plain = [fastapi, *_SERVER]
    if _make("plain", plain, made_for=f"{plain}", fresh=fresh) or not constraints.is_file():
        frozen = _output(HOME / "plain" / "bin" / "python", "-m", "pip", "freeze")
        constraints.write_text(frozen, encoding="utf-8")
    made_for = constraints.read_text(encoding="utf-8")
    for folder, packages in _PACKAGES.items():
        what = sources_digest() if folder == "ours" else ""
        # FastAPI is named as well: waygate asks for Starlette only.
        install = ["--constraint", str(constraints), "fastapi", *_SERVER, *packages]
        _make(folder, install, made_for=f"{packages} {what}\n{made_for}", fresh=fresh)


def _make(folder: str, install: list[str], *, made_for: str, fresh: bool) -> bool:
    """Create one environment unless it is there already; return whether it was created."""
    home = HOME / folder
    note = home / "made-for.txt"
    if not fresh and note.is_file() and note.read_text(encoding="utf-8") == made_for:
        return False
    print(f"Making {home.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *install], check=True)
    note.write_text(made_for, encoding="utf-8")
    return True


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
