"""For mkdocs: what lies beside ``docs/`` belongs to the site as well, as pages of their own.

In the repository, pages link to files such as ``../examples/service.py``, and the changelog to ``docs/cli.md``.
"""
# ruff: noqa: INP001 - mkdocs loads it by its path

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: Any) -> Files:
    """Add the changelog, a page for each example, and one that lists them by the first lines of their docstrings."""
    changelog = (
        (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](").replace("](examples/", "](../examples/")
    )
    files.append(File.generated(config, "changelog.md", content=changelog))
    rows = [
        "# Examples",
        "",
        "Small complete apps, one idea each. Each begins with how to run it.",
        "",
        "| | |",
        "|---|---|",
    ]
    for example in sorted((ROOT / "examples").glob("*.py")):
        code = example.read_text("utf-8")
        page = f"# {example.name}\n\n````python\n{code}````\n"
        files.append(File.generated(config, f"examples/{example.stem}.md", content=page))
        about = (ast.get_docstring(ast.parse(code)) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")
        rows.append(f"| [{example.name}]({example.stem}.md) | {about} |")
    files.append(File.generated(config, "examples/index.md", content="\n".join(rows)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to examples lead to their pages."""
    markdown = re.sub(r"\]\(\.\./examples/(README\.md)?\)", "](examples/index.md)", markdown)
    return re.sub(r"\]\(\.\./examples/([\w-]+)\.py\)", r"](examples/\1.md)", markdown)
