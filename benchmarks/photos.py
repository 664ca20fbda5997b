"""Measures the models on drawn and photographed pictures, and the duration of their work.

    python benchmarks/photos.py pictures [--write benchmarks/results/pictures]
    python benchmarks/photos.py times [--write benchmarks/results/photos-times]

``pictures`` makes pictures of the validation images of Fashion-MNIST: as product pictures on white, and on synthetic
backgrounds, and answers them as the service does and with every model. It decides which model answers pictures with a
plain background. Photos of people are measured by benchmarks/photo_cross_validation.py, and by
``scripts/evaluate.py --photos DIR`` for other photos. ``times`` needs a machine on which nothing else runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.settings import read_settings
from benchmarks.report import add_write, machine, table, write
from model import CLASSES, WEIGHTS, FashionMnist, Prediction, create_engine, list_artifacts, preprocess, usable_cores
from model.engines import load_for_engine
from model.explanation import attribute
from model.plots import draw_canvas, draw_heat_map
from model.prediction import LoadedModel, ModelPair, classify_pictures, input_of, run_pictures
from model.preprocessing.decode import decode
from model.preprocessing.pipeline import DECODED_EDGE
from model.training.recipes import RECIPES
from model.training.run import training_splits
from tests.pictures import encode

IMAGES_PER_CLASS = 200
ARTICLE_SIZE, BACKGROUND_SIZE = 224, 320
SERVED = "as served"
Maker = Callable[[NDArray[np.uint8], np.random.Generator], Image.Image]


def product_picture(image: NDArray[np.uint8], _: np.random.Generator) -> Image.Image:
    """An image ``[28, 28]`` of the data set, enlarged and inverted: dark on white, as in a shop."""
    return Image.fromarray(255 - image).resize((BACKGROUND_SIZE, BACKGROUND_SIZE), Image.Resampling.BICUBIC)


def on_background(image: NDArray[np.uint8], rng: np.random.Generator) -> Image.Image:
    """An image ``[28, 28]`` of the data set as an article of a random colour on an uneven background of another."""
    size = (ARTICLE_SIZE, ARTICLE_SIZE)
    bright = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
    lit = Image.fromarray(((image > 8) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    mask = np.asarray(lit) > 127
    shades = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).resize(
        (BACKGROUND_SIZE,) * 2, Image.Resampling.BICUBIC
    )
    noise = rng.normal(0, 6, (BACKGROUND_SIZE, BACKGROUND_SIZE, 1))
    background = rng.uniform(60, 220, 3) + (np.asarray(shades, np.float32)[..., None] - 128) * 0.15 + noise
    top, left = (BACKGROUND_SIZE - ARTICLE_SIZE) // 2 + rng.integers(-15, 16, 2)
    under = background[top : top + ARTICLE_SIZE, left : left + ARTICLE_SIZE]
    under[mask] = ((255 - 0.85 * bright)[..., None] * rng.uniform(0.4, 1, 3))[mask]
    return Image.fromarray(background.clip(0, 255).astype(np.uint8))


MAKERS: dict[str, Maker] = {"product pictures": product_picture, "synthetic backgrounds": on_background}


def load_models() -> dict[str, LoadedModel]:
    """Returns every committed model by name, in the engine that the service takes by default."""
    artifacts = {name: load_for_engine("auto", WEIGHTS, name) for name in list_artifacts(WEIGHTS)}
    return {
        name: LoadedModel(create_engine("auto", artifact, usable_cores()), artifact.card)
        for name, artifact in artifacts.items()
    }


def pairs(models: dict[str, LoadedModel]) -> dict[str, ModelPair[LoadedModel]]:
    """Returns the models that the service chooses from, and every model alone."""
    names = read_settings().models_among(models)
    alone = {name: ModelPair(model, model) for name, model in models.items()}
    return {SERVED: ModelPair(*(models[name] for name in names)), **alone}


def predict(models: ModelPair[LoadedModel], contents: Sequence[bytes]) -> list[Prediction]:
    """Returns the predictions for encoded pictures."""
    return classify_pictures(models, [preprocess(content, partial(input_of, models)) for content in contents])


def measure_pictures() -> dict[str, Any]:
    """Returns recall by class for each kind of picture and each model."""
    _, validation = training_splits(FashionMnist(read_settings().data_dir), RECIPES["best"], 1)
    chosen = np.concatenate([np.flatnonzero(validation.labels == c)[:IMAGES_PER_CLASS] for c in range(len(CLASSES))])
    found: dict[str, Any] = {}
    for kind, make in MAKERS.items():
        rng = np.random.default_rng(0)
        contents = [encode(make(validation.images[i], rng), "PNG") for i in chosen]
        for name, models in pairs(load_models()).items():
            predicted = np.array([prediction.class_id for prediction in predict(models, contents)])
            recall = (predicted == validation.labels[chosen]).reshape(len(CLASSES), -1).mean(1)
            found.setdefault(kind, {})[name] = dict(zip(CLASSES, recall.tolist(), strict=True))
    return found


def pictures_text(found: dict[str, Any]) -> str:
    """Returns the recalls as tables."""
    parts = [f"# Pictures made of Fashion-MNIST\n\n{IMAGES_PER_CLASS} validation images of each class."]
    for kind, by_model in found.items():
        rows = [
            (name, f"{statistics.mean(recalls.values()):.1%}", *(f"{share:.0%}" for share in recalls.values()))
            for name, recalls in by_model.items()
        ]
        parts.append(f"## {kind.capitalize()}\n\n{table(('', 'all', *CLASSES), rows)}")
    return "\n\n".join(parts)


def measure_times() -> dict[str, float]:
    """Returns milliseconds on one core, the median: preprocessing, inference and explanation of a large photo."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(60, 200, (300, 400, 3), np.uint8))
    fine = ground.resize((4000, 3000), Image.Resampling.BICUBIC)
    fine.paste((20, 40, 90), (1000, 500, 3000, 2600))
    large, small = encode(fine, "JPEG"), encode(fine.resize((400, 300)), "JPEG")
    found = {"12 megapixels, decoding": milliseconds(lambda: decode(large, min_edge=DECODED_EDGE), 20)}
    for name in list_artifacts(WEIGHTS):
        artifact = load_for_engine("auto", WEIGHTS, name)
        model = LoadedModel(create_engine("auto", artifact, 1), artifact.card)
        prepare = partial(preprocess, input_of=partial(input_of, ModelPair(model, model)))
        picture = prepare(large)
        found |= {
            f"{name}: 12 megapixels, preprocessing with decoding": milliseconds(partial(prepare, large), 20),
            f"{name}: 400x300, preprocessing with decoding": milliseconds(partial(prepare, small), 50),
            f"{name}: inference": milliseconds(
                lambda model=model, picture=picture: run_pictures(model.engine, [picture]), 50
            ),
            f"{name}: 12 megapixels, explanation": milliseconds(partial(explain, model, large, prepare), 20),
        }
    return found


def explain(model: LoadedModel, content: bytes, prepare: Callable[[bytes], Any]) -> bytes:
    """The work of POST /explain, in one thread."""
    picture = prepare(content)
    output = next(run_pictures(model.engine, [picture]))
    heat = attribute(model.engine, picture.image, int(output.logits.argmax()), model.card.temperature)
    return draw_heat_map(draw_canvas(content), heat, picture.preprocessing)


def times_text(found: dict[str, float]) -> str:
    """Returns the durations as a table."""
    rows = [(name, f"{value:.1f}") for name, value in found.items()]
    return "# Duration of the work on photos, one core\n\n" + table(("", "milliseconds, median"), rows)


def milliseconds(function: Callable[[], object], count: int) -> float:
    """Returns the median time of ``count`` calls, after a warm-up."""
    times = []
    for _ in range(count + count // 5):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[count // 5 :])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pictures", "times"])
    add_write(parser)
    arguments = parser.parse_args()
    found, text = (
        (found := measure_pictures(), pictures_text(found))
        if arguments.what == "pictures"
        else (times := measure_times(), times_text(times))
    )
    date = datetime.now(UTC).date()
    text = f"{text}\n\n{machine()}; {date}. Made by `python benchmarks/photos.py {arguments.what}`.\n"
    print(text)
    figures = {"date": str(date), "machine": machine(), "figures": found}
    write(arguments.write, text, figures)


if __name__ == "__main__":
    main()
