"""The service on Ray Serve: ``serve run deploy.ray.serve_app:app``.

Each replica is a process that runs the application, with the settings of its node's environment. Ray scales the number
of replicas with the load and replaces those that die.
"""

from fastapi import FastAPI
from ray import serve

from app.main import create_app


def build() -> FastAPI:
    """Returns the application of one replica."""
    return create_app()


FashionNet = serve.deployment(
    name="fashionnet",
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 16},
    max_ongoing_requests=64,  # per replica; the proxy keeps the rest or sends them to another replica
    health_check_period_s=2,
    health_check_timeout_s=5,
    graceful_shutdown_timeout_s=30,
)(serve.ingress(build)())

app = FashionNet.bind()
