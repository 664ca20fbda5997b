"""The training loop: images in memory as uint8, and a state after each epoch that resumes exactly."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from tqdm import tqdm

from model import cpu
from model.data import Split
from model.errors import TrainingError
from model.network import Network, PhotoFashionNet, create_network, network_to_export
from model.progress import progress_bar
from model.training import distributed
from model.training.batches import Batch, BatchSource
from model.training.losses import correct, negative_log_likelihoods, smoothed_set_loss
from model.training.photo_batches import PhotoBatches, PhotoTensors
from model.training.pretrained import start_from_imagenet
from model.training.recipes import Recipe

Precision = Literal["fp32", "bf16"]
EVALUATION_BATCH = 100
REPORT_EVERY = 20
"""Batches between two updates of the progress bar's figures."""


class RunConfig(BaseModel):
    """Everything that a run needs to start, or to resume exactly."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    recipe: Recipe
    seed: int
    precision: Precision
    threads: int
    """PyTorch's threads; another number changes the order of floating-point sums."""
    device: str
    machine: dict[str, str] = {}
    """CPU or GPU, and the versions of Python and PyTorch, at the start."""
    data: dict[str, str]
    """SHA-256 of the data set's files, by name."""
    name: str
    """Name of the exported artefact."""
    teacher_dir: str = Field(default="", validation_alias=AliasChoices("teacher_dir", "parents_folder"))
    """Folder of the artefacts that the recipe learns from."""
    teachers: dict[str, str] = Field(default={}, validation_alias=AliasChoices("teachers", "parents"))
    """Their versions, by name, so that a resumed run uses the same ones."""
    processes: int = 1
    """Number of processes that train together."""
    photos_dir: str = ""
    """Folder of the photos, if the recipe trains on photos."""
    photos: str = ""
    """SHA-256 of the list of the photos and their labels, so that a resumed run uses the same ones."""
    fold: int | None = None
    """The fold of senders that validates a run on photos; None: all photos train, and drawn pictures validate."""
    held_out: list[str] = []
    """Files with outputs for held-out photos, which calibrate a run that all photos train."""
    folds: int = 5
    """Number of folds of senders."""
    left_out: str = ""
    """A kind of photo, such as Hat, that does not train, to measure how an unknown kind is recognised."""
    limit: int | None = None
    """Use only the first ``limit`` images of each split, and a tenth as many photos (``--dry-run``)."""

    def trains_like(self, other: Self) -> bool:
        """Returns whether both give the same network epoch by epoch; names, folders and the last epoch may differ."""
        recipe = {"name", "epochs"} if self.recipe.schedule == "step" else {"name"}
        fields = dict.fromkeys(("name", "machine", "teacher_dir", "photos_dir", "held_out"), True)
        return self.model_dump(exclude={**fields, "recipe": recipe}) == other.model_dump(
            exclude={**fields, "recipe": recipe}
        )


class Examples(NamedTuple):
    """Labelled images."""

    images: Tensor
    """uint8 ``[N, ...]``, as the network takes them."""
    labels: Tensor
    """int64 ``[N]``, or sets of labels, bool ``[N, C]``."""


class EpochMetrics(BaseModel):
    """Results of an epoch. Losses are mean negative log-likelihoods, accuracies 0..1."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    images_per_second: float

    def rounded(self) -> dict[str, float]:
        """Returns the values with five significant digits."""
        return {name: float(f"{value:.5g}") for name, value in self.model_dump().items()}


class Trainer:
    """A network, its optimiser and schedule, and the training and validation images."""

    def __init__(
        self,
        config: RunConfig,
        train: Split | PhotoTensors,
        validation: Split | Examples,
        teachers: Mapping[str, Network] | None = None,
    ) -> None:
        self.config = config
        self.history: list[EpochMetrics] = []
        self.device = torch.device(config.device)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.validation = self._resident(validation)
        network = initial_network(config.recipe)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel = self._parallelise()
        self.compiled = self._compile()
        self.batches = self._create_batches(train, teachers or {})
        self.snapshots: list[dict[str, Tensor]] = []
        """The network's ``state_dict`` at each of the recipe's restarts, on the CPU."""
        self._begin_cycle()

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return len(self.history)

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train the remaining epochs; yields the metrics of each.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        while self.epoch < self.config.recipe.epochs:
            yield self._run_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the next epoch depends on: tensors and plain values only."""
        return {
            "config": self.config.model_dump(),
            "history": [metrics.model_dump() for metrics in self.history],
            "network": self.network.state_dict(),
            "snapshots": self.snapshots,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> Self:
        """Continue from what ``state_dict`` returned."""
        self.history = [EpochMetrics(**metrics) for metrics in state["history"]]
        self.snapshots = state["snapshots"]
        self._begin_cycle(max(1, self.epoch))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return self

    def network_to_export(self) -> Network:
        """Returns a copy of the trained network, fused, on the CPU, in evaluation mode."""
        return network_to_export(self.config.recipe.architecture, [*self.snapshots, self.network.state_dict()])

    def _begin_cycle(self, epoch: int = 1) -> None:
        """Create the optimiser and the schedule for the cycle that contains ``epoch``."""
        self.optimizer = _create_optimizer(self.network, self.config.recipe)
        self.scheduler = self._create_scheduler(*self.config.recipe.cycle(epoch))

    def _restart(self) -> None:
        """Keep a snapshot of the network and start the next cycle."""
        self.snapshots.append({name: value.cpu().clone() for name, value in self.network.state_dict().items()})
        self._begin_cycle(self.epoch + 1)

    def _create_scheduler(self, begin: int, end: int) -> LRScheduler:
        recipe = self.config.recipe
        if recipe.schedule == "step":
            return StepLR(self.optimizer, recipe.step_size, recipe.gamma)
        steps = (end - begin) * len(self.batches)
        # Momentum is constant: no measurement here showed a gain from cycling it.
        return OneCycleLR(self.optimizer, recipe.learning_rate, steps, pct_start=recipe.warm_up, cycle_momentum=False)

    def _build_teacher(self, teachers: Mapping[str, Network]) -> Callable[[Tensor], Tensor] | None:
        distillation = self.config.recipe.distillation
        if distillation is None:
            return None
        network = teachers[distillation.teacher].eval()
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        @torch.no_grad()
        def logits(images: Tensor) -> Tensor:
            with self._precision():
                answers: Tensor = network.outputs(images).logits
            return answers.float()

        return logits

    def _parallelise(self) -> nn.Module:
        """Returns the network, or with several processes a wrapper that averages their gradients.

        On GPUs a batch is normalised by the statistics of all processes, on CPUs each shard by its own.
        """
        if distributed.world_size() == 1:
            return self.network  # type: ignore[no-any-return]
        if self.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(self.network, forward_sync_buffers=False)

    def _average_buffers(self) -> None:
        """Give all processes the mean of their batch statistics, so that they hold equal networks."""
        for buffer in self.network.buffers():
            if distributed.world_size() > 1 and buffer.is_floating_point():
                distributed.all_reduce_sum(buffer).div_(distributed.world_size())

    def _compile(self) -> Callable[[Tensor], Tensor]:
        """Returns the network for full batches; on a GPU as CUDA graphs, which launch all kernels at once."""
        if self.device.type == "cpu" or distributed.world_size() > 1:
            return self.parallel
        torch.backends.cudnn.benchmark = True  # picks the fastest convolution algorithm for this batch size
        return torch.compile(self.parallel, dynamic=False, mode="reduce-overhead")

    def _create_batches(
        self, train: Split | PhotoTensors, teachers: Mapping[str, Network]
    ) -> BatchSource | PhotoBatches:
        recipe, seed = self.config.recipe, self.config.seed
        if isinstance(train, Split):
            return BatchSource(recipe, *self._resident(train), seed, self._build_teacher(teachers))
        return PhotoBatches(recipe.photo_mix, recipe.batch_size, train, seed)

    def _resident(self, examples: Split | Examples) -> Examples:
        if isinstance(examples, Split):
            labels = torch.from_numpy(examples.labels.astype(np.int64))
            examples = Examples(torch.from_numpy(np.array(examples.images)), labels)
        return Examples(*(rows.to(self.device) for rows in examples))

    def _run_epoch(self) -> EpochMetrics:
        if self.epoch in self.config.recipe.restarts:
            self._restart()
        start = time.perf_counter()
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train_epoch()
        seconds = time.perf_counter() - start
        if self.config.recipe.schedule == "step":
            self.scheduler.step()
        validation_loss, validation_accuracy = self.validate()
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            learning_rate=learning_rate,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            seconds=seconds,
            images_per_second=self.batches.images_per_epoch / seconds,
        )
        self.history.append(metrics)
        return metrics

    def _train_epoch(self) -> tuple[float, float]:
        """Returns loss and accuracy over the epoch, in training mode."""
        self.network.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        with self._progress() as bar:
            for number, batch in enumerate(self.batches.epoch(self.epoch)):
                sums += self.step(batch.to(self.device))
                bar.update(len(batch.labels) * distributed.world_size())
                if number % REPORT_EVERY == 0:
                    loss, accuracy = _means(sums)
                    self._require_finite(loss)
                    self._report_progress(bar, loss, accuracy)
        self._average_buffers()
        loss, accuracy = _means(distributed.all_reduce_sum(sums))
        self._require_finite(loss)
        self._report_progress(bar, loss, accuracy)
        return loss, accuracy

    def _require_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {self.epoch + 1}: try another --seed, or --precision fp32."
            )

    def _report_progress(self, bar: "tqdm[Any]", loss: float, accuracy: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}, lr {rate:.2g}")

    def step(self, batch: Batch) -> Tensor:
        """Train on ``batch``; returns its sum of negative log-likelihoods, hits and images, float64 ``[3]``."""
        self.optimizer.zero_grad(set_to_none=True)
        log_probs = self._forward(batch.images)
        self._loss(log_probs, batch).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.config.recipe.schedule == "one-cycle":
            self.scheduler.step()
        return _sums(log_probs.detach(), batch.labels)

    def _loss(self, log_probs: Tensor, batch: Batch) -> Tensor:
        if self.config.recipe.photos:
            return smoothed_set_loss(log_probs, batch.targets, self.config.recipe.photos.label_smoothing)
        loss = F.cross_entropy(log_probs, batch.targets)  # of log-probabilities and labels: F.nll_loss
        if self.config.recipe.distillation is None or batch.teacher_logits is None:
            return loss
        return self.config.recipe.distillation.loss(log_probs, batch.teacher_logits, loss)

    def _forward(self, images: Tensor) -> Tensor:
        network: Callable[[Tensor], Tensor] = self.network
        if self.network.training:
            network = self.compiled if len(images) == self.batches.batch_size else self.parallel
        with self._precision():
            log_probs = network(images)
        return log_probs.float()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Returns loss and accuracy on the validation images, in evaluation mode."""
        self.network.eval()
        images, labels = (distributed.shard(rows) for rows in self.validation)
        log_probs = torch.cat([self._forward(batch) for batch in torch.split(images, EVALUATION_BATCH)])
        return _means(distributed.all_reduce_sum(_sums(log_probs, labels)))

    def _progress(self) -> "tqdm[Any]":
        total, title = self.batches.images_per_epoch, f"epoch {self.epoch + 1}/{self.config.recipe.epochs}"
        return progress_bar(title, total, "images", shown=distributed.rank() == 0)


def _sums(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood, hits and count, summed over the images: float64 ``[3]``."""
    loss, hits = negative_log_likelihoods(log_probs, labels).sum(), correct(log_probs, labels).sum()
    return torch.stack([loss.double(), hits.double(), torch.full_like(loss, len(labels)).double()])


def _means(sums: Tensor) -> tuple[float, float]:
    loss, hits, count = sums.tolist()
    return loss / count, hits / count


def _create_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, fused=True)


def initial_network(recipe: Recipe) -> Network:
    """Returns the network before the first epoch, on the CPU; raises as ``start_from_imagenet``."""
    network = create_network(recipe.architecture)
    return start_from_imagenet(network) if isinstance(network, PhotoFashionNet) else network


def describe_machine(device: str) -> dict[str, str]:
    """Returns the name of the processor or GPU, and the versions of Python and PyTorch."""
    processor = {"cpu": cpu.cpu_name()} if device == "cpu" else {"gpu": torch.cuda.get_device_name()}
    return {**processor, "python": platform.python_version(), "torch": str(torch.__version__)}


def choose_precision(asked: Literal["auto", "fp32", "bf16"], device: str) -> Precision:
    """Returns ``asked``; for ``auto`` bf16 on GPUs and CPUs with instructions for it, else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if (cpu.has_bf16() if device == "cpu" else _gpu_has_bf16()) else "fp32"


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
