"""Images in, faces or a reason out: read, decode, detect, decide, embed. No Spark here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from udfs.arrays import Float32, UInt8
from udfs.busy import BusyClock
from udfs.coverage import CoveredPrincipal
from udfs.cuda import CudaError
from udfs.decode import Decoded, DecodeFailure, DetectionView, decode, detection_view, factor_for
from udfs.detect import AT_ONCE, Detections, Detector
from udfs.device import (
    DeviceUnavailable,
    MemoryShort,
    Placement,
    check_compiler,
    check_float32,
    device_failed,
    float32_losses,
    memory_short,
    unavailable,
)
from udfs.embed import Embedder
from udfs.fingerprint import FingerprintMismatch, model_fingerprint
from udfs.nets import ModelFile, build_nets, read_model_file
from udfs.params import MIB, PipelineParams, check_sight
from udfs.prefetch import ByteBudget, ByteRoom, map_ahead
from udfs.reading import ReadFailure, read_bytes, unread_reason
from udfs.results import Dropped, Face, ImageInput, ImageResult
from udfs.selection import Selection, select_faces, to_stored
from udfs.turns import Turns

log = logging.getLogger(__name__)

# Images that wait for their embeddings hold crops, not pictures; past this many, a pass runs part full.
_MAX_WAITING = 512
# Pixels of one picture that are kept for its crops while it is searched.
_MOST_KEPT = 64 * MIB
_NO_DROPS = Dropped()
# What says something of the bytes, and not of the way to them.
_READ_STATUS = {"TOO_LARGE_BYTES": "too_large", "NOT_AN_IMAGE": "broken"}


@dataclass
class _InFlight:
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

    def bytes_held(self) -> int:
        arrays = {id(one.pixels): one.pixels.nbytes for one in (self.decoded, self.view) if one is not None}
        return sum(arrays.values()) + len(self.data or b"")


@dataclass(frozen=True)
class _Passes:
    """How a step's images are cut into passes, and what makes these smaller (or raises, where nothing can)."""

    cut: Callable[[Sequence[_InFlight]], list[list[_InFlight]]]
    halve: Callable[[Sequence[_InFlight], MemoryShort], None]


class Pipeline:
    """The networks of one model file with the parameters of one run, ready for any number of images.

    * ``decode_threads``: threads that read and decode ahead of detection, and as many that cut out faces behind it.
    * ``detect_batch``: images in one detection call, fewer where they are large; 0 is what was found fastest: 16 on a
      processor, 64 on a GPU.
    * ``embed_batch``: faces in one embedding pass, gathered from many images; 0 is what was found fastest: 16 on a
      processor, whose caches hold no more, 256 on a GPU.
    * ``queue_bytes``: decoded pixels that may wait; exceeded by at most one image a thread.
    * ``compiled``: let torch.compile generate the embedding network's code; a minute at the start, and a C++ compiler
      on a processor.
    * ``central_only``: a picture's records are about its most central person, and nobody else in it is embedded. For
      evaluation, where pictures are labelled so; in the index such a picture has bystanders and yields nothing.
    * ``roots``: folders and ``s3://bucket/prefix`` that ``uri`` may be read from, besides an image's own ``root``.
    * ``boxes_only``: records without a box cover nobody (``governance.coverage: box``, which the gate decides before).
    * ``expected_fingerprint``: raise `FingerprintMismatch` where the loaded model has another.

    Raises ``ValueError`` for a detector that sees less than by default (`check_sight`), or where ``compiled`` on a GPU
    would find no C compiler; `ReducedPrecision` for a GPU that rounds float32 to fewer bits.
    """

    def __init__(
        self,
        model_file: str | Path,
        params: PipelineParams | None = None,
        *,
        placement: Placement | None = None,
        decode_threads: int = 2,
        embed_batch: int = 0,
        detect_batch: int = 0,
        queue_bytes: int = 256 * MIB,
        read_timeout_s: float = 30.0,
        read_retries: int = 2,
        store_patience_s: float = 0.0,
        compiled: bool = False,
        central_only: bool = False,
        roots: Sequence[str] = (),
        boxes_only: bool = False,
        expected_fingerprint: str | None = None,
    ) -> None:
        self.params = params or PipelineParams()
        check_sight(self.params)
        self.placement = placement or Placement("cpu")
        if self.placement.on_gpu and compiled:
            check_compiler()
        model = read_model_file(model_file)
        self.meta = model.meta
        self.fingerprint = model_fingerprint(model.state_dicts, self.params)
        if expected_fingerprint is not None and expected_fingerprint != self.fingerprint:
            raise FingerprintMismatch(expected_fingerprint, self.fingerprint)
        self._turns, self._busy = Turns(), BusyClock()
        self._detector, self._embedder = self._built(model, embed_batch, compiled=compiled)
        self._detection = _Passes(lambda images: list(self._batches(images)), self._halve_detection)
        # The embedder itself cuts the faces that it is given.
        self._embedding = _Passes(lambda images: [list(images)], self._halve_embedding)
        self._detect_batch = detect_batch or (64 if self.placement.on_gpu else 16)
        self._detect_pixels = self._detect_batch * max(self.params.detection_long_side, 640) ** 2
        self._decode_threads = decode_threads
        self._room = ByteRoom(self.params.max_decode_bytes)
        self._queue_bytes = queue_bytes
        self._read_timeout_s = read_timeout_s
        self._read_retries = read_retries
        self._store_patience_s = store_patience_s
        self._central_only = central_only
        self._roots = tuple(roots)
        self._boxes_only = boxes_only

    @property
    def embedder(self) -> Embedder:
        """What cuts out and embeds its faces: to measure it by itself, while nothing else runs."""
        return self._embedder

    def _built(self, model: ModelFile, embed_batch: int, *, compiled: bool) -> tuple[Detector, Embedder]:
        """The networks on their device; whatever is compiled or recorded is so now, and not on the first images."""
        device = self.placement.device
        try:
            if self.placement.on_gpu:
                check_float32(float32_losses(torch.device(device)))
            nets = build_nets(model, device=device, dtype=self.params.dtype, compiled=compiled)
            detector = Detector(nets, self.params)
            embedder = Embedder(nets, self.params, batch=embed_batch or (256 if self.placement.on_gpu else 16))
        except Exception as error:
            short = memory_short(error, device)
            if short is None and isinstance(error, (torch.AcceleratorError, CudaError)):
                raise DeviceUnavailable(unavailable(f"{device}: {error}", self.placement.gpu_addresses)) from None
            if short is None:
                raise
        else:
            self._prepare(embedder)
            return detector, embedder
        raise short

    def _prepare(self, embedder: Embedder) -> None:
        """Compile or record the embedder's pass, at half its size where memory is short."""
        while True:
            try:
                with self._turns.alone():
                    embedder.prepare()
                return
            except Exception as error:
                short = memory_short(error, self.placement.device)
                if short is None:
                    raise
            torch.cuda.empty_cache()
            self._halve(embedder, short)

    def run(self, items: Iterable[ImageInput]) -> Iterator[ImageResult]:
        """One result for each image, in order. No image raises; a broken device or source of items does.

        Images without a covered principal are neither read nor decoded. Where memory is short, passes are halved, for
        good; raises `DeviceMemoryError` or `HostMemoryError` where a single image or face does not fit.
        """
        before = time.perf_counter()
        for image in self._ended(items):
            now = time.perf_counter()
            yield self._result(image, now - before)
            before = now

    def rest(self) -> None:
        """Give back what memory of the device it takes little time to have again; the next run has it again."""
        self._embedder.release()
        with torch.cuda.device(self.placement.device) if self.placement.on_gpu else nullcontext():
            torch.cuda.empty_cache()

    def _ended(self, items: Iterable[ImageInput]) -> Iterator[_InFlight]:
        if not self._embedder.prepared:
            self._prepare(self._embedder)
        budget = ByteBudget(self._queue_bytes)
        loaded = map_ahead(
            self._load,
            items,
            threads=self._decode_threads,
            ahead=self._detect_batch + 2 * self._decode_threads,
            budget=budget,
            size_of=_InFlight.bytes_held,
        )
        queue: deque[_InFlight] = deque()
        faces: deque[tuple[_InFlight, int]] = deque()
        with closing(loaded), ThreadPoolExecutor(self._decode_threads, thread_name_prefix="crop") as cutters:
            for batch, bytes_held in self._found(loaded, cutters):
                for image in batch:
                    # From here on only crops are kept.
                    image.data = image.decoded = image.view = None
                    queue.append(image)
                    faces.extend((image, row) for row in range(0 if image.crops is None else len(image.crops)))
                budget.add(-bytes_held)
                while len(faces) >= self._embedder.batch or (faces and len(queue) > _MAX_WAITING):
                    self._embed_some(faces)
                while queue and queue[0].complete:
                    yield queue.popleft()
            while faces:
                self._embed_some(faces)
            yield from queue

    def _found(self, loaded: Iterable[_InFlight], cutters: Executor) -> Iterator[tuple[list[_InFlight], int]]:
        """Batches with their crops, and the bytes they held; faces are cut out while the next batch is searched.

        A GPU has two batches at once: while it computes one, the processor does its part of the other.
        """
        under_way: deque[tuple[list[_InFlight], int, Future[list[Future[None]]]]] = deque()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="search") as lanes:
            for batch in self._batches(loaded):
                bytes_held = sum(image.bytes_held() for image in batch)
                if self.placement.on_gpu:
                    searched = lanes.submit(self._searched, batch, cutters)
                else:
                    searched = Future()
                    searched.set_result(self._searched(batch, cutters))
                under_way.append((batch, bytes_held, searched))
                if len(under_way) > (AT_ONCE if self.placement.on_gpu else 1):
                    yield _done(under_way.popleft())
            yield from map(_done, under_way)

    def _searched(self, batch: Sequence[_InFlight], cutters: Executor) -> list[Future[None]]:
        """Find the faces of a batch; what is returned is their being cut out."""
        self._apart_if_needed(self._find, [image for image in batch if image.ending is None], self._detection)
        return [cutters.submit(self._cut, image) for image in batch if image.ending is None]

    def _load(self, item: ImageInput) -> _InFlight:
        """Read and decode; runs on the decode threads."""
        image = self._begun(item)
        if image.ending is None:
            self._alone_if_needed(image, partial(self._read, image, item))
        if image.ending is None:
            self._alone_if_needed(image, partial(self._view, image))
        return image

    def _begun(self, item: ImageInput) -> _InFlight:
        covered = tuple(r for r in item.covered if r.box is not None) if self._boxes_only else item.covered
        # Default deny, and before the bytes: a refused image is never opened.
        return _InFlight(item.image_id, covered, None if covered else ("uncovered_faces", "NO_COVERED_RECORD"))

    def _read(self, image: _InFlight, item: ImageInput, _: ByteRoom | None) -> None:
        if item.content is None and (known := unread_reason(item.content_sha256)):
            # No permission was given for bytes that nobody had read: `ingest` has to read them first.
            raise ReadFailure(known)
        image.data = read_bytes(
            item.content,
            item.uri,
            timeout_s=self._read_timeout_s,
            retries=self._read_retries,
            patience_s=self._store_patience_s,
            max_bytes=self.params.max_bytes,
            content_sha256=item.content_sha256,
            roots=(*self._roots, *((item.root,) if item.root else ())),
        )
        image.byte_size = len(image.data)

    def _view(self, image: _InFlight, room: ByteRoom | None) -> None:
        """What detection sees of an image, and its pixels for crops."""
        if image.data is None:
            raise RuntimeError("an image without bytes reached decoding")
        data = image.data
        decoded = decode(data, self.params, room=room)
        image.size = (decoded.width, decoded.height)
        image.view = detection_view(decoded, self.params)
        # A picture so large would fill the queue by itself: its pixels are made again if there are faces.
        again = decoded.pixels.nbytes > _MOST_KEPT
        image.decoded, image.factor = None if again else decoded, round(1 / decoded.scale)
        image.data = data if again or decoded.scale < 1 else None

    def _alone_if_needed(self, image: _InFlight, work: Callable[[ByteRoom | None], None]) -> None:
        """``work`` on one image, which ends where it fails. Where memory is short, once more while nobody else decodes.

        ``work`` waits for memory in the room that it is given; there is none where it has all of it. Raises
        `MemoryShort` where that is not enough, for it says nothing of the image.
        """
        short = self._tried(image, work, self._room)
        if short is None:
            return
        with self._room.taken(self.params.max_decode_bytes):
            short = self._tried(image, work, None)
        if short is not None:
            raise short

    def _tried(
        self, image: _InFlight, work: Callable[[ByteRoom | None], None], room: ByteRoom | None
    ) -> MemoryShort | None:
        try:
            work(room)
        except Exception as error:  # one image must not end the run
            short = memory_short(error, self.placement.device)
            if short is not None:
                return short
            image.ending, image.data = _ending(error), None
        return None

    def _batches(self, images: Iterable[_InFlight]) -> Iterator[list[_InFlight]]:
        """Lists of images whose pixels make one detection call; those that ended already come along."""
        batch: list[_InFlight] = []
        pictures = pixels = bytes_held = 0
        for image in images:
            area = 0 if image.view is None else image.view.pixels.shape[0] * image.view.pixels.shape[1]
            if batch and pixels + area > self._detect_pixels:
                yield batch
                batch, pictures, pixels, bytes_held = [], 0, 0, 0
            batch.append(image)
            pictures, pixels = pictures + (image.view is not None), pixels + area
            bytes_held += image.bytes_held()
            if (
                pictures >= self._detect_batch
                or len(batch) >= 8 * self._detect_batch
                or bytes_held >= self._queue_bytes
            ):
                yield batch
                batch, pictures, pixels, bytes_held = [], 0, 0, 0
        if batch:
            yield batch

    def _find(self, images: Sequence[_InFlight]) -> None:
        """Detect, and decide which faces may be embedded."""
        pairs = [(image, image.view) for image in images]
        views = [view.pixels for _, view in pairs if view is not None]
        found, seconds = self._busy.timed(lambda: self._detector.detect(views))
        for (image, view), faces in zip(pairs, found, strict=True):
            if view is None:
                raise RuntimeError("an image without pixels reached detection")
            image.network_s += seconds / len(pairs)
            boxes = to_stored(faces.boxes, view.scale_x, view.scale_y)
            middle = (image.size[0] / 2, image.size[1] / 2) if self._central_only and image.size else None
            chosen = select_faces(boxes, faces.confidence, image.covered, self.params, middle=middle)
            image.selection = chosen
            keep = list(chosen.keep)
            if not keep:
                image.ending = (chosen.status, chosen.reason)
                continue
            points = to_stored(faces.landmarks[keep], view.scale_x, view.scale_y)
            image.found = Detections(boxes[keep], points, faces.confidence[keep])

    def _cut(self, image: _InFlight) -> None:
        """Cut the faces out; runs on the crop threads."""
        self._alone_if_needed(image, partial(self._crop, image))

    def _crop(self, image: _InFlight, room: ByteRoom | None) -> None:
        """The crops of an image's faces. Where the pixels are too few for a face, from finer ones."""
        if image.found is None:
            raise RuntimeError("an image without faces reached the crops")
        boxes, decoded = image.found.boxes.astype(np.float64), image.decoded
        factor = factor_for(float((boxes[:, 2:] - boxes[:, :2]).min()), self.params)
        if image.data is not None and (decoded is None or factor < image.factor):
            decoded = decode(image.data, self.params, factor=min(factor, image.factor), room=room)
        if decoded is None:
            raise RuntimeError("an image without pixels reached the crops")
        image.crops = self._embedder.crops(decoded.pixels, boxes * decoded.scale)

    def _embed_some(self, faces: deque[tuple[_InFlight, int]]) -> None:
        """One pass over the faces that have waited longest."""
        taken = [faces.popleft() for _ in range(min(len(faces), self._embedder.batch))]
        rows: dict[int, list[int]] = {}
        images: dict[int, _InFlight] = {}
        for image, row in taken:
            if image.ending is None:
                images[id(image)] = image
                rows.setdefault(id(image), []).append(row)

        def embed(part: Sequence[_InFlight]) -> None:
            crops = [image.crops[row] for image in part if image.crops is not None for row in rows[id(image)]]
            # The only step that can fail: no image is half done.
            embedded, seconds = self._busy.timed(lambda: self._embedder.embed(crops))
            vectors = iter(embedded)
            for image in part:
                own = [next(vectors) for _ in rows[id(image)]]
                image.network_s += seconds * len(own) / len(crops)
                if not all(np.isfinite(vector).all() for vector in own):
                    image.ending = ("broken", "EMBEDDING_NOT_FINITE")
                image.vectors.extend(own)

        self._apart_if_needed(embed, list(images.values()), self._embedding)

    def _apart_if_needed(
        self, work: Callable[[Sequence[_InFlight]], None], images: Sequence[_InFlight], passes: _Passes
    ) -> None:
        """Do ``work`` on all images of a pass at once; where that fails, on each alone, so that only the culprit ends.

        Where memory is short no image is the culprit: passes are made smaller, or the task ends.
        """
        if not images:
            return
        pieces = passes.cut(images)
        if len(pieces) > 1:
            for piece in pieces:
                self._apart_if_needed(work, piece, passes)
            return
        for turn in (self._turns.shared, self._turns.alone):
            try:
                with turn():
                    work(images)
                return
            except Exception as error:
                short = memory_short(error, self.placement.device)
                if short is None and device_failed(error, self.placement.device):
                    # Every further image would fail, so the task has to.
                    raise
                failure = None if short else _ending(error)
            # Outside the handler: the traceback would keep the failed batch's memory alive.
            torch.cuda.empty_cache()
            if failure:
                break
            # Short of memory: once more, with nothing else of this worker on the device.
        if short is not None:
            passes.halve(images, short)
            self._apart_if_needed(work, images, passes)
        elif len(images) == 1:
            images[0].ending = failure
        else:
            for image in images:
                self._apart_if_needed(work, [image], passes)

    def _halve_detection(self, images: Sequence[_InFlight], short: MemoryShort) -> None:
        """Halve what one detection call may hold until it cuts ``images``, for the rest of the worker's life."""
        if len(images) == 1:
            raise short
        while len(list(self._batches(images))) == 1:
            self._detect_batch, self._detect_pixels = max(1, self._detect_batch // 2), self._detect_pixels // 2
        log.warning(
            "memory was short for detection in %d images: from now on at most %d in a call, of %d pixels (%s)",
            len(images), self._detect_batch, self._detect_pixels, short.seen,
        )  # fmt: skip

    def _halve_embedding(self, _: Sequence[_InFlight], short: MemoryShort) -> None:
        self._halve(self._embedder, short)
        self._prepare(self._embedder)

    def _halve(self, embedder: Embedder, short: MemoryShort) -> None:
        """Halve the embedder's pass, for the rest of the worker's life."""
        before = embedder.batch
        if before == 1:
            raise short
        embedder.halve()
        log.warning(
            "memory was short for embedding in a pass of %d faces: from now on %d (%s)",
            before, embedder.batch, short.seen,
        )  # fmt: skip

    def _result(self, image: _InFlight, elapsed_s: float) -> ImageResult:
        width, height = image.size or (None, None)
        faces: tuple[Face, ...] = ()
        if image.ending is not None or image.found is None or image.selection is None:
            status, reason = image.ending or ("broken", "INTERNAL_NO_RESULT")
        else:
            status, reason = "embedded", ""
            found, records = image.found, image.selection.records
            columns = zip(found.boxes, found.landmarks, found.confidence, records, image.vectors, strict=True)
            faces = tuple(
                Face(index, box, points.reshape(10), float(confidence), record_ids, vector)
                for index, (box, points, confidence, record_ids, vector) in enumerate(columns)
            )
        return ImageResult(
            image.image_id,
            status,
            reason,
            width,
            height,
            faces,
            dropped=image.selection.dropped if image.selection else _NO_DROPS,
            device=self.placement.describe(),
            byte_size=image.byte_size,
            network_s=image.network_s,
            elapsed_s=elapsed_s,
        )


def _done(entry: tuple[list[_InFlight], int, Future[list[Future[None]]]]) -> tuple[list[_InFlight], int]:
    batch, bytes_held, searched = entry
    for cut in searched.result():
        cut.result()
    return batch, bytes_held


def _ending(error: Exception) -> tuple[str, str]:
    """Status and reason for a failure; of an unforeseen error its class only, for its text may quote the image."""
    if isinstance(error, DecodeFailure):
        return error.status, error.reason
    if isinstance(error, ReadFailure):
        return _READ_STATUS.get(error.reason, "unreadable"), error.reason
    log.warning("one image could not be processed: %s", type(error).__name__)
    return "broken", f"INTERNAL_{type(error).__name__}"
