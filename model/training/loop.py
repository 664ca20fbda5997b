"""The training loop: one uint8 tensor, batches by index, an exact state at the end of every epoch."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from tqdm import tqdm

from model import cpu
from model.data import Split
from model.errors import TrainingError
from model.network import Network, create_network, release
from model.training import distributed
from model.training.augment import augment
from model.training.distillation import Teacher
from model.training.fmix import mix
from model.training.recipes import Recipe
from model.training.seeds import derived_seed

Precision = Literal["fp32", "bf16"]
EVALUATION_BATCH = 500
LOOK_EVERY = 20
"""Batches between two looks at the figures."""


class RunConfig(BaseModel):
    """All that a run needs to be started, or gone on with, bit for bit."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    seed: int
    precision: Precision
    threads: int
    """torch threads; part of the configuration because another number sums in another order."""
    device: str
    machine: dict[str, str] = {}
    """What it began on: CPU or GPU, versions of Python and PyTorch."""
    data: dict[str, str]
    """SHA-256 of the data set's files, by name."""
    name: str
    """The name of the artefact that the run ends in."""
    parents_folder: str = ""
    """Where the artefacts lie that the recipe learns from, if any."""
    parents: dict[str, str] = {}
    """Their versions, by name, so that a resumed run has the same ones."""
    processes: int = 1
    """How many train together; as the threads, they decide in which order is summed."""
    limit: int | None = None
    """Use only so many images of each split: a rehearsal."""


class EpochMetrics(BaseModel):
    """What one epoch came to. Losses are mean negative log-likelihoods, accuracies 0..1."""

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
        """With as many digits as mean something."""
        return {name: float(f"{value:.5g}") for name, value in self.model_dump().items()}


class Batch(NamedTuple):
    """What one step learns from."""

    images: Tensor
    """uint8 ``[N, 28, 28]``"""
    labels: Tensor
    """int64 ``[N]``"""
    answers: Tensor | None = None
    """``[N, 10]``, a teacher's logits."""
    targets: Tensor | None = None
    """``[N, 10]``, probabilities, where the images are mixed; their labels are those of the larger parts."""

    def part(self) -> "Batch":
        """This process's share of it."""
        answers, targets = (None if rows is None else distributed.part(rows) for rows in (self.answers, self.targets))
        return Batch(distributed.part(self.images), distributed.part(self.labels), answers, targets)


class Trainer:
    """A network, its optimiser and schedule, and the two sets that it learns from and is measured on."""

    def __init__(
        self, config: RunConfig, train: Split, validation: Split, parents: Mapping[str, Network] | None = None
    ) -> None:
        self.config = config
        self.history: list[EpochMetrics] = []
        self.device = torch.device(config.device)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.train_images, self.train_labels = self._resident(train)
        self.validation = self._resident(validation)
        network, parents = create_network(config.recipe.architecture), parents or {}
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel = distributed.parallel(self.network)
        self.compiled = self._compile()
        self.teacher = self._hire(parents)
        self.snapshots: list[dict[str, Tensor]] = []
        """What ``state_dict`` of the network was at each of the recipe's restarts, on the CPU."""
        self._begin_cycle()

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return len(self.history)

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train what is left of the recipe, handing out each completed epoch's metrics.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        while self.epoch < self.config.recipe.epochs:
            yield self._run_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; tensors and plain values only."""
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
        self.snapshots = state.get("snapshots", [])  # a run that began before there were any has none
        self._begin_cycle(max(1, self.epoch))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return self

    def released_network(self) -> Network:
        """What has been trained, to be measured and served: on the CPU, in evaluation mode."""
        return release(self.network.cpu(), self.snapshots)

    def _begin_cycle(self, epoch: int = 1) -> None:
        """Optimiser and schedule as the cycle that the ``epoch``-th epoch is in begins with them."""
        self.optimizer = _create_optimizer(self.network, self.config.recipe)
        self.scheduler = self._create_scheduler(*self.config.recipe.cycle(epoch))

    def _restart(self) -> None:
        """Keep what has been reached, and go on from there at a high learning rate."""
        self.snapshots.append({name: value.cpu().clone() for name, value in self.network.state_dict().items()})
        self._begin_cycle(self.epoch + 1)

    def _create_scheduler(self, begin: int, end: int) -> LRScheduler:
        recipe = self.config.recipe
        if recipe.schedule == "step":
            return StepLR(self.optimizer, recipe.step_size, recipe.gamma)
        steps = (end - begin) * -(-len(self.train_labels) // recipe.batch_size)
        # Momentum stays as it is: cycling it too is a second knob for nothing that was measured here.
        return OneCycleLR(self.optimizer, recipe.learning_rate, steps, pct_start=recipe.warm_up, cycle_momentum=False)

    def _hire(self, parents: Mapping[str, Network]) -> Teacher | None:
        recipe = self.config.recipe
        if recipe.distillation is None:
            return None
        network = parents[recipe.distillation.teacher].eval()
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def logits(images: Tensor) -> Tensor:
            with self._precision():
                answers: Tensor = network.outputs(images).logits
            return answers.float()

        views = recipe.augmentation, recipe.distillation, recipe.mixing
        return Teacher(logits, self.train_images, *views, seed=self.config.seed)

    def _compile(self) -> Callable[[Tensor], Tensor]:
        """The network for whole batches: on a GPU replayed as CUDA graphs, so that no kernel is launched alone."""
        if self.device.type == "cpu" or distributed.size() > 1:
            return self.parallel
        torch.backends.cudnn.benchmark = True  # of its ways to convolve, the quickest for this size of batch
        return torch.compile(self.parallel, dynamic=False, mode="reduce-overhead")

    def _resident(self, split: Split) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(np.array(split.images)).to(self.device)
        return images, torch.from_numpy(split.labels.astype(np.int64)).to(self.device)

    def _run_epoch(self) -> EpochMetrics:
        if self.epoch in self.config.recipe.restarts:
            self._restart()
        # Each epoch has a seed of its own, so resuming needs no state of any random generator.
        torch.manual_seed(derived_seed(self.config.seed, self.epoch))
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
            images_per_second=len(self.train_labels) / seconds,
        )
        self.history.append(metrics)
        return metrics

    def _train_epoch(self) -> tuple[float, float]:
        self.network.train()
        seen, sums = 0, torch.zeros(2, dtype=torch.float64, device=self.device)
        with self._progress() as bar:
            for number, batch in enumerate(self._batches()):
                sums += self.step(batch)
                seen += len(batch.part().labels)
                bar.update(len(batch.labels))
                if number % LOOK_EVERY == 0:
                    self._look(bar, *(sums / seen).tolist())
        everything, loss, hits = distributed.totals(seen, *sums.tolist())
        self._look(bar, loss / everything, hits / everything)
        return loss / everything, hits / everything

    def _look(self, bar: "tqdm[Any]", loss: float, accuracy: float) -> None:
        """Show how it goes; rarely, since a GPU has to be waited for."""
        if not np.isfinite(loss):
            raise TrainingError(f"The loss became {loss} in epoch {self.epoch + 1}: try a lower learning rate.")
        rate = self.optimizer.param_groups[0]["lr"]
        bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}, lr {rate:.2g}")

    def _batches(self) -> Iterator[Batch]:
        """The training images once, in random order, each changed as the recipe says."""
        order = torch.split(torch.randperm(len(self.train_labels), device=self.device), self.config.recipe.batch_size)
        if self.teacher:
            yield from self._taught_batches(self.teacher, order)
            return
        for batch in order:
            images = augment(self.train_images[batch], self.config.recipe.augmentation)
            yield self._mixed(images, self.train_labels[batch])

    def _mixed(self, images: Tensor, labels: Tensor) -> Batch:
        if self.config.recipe.mixing is None:
            return Batch(images, labels)
        images, mixture = mix(images, self.config.recipe.mixing)
        return Batch(images, labels, targets=mixture.targets(labels))

    def _taught_batches(self, teacher: Teacher, order: Iterable[Tensor]) -> Iterator[Batch]:
        images, answers, mixture = teacher.lesson(self.epoch)
        targets = mixture and mixture.targets(self.train_labels)
        for batch in order:
            mixed = None if targets is None else targets[batch]
            yield Batch(images[batch], self.train_labels[batch], answers[batch], mixed)

    def step(self, batch: Batch) -> Tensor:
        """Learn from ``batch``; negative log-likelihood and hits of this process's part of it, float64 ``[2]``."""
        distributed.share_dropout(self.network, len(batch.labels))
        part = batch.part()
        self.optimizer.zero_grad(set_to_none=True)
        log_probs = self._forward(part.images)
        # Gradients are averaged over the processes as if their parts were equal; the last batch's may not be.
        loss = self._loss(log_probs, part) * (len(part.labels) * self.config.processes / len(batch.labels))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.config.recipe.schedule == "one-cycle":
            self.scheduler.step()
        value = F.nll_loss(log_probs.detach(), part.labels, reduction="sum")
        return torch.stack([value.double(), (log_probs.argmax(1) == part.labels).sum().double()])

    def _loss(self, log_probs: Tensor, batch: Batch) -> Tensor:
        if batch.targets is None:
            loss = F.nll_loss(log_probs, batch.labels)
        else:
            loss = F.cross_entropy(log_probs, batch.targets)
        if self.config.recipe.distillation and batch.answers is not None:
            return self.config.recipe.distillation.loss(log_probs, batch.answers, loss)
        return loss

    def _forward(self, images: Tensor) -> Tensor:
        network: Callable[[Tensor], Tensor] = self.network
        if self.network.training:  # what is compiled is so for one size of batch
            network = self.compiled if len(images) == self.config.recipe.batch_size else self.parallel
        with self._precision():
            log_probs = network(images)
        return log_probs.float()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation set, in evaluation mode."""
        self.network.eval()
        images, labels = (distributed.part(rows) for rows in self.validation)
        log_probs = torch.cat([self._forward(batch) for batch in torch.split(images, EVALUATION_BATCH)])
        loss, hits = F.nll_loss(log_probs, labels, reduction="sum").item(), (log_probs.argmax(1) == labels).sum().item()
        count, loss_of_all, hits_of_all = distributed.totals(len(labels), loss, hits)
        return loss_of_all / count, hits_of_all / count

    def _progress(self) -> "tqdm[Any]":
        title = f"epoch {self.epoch + 1}/{self.config.recipe.epochs}"
        # disable=None: a bar on a terminal, nothing in a log file
        disable = True if distributed.rank() else None
        return tqdm(
            total=len(self.train_labels), desc=title, unit=" images", unit_scale=True, leave=False, disable=disable
        )


def _create_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights, rate, decay = network.parameters(), recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, fused=True)


def describe_machine(device: str) -> dict[str, str]:
    """The processor that ``device`` is, and the versions of Python and PyTorch."""
    processor = {"cpu": cpu.cpu_name()} if device == "cpu" else {"gpu": torch.cuda.get_device_name()}
    return {**processor, "python": platform.python_version(), "torch": str(torch.__version__)}


def choose_precision(asked: Literal["auto", "fp32", "bf16"], device: str) -> Precision:
    """``auto`` takes bf16 where the device multiplies it in hardware (CPU flags, or any CUDA device), else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if device != "cpu" or cpu.has_bf16() else "fp32"
