"""From stored bytes to upright RGB pixels, or to a reason why not."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pi_heif
import simplejpeg
from PIL import Image, ImageFile

from udfs import avif, heic, jpegs, kernels, pngs, tiffs
from udfs.arrays import AnyArray, UInt8
from udfs.kinds import image_kind, with_known_brand
from udfs.limits import (
    MAX_SLOW_PIXELS,
    BadStructure,
    BoundedReader,
    Scans,
    TooManyReads,
    decode_bytes,
    jpeg_scans,
)
from udfs.params import PipelineParams
from udfs.prefetch import ByteRoom
from udfs.quiet import silence_decoders

#: Raster formats that are read. The list is closed on purpose: Pillow also knows formats that start
#: interpreters (EPS) or external programs. (Multi-picture JPEGs come through Pillow's JPEG; of HEIF, HEIC is read.)
#: JPEG 2000 is not among them: OpenJPEG makes structures for each tile, precinct, block and layer, so 87 bytes can
#: take a gigabyte.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF", "PPM")

_JPEGS = ("JPEG", "MPO")  # the formats that libjpeg reads, and scales while it does
_EXIF_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)
_BAND_PIXELS = 1_000_000  # converted at once: the copies of a larger picture would be its memory several times over
_open_lock = threading.Lock()
silence_decoders()


class DecodeFailure(Exception):
    """An image that doesn't become pixels: ``status`` and a stable ``reason`` code.

    ``broken``: NOT_AN_IMAGE, TRUNCATED, CORRUPT, UNSUPPORTED_MODE, UNSUPPORTED_FORMAT (a picture, of a format that is
    not decoded: JPEG 2000, a film in AVIF or HEIC, a camera's raw file). ``too_large``: TOO_MANY_PIXELS,
    TOO_MUCH_MEMORY (decoding would take more than ``max_decode_bytes``), TOO_MANY_SCANS (of a JPEG), TOO_MANY_PARTS
    (chunks, boxes, segments, strips).
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """Pixels (uint8, height × width × 3, RGB, upright) and the size of the stored image, turned upright.

    ``scale``: pixels here per pixel of the stored image (1, 1/2, 1/4 or 1/8).
    """

    pixels: UInt8
    width: int
    height: int
    scale: float


@dataclass(frozen=True)
class DetectionView:
    """The picture that detection sees; ``scale_x``, ``scale_y``: its pixels per pixel of the stored image."""

    pixels: UInt8
    scale_x: float
    scale_y: float


def decode(data: bytes, params: PipelineParams, *, factor: int | None = None, room: ByteRoom | None = None) -> Decoded:
    """Decode one image; the same bytes and parameters always give the same pixels.

    Upright by EXIF orientation; first frame of an animation; transparency laid over white; CMYK, palette,
    grey and 1-bit become RGB; 16-bit grey is divided by 257. A JPEG is decoded at the smallest of 1, 1/2, 1/4
    and 1/8 (in the DCT domain) whose long side is still ``params.decode_long_side``; ``factor`` (1, 2, 4 or 8)
    overrules this. Pixels, memory and scans are checked on the header, before anything is decoded, and the memory is
    waited for in ``room``. A truncated file is broken, never padded with grey; so is a JPEG of which libjpeg says that
    data are missing, damaged or left over (its warnings), whatever stands behind its end.

    Raises `DecodeFailure`.
    """
    image = _open(data)
    with image:
        width, height = image.size
        scans, codec_pixels = _within_limits(image, data, params)
        orientation = _orientation(image)
        factor = (factor or factor_for_detection(max(width, height), params)) if image.format in _JPEGS else 1
        need = decode_bytes(image.format, image.mode, image.size, factor=factor, turned=orientation > 1,
                            coefficients=scans.several, codec_pixels=codec_pixels)  # fmt: skip
        if need > params.max_decode_bytes:
            raise DecodeFailure("too_large", "TOO_MUCH_MEMORY")
        try:
            with room.taken(need) if room else nullcontext():
                pixels = _sound_jpeg(image, data, factor, scans) if image.format in _JPEGS else _checked(image, data)
                pixels = upright(pixels, orientation)
        except TooManyReads:
            raise DecodeFailure("too_large", "TOO_MANY_PARTS") from None
        except tiffs.Unsupported as unsupported:
            raise DecodeFailure("broken", unsupported.reason) from None
        except (MemoryError, DecodeFailure):
            raise
        except Exception:  # Pillow's plugins raise nearly every kind of exception on damaged files
            raise DecodeFailure("broken", _damage(data)) from None
    if factor == 1:
        height, width = pixels.shape[:2]
    elif orientation >= 5:
        width, height = height, width
    return Decoded(pixels, width, height, 1.0 / factor)


def factor_for_detection(long_side: int, params: PipelineParams) -> int:
    """The largest of the factors 8, 4, 2, 1 that leaves of ``long_side`` the pixels that ``params`` ask for."""
    if 0 in (params.detection_long_side, params.decode_long_side):
        return 1  # full-size detection needs all pixels
    target = max(params.decode_long_side, params.detection_long_side)
    return next((factor for factor in (8, 4, 2) if long_side // factor >= target), 1)


def factor_for(face_px: float, params: PipelineParams) -> int:
    """The largest of the factors 8, 4, 2, 1 at which a face of ``face_px`` stored pixels still fills its crop."""
    return next((factor for factor in (8, 4, 2) if face_px >= factor * params.crop_size), 1)


def detection_view(decoded: Decoded, params: PipelineParams) -> DetectionView:
    """Shrink the decoded pixels to ``params.detection_long_side`` by area averaging; never enlarge."""
    height, width = decoded.pixels.shape[:2]
    long_side = max(height, width)
    if params.detection_long_side == 0 or long_side <= params.detection_long_side:
        return DetectionView(decoded.pixels, decoded.scale, decoded.scale)
    ratio = params.detection_long_side / long_side
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # 1.7 ms for 1.3 MP, of which Pillow's BOX filter and its copies took 9.
    small = kernels.shrink(decoded.pixels, size[1], size[0])
    return DetectionView(small, size[0] / width * decoded.scale, size[1] / height * decoded.scale)


def _within_limits(image: ImageFile.ImageFile, data: bytes, params: PipelineParams) -> tuple[Scans, int]:
    """The scans of an image whose header and structure keep to the limits, and the pixels its codec has at once."""
    pixels = image.width * image.height
    slow = any(tile.codec_name in Image.DECODERS for tile in image.tile)
    if pixels > (MAX_SLOW_PIXELS if slow else params.max_pixels):
        raise DecodeFailure("too_large", "TOO_MANY_PIXELS")
    # A frame of an animation may be smaller than the picture that it is laid over. (Exif makes Pillow load a PNG.)
    if image.format == "PNG" and any(tile.extents != (0, 0, *image.size) for tile in image.tile):
        raise DecodeFailure("broken", "CORRUPT")
    try:
        scans = jpeg_scans(data, params.max_scans) if image.format in _JPEGS else Scans(0, several=False)
        at_once, decoded = _codec_pixels(image, data)
    except TooManyReads:
        raise DecodeFailure("too_large", "TOO_MANY_PARTS") from None
    except BadStructure:
        raise DecodeFailure("broken", _damage(data)) from None
    # Tiles reach over the edge, and frames are counted from above: a picture within the limit may have both.
    if decoded > max(params.max_pixels, 2 * pixels):
        raise DecodeFailure("too_large", "TOO_MANY_PIXELS")
    if scans.count > params.max_scans:
        raise DecodeFailure("too_large", "TOO_MANY_SCANS")
    if not scans.complete:
        raise DecodeFailure("broken", _damage(data))
    return scans, at_once


def _codec_pixels(image: Image.Image, data: bytes) -> tuple[int, int]:
    """How many pixels the codec has at once, and decodes in all."""
    if image.format == "TIFF":
        return tiffs.read_tiff(data).tiled(image.width, image.height)
    pixels = image.width * image.height
    if image.format == "AVIF":
        pixels = max(pixels, avif.frame_pixels(data))
    elif image.format == "HEIF":
        pixels = max(pixels, heic.frame_pixels(data))
    return pixels, pixels


def _open(data: bytes) -> ImageFile.ImageFile:
    kind, data = image_kind(data), with_known_brand(data)
    if kind is None:
        raise DecodeFailure("broken", "NOT_AN_IMAGE")
    if kind.upper() not in _formats():
        raise DecodeFailure("broken", "UNSUPPORTED_FORMAT")
    try:
        if kind == "tiff":
            if tiffs.read_tiff(data).reduced:
                # Who stands small in the background is not seen in it.
                raise DecodeFailure("broken", "UNSUPPORTED_FORMAT")
            tiffs.check_mode(data)
        if (kind == "avif" and avif.is_sequence(data)) or (kind == "heif" and not _is_picture(data)):
            raise DecodeFailure("broken", "UNSUPPORTED_FORMAT")
        # Pillow's own limit is a global that warns first and raises later. Ours is exact and comes right
        # after, so theirs is lifted for the moment in which only the header is read.
        with _open_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(BoundedReader(data), formats=(kind.upper(),))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except (MemoryError, DecodeFailure):
        raise
    except tiffs.Unsupported as unsupported:
        raise DecodeFailure("broken", unsupported.reason) from None
    except TooManyReads:
        raise DecodeFailure("too_large", "TOO_MANY_PARTS") from None
    except Exception:  # see above
        raise DecodeFailure("broken", _damage(data)) from None


def _is_picture(data: bytes) -> bool:
    return not heic.is_film(data) and heic.is_plain(data)


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    # Pillow raises KeyError for a format that its build lacks.
    Image.init()
    # One thread, as all decoders here have; thumbnails, depths and gain maps are not asked for.
    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    if image.format in ("TIFF", "HEIF"):
        # Pillow itself turns a TIFF upright while loading it, libheif a HEIC, by its own boxes.
        return 1
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _sound_jpeg(image: ImageFile.ImageFile, data: bytes, factor: int, scans: Scans) -> UInt8:
    """The pixels of a JPEG in which nothing is missing, damaged or left over, as far as that can be told."""
    pixels, known = _jpeg(image, data, factor), True
    if pixels is None:
        sound = jpegs.is_sound(data, cmyk=image.mode == "CMYK")
        if sound is False:
            raise DecodeFailure("broken", _damage(data))
        pixels, known = _by_pillow(image, factor), sound is not None
    if scans.arithmetic or not known:
        _check_ends(pixels, data, factor)
    return pixels


def _jpeg(image: Image.Image, data: bytes, factor: int) -> UInt8 | None:
    """A sound JPEG by libjpeg-turbo itself: Pillow's pixels in half the time, for Pillow's take a copy to get at.

    None where it has to be looked at: CMYK, and whatever libjpeg-turbo has a doubt about.
    """
    if image.mode not in ("L", "RGB"):
        return None
    # Both a least size and a least factor: together they leave this one factor only.
    height, width = image.height // factor, image.width // factor
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=factor))
    except ValueError:
        return None


def _by_pillow(image: ImageFile.ImageFile, factor: int) -> UInt8:
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))
    return _rgb(image)


def _check_ends(pixels: UInt8, data: bytes, factor: int) -> None:
    """Refuse pixels that depend on what stands behind the data that they are made of: some of it is missing."""
    with _open(jpegs.with_noise_behind(data)) as other:
        if not np.array_equal(pixels, _by_pillow(other, factor)):
            raise DecodeFailure("broken", _damage(data))


def _checked(image: ImageFile.ImageFile, data: bytes) -> UInt8:
    if image.format == "PNG":
        _check_png(data)
    if image.format == "TIFF":
        tiffs.check_pieces(data)
    if image.format != "HEIF":
        return _rgb(image)
    width, height = heic.shown_size(data)
    pixels = _rgb(image)
    if pixels.shape[:2] != (height, width):
        raise BadStructure
    return pixels


def _check_png(data: bytes) -> None:
    try:
        pngs.check(data)
    except pngs.Cut:
        raise DecodeFailure("broken", "TRUNCATED") from None


def _rgb(image: Image.Image) -> UInt8:
    """The pixels of any mode, in bands: Pillow's conversions of a whole picture would hold it several times."""
    image.load()
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    if rows >= height:
        return _rgb_of(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        pixels[top : top + rows] = _rgb_of(image.crop((0, top, width, min(height, top + rows))))
    return pixels


def _rgb_of(image: Image.Image) -> UInt8:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image))
    if image.mode == "F":
        # Floating point has no agreed range: a guess would make the result depend on the picture.
        raise DecodeFailure("broken", "UNSUPPORTED_MODE")
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa", "RGBA"):
        rgba = image.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB"))
    return np.array(image.convert("RGB"))


def _from_16_bit(values: AnyArray) -> UInt8:
    grey = np.rint(np.clip(values.astype(np.int64), 0, 65535) / 257.0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def upright(pixels: UInt8, orientation: int) -> UInt8:
    """Undo an EXIF orientation (1 to 8, as in the Exif 2.32 standard, table 6)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    pixels = pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.ascontiguousarray(pixels)


def _damage(data: bytes) -> str:
    """TRUNCATED where the container's end marker is missing, else CORRUPT."""
    kind = image_kind(data)
    cut = (
        (kind == "jpeg" and b"\xff\xd9" not in data[-64:])
        or (kind == "png" and b"IEND" not in data[-64:])
        or (kind == "gif" and b"\x3b" not in data[-4:])
        or (kind == "webp" and len(data) < int.from_bytes(data[4:8], "little") + 8)
        or (kind == "heif" and heic.is_cut(data))
    )
    return "TRUNCATED" if cut else "CORRUPT"
