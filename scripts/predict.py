"""Classify pictures: what POST /predict answers, on the command line.

python scripts/predict.py shirt.png bag.jpg [--json]
python scripts/predict.py FOLDER --out found.csv          every picture in it, with progress; or found.parquet
python scripts/predict.py FOLDER --out found --ray        the same across a Ray cluster, into a folder of Parquet files
"""

import argparse
import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from pydantic_core import to_jsonable_python
from tqdm import tqdm

from app.settings import Settings, SettingsError, read_settings
from model import Choice, EngineName, FashionNetError, list_artifacts, usable_cores
from model.bulk import Outcome, classify_files, find_pictures, load_both, open_table

ROWS = 1024
"""Rows that are written at once."""


def main() -> int:
    """Classify every picture; exit status 1 where one could not be."""
    try:
        settings = read_settings()
        arguments = parse_arguments(settings)
        names = chosen_names(arguments, settings)
        if arguments.ray:
            return classify_on_ray(arguments, names)
        networks = load_both(
            arguments.engine, arguments.model_dir, names, threads=usable_cores() if arguments.out else 1
        )
        pictures = find_pictures(arguments.files)
        outcomes = classify_files(pictures, networks, threads=usable_cores(), max_pixels=settings.max_pixels)
        if arguments.out:
            return tabulate(outcomes, len(pictures), arguments.out, networks.default.card.classes)
        return int(sum(show(outcome, arguments.json) for outcome in outcomes) > 0)
    except (FashionNetError, SettingsError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def chosen_names(arguments: argparse.Namespace, settings: Settings) -> Choice[str]:
    """The network that is asked for, or those that the service would take."""
    if arguments.model:
        return Choice(arguments.model, arguments.model)
    return settings.models_among(list_artifacts(arguments.model_dir))


def tabulate(outcomes: Iterable[Outcome], count: int, path: Path, classes: tuple[str, ...]) -> int:
    """Write a row a picture into the table ``path``; exit status 1 where one could not be classified."""
    failed = 0
    rest = iter(tqdm(outcomes, total=count, unit=" pictures", disable=None))
    with open_table(path, classes) as table:
        while some := list(islice(rest, ROWS)):
            table.write([outcome.row(classes) for outcome in some])
            failed += sum(outcome.error is not None for outcome in some)
    print(
        f"{count:,} pictures into {path}" + (f", {failed:,} of them could not be read: see 'error'" if failed else "")
    )
    return int(failed > 0)


def classify_on_ray(arguments: argparse.Namespace, names: Choice[str]) -> int:
    """Classify a folder of pictures, or Parquet files with a column ``image``, across the cluster."""
    from model.bulk_ray import classify_on_cluster

    count, failed = classify_on_cluster(arguments.files, arguments.out, arguments.engine, arguments.model_dir, names)
    print(f"{count:,} pictures into {arguments.out}, {failed:,} of them could not be read")
    return int(failed > 0)


def show(outcome: Outcome, as_json: bool) -> bool:
    """One outcome as a line: JSON, or a row of a table; returns whether it is an error."""
    file = {"file": str(outcome.path)}
    found = outcome.prediction
    if as_json:
        answer: dict[str, Any] = to_jsonable_python(found, exclude_none=True) if found else {"error": outcome.error}
        print(json.dumps(file | answer))
    elif found is None:
        print(f"{outcome.path!s:32} error: {outcome.error}")
    else:
        runners_up = sorted(found.probabilities.items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{label} {probability:.1%}" for label, probability in runners_up)
        print(f"{outcome.path!s:32} {found.label:12} {found.confidence:6.1%}   then {rest}")
        for warning in found.warnings:
            print(f"{'':32} {warning}")
    return found is None


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="a picture, or a folder of them")
    add("--json", action="store_true", help="a line of JSON a file, with all ten probabilities")
    add("--out", type=Path, metavar="TABLE", help="write a row a picture into TABLE.csv or TABLE.parquet")
    add("--ray", action="store_true", help="across the Ray cluster at hand, or a local one (needs the extra ray)")
    default = f"{settings.default_model}, and {settings.photo_model} for photos"
    add("--model", help=f"name of the artefact that answers all (default: {default})")
    add("--model-dir", type=Path, default=settings.model_dir, help="its folder (default: the committed weights)")
    add("--engine", choices=get_args(EngineName), default=settings.engine, help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.ray and not arguments.out:
        parser.error("--ray writes a folder of Parquet files: name it with --out")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
