"""Measures how well phone photos of clothes are classified.

DIR holds the photos of clothing-dataset (github.com/alexeygrigorev/clothing-dataset, commit 4f78b34, CC0):

- `images/IMAGE.jpg`
- `labels.csv` with the columns `image`, `sender_id` and `class`

`class` is one of the ten classes, `shoe` or `none`. It follows from the published label: T-Shirt, Polo, Undershirt and
Top are T-shirt/top; Pants are Trouser; Longsleeve and Hoodie are Pullover; Outwear and Blazer are Coat; Shirt and
Blouse are Shirt; Hat, Shorts, Skirt and Body are none. Shoes were told apart by eye; a shoe of another kind is `shoe`.

    python benchmarks/photos.py DIR [--write benchmarks/results/photos]
    python benchmarks/photos.py --times [--write benchmarks/results/photos-times]

`--times` measures the duration of preprocessing and explanation instead. Nothing else may run on the machine then.
"""

import argparse
import csv
import io
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.settings import read_settings
from model import (
    CLASSES,
    WEIGHTS,
    Engine,
    FashionMnist,
    Picture,
    Prediction,
    create_engine,
    list_artifacts,
    preprocess,
    usable_cores,
)
from model.cpu import cpu_name
from model.engines import load_for_engine
from model.errors import DataError
from model.evaluation.calibration import expected_calibration_error, reliability
from model.evaluation.ood_sets import auroc
from model.explanation import heat_map, occlusions
from model.plots import draw_canvas, draw_heat_map
from model.prediction import LoadedModel, ModelPair, classify_pictures, infer
from model.preprocessing import IDENTITY
from model.preprocessing.decode import decode
from model.preprocessing.pipeline import WORKING_SIZE
from model.training.recipes import RECIPES
from model.training.run import training_splits

SHOES = ("Sandal", "Sneaker", "Ankle boot")
ACCEPTED = {label: (label,) for label in CLASSES} | {"shoe": SHOES, "none": ()}
"""The answers that are right for each value of the column `class`."""
SERVED = "as served"
RESAMPLES = 1000

ABOUT = """\
# Accuracy on phone photos

{photos:,} photos of clothing-dataset (CC0), sent by {senders} people.

- {n:,} of them, sent by {n_senders} people, show one of the ten classes; none shows a bag. For a shoe of another kind
  (`shoe`) Sandal, Sneaker and Ankle boot are all right.
- {none} show something else (`none`): hats, shorts, skirts and bodysuits.

None of the committed networks was trained on any of these photos, so all of them are a test set for now. The rules that
cut an article out of a photo were chosen on 341 photos, though, which are probably among these: the validation folder
of clothing-dataset-small has as many. The figures may be slightly too high for that reason.

- *as served*: the network that the service chooses for each picture ({served}).
- *tutorial's way*: the same weights; the photo grey, resized to 28x28 and inverted.
- Accuracy, confidence and expected calibration error (ECE, 15 bins) are over the {n:,} photos.
- *Gap* is the mean confidence minus the accuracy, in points. Above 0 the confidence is too high.
- Brackets hold 95 % intervals: percentiles of {resamples:,} bootstrap resamples of the senders (seed 0), because the
  photos of one sender resemble each other.
- AUROC: how well `ood_score` separates the {none} from the {n:,}.
- *Balanced accuracy* is the mean recall of the classes, without `shoe`.
"""


class Photos(NamedTuple):
    """N labelled photos."""

    files: list[Path]
    classes: NDArray[np.str_]
    """``[N]``, keys of ``ACCEPTED``."""
    senders: NDArray[np.str_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """``[N]``: whether one of the ten classes is shown."""
        return self.classes != "none"


class Answers(NamedTuple):
    """The answers to N photos."""

    labels: NDArray[np.str_]
    confidences: NDArray[np.float64]
    ood_scores: NDArray[np.float64]
    in_distribution: NDArray[np.bool_]
    models: NDArray[np.str_]


def read_photos(folder: Path) -> Photos:
    """Reads labels.csv; raises OSError, or ValueError where it lacks a column or photos, or a class is unknown."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        image, classes, senders = ([row[column] for row in rows] for column in ("image", "class", "sender_id"))
    except KeyError as column:
        raise ValueError(f"labels.csv has no column {column}") from None
    if unknown := set(classes) - set(ACCEPTED):
        raise ValueError(f"labels.csv has unknown classes: {', '.join(sorted(unknown))}")
    if not {"none"} < set(classes):
        raise ValueError("labels.csv needs photos of the ten classes and of none")
    return Photos([folder / "images" / f"{name}.jpg" for name in image], np.array(classes), np.array(senders))


def load_networks() -> dict[str, LoadedModel]:
    """Every committed network by name, in the engine that the service takes by default."""
    artifacts = {name: load_for_engine("auto", WEIGHTS, name) for name in list_artifacts(WEIGHTS)}
    return {
        name: LoadedModel(create_engine("auto", artifact, usable_cores()), artifact.card)
        for name, artifact in artifacts.items()
    }


def as_service(file: Path) -> Picture:
    """The service's preprocessing."""
    return preprocess(file.read_bytes())


def as_tutorial(file: Path) -> Picture:
    """Grey, 28x28, inverted."""
    with Image.open(file) as photo:
        small = ImageOps.exif_transpose(photo).convert("L").resize((28, 28))
    return Picture(255 - np.asarray(small, np.uint8)[None], IDENTITY)


def predict(network: LoadedModel, pictures: Sequence[Picture]) -> list[Prediction]:
    """The network's answers, in order."""
    return classify_pictures(ModelPair(network, network), pictures)


def collect(predictions: Sequence[Prediction]) -> Answers:
    """The predictions as arrays."""
    columns = [(p.label, p.confidence, p.ood_score, p.in_distribution, p.model) for p in predictions]
    return Answers(*(np.array(column) for column in zip(*columns, strict=True)))


def read_pictures(photos: Photos, read: Callable[[Path], Picture]) -> list[Picture]:
    """The photos as a network sees them."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(read, photos.files))


def answer(photos: Photos, networks: dict[str, LoadedModel]) -> dict[str, Answers]:
    """The answers as served, of every network, and of every network to photos prepared in the tutorial's way."""
    pictures, prepared = (read_pictures(photos, read) for read in (as_service, as_tutorial))
    predictions = {name: predict(network, pictures) for name, network in networks.items()}
    choice = read_settings().models_among(list(networks))
    served = [predictions[choice.of(picture)][i] for i, picture in enumerate(pictures)]
    tutorial = {f"{name}, tutorial's way": predict(network, prepared) for name, network in networks.items()}
    return {name: collect(found) for name, found in ({SERVED: served} | predictions | tutorial).items()}


def interval(values: NDArray[np.floating], senders: NDArray[np.str_]) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` ``[N]``, by a bootstrap over their ``senders`` ``[N]``."""
    _, sender = np.unique(senders, return_inverse=True)
    counts, sums = np.bincount(sender), np.bincount(sender, values)
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def is_right(photos: Photos, answers: Answers) -> NDArray[np.bool_]:
    """``[N]``: whether the answer is accepted for the class that is shown."""
    return np.array([label in ACCEPTED[shown] for shown, label in zip(photos.classes, answers.labels, strict=True)])


def calibration_error(confidences: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """The expected calibration error of N answers, each a class of its own: 0 where it is right."""
    return expected_calibration_error(reliability(confidences[:, None], (~right).astype(np.uint8)))


def figures(photos: Photos, answers: Answers) -> dict[str, Any]:
    """Everything that is reported of one network, as JSON takes it."""
    known, right = photos.known, is_right(photos, answers)
    recall = {shown: float(right[photos.classes == shown].mean()) for shown in shown_classes(photos)}
    hits, confidences, senders = right[known], answers.confidences[known], photos.senders[known]
    gap = confidences - hits
    return {
        "n": len(hits),
        "senders": len(np.unique(senders)),
        "accuracy": float(hits.mean()),
        "accuracy_interval": interval(hits, senders),
        "mean_confidence": float(confidences.mean()),
        "confidence_gap": float(gap.mean()),
        "confidence_gap_interval": interval(gap, senders),
        "ece": calibration_error(confidences, hits),
        "auroc": auroc(answers.ood_scores[known], answers.ood_scores[~known]),
        "in_distribution": float(answers.in_distribution[known].mean()),
        "in_distribution_of_none": float(answers.in_distribution[~known].mean()),
        "recall": recall,
        "balanced_accuracy": statistics.mean(share for shown, share in recall.items() if shown != "shoe"),
    }


def shown_classes(photos: Photos) -> list[str]:
    """Those that have photos, without `none`."""
    return [shown for shown in ACCEPTED if shown in photos.classes and shown != "none"]


def measure(photos: Photos) -> tuple[dict[str, Any], str]:
    """The figures, and a report of them in Markdown."""
    networks = load_networks()
    answers = answer(photos, networks)
    results = {name: figures(photos, one) for name, one in answers.items()}
    parts = [
        about(photos, answers[SERVED]),
        summary_table(results),
        "## Recall by class\n",
        recall_table(photos, {name: results[name] for name in (SERVED, *networks)}),
        f"## Answers {SERVED}\n\nRows: what the photo shows. Columns: the answer.\n",
        confusion_table(photos, answers[SERVED]),
    ]
    engines = {name: network.engine.name for name, network in networks.items()}
    made = {"date": today(), "machine": machine(), "engines": engines, "photos": len(photos.files)}
    return made | {"results": results}, "\n".join(parts)


def about(photos: Photos, served: Answers) -> str:
    """What was measured and how, in words."""
    known = photos.known
    models = (f"{name}: {count:,}" for name, count in Counter(served.models.tolist()).most_common())
    return ABOUT.format(
        photos=len(known),
        senders=len(np.unique(photos.senders)),
        n=known.sum(),
        n_senders=len(np.unique(photos.senders[known])),
        none=(~known).sum(),
        served=", ".join(models),
        resamples=RESAMPLES,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, with an empty line after it."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def summary_table(results: dict[str, dict[str, Any]]) -> str:
    """One row a network."""
    head = ("", "accuracy", "mean confidence", "gap, points", "ECE", "AUROC", "in_distribution", "the same of none")
    return table(head, [(name, *summary(one)) for name, one in results.items()])


def summary(one: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    gap, low, high = (100 * points for points in (one["confidence_gap"], *one["confidence_gap_interval"]))
    return [
        "{:.1%} [{:.1%}, {:.1%}]".format(one["accuracy"], *one["accuracy_interval"]),
        f"{one['mean_confidence']:.1%}",
        f"{gap:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{one['ece']:.1%}",
        f"{one['auroc']:.3f}",
        f"{one['in_distribution']:.0%}",
        f"{one['in_distribution_of_none']:.0%}",
    ]


def recall_table(photos: Photos, results: dict[str, dict[str, Any]]) -> str:
    """One row a class, one column a network."""
    rows = [
        (shown, str((photos.classes == shown).sum()), *(f"{one['recall'][shown]:.0%}" for one in results.values()))
        for shown in shown_classes(photos)
    ]
    balanced = ("balanced accuracy", "", *(f"{one['balanced_accuracy']:.0%}" for one in results.values()))
    return table(("", "n", *results), [*rows, balanced])


def confusion_table(photos: Photos, answers: Answers) -> str:
    """How often each class is answered with which label."""
    rows = []
    for shown in [*shown_classes(photos), "none"]:
        labels = answers.labels[photos.classes == shown].tolist()
        counts = [(label, labels.count(label) or "") for label in CLASSES]
        cells = (f"**{count}**" if count and label in ACCEPTED[shown] else str(count) for label, count in counts)
        rows.append((shown, str(len(labels)), *cells))
    return table(("", "n", *CLASSES), rows)


IMAGES_PER_CLASS = 60
ARTICLE_SIZE, BACKGROUND_SIZE = 88, 128


def measure_on_backgrounds() -> str:
    """The accuracy on validation images that are pasted on synthetic backgrounds, by class, as Markdown.

    Few photos show single shoes and none shows a bag. This shows whether a rule that helps the photos harms those.
    """
    head = "## Validation images on synthetic backgrounds\n\n"
    try:
        _, validation = training_splits(FashionMnist(read_settings().data_dir), RECIPES["best"], 1)
    except DataError as error:
        return f"{head}Not measured: {error}\n"
    chosen = np.concatenate([np.flatnonzero(validation.labels == c)[:IMAGES_PER_CLASS] for c in range(len(CLASSES))])
    rng = np.random.default_rng(0)
    pictures = [preprocess(_encoded(on_background(validation.images[i], rng), "PNG")) for i in chosen]
    rows = []
    for name, network in load_networks().items():
        predicted = np.array([prediction.class_id for prediction in predict(network, pictures)])
        recall = (predicted == validation.labels[chosen]).reshape(len(CLASSES), -1).mean(1)
        rows.append((name, f"{recall.mean():.1%}", *(f"{share:.0%}" for share in recall)))
    how = f"{IMAGES_PER_CLASS} coloured images of each class of Fashion-MNIST, through the same preprocessing.\n\n"
    return head + how + table(("", "all", *CLASSES), rows)


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
    top, left = (BACKGROUND_SIZE - ARTICLE_SIZE) // 2 + rng.integers(-6, 7, 2)
    under = background[top : top + ARTICLE_SIZE, left : left + ARTICLE_SIZE]
    under[mask] = ((255 - 0.85 * bright)[..., None] * rng.uniform(0.4, 1, 3))[mask]
    return Image.fromarray(background.clip(0, 255).astype(np.uint8))


def measure_times() -> str:
    """The duration of preprocessing 12 megapixels and 28x28, with and without decoding, and of an explanation."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(60, 200, (300, 400, 3), np.uint8))
    fine = ground.resize((4000, 3000), Image.Resampling.BICUBIC)
    fine.paste((20, 40, 90), (1000, 500, 3000, 2600))
    large, small = _encoded(fine, "JPEG"), _encoded(Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)), "PNG")
    decoding = milliseconds(lambda: decode(large, needed=2 * WORKING_SIZE, untouched=28), 20)
    whole, tiny = milliseconds(lambda: preprocess(large), 20), milliseconds(lambda: preprocess(small), 2000)
    by_pillow = milliseconds(lambda: np.frombuffer(decode(small, untouched=28).image.tobytes(), np.uint8), 2000)
    explained = [
        (f"12 megapixels, JPEG, explained by {name}", f"{milliseconds(partial(explain, engine, large), 20):.0f}")
        for name, (engine, _) in load_networks().items()
    ]
    rows = [
        ("12 megapixels, JPEG", f"{whole:.1f}"),
        ("the same, beyond decoding", f"{whole - decoding:.1f}"),
        ("28x28, PNG", f"{tiny:.3f}"),
        ("the same, decoded by Pillow", f"{by_pillow:.3f}"),
        *explained,
    ]
    return "# Duration of preprocessing\n\n" + table(("", "milliseconds, median"), rows)


def explain(engine: Engine, content: bytes) -> bytes:
    """The work of POST /explain, in two threads as well."""
    with ThreadPoolExecutor(1) as thread:
        canvas = thread.submit(draw_canvas, content)
        picture = preprocess(content)
        finding = next(infer(engine, [picture]))
        heat = heat_map(engine.run(occlusions(picture.image)).logits, int(finding.logits.argmax()))
        return draw_heat_map(canvas.result(), heat, picture.preprocessing)


def milliseconds(function: Callable[[], object], count: int) -> float:
    """The median time of ``count`` calls, after a warm-up."""
    times = []
    for _ in range(count + count // 5):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[count // 5 :])


def _encoded(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


def machine() -> str:
    """Cores, processor and the versions that matter."""
    return (
        f"{usable_cores()} cores of {cpu_name()}; Python {platform.python_version()}, NumPy {np.__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "pillow"))
    )


def today() -> str:
    """In UTC."""
    return str(datetime.now(UTC).date())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", help="with labels.csv and images/")
    parser.add_argument("--times", action="store_true", help="measure durations instead; takes no DIR")
    parser.add_argument("--write", type=Path, metavar="STEM", help="write STEM.md, and for DIR STEM.json")
    arguments = parser.parse_args()
    if bool(arguments.folder) == arguments.times:
        parser.error("name either DIR or --times")
    if arguments.times:
        found, text, argument = {}, measure_times(), "--times"
    else:
        try:
            photos = read_photos(arguments.folder)
        except (OSError, ValueError) as error:
            parser.error(f"{error}; DIR needs labels.csv with the columns image, sender_id and class, and images/")
        found, text = measure(photos)
        text, argument = f"{text}\n{measure_on_backgrounds()}", "DIR"
    text = f"{text}\n{machine()}; {today()}. Made by `python benchmarks/photos.py {argument}`.\n"
    print(text)
    if arguments.write:
        arguments.write.with_suffix(".md").write_text(text)
    if arguments.write and found:
        arguments.write.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
