"""Where a Python worker computes: the GPU that Spark assigned to its task, else the processor.

What a worker on a GPU needs to know of it stands here as well: its share of the memory, whether its arithmetic is what
the boxes and vectors were tested with, and which errors say that memory was short.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

# Read once, when torch loads its OpenMP. By default a waiting thread spins, and with other workers on the same cores
# (the normal case under Spark) spinning threads take the time of those that work: 0.7 images/s became 3.7.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

ENV_DEVICE = "FACE_REINDEX_DEVICE"
GIB = 2**30
T = TypeVar("T")

#: What a task does that was to compute on a GPU and cannot: end, or compute on its processor with a note.
WithoutGpu = Literal["fail", "processor"]

_DRIVER_FILE = Path("/proc/driver/nvidia/version")

# The texts by which torch 2.11 to 2.13 says that a device's memory is short, besides its OutOfMemoryError. Each is a
# plain RuntimeError, but for "CUDA error: out of memory", an AcceleratorError that leaves the device usable
# (cudaErrorMemoryAllocation). Sources, in pytorch/pytorch:
_SHORT_ON_DEVICE = re.compile(
    # c10/cuda/CUDACachingAllocator.cpp; c10/cuda/CUDAException.cpp and driver_api.h
    r"CUDA out of memory|CUDA (?:driver )?error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
    # TORCH_CUDABLAS_CHECK, AT_CUDNN_CHECK in aten/src/ATen/cuda/Exceptions.h; names of cuBLAS, cuDNN 8 and cuDNN 9
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    # Where there is no room for a library's handle: pytorch/serve issue 1993, haotian-liu/LLaVA issue 392
    r"|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_INITIALIZED"
    # The allocator's report of who holds the memory fails before it is raised: pytorch issues 112377 and 122068
    r"|NVML_SUCCESS == .*INTERNAL ASSERT FAILED at .*CUDACachingAllocator"
    # aten/src/ATen/native/cudnn/Conv_v8.cpp passes over each engine whose workspace is not to be had, and ends so (as
    # it does on a GPU that it has no engine for); Conv_v7.cpp
    r"|unable to find an engine to execute this computation|Unable to find a valid cuDNN algorithm"
)
# c10/core/impl/alloc_cpu.cpp; and cuDNN 9's for the machine's own memory
_SHORT_ON_HOST = re.compile(r"DefaultCPUAllocator: can't allocate|CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED")
_ASKED = re.compile(r"(?:[Tt]ried to allocate|Requested size:|Unable to allocate) ([\d.]+ \w+)")

# TF32 keeps 10 bits of a number's fraction and float32 keeps 23: this one's last bit is the 12th. Winograd's
# convolutions are float32, too, and lose a few of its last bits.
_FINE = 1 + 2**-12
_MOST_LOST = 2**-14


class DeviceUnavailable(RuntimeError):
    """A task was to compute on a GPU and cannot: what it saw, and the next step."""


class MemoryShort(RuntimeError):
    """The least piece of work does not fit into memory: the task ends, and no image's status says so.

    How full a memory is depends on the neighbours: it must not decide how an image ends. ``seen``: numbers for a log.
    """

    def __init__(self, what: str, seen: str, step: str) -> None:
        super().__init__(what, seen, step)
        self.seen = seen

    def __str__(self) -> str:
        what, seen, step = self.args
        return f"{what} ({seen}). Next step: {step}"


class DeviceMemoryError(MemoryShort):
    """A single image or face does not fit into the device's memory beside what is there."""


class HostMemoryError(MemoryShort):
    """A single image does not fit into the machine's (or container's) memory, nothing else being decoded."""


class ReducedPrecision(RuntimeError):
    """A device computes float32 with fewer bits than float32 has."""


def device_failed(error: BaseException, device: str) -> bool:
    """Whether ``error``, raised by work on ``device``, says something of the device and nothing of an image.

    On a GPU every RuntimeError does: shapes there are fixed, and what an image may cause is found before.
    """
    return device.startswith("cuda") and isinstance(error, RuntimeError)


@dataclass(frozen=True)
class Placement:
    """A torch device, Spark's GPU addresses for the task, CPU threads, and a note where things are odd."""

    device: str
    gpu_addresses: tuple[str, ...] = ()
    note: str = ""
    threads: int = 1

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def describe(self) -> str:
        """One short line for results and reports, such as ``cpu (GPU 0 assigned but CUDA is not available)``."""
        return f"{self.device} ({self.note})" if self.note else self.device


def pick_device(
    prefer: str = "auto",
    *,
    cpu_threads: int | None = None,
    gpu_wanted: bool = False,
    without_gpu: WithoutGpu = "fail",
) -> Placement:
    """Decide where to compute.

    First the environment variable FACE_REINDEX_DEVICE, then ``prefer`` unless it is ``auto``, then the task's
    ``gpu`` resource, then the processor.

    ``cpu_threads``: threads for torch; by default OMP_NUM_THREADS, else the task's cpus, else all cores.
    ``gpu_wanted``: the stage asked Spark for GPUs, so ``auto`` without an address is a fault, and no processor's task.
    ``without_gpu``: where a GPU was asked for or assigned and cannot be used, ``processor`` computes on the processor
    with a note, which travels with every result; a processor takes many times as long.

    Raises `DeviceUnavailable` in that case by default, ``ValueError`` for a device that is not known.
    """
    addresses, cpus = _task_resources()
    threads = cpu_threads or _int_env("OMP_NUM_THREADS") or cpus or os.cpu_count() or 1
    asked = os.environ.get(ENV_DEVICE) or prefer
    if asked == "cpu" or (asked == "auto" and not addresses and not gpu_wanted):
        return Placement("cpu", addresses, "", threads)
    if asked != "auto":
        device, note = _asked_for(asked)
    elif addresses:
        device, note = _device_of(addresses[0])
    else:
        device, note = "cpu", "a GPU was asked for and Spark assigned none"
    if note and without_gpu == "fail":
        raise DeviceUnavailable(unavailable(note, addresses))
    return Placement(device, addresses, note, threads)


def apply_threads(placement: Placement) -> None:
    """Give torch the placement's threads. This holds for the whole process: call it where the process is yours."""
    torch.set_num_threads(placement.threads)


def apply_share(placement: Placement, share: float) -> None:
    """Make the placement's GPU the current one, and hold this process to ``share`` of its memory; else do nothing.

    A share of 0, and of 1 or more, holds it to nothing. Counted is what torch allocates; the CUDA context, some hundred
    MB a process, comes on top. Call it where the process is yours.
    """
    if not placement.on_gpu:
        return
    torch.cuda.set_device(placement.device)
    torch.cuda.set_per_process_memory_fraction(float(share) if 0 < share < 1 else 1.0, placement.device)


def memory_short(error: BaseException, device: str) -> MemoryShort | None:
    """The error that ends a task where ``error``, raised by work on ``device``, says that memory is short; else None.

    Of ``error``'s own text only the size that was asked for is repeated.
    """
    if isinstance(error, MemoryShort):
        return error
    cause = error.__context__
    if cause is not None and (short := memory_short(cause, device)) is not None:
        return short  # what failed while the first failure was being cleared away
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _SHORT_ON_HOST.search(text)):
        return HostMemoryError(
            "The worker's memory is not enough for a single image",
            _asked(text),
            "give the executors more (spark.executor.memoryOverhead), run fewer tasks at once (spark.executor.cores), "
            "or lower executor.decode_threads or detection.max_decode_bytes (a part of the model's fingerprint).",
        )
    if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _SHORT_ON_DEVICE.search(text)):
        return DeviceMemoryError(
            f"The memory of {device} is not enough for a single image or face",
            _asked(text) + _memory_of(device),
            "run fewer tasks on a GPU (a larger executor.gpus_per_task), or end what else holds its memory; "
            "executor.detect_batch and executor.embed_batch make passes smaller from the start.",
        )
    return None


class _FullFloat32:
    """torch's flags are the process's: the first thread that enters sets them, and the last that leaves restores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._restore = _set_full_float32()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore()


_FULL_FLOAT32 = _FullFloat32()


def full_float32() -> AbstractContextManager[None]:
    """Float32 without TF32 (or bfloat16) in convolutions and matrix products of GPUs and processors; restored after.

    Threads may be inside at once. cuDNN does not time its algorithms: the fastest one need not be the same twice.
    """
    return _FULL_FLOAT32


def _set_full_float32() -> Callable[[], None]:
    """Set the flags; returns what restores them.

    torch has former flags (``allow_tf32``, ``set_float32_matmul_precision``) and newer ones (``fp32_precision``), and
    reading a former one raises where the two differ (aten/src/ATen/Context.cpp). Both are set here, so they agree
    inside whatever they were before.
    """
    backends: Any = torch.backends  # its stubs lack the newer flags
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    parts = (backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv)
    newer = [(part, part.fp32_precision) for part in parts]
    matmul, convolution = _unless_mixed(torch.get_float32_matmul_precision), _unless_mixed(lambda: cudnn.allow_tf32)
    enabled, benchmark = cudnn.enabled, cudnn.benchmark

    def restore() -> None:
        cudnn.enabled, cudnn.benchmark = enabled, benchmark
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolution is not None:
            cudnn.allow_tf32 = convolution
        for part, precision in newer:
            part.fp32_precision = precision

    try:
        cudnn.enabled, cudnn.benchmark = True, False
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        for part, _ in newer:
            part.fp32_precision = "ieee"
    except BaseException:
        restore()
        raise
    return restore


def float32_losses(device: torch.device, rounded: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
    """What convolutions and matrix products on ``device`` lose of 1 + 2^-12, which float32 holds exactly.

    Each output is one such number times one, plus zeros. ``rounded`` is done to the inputs, in place of hardware that
    would do so.
    """
    prepare = rounded or (lambda values: values)
    fine = prepare(torch.full((16, 64, 32, 32), _FINE, device=device)).contiguous(memory_format=torch.channels_last)
    kernel = torch.zeros(64, 64, 3, 3, device=device)
    kernel[:, :, 1, 1] = torch.eye(64, device=device)
    rows = prepare(torch.full((512, 512), _FINE, device=device))
    with torch.inference_mode(), full_float32():
        found = {
            "convolution": torch.nn.functional.conv2d(fine, kernel, padding=1),
            "matrix product": rows @ torch.eye(512, device=device),
            "linear layer": torch.nn.functional.linear(rows, torch.eye(512, device=device), rows.new_zeros(512)),
        }
    return {name: float((values - _FINE).abs().max()) for name, values in found.items()}


def check_float32(losses: dict[str, float]) -> None:
    """Raise `ReducedPrecision` where `float32_losses` found more lost than float32 loses."""
    lost = [name for name, loss in losses.items() if not loss <= _MOST_LOST]
    if lost:
        names = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
        seen = ", ".join(f"{name}={os.environ.get(name, '(unset)')}" for name in names)
        raise ReducedPrecision(
            f"This device computes float32 with fewer bits than float32 has ({', '.join(lost)}), though TF32 is turned "
            f"off: boxes and embeddings would differ from those of other machines. Seen: {seen}. Next step: unset both "
            "on the executors (NVIDIA_TF32_OVERRIDE=0 is fine)."
        )


def check_compiler() -> None:
    """Raise ``ValueError`` where torch.compile would find no C compiler for a GPU.

    Triton builds what launches its kernels with $CC, else gcc or clang (triton/runtime/build.py).
    """
    named = os.environ.get("CC")
    wanted = [named.split(" ")[0]] if named else ["gcc", "clang"]
    lacking = "not what CC names" if named else "no gcc and no clang"
    if not any(shutil.which(name) for name in wanted):
        raise ValueError(
            f"torch.compile needs a C compiler on a GPU, and the PATH has {lacking}. "
            "Next step: leave executor.compile out (CUDA graphs need no compiler), or install one, or name one in CC."
        )


def _asked_for(asked: str) -> tuple[str, str]:
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"device {asked!r} is not known; use auto, cpu, cuda or cuda:N") from None
    if device.type != "cuda":
        raise ValueError(f"device {asked!r} is not supported; use auto, cpu, cuda or cuda:N")
    if torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return f"cuda:{device.index or 0}", ""
    return "cpu", f"{asked} asked for but not available"


def _device_of(address: str) -> tuple[str, str]:
    if not torch.cuda.is_available():
        return "cpu", f"GPU {address} assigned but CUDA is not available"
    count = torch.cuda.device_count()
    if address.isdecimal() and int(address) < count:
        return f"cuda:{int(address)}", ""
    # YARN and Kubernetes may show a container only its own GPU, under another number than the discovery script saw.
    if count == 1:
        return "cuda:0", ""
    return "cpu", f"GPU {address} assigned but not among the {count} visible"


def unavailable(why: str, addresses: tuple[str, ...]) -> str:
    """What `DeviceUnavailable` says: why, what was seen, and the next step."""
    seen = (
        f"addresses of the task {', '.join(addresses) or 'none'}",
        f"torch {torch.__version__} for CUDA {torch.version.cuda or 'none (a build for processors)'}",
        f"torch.cuda.is_available() {torch.cuda.is_available()}",
        f"devices {torch.cuda.device_count()}",
        f"CUDA_VISIBLE_DEVICES {os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}",
        f"driver {_driver_version() or 'not found'}",
    )
    return (
        f"This task is to compute on a GPU and cannot: {why}. Seen: {'; '.join(seen)}. Next step: see that the worker "
        "(or its container) may see the GPU, and that its driver is one for that CUDA (nvidia-smi tells); or set "
        "executor.without_gpu to processor, to compute on processors where it is so."
    )


def _driver_version() -> str:
    """The NVIDIA driver's version by the kernel, else by nvidia-smi; empty where neither tells."""
    with suppress(OSError):
        if found := re.search(r"Kernel Module\D*([\d.]+)", _DRIVER_FILE.read_text(errors="replace")):
            return found[1]
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - as it is
        return answer.stdout.strip().split("\n")[0]
    return ""


def _asked(text: str) -> str:
    found = _ASKED.search(text)
    return f"{found[1]} were asked for" if found else "how much was asked for is not told"


def _memory_of(device: str) -> str:
    """What a GPU holds, as the end of a sentence; nothing for a processor, or where the GPU does not answer."""
    if not device.startswith("cuda"):
        return ""
    with suppress(RuntimeError, AssertionError):  # the latter by a torch that was built without CUDA
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        others = max(0, total - free - own)
        return (
            f"; of its {total / GIB:.1f} GiB {free / GIB:.1f} are free, this worker's work holds {own / GIB:.1f}, and "
            f"contexts and other processes {others / GIB:.1f}"
        )
    return ""


def _unless_mixed(read: Callable[[], T]) -> T | None:
    """What a former flag says, or None where it raises, because newer ones were set to something else."""
    try:
        return read()
    except RuntimeError:
        return None


def _task_resources() -> tuple[tuple[str, ...], int]:
    try:
        from pyspark.taskcontext import TaskContext
    except ImportError:
        return (), 0
    context = TaskContext.get()
    if context is None:
        return (), 0
    gpu = context.resources().get("gpu")
    return (tuple(gpu.addresses) if gpu is not None else ()), int(context.cpus() or 0)


def _int_env(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
