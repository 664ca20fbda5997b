"""Ray Serve: 2 replicas, ``@serve.batch`` of 16 within 2 ms, its throughput mode with HAProxy."""

import os
import time

import torch
from fastapi import FastAPI, UploadFile
from ray import serve

from benchmarks.contenders.tutorial import answer, decode, load

api = FastAPI()


@serve.deployment(num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
@serve.ingress(api)
class FashionNet:
    """One replica."""

    def __init__(self) -> None:
        self.network = load()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def classify(self, images: list[torch.Tensor]) -> list[dict]:
        """Answers of a batch."""
        with torch.inference_mode():
            return [answer(row) for row in self.network(torch.stack(images))]

    @api.post("/predict")
    async def predict(self, file: UploadFile) -> dict:
        """The answer of one picture."""
        return await self.classify(decode(await file.read()))


if __name__ == "__main__":
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])}, logging_config={"enable_access_log": False}
    )
    serve.run(FashionNet.bind())
    while True:
        time.sleep(60)
