"""nvJPEG itself, on a device that is busy with other work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from udfs import nvjpeg
from udfs.decode import Decoded, DecodeFailure, decode
from udfs.params import PipelineParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
PARAMS = PipelineParams(decoder="nvjpeg")
CUDA = torch.device("cuda:0")
THREADS, CALLS, PER_CALL = 12, 25, 8


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    return encoded(pixels, "JPEG", quality=90, **options)


def many(contents: list[bytes]) -> list[Decoded]:
    """Pixels of pictures that nvJPEG itself has to decode, or the processor as `decode` does."""
    found = nvjpeg.decode_many(contents, PARAMS, CUDA)
    pictures = [one for one in found if isinstance(one, Decoded)]
    assert len(pictures) == len(contents)
    return pictures


def near(found: Decoded, content: bytes) -> bool:
    expected = decode(content, PARAMS, factor=1).pixels
    # Rounding and upsampled chroma come to 2; another picture to 50.
    return found.pixels.shape == expected.shape and np.abs(found.pixels.astype(int) - expected).mean() < 3


@pytest.fixture
def unproven() -> Iterator[None]:
    """As at the start of a process, and nothing left of it behind the test."""
    nvjpeg.prove.cache_clear()
    yield
    nvjpeg.prove.cache_clear()


@pytest.fixture
def no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "decoded_or_reason", lambda *_: pytest.fail("left to the processor"))


def test_the_device_passes_its_proof(unproven: None) -> None:
    nvjpeg.prove(CUDA)


def test_the_proof_fails_without_streams_of_our_own(unproven: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would find the race, were it there. Once torchvision waits for the caller's stream this test can go."""
    monkeypatch.setattr(nvjpeg, "_own_stream", lambda _: nullcontext())
    with pytest.raises(nvjpeg.NvjpegUnusable):
        nvjpeg.prove(CUDA)


@pytest.mark.parametrize("progressive", [False, True])  # the engine; kernels
def test_busy_work_and_decoding_threads_leave_each_other_alone(progressive: bool, no_processor: None) -> None:
    contents = [jpeg(small_astronaut(side), progressive=progressive) for side in (256, 192, 256, 320)] * (PER_CALL // 4)
    first = many(contents)
    assert all(near(found, content) for found, content in zip(first, contents, strict=True))

    def decode_again(_: int) -> int:
        same = 0
        for _ in range(CALLS):
            again = many(contents)
            same += sum(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))
        return same

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(decode_again, n) for n in range(THREADS)]
        rounds = 0
        while rounds < 3 or not all(future.done() for future in running):
            # Blocks as large as the pictures, given back while what reads them is still queued.
            blocks = [torch.full((3, side, side), 7, dtype=torch.uint8, device=CUDA) for side in (256, 192, 320)] * 4
            torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
            sums = [block.sum() for block in blocks]
            sizes = [block.numel() for block in blocks]
            del blocks
            assert [int(total) for total in sums] == [7 * size for size in sizes]
            rounds += 1
    assert [future.result() for future in running] == [CALLS * PER_CALL] * THREADS


def test_grey_progressive_and_all_subsamplings(no_processor: None) -> None:
    picture = small_astronaut(256)
    contents = [jpeg(picture, subsampling=n) for n in (0, 1, 2)] + [
        jpeg(picture, progressive=True),
        encoded(Image.fromarray(picture).convert("L"), "JPEG", quality=90),
    ]
    assert all(near(found, content) for found, content in zip(many(contents), contents, strict=True))


def test_a_cmyk_jpeg_is_the_processors() -> None:
    content = encoded(Image.fromarray(small_astronaut(96)).convert("CMYK"), "JPEG")
    (found,) = many([content])
    assert np.array_equal(found.pixels, decode(content, PARAMS).pixels)


def test_a_truncated_file_is_refused_and_the_rest_of_its_batch_is_not() -> None:
    good = jpeg(small_astronaut(256))
    (alone,) = many([good])
    before, cut, after = nvjpeg.decode_many([good, good[: len(good) // 2], good], PARAMS, CUDA)
    assert isinstance(cut, DecodeFailure)
    assert cut.reason == "TRUNCATED"
    for found in (before, after, *many([good])):
        assert isinstance(found, Decoded)
        assert np.array_equal(found.pixels, alone.pixels)


def test_what_nvjpeg_refuses_is_told_apart_from_a_broken_device() -> None:
    good = jpeg(small_astronaut(256))
    pixels, refused, again = nvjpeg._on_device([good, b"\xff\xd8\xff\xd9", good], CUDA)
    assert refused is None
    assert isinstance(pixels, np.ndarray)
    assert isinstance(again, np.ndarray)
    assert np.array_equal(pixels, again)


def holes(good: bytes) -> bytes:
    middle = len(good) // 2
    return good[:middle] + b"\x00" * 60 + good[middle + 60 :]


def marker(good: bytes) -> bytes:
    middle = len(good) // 2
    return good[:middle] + b"\xff\xd8\xff\xff" * 10 + good[middle + 40 :]


def short(good: bytes) -> bytes:
    return good[: len(good) // 2] + b"\xff\xd9"


@pytest.mark.parametrize("damage", [holes, marker, short])
def test_a_damaged_file_shows_nothing_of_the_picture_before_it(damage: Callable[[bytes], bytes]) -> None:
    """The same bytes end in the same way, whatever the memory held that their pixels are written to."""
    damaged = damage(jpeg(small_astronaut(256)))
    others = [jpeg(noise(256, 256)), jpeg(np.full((256, 256, 3), 200, np.uint8))]
    endings: list[Decoded | Exception] = []
    for other in others:
        many([other] * PER_CALL)
        endings.append(nvjpeg.decode_many([damaged], PARAMS, CUDA)[0])
        endings.append(nvjpeg.decode_many([other, damaged, other], PARAMS, CUDA)[1])
    first = endings[0]
    for ending in endings[1:]:
        assert type(ending) is type(first)
        if isinstance(ending, Decoded) and isinstance(first, Decoded):
            assert np.array_equal(ending.pixels, first.pixels)
