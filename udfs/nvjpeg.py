"""JPEGs decoded in batches on a GPU: nvJPEG, by torchvision. What is no plain JPEG is decoded on the processor.

The answers are those of `udfs.decode.decode`, with pixels in the machine's memory: 0.9 MB for 640 × 480, which a GPU's
bus moves in 50 µs, and so everything behind decoding is the same for both. nvJPEG scales nothing while it decodes and
rounds otherwise than libjpeg-turbo, which is why the decoder is a parameter that the model fingerprint covers.

It has not run on a GPU yet. The tests show the same code with torchvision's processor decoder in nvJPEG's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from udfs.arrays import UInt8
from udfs.decode import Decoded, decoded_or_reason, jpeg_header, upright
from udfs.params import PipelineParams
from udfs.prefetch import ByteRoom

_PIXELS_PER_CALL = 64_000_000  # 192 MB of pixels on the GPU at once, or one image


def decode_many(
    contents: Sequence[bytes], params: PipelineParams, device: torch.device, room: ByteRoom | None = None
) -> list[Decoded | Exception]:
    """Decode images together; each answers with its pixels or with the exception that `decode` raised for it."""
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
    """Pixels [h, w, 3] of JPEGs; None for one that the device cannot decode, an exception where its memory is short."""
    coded = [torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for content in contents]
    try:
        decoded = decode_jpeg(coded, mode=ImageReadMode.RGB, device=device)
    except torch.AcceleratorError:
        raise  # the device itself is lost
    except RuntimeError as error:
        if len(contents) > 1:  # one bad file fails the whole call, without saying which
            return [_on_device([content], device)[0] for content in contents]
        # Pixels must not depend on how full the memory was: only a file that nvJPEG refuses goes to the processor.
        return [error if isinstance(error, torch.cuda.OutOfMemoryError) else None]
    return [picture.permute(1, 2, 0).contiguous().cpu().numpy() for picture in decoded]
