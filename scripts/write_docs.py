"""Write the generated parts of the documentation: README's tables and docs/settings.md.

python scripts/write_docs.py            write them
python scripts/write_docs.py --check    exit status 1 if they are out of date
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.settings import PREFIX, Settings
from model import WEIGHTS, list_artifacts
from model.artifact import read_card

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PURPOSES = {
    "fashionnet": "default; two convolutions, two linear layers",
    "fashionnet-deep": "most accurate; 19 convolutions; `?model=fashionnet-deep`",
    "fashionnet-photo": "photos; three networks of nine convolutions",
}
PEERS = {
    "fashionnet": "**FashionNet**",
    "naive": "FastAPI with torch, hand-written",
    "mlserver": "MLServer (pixels, not pictures)",
    "rayserve": "Ray Serve",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}
DEFAULTS = {
    "workers": "usable cores divided by the threads",
    "model_dir": "the weights of FashionNet",
    "default_model": "`fashionnet`, or the only model of the folder",
    "data_dir": "`data` in a clone, else the data folder of the user",
}
"""Of the settings whose default depends on the machine."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args(argv)
    outdated = [path for path, text in documents().items() if not path.is_file() or path.read_text() != text]
    for path in outdated:
        if arguments.check:
            print(f"{path.relative_to(ROOT)} is out of date: run python scripts/write_docs.py", file=sys.stderr)
        else:
            path.write_text(documents()[path])
    return int(arguments.check and bool(outdated))


def documents() -> dict[Path, str]:
    """Returns what each file should hold."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, generate in PARTS.items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{generate()}\n\g<2>", text, flags=re.DOTALL)
    return {readme: text, ROOT / "docs" / "settings.md": settings()}


def models() -> str:
    """Returns the table of the committed models, with the figures of the 8-bit graphs, which are served by default."""
    durations = {(row["network"], row["engine"]): row["ms"]["1"] for row in results("engines")}
    lines = ["| model | for | test accuracy | parameters | file | time |", "|---|---|---|---|---|---|"]
    for name in list_artifacts(WEIGHTS):
        card = read_card(WEIGHTS, name)
        accuracy, size = card.int8_metrics["test"].accuracy, card.files["int8.onnx"].bytes
        lines.append(
            f"| `{name}` | {PURPOSES[name]} | {accuracy:.2%} | {card.parameters:,} | {size / 1e6:.1f} MB | "
            f"{durations[name, 'onnx-int8']:.1f} ms |"
        )
    return "\n".join(lines)


def servers() -> str:
    """Returns the table of the serving benchmark, at 16 connections."""
    found = {one["name"]: one for one in results("serving-vnni")["contenders"]}
    lines = [
        "| 28x28 PNG, 16 connections | requests/s | p99 | CPU per request | ready after | memory | installed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in PEERS.items():
        one, load = found[name], found[name]["closed"]["16"]
        lines.append(
            f"| {title} | {load['rate']:,.0f} | {load['p99']:.0f} ms | {load['cpu_ms']:.2f} ms | "
            f"{one['start_s']:.1f} s | {one['pss_mb']:,.0f} MB | {one['installed_mb']:,.0f} MB |"
        )
    return "\n".join(lines)


def photos() -> str:
    """Returns the sentences on phone photos."""
    found = results("photos")["results"]["as served"]
    low, high = found["accuracy_interval"]
    return (
        f"On {found['n']:,} phone photos of {found['senders']} people, {found['accuracy']:.0%} of the answers "
        f"are right (95 % interval {low:.0%} to {high:.0%}).\nThe confidence is not calibrated there: it is "
        f"{100 * found['confidence_gap']:.0f} points too high. Shoes are mostly wrong."
    )


def settings() -> str:
    """Returns docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Settings are environment variables. The service and the scripts read them once, at start-up. An invalid value",
        "ends the start with one sentence; a misspelt variable is ignored with a warning. A command's flag overrides",
        "its variable: `python -m app --help` lists the flags. A leading `~` in a path is the home folder.",
        "",
        "This page is written by `python scripts/write_docs.py`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = DEFAULTS.get(name) or f"`{readable(field.default)}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def readable(value: object) -> str:
    """Returns a default as people write it into the environment."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def results(name: str) -> Any:
    """Returns the figures that a benchmark has written."""
    return json.loads((RESULTS / f"{name}.json").read_text())


PARTS: dict[str, Callable[[], str]] = {"models": models, "servers": servers, "photos": photos}

if __name__ == "__main__":
    sys.exit(main())
