"""Classify pictures: what POST /predict answers, on the command line.

python scripts/predict.py shirt.png bag.jpg [--json]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from app.settings import Settings, SettingsError, read_settings
from model import FashionNetError, ImageError, classify, create_engine, load_artifact, preprocess


def main() -> int:
    """Classify every file; exit status 1 where one could not be."""
    try:
        settings = read_settings()
        arguments = parse_arguments(settings)
        artifact = load_artifact(arguments.model_dir, arguments.model)
        engine = create_engine(arguments.engine, artifact)
    except (FashionNetError, SettingsError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = False
    for path in arguments.files:
        try:
            image = preprocess(path.read_bytes(), settings.max_pixels)
        except (ImageError, OSError) as error:
            failed = True
            show({"file": str(path), "error": str(error)}, arguments.json)
            continue
        prediction = classify(engine.run(image[None]).logits[0], artifact.card)
        show({"file": str(path)} | prediction.model_dump(), arguments.json)
    return int(failed)


def show(answer: dict[str, Any], as_json: bool) -> None:
    """One answer as a line: JSON, or a row of a table."""
    if as_json:
        print(json.dumps(answer))
    elif "error" in answer:
        print(f"{answer['file']:32} error: {answer['error']}")
    else:
        runners_up = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{label} {probability:.1%}" for label, probability in runners_up)
        print(f"{answer['file']:32} {answer['label']:12} {answer['confidence']:6.1%}   then {rest}")


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Classify pictures of clothes.")
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="PNG, JPEG, WebP, GIF, BMP or TIFF")
    add("--json", action="store_true", help="a line of JSON a file, with all ten probabilities")
    add("--model", default=settings.default_model, help="name of the artefact (default: %(default)s)")
    add("--model-dir", type=Path, default=settings.model_dir, help="its folder (default: the committed weights)")
    add("--engine", choices=["onnx", "torch"], default=settings.engine, help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
