"""What the reports of the benchmarks have in common."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model import usable_cores
from model.cpu import cpu_name


def machine() -> str:
    """Returns cores, processor and the versions that matter."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "pillow"))
    return f"{usable_cores()} cores of {cpu_name()}; Python {platform.python_version()}, {versions}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def write(stem: Path | None, text: str, figures: Any) -> None:
    """Writes the text to STEM.md and the figures to STEM.json; does nothing without a stem."""
    if stem:
        stem.with_suffix(".md").write_text(text)
        stem.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
