"""The processes that train one network together, each on its shard of every batch; usually there is only one.

``torchrun`` starts them (https://docs.pytorch.org/docs/stable/elastic/run.html). They communicate by NCCL on GPUs and
by gloo on CPUs.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from model.errors import TrainingError


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that torchrun has started, which train on ``device``; does nothing without torchrun.

    Raises:
        TrainingError: there are fewer GPUs than processes on this machine.
    """
    if not distributed.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        number = distributed.get_node_local_rank()
        if number >= torch.cuda.device_count():
            raise TrainingError(
                f"This machine has {torch.cuda.device_count()} GPUs: start one process for each, or add --device cpu."
            )
        torch.cuda.set_device(number)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    yield
    gc.collect()  # a DistributedDataParallel that outlives its group can abort the process
    distributed.destroy_process_group()


def world_size() -> int:
    """Returns the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0; process 0 writes and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def barrier() -> None:
    """Wait until every process is here."""
    if distributed.is_initialized():
        distributed.barrier()


def shard(rows: Tensor) -> Tensor:
    """Returns a view of this process's share of ``rows`` ``[N, ...]``; shares differ by at most one row."""
    return rows.tensor_split(world_size())[rank()]


def all_reduce_sum(values: Tensor) -> Tensor:
    """Returns ``values``, after adding to them, in place, those of the other processes."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values


def peer_failed(error: RuntimeError) -> bool:
    """Returns whether ``error`` means that another process has ended."""
    return world_size() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))
