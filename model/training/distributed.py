"""The processes that train one network together, each on its part of every batch; usually there is only one.

``torchrun`` starts them (https://docs.pytorch.org/docs/stable/elastic/run.html) and PyTorch's distributed package joins
them: by NCCL on GPUs, by gloo on CPUs. They draw the same random numbers, so that together they do what one would.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.network import Dropout, are_several


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, if it did."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.get_node_local_rank())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    yield
    gc.collect()  # a network that is still parallel when the group ends would abort the process now and then
    distributed.destroy_process_group()


def lost_a_peer(error: RuntimeError) -> bool:
    """Whether ``error`` came of waiting for a process that has ended."""
    return are_several() and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if are_several() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one writes and prints."""
    return distributed.get_rank() if are_several() else 0


def wait_for_first() -> None:
    """Wait until the first process is here too."""
    if are_several():
        distributed.barrier()


def part(rows: Tensor) -> Tensor:
    """This process's share of the rows of a batch ``[N, ...]``; shares differ by one row at most."""
    return rows.tensor_split(size())[rank()]


def united(rows: Tensor) -> Tensor:
    """The parts of all processes, one after the other: the inverse of ``part``."""
    if not are_several():
        return rows
    parts: list[Tensor | None] = [None] * size()
    distributed.all_gather_object(parts, rows)
    return torch.cat([each.to(rows.device) for each in parts if each is not None])


def totals(*values: float) -> list[float]:
    """The sum of each value over all processes."""
    if not are_several():
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(sums)
    return list(sums.tolist())


def parallel(network: nn.Module) -> nn.Module:
    """The network with gradients that are averaged over all processes."""
    # Batch statistics are those of the whole batch everywhere, so there are no buffers to hand round.
    return DistributedDataParallel(network, forward_sync_buffers=False) if are_several() else network


def share_dropout(network: nn.Module, rows: int) -> None:
    """Let the dropout layers cut the masks of this process's part of a batch from those of all its ``rows``."""
    if are_several():
        first = sum(len(each) for each in torch.empty(rows, 0).tensor_split(size())[: rank()])
        for layer in network.modules():
            if isinstance(layer, Dropout):
                layer.first, layer.of = first, rows
