"""The network in 8 bits on a CPU without AVX-512, which adds products of bytes in other instructions."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.plain_cpu import without_avx512
from model import WEIGHTS, create_engine, preprocess
from model.cpu import cpu_flags
from model.engines import load_for_engine
from tests.pictures import encode, random_image, trousers
from tests.servers import run

ASK = """
import sys, numpy, onnxruntime
from model import WEIGHTS, create_engine
from model.engines import load_for_engine
assert onnxruntime.__file__.startswith(sys.argv[1]), onnxruntime.__file__
engine = create_engine("onnx-int8", load_for_engine("onnx-int8", WEIGHTS, sys.argv[2]))
numpy.save(sys.argv[1] + "/logits.npy", engine.run(numpy.load(sys.argv[1] + "/images.npy")).logits)
"""


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="this CPU has no AVX2")
@pytest.mark.parametrize(
    ("name", "apart"), [("fashionnet", 1e-3), ("fashionnet-deep", 0.25), ("fashionnet-photo", 0.25)]
)
def test_8_bits_answer_alike_without_avx512(tmp_path, name, apart):
    """But for roundings: a last digit of the first convolution may become a step of 8 bits in the layers behind it."""
    packages = tmp_path / "environment" / "lib" / "python" / "site-packages"
    shutil.copytree(Path(onnxruntime.__file__).parent, packages / "onnxruntime")
    copy = without_avx512(tmp_path / "environment")
    images = np.stack([preprocess(encode(trousers())).image, *map(random_image, range(30))])
    np.save(copy / "images.npy", images)
    done = run("-c", ASK, str(copy), name, PYTHONPATH=str(copy / "lib" / "python" / "site-packages"))
    assert done.returncode == 0, done.stderr
    expected = create_engine("onnx-int8", load_for_engine("onnx-int8", WEIGHTS, name)).run(images).logits
    np.testing.assert_allclose(np.load(copy / "logits.npy"), expected, atol=apart)


def test_an_environment_without_onnx_runtime_is_left_as_it_is(tmp_path):
    assert without_avx512(tmp_path) == tmp_path
