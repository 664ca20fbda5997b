"""Photos per second beside a hand-written FastAPI app and LitServe, which serve the same network with torch.

All run two workers, in environments of their own, in turns, at 16 connections. The photos are JPEGs of 3000x4000 and
900x1200 pixels. The peers (benchmarks/contenders/photo.py, lit_photo.py) get the network as TorchScript.

python benchmarks/photo_serving.py [--seconds 5] [--rounds 3] [--write benchmarks/results/photo-serving]
"""

import argparse
import io
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.load import closed_loop
from benchmarks.report import machine, table, write
from benchmarks.serving import CONTENDERS, PORT, Contender, cost, environment, memory, photo, request_for, running
from model import WEIGHTS, load_artifact
from model.network import Network, load_network

CONNECTIONS = 16
SERVE = ("-m", "uvicorn", "benchmarks.contenders.photo:app", "--workers", "2", "--no-access-log", "--port", "{port}")


class LogProbs(nn.Module):
    """The log-probabilities of the ten classes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, S, S, 3]`` -> log-probabilities ``[N, 10]``."""
        return self.network.outputs(images).log_probs


def contenders(folder: Path) -> list[Contender]:
    """Returns ours and the peers, whose network is written into ``folder``."""
    network = load_network(load_artifact(WEIGHTS, "fashionnet-photo"))
    with torch.no_grad():
        traced = torch.jit.trace(LogProbs(network).eval(), torch.zeros(1, *network.input.shape, dtype=torch.uint8))
    file = folder / "network.pt"
    torch.jit.freeze(traced).save(str(file))
    variables = {"NETWORK": str(file), "EDGE": str(network.input.height), "OMP_NUM_THREADS": "1"}
    known = {one.name: one for one in CONTENDERS}
    naive, lit = known["naive"], known["litserve"]
    photo_app = Contender("hand-written", naive.what, SERVE, naive.requirements, variables, environment=naive.name)
    command = ("-m", "benchmarks.contenders.lit_photo")
    photo_lit = Contender(
        "litserve", lit.what, command, lit.requirements, lit.variables | variables, environment=lit.name
    )
    return [known["fashionnet"], photo_app, photo_lit]


def pictures() -> dict[str, bytes]:
    """Returns the photos by size."""
    large, buffer = photo(), io.BytesIO()
    with Image.open(io.BytesIO(large)) as image:
        image.resize((900, 1200)).save(buffer, "JPEG", quality=85)
    return {"3000x4000": large, "900x1200": buffer.getvalue()}


def measure(contender: Contender, python: Path, photos: dict[str, bytes], seconds: float) -> dict[str, Any]:
    """Returns one round of one contender."""
    found: dict[str, Any] = {}
    with running(contender, python, photos["900x1200"]) as (server, _, _):
        for size, content in photos.items():
            request = request_for(contender, content)
            closed_loop(request, PORT, CONNECTIONS, 2)
            outcome, cpu_ms = cost(server, request, PORT, CONNECTIONS, seconds)
            lost = {"refused": outcome.refused, "errors": outcome.errors}
            found[size] = {"rate": outcome.rate, "p99": outcome.p99, "cpu_ms": cpu_ms, **lost}
        found["pss_mb"], found["largest_pss_mb"], _ = memory(server)
    return found


def ratio(turn: dict[str, Any], size: str) -> float:
    """Returns our photos per second over those of the best peer."""
    ours, *peers = (float(found[size]["rate"]) for found in turn.values())
    return ours / max(peers)


def report(rounds: list[dict[str, Any]], photos: dict[str, bytes]) -> str:
    """Returns the medians of the rounds, and the ratio of the rates in each."""

    def middle(name: str, size: str, key: str) -> str:
        return f"{statistics.median(turn[name][size][key] for turn in rounds):.1f}"

    rows = [
        (
            f"{name}, {size}",
            *(middle(name, size, key) for key in ("rate", "p99", "cpu_ms")),
            str(sum(turn[name][size]["refused"] for turn in rounds)),
            str(sum(turn[name][size]["errors"] for turn in rounds)),
        )
        for size in photos
        for name in rounds[0]
    ]
    ratios = [f"{size}: " + ", ".join(f"{ratio(turn, size):.2f}" for turn in rounds) for size in photos]
    largest = ", ".join(
        f"{name} {statistics.median(turn[name]['largest_pss_mb'] for turn in rounds):.0f} MB" for name in rounds[0]
    )
    return "\n\n".join(
        [
            "# Photos beside a hand-written app and LitServe",
            table(("", "photos/s", "p99 ms", "CPU ms a photo", "429", "errors"), rows),
            f"Our rate over that of the best peer, by turn: {'; '.join(ratios)}.",
            f"Memory (PSS) of the largest process: {largest}.",
            f"{CONNECTIONS} connections; {machine()}; {datetime.now(UTC).date()}.",
            "Made by `python benchmarks/photo_serving.py`.\n",
        ]
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    cache = Path.home() / ".cache" / "fashionnet-serving"
    parser.add_argument("--environments", type=Path, default=cache, help="where environments are made (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="STEM", help="write STEM.md and STEM.json")
    arguments = parser.parse_args()
    photos = pictures()
    with tempfile.TemporaryDirectory() as folder:
        servers = contenders(Path(folder))
        pythons = {one.name: environment(one, arguments.environments) for one in servers}
        rounds = [
            {one.name: measure(one, pythons[one.name], photos, arguments.seconds) for one in servers}
            for _ in range(arguments.rounds)
        ]
    text = report(rounds, photos)
    print(text)
    figures = {"date": str(datetime.now(UTC).date()), "machine": machine(), "rounds": rounds}
    write(arguments.write, text, figures)


if __name__ == "__main__":
    main()
