"""The metrics behind ``GET /metrics``.

With several workers each writes its values into files of one folder, and whichever worker is asked adds them up
(prometheus_client's multiprocess mode). Every value written costs some microseconds there, so a request updates few
metrics; the stages of a request are timed on every sixteenth.
"""

import itertools
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    Summary,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.settings import metrics_folder
from model import FashionNetError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, *_SECONDS[:-3])

REQUESTS = Histogram(
    "fashionnet_request_duration_seconds",
    "From a request's head to the end of its answer; the count is that of the requests.",
    ["route", "status"],
    buckets=_SECONDS,
)
IN_PROGRESS = Gauge("fashionnet_requests_in_progress", "Requests not answered yet.", multiprocess_mode="livesum")
OPEN_CONNECTIONS = Gauge(
    "fashionnet_open_connections", "Connections over HTTP that are open.", multiprocess_mode="livesum"
)
MAX_CONNECTIONS = Gauge(
    "fashionnet_max_connections", "Connections over HTTP that may be open; more wait.", multiprocess_mode="livesum"
)
UNREADY = Gauge("fashionnet_unready_workers", "Workers that are not ready.", multiprocess_mode="livesum")
QUEUE_DEPTH = Gauge(
    "fashionnet_queue_depth", "Pictures that wait for the engine.", ["model"], multiprocess_mode="livesum"
)
BATCH_NAME = "fashionnet_batch_size"
BATCH_SIZE = Histogram(
    BATCH_NAME,
    "Images in one call of the engine for /predict, /v2 or gRPC.",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
STAGES = Histogram(
    "fashionnet_stage_duration_seconds",
    "Read, wait (decoding and inference too) and encode of every sixteenth prediction; queue and compute of every "
    "sixteenth batch.",
    ["stage"],
    buckets=_STAGE_SECONDS,
)
KEYS = Counter("fashionnet_key_requests", "Requests with an API key, by its name.", ["key"])
PROBLEMS = Counter("fashionnet_problems", "Requests answered with a problem, by its type.", ["type"])
CONFIDENCE = Summary(
    "fashionnet_prediction_confidence",
    "Confidence of the predictions, not of the tensors of /v2 and gRPC; the count is that of the predictions of a "
    "class.",
    ["model", "label"],
)
INFERENCE_NAME = "fashionnet_inference_duration_seconds"
INFERENCES = Summary(
    INFERENCE_NAME, "Requests of the Open Inference Protocol to a model, by outcome.", ["model", "outcome"]
)
RECENT_NAME = "fashionnet_recent_predictions"
RECENT = Gauge(
    RECENT_NAME,
    "The last predictions of the workers, by the bins of the validation histograms of a model's card.",
    ["model", "feature", "bin"],
    multiprocess_mode="livesum",
)
SHADOW = Counter(
    "fashionnet_shadow_predictions",
    "Predictions that the shadow model was to make too, by the label of the model that answered, and the outcome.",
    ["model", "shadow", "label", "outcome"],
)
MODEL_INFO = Gauge(
    "fashionnet_model_info",
    "1 for a served model; 0 for one that was replaced.",
    ["model", "version", "architecture", "engine"],
    multiprocess_mode="livemax",
)
SAMPLING_INTERVAL = 16
_requests = itertools.count()
_batches = itertools.count()


class StageTimer:
    """Times the consecutive stages of one request in ``SAMPLING_INTERVAL``."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = time.perf_counter() if next(_requests) % SAMPLING_INTERVAL == 0 else None

    def end(self, stage: str) -> None:
        """Records that ``stage`` ends now; it began when the previous one ended."""
        if self._last is not None:
            now = time.perf_counter()
            STAGES.labels(stage).observe(now - self._last)
            self._last = now


class BatchObserver:
    """Counts the batches of one model."""

    def __init__(self, model: str) -> None:
        self._size = BATCH_SIZE.labels(model)

    def __call__(self, size: int, waited: float, took: float) -> None:
        """Counts one batch; times in seconds."""
        self.count(size)
        if next(_batches) % SAMPLING_INTERVAL == 0:
            STAGES.labels("queue").observe(waited)
            STAGES.labels("compute").observe(took)

    def count(self, size: int) -> None:
        """Counts a batch that did not wait."""
        self._size.observe(size)


def create_files(model: str, labels: Iterable[str]) -> None:
    """Creates the series of a model, so that each type of metric has its file before a request needs it.

    A worker whose file is open already does not notice when the folder is removed.
    """
    for label in labels:
        CONFIDENCE.labels(model, label)
    for outcome in ("success", "fail"):
        INFERENCES.labels(model, outcome)
    PROBLEMS.labels("overloaded")


@contextmanager
def measure_inference(model: str) -> Iterator[None]:
    """Counts a request of the Open Inference Protocol; one that raises an exception has failed."""
    start, outcome = time.perf_counter(), "fail"
    try:
        yield
        outcome = "success"
    finally:
        INFERENCES.labels(model, outcome).observe(time.perf_counter() - start)


class MetricsUnavailable(FashionNetError):
    """The folder in which workers share their metrics is gone or damaged."""


def collect() -> list[Metric]:
    """Returns all metrics, of all workers if they share a folder.

    Raises:
        MetricsUnavailable: the files in that folder cannot be read.
    """
    folder = metrics_folder()
    if folder is None:
        return list(REGISTRY.collect())
    from app.metrics_files import process_ids, reading  # needs a system that can fork, as several workers do

    try:
        with reading(folder):
            shared = MultiProcessCollector(None, str(folder)).collect()  # type: ignore[no-untyped-call]
            return [*shared, *_process_metrics(process_ids(folder))]
    except (OSError, ValueError, RuntimeError, LookupError, struct.error) as error:
        raise MetricsUnavailable(
            "The workers' metrics cannot be read: restart the service, which makes their folder anew; the log names it."
        ) from error


def _process_metrics(pids: Iterable[int]) -> Iterable[Metric]:
    """Returns memory, CPU time and open files of processes, by process identifier."""
    found: dict[str, Metric] = {}
    for pid in pids:
        for one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = found.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in one.samples:
                family.add_sample(sample.name, {"pid": str(pid)}, sample.value)
    return found.values()


class _Collected(Collector):
    """Metrics that were collected before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(metrics: Iterable[Metric]) -> bytes:
    """Returns metrics in Prometheus's text format."""
    return generate_latest(_Collected(metrics))
