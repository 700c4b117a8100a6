"""The parts of the kit: each measures one thing, alone in its process, and returns figures by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

Figures = dict[str, Any]
_MODEL = Path(tempfile.gettempdir()) / "face-reindex-gpu-kit.pt"
FRAME = "640 x 480"
MIXED = "mixed 0.5 to 4 MP"
PHOTOGRAPHS = 64
_BUDGET = 1 << 30


class Kit:
    """What the parts share: the device, a model file of random weights, and photographs of two kinds."""

    def __init__(self, out: Path, photos: Path | None, *, rehearse: bool) -> None:
        self.out = out
        self.rehearse = rehearse
        self.device = "cpu" if rehearse else "cuda:0"
        self._photos = photos

    @cached_property
    def model(self) -> Path:
        """The model file; made once a machine."""
        from udfs.weights import build_model_file, resolve_weights

        if not _MODEL.exists():
            build_model_file(resolve_weights("random", cache_dir=_MODEL.parent / "face-reindex-cache"), _MODEL)
        return _MODEL

    def photos(self, kind: str) -> list[bytes]:
        """JPEGs of one kind."""
        count = 8 if self.rehearse else PHOTOGRAPHS
        if self._photos:
            files = sorted((self._photos / folder_of(kind)).glob("*.jpg"))[:count]
            return [file.read_bytes() for file in files]
        return make(kind, count)

    def views(self, kind: str, count: int) -> list[Any]:
        """What detection sees of the first photographs."""
        from udfs.decode import decode, detection_view
        from udfs.params import PipelineParams

        params = PipelineParams()
        return [detection_view(decode(c, params), params).pixels for c in (self.photos(kind) * 2)[:count]]

    def nets(self, dtype: str = "float32") -> Any:
        """The networks on the device."""
        from udfs.nets import build_nets, read_model_file

        return build_nets(read_model_file(self.model), device=self.device, dtype=dtype)

    def wait(self) -> None:
        """Until the device has done all."""
        if not self.rehearse:
            torch.cuda.synchronize()

    def milliseconds(self, work: Callable[[], object], times: int = 12) -> float:
        """The median of ``times``, after two to warm up."""
        taken = []
        for number in range(2 + (1 if self.rehearse else times)):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            if number >= 2:
                taken.append(1000 * (time.perf_counter() - begin))
        return round(statistics.median(taken), 4)


def setting(*, rehearse: bool) -> Figures:
    """What the parts measure on, for the record."""
    return {
        "photographs": {FRAME: "made, of a video frame's size", MIXED: "made, as in bench/results/pipeline.json"},
        "photographs_of_each": 8 if rehearse else PHOTOGRAPHS,
        "weights": "random",
        "rehearsal": rehearse,
        "end_to_end": "JPEGs in memory to embeddings, after a first pass over all; batches as they are by default",
    }


def folder_of(kind: str) -> str:
    """The folder of a kind of photographs in the kit."""
    return re.sub(r"\W+", "-", kind)


def make(kind: str, count: int) -> list[bytes]:
    """Photographs as the other benchmarks have them; the fixed size is a video frame's."""
    from bench import photos

    mix = photos.MIXED if kind == MIXED else replace(photos.MIXED, name=FRAME, size=(640, 480))
    return [photo.content for photo in photos.make_photos(mix, count)]


def machine(kit: Kit) -> Figures:
    """What was measured on."""
    import torchvision

    told: Figures = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cores": os.cpu_count(),
    }
    if not kit.rehearse:
        from udfs.cuda import Kernels

        begin = time.perf_counter()
        Kernels(torch.device(kit.device))
        told |= {
            "gpu": torch.cuda.get_device_name(0),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "kernels compiled, s": round(time.perf_counter() - begin, 2),
        }
    kit.model.stat()
    return told


def tests(kit: Kit) -> Figures:
    """tests/gpu: boxes, batches, vectors, kernels. A test that fails is a part that failed; on a GPU so is no test."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider", "--tb=short",
               "--show-capture=no"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (kit.out / "tests.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return verdict(counts, failures, code=done.returncode, rehearse=kit.rehearse)


def verdict(counts: dict[str, int], failures: list[str], *, code: int, rehearse: bool) -> Figures:
    """What pytest counted, by its words, and in which sense the tests failed. In a rehearsal all may be skipped."""
    passed, wrong = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
    figures: Figures = {"passed": passed, "failed_tests": wrong, "skipped": counts.get("skipped", 0), "names": failures}
    if wrong:
        figures["failed"] = f"{wrong} of {passed + wrong} tests failed: see tests.txt"
    elif code or not counts:
        figures["failed"] = f"pytest ended with exit code {code}: see tests.txt"
    elif not passed and not rehearse:
        figures["failed"] = "no test passed: see tests.txt"
    return figures


def cold_and_warm(kit: Kit) -> Figures:
    """The same pictures of many sizes twice, each a call by itself: what a size costs that was not met before."""
    from udfs.detect import Detector
    from udfs.params import PipelineParams

    detector, views = Detector(kit.nets(), PipelineParams()), kit.views(MIXED, 8 if kit.rehearse else 64)
    detector.detect([views[0][:300, :300].copy()])
    figures: Figures = {"sizes": len({view.shape for view in views})}
    for name in ("first", "second", "third"):
        kit.wait()
        begin = time.perf_counter()
        for view in views:
            detector.detect([view])
        kit.wait()
        figures[f"{name} time, ms a picture"] = round(1000 * (time.perf_counter() - begin) / len(views), 3)
    return figures


def profile(kit: Kit) -> Figures:
    """Launches, waits and busy share of detection by batch, and the longest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from udfs.detect import Detector
    from udfs.params import PipelineParams

    detector = Detector(kit.nets(), PipelineParams())
    figures: Figures = {}
    for kind in (FRAME, MIXED):
        for batch in (8, 32, 64):
            views = kit.views(kind, 2 if kit.rehearse else batch)
            key = f"{kind}, batch {batch}"
            figures[f"{key}: ms an image"] = round(kit.milliseconds(partial(detector.detect, views), 5) / len(views), 4)
            activities = [ProfilerActivity.CPU] if kit.rehearse else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
            with profiled(activities=activities) as seen:
                detector.detect(views)
                kit.wait()
            figures |= {f"{key}: {name}": value for name, value in _counted(seen, len(views)).items()}
    return figures


def _counted(seen: Any, batch: int) -> Figures:
    averages = seen.key_averages()
    calls = {entry.key: entry.count for entry in averages}
    kernels = [
        event for event in seen.events() if str(event.device_type).endswith("CUDA") and event.device_time_total > 0
    ]
    longest: dict[str, float] = {}
    for event in kernels:
        longest[event.name[:60]] = longest.get(event.name[:60], 0.0) + event.device_time_total
    top = sorted(longest.items(), key=lambda item: -item[1])[:6]
    return {
        "launches": sum(count for name, count in calls.items() if "LaunchKernel" in name or "GraphLaunch" in name),
        "waits": sum(calls.get(name, 0) for name in ("cudaStreamSynchronize", "cudaEventSynchronize")),
        "copies": calls.get("cudaMemcpyAsync", 0),
        "device us an image": round(sum(longest.values()) / batch, 1),
        "longest, us an image": {name: round(value / batch, 1) for name, value in top},
    }


def pnet(kit: Kit) -> Figures:
    """P-Net by our kernel, and by cuDNN level by level and on canvases of one shape."""
    from udfs.detect import engine_for
    from udfs.device import full_float32
    from udfs.pyramid import HEIGHT, IMAGE, WIDTH, levels

    nets, count = kit.nets(), 2 if kit.rehearse else 32
    views = kit.views(FRAME, count)
    engine = engine_for(nets)
    found = levels([(view.shape[0], view.shape[1]) for view in views], 20, 0.709)
    figures: Figures = {"cells an image": found.cells // count, "pixels of levels an image": found.pixels // count}
    with torch.inference_mode(), full_float32():
        pixels = engine.load(views)
        figures["pyramid and P-Net, ours ms an image"] = round(
            kit.milliseconds(lambda: engine.propose(pixels, found, engine.upload(found.table))) / count, 4
        )
        shapes = [(int(row[HEIGHT]), int(row[WIDTH])) for row in found.table if row[IMAGE] == 0]
        for name, layout in (("NHWC", torch.channels_last), ("NCHW", torch.contiguous_format)):
            stacks = [_noise((count, 3, *shape), kit, layout) for shape in shapes]
            by_level = kit.milliseconds(partial(_each, nets.pnet, stacks)) / count
            figures[f"P-Net alone, by level, {name} ms an image"] = round(by_level, 4)
            canvas = _noise((1 if kit.rehearse else 4, 3, 1024, 1024), kit, layout)
            # Packed with gaps, levels take 1.27 times their pixels.
            images = canvas[:, 0].numel() / (1.27 * found.pixels / count)
            on_canvas = kit.milliseconds(partial(nets.pnet, canvas)) / images
            figures[f"P-Net alone, on canvases, {name} ms an image"] = round(on_canvas, 4)
    return figures


def _each(net: Callable[[torch.Tensor], object], stacks: Sequence[torch.Tensor]) -> None:
    for stack in stacks:
        net(stack)


def _noise(shape: tuple[int, ...], kit: Kit, layout: torch.memory_format) -> torch.Tensor:
    return (torch.rand(shape, device=kit.device) * 255).contiguous(memory_format=layout)


def passes(kit: Kit) -> Figures:
    """R-Net, O-Net and the embedding network in passes of one shape: sizes, types, and CUDA graphs."""
    from udfs.device import full_float32
    from udfs.embed import Embedder, _Graph
    from udfs.params import PipelineParams

    figures: Figures = {}
    nets, half = kit.nets(), kit.nets("bfloat16")
    sizes: dict[str, tuple[int, ...]] = {"rnet": (256, 1024, 2048), "onet": (64, 256, 512)}
    with torch.inference_mode():
        for name, counts in sizes.items():
            side = {"rnet": 24, "onet": 48}[name]
            for count in counts[: 1 if kit.rehearse else 3]:
                pixels = _noise((count, 3, side, side), kit, torch.channels_last)
                with full_float32():
                    figures[f"{name} {count}, us a box"] = round(
                        1000 * kit.milliseconds(partial(getattr(nets, name), pixels)) / count, 3
                    )
        for dtype, own in (("float32", nets), ("bfloat16", half)):
            for count in (2,) if kit.rehearse else (64, 256, 1024):
                embedder = Embedder(own, PipelineParams(dtype=dtype), batch=count)
                crops = torch.randint(0, 256, (count, 160, 160, 3), dtype=torch.uint8, device=kit.device)
                with full_float32():
                    eager = kit.milliseconds(partial(embedder._vectors, crops), 6)
                    figures[f"embedding, {dtype} {count}, crops/s"] = round(1000 * count / eager)
                    if not kit.rehearse:
                        graph = _Graph(embedder._vectors, crops)
                        taken = kit.milliseconds(partial(graph, crops), 6)
                        figures[f"embedding, {dtype} {count}, as a graph, crops/s"] = round(1000 * count / taken)
        if not kit.rehearse:
            torch.backends.cuda.matmul.allow_tf32 = True
            embedder = Embedder(nets, PipelineParams(), batch=256)
            crops = torch.randint(0, 256, (256, 160, 160, 3), dtype=torch.uint8, device=kit.device)
            taken = kit.milliseconds(lambda: embedder._vectors(crops), 6)
            figures["embedding, TF32 256 (not offered), crops/s"] = round(256_000 / taken)
    return figures


def end_to_end(kit: Kit) -> Figures:
    """JPEGs to embeddings by whole pipelines: processes on one GPU, decode threads, types."""
    ways: Sequence[tuple[str, int, int, Figures]] = (
        (FRAME, 1, 12, {}),
        (FRAME, 1, 6, {}),
        (FRAME, 2, 7, {}),
        (FRAME, 4, 4, {}),
        (MIXED, 4, 4, {}),
        (MIXED, 1, 14, {}),
        (FRAME, 4, 4, {"dtype": "bfloat16"}),
        (MIXED, 4, 4, {"dtype": "bfloat16"}),
        (FRAME, 8, 2, {}),
        (MIXED, 8, 2, {}),
    )
    return _rates(kit, ways[:: 4 if kit.rehearse else 1], "end_to_end.json")


def with_mps(kit: Kit) -> Figures:
    """The same by several processes under NVIDIA's multi-process service, by which their kernels run side by side."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None or kit.rehearse:
        return {"not measured": "no nvidia-cuda-mps-control here" if control is None else "a rehearsal"}
    with tempfile.TemporaryDirectory() as folder:
        # The service's own files only: the device's settings stay as they are.
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run([control, "-d"], check=True)
        try:
            ways: Sequence[tuple[str, int, int, Figures]] = (
                (FRAME, 4, 4, {}),
                (FRAME, 8, 2, {}),
                (FRAME, 8, 2, {"dtype": "bfloat16"}),
                (MIXED, 8, 2, {"dtype": "bfloat16"}),
            )
            return _rates(kit, ways, "with_mps.json")
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False)


def _rates(kit: Kit, ways: Sequence[tuple[str, int, int, Figures]], file: str) -> Figures:
    figures: Figures = {}
    with _Workers(kit, 1 if kit.rehearse else 8) as workers:
        for kind, processes, threads, params in ways:
            name = f"{kind}, {processes} processes of {threads} threads" + "".join(f", {v}" for v in params.values())
            told = workers.run(kind, 1 if kit.rehearse else processes, threads, params)
            figures |= {f"{name} images/s": told["rate"], f"{name}: faces an image": told["faces"],
                        f"{name}: busy": told["busy"]}  # fmt: skip
            (kit.out / file).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


class _Workers:
    """Processes that stay, for starting one takes ten seconds; each has a pipeline for the way that is measured."""

    def __init__(self, kit: Kit, count: int) -> None:
        context = get_context("spawn")
        photos = {kind: kit.photos(kind) for kind in (FRAME, MIXED)}
        kit.model.stat()
        self._rehearse = kit.rehearse
        self._jobs = [context.Queue() for _ in range(count)]
        self._told = context.Queue()
        self._processes = [
            context.Process(target=_worker, args=(kit.device, str(kit.model), photos, jobs, self._told), daemon=True)
            for jobs in self._jobs
        ]

    def __enter__(self) -> _Workers:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()

    def run(self, kind: str, processes: int, threads: int, params: Figures) -> Figures:
        """Begin together, once each has seen every picture; the rate is of the whole time."""
        times = 1 if self._rehearse else max(1, (24 if kind == FRAME else 8) // processes)
        for jobs in self._jobs[:processes]:
            jobs.put((kind, threads, params, times))
        for _ in range(processes):
            self._told.get(timeout=100)
        for jobs in self._jobs[:processes]:
            jobs.put("go")
        told = [self._told.get(timeout=100) for _ in range(processes)]
        images = sum(one["images"] for one in told)
        seconds = max(one["end"] for one in told) - min(one["begin"] for one in told)
        return {
            "rate": round(images / seconds, 1),
            "faces": round(sum(one["faces"] for one in told) / images, 2),
            "busy": round(sum(one["busy"] for one in told) / sum(one["end"] - one["begin"] for one in told), 2),
        }


def _worker(device: str, model: str, photos: dict[str, list[bytes]], jobs: Any, told: Any) -> None:
    while True:
        kind, threads, params, times = jobs.get()
        pipeline, items = _pipeline(device, model, photos[kind], threads, params)
        list(pipeline.run(items))
        told.put("ready")
        jobs.get()
        begin, faces, busy = time.time(), 0, 0.0
        for result in pipeline.run(items * times):
            faces += len(result.faces)
            busy += result.network_s
        told.put({"images": len(items) * times, "faces": faces, "busy": busy, "begin": begin, "end": time.time()})
        del pipeline
        torch.cuda.empty_cache()


def _pipeline(device: str, model: str, photos: Sequence[bytes], threads: int, params: Figures) -> tuple[Any, list[Any]]:
    from udfs.coverage import CoveredPrincipal
    from udfs.device import Placement
    from udfs.params import PipelineParams
    from udfs.pipeline import Pipeline
    from udfs.results import ImageInput

    torch.set_num_threads(1)
    covered = tuple(CoveredPrincipal(f"r{number}", f"p{number}") for number in range(9))
    pipeline = Pipeline(
        model, PipelineParams(**params), placement=Placement(device), decode_threads=threads, queue_bytes=_BUDGET
    )
    return pipeline, [ImageInput(str(n), content, covered=covered) for n, content in enumerate(photos)]


def host(kit: Kit) -> Figures:
    """Detection alone, and beside threads that decode: what threads that share Python's lock cost a GPU."""
    from udfs.detect import AT_ONCE, Detector
    from udfs.params import PipelineParams

    detector, views = Detector(kit.nets(), PipelineParams()), kit.views(FRAME, 2 if kit.rehearse else 64)
    photos, times = kit.photos(FRAME), 1 if kit.rehearse else 8

    def search() -> None:
        for _ in range(times):
            detector.detect(views)

    figures: Figures = {}
    for searching, decoding in ((AT_ONCE, 0), (1, 0), (AT_ONCE, 0), (AT_ONCE, 4), (AT_ONCE, 8)):
        done = threading.Event()
        decoders = [threading.Thread(target=_decode_until, args=(done, photos)) for _ in range(decoding)]
        lanes = [threading.Thread(target=search) for _ in range(searching)]
        for thread in decoders:
            thread.start()
        kit.wait()
        begin = time.perf_counter()
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        kit.wait()
        seconds = time.perf_counter() - begin
        done.set()
        for thread in decoders:
            thread.join()
        # The first way is measured twice: what it says the first time is of a cold device.
        figures[f"detection by {searching} threads beside {decoding} that decode, images/s"] = round(
            len(views) * times * searching / seconds
        )
    return figures


def _decode_until(done: threading.Event, photos: Sequence[bytes]) -> None:
    from udfs.decode import decode, detection_view
    from udfs.params import PipelineParams

    params = PipelineParams()
    for content in cycle(photos):
        if done.is_set():
            return
        detection_view(decode(content, params), params)


def copies(kit: Kit) -> Figures:
    """Copies to the device, what the processor decodes, and nvJPEG, which is not offered: its rate, and its race."""
    figures: Figures = {}
    for kind in (FRAME, MIXED):
        for threads in (1, 8, 12, 16):
            figures[f"decoded and shrunk, {kind}, {threads} threads, images/s"] = _decoded(kit.photos(kind), threads)
    if kit.rehearse:
        return figures
    pinned, pageable = torch.empty(1 << 26, dtype=torch.uint8, pin_memory=True), torch.empty(1 << 26, dtype=torch.uint8)
    target = torch.empty(1 << 26, dtype=torch.uint8, device=kit.device)
    for name, source in (("pinned", pinned), ("pageable", pageable)):
        figures[f"to the device, {name}, GB/s"] = round(
            0.0671 / kit.milliseconds(partial(target.copy_, source, non_blocking=True)) * 1000, 1
        )
    from torchvision.io import ImageReadMode, decode_jpeg

    for kind in (FRAME, MIXED):
        coded = [torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for content in kit.photos(kind)]
        taken = kit.milliseconds(partial(decode_jpeg, coded, mode=ImageReadMode.RGB, device=kit.device), 4)
        figures[f"nvJPEG, {kind}, lists of {len(coded)}, images/s"] = round(1000 * len(coded) / taken)
    figures["race, of 150"] = _race(coded[0], kit.device)
    return figures


def _decoded(photos: Sequence[bytes], threads: int) -> int:
    from udfs.decode import decode, detection_view
    from udfs.params import PipelineParams

    params = PipelineParams()
    work = list(photos) * (2 if threads > 1 else 1)

    def one(content: bytes) -> int:
        return int(detection_view(decode(content, params), params).pixels.size)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, work[:threads]))
        begin = time.perf_counter()
        list(pool.map(one, work))
    return round(len(work) / (time.perf_counter() - begin))


def _race(coded: torch.Tensor, device: str) -> int:
    """Pictures that differ from the first where memory is used again while the caller's stream is busy."""
    from torchvision.io import ImageReadMode, decode_jpeg

    expected = decode_jpeg(coded, mode=ImageReadMode.RGB, device=device)
    torch.cuda.synchronize()
    expected = expected.clone()
    wrong = 0
    work = torch.rand(4096, 4096, device=device)
    for _ in range(150):
        used = torch.zeros(expected.shape, dtype=torch.uint8, device=device)
        for _ in range(6):
            work = work @ work
            work /= work.abs().max()
        used.fill_(7)
        del used
        wrong += not torch.equal(decode_jpeg(coded, mode=ImageReadMode.RGB, device=device), expected)
    return wrong


@dataclass(frozen=True)
class Part:
    """A measurement, and the seconds that it may take."""

    measure: Callable[[Kit], Figures]
    limit_s: float


PARTS = {
    "machine": Part(machine, 40),
    "tests": Part(tests, 90),
    "end_to_end": Part(end_to_end, 110),
    "with_mps": Part(with_mps, 60),
    "host": Part(host, 40),
    "profile": Part(profile, 40),
    "pnet": Part(pnet, 30),
    "passes": Part(passes, 40),
    "copies": Part(copies, 40),
    "cold_and_warm": Part(cold_and_warm, 30),
}
