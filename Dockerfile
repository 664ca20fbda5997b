# syntax=docker/dockerfile:1
# docker build -t fashionnet .  &&  docker run -p 8000:8000 fashionnet
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /srv
RUN python -m venv /opt/venv
COPY requirements/image.txt requirements/
# The image leaves out what serving does not need: ONNX Runtime's C library and its tools for making models, NumPy's own
# tests and headers, and debug symbols.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/image.txt \
 && /opt/venv/bin/pip uninstall --yes pip \
 && rm -rf /opt/venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* \
        /opt/venv/lib/python3*/site-packages/onnxruntime/transformers \
        /opt/venv/lib/python3*/site-packages/onnxruntime/tools \
        /opt/venv/lib/python3*/site-packages/onnxruntime/quantization \
        /opt/venv/lib/python3*/site-packages/numpy/f2py \
        /opt/venv/lib/python3*/site-packages/numpy/_core/_simd.*.so \
        /opt/venv/lib/python3*/site-packages/numpy/_core/_multiarray_tests.*.so \
        /opt/venv/lib/python3*/site-packages/numpy/_core/include \
 && find /opt/venv -name '*.pyi' -delete \
 && find /opt/venv \( -path '*/uvloop/*.so' -o -path '*/httptools/*.so' -o -path '*/PIL/*.so' \) -exec strip --strip-unneeded {} + \
 && find /opt/venv -name tests -type d -prune -exec rm -rf {} + \
 && find /opt/venv -name __pycache__ -type d -prune -exec rm -rf {} +
COPY LICENSE NOTICE ./
COPY LICENSES LICENSES
COPY app app
COPY model model
COPY scripts scripts
# PyTorch is not installed here, so its tensors are not needed: the ONNX graphs are served.
RUN find model/weights -name '*.safetensors' -delete
# Compiles what a start imports to byte code: a container is ready a second sooner.
RUN PYTHONPATH=. /opt/venv/bin/python -c "from app.main import create_app; create_app()"
# Downloads the test set for /evaluate and /gallery. The build goes on without it if the download fails, and the cache
# keeps that layer: later builds do not try again, unless they get --no-cache.
RUN PYTHONPATH=. /opt/venv/bin/python scripts/download.py --split test --data-dir data \
 || { mkdir -p data; echo "WARNING: this image has no test set; /evaluate and /gallery answer 503; build again with --no-cache, or mount one at /srv/data"; }

FROM ${PYTHON}
RUN groupadd --gid 10001 fashionnet \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent fashionnet
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FASHIONNET_HOST=0.0.0.0 FASHIONNET_DATA_DIR=/srv/data
# By number: Kubernetes cannot tell whether a named user is root, and refuses it under runAsNonRoot.
USER 10001:10001
EXPOSE 8000
# FASHIONNET_PORT may be a service link of Kubernetes (tcp://...), which the service ignores. http.client ignores proxies.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import http.client, os, socket, sys; \
port, uds = os.environ.get('FASHIONNET_PORT', ''), os.environ.get('FASHIONNET_UDS'); \
probe = http.client.HTTPConnection('127.0.0.1', port if port.isdigit() else 8000, timeout=2); \
probe.sock = socket.socket(socket.AF_UNIX) if uds else None; \
uds and (probe.sock.settimeout(2), probe.sock.connect(uds)); \
probe.request('GET', '/health/ready'); \
sys.exit(probe.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
