"""The batch decoder with torchvision's processor decoder in nvJPEG's place: same calls, another device."""

from __future__ import annotations

from collections.abc import Callable

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
Decoder = Callable[..., list[torch.Tensor]]


@pytest.fixture(autouse=True)
def proven() -> None:
    """Each test begins as most calls do: with a device that was found sound."""
    nvjpeg.prove.cache_clear()
    nvjpeg.prove(CPU)


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> Callable[[Decoder], None]:
    """Begin a process anew, with another decoder."""

    def begin(decoder: Decoder) -> None:
        nvjpeg.prove.cache_clear()
        monkeypatch.setattr(nvjpeg, "decode_jpeg", decoder)

    return begin


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


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(),
        RuntimeError("Error while decoding JPEG images: CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("Error while decoding JPEG images: Failed to decode batch: 5"),
        RuntimeError("Error while decoding JPEG images: Failed to synchronize CUDA stream: 2"),
    ],
)
def test_memory_that_is_short_is_no_reason_for_other_pixels(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(nvjpeg, "decode_jpeg", full)
    assert all(isinstance(found, torch.cuda.OutOfMemoryError) for found in many([turned(1), turned(2)]))


def test_a_file_that_is_refused_goes_to_the_processor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    good, refused = turned(1), turned(2)

    def choosy(coded: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        if any(one.numpy().tobytes() == refused for one in coded):
            raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 4")
        return decode_jpeg(coded, **options)

    by_processor: list[bytes] = []

    def processor(content: bytes, *rest: object) -> Decoded | Exception:
        by_processor.append(content)
        return decoded_or_reason(content, PARAMS)

    monkeypatch.setattr(nvjpeg, "decode_jpeg", choosy)
    monkeypatch.setattr(nvjpeg, "decoded_or_reason", processor)
    assert all(isinstance(found, Decoded) for found in many([good, refused, good]))
    assert by_processor == [refused]


def broken(*_: object, **__: object) -> list[torch.Tensor]:
    raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 6")


def test_a_device_that_breaks_ends_the_task_and_leaves_nothing_to_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many([turned(1)])
    monkeypatch.setattr(nvjpeg, "decode_jpeg", broken)
    monkeypatch.setattr(nvjpeg, "decoded_or_reason", lambda *_: pytest.fail("left to the processor"))
    with pytest.raises(nvjpeg.NvjpegUnusable, match=r"fails on a known picture.*decode batch: 6"):
        many([turned(1), turned(2)])


def test_a_device_that_is_lost_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> list[torch.Tensor]:
        raise torch.AcceleratorError

    monkeypatch.setattr(nvjpeg, "decode_jpeg", lost)
    with pytest.raises(torch.AcceleratorError):
        many([turned(1), turned(2)])


def test_a_device_that_fails_from_the_start_says_versions_and_the_next_step(
    unproven: Callable[[Decoder], None],
) -> None:
    unproven(broken)
    with pytest.raises(nvjpeg.NvjpegUnusable, match=r"torch 2.*torchvision 0.*CUDA.*set decoder to libjpeg-turbo"):
        many([turned(1)])


def test_what_is_no_jpeg_needs_no_device(unproven: Callable[[Decoder], None]) -> None:
    unproven(broken)
    (found,) = many([encoded(noise(30, 30), "PNG")])
    assert isinstance(found, Decoded)


@pytest.mark.parametrize(("levels", "why"), [(1, "different pixels in one call"), (100, "by 100 levels")])
def test_one_wrong_picture_of_the_proof_is_enough(levels: int, why: str, unproven: Callable[[Decoder], None]) -> None:
    def one_wrong(coded: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        pictures: list[torch.Tensor] = decode_jpeg(coded, **options)
        if len(pictures) > 40:
            pixel = pictures[40][0, 96, 128]
            pictures[40][0, 96, 128] = pixel + levels
        return pictures

    unproven(one_wrong)
    with pytest.raises(nvjpeg.NvjpegUnusable, match=why):
        many([turned(1)])


def test_a_proof_holds_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(coded: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        sizes.append(len(coded))
        return decode_jpeg(coded, **options)

    monkeypatch.setattr(nvjpeg, "decode_jpeg", counting)
    many([turned(1)])
    many([turned(1)])
    assert sizes == [1, 1]


def test_without_a_gpu_it_is_refused_before_the_first_image() -> None:
    with pytest.raises(ValueError, match=r"nvjpeg needs a GPU.*set decoder to libjpeg-turbo"):
        Pipeline(model_path(), PARAMS)
