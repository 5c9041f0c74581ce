"""For mkdocs: what lies beside ``docs/`` belongs to the site as well, as pages of their own.

In the repository, pages link to files such as ``../examples/service.py``, and the changelog to ``docs/cli.md``.
"""

# ruff: noqa: INP001 - mkdocs loads it by its path

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: Any) -> Files:
    """Add the changelog, and a page for each example."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog.replace("](docs/", "](")))
    for example in sorted((ROOT / "examples").glob("*.py")):
        page = f"# {example.name}\n\n```python\n{example.read_text('utf-8')}```\n"
        files.append(File.generated(config, f"examples/{example.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to examples lead to their pages."""
    return re.sub(r"\]\(\.\./examples/([\w-]+)\.py\)", r"](examples/\1.md)", markdown)
