"""Where a Python worker computes: the GPU that Spark assigned to its task, else the processor."""

from __future__ import annotations

import os
from dataclasses import dataclass

# Read once, when torch loads its OpenMP. By default a waiting thread spins, and with other workers on the same cores
# (the normal case under Spark) spinning threads take the time of those that work: 0.7 images/s became 3.7.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ENV_DEVICE = "FACE_REINDEX_DEVICE"


@dataclass(frozen=True)
class Placement:
    """A torch device, Spark's GPU addresses for the task, CPU threads, and a note where things are odd."""

    device: str
    gpu_addresses: tuple[str, ...] = ()
    note: str = ""
    threads: int = 1

    def describe(self) -> str:
        """One short line for results and reports, such as ``cpu (GPU 0 assigned but CUDA is not available)``."""
        return f"{self.device} ({self.note})" if self.note else self.device


def pick_device(prefer: str = "auto", *, cpu_threads: int | None = None) -> Placement:
    """Decide where to compute.

    First the environment variable FACE_REINDEX_DEVICE, then ``prefer`` unless it is ``auto``, then the task's
    ``gpu`` resource, then the processor. Something asked for that isn't there falls back to the processor with
    a note, for a slow row is worth more than a failed task; the note travels with every result.

    ``cpu_threads``: threads for torch; by default OMP_NUM_THREADS, else the task's cpus, else all cores.
    """
    addresses, cpus = _task_resources()
    threads = cpu_threads or _int_env("OMP_NUM_THREADS") or cpus or os.cpu_count() or 1
    asked = os.environ.get(ENV_DEVICE) or prefer
    if asked == "cpu":
        return Placement("cpu", addresses, "", threads)
    if asked != "auto":
        return _asked_for(asked, addresses, threads)
    if not addresses:
        return Placement("cpu", (), "", threads)
    device, note = _device_of(addresses[0])
    return Placement(device, addresses, note, threads)


def apply_threads(placement: Placement) -> None:
    """Give torch the placement's threads. This holds for the whole process: call it where the process is yours."""
    torch.set_num_threads(placement.threads)


def _asked_for(asked: str, addresses: tuple[str, ...], threads: int) -> Placement:
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"device {asked!r} is not known; use auto, cpu, cuda or cuda:N") from None
    if device.type != "cuda":
        raise ValueError(f"device {asked!r} is not supported; use auto, cpu, cuda or cuda:N")
    if torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return Placement(f"cuda:{device.index or 0}", addresses, "", threads)
    return Placement("cpu", addresses, f"{asked} asked for but not available", threads)


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
