"""Classify pictures on the command line, as POST /predict does.

fashionnet predict shirt.png bag.jpg [--json]
fashionnet predict FOLDER --out found.csv          a table of all pictures in a folder; or found.parquet
fashionnet predict FOLDER --out found --ray        on a Ray cluster, into a folder of Parquet files
"""

import argparse
import io
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from app.command_line import add_settings, command_parser, run, settings_of
from app.settings import Settings
from model import list_artifacts, usable_cores
from model.artifact import require_artifact
from model.files import one_line, printable, user_path
from model.installation import requires_extra
from model.offline.folder import classify_files, find_pictures
from model.offline.tables import ROWS, Outcome, open_table
from model.prediction import PREDICTION, ModelPair, load_model_pair
from model.progress import progress_bar


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and classifies; exit status 1 if a picture cannot be classified."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show every file name
    return run(partial(classify, parse_arguments(argv)))


def classify(arguments: argparse.Namespace) -> int:
    """Classifies every picture and prints the answers, or writes them as a table."""
    settings = settings_of(arguments)
    names = chosen_names(arguments.model, settings)
    if arguments.ray:
        return classify_on_ray(arguments, settings, names)
    threads = usable_cores() if arguments.out else 1
    models = load_model_pair(settings.engine, settings.model_dir, names, threads)
    pictures, skipped = find_pictures(arguments.files)
    if skipped:
        print(skipped_sentence(skipped), file=sys.stderr)
    outcomes = classify_files(pictures, models, threads=usable_cores(), max_pixels=settings.max_pixels)
    if arguments.out:
        return tabulate(outcomes, len(pictures), arguments.out)
    width = max(len(one_line(printable(path))) for path in pictures)
    return int(sum(show(outcome, width, arguments.json) for outcome in outcomes) > 0)


def skipped_sentence(skipped: Sequence[Path]) -> str:
    """Says how many files in the folders were skipped, and why."""
    suffixes = ", ".join(sorted({path.suffix or "none" for path in skipped}))
    return f"skipped, as their suffix is not that of a picture: {len(skipped):,} ({one_line(printable(suffixes))})"


def chosen_names(model: str | None, settings: Settings) -> ModelPair[str]:
    """Returns the model that the command line names, or those that the service chooses from.

    Raises:
        ArtifactMissing: the folder does not have the model.
    """
    if model is None:
        return settings.models_among(list_artifacts(settings.model_dir))
    require_artifact(settings.model_dir, model)
    return ModelPair(model, model)


def tabulate(outcomes: Iterable[Outcome], count: int, path: Path) -> int:
    """Writes a table with a row per picture. Returns the exit status: 1 if a picture could not be classified."""
    failed = written = 0
    rest = iter(progress_bar("classified", count, "pictures", outcomes))
    try:
        with open_table(path) as table:
            while some := list(islice(rest, ROWS)):
                table.write([outcome.row() for outcome in some])
                written += len(some)
                failed += sum(outcome.error is not None for outcome in some)
    except KeyboardInterrupt:
        print(f"\nStopped: {printable(path)} has the first {written:,} pictures.", file=sys.stderr)
        raise
    except OSError as error:
        raise OSError(
            f"{printable(path)} is incomplete or missing ({error.strerror or error}): make room, or name another file "
            "with --out, and run it again."
        ) from error
    print(summary(count, failed, path))
    return int(failed > 0)


def summary(count: int, failed: int, path: Path) -> str:
    """Returns the last line of the output."""
    errors = f", {failed:,} of them could not be read: see the column 'error'" if failed else ""
    return f"{count:,} pictures into {printable(path)}{errors}"


def classify_on_ray(arguments: argparse.Namespace, settings: Settings, names: ModelPair[str]) -> int:
    """Classifies on a Ray cluster. Returns the exit status, as ``tabulate``."""
    with requires_extra("ray"):
        from model.offline.ray_data import classify_on_cluster

    count, failed = classify_on_cluster(
        arguments.files, arguments.out, settings.engine, settings.model_dir, names, max_pixels=settings.max_pixels
    )
    print(summary(count, failed, arguments.out))
    return int(failed > 0)


def show(outcome: Outcome, width: int, as_json: bool) -> bool:
    """Prints an outcome as JSON, or as text with a column of ``width`` for the name. Returns whether it is an error."""
    found = outcome.prediction
    if as_json:
        answer: dict[str, Any] = (
            PREDICTION.dump_python(found, mode="json", exclude_none=True) if found else {"error": outcome.error}
        )
        print(json.dumps({"file": outcome.file} | answer))
        return found is None
    if found is None:
        rest = f"error: {outcome.error}"
    else:
        runners_up = sorted(found.probabilities.items(), key=lambda item: -item[1])[1:3]
        others = ", ".join(f"{label} {probability:.1%}" for label, probability in runners_up)
        rest = f"{found.label:12} {found.confidence:6.1%}   then {others}"
    print(f"{one_line(outcome.file):{width}} {one_line(rest)}")
    for warning in found.warnings if found else ():
        print(f"{'':{width}} {warning}")
    return found is None


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line."""
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    add(
        "files",
        type=user_path,
        nargs="+",
        metavar="FILE",
        help="a picture, a folder, a pattern such as '*.jpg', or - for standard input",
    )
    add("--json", action="store_true", help="one line of JSON for each file, with all ten probabilities")
    add(
        "--out",
        type=user_path,
        metavar="TABLE",
        help="write a row per picture to TABLE.csv or TABLE.parquet (extra bulk); with --ray, to Parquet files in the "
        "new folder TABLE",
    )
    add(
        "--ray",
        action="store_true",
        help="classify on the running Ray cluster, or on a new local one (extra ray); FILE may also be a Parquet file "
        "with a column image",
    )
    add("--model", help="model for all pictures (default: the photo model for photos, else the default model)")
    add_settings(parser, "model_dir", "engine")
    arguments = parser.parse_args(argv)
    if arguments.ray and not arguments.out:
        parser.error("--ray writes a folder of Parquet files: name it with --out")
    if arguments.out and arguments.json:
        parser.error("--out writes a table and --json prints lines: choose one of them")
    if arguments.out and not arguments.ray and arguments.out.suffix.lower() not in (".csv", ".parquet"):
        parser.error(f"--out {arguments.out}: the table is a .csv or a .parquet file")
    return arguments
