"""The same service on Ray Serve: ``serve run deploy.ray.serve_app:app``.

Every replica runs the application of ``create_app`` in a process of its own, with the settings of its node's
environment. Ray starts and stops replicas with the load, and another one where one dies.
"""

from fastapi import FastAPI
from ray import serve

from app.main import create_app


def build() -> FastAPI:
    """The application of one replica."""
    return create_app()


FashionNet = serve.deployment(
    name="fashionnet",
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 16},
    max_ongoing_requests=64,  # as many as may wait in a replica; the proxy keeps the rest, or sends them elsewhere
    health_check_period_s=2,
    health_check_timeout_s=5,
    graceful_shutdown_timeout_s=30,
)(serve.ingress(build)())

app = FashionNet.bind()
