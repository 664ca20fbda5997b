"""Write the generated parts of the documents, and docs/settings.md.

python scripts/write_docs.py            write them
python scripts/write_docs.py --check    exit status 1 if they are out of date
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.settings import PREFIX, Settings
from model import WEIGHTS, list_artifacts
from model.artifact import ModelCard, read_card

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SERVING = "serving"
"""The results of ``benchmarks/serving.py`` that the documents show."""
PURPOSES = {
    "fashionnet": "default",
    "fashionnet-deep": "most accurate",
    "fashionnet-photo": "photos",
}
"""The models that the documents show; others in the folder, such as your own, are left out."""
PEERS = {
    "fashionnet": "**FashionNet**",
    "naive": "FastAPI with torch, hand-written",
    "mlserver": "MLServer (pixels, not pictures)",
    "rayserve": "Ray Serve",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}
KINDS = {"Hat": "hats", "Shorts": "shorts", "Skirt": "skirts", "Body": "bodysuits"}
"""The published labels of photos of none of the ten classes."""
DEFAULTS = {
    "workers": "usable cores divided by the threads",
    "model_dir": "`model/weights`",
    "memory_bytes": "150 MB for each worker",
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
    return {ROOT / "docs" / "settings.md": settings(), **{ROOT / name: _filled(name) for name in PARTS}}


def _filled(name: str) -> str:
    text = (ROOT / name).read_text()
    for part in PARTS[name]:
        marked = rf"(<!-- {part.__name__} -->\n).*?(<!-- end -->)"
        text = re.sub(marked, rf"\g<1>{part()}\n\g<2>", text, flags=re.DOTALL)
    return text


def reasons() -> str:
    """Returns the reasons to use FashionNet, with the figures of the committed results."""
    found = {one["name"]: one for one in results(SERVING)["contenders"]}
    own, load = found["fashionnet"], found["fashionnet"]["closed"]["16"]
    peers = [name for name in PEERS if name != "fashionnet" and name in found]
    best = max(found[name]["closed"]["16"]["rate"] for name in peers)
    drawing = statistics.median(start["predict_ms"] for start in results("service"))
    tests = {card.name: card.int8_metrics["test"] for card in cards() if card.input.convention == "fashion-mnist"}
    usual, most = tests["fashionnet"].accuracy, tests["fashionnet-deep"].accuracy
    error = max(test.ece for test in tests.values())
    photos, photo_error = cross_validation()["accuracy"], cross_validation()["ece"]
    return f"""\
- **Fast.** {load["rate"]:,.0f} requests per second for a 28x28 PNG on two cores, {load["rate"] / best:.1f} times \
the best of
  {len(peers)} other servers ([benchmarks](docs/benchmarks.md)). A request with the 400x400 PNG of the
  example takes {drawing:.0f} ms.
- **Small.** {own["installed_mb"]:,.0f} MB installed, {own["pss_mb"]:,.0f} MB of memory for two workers, ready in \
{own["start_s"]:.1f} s. Serving needs no PyTorch.
- **Accurate.** `fashionnet` classifies {usual:.2%} of the 10,000 test images correctly, `fashionnet-deep` {most:.2%}.
  Their calibration error is at most {error:.1%}, that of `fashionnet-photo` {photo_error:.1%}.
- **Honest.** `ood_score` and `warnings` mark unreliable answers. On phone photos of clothes by people
  outside the training set, {photos:.1%} of the predictions are right ([photos](docs/photos.md)).
- **Standard.** Open Inference Protocol (HTTP, gRPC), RFC 9457 errors, Prometheus metrics, OpenTelemetry traces."""


def models() -> str:
    """Returns the table of the committed models, with the figures of the 8-bit graphs, which are served by default."""
    durations = results("photos-times")["figures"]
    lines = ["| model | input | accuracy | size | inference, one core |", "|---|---|---|---|---|"]
    lines += [
        f"| `{card.name}` ({PURPOSES[card.name]}) | {card.input.height}x{card.input.width} "
        f"{'grey' if card.input.channels == 1 else 'colour'} | {accuracy_of(card)} | "
        f"{card.files['int8.onnx'].bytes / 1e6:.1f} MB | {durations[f'{card.name}: inference']:.1f} ms |"
        for card in cards()
    ]
    return "\n".join(lines)


def cards() -> list[ModelCard]:
    """Returns the cards of the models that the documents show."""
    return [read_card(WEIGHTS, name) for name in list_artifacts(WEIGHTS) if name in PURPOSES]


def accuracy_of(card: ModelCard) -> str:
    """Returns the accuracy on what the model is for."""
    if card.input.convention == "photo":
        return f"{cross_validation()['accuracy']:.1%} of photos by people outside the training set"
    return f"{card.int8_metrics['test'].accuracy:.2%} of the test images"


def cross_validation() -> Any:
    """Returns the report of the first seed of the photo model's cross-validation."""
    return results("photo-cross-validation")["seeds"]["1"]["report"]


def servers() -> str:
    """Returns the table of the serving benchmark, at 16 connections."""
    found = {one["name"]: one for one in results(SERVING)["contenders"]}
    lines = [
        "| 28x28 PNG, 16 connections | requests/s | p99 | CPU per request | ready after | memory | installed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in PEERS.items():
        if name not in found:
            continue
        one, load = found[name], found[name]["closed"]["16"]
        lines.append(
            f"| {title} | {load['rate']:,.0f} | {load['p99']:.0f} ms | {load['cpu_ms']:.2f} ms | "
            f"{one['start_s']:.1f} s | {one['pss_mb']:,.0f} MB | {one['installed_mb']:,.0f} MB |"
        )
    return "\n".join(lines)


def overload() -> str:
    """Returns the table of the open loop: what is answered when more is offered than can be answered."""
    lines = [
        "| offered, of saturation | answered, of saturation | rejected | p99 | p99 of `/health/live` |",
        "|---|---|---|---|---|",
    ]
    for row in results("overload")["overload"]:
        beside = ", another process beside" if row["beside"] else ""
        rejected = row["refused"] / (row["answered"] + row["refused"] + row["errors"])
        lines.append(
            f"| {row['factor']:g}{beside} | {row['goodput']:.0%} | {rejected:.1%} | {row['p99']:.0f} ms | "
            f"{row['health_p99']:.0f} ms |"
        )
    return "\n".join(lines)


def newcomer() -> str:
    """Returns how long a newcomer waits."""
    found = results("newcomer")
    lines = ["| from the clone to | seconds | of which installation |", "|---|---|---|"]
    lines += [f"| {one['name']} | {one['seconds']:.0f} | {one['installation']:.0f} |" for one in found["stages"]]
    note = f" {found['note']}." if found["note"] else ""
    return "\n".join([*lines, "", f"{found['date']}.{note}"])


def photos() -> str:
    """Returns the figures on photos of people whose photos did not train the network."""
    found = results("photo-cross-validation")["seeds"]["1"]
    report, unknown = found["report"], found["unknown_kinds"]
    (low, high), none = report["accuracy_interval"], report["classes"]["none"]
    kinds = ", ".join(f"{KINDS[kind]} {one['auroc']:.3f}" for kind, one in unknown.items())
    return f"""\
| | |
|---|---|
| photos of the ten classes | {report["count"]:,} by {report["senders"]} people |
| accuracy | {report["accuracy"]:.1%} (95 % interval {low:.1%} to {high:.1%}) |
| mean recall of the classes | {report["balanced_accuracy"]:.1%} |
| mean confidence, calibration error | {report["confidence"]:.1%}, {100 * report["ece"]:.1f} points |
| AUROC of `ood_score` for other things whose kind was in the training set | {report["auroc"]:.3f} |
| AUROC of `ood_score` for a kind that was left out of training | {kinds} |
| hats, shorts, skirts and bodysuits with `in_distribution: true`, if their kind was in the training set | \
{none["in_distribution"]:.0%} of {none["count"]} |"""


def recalls() -> str:
    """Returns the share of right answers on photos, by class."""
    shares = {name: one for name, one in cross_validation()["classes"].items() if name != "none"}
    rows = [
        ("", *shares),
        ("---", *("---" for _ in shares)),
        ("photos", *(f"{one['count']:,}" for one in shares.values())),
        ("recall", *(f"{one['recall']:.0%}" for one in shares.values())),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def settings() -> str:
    """Returns docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Settings are environment variables. The service and the scripts read them once, at start-up. An invalid value",
        "stops the start-up with a one-line error. A misspelt variable is ignored with a warning. A renamed variable",
        "keeps its old name for one version and logs a warning. A command's flag overrides its variable:",
        "`.venv/bin/python -m app --help` lists the flags. A leading `~` in a path is the home folder. The values of a",
        "list are separated by commas. Larger requests or pictures need more",
        "`FASHIONNET_MEMORY_BYTES`; the start says how much.",
        "",
        "This page is written by `.venv/bin/python scripts/write_docs.py`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        written = f"`{readable(field.default)}`" if field.default not in (None, "", ()) else "none"
        default = DEFAULTS.get(name, written)
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def readable(value: object) -> str:
    """Returns a default as people write it into the environment."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def results(name: str) -> Any:
    """Returns the figures that a benchmark has written."""
    return json.loads((RESULTS / f"{name}.json").read_text())


PARTS: dict[str, list[Callable[[], str]]] = {
    "README.md": [reasons, models],
    "docs/benchmarks.md": [servers, overload, newcomer],
    "docs/photos.md": [photos, recalls],
}
"""The generated parts of each document, between ``<!-- NAME -->`` and ``<!-- end -->``."""

if __name__ == "__main__":
    sys.exit(main())
