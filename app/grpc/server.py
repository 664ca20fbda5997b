"""The gRPC server of a process. It has the models, the admission, the keys and the metrics in common with HTTP.

Every method takes its message as a stream of one. So it runs before the message arrives, and can refuse the call or
make it wait.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from fastapi import FastAPI
from starlette.datastructures import State

from app import lifecycle
from app.connections import affordable_connections
from app.disconnection import CLIENT_CLOSED_REQUEST
from app.grpc.messages import InferenceCall, decode, message, read_call, response_of
from app.inference.errors import Overloaded, UnknownModel
from app.inference.predictor import Predictor, Predictors
from app.inference.sandbox import CallEnded
from app.keys import is_keyless
from app.logs import request_id
from app.metrics import measure_inference
from app.middleware import identify, record_request
from app.problems import BodyTooLarge, InvalidInference, SlowBody, counted_problem
from app.routes import v2_metadata
from app.routes.v2_inference import run_inference
from app.routes.v2_request import QUICK_BYTES, images_of
from app.settings import GRPC_STOP_SECONDS, Settings

Method = Callable[[bytes], Awaitable[Any]]
"""Takes an encoded message and returns a message."""

SERVICE = "inference.GRPCInferenceService"
ARRIVALS = 8
"""Most messages that arrive at once: gRPC passes on complete messages alone, so this bounds their memory."""
KEYLESS_ARRIVALS, KEYLESS_SECONDS = 16, 1
"""The same for methods that need no key, such as health checks, and the seconds in which their bytes must arrive."""
SETTLE_SECONDS = 10
"""For a client to begin with HTTP/2, as long as it may take for the head of a request over HTTP."""
STREAMS = 100
"""Most calls of a connection at once; the clients of gRPC keep more of them waiting."""
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND, 408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 500: grpc.StatusCode.INTERNAL, 503: grpc.StatusCode.UNAVAILABLE,
}  # fmt: skip
"""The codes for the statuses of problems; for others INVALID_ARGUMENT."""


@asynccontextmanager
async def lifespan_with_grpc(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """As that of ``app.lifecycle``, with a gRPC server. Workers share its port; the kernel divides the connections."""
    settings: Settings = app.state.settings
    async with lifecycle.lifespan(app) as server_state:
        options = {
            "grpc.max_receive_message_length": settings.max_json_bytes,
            "grpc.max_allowed_incoming_connections": affordable_connections(settings),
            "grpc.max_concurrent_streams": STREAMS,
            "grpc.http2.settings_timeout": SETTLE_SECONDS * 1000,
            "grpc.max_connection_idle_ms": settings.keep_alive_seconds * 1000,
            "grpc.http2.bdp_probe": 0,  # else megabytes of a message arrive before it is read
        }
        server = grpc.aio.server(
            handlers=[InferenceService(app.state)],
            options=tuple(options.items()),
            maximum_concurrent_rpcs=settings.max_connections,
        )
        server.add_insecure_port(f"{settings.url_host}:{settings.grpc_port}")
        await server.start()
        yield server_state
        await server.stop(GRPC_STOP_SECONDS)


class InferenceService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of the protocol and of gRPC's health checking, over the state of the application."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings = settings = cast("Settings", state.settings)
        self._arrivals = asyncio.Semaphore(ARRIVALS), settings.body_timeout_seconds
        self._keyless_arrivals = asyncio.Semaphore(KEYLESS_ARRIVALS), KEYLESS_SECONDS
        self._methods: dict[str, Method] = {
            f"/{SERVICE}/ServerLive": self._server_live,
            f"/{SERVICE}/ServerReady": self._server_ready,
            f"/{SERVICE}/ServerMetadata": self._server_metadata,
            f"/{SERVICE}/RepositoryIndex": self._repository_index,
            f"/{SERVICE}/ModelReady": self._model_ready,
            f"/{SERVICE}/ModelMetadata": self._model_metadata,
            f"/{SERVICE}/ModelInfer": self._model_infer,
            "/grpc.health.v1.Health/Check": self._check,
        }

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Returns what handles a call, or None if there is no such method; called by gRPC."""
        if call.method not in self._methods:
            return None

        async def respond(_messages: object, context: grpc.aio.ServicerContext) -> bytes:
            return await self._respond(call, context)

        return grpc.stream_unary_rpc_method_handler(respond)

    async def _respond(self, call: grpc.HandlerCallDetails, context: grpc.aio.ServicerContext) -> bytes:
        """Returns an encoded message, or ends the call with a code; counts and logs it as HTTP does."""
        start, status = time.perf_counter(), CLIENT_CLOSED_REQUEST
        headers = [
            (name.encode(), value.encode()) for name, value in call.invocation_metadata if isinstance(value, str)
        ]
        token, problem, encoded = request_id.set(identify(headers).decode()), None, b""
        context.set_trailing_metadata((("x-request-id", request_id.get()),))
        self.state.in_progress += 1
        try:
            if self.state.keys:
                self.state.keys.require(call.method, headers)
            content = await self._receive(context, keyless=is_keyless(call.method))
            encoded = (await self._methods[call.method](content)).SerializeToString()
            status = 200
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a code
            problem = counted_problem(error)
            status = problem.status
        finally:
            self.state.in_progress -= 1
            seconds, path, log = time.perf_counter() - start, call.method, self.settings.access_log
            record_request(path, status, seconds, path, method="POST", client=context.peer(), log=log)
            request_id.reset(token)
        if problem:  # no sooner: gRPC keeps what abort raises, and with it the message, until garbage is collected
            await context.abort(CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT), problem.detail)
        return encoded

    async def _receive(self, context: grpc.aio.ServicerContext, *, keyless: bool) -> bytes:
        """Returns the encoded message once it has arrived; methods that need no key do not wait for the others."""
        arrivals, seconds = self._keyless_arrivals if keyless else self._arrivals
        try:
            async with asyncio.timeout(self.settings.max_wait_seconds):
                await arrivals.acquire()
        except TimeoutError:
            raise Overloaded from None
        if arrivals.locked():  # this is the last place, for which others wait; silent calls may have the rest for long
            seconds = min(seconds, self.settings.max_wait_seconds / 2)
        try:
            async with asyncio.timeout(seconds):
                content: bytes = await context.read()
        except TimeoutError:
            raise SlowBody("The message took too long to arrive: send a smaller one, or try again.") from None
        finally:
            arrivals.release()
        if content is grpc.aio.EOF:
            raise InvalidInference("The call has no message: send one.")
        return content

    async def _check(self, content: bytes) -> Any:
        if decode("HealthCheckRequest", content).service not in ("", SERVICE):
            raise UnknownModel(f"There is no such service; there is {SERVICE}.")
        return message("HealthCheckResponse", status="NOT_SERVING" if self.state.readiness.reason else "SERVING")

    async def _server_live(self, _: bytes) -> Any:
        return message("ServerLiveResponse", live=True)

    async def _server_ready(self, _: bytes) -> Any:
        return message("ServerReadyResponse", ready=not self.state.readiness.reason)

    async def _server_metadata(self, _: bytes) -> Any:
        metadata = await v2_metadata.server_metadata()
        return message("ServerMetadataResponse", **metadata.model_dump() | {"extensions": ["classification"]})

    async def _repository_index(self, _: bytes) -> Any:
        models = await v2_metadata.repository_index(self.state.predictors, self.state.readiness)
        return message("RepositoryIndexResponse", models=[model.model_dump() for model in models])

    async def _model_ready(self, content: bytes) -> Any:
        self._find(content)
        return message("ModelReadyResponse", ready=not self.state.readiness.reason)

    async def _model_metadata(self, content: bytes) -> Any:
        metadata = await v2_metadata.model_metadata(self._find(content))
        return message("ModelMetadataResponse", **metadata.model_dump())

    def _find(self, content: bytes) -> Predictor:
        requested = decode("ModelMetadataRequest", content)  # the fields of ModelReadyRequest are the same
        return v2_metadata.find(self.state.predictors, requested.name, requested.version or None)

    async def _model_infer(self, content: bytes) -> Any:
        predictors: Predictors = self.state.predictors
        self.state.admission.queue_of(len(content)).require()
        with self.state.admission.body() as memory:
            memory.add(len(content))
            call = await self._read(content)
            predictor = v2_metadata.find(predictors, call.model, call.version)
            with measure_inference(call.model):
                images = images_of(call.tensors, predictor.card.input)
                outputs = await run_inference(call.requested, images, predictor, predictors.classifier(call.model))
        return response_of(call, predictor.card, outputs)

    async def _read(self, content: bytes) -> InferenceCall:
        """Returns the request; the helper process decodes what may take long, or much more memory than it has bytes."""
        if len(content) <= QUICK_BYTES:
            return read_call(content, self.settings.max_files)
        try:
            call: InferenceCall = await self.state.predictors.decoder.call(read_call, content, self.settings.max_files)
        except CallEnded:
            raise BodyTooLarge("Decoding takes too long or too much memory: send fewer images, or as raw.") from None
        return call
