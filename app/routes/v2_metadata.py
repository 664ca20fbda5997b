"""The Open Inference Protocol v2 under ``/v2``: what there is, whether it is ready, and what it has done. Read-only."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from app import VERSION
from app.dependencies import PredictorsDep, ReadinessDep, SettingsDep
from app.inference.errors import UnknownModel
from app.inference.predictor import Predictor, Predictors
from app.metrics import MetricsUnavailable, collect
from app.problems import InvalidQuery, NotReady, problem_responses
from app.routes.v2_codec import OUTPUTS
from app.routes.v2_statistics import Statistics, model_statistics

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
PLATFORMS = {"onnx": "onnx_onnxv1", "onnx-int8": "onnx_onnxv1", "torch": "pytorch"}
BACKENDS = {"onnx": "onnxruntime", "onnx-int8": "onnxruntime", "torch": "pytorch"}
TYPES = {"FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}
"""The names that configurations have for the types of tensors."""


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One input or output; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Whether the server is live."""

    live: bool


class Ready(BaseModel):
    """Whether the server, or the model ``name``, is ready."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: bool
    name: str | None = None


class ConfiguredTensor(BaseModel):
    """One input or output, without the dimension of the batch."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfiguration(BaseModel):
    """What clients of Triton read of a model's configuration."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]


class IndexedModel(BaseModel):
    """One model of the repository."""

    name: str
    version: str
    state: str
    reason: str


async def served(request: Request, name: str, predictors: PredictorsDep) -> Predictor:
    """Returns the model that the path names; raises UnknownModel."""
    return find(predictors, name, request.path_params.get("version"))


def find(predictors: Predictors, name: str, version: str | None = None) -> Predictor:
    """Returns a model by name and, if given, version; raises UnknownModel."""
    predictor = predictors[name]
    if version not in (None, predictor.card.version):
        raise UnknownModel(f"There is no version {version!r:.80} of {name}; there is {predictor.card.version}.")
    return predictor


ServedDep = Annotated[Predictor, Depends(served)]
KNOWN = problem_responses(UnknownModel, InvalidQuery)
VERSION_PARAMETER = {
    "parameters": [
        {
            "name": "version",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "the version in the metadata of the model",
        }
    ]
}


@router.get("/", include_in_schema=False)
@router.get("", summary="Get the metadata of the server", response_description="the metadata")
async def server_metadata() -> ServerMetadata:
    """Returns the server's name, version and extensions."""
    return ServerMetadata(name="fashionnet", version=VERSION, extensions=EXTENSIONS)


@router.get("/health/live", summary="See whether the server is live", response_description="it is live")
async def server_live() -> Live:
    """Responds as long as the process runs."""
    return Live(live=True)


@router.get(
    "/health/ready",
    summary="See whether the server is ready",
    response_description="it is ready",
    responses=problem_responses(NotReady),
    response_model_exclude_none=True,
)
async def server_ready(readiness: ReadinessDep) -> Ready:
    """Responds with 200 if inference requests may be sent, else with 503."""
    readiness.require()
    return Ready(ready=True)


@router.post("/repository/index", summary="Get the index of the models", response_description="the models and states")
async def repository_index(predictors: PredictorsDep, readiness: ReadinessDep) -> list[IndexedModel]:
    """Lists the models, ready or not; the body is not read. Models are loaded by SIGHUP alone, not over HTTP."""
    state, reason = ("UNAVAILABLE", readiness.reason) if readiness.reason else ("READY", "")
    return [
        IndexedModel(name=predictor.card.name, version=predictor.card.version, state=state, reason=reason)
        for predictor in predictors.values()
    ]


@router.get(
    "/models/stats",
    summary="Get the statistics of all models",
    response_description="the statistics",
    responses=problem_responses(MetricsUnavailable),
)
async def all_statistics(predictors: PredictorsDep) -> Statistics:
    """As the statistics of one model, for each."""
    return model_statistics([each.card for each in predictors.values()], await asyncio.to_thread(collect))


_metadata_route = partial(router.get, response_description="the metadata", responses=KNOWN)


@_metadata_route(
    "/models/{name}/versions/{version}",
    summary="Get the metadata of a version of a model",
    openapi_extra=VERSION_PARAMETER,
)
@_metadata_route("/models/{name}", summary="Get the metadata of a model")
async def model_metadata(predictor: ServedDep) -> ModelMetadata:
    """Describes inputs and outputs; `images` may also be FP32, or BYTES that contain encoded pictures."""
    classes = len(predictor.card.classes)
    return ModelMetadata(
        name=predictor.card.name,
        versions=[predictor.card.version],
        platform=PLATFORMS[predictor.engine.name],
        inputs=[TensorMetadata(name="images", datatype="UINT8", shape=[-1, *predictor.card.input.shape])],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=[-1] if name == "label" else [-1, classes])
            for name, datatype in OUTPUTS.items()
        ],
    )


_configuration_route = partial(router.get, response_description="the configuration", responses=KNOWN)


@_configuration_route(
    "/models/{name}/versions/{version}/config",
    summary="Get the configuration of a version of a model",
    openapi_extra=VERSION_PARAMETER,
)
@_configuration_route("/models/{name}/config", summary="Get the configuration of a model")
async def model_configuration(predictor: ServedDep, settings: SettingsDep) -> ModelConfiguration:
    """Describes a model in the terms of Triton; `max_batch_size` is the most images in a request."""
    engine, classes = predictor.engine.name, len(predictor.card.classes)
    return ModelConfiguration(
        name=predictor.card.name,
        platform=PLATFORMS[engine],
        backend=BACKENDS[engine],
        max_batch_size=settings.max_files,
        input=[ConfiguredTensor(name="images", data_type="TYPE_UINT8", dims=list(predictor.card.input.shape))],
        output=[
            ConfiguredTensor(name=name, data_type=TYPES[datatype], dims=[] if name == "label" else [classes])
            for name, datatype in OUTPUTS.items()
        ],
    )


_statistics_route = partial(
    router.get, response_description="the statistics", responses=KNOWN | problem_responses(MetricsUnavailable)
)


@_statistics_route(
    "/models/{name}/versions/{version}/stats",
    summary="Get the statistics of a version of a model",
    openapi_extra=VERSION_PARAMETER,
)
@_statistics_route("/models/{name}/stats", summary="Get the statistics of a model")
async def statistics(predictor: ServedDep) -> Statistics:
    """Counts the images and the calls of the engine, and the `/v2` requests with their duration, of all workers."""
    return model_statistics([predictor.card], await asyncio.to_thread(collect))


_ready_route = partial(router.get, response_description="it is ready", responses=KNOWN | problem_responses(NotReady))


@_ready_route(
    "/models/{name}/versions/{version}/ready",
    summary="See whether a version of a model is ready",
    openapi_extra=VERSION_PARAMETER,
)
@_ready_route("/models/{name}/ready", summary="See whether a model is ready")
async def model_ready(predictor: ServedDep, readiness: ReadinessDep) -> Ready:
    """Responds with 200 if inference requests may be sent to this model, else with 503."""
    readiness.require()
    return Ready(name=predictor.card.name, ready=True)
