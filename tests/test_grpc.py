"""The Open Inference Protocol over gRPC, by Triton's own client, in two workers that also serve HTTP."""

import contextlib
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from tritonclient.grpc import service_pb2 as protocol

from app import VERSION
from app.grpc import messages
from app.grpc.server import ARRIVALS, SERVICE
from app.inference.errors import Overloaded
from app.inference.predictor import Predictors
from app.keys import create_key
from app.settings import Settings
from model import CLASSES
from model.preprocessing.fit import squeeze
from tests.pictures import encode, grey_png, random_image, scene, trousers
from tests.servers import ROOT, free_port, is_ready, process, run, serve, service, wait_until

KEY, KEY_LINE = create_key("shop")
WITH_KEY = {"x-api-key": KEY}
CODE = grpc.StatusCode
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""Each a HealthCheckResponse."""
INFER, CHECK = f"/{SERVICE}/ModelInfer", "/grpc.health.v1.Health/Check"
MAX_BYTES = 700_000
IMAGES = np.stack([random_image(seed) for seed in range(5)])
PHOTO = scene("wood")[0]
OUTPUTS = ["log_probs", "logits", "probabilities", "label"]
INPUTS = {
    "fashionnet": {"UINT8": IMAGES, "FP32": IMAGES.astype(np.float32), "BYTES": [grey_png(seed) for seed in range(5)]},
    "fashionnet-photo": {
        "UINT8": squeeze(PHOTO, 224)[None],
        "FP32": squeeze(PHOTO, 224)[None].astype(np.float32),
        "BYTES": [encode(PHOTO, "JPEG"), grey_png()],
    },
}
CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def http(small_data, tmp_path_factory, port) -> Iterator[httpx.Client]:
    """A client for the service, with a key; the service has logged no error at its end."""
    keys = tmp_path_factory.mktemp("grpc") / "keys"
    keys.write_text(KEY_LINE)
    settings = {
        "workers": 2, "grpc_port": port, "api_keys_file": keys, "data_dir": small_data.root, "max_files": 8,
        "max_json_bytes": MAX_BYTES, "queue_size": 2, "body_timeout_seconds": 1, "max_wait_seconds": 0.5,
    }  # fmt: skip
    with service(**settings) as (server, client):
        client.headers.update(WITH_KEY)
        yield client
        server.terminate()
        _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "unexpected error" not in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def inference(http, port) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        wait_until(client.is_server_ready)
        yield client


@pytest.fixture(scope="module")
def channel(http, port) -> Iterator[grpc.Channel]:
    """A channel to one of the workers, which is ready."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait_until(lambda: channel.unary_unary(CHECK)(b"", wait_for_ready=True) == SERVING)
        yield channel


def tensor(values, datatype: str, client=triton):
    values = np.array(values, object) if datatype == "BYTES" else values
    given = client.InferInput("images", list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def infer(channel, request, key: str = KEY, **options) -> protocol.ModelInferResponse:
    """The response to a request, or to its encoding, as any client may send it."""
    content = request if isinstance(request, bytes) else request.SerializeToString()
    call = channel.unary_unary(INFER, response_deserializer=protocol.ModelInferResponse.FromString)
    return call(content, metadata=[("x-api-key", key)], **options)


def failure(channel, request, **options) -> tuple[grpc.StatusCode, str]:
    """The code and the details with which a call ends."""
    try:
        infer(channel, request, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return CODE.OK, ""


def raw(**fields) -> protocol.ModelInferRequest:
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}
    default = {"model_name": "fashionnet", "inputs": [image], "raw_input_contents": [IMAGES[0].tobytes()]}
    return protocol.ModelInferRequest(**default | fields)


def typed(**image) -> protocol.ModelInferRequest:
    contents = {"uint_contents": IMAGES[0].ravel().tolist()}
    default = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "contents": contents}
    return raw(inputs=[default | image], raw_input_contents=[])


def test_health_and_metadata_are_those_of_http(http, inference):
    assert inference.is_server_live()
    assert inference.is_server_ready()
    server = inference.get_server_metadata(WITH_KEY, as_json=True)
    assert server == {"name": "fashionnet", "version": VERSION, "extensions": ["classification"]}
    index = inference.get_model_repository_index(WITH_KEY, as_json=True)["models"]
    assert [model | {"reason": ""} for model in index] == http.post("/v2/repository/index").json()
    for name, version in ((model["name"], model["version"]) for model in index):
        assert inference.is_model_ready(name, version, WITH_KEY)
        metadata, expected = (
            inference.get_model_metadata(name, version, WITH_KEY),
            http.get(f"/v2/models/{name}").json(),
        )
        assert (metadata.name, metadata.versions, metadata.platform) == (name, [version], expected["platform"])
        described = [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
                     for each in (*metadata.inputs, *metadata.outputs)]  # fmt: skip
        assert described == expected["inputs"] + expected["outputs"]


def test_the_health_check_of_grpc_needs_no_key(channel):
    check = channel.unary_unary(CHECK)
    for name in (b"", SERVICE.encode()):
        assert check(b"\x0a" + bytes([len(name)]) + name) == SERVING
    with pytest.raises(grpc.RpcError, match="There is no such service") as error:
        check(b"\x0a\x01x")
    assert error.value.code() == CODE.NOT_FOUND


@pytest.mark.parametrize("datatype", CONTENTS)
@pytest.mark.parametrize("model", INPUTS)
def test_raw_and_typed_contents_get_what_http_answers(http, inference, channel, model, datatype):
    values = INPUTS[model][datatype]
    with triton_http.InferenceServerClient(f"127.0.0.1:{http.base_url.port}") as client:
        expected = client.infer(model, [tensor(values, datatype, triton_http)], headers=dict(WITH_KEY))
    result = inference.infer(model, [tensor(values, datatype)], headers=WITH_KEY)
    flat = values if datatype == "BYTES" else values.ravel().tolist()
    request = typed(datatype=datatype, shape=np.shape(values), contents={CONTENTS[datatype]: flat})
    request.model_name = model
    response = infer(channel, request)
    assert not response.raw_output_contents
    for name, output in zip(OUTPUTS, response.outputs, strict=True):
        assert_same(result.as_numpy(name), expected.as_numpy(name))
        found = np.array(output.contents.bytes_contents or output.contents.fp32_contents, result.as_numpy(name).dtype)
        assert_same(found.reshape(list(output.shape)), expected.as_numpy(name))


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_requested_outputs_and_the_identifiers_come_back(inference, compression):
    wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probabilities", class_count=2)]
    result = inference.infer(
        "fashionnet", [tensor(IMAGES, "UINT8")], outputs=wanted, request_id="mine", headers=WITH_KEY,
        compression_algorithm=compression,
    )  # fmt: skip
    response = result.get_response()
    assert [output.name for output in response.outputs] == ["label", "probabilities"]
    assert (response.id, response.model_name) == ("mine", "fashionnet")
    best = [cell.decode().split(":") for cell in result.as_numpy("probabilities")[:, 0]]
    assert [CLASSES[int(index)] for _, index, _ in best] == [label.decode() for label in result.as_numpy("label")]


@pytest.mark.parametrize(("method", "code"), [("ServerLive", CODE.OK), ("ModelReady", CODE.UNAUTHENTICATED)])
def test_a_call_has_the_identifier_of_its_request(channel, method, code):
    ended = channel.unary_unary(f"/{SERVICE}/{method}").future(b"", metadata=[("x-request-id", "mine")])
    assert ended.code() == code
    assert ("x-request-id", "mine") in ended.trailing_metadata()


BAD = {
    "no message": (b"\xff", CODE.INVALID_ARGUMENT, "This is not a ModelInferRequest"),
    "no model": (b"", CODE.NOT_FOUND, "There is no model ''"),
    "no input": (raw(inputs=[], raw_input_contents=[]), CODE.INVALID_ARGUMENT, "The one input is 'images'"),
    "model": (raw(model_name="nonsense"), CODE.NOT_FOUND, "There is no model 'nonsense'"),
    "version": (raw(model_version="1"), CODE.NOT_FOUND, "There is no version '1'"),
    "too few bytes": (raw(raw_input_contents=[b"1"]), CODE.INVALID_ARGUMENT, "1 bytes are not a UINT8 tensor"),
    "too many tensors": (raw(raw_input_contents=[b"1", b"2"]), CODE.INVALID_ARGUMENT, "does not fit the inputs"),
    "both forms": (typed(), CODE.INVALID_ARGUMENT, "does not fit the inputs"),
    "no contents": (raw(raw_input_contents=[]), CODE.INVALID_ARGUMENT, "0 values are not a tensor"),
    "negative": (typed(shape=[-1, 28, 28]), CODE.INVALID_ARGUMENT, "negative dimension"),
    "huge": (typed(shape=[1, 2**62, 2**62]), CODE.INVALID_ARGUMENT, "is too large"),
    "too many images": (typed(shape=[2**40, 28, 28]), CODE.INVALID_ARGUMENT, "The limit is 8 images"),
    "other shape": (typed(shape=[2, 392]), CODE.INVALID_ARGUMENT, "is neither"),
    "many dimensions": (typed(shape=[1] * 9), CODE.INVALID_ARGUMENT, "inputs.0.shape"),
    "no datatype": (typed(datatype="UINT9"), CODE.INVALID_ARGUMENT, "not 'UINT9'"),
    "range": (typed(contents={"uint_contents": [300] * 784}), CODE.INVALID_ARGUMENT, "that fit into UINT8"),
    "other name": (typed(name="pixels"), CODE.INVALID_ARGUMENT, "The one input is 'images'"),
    "two inputs of one name": (
        raw(inputs=raw().inputs[:] * 2, raw_input_contents=[bytes(784)] * 2), CODE.INVALID_ARGUMENT,
        "Two inputs have the same name",
    ),
    "long name": (typed(name="x" * 20_000, contents={}), CODE.INVALID_ARGUMENT, "inputs.0.name"),
    "many inputs": (raw(inputs=[{}] * 9), CODE.INVALID_ARGUMENT, "does not fit the inputs"),
    "output": (raw(outputs=[{"name": "mood"}]), CODE.INVALID_ARGUMENT, "There is no output 'mood'"),
    "picture": (
        typed(datatype="BYTES", shape=[1], contents={"bytes_contents": [encode(trousers())[:200]]}),
        CODE.INVALID_ARGUMENT, "",
    ),
    "no key": (raw(), CODE.UNAUTHENTICATED, "The API key is unknown"),
}  # fmt: skip
"""A request, the code with which it ends, and words of the details."""
BAD["both forms"][0].raw_input_contents.append(bytes(784))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_has_its_code_and_a_sentence(channel, name):
    request, code, words = BAD[name]
    found, details = failure(channel, request, **({"key": "x"} if name == "no key" else {}))
    assert found == code
    assert words in details
    assert re.fullmatch(r"[A-Zir].{9,}[^.]\.?", details), "one sentence"
    assert failure(channel, raw()) == (CODE.OK, "")


def test_a_key_comes_in_either_header_and_all_but_health_needs_one(inference):
    assert inference.is_model_ready("fashionnet", headers={"authorization": f"Bearer {KEY}"})
    calls = [inference.get_server_metadata, inference.get_model_repository_index]
    calls += [lambda: inference.is_model_ready("fashionnet"), lambda: inference.get_model_metadata("fashionnet")]
    for call in calls:
        with pytest.raises(triton.InferenceServerException, match=r"UNAUTHENTICATED.*The request has no API key"):
            call()


@pytest.fixture
def grown(channel, port):
    """Returns by how many bytes the peak of memory of the workers has risen since the first large messages."""
    for _ in range(16):
        failure(channel, raw(raw_input_contents=[bytes(MAX_BYTES - 1000)]))

    def peak() -> int:
        listening = [one.pid for one in psutil.net_connections("tcp") if one.laddr.port == port and not one.raddr]
        status = [Path(f"/proc/{pid}/status").read_text() for pid in listening]
        assert len(status) == 2
        return 1024 * sum(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) for text in status)

    before = peak()
    return lambda: peak() - before


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_takes_no_memory(channel, grown, compression):
    request = raw(raw_input_contents=[bytes(60 * MAX_BYTES)])
    code, details = failure(channel, request, compression=compression)
    assert code == CODE.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    assert grown() < 20 * MAX_BYTES


def test_messages_that_were_rejected_are_forgotten_at_once(channel, grown):
    request = raw(raw_input_contents=[bytes(MAX_BYTES - 1000)])
    assert {failure(channel, request)[0] for _ in range(100)} == {CODE.INVALID_ARGUMENT}
    assert grown() < 20 * MAX_BYTES


@pytest.mark.parametrize("field", [b"\x2a\x00", b"\x32\x00", b"\x3a\x00"], ids=["inputs", "outputs", "contents"])
def test_many_empty_fields_take_little_memory(channel, grown, field):
    assert failure(channel, raw().SerializeToString() + field * 250_000)[0] == CODE.INVALID_ARGUMENT
    assert grown() < 20 * MAX_BYTES


def test_messages_that_do_not_come_end_their_calls_and_keep_few_others_waiting(channel):
    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    calls = [channel.stream_unary(INFER).future(silence(), metadata=[("x-api-key", KEY)]) for _ in range(ARRIVALS + 4)]
    ends = [(call.code(), call.details()) for call in calls]
    late = (CODE.DEADLINE_EXCEEDED, "The message took too long to arrive: send a smaller one, or try again.")
    assert set(ends) == {late, (CODE.RESOURCE_EXHAUSTED, str(Overloaded()))}
    assert ends.count(late) >= ARRIVALS
    over.set()


def test_silent_calls_without_a_key_end_soon_and_keep_no_other_waiting(channel):
    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    silent = [channel.stream_unary(CHECK).future(silence()) for _ in range(ARRIVALS)]
    start = time.monotonic()
    assert channel.unary_unary(CHECK)(b"") == b"\x08\x01", "the service is healthy"
    assert [call.code() for call in silent] == [CODE.DEADLINE_EXCEEDED] * ARRIVALS
    assert time.monotonic() - start < 10
    over.set()


@pytest.fixture
def bounded(small_data, monkeypatch) -> Iterator[tuple[httpx.Client, int]]:
    """A client for a service with few connections in this process, and its port for gRPC."""
    monkeypatch.setattr("app.grpc.server.SETTLE_SECONDS", 1)
    settings = Settings(data_dir=small_data.root, workers=1, grpc_port=free_port(), max_connections=ARRIVALS + 2)
    with serve(settings) as client:
        yield client, settings.grpc_port


def test_silent_calls_leave_a_place_to_others_and_their_number_is_limited(bounded):
    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{bounded[1]}") as channel:
        assert failure(channel, raw()) == (CODE.OK, "")
        silent = [channel.stream_unary(INFER).future(silence()) for _ in range(ARRIVALS)]
        time.sleep(0.1)
        for _ in range(10):
            assert failure(channel, raw()) == (CODE.OK, "")
        assert sum(call.done() for call in silent) == 1, "the one that had the last place"
        silent += [channel.stream_unary(INFER).future(silence()) for _ in range(ARRIVALS)]
        wait_until(lambda: any(call.done() and "Concurrent RPC limit" in call.details() for call in silent))
        over.set()
        wait_until(lambda: failure(channel, raw()) == (CODE.OK, ""))


def received(connection: socket.socket) -> bytes:
    """What a server sends before it closes the connection."""
    connection.settimeout(10)
    return b"".join(iter(lambda: connection.recv(1000), b""))


def test_connections_are_limited_and_silent_ones_are_closed(bounded):
    http, port = bounded
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(ARRIVALS + 3)]
        *kept, excess = sorted(map(received, silent), key=len, reverse=True)
        assert excess == b"", "closed at once"
        assert all(content.endswith(b"settings_timeout") for content in kept)
        assert all(b"\x00\x03\x00\x00\x00\x64" in content for content in kept), "at most 100 streams"
    assert http.get("/health/live").status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert failure(channel, raw()) == (CODE.OK, "")


def test_connections_leave_files_to_http():
    code = "import resource; _, most = resource.getrlimit(resource.RLIMIT_NOFILE); "
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most)); from app.__main__ import main; main([])"
    ports = [free_port(), free_port()]
    environment = dict(zip(("FASHIONNET_PORT", "FASHIONNET_GRPC_PORT"), map(str, ports), strict=True))
    with process("-c", code, FASHIONNET_WORKERS="1", **environment) as server, contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=5))
        http.headers["connection"] = "close"
        wait_until(lambda: is_ready(http))
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", ports[1])))
        time.sleep(0.5)
        for _ in range(10):
            assert http.get("/health/live").status_code == 200
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
    assert "allows 8 connections instead of 1000 over HTTP and gRPC each" in log
    assert "Traceback" not in log


def test_a_call_without_a_message_is_invalid(channel):
    call = channel.stream_unary(INFER).future(iter(()), metadata=[("x-api-key", KEY)])
    assert (call.code(), call.details()) == (CODE.INVALID_ARGUMENT, "The call has no message: send one.")


def test_a_deadline_of_the_client_ends_a_call(channel):
    photos = raw(model_name="fashionnet-photo")
    photos.inputs[0].shape[:] = [16, 224, 224, 3]
    photos.raw_input_contents[:] = [bytes(16 * 224 * 224 * 3)]
    assert failure(channel, photos, timeout=0.01)[0] == CODE.DEADLINE_EXCEEDED


def test_calls_that_would_wait_too_long_are_rejected(channel):
    photo = raw(model_name="fashionnet-photo")
    photo.inputs[0].shape[:] = [1, 224, 224, 3]
    photo.raw_input_contents[:] = [bytes(224 * 224 * 3)]
    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(lambda _: failure(channel, photo), range(48)))
    assert {code for code, _ in ends} == {CODE.OK, CODE.RESOURCE_EXHAUSTED}
    assert all("try again in" in details for code, details in ends if code != CODE.OK)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A message with some of its bytes changed, removed or repeated."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(changed), 60) or 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 9)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 9))
            case _:
                changed[at:at] = changed[at : at + 30]
    return bytes(changed)


def test_mutated_requests_never_end_with_an_unforeseen_error(channel):
    rng = random.Random(4)  # noqa: S311 - nothing here is a secret
    seeds = [raw(), typed(), raw(outputs=[{"name": "logits", "parameters": {"classification": {"int64_param": 2}}}]),
             typed(datatype="BYTES", shape=[1], contents={"bytes_contents": [grey_png()]})]  # fmt: skip
    codes = {failure(channel, mutated(rng.choice(seeds).SerializeToString(), rng))[0] for _ in range(400)}
    assert {CODE.OK, CODE.INVALID_ARGUMENT} <= codes <= {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND}


def test_the_metrics_have_the_calls(http, channel):
    infer(channel, raw())
    wait_until(lambda: f'route="{INFER}",status="200"' in http.get("/metrics").text)
    assert f'route="{INFER}",status="404"' in http.get("/metrics").text


def test_after_a_failed_self_test_predictions_are_answered_as_over_http(small_data, monkeypatch):
    async def fail(_predictors) -> None:
        raise RuntimeError

    monkeypatch.setattr(Predictors, "self_test", fail)
    port = free_port()
    settings = Settings(data_dir=small_data.root, workers=1, grpc_port=port)
    with serve(settings, ready=False) as client, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait_until(lambda: "self-test inference failed" in client.get("/health/ready").text)
        assert channel.unary_unary(CHECK)(b"") == NOT_SERVING
        assert client.post("/predict", files={"file": grey_png()}).status_code == 200
        assert failure(channel, raw()) == (CODE.OK, "")


def test_a_stop_answers_the_calls_that_have_begun(small_data):
    """One worker; the message of one call is sent only when the service stops already."""
    port, go = free_port(), threading.Event()

    def late() -> Iterator[bytes]:
        go.wait(20)
        yield raw().SerializeToString()

    environment = {"PORT": str(free_port()), "GRPC_PORT": str(port), "WORKERS": "1", "ACCESS_LOG": "true"}
    environment = {f"FASHIONNET_{name}": value for name, value in environment.items()}
    with process("-m", "app", **environment) as server, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait_until(lambda: channel.unary_unary(CHECK)(b"", wait_for_ready=True) == SERVING)
        begun = channel.stream_unary(INFER).future(late())
        codes = [CODE.OK]

        def load() -> None:
            while codes[-1] == CODE.OK:
                codes.append(failure(channel, raw())[0])

        loading = threading.Thread(target=load)
        loading.start()
        wait_until(lambda: len(codes) > 20)
        server.send_signal(signal.SIGTERM)
        loading.join(60)
        go.set()
        assert begun.code() == CODE.OK
        assert protocol.ModelInferResponse.FromString(begun.result()).model_name == "fashionnet"
        _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    assert codes[-1] in (CODE.UNAVAILABLE, CODE.CANCELLED), "gRPC cancels what arrives when it stops already"
    assert re.search(rf"POST {INFER} 200 in [\d.]+ ms for ipv4:127\.0\.0\.1:\d+ \[\w+\]", log)
    assert CHECK not in log
    # gRPC itself prints this of a call that arrived last and that it has cancelled.
    of_cancelled = r'Traceback .*\n  File ".*", line \d+, in .*\._schedule_rpc_coro\n.*CancelledError\n'
    assert "Traceback" not in re.sub(of_cancelled, "", log)


def test_a_port_in_use_is_named_with_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_port = str(taken.getsockname()[1])
        done = run("-m", "app", FASHIONNET_GRPC_PORT=taken_port, FASHIONNET_PORT=str(free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fashionnet: Port {taken_port} on 127.0.0.1 is in use: ")
    assert done.stderr.endswith("or choose another port by --grpc-port or FASHIONNET_GRPC_PORT.\n")


def test_the_compiled_messages_are_those_of_the_file(tmp_path):
    folder, compiled = ROOT / "app/grpc", tmp_path / "messages.binpb"
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", "open_inference.proto"]) == 0
    assert compiled.read_bytes() == (folder / "messages.binpb").read_bytes()


def fields(message: Descriptor) -> dict[str, tuple]:
    kinds = {each.name: each.message_type and each.message_type.full_name for each in message.fields}
    return {each.name: (each.number, each.type, each.is_repeated, kinds[each.name]) for each in message.fields}


def test_the_messages_are_those_of_the_protocol():
    (file,) = FileDescriptorSet.FromString((ROOT / "app/grpc/messages.binpb").read_bytes()).file
    names = [message.name for message in file.message_type if not message.name.startswith("Health")]
    assert len(names) > 10
    for name in names:
        own, theirs = messages.message(name).DESCRIPTOR, protocol.DESCRIPTOR.message_types_by_name[name]
        assert fields(own).items() <= fields(theirs).items()
        for nested in own.nested_types:
            assert fields(nested).items() <= fields(theirs.nested_types_by_name[nested.name]).items()
