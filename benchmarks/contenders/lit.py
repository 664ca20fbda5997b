"""LitServe as its documentation tunes it: 2 workers, batches of 16 within 2 ms, two API servers, the fast queue."""

import os

import litserve
import torch
from fastapi import Request

from benchmarks.contenders.tutorial import answer, decode, load


class FashionNetAPI(litserve.LitAPI):
    """One picture in, one answer out; LitServe batches."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the network in a worker."""
        self.network = load()

    def decode_request(self, request: Request) -> torch.Tensor:
        """The picture of the form."""
        return decode(request["file"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Pictures to a batch."""
        return torch.stack(inputs)

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of a batch."""
        with torch.inference_mode():
            return self.network(batch)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """A batch to answers."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict:
        """What is sent."""
        return answer(output)


def serve(api: type[litserve.LitAPI]) -> None:
    """Serves until the process is told to stop."""
    server = litserve.LitServer(
        api(max_batch_size=16, batch_timeout=0.002), accelerator="cpu", workers_per_device=2, fast_queue=True
    )
    server.run(port=int(os.environ["PORT"]), num_api_servers=2, generate_client_file=False, access_log=False)


if __name__ == "__main__":
    serve(FashionNetAPI)
