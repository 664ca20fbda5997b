"""A hand-written FastAPI app for photos: the network of fashionnet-photo as TorchScript, in the file of NETWORK."""

import io
import os

import numpy as np
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image, ImageOps

from benchmarks.contenders.tutorial import answer

SIZE = 192


def load() -> torch.jit.ScriptModule:
    """The network, on one thread."""
    torch.set_num_threads(1)
    return torch.jit.load(os.environ["NETWORK"]).eval()


app = FastAPI()
network = load()


def decode(content: bytes) -> torch.Tensor:
    """An encoded photo -> uint8 ``[192, 192, 3]``."""
    photo = Image.open(io.BytesIO(content))
    photo.draft("RGB", (2 * SIZE, 2 * SIZE))
    small = ImageOps.exif_transpose(photo).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small))


@app.post("/predict")
async def predict(file: UploadFile) -> dict:
    """Classify one photo."""
    with torch.inference_mode():
        return answer(network(decode(await file.read())[None])[0])
