"""Our own CUDA kernels (udfs/kernels.cu): compiled by NVRTC when a worker starts, launched on torch's current stream.

By NVIDIA's own bindings (``cuda-bindings``), which torch's CUDA builds require, with the NVRTC that they bring: an
executor needs neither a C compiler nor the CUDA toolkit. torch's own binding, ``torch.cuda._compile_kernel``, is
private and looks for a toolkit's headers (torch 2.13: OSError without CUDA_HOME).
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from importlib.resources import files
from typing import Any, Protocol

import torch
from torch import Tensor

# No contraction: the kernels say where operations are fused, so that they give the processor's bits.
_OPTIONS = (b"--std=c++17", b"--fmad=false", b"-default-device")
_NAMES = ("pyramid", "propose", "cut_out", "prelu_pool", "suppress")


class Launch(Protocol):
    """Runs kernel ``name`` in ``blocks`` of ``threads``. Arguments: contiguous tensors on the device, whole numbers."""

    def __call__(self, name: str, blocks: int, threads: int, *arguments: Tensor | int) -> None: ...


class CudaError(RuntimeError):
    """The kernels can't be compiled or launched; the text says what NVRTC or the driver answered, and the next step."""


def source() -> str:
    """The kernels' source."""
    return (files("udfs") / "kernels.cu").read_text(encoding="utf-8")


class Kernels:
    """The kernels on one device. A call launches one: see `Launch`. Raises `CudaError`."""

    def __init__(self, device: torch.device) -> None:
        driver = _bindings("driver")
        with torch.cuda.device(device):
            torch.cuda.synchronize()  # makes torch's context this thread's
            major, minor = torch.cuda.get_device_capability(device)
            binary = compile_for(f"sm_{major}{minor}")
            module = _checked(driver.cuModuleLoadData(binary))
            self._functions = {n: _checked(driver.cuModuleGetFunction(module, n.encode())) for n in _NAMES}
        self._driver: Any = driver
        self._device = device

    def __call__(self, name: str, blocks: int, threads: int, *arguments: Tensor | int) -> None:
        if not blocks:
            return
        values = tuple(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
        kinds = tuple(ctypes.c_void_p if isinstance(a, Tensor) else ctypes.c_longlong for a in arguments)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        _checked(
            self._driver.cuLaunchKernel(
                self._functions[name], blocks, 1, 1, threads, 1, 1, 0, stream, (values, kinds), 0
            )
        )


def compile_for(architecture: str) -> bytes:
    """Machine code of the kernels for ``architecture`` (such as ``sm_90``); needs no GPU. Raises `CudaError`."""
    nvrtc = _bindings("nvrtc")
    program = _checked(nvrtc.nvrtcCreateProgram(source().encode(), b"kernels.cu", 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode(), *_OPTIONS]
    (answer,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(answer):
        said = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, said)
        raise CudaError(
            f"NVRTC can't compile the kernels for {architecture}: {said.decode(errors='replace').strip()}. Next step: "
            f"see that this GPU is one that CUDA {torch.version.cuda} still knows; if it is, report this."
        )
    binary: bytes = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return binary


def _bindings(name: str) -> Any:
    try:
        return import_module(f"cuda.bindings.{name}")
    except ImportError as error:
        raise CudaError(
            f"cuda.bindings can't be imported ({error}), by which detection's kernels are compiled. Next step: install "
            "cuda-bindings of torch's CUDA version on the executors; torch's builds for CUDA bring it."
        ) from None


def _checked(answer: tuple[Any, ...]) -> Any:
    code, *values = answer
    if int(code):
        step = (
            "give this worker's GPU more room (a larger executor.gpus_per_task)"
            if code.name == "CUDA_ERROR_OUT_OF_MEMORY"
            else f"see that the executors' driver is one for CUDA {torch.version.cuda} (nvidia-smi tells), and that "
            "nothing else ended work on this GPU"
        )
        raise CudaError(f"CUDA answered {code.name}. Next step: {step}.")
    return values[0] if values else None
