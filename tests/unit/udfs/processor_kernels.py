"""The GPU's kernels as a C++ compiler for processors makes them of the same text: one thread does a block's work."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache

from torch import Tensor

from tests.golden.support import workspace
from udfs import cuda

#: What CUDA has and C++ lacks. Every loop of the kernels strides by the number of threads: here it is one.
_SHIM = """
#include <cmath>
#include <initializer_list>
#define __global__
#define __device__ static
#define __shared__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)
static void __syncthreads() {}
struct Place { unsigned x; };
static Place blockIdx, gridDim;
static const Place threadIdx = {0}, blockDim = {1};
"""
_LAUNCH = """
extern "C" void launch_%(name)s(unsigned blocks, %(typed)s) {
    gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) %(name)s(%(names)s);
}
"""
_POINTERS = {
    "pyramid": ("const unsigned char*", "const i64*", "i64", "i64", "float*"),
    "propose": ("const float*", "const i64*", "i64", "const Weights*", "float*", "float*"),
    "cut_out": ("const unsigned char*", "const i64*", "const i64*", "const i64*", "i64", "i64", "float*"),
    "prelu_pool": ("const float*", "const float*", *["i64"] * 7, "float*"),
    "suppress": ("const float*", "const i64*", "const double*", "i64", "unsigned char*"),
}

COMPILER = shutil.which("g++") or shutil.which("clang++")


class OnProcessorLaunch:
    """See `udfs.cuda.Launch`; ``count`` says how many launches there were, by name."""

    def __init__(self) -> None:
        self._library = _library()
        self.launches: list[str] = []

    def __call__(self, name: str, blocks: int, threads: int, *arguments: Tensor | int) -> None:
        del threads
        self.launches.append(name)
        for argument in arguments:
            assert isinstance(argument, int) or (argument.is_contiguous() and argument.device.type == "cpu")
        values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_longlong(a) for a in arguments]
        getattr(self._library, f"launch_{name}")(ctypes.c_uint(blocks), *values)


@cache
def _library() -> ctypes.CDLL:
    assert COMPILER
    text = _SHIM + cuda.source()
    for name, kinds in _POINTERS.items():
        letters = [f"a{i}" for i in range(len(kinds))]
        typed = ", ".join(f"{kind} {letter}" for kind, letter in zip(kinds, letters, strict=True))
        text += _LAUNCH % {"name": name, "typed": typed, "names": ", ".join(letters)}
    code, library = workspace() / "kernels.cpp", workspace() / "kernels.so"
    code.write_text(text)
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-mfma", "-shared", "-fPIC", "-w"]
    subprocess.run([COMPILER, *options, str(code), "-o", str(library)], check=True, capture_output=True)
    return ctypes.CDLL(str(library))
