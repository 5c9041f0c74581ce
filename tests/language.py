"""Counts words that make docstrings and comments hard to read, per 1,000 words, and compares packages.

python -m tests.language                          this package, Starlette and anyio
python -m tests.language fastapi_maintenance      packages by their import names, or folders
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ANCHORS = ("starlette", "anyio")

HABITS = {
    "sentences that begin with 'What'": re.compile(r"(?:^|[.!?:;]\s+)What\b"),
    "tell, tells, told": re.compile(r"\b(?:tell|tells|told)\b", re.IGNORECASE),
    "goes, stands, counts": re.compile(r"\b(?:goes|stands|counts)\b", re.IGNORECASE),
}
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")


@dataclass
class Prose:
    """The docstrings, comments and error messages of a package."""

    texts: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def words(self) -> int:
        """How many words the docstrings and comments have."""
        return sum(len(_WORD.findall(text)) for text in self.texts)

    def per_thousand(self, habit: str) -> float:
        """Return how often a habit occurs per 1,000 words."""
        found = sum(len(HABITS[habit].findall(text)) for text in self.texts)
        return 1000 * found / max(self.words, 1)

    def messages_with(self, phrase: str) -> int:
        """Return how many messages contain a phrase."""
        return sum(phrase in message for message in self.messages)


def prose_of(folder: Path) -> Prose:
    """Return the prose of all modules below a folder."""
    prose = Prose()
    for file in sorted(folder.rglob("*.py")):
        source = file.read_text("utf-8")
        tree = ast.parse(source)
        docstrings = list(_docstrings(tree))
        prose.texts += [str(node.value) for node in docstrings]
        prose.texts += _comments(source)
        known = {id(node) for node in docstrings}
        prose.messages += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known
        ]
    return prose


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield all texts that stand alone as statements: docstrings, and what describes a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def _comments(source: str) -> list[str]:
    """Return the comments, those on consecutive lines as one text."""
    found: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:", "# pragma", "#!")):
            text = token.string.lstrip("# ")
            if found and found[-1][0] == token.start[0] - 1:
                found[-1] = token.start[0], f"{found[-1][1]} {text}"
            else:
                found.append((token.start[0], text))
    return [text for _, text in found]


def folder_of(name: str) -> Path:
    """Return the folder of a package by its import name, or of a path."""
    path = Path(name)
    if path.is_dir():
        return path
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name}: neither a folder nor an installed package")
    return Path(spec.submodule_search_locations[0])


def main(*names: str) -> None:
    """Print a table."""
    prose = {name: prose_of(folder_of(name)) for name in names or ("fastapi_maintenance", *ANCHORS)}
    print("| per 1,000 words |", " | ".join(prose), "|")
    print("|---|" + "---|" * len(prose))
    for habit in HABITS:
        print(f"| {habit} |", " | ".join(f"{one.per_thousand(habit):.2f}" for one in prose.values()), "|")
    for phrase in ("is needed", "must be"):
        cells = " | ".join(str(one.messages_with(phrase)) for one in prose.values())
        print(f"| messages with '{phrase}' |", cells, "|")
    print("| words |", " | ".join(f"{one.words:,}" for one in prose.values()), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
