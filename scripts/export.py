"""Make the graphs and the figures of an artefact anew from its weights, without training.

python scripts/export.py fashionnet              into the folder where it lies
python scripts/export.py fashionnet --out /tmp   to look at what comes out first
"""

import argparse
import sys
from pathlib import Path

from app.settings import Settings, SettingsError, read_settings
from model import FashionMnist, FashionNetError, load_artifact
from model.artifact import save_artifact
from model.network import load_network
from model.training.export import export
from model.training.recipes import Recipe
from model.training.run import training_splits


def main() -> int:
    """Load, export, measure, write; returns the exit status."""
    try:
        arguments = parse_arguments(read_settings())
        artifact = load_artifact(arguments.model_dir, arguments.name, ("safetensors",))
        card, data_set = artifact.card, FashionMnist(arguments.data_dir)
        network = load_network(artifact)
        train, validation = training_splits(data_set, Recipe(**card.recipe), card.training["seed"])
        fresh = export(network, card, train, {"validation": validation, "test": data_set.load("test")})
        written = save_artifact(arguments.out or arguments.model_dir, fresh.card, fresh.content)
    except (FashionNetError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for precision, figures in (("full precision", written.metrics), ("8 bits", written.int8_metrics)):
        shown = ", ".join(f"{split} {metrics.accuracy:.2%}" for split, metrics in figures.items())
        print(f"{precision}: {shown or 'none, it lost too much accuracy'}")
    return 0


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("name", help="the artefact's name, such as fashionnet")
    add("--model-dir", type=Path, default=settings.model_dir, help="its folder (default: the committed weights)")
    add("--out", type=Path, help="where to write (default: the same folder)")
    add("--data-dir", type=Path, default=settings.data_dir, help="holds FashionMNIST/raw (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
