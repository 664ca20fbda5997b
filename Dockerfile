# syntax=docker/dockerfile:1
# docker build -t fashionnet .  &&  docker run -p 8000:8000 fashionnet
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /srv
RUN python -m venv /opt/venv
COPY requirements/serve.txt requirements/
# Serving uses ONNX Runtime's Python binding alone: not the library for C programs, nor the tools for making models.
# AVIF is no format that is accepted; what cannot be loaded cannot be attacked. NumPy brings what is for its own tests and for C
# programs. uvloop, httptools and Pillow come with symbols for debuggers, fifteen megabytes of them.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/serve.txt \
 && /opt/venv/bin/pip uninstall --yes pip \
 && rm -rf /opt/venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* \
        /opt/venv/lib/python3*/site-packages/onnxruntime/transformers \
        /opt/venv/lib/python3*/site-packages/onnxruntime/tools \
        /opt/venv/lib/python3*/site-packages/onnxruntime/quantization \
        /opt/venv/lib/python3*/site-packages/pillow.libs/libavif* \
        /opt/venv/lib/python3*/site-packages/PIL/_avif* \
        /opt/venv/lib/python3*/site-packages/numpy/f2py \
        /opt/venv/lib/python3*/site-packages/numpy/_core/_simd.*.so \
        /opt/venv/lib/python3*/site-packages/numpy/_core/_multiarray_tests.*.so \
        /opt/venv/lib/python3*/site-packages/numpy/_core/include \
 && find /opt/venv -name '*.pyi' -delete \
 && find /opt/venv \( -path '*/uvloop/*.so' -o -path '*/httptools/*.so' -o -path '*/PIL/*.so' \) -exec strip --strip-unneeded {} + \
 && find /opt/venv -name tests -type d -prune -exec rm -rf {} + \
 && find /opt/venv -name __pycache__ -type d -prune -exec rm -rf {} +
COPY app app
COPY model model
COPY scripts scripts
# The tensors are for PyTorch, which is not here; the graphs are served.
RUN find model/weights -name '*.safetensors' -delete
# Byte code for what a start imports, and no more: a container is ready a second sooner.
RUN PYTHONPATH=. /opt/venv/bin/python -c "from app.main import create_app; create_app()"
# The test set, for /evaluate and /gallery. Where the network does not allow it, the build goes on without.
RUN PYTHONPATH=. /opt/venv/bin/python scripts/download.py --split test --data-dir data \
 || { mkdir -p data; echo "WARNING: no test set in this image; /evaluate and /gallery will answer 503 until one is mounted at /srv/data"; }

FROM ${PYTHON}
RUN useradd --system --no-create-home --uid 10001 fashionnet
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FASHIONNET_HOST=0.0.0.0 FASHIONNET_DATA_DIR=/srv/data
USER fashionnet
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('FASHIONNET_PORT', '8000') + '/health/ready', timeout=2)"]
CMD ["python", "-m", "app"]
