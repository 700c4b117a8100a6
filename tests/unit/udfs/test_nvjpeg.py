"""The batch decoder with torchvision's processor decoder in nvJPEG's place: same calls, another device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from tests.golden.support import encoded, model_path, noise, small_astronaut
from udfs import nvjpeg
from udfs.decode import Decoded, DecodeFailure, decode, decoded_or_reason
from udfs.params import PipelineParams
from udfs.pipeline import Pipeline

pytestmark = pytest.mark.unit
PARAMS = PipelineParams(decoder="nvjpeg")
CPU = torch.device("cpu")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(small_astronaut(96)[:, :64], "JPEG", quality=95, exif=exif)


def many(contents: list[bytes]) -> list[Decoded | Exception]:
    return nvjpeg.decode_many(contents, PARAMS, CPU)


def test_plain_jpegs_have_the_pixels_of_the_processors_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [turned(n) for n in range(1, 9)] + [encoded(Image.fromarray(noise(40, 50)).convert("L"), "JPEG")]
    # Only the device has decoded them: the way back to the processor is shut.
    monkeypatch.setattr(nvjpeg, "decoded_or_reason", lambda *_: pytest.fail("left to the processor"))
    for content, found in zip(contents, many(contents), strict=True):
        expected = decode(content, PARAMS)
        assert isinstance(found, Decoded)
        assert (found.width, found.height, found.scale) == (expected.width, expected.height, 1.0)
        assert found.pixels.flags.c_contiguous
        assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 2


def test_everything_else_is_decoded_as_ever_and_none_spoils_the_batch() -> None:
    good = turned(1)
    contents = [
        good,
        encoded(noise(30, 30), "PNG"),
        b"no image",
        good[: len(good) // 2],
        encoded(Image.fromarray(noise(30, 30)).convert("CMYK"), "JPEG"),
        good[:700] + b"\xff\xd8\xff\xff" * 40 + good[860:],
        good,
    ]
    failures = 0
    for content, found in zip(contents, many(contents), strict=True):
        expected = decoded_or_reason(content, PARAMS)
        assert type(found) is type(expected)
        if isinstance(found, DecodeFailure) and isinstance(expected, DecodeFailure):
            failures += 1
            assert (found.status, found.reason) == (expected.status, expected.reason)
        if isinstance(found, Decoded) and isinstance(expected, Decoded):
            assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 2
    assert 2 <= failures < len(contents)


def test_too_many_pixels_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    (found,) = nvjpeg.decode_many([turned(1)], PipelineParams(max_pixels=1000), CPU)
    assert isinstance(found, DecodeFailure)
    assert (found.status, found.reason) == ("too_large", "TOO_MANY_PIXELS")


def test_calls_are_bounded_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = decode_jpeg

    def counting(contents: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        sizes.append(len(contents))
        answer: list[torch.Tensor] = real(contents, **options)
        return answer

    monkeypatch.setattr(nvjpeg, "decode_jpeg", counting)
    monkeypatch.setattr(nvjpeg, "_PIXELS_PER_CALL", 3 * 96 * 64)
    assert all(isinstance(found, Decoded) for found in many([turned(1)] * 7))
    assert sizes == [3, 3, 1]


def test_memory_that_is_short_is_no_reason_for_other_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(nvjpeg, "decode_jpeg", full)
    assert all(isinstance(found, torch.cuda.OutOfMemoryError) for found in many([turned(1), turned(2)]))


def test_without_a_gpu_it_is_refused_before_the_first_image() -> None:
    with pytest.raises(ValueError, match=r"nvjpeg needs a GPU.*set decoder to libjpeg-turbo"):
        Pipeline(model_path(), PARAMS)
