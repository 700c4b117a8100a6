from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pyspark.taskcontext import TaskContext

from udfs.device import Placement, pick_device

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
    (("3",), 2, "cpu", True), (("0",), 0, "cpu", True), ((), 2, "cpu", False),
])  # fmt: skip
def test_a_tasks_gpu(
    addresses: tuple[str, ...], count: int, device: str, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(monkeypatch, *addresses, cpus=4)
    cuda(monkeypatch, count)
    placement = pick_device()
    assert (placement.device, placement.gpu_addresses, bool(placement.note)) == (device, addresses, noted)
    assert placement.threads == 4


def test_fallback_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    task(monkeypatch, "0")
    assert pick_device().describe() == "cpu (GPU 0 assigned but CUDA is not available)"
    assert pick_device("cuda").describe() == "cpu (cuda asked for but not available)"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    task(monkeypatch, "0")
    cuda(monkeypatch, 2)
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cpu")
    assert pick_device("cuda").device == "cpu"
    monkeypatch.setenv("FACE_REINDEX_DEVICE", "cuda:1")
    assert pick_device("cpu").device == "cuda:1"


@pytest.mark.parametrize("name", ["gpu", "mps", "nonsense"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use auto, cpu"):
        pick_device(name)
