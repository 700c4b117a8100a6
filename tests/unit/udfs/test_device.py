from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.taskcontext import TaskContext

from udfs import device
from udfs.device import (
    DeviceMemoryError,
    DeviceUnavailable,
    HostMemoryError,
    Placement,
    ReducedPrecision,
    apply_share,
    check_compiler,
    check_float32,
    float32_losses,
    full_float32,
    memory_short,
    pick_device,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE_REINDEX_DEVICE", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cuda(monkeypatch, 0)


def cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def task(monkeypatch: pytest.MonkeyPatch, *addresses: str, cpus: int = 1) -> None:
    resources = {"gpu": SimpleNamespace(addresses=list(addresses))} if addresses else {}
    context = SimpleNamespace(resources=lambda: resources, cpus=lambda: cpus)
    monkeypatch.setattr(TaskContext, "get", lambda: context)


def test_outside_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert pick_device() == Placement("cpu", threads=7)
    assert pick_device(cpu_threads=3).threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert pick_device().threads == 2


@pytest.mark.parametrize(("addresses", "count", "device", "noted"), [
    (("1",), 2, "cuda:1", False), (("3",), 1, "cuda:0", False), (("GPU-8f2a",), 1, "cuda:0", False),
    ((), 2, "cpu", False), (("3",), 2, "cpu", True), (("0",), 0, "cpu", True),
])  # fmt: skip
def test_a_tasks_gpu(
    addresses: tuple[str, ...], count: int, device: str, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(monkeypatch, *addresses, cpus=4)
    cuda(monkeypatch, count)
    placement = pick_device(without_gpu="processor")
    assert (placement.device, placement.gpu_addresses, bool(placement.note)) == (device, addresses, noted)
    assert placement.threads == 4
    if noted:
        with pytest.raises(DeviceUnavailable, match=f"GPU {addresses[0]} assigned but .*addresses of the task"):
            pick_device()
    else:
        assert pick_device() == placement


def test_a_task_without_the_gpu_that_it_was_to_have_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    task(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(DeviceUnavailable, match=r"Spark assigned none\. Seen: addresses of the task none; ") as caught:
        pick_device(gpu_wanted=True)
    told = str(caught.value)
    for seen in (
        torch.__version__,
        str(torch.version.cuda),
        "is_available() False",
        "devices 0",
        "DEVICES 7",
        "driver",
    ):
        assert seen in told
    assert "Next step: " in told
    assert "executor.without_gpu" in told
    with pytest.raises(DeviceUnavailable, match="cuda asked for but not available"):
        pick_device("cuda")
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cuda:3")
    with pytest.raises(DeviceUnavailable, match="cuda:3 asked for but not available"):
        pick_device()
    assert pick_device("auto", gpu_wanted=True, without_gpu="processor").device == "cpu"


def test_the_drivers_version_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task(monkeypatch, "0")
    monkeypatch.setattr(device, "_DRIVER_FILE", tmp_path / "version")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 535.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(DeviceUnavailable, match=r"driver 535\.1\."):
        pick_device()
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun\nGCC version: 12\n"
    )
    with pytest.raises(DeviceUnavailable, match=r"driver 580\.65\.06"):
        pick_device()
    program.write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "version").unlink()
    with pytest.raises(DeviceUnavailable, match="driver not found"):
        pick_device()


def test_fallback_is_visible_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    task(monkeypatch, "0")
    described = pick_device(without_gpu="processor").describe()
    assert described == "cpu (GPU 0 assigned but CUDA is not available)"
    assert pick_device("cuda", without_gpu="processor").describe() == "cpu (cuda asked for but not available)"
    task(monkeypatch)
    described = pick_device(gpu_wanted=True, without_gpu="processor").describe()
    assert described == "cpu (a GPU was asked for and Spark assigned none)"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    task(monkeypatch, "0")
    cuda(monkeypatch, 2)
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cpu")
    assert pick_device("cuda", gpu_wanted=True).device == "cpu"
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cuda:1")
    assert pick_device("cpu").device == "cuda:1"


@pytest.mark.parametrize("name", ["gpu", "mps", "nonsense"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use auto, cpu"):
        pick_device(name)


@pytest.mark.parametrize(("share", "limit"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.25, 0.25)])
def test_a_share_of_a_gpu_limits_its_memory(share: float, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a worker was held to before does not hold any more.
    current: list[str] = []
    limited: list[tuple[float, str]] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: limited.append(given))
    apply_share(Placement("cuda:1", ("1",)), share)
    assert (current, limited) == (["cuda:1"], [(limit, "cuda:1")])
    apply_share(Placement("cpu"), share)
    assert len(current) == 1


@pytest.mark.parametrize(
    ("error", "kind", "asked"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 …"),
            DeviceMemoryError,
            "2.50 GiB",
        ),
        (RuntimeError("CUDA out of memory. … limit. Requested size: 512.00 MiB"), DeviceMemoryError, "512.00 MiB"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel …"), DeviceMemoryError, "not told"),
        (RuntimeError("CUDA driver error: out of memory"), DeviceMemoryError, "not told"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            DeviceMemoryError,
            "not told",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), DeviceMemoryError, "not told"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), DeviceMemoryError, "not told"),
        (
            RuntimeError(
                'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/c10/cuda/CUDACachingAllocator.cpp":1407, please'
            ),
            DeviceMemoryError,
            "not told",
        ),
        (MemoryError(), HostMemoryError, "not told"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), HostMemoryError, "not told"),
    ],
)
def test_errors_that_say_that_memory_is_short(error: Exception, kind: type, asked: str) -> None:
    short = memory_short(error, "cuda:0")
    assert type(short) is kind
    assert asked in str(short)
    assert "Next step: " in str(short)
    assert short is not None
    assert memory_short(short, "cuda:0") is short
    assert str(pickle.loads(pickle.dumps(short))) == str(short)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("make", [lambda: torch.empty(10**15), lambda: np.zeros(10**15)])
def test_what_torch_and_numpy_raise_is_known(make: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    assert isinstance(memory_short(caught.value, "cpu"), HostMemoryError)
    assert "were asked for" in str(memory_short(caught.value, "cpu"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(
            'NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED at "PeerToPeerAccess.cpp":83'
        ),
        ValueError("CUDA out of memory"),
        KeyError(),
    ],
)
def test_other_errors_do_not(error: Exception) -> None:
    assert memory_short(error, "cuda:0") is None


def test_what_a_gpu_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * gib, 80 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 18 * gib)
    told = str(memory_short(torch.OutOfMemoryError("Tried to allocate 4.00 GiB"), "cuda:0"))
    assert "of cuda:0 is not enough" in told
    assert "of its 80.0 GiB 2.0 are free, this worker's work holds 18.0, and contexts and other processes 60.0" in told


def flags() -> dict[str, Any]:
    """The flags of float32's precision, newer and former; ``mixed`` where torch refuses to tell."""
    backends: Any = torch.backends
    parts = {
        "matmul": backends.cuda.matmul, "conv": backends.cudnn.conv, "rnn": backends.cudnn.rnn,
        "mkldnn.matmul": backends.mkldnn.matmul, "mkldnn.conv": backends.mkldnn.conv,
    }  # fmt: skip
    found = {name: part.fp32_precision for name, part in parts.items()}
    former = {
        "allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
        "precision": torch.get_float32_matmul_precision,
    }
    for name, read in former.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "mixed"
    return found | {"enabled": backends.cudnn.enabled, "benchmark": backends.cudnn.benchmark}


@pytest.fixture
def flags_restored() -> Iterator[None]:
    """Whatever a test sets, the defaults of a new process afterwards."""
    yield
    backends: Any = torch.backends
    backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    backends.cudnn.benchmark, backends.cudnn.allow_tf32 = False, True


def set_generic(value: str) -> None:
    torch.backends.fp32_precision = value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "before",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: set_generic("tf32"),
    ],
)
@pytest.mark.usefixtures("flags_restored")
def test_full_float32_whatever_was_set_before_and_restores_it(before: Callable[[], None]) -> None:
    full = {
        **dict.fromkeys(("matmul", "conv", "rnn", "mkldnn.matmul", "mkldnn.conv"), "ieee"),
        **dict.fromkeys(("allow_tf32", "cudnn.allow_tf32", "benchmark"), False),
        "precision": "highest",
        "enabled": True,
    }
    before()
    outside = flags()
    with full_float32():
        assert flags() == full
        with full_float32():
            pass
        assert flags() == full
    assert flags() == outside
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert flags() == outside


def test_this_processor_keeps_every_bit_of_float32() -> None:
    losses = float32_losses(torch.device("cpu"))
    assert set(losses) == {"convolution", "matrix product", "linear layer"}
    check_float32(losses)


def ten_bits(values: torch.Tensor) -> torch.Tensor:
    """As TF32 has: the last 13 of float32's 23 bits are cut off."""
    return (values.view(torch.int32) & ~0x1FFF).view(torch.float32)


def test_fewer_bits_are_found_and_the_variables_named(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = float32_losses(torch.device("cpu"), ten_bits)
    assert all(loss == pytest.approx(2**-12, rel=0.01) for loss in losses.values())
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(ReducedPrecision, match=r"NVIDIA_TF32_OVERRIDE=1, TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=\(unset\)"):
        check_float32(losses)
    with pytest.raises(ReducedPrecision, match=r"\(matrix product\)"):
        check_float32({"convolution": 1e-6, "matrix product": float("nan")})


def test_a_compiler_is_looked_for_where_triton_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ValueError, match=r"no gcc and no clang\. Next step: leave executor.compile out"):
        check_compiler()
    (tmp_path / "clang").write_text("#!/bin/sh\n")
    (tmp_path / "clang").chmod(0o755)
    check_compiler()
    monkeypatch.setenv("CC", "icc -O2")
    with pytest.raises(ValueError, match="not what CC names"):
        check_compiler()
    monkeypatch.setenv("CC", str(tmp_path / "clang"))
    check_compiler()
