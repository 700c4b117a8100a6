"""Images in, faces or a reason out: read, decode, detect, decide, embed. No Spark here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from udfs.arrays import Float32, UInt8
from udfs.coverage import CoveredPrincipal
from udfs.decode import Decoded, DecodeFailure, DetectionView, decode, decoded_or_reason, detection_view, factor_for
from udfs.detect import Detections, Detector
from udfs.device import Placement
from udfs.embed import Embedder
from udfs.fingerprint import FingerprintMismatch, model_fingerprint
from udfs.nets import build_nets, read_model_file
from udfs.nvjpeg import decode_many
from udfs.params import MIB, PipelineParams, check_sight
from udfs.prefetch import ByteBudget, ByteRoom, map_ahead
from udfs.reading import ReadFailure, read_bytes, unread_reason
from udfs.results import Dropped, Face, ImageInput, ImageResult
from udfs.selection import Selection, select_faces, to_stored

log = logging.getLogger(__name__)

# Images that wait for their embeddings hold crops, not pictures; past this many, a pass runs part full.
_MAX_WAITING = 512
# Pixels of one picture that are kept for its crops while it is searched.
_MOST_KEPT = 64 * MIB
_OUT_OF_MEMORY = (torch.cuda.OutOfMemoryError, MemoryError)
_NO_DROPS = Dropped()
# What says something of the bytes, and not of the way to them.
_READ_STATUS = {"TOO_LARGE_BYTES": "too_large", "NOT_AN_IMAGE": "broken"}


@dataclass
class _Job:
    """One image on its way through. ``ending`` (status, reason) is set as soon as it is known to end without faces."""

    image_id: str
    covered: tuple[CoveredPrincipal, ...]
    ending: tuple[str, str] | None = None
    size: tuple[int, int] | None = None
    byte_size: int = 0
    data: bytes | None = None  # only where the pixels are fewer than the file has, or were too many to keep
    factor: int = 1  # by which a JPEG was decoded smaller
    decoded: Decoded | None = None
    view: DetectionView | None = None
    selection: Selection | None = None
    found: Detections | None = None
    crops: UInt8 | None = None
    vectors: list[Float32] = field(default_factory=list)
    network_s: float = 0.0

    @property
    def complete(self) -> bool:
        return self.ending is not None or (self.crops is not None and len(self.vectors) == len(self.crops))

    def held_bytes(self) -> int:
        arrays = {id(held.pixels): held.pixels.nbytes for held in (self.decoded, self.view) if held is not None}
        return sum(arrays.values()) + len(self.data or b"")


class Pipeline:
    """The networks of one model file with the parameters of one run, ready for any number of images.

    * ``decode_threads``: threads that read and decode ahead of detection, and as many that cut out faces behind it.
    * ``detect_batch``: images in one detection call; fewer where they are large.
    * ``embed_batch``: faces in one embedding pass, gathered from many images; 0 is what was found fastest: 16 on a
      processor, whose caches hold no more, 256 on a GPU.
    * ``queue_bytes``: decoded pixels that may wait; exceeded by at most one image a thread (with nvJPEG, one batch).
    * ``compiled``: let torch.compile generate the embedding network's code; a minute at the start, and a C++ compiler
      on a processor.
    * ``central_only``: a picture's records are about its most central person, and nobody else in it is embedded. For
      evaluation, where pictures are labelled so; in the index such a picture has bystanders and yields nothing.
    * ``roots``: folders and ``s3://bucket/prefix`` that ``uri`` may be read from, besides an image's own ``root``.
    * ``boxes_only``: records without a box cover nobody (``governance.coverage: box``, which the gate decides before).
    * ``expected_fingerprint``: raise `FingerprintMismatch` where the loaded model has another.

    Raises ``ValueError`` where ``params`` ask for nvJPEG and the placement is no GPU, or for a detector that sees less
    than by default (`check_sight`).
    """

    def __init__(
        self,
        model_file: str | Path,
        params: PipelineParams | None = None,
        *,
        placement: Placement | None = None,
        decode_threads: int = 2,
        embed_batch: int = 0,
        detect_batch: int = 8,
        queue_bytes: int = 256 * MIB,
        read_timeout_s: float = 30.0,
        read_retries: int = 2,
        compiled: bool = False,
        central_only: bool = False,
        roots: Sequence[str] = (),
        boxes_only: bool = False,
        expected_fingerprint: str | None = None,
    ) -> None:
        self.params = params or PipelineParams()
        check_sight(self.params)
        self.placement = placement or Placement("cpu")
        self._nvjpeg = self.params.decoder == "nvjpeg"
        if self._nvjpeg and not self.placement.device.startswith("cuda"):
            # Its pixels differ from libjpeg-turbo's: to fall back in silence would mix two kinds of embeddings.
            raise ValueError(
                f"decoder=nvjpeg needs a GPU, and the device is {self.placement.describe()}; "
                "give the task a GPU, or set decoder to libjpeg-turbo"
            )
        model = read_model_file(model_file)
        self.meta = model.meta
        self.fingerprint = model_fingerprint(model.state_dicts, self.params)
        if expected_fingerprint is not None and expected_fingerprint != self.fingerprint:
            raise FingerprintMismatch(expected_fingerprint, self.fingerprint)
        nets = build_nets(model, device=self.placement.device, dtype=self.params.dtype, compiled=compiled)
        self._detector = Detector(nets, self.params)
        batch = embed_batch or (16 if nets.device.type == "cpu" else 256)
        self._embedder = Embedder(nets, self.params, batch=batch)
        if compiled:
            # Now, and not on the first images: a compiler that is missing must end the task, not an image.
            self._embedder.embed(np.zeros((1, self.params.crop_size, self.params.crop_size, 3), np.uint8))
        self._detect_batch = detect_batch
        self._detect_pixels = detect_batch * max(self.params.detection_long_side, 640) ** 2
        self._decode_threads = decode_threads
        self._room = ByteRoom(self.params.max_decode_bytes)
        self._queue_bytes = queue_bytes
        self._read_timeout_s = read_timeout_s
        self._read_retries = read_retries
        self._central_only = central_only
        self._roots = tuple(roots)
        self._boxes_only = boxes_only

    def run(self, items: Iterable[ImageInput]) -> Iterator[ImageResult]:
        """One result for each image, in order. No image raises; a broken device or source of items does.

        Images without a covered principal are neither read nor decoded.
        """
        before = time.perf_counter()
        for job in self._ended(items):
            now = time.perf_counter()
            yield self._result(job, now - before)
            before = now

    def _ended(self, items: Iterable[ImageInput]) -> Iterator[_Job]:
        budget = ByteBudget(self._queue_bytes)
        size = self._detect_batch if self._nvjpeg else 1
        loaded = map_ahead(
            self._load,
            _chunks(items, size),
            threads=self._decode_threads,
            ahead=self._detect_batch // size + 2 * self._decode_threads,
            budget=budget,
            size_of=lambda jobs: sum(job.held_bytes() for job in jobs),
        )
        queue: deque[_Job] = deque()
        faces: deque[tuple[_Job, int]] = deque()
        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="crop") as cutters:
            for batch, held in self._found(chain.from_iterable(loaded), cutters):
                for job in batch:
                    # From here on only crops are kept.
                    job.data = job.decoded = job.view = None
                    queue.append(job)
                    faces.extend((job, row) for row in range(0 if job.crops is None else len(job.crops)))
                budget.add(-held)
                while len(faces) >= self._embedder.batch or (faces and len(queue) > _MAX_WAITING):
                    self._embed_some(faces)
                while queue and queue[0].complete:
                    yield queue.popleft()
            while faces:
                self._embed_some(faces)
            yield from queue

    def _found(self, loaded: Iterable[_Job], cutters: Executor) -> Iterator[tuple[list[_Job], int]]:
        """Batches with their crops, and the bytes they held; faces are cut out while the next batch is searched."""
        cutting: deque[tuple[list[_Job], int, list[Future[None]]]] = deque()
        for batch in self._batches(loaded):
            held = sum(job.held_bytes() for job in batch)
            self._apart_if_needed(self._find, [job for job in batch if job.ending is None])
            futures = [cutters.submit(self._cut, job) for job in batch if job.ending is None]
            cutting.append((batch, held, futures))
            if len(cutting) > 1:
                yield _done(cutting.popleft())
        yield from map(_done, cutting)

    def _load(self, items: Sequence[ImageInput]) -> list[_Job]:
        """Read and decode; runs on the decode threads."""
        jobs = [self._read(item) for item in items]
        waiting = [(job, job.data) for job in jobs if job.data is not None]
        for (job, data), decoded in zip(waiting, self._decode([data for _, data in waiting]), strict=True):
            try:
                if isinstance(decoded, Exception):
                    raise decoded
                job.size = (decoded.width, decoded.height)
                job.view = detection_view(decoded, self.params)
                # A picture so large would fill the queue by itself: its pixels are made again if there are faces.
                again = decoded.pixels.nbytes > _MOST_KEPT
                job.decoded, job.factor = None if again else decoded, round(1 / decoded.scale)
                job.data = data if again or decoded.scale < 1 else None
            except DecodeFailure as failure:
                job.ending, job.data = (failure.status, failure.reason), None
            except Exception as error:  # one image must not end the run
                job.ending, job.data = _ending(error), None
        return jobs

    def _read(self, item: ImageInput) -> _Job:
        covered = tuple(r for r in item.covered if r.box is not None) if self._boxes_only else item.covered
        job = _Job(item.image_id, covered)
        if not covered:
            # Default deny, and before the bytes: a refused image is never opened.
            job.ending = ("uncovered_faces", "NO_COVERED_RECORD")
            return job
        try:
            if item.content is None and (known := unread_reason(item.content_sha256)):
                # No permission was given for bytes that nobody had read: `ingest` has to read them first.
                raise ReadFailure(known)
            job.data = read_bytes(
                item.content,
                item.uri,
                timeout_s=self._read_timeout_s,
                retries=self._read_retries,
                max_bytes=self.params.max_bytes,
                content_sha256=item.content_sha256,
                roots=(*self._roots, *((item.root,) if item.root else ())),
            )
            job.byte_size = len(job.data)
        except ReadFailure as failure:
            job.ending = (_READ_STATUS.get(failure.reason, "unreadable"), failure.reason)
        except Exception as error:  # one image must not end the run
            job.ending = _ending(error)
        return job

    def _decode(self, contents: Sequence[bytes]) -> list[Decoded | Exception]:
        if self._nvjpeg:
            return decode_many(contents, self.params, torch.device(self.placement.device), self._room)
        return [decoded_or_reason(content, self.params, self._room) for content in contents]

    def _batches(self, jobs: Iterable[_Job]) -> Iterator[list[_Job]]:
        """Lists of jobs whose pictures make one detection call; those that ended already come along."""
        batch: list[_Job] = []
        pictures = pixels = held = 0
        for job in jobs:
            area = 0 if job.view is None else job.view.pixels.shape[0] * job.view.pixels.shape[1]
            if batch and pixels + area > self._detect_pixels:
                yield batch
                batch, pictures, pixels, held = [], 0, 0, 0
            batch.append(job)
            pictures, pixels = pictures + (job.view is not None), pixels + area
            held += job.held_bytes()
            if pictures >= self._detect_batch or len(batch) >= 8 * self._detect_batch or held >= self._queue_bytes:
                yield batch
                batch, pictures, pixels, held = [], 0, 0, 0
        if batch:
            yield batch

    def _find(self, jobs: Sequence[_Job]) -> None:
        """Detect, and decide which faces may be embedded."""
        pairs = [(job, job.view) for job in jobs]
        begin = time.perf_counter()
        found = self._detector.detect([view.pixels for _, view in pairs if view is not None])
        seconds = (time.perf_counter() - begin) / len(pairs)
        for (job, view), faces in zip(pairs, found, strict=True):
            if view is None:
                raise RuntimeError("a job without pixels reached detection")
            job.network_s += seconds
            boxes = to_stored(faces.boxes, view.scale_x, view.scale_y)
            middle = (job.size[0] / 2, job.size[1] / 2) if self._central_only and job.size else None
            chosen = select_faces(boxes, faces.confidence, job.covered, self.params, middle=middle)
            job.selection = chosen
            keep = list(chosen.keep)
            if not keep:
                job.ending = (chosen.status, chosen.reason)
                continue
            points = to_stored(faces.landmarks[keep], view.scale_x, view.scale_y)
            job.found = Detections(boxes[keep], points, faces.confidence[keep])

    def _cut(self, job: _Job) -> None:
        """Cut the faces out; runs on the crop threads. Where the pixels are too few for a face, from finer ones."""
        if job.found is None:
            raise RuntimeError("a job without faces reached the crops")
        try:
            boxes, decoded = job.found.boxes.astype(np.float64), job.decoded
            factor = factor_for(float((boxes[:, 2:] - boxes[:, :2]).min()), self.params)
            if job.data is not None and (decoded is None or factor < job.factor):
                decoded = decode(job.data, self.params, factor=min(factor, job.factor), room=self._room)
            if decoded is None:
                raise RuntimeError("a job without pixels reached the crops")
            job.crops = self._embedder.crops(decoded.pixels, boxes * decoded.scale)
        except DecodeFailure as failure:
            job.ending = (failure.status, failure.reason)
        except Exception as error:  # one image must not end the run
            job.ending = _ending(error)

    def _embed_some(self, faces: deque[tuple[_Job, int]]) -> None:
        """One pass over the faces that have waited longest."""
        taken = [faces.popleft() for _ in range(min(len(faces), self._embedder.batch))]
        rows: dict[int, list[int]] = {}
        jobs: dict[int, _Job] = {}
        for job, row in taken:
            if job.ending is None:
                jobs[id(job)] = job
                rows.setdefault(id(job), []).append(row)

        def embed(part: Sequence[_Job]) -> None:
            crops = [job.crops[row] for job in part if job.crops is not None for row in rows[id(job)]]
            begin = time.perf_counter()
            vectors = iter(self._embedder.embed(crops))  # the only step that can fail: no job is half done
            seconds = (time.perf_counter() - begin) / len(crops)
            for job in part:
                own = [next(vectors) for _ in rows[id(job)]]
                job.network_s += seconds * len(own)
                if not all(np.isfinite(vector).all() for vector in own):
                    job.ending = ("broken", "EMBEDDING_NOT_FINITE")
                job.vectors.extend(own)

        self._apart_if_needed(embed, list(jobs.values()))

    def _apart_if_needed(self, work: Callable[[Sequence[_Job]], None], jobs: Sequence[_Job]) -> None:
        """Do ``work`` on all jobs at once; where that fails, on each alone, so that only the culprit ends."""
        if not jobs:
            return
        try:
            work(jobs)
            return
        except torch.AcceleratorError:
            # The device itself is lost: every further image would fail, so the task has to.
            raise
        except Exception as error:
            failure = _ending(error)
        # Outside the handler: the traceback would keep the failed batch's memory alive.
        if self.placement.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            jobs[0].ending = failure
            return
        for job in jobs:
            self._apart_if_needed(work, [job])

    def _result(self, job: _Job, elapsed_s: float) -> ImageResult:
        width, height = job.size or (None, None)
        faces: tuple[Face, ...] = ()
        if job.ending is not None or job.found is None or job.selection is None:
            status, reason = job.ending or ("broken", "INTERNAL_NO_RESULT")
        else:
            status, reason = "embedded", ""
            found, records = job.found, job.selection.records
            columns = zip(found.boxes, found.landmarks, found.confidence, records, job.vectors, strict=True)
            faces = tuple(
                Face(index, box, points.reshape(10), float(confidence), record_ids, vector)
                for index, (box, points, confidence, record_ids, vector) in enumerate(columns)
            )
        return ImageResult(
            job.image_id,
            status,
            reason,
            width,
            height,
            faces,
            dropped=job.selection.dropped if job.selection else _NO_DROPS,
            device=self.placement.describe(),
            byte_size=job.byte_size,
            network_s=job.network_s,
            elapsed_s=elapsed_s,
        )


def _chunks(items: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def _done(entry: tuple[list[_Job], int, list[Future[None]]]) -> tuple[list[_Job], int]:
    batch, held, futures = entry
    for future in futures:
        future.result()
    return batch, held


def _ending(error: Exception) -> tuple[str, str]:
    """Status and reason for an unforeseen error: its class only, for its text may quote the image."""
    if isinstance(error, _OUT_OF_MEMORY):
        return "too_large", "OUT_OF_MEMORY"
    log.warning("one image could not be processed: %s", type(error).__name__)
    return "broken", f"INTERNAL_{type(error).__name__}"
