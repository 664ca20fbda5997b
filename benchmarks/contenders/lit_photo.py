"""LitServe for photos: the network of fashionnet-photo as TorchScript, with the settings of ``lit``."""

import torch
from fastapi import Request

from benchmarks.contenders.lit import FashionNetAPI, serve
from benchmarks.contenders.photo import decode, load


class PhotoAPI(FashionNetAPI):
    """One photo in, one answer out; LitServe batches."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the network in a worker."""
        self.network = load()

    def decode_request(self, request: Request) -> torch.Tensor:
        """The photo of the form."""
        return decode(request["file"].file.read())


if __name__ == "__main__":
    serve(PhotoAPI)
