"""A CPU with AVX2 alone, played by one that has AVX-512: for seeing on one machine what another would do.

PyTorch, oneDNN and MKL can be told to leave AVX-512 alone. ONNX Runtime cannot, so a copy of it is changed: the
instruction by which a library asks whether the system saves AVX-512's registers (``xgetbv``) is overwritten with one
that answers no. What is left is the code that such a CPU runs; its clock and its caches are those of this one, and
NumPy, which does little here, is as it was.
"""

import re
import shutil
from pathlib import Path

VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""For a server's environment."""
_XGETBV = re.compile(rb"(?<=\x31\xc9)\x0f\x01\xd0|\x0f\x01\xd0(?=\x89\xc0\x48\xc1\xe2\x20)")
"""With what compilers put around it to ask for XCR0: ecx is emptied before, or rdx joined to rax after."""
_PUSH_7_POP_RAX = b"\x6a\x07\x58"
"""XCR0 with the bits of x87, SSE and AVX alone (Intel's manual, volume 1, section 13.3)."""


def without_avx512(environment: Path) -> Path:
    """A Python environment -> a copy of it, made where it is not there yet, whose ONNX Runtime sees no AVX-512.

    Itself where it has no ONNX Runtime.
    """
    copy = environment.with_name(f"{environment.name}-plain-cpu")
    library = "lib/*/site-packages/onnxruntime/capi/onnxruntime_pybind11_state*.so"
    if not list(environment.glob(library)):
        return environment
    if not (copy / "made").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(environment, copy, symlinks=True, ignore=shutil.ignore_patterns("made"))
        for file in copy.glob(library):
            changed, count = _XGETBV.subn(_PUSH_7_POP_RAX, file.read_bytes())
            if not count:
                raise RuntimeError(f"{file} nowhere asks for the registers in a known way")
            file.write_bytes(changed)
        (copy / "made").touch()
    return copy
