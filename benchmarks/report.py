"""What the reports of the benchmarks have in common."""

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model import usable_cores
from model.cpu import cpu_flags, cpu_name

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
PACKAGES = ("onnxruntime", "pillow", "torch")


def add_write(parser: argparse.ArgumentParser) -> None:
    """Adds the option ``--write``, the stem that ``write`` takes."""
    parser.add_argument("--write", type=Path, metavar="STEM", help="write STEM.md and STEM.json")


def machine() -> str:
    """Returns cores, processor, the instructions and the versions that matter."""
    flags = ", ".join(flag for flag in FLAGS if flag in cpu_flags())
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{usable_cores()} cores of {cpu_name()} ({flags}); {system}, {versions}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def write(stem: Path | None, text: str, figures: Any) -> None:
    """Writes the text to STEM.md and the figures to STEM.json; does nothing without a stem."""
    if stem:
        stem.with_suffix(".md").write_text(text)
        stem.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
