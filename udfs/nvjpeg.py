"""JPEGs decoded in batches on a GPU: nvJPEG, by torchvision. What is no plain JPEG is decoded on the processor.

The answers are those of `udfs.decode.decode`, with pixels in the machine's memory: 0.9 MB for 640 × 480, which a GPU's
bus moves in 50 µs, and so everything behind decoding is the same for both. nvJPEG scales nothing while it decodes and
rounds otherwise than libjpeg-turbo, which is why the decoder is a parameter that the model fingerprint covers.

A plain JPEG that nvJPEG refuses (arithmetic coding, rare chroma subsampling, damage) is decoded on the processor, too:
that depends on the file alone, for whatever else fails is told apart from it by decoding a known picture.

torchvision (up to 0.28 at least) takes memory by the caller's stream and lets nvJPEG write to it at once, while kernels
that the caller queued before may still use it; an H100's JPEG engine does not even wait for its own stream. So each
call decodes on an idle stream of its own, whose memory nothing else uses. At the start of a process it is proven that
this holds, and that pixels are right (`prove`).

It has not run on a GPU yet. The tests show the same code with torchvision's processor decoder in nvJPEG's place.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from udfs.arrays import UInt8
from udfs.decode import Decoded, decode, decoded_or_reason, jpeg_header, upright
from udfs.params import PipelineParams
from udfs.prefetch import ByteRoom

_PIXELS_PER_CALL = 64_000_000  # 192 MB of pixels on the GPU at once, or one image
_PROOFS = 64  # pictures in the call that proves a device
_TOLERANCE = 8  # levels by which nvJPEG's pixels of a smooth picture may differ; pixels of another one differ by 100
_BUSY_CYCLES = 100_000_000  # of a GPU's clock: about 60 ms
# torchvision passes on the allocator's error, and nvJPEG's (status 5) or CUDA's (2) own, as a plain RuntimeError.
_SHORT_OF_MEMORY = re.compile(r"out of memory|not enough memory|bad_alloc|Failed to [^\n:]*: 5\b|CUDA stream: 2\b")

_idle_streams: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


class NvjpegUnusable(RuntimeError):
    """nvJPEG on this device fails, or gives wrong pixels, whatever the picture: the task has to end."""


@cache
def prove(device: torch.device) -> None:
    """Show once a process that nvJPEG on ``device`` decodes correctly while the device is busy; takes some 0.1 s.

    Work is queued that has yet to read memory which others may have by now. Then one picture is decoded many times in
    one call: all must be equal, and the work must have read what was there.

    Raises `NvjpegUnusable`.
    """
    (expected,) = _decode_known(device)
    blocks = [torch.full(expected.shape, n, dtype=torch.uint8, device=device) for n in range(_PROOFS)]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with torch.cuda.device(device):
            torch.cuda._sleep(_BUSY_CYCLES)  # type: ignore[no-untyped-call]
    sums = [block.sum() for block in blocks]
    del blocks
    if not all(np.array_equal(expected, pixels) for pixels in _decode_known(device, _PROOFS)):
        raise _unusable(device, "gives one picture different pixels in one call")
    if [int(total) for total in sums] != [n * expected.size for n in range(_PROOFS)]:
        raise _unusable(device, "writes into memory that other work still uses")


def decode_many(
    contents: Sequence[bytes], params: PipelineParams, device: torch.device, room: ByteRoom | None = None
) -> list[Decoded | Exception]:
    """Decode images together; each answers with its pixels or with the exception that `decode` raised for it.

    Raises `NvjpegUnusable` or ``torch.AcceleratorError`` where the device, and not a file, is at fault.
    """
    answers: list[Decoded | Exception | None] = [None] * len(contents)
    plain: list[tuple[int, int, int]] = []
    for index, content in enumerate(contents):
        try:
            header = jpeg_header(content, params)
        except Exception as error:
            answers[index] = error
            continue
        if header is not None:
            plain.append((index, header.orientation, header.width * header.height))
    if plain:
        prove(device)
    for group in _bounded(plain):
        pictures = _on_device([contents[index] for index, _, _ in group], device)
        for (index, orientation, _), picture in zip(group, pictures, strict=True):
            if isinstance(picture, Exception):
                answers[index] = picture
            elif picture is not None:
                turned = upright(picture, orientation)
                answers[index] = Decoded(turned, turned.shape[1], turned.shape[0], 1.0)
    return [
        decoded_or_reason(contents[n], params, room) if answer is None else answer for n, answer in enumerate(answers)
    ]


def _bounded(images: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    group: list[tuple[int, int, int]] = []
    for image in images:
        if group and sum(pixels for _, _, pixels in group) + image[2] > _PIXELS_PER_CALL:
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def _on_device(contents: Sequence[bytes], device: torch.device) -> list[UInt8 | Exception | None]:
    """Pixels [h, w, 3] of JPEGs; None for one that nvJPEG refuses, an exception where its memory is short."""
    try:
        return [*_pixels(contents, device)]
    except torch.AcceleratorError:
        raise  # the device itself is lost
    except RuntimeError as error:
        short = _is_out_of_memory(error)
    if len(contents) > 1:  # one bad file fails the whole call, without saying which
        return [_on_device([content], device)[0] for content in contents]
    # Pixels must not depend on how full the memory was: only a file that nvJPEG refuses goes to the processor.
    if short:
        return [torch.cuda.OutOfMemoryError("nvJPEG had too little memory for one image")]
    _decode_known(device)  # or it was not the file
    return [None]


def _pixels(contents: Sequence[bytes], device: torch.device) -> list[UInt8]:
    """Pixels [h, w, 3] of JPEGs; raises RuntimeError where one of them fails."""
    coded = [torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for content in contents]
    with _own_stream(device):
        # torchvision returns when its private stream has finished, and lets the current one wait for it. `cpu` waits
        # for its copy. So no wait for the whole device is needed, which would be one for detection.
        decoded = decode_jpeg(coded, mode=ImageReadMode.RGB, device=device)
        return [picture.permute(1, 2, 0).contiguous().cpu().numpy() for picture in decoded]


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Make current a stream, and with it a part of torch's memory, that nothing else uses meanwhile.

    Streams are lent, not made for each thread: threads come and go with each run, and torch keeps memory by stream.
    """
    if device.type != "cuda":
        yield
        return
    try:
        stream = _idle_streams[device].pop()
    except IndexError:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream):
            stream.synchronize()  # nvJPEG's engine does not wait for what is queued
            yield
    finally:
        _idle_streams[device].append(stream)


@cache
def _known() -> tuple[bytes, UInt8]:
    """A smooth picture as JPEG, and its pixels [192, 256, 3] by libjpeg-turbo."""
    row, column = np.mgrid[:192, :256]
    file = io.BytesIO()
    Image.fromarray(np.stack([column, row, 255 - column], axis=-1).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue(), decode(file.getvalue(), PipelineParams(), factor=1).pixels


def _decode_known(device: torch.device, times: int = 1) -> list[UInt8]:
    """The known picture by nvJPEG; raises `NvjpegUnusable` where that fails or differs from libjpeg-turbo's."""
    content, expected = _known()
    try:
        found = _pixels([content] * times, device)
    except torch.AcceleratorError:
        raise
    except RuntimeError as error:
        raise _unusable(device, f"fails on a known picture: {error}") from error
    apart = max(int(np.abs(pixels.astype(int) - expected).max()) for pixels in found)
    if apart > _TOLERANCE:
        raise _unusable(device, f"gives a known picture wrong pixels (by {apart} levels, {_TOLERANCE} are allowed)")
    return found


def _unusable(device: torch.device, what: str) -> NvjpegUnusable:
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, CUDA {torch.version.cuda}"
    return NvjpegUnusable(f"nvJPEG on {device} {what}; {versions}; try another GPU, or set decoder to libjpeg-turbo")


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or _SHORT_OF_MEMORY.search(str(error)) is not None
