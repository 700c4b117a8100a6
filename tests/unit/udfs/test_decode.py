from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, chunk, failure
from udfs.decode import Decoded, DecodeFailure, decode, detection_view
from udfs.kinds import image_kind
from udfs.limits import Scans, decode_bytes, jpeg_scans
from udfs.params import PipelineParams

pytestmark = pytest.mark.unit


def png_header(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_stored_pixels(kind: str) -> None:
    pixels = noise(37, 53)
    decoded = decode(encoded(pixels, kind), PARAMS)
    assert np.array_equal(decoded.pixels, pixels)
    assert (decoded.width, decoded.height, decoded.scale) == (53, 37, 1.0)


@pytest.mark.parametrize(("kind", "options"), [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"subsampling": 0}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("GIF", {}), ("AVIF", {}),
])  # fmt: skip
def test_lossy_formats_come_close(kind: str, options: dict[str, object]) -> None:
    pixels = small_astronaut(96)
    decoded = decode(encoded(pixels, kind, **options), PARAMS)
    assert decoded.pixels.shape == (96, 96, 3)
    assert decoded.pixels.dtype == np.uint8
    assert np.abs(decoded.pixels.astype(int) - pixels).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(small_astronaut(64))
    if mode == "CMYK":
        data = encoded(image.convert("CMYK"), "JPEG", quality=95)
    elif mode.startswith("I"):
        data = encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")
        if mode == "I":
            data = encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 257), "PPM")
    else:
        data = encoded(image.convert(mode), "PNG")
    pixels = decode(data, PARAMS).pixels
    assert pixels.shape == (64, 64, 3)
    expected = image if mode in ("P", "RGB", "RGBA", "CMYK") else image.convert("L").convert("RGB")
    difference = np.abs(pixels.astype(int) - np.asarray(expected)).mean()
    # One bit keeps only the average brightness, a palette and CMYK come close, the others are exact.
    assert difference <= {"1": 130, "P": 20, "CMYK": 8}.get(mode, 0)


def test_16_bit_grey_keeps_black_and_white() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), "PNG"), PARAMS).pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_is_laid_over_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[1, 1] = (255, 0, 0, 128)
    out = decode(encoded(Image.fromarray(pixels)), PARAMS).pixels
    assert out[0, 0].tolist() == [10, 20, 30]
    assert out[0, 1].tolist() == [255, 255, 255]
    assert np.abs(out[1, 1].astype(int) - [255, 127, 127]).max() <= 1


def test_palette_with_transparent_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((1, 0), 1)
    out = decode(encoded(image, "PNG", transparency=0), PARAMS).pixels
    assert out[0].tolist() == [[255, 255, 255], [255, 0, 0]]
    several = decode(encoded(image, "PNG", transparency=b"\x00\xff"), PARAMS).pixels
    assert np.array_equal(several, out)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data, PARAMS).pixels[5, 5].tolist() == [200, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_end_upright(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 48, 3), np.uint8)
    upright[:8, :24] = (255, 0, 0)
    upright[:8, 24:] = (0, 255, 0)
    upright[8:, :24] = (0, 0, 255)
    undo = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    stored = Image.fromarray(upright)
    for step in undo[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }  # fmt: skip
    decoded = decode(encoded(stored, kind, exif=exif, **options.get(kind, {})), PARAMS)
    assert (decoded.width, decoded.height) == (48, 16)
    assert np.abs(decoded.pixels.astype(int) - upright).max() <= 8


def test_damaged_exif_does_not_matter() -> None:
    pixels = small_astronaut(32)
    data = encoded(pixels, "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    assert decode(data, PARAMS).pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.97])
def test_truncated_is_broken(kind: str, part: float) -> None:
    data = encoded(noise(80, 80), kind)
    status, reason = failure(data[: int(len(data) * part)])
    assert status == "broken"
    assert reason == ("CORRUPT" if kind == "BMP" else "TRUNCATED")  # BMP has no end marker to miss


@pytest.mark.parametrize("missing", [1, 2, 3, 50])
def test_jpeg_cut_near_its_end_is_not_padded_with_grey(missing: int) -> None:
    assert failure(encoded(noise(64, 64), "JPEG")[:-missing]) == ("broken", "TRUNCATED")


@pytest.mark.parametrize("length", [2, 3, 10, 100])
def test_only_a_jpeg_header(length: int) -> None:
    status, reason = failure(encoded(noise(64, 64), "JPEG")[:length])
    assert (status, reason) == ("broken", "NOT_AN_IMAGE" if length == 2 else "TRUNCATED")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 5000, b"this is a text named photo.jpg\n", b"<html><body>404</body></html>", b"%PDF-1.4\n%",
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", b"PK\x03\x04" + b"\0" * 100],
)  # fmt: skip
def test_other_files_are_not_images(data: bytes) -> None:
    assert failure(data) == ("broken", "NOT_AN_IMAGE")


def test_png_with_a_wrong_checksum() -> None:
    data = bytearray(encoded(noise(20, 20)))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    assert failure(bytes(data)) == ("broken", "CORRUPT")


def test_floating_point_pixels_have_no_agreed_range() -> None:
    assert failure(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")) == ("broken", "UNSUPPORTED_MODE")


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (100_000, 100_000), (60_000, 60_000)])
def test_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    assert failure(png_header(width, height)) == ("too_large", "TOO_MANY_PIXELS")


def test_pixel_limit_is_exact_and_pillows_own_stays() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    params = PipelineParams(max_pixels=400)
    assert decode(encoded(noise(20, 20)), params).width == 20
    assert failure(encoded(noise(20, 21)), params) == ("too_large", "TOO_MANY_PIXELS")
    assert limit == Image.MAX_IMAGE_PIXELS
    # Between Pillow's warning and our limit nothing is said and nothing is refused for its size.
    assert failure(png_header(9_500, 10_000)) != ("too_large", "TOO_MANY_PIXELS")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_tiny_images_decode(height: int, width: int) -> None:
    decoded = decode(encoded(noise(height, width)), PARAMS)
    assert decoded.pixels.shape == (height, width, 3)
    view = detection_view(decoded, PipelineParams(detection_long_side=64))
    assert min(view.pixels.shape[:2]) >= 1


@pytest.mark.parametrize(
    ("long_side", "factor"), [(1279, 1), (2559, 1), (2560, 2), (2561, 2), (5119, 2), (5120, 4), (10240, 8)]
)
def test_jpeg_is_scaled_while_decoding(long_side: int, factor: int) -> None:
    data = encoded(Image.new("RGB", (long_side, 64), (90, 120, 150)), "JPEG")
    decoded = decode(data, PARAMS)
    assert decoded.scale == 1 / factor
    assert (decoded.width, decoded.height) == (long_side, 64)
    assert decoded.pixels.shape[1] == -(-long_side // factor) >= min(long_side, 1280)
    full = decode(data, PipelineParams(detection_long_side=0))
    assert full.pixels.shape == (64, long_side, 3)


def test_scaled_decode_shows_the_same_picture() -> None:
    big = np.array(Image.fromarray(small_astronaut()).resize((2560, 2560), Image.Resampling.BICUBIC))
    decoded = decode(encoded(big, "JPEG", quality=95), PARAMS)
    expected = np.asarray(Image.fromarray(big).resize((1280, 1280), Image.Resampling.BOX)).astype(int)
    assert decoded.pixels.shape == (1280, 1280, 3)
    assert np.abs(decoded.pixels - expected).mean() < 2


def test_detection_view_keeps_the_mapping_to_stored_pixels() -> None:
    decoded = Decoded(noise(500, 1280), 2560, 1000, 0.5)
    view = detection_view(decoded, PARAMS)
    assert view.pixels.shape == (250, 640, 3)
    assert view.scale_x == pytest.approx(640 / 2560)
    assert view.scale_y == pytest.approx(250 / 1000)
    small = Decoded(noise(30, 40), 40, 30, 1.0)
    assert detection_view(small, PARAMS).pixels is small.pixels


def test_same_bytes_same_pixels() -> None:
    data = encoded(noise(300, 200), "JPEG")
    assert all(np.array_equal(decode(data, PARAMS).pixels, decode(data, PARAMS).pixels) for _ in range(3))


def test_no_picture_in_the_message() -> None:
    with pytest.raises(DecodeFailure) as caught:
        decode(b"\xff\xd8\xff\xe0 Jane Doe", PARAMS)
    assert "Jane" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_stream_is_not_needed_after_decoding() -> None:
    decoded = decode(encoded(noise(10, 10), "JPEG"), PARAMS)
    assert decoded.pixels.flags.owndata or decoded.pixels.base is not None
    assert decoded.pixels.flags.c_contiguous
    assert not isinstance(decoded.pixels.base, io.BytesIO)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "jpeg"), (b"\xff\xd8\xff\xff\xe0", "jpeg"), (b"\xff\xd8\xff", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF89a", "gif"), (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"II*\0\x08\0\0\0\0", "tiff"), (b"MM\0*\0\0\0\x08\0", "tiff"), (b"II+\0\x08\0\0\0\x10" + bytes(12), "tiff"),
        (b"<html>", None), (b"", None), (b"RIFF\0\0\0\0WAVE", None),
        (b"BM\1\2\3\4\0\0\0\0\x36\0\0\0\x28\0\0\0", "bmp"), (b"BMW is a name", None),
        (b"BM\1\2\3\4mark\x36\0\0\0\x28\0\0\0", "bmp"), (b"BM\1\2\3\4mark\0\0\0\0\x28\0\0\0", None),
        (b"BM\1\2\3\4mark\x36\0\0\0\x29\0\0\0", None),
        (b"P6\n1 1\n255\n", "ppm"), (b"P4\n# by hand\n 9\t# wide\n\n7 ", "ppm"), (b"P65 is a form", None),
        (b"root:x:0:0:root:/root", None), (b"\0\0\0\x20ftypavif", "avif"), (b"\0\0\0\x20ftypisom", None),
    ],
)  # fmt: skip
def test_a_picture_is_known_by_its_first_bytes(start: bytes, kind: str | None) -> None:
    assert image_kind(start) == kind


def jpeg_of_scans(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(small_astronaut(side), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    head, last = data[:start], data[start:-2]
    return head + last * (scans - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def test_a_jpeg_of_too_many_scans_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode(jpeg_of_scans(10), PARAMS).pixels.shape == (64, 64, 3)
    assert jpeg_scans(jpeg_of_scans(32), 32) == Scans(32, several=True)
    monkeypatch.setattr("udfs.decode._jpeg", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("udfs.decode._rgb", lambda *_: pytest.fail("decoded"))
    for scans in (33, 4010):
        assert failure(jpeg_of_scans(scans)) == ("too_large", "TOO_MANY_SCANS")


def test_scans_of_a_thumbnail_and_bytes_between_segments_do_not_matter() -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 40
    baseline = encoded(small_astronaut(64), "JPEG", exif=exif)
    assert jpeg_scans(baseline, 32) == Scans(1, several=False)
    at = baseline.index(b"\xff\xdb")
    assert jpeg_scans(baseline[:at] + b"\0\1" + baseline[at:], 32) == Scans(1, several=False)
    assert jpeg_scans(encoded(small_astronaut(64).mean(axis=2).astype(np.uint8), "JPEG"), 32).count == 1
    for junk in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xda\0\1", b"\xff\xd8" + b"\xff\xe0\0\2" * 9):
        assert jpeg_scans(junk, 32).count == 0


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "method": 0}),
    ("AVIF", {"speed": 10}),
    ("JPEG", {}), ("JPEG", {"progressive": True}),
])  # fmt: skip
def test_what_would_take_too_much_memory_is_not_decoded(
    kind: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.new("RGB", (1000, 1000)), kind, **options)
    decode(data, PipelineParams(max_decode_bytes=25_000_000))
    monkeypatch.setattr("udfs.decode._jpeg", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("udfs.decode._rgb", lambda *_: pytest.fail("decoded"))
    assert failure(data, PipelineParams(max_decode_bytes=6_900_000)) == ("too_large", "TOO_MUCH_MEMORY")


def test_the_defaults_fit_each_other() -> None:
    """The largest PNG that `max_pixels` lets pass fits the memory; the format that takes most gets a good third."""
    sizes = {"mode": "RGB", "size": (10_000, 10_000), "factor": 1, "turned": False, "coefficients": False}
    assert decode_bytes("PNG", **sizes) <= PARAMS.max_decode_bytes < decode_bytes("WEBP", **sizes)  # type: ignore[arg-type]
    assert decode_bytes("WEBP", **{**sizes, "size": (6_500, 6_500)}) <= PARAMS.max_decode_bytes  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_bands_give_the_pixels_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(small_astronaut(64))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    data = encoded(
        image if mode == "I;16" else image.convert(mode), "PNG", **({"transparency": 3} if mode == "P" else {})
    )
    whole = decode(data, PARAMS).pixels
    monkeypatch.setattr("udfs.decode._BAND_PIXELS", 64 * 7)
    assert np.array_equal(decode(data, PARAMS).pixels, whole)


def test_a_file_of_too_many_parts_ends_before_its_list_is_read() -> None:
    plain = encoded(small_astronaut(16))
    parts = plain[:33] + chunk(b"juNk", b"") * 100_000 + plain[33:]
    assert failure(parts) == ("too_large", "TOO_MANY_PARTS")
    assert failure(b"\xff\xd8" + b"\xff\xe1\0\2" * 200_000) == ("too_large", "TOO_MANY_PARTS")
    few = plain[:33] + chunk(b"juNk", b"") * 100 + plain[33:]
    assert decode(few, PARAMS).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_too_many_strips_is_not_listed(order: str) -> None:
    count = 70_000
    entries = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1), (273, 4, count, 200)]
    ifd = struct.pack(order + "H", len(entries)) + b"".join(struct.pack(order + "HHII", *e) for e in entries)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + ifd + b"\0" * 4
    assert failure(start.ljust(200, b"\0") + b"\0" * 4 * count) == ("too_large", "TOO_MANY_PARTS")
    assert decode(encoded(noise(40, 40), "TIFF"), PARAMS).pixels.shape == (40, 40, 3)
