"""The same network behind other servers, beside ours: throughput, latency, CPU time, memory, start, size.

Each contender runs in an environment of its own (made with uv, kept in --environments), in the best configuration
that its documentation offers for two cores. In turns: start, first right answer, warm-up, closed loop at 1, 16 and 64
connections. What each answers is compared with ours. benchmarks/overload.py measures ours past saturation.

    apt install wrk && pip install uv psutil
    python benchmarks/serving.py --write benchmarks/results/serving
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

from benchmarks.load import Outcome, Request, closed_loop
from benchmarks.report import add_write, machine, table, write
from model import (
    CLASSES,
    WEIGHTS,
    classify,
    create_engine,
    load_artifact,
    preprocess,
)
from model.prediction import run_pictures

ROOT = Path(__file__).parent.parent
PORT = 8300
CONNECTIONS = (1, 16, 64)
PHOTO_CONNECTIONS = 4
FIGURES = ("rate", "p50", "p95", "p99", "cpu_ms", "errors", "refused")
TORCH = ("torch>=2.14,<2.15", "safetensors>=0.8", "pillow>=13", "numpy>=2.2")
SIZE = 28
MARK = "BENCHMARK_CONTENDER"


@dataclass(frozen=True)
class Contender:
    """One server: what it needs, how it starts."""

    name: str
    what: str
    command: tuple[str, ...]
    requirements: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    environment: str = ""
    """Name of another contender that has the same environment."""


CONTENDERS = (
    Contender(
        "fashionnet", "ours, the defaults: a worker a core", ("-m", "app"), ("-r", "requirements/serve.txt"),
        {"FASHIONNET_PORT": "{port}"},
    ),
    Contender(
        "fashionnet-fp32", "ours in full precision", ("-m", "app"), ("-r", "requirements/serve.txt"),
        {"FASHIONNET_PORT": "{port}", "FASHIONNET_ENGINE": "onnx"},
    ),
    Contender(
        "fashionnet-uvicorn", "ours under plain uvicorn, whose workers load everything themselves",
        ("-m", "uvicorn", "--factory", "app.main:create_app", "--workers", "2", "--no-access-log", "--port", "{port}"),
        ("-r", "requirements/serve.txt"), environment="fashionnet",
    ),
    Contender(
        "floor", "bare Starlette: reads the form, answers a constant; 2 workers",
        ("-m", "uvicorn", "benchmarks.contenders.floor:app", "--workers", "2", "--no-access-log", "--port", "{port}"),
        ("starlette>=1.10", "uvicorn[standard]>=0.54", "python-multipart>=0.0.34"),
    ),
    Contender(
        "naive", "hand-written FastAPI with torch, async def, 2 workers of one thread, no access log",
        ("-m", "uvicorn", "benchmarks.contenders.naive:app", "--workers", "2", "--no-access-log", "--port", "{port}"),
        (*TORCH, "fastapi>=0.165", "uvicorn[standard]>=0.54", "python-multipart>=0.0.34"),
        {"OMP_NUM_THREADS": "1"},
    ),
    Contender(
        "litserve", "2 workers, batches of 16 in 2 ms, 2 API servers, fast queue",
        ("-m", "benchmarks.contenders.lit"), (*TORCH, "litserve==0.2.19", "python-multipart", "pyzmq"),
        {"OMP_NUM_THREADS": "1", "PORT": "{port}"},
    ),
    Contender(
        "bentoml", "2 workers, no access log",
        ("-m", "bentoml", "serve", "benchmarks.contenders.bento:FashionNet", "--port", "{port}"),
        (*TORCH, "bentoml==1.4.39"), {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true"},
    ),
    Contender(
        "rayserve", "2 replicas, batches of 16 in 2 ms, throughput mode with HAProxy",
        ("-m", "benchmarks.contenders.rayserve",), (*TORCH, "ray[serve]==2.60.0", "python-multipart"),
        {
            "OMP_NUM_THREADS": "1", "PORT": "{port}", "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0",
        },
    ),
    Contender(
        "mlserver", "V2 JSON of pixels, our ONNX graph, adaptive batching of 16 in 2 ms",
        ("-m", "benchmarks.contenders.ml"), ("mlserver==1.7.1", "onnxruntime>=1.23", "numpy"),
        {"PORT": "{port}"}, path="/v2/models/fashionnet/infer",
    ),
)  # fmt: skip


def picture() -> bytes:
    """The drawn example shirt as a 28x28 grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(preprocess((ROOT / "examples" / "shirt.png").read_bytes()).image).save(buffer, "PNG")
    return buffer.getvalue()


def photo() -> bytes:
    """Returns a photo as phones take them: the drawn shirt on a table, 3000x4000 pixels, as JPEG."""
    rng = np.random.default_rng(0)
    table = Image.fromarray(rng.integers(90, 150, (100, 75, 3), np.uint8)).resize(
        (3000, 4000), Image.Resampling.BICUBIC
    )
    with Image.open(ROOT / "examples" / "shirt.png") as drawing:
        shirt = drawing.convert("L").resize((2000, 2000))
    table.paste((70, 40, 60), (500, 1000), shirt.point(lambda value: 255 if value < 250 else 0))
    buffer = io.BytesIO()
    table.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def request_for(contender: Contender, content: bytes) -> Request:
    """The picture as the contender takes it: a multipart form, or V2 JSON."""
    if contender.path.startswith("/v2"):
        pixels = preprocess(content).image.ravel().tolist()
        tensor = {"name": "images", "shape": [1, SIZE, SIZE], "datatype": "UINT8", "data": pixels}
        return Request(contender.path, "application/json", json.dumps({"inputs": [tensor]}).encode())
    head = (
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="shirt.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    return Request(contender.path, "multipart/form-data; boundary=X", head + content + b"\r\n--X--\r\n")


def environment(contender: Contender, folder: Path) -> Path:
    """Returns the Python of the contender's environment, which is made if it is not there yet."""
    home = folder / (contender.environment or contender.name)
    if not (home / "made").exists():
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", "3.11", str(home)], check=True)
        # With byte code, as pip leaves it: without, half of a start would be the compiling of sources.
        install = ["uv", "pip", "install", "-q", "--compile-bytecode", "--python", str(home / "bin" / "python")]
        subprocess.run([*install, *contender.requirements], cwd=ROOT, check=True)
        (home / "made").touch()
    return home / "bin" / "python"


class Server(NamedTuple):
    """One that runs; all its processes have the contender's name in their environment."""

    process: psutil.Process
    name: str


@contextlib.contextmanager
def running(
    contender: Contender, python: Path, content: bytes, port: int = PORT
) -> Iterator[tuple[Server, float, dict[str, float]]]:
    """The contender's server; its process, the seconds to its first right answer, and that answer's probabilities."""
    require_free(port)
    fill = {name: value.format(port=port) for name, value in contender.variables.items()}
    ours = {MARK: contender.name, "PYTHONPATH": str(ROOT), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    variables = os.environ | ours | fill
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # a start with byte code, as on any other machine
    command = [str(python), *(part.format(port=port) for part in contender.command)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            answer = first_answer(contender, content, server, port)
            yield Server(psutil.Process(server.pid), contender.name), time.perf_counter() - start, answer
        except Exception:
            log.seek(0)
            print(log.read()[-2000:].decode(errors="replace"), file=sys.stderr)
            raise
        finally:
            stop(Server(psutil.Process(server.pid), contender.name))


def require_free(port: int) -> None:
    """Raise RuntimeError where something listens already: it would be measured in the contender's place."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        raise RuntimeError(f"something listens on port {port} already: end it first")


def stop(server: Server) -> None:
    """End the server and everything that it started."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        tree = family(server)  # anew: what is told to end may begin something first
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal_)
        psutil.wait_procs(tree, timeout=10)


def first_answer(
    contender: Contender, content: bytes, server: "subprocess.Popen[bytes]", port: int
) -> dict[str, float]:
    """Ask until there is an answer: the probabilities by class; empty for a constant."""
    request = request_for(contender, content)
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"{contender.name} ended with {server.returncode}")
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection,
        ):
            connection.request("POST", request.path, request.body, {"Content-Type": request.content_type})
            response = connection.getresponse()
            if response.status == 200:
                return probabilities_of(json.loads(response.read()))
        time.sleep(0.01)
    raise RuntimeError(f"{contender.name} did not answer")


def probabilities_of(answer: dict[str, Any]) -> dict[str, float]:
    """Any contender's answer -> probabilities by class."""
    if "outputs" in answer:
        return dict(zip(CLASSES, np.exp(answer["outputs"][0]["data"]).tolist(), strict=True))
    return dict(answer.get("probabilities", {}))


def cpu_seconds(server: Server) -> float:
    """User and system time of the server and all that it started."""
    total = 0.0
    for process in family(server):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def family(server: Server) -> list[psutil.Process]:
    """The server, what it detached (Ray's daemons; known by the mark in their environment), and all their children."""
    environments = psutil.process_iter(["environ"])
    marked = [process for process in environments if (process.info["environ"] or {}).get(MARK) == server.name]
    members: dict[int, psutil.Process] = {}
    for process in (server.process, *marked):
        with contextlib.suppress(psutil.NoSuchProcess):
            members |= {process.pid: process} | {child.pid: child for child in process.children(recursive=True)}
    return list(members.values())


def memory(server: Server) -> tuple[float, float, int]:
    """Proportional set size in MB: of all processes, of the largest; and their number."""
    sizes = [process.memory_full_info().pss / 1e6 for process in family(server) if process.is_running()]
    return sum(sizes), max(sizes), len(sizes)


def probe() -> float:
    """Milliseconds of a fixed loop: how fast the machine is at this moment."""
    start = time.perf_counter()
    sum(number * number for number in range(300_000))
    return (time.perf_counter() - start) * 1000


class Cost(NamedTuple):
    """What came of a closed loop, and the CPU time of all the server's processes, in ms a good answer."""

    outcome: Outcome
    cpu_ms: float


def cost(server: Server, request: Request, port: int, connections: int, seconds: float) -> Cost:
    """One closed loop."""
    before = cpu_seconds(server)
    outcome = closed_loop(request, port, connections, seconds)
    return Cost(outcome, (cpu_seconds(server) - before) / max(outcome.answered, 1) * 1000)


def measure(contender: Contender, python: Path, content: bytes, seconds: float) -> dict[str, Any]:
    """One round of one contender."""
    request, speed = request_for(contender, content), probe()
    with running(contender, python, content) as (server, start, answer):
        closed_loop(request, PORT, 16, 3)
        rows = {}
        for connections in CONNECTIONS:
            outcome, cpu_ms = cost(server, request, PORT, connections, seconds)
            rows[connections] = asdict(outcome) | {"rate": outcome.rate, "cpu_ms": cpu_ms}
        photos = measure_photos(contender, server, seconds)
        total, largest, processes = memory(server)
    return {
        "name": contender.name, "probe_ms": speed, "start_s": start, "probabilities": answer, "closed": rows,
        "pss_mb": total, "largest_pss_mb": largest, "processes": processes, "photos": photos,
    }  # fmt: skip


def measure_photos(contender: Contender, server: Server, seconds: float) -> dict[str, float] | None:
    """Returns the figures of a photo; None for the peers, which take pictures of 28x28 pixels only."""
    if not contender.name.startswith("fashionnet"):
        return None
    request = request_for(contender, photo())
    closed_loop(request, PORT, PHOTO_CONNECTIONS, 2)
    outcome, cpu_ms = cost(server, request, PORT, PHOTO_CONNECTIONS, seconds)
    return asdict(outcome) | {"rate": outcome.rate, "cpu_ms": cpu_ms}


def beside_bare(pythons: dict[str, Path], content: bytes, turns: int = 20) -> dict[int, list[float]]:
    """CPU time a request of ours over the bare reader's, by connections: both up, in turns of a second.

    Between longer ones the machine's own speed changes by more than what is to be seen.
    """
    ours, bare = CONTENDERS[0], next(contender for contender in CONTENDERS if contender.name == "floor")
    with contextlib.ExitStack() as stack:
        servers = [
            (stack.enter_context(running(one, pythons[one.name], content, port))[0], request_for(one, content), port)
            for one, port in ((ours, PORT), (bare, PORT + 1))
        ]
        for _, request, port in servers:
            closed_loop(request, port, 16, 3)
        found: dict[int, list[float]] = {}
        for connections in CONNECTIONS[1:]:
            for _ in range(turns):
                mine, its = (cost(*server, connections, 1).cpu_ms for server in servers)
                found.setdefault(connections, []).append(mine / its)
    return found


def beside_naive(pythons: dict[str, Path], content: bytes, turns: int = 7) -> list[float]:
    """Seconds to the first answer of ours over those of plain FastAPI with torch, started in turns."""
    ours, naive = CONTENDERS[0], next(contender for contender in CONTENDERS if contender.name == "naive")
    found = []
    for _ in range(turns):
        mine, its = (start_of(one, pythons[one.name], content) for one in (ours, naive))
        found.append(mine / its)
    return found


def start_of(contender: Contender, python: Path, content: bytes) -> float:
    """Seconds to the first right answer."""
    with running(contender, python, content) as (_, seconds, _):
        return seconds


def installed_mb(home: Path) -> float:
    """The disk that an environment takes, in MB."""
    return sum(file.lstat().st_blocks * 512 for file in home.rglob("*") if file.is_file()) / 1e6


def disagreement(answer: dict[str, float], content: bytes) -> float | None:
    """The largest difference of a probability to our engine's in full precision; None for a constant."""
    artifact = load_artifact(WEIGHTS, "fashionnet")
    picture = preprocess(content)
    finding = next(run_pictures(create_engine("onnx", artifact), [picture]))
    expected = classify(finding, artifact.card, picture).probabilities
    return max(abs(answer[label] - expected[label]) for label in CLASSES) if answer else None


def summary(rounds: list[dict[str, Any]], content: bytes) -> dict[str, Any]:
    """The medians of one contender's rounds."""

    def middle(pick: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(pick(round_) for round_ in rounds)

    closed = {
        c: {key: middle(lambda r, c=c, key=key: r["closed"][c][key]) for key in FIGURES}
        for c in CONNECTIONS
    }  # fmt: skip
    return {
        "name": rounds[0]["name"], "closed": closed, "start_s": middle(lambda r: r["start_s"]),
        "pss_mb": middle(lambda r: r["pss_mb"]), "largest_pss_mb": middle(lambda r: r["largest_pss_mb"]),
        "photos": rounds[0]["photos"] and {key: middle(lambda r, key=key: r["photos"][key]) for key in FIGURES},
        "processes": rounds[0]["processes"], "probe_ms": middle(lambda r: r["probe_ms"]),
        "disagreement": disagreement(rounds[0]["probabilities"], content),
    }  # fmt: skip


COLUMNS = (
    "server", "c=1 req/s", "p50 / p99 ms", "c=16 req/s", "p50 / p99 ms", "CPU ms", "c=64 req/s", "p50 / p99 ms",
    "CPU ms", "errors", "start s", "PSS MB (processes)", "largest", "installed MB", "differs by",
)  # fmt: skip


def report(result: dict[str, Any]) -> str:
    """Markdown."""
    rows = []
    for row in result["contenders"]:
        one, some, many = (row["closed"][c] for c in CONNECTIONS)
        errors = sum(row["closed"][c]["errors"] + row["closed"][c]["refused"] for c in CONNECTIONS)
        differs = "constant" if row["disagreement"] is None else f"{row['disagreement']:.4f}"
        rows.append(
            (
                row["name"], f"{one['rate']:,.0f}", f"{one['p50']:.1f} / {one['p99']:.1f}",
                f"{some['rate']:,.0f}", f"{some['p50']:.1f} / {some['p99']:.1f}", f"{some['cpu_ms']:.2f}",
                f"{many['rate']:,.0f}", f"{many['p50']:.1f} / {many['p99']:.1f}", f"{many['cpu_ms']:.2f}",
                f"{errors:.0f}", f"{row['start_s']:.1f}", f"{row['pss_mb']:.0f} ({row['processes']})",
                f"{row['largest_pss_mb']:.0f}", f"{row['installed_mb']:,.0f}", differs,
            )
        )  # fmt: skip
    photos = [
        (row["name"], f"{found['rate']:.1f}", f"{found['p50']:.0f} / {found['p99']:.0f}", f"{found['cpu_ms']:.0f}")
        for row in result["contenders"]
        if (found := row["photos"])
    ]
    lines = [
        "A 28x28 grey PNG of 400 bytes.",
        "",
        table(COLUMNS, rows),
        "",
        "A photo of 3000x4000 pixels (JPEG), 4 connections; the peers take pictures of 28x28 pixels only.",
        "",
        table(("server", "photos/s", "p50 / p99 ms", "CPU ms"), photos),
    ]
    lines += ["", *(f"- {c.name}: {c.what}" for c in CONTENDERS if c.name in {r["name"] for r in result["contenders"]})]
    if result["failed"]:
        lines += ["", *(f"- {name} could not be measured: {why}" for name, why in result["failed"].items())]
    lines += ["", *ratios(result), ""]
    return "\n".join(lines) + "\n\n" + result["method"] + "\n"


def ratios(result: dict[str, Any]) -> list[str]:
    """What the comparison comes to."""
    rows = {row["name"]: row for row in result["contenders"]}
    peers = [row for name, row in rows.items() if not name.startswith(("fashionnet", "floor"))]
    lines = []
    if "fashionnet" in rows and peers:
        lines += [against(rows, peers, connections) for connections in CONNECTIONS[1:]]
    if result["beside_naive"]:
        low, middle, high = statistics.quantiles(result["beside_naive"], n=4)
        lines.append(
            f"Ready in {middle:.2f} of the time of plain FastAPI with torch (quartiles {low:.2f} and {high:.2f} of "
            f"{len(result['beside_naive'])} starts of both in turns)."
        )
    return lines + [beside_line(connections, found) for connections, found in result["beside_bare"].items()]


def beside_line(connections: int, found: list[float]) -> str:
    """Ours beside the bare reader."""
    low, middle, high = statistics.quantiles(found, n=4)
    return (
        f"At {connections} connections {middle:.2f} times the bare reader's CPU time a request (quartiles {low:.2f} "
        f"and {high:.2f} of {len(found)} turns of a second, both servers up)."
    )


def against(rows: dict[str, Any], peers: list[dict[str, Any]], connections: int) -> str:
    """Ours beside the best peer, each figure's own."""
    mine = rows["fashionnet"]["closed"][connections]
    best = max(peers, key=lambda row: row["closed"][connections]["rate"])
    quick, lean = (min(peers, key=lambda row: row["closed"][connections][key]) for key in ("p99", "cpu_ms"))
    return (
        f"At {connections} connections: {mine['rate'] / best['closed'][connections]['rate']:.2f} times the throughput "
        f"of the best peer ({best['name']}), {mine['p99'] / quick['closed'][connections]['p99']:.2f} of the lowest p99 "
        f"({quick['name']}), {mine['cpu_ms'] / lean['closed'][connections]['cpu_ms']:.2f} of the least CPU time a "
        f"request ({lean['name']})."
    )


def method(arguments: argparse.Namespace) -> str:
    """How it was measured, and where."""
    return (
        f"{machine()}; {datetime.now(UTC).date()}. "
        f"Medians of {arguments.rounds} rounds in turns; closed loop by wrk with one thread on the same cores, "
        f"{arguments.seconds:g} s each after 3 s of warm-up; one 28x28 "
        "grey PNG as multipart (MLServer: its pixels as V2 JSON). CPU: user and system time of all processes of the "
        "server over good answers. PSS: proportional set size after the load. Start: from the command to the first "
        "right answer, once it is in the disk's cache. By `python benchmarks/serving.py`."
    )


def compare(
    contenders: list[Contender], pythons: dict[str, Path], content: bytes, arguments: argparse.Namespace
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The rounds of every contender, in turns; and why some could not be measured."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    for turn in range(arguments.rounds + 1):
        for contender in contenders:
            if contender.name in failed:
                continue
            try:
                if not turn:  # the first start reads everything from the disk
                    with running(contender, pythons[contender.name], content):
                        continue
                found = measure(contender, pythons[contender.name], content, arguments.seconds)
            except Exception as error:  # noqa: BLE001 - one that does not start must not end the comparison
                failed[contender.name] = str(error)
                continue
            rounds.setdefault(contender.name, []).append(found)
            shown = {c: f"{row['rate']:,.0f}/s {row['cpu_ms']:.2f} ms" for c, row in found["closed"].items()}
            print(f"{contender.name:16} {shown}", flush=True)
    return rounds, failed


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=[c.name for c in CONTENDERS], help="these contenders alone")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=6, help="of one load")
    add("--environments", type=Path, default=Path.home() / ".cache" / "fashionnet-serving", help="kept between runs")
    add("--prepare", action="store_true", help="make the environments and stop")
    add_write(parser)
    arguments = parser.parse_args()
    chosen = [c for c in CONTENDERS if c.name in (arguments.only or [c.name])]
    content = picture()
    wanted = {c.name: c for c in (*chosen, *CONTENDERS[:1])}
    pythons = {name: environment(c, arguments.environments) for name, c in wanted.items()}
    if arguments.prepare:
        return
    rounds, failed = compare(chosen, pythons, content, arguments)
    result = {
        "contenders": [
            summary(found, content) | {"installed_mb": installed_mb(pythons[name].parents[1])}
            for name, found in rounds.items()
        ],
        "beside_bare": beside_bare(pythons, content) if "floor" in rounds else {},
        "beside_naive": beside_naive(pythons, content) if "naive" in rounds else [],
        "rounds": rounds,
        "failed": failed,
        "method": method(arguments),
    }
    print(report(result))
    write(arguments.write, report(result), result)


if __name__ == "__main__":
    main()
