"""A hand-written FastAPI app for photos: the network of fashionnet-photo as TorchScript.

The environment names its file (NETWORK) and the edge of its input in pixels (EDGE).
"""

import io
import os

import numpy as np
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image, ImageOps

from benchmarks.contenders.tutorial import answer

EDGE = int(os.environ["EDGE"])


def load() -> torch.jit.ScriptModule:
    """The network, on one thread."""
    torch.set_num_threads(1)
    return torch.jit.load(os.environ["NETWORK"]).eval()


app = FastAPI()
network = load()


def decode(content: bytes) -> torch.Tensor:
    """An encoded photo -> uint8 ``[EDGE, EDGE, 3]``."""
    photo = Image.open(io.BytesIO(content))
    photo.draft("RGB", (2 * EDGE, 2 * EDGE))
    small = ImageOps.exif_transpose(photo).convert("RGB").resize((EDGE, EDGE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small))


@app.post("/predict")
async def predict(file: UploadFile) -> dict:
    """Classify one photo."""
    with torch.inference_mode():
        return answer(network(decode(await file.read())[None])[0])
