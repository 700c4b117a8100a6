"""Makes the pictures of the demo and the tests: faces in every shape that a batch indexer meets, and what is no face.

    python -m bench.pictures FOLDER            # 290 files and basis.jsonl
    python -m bench.pictures FOLDER --check    # the same, then facenet-pytorch's detector over all of it

Every picture is made from ones that scikit-image's wheel carries and that anybody may pass on, or from nothing:

- ``astronaut``: NASA's official portrait of Eileen Collins, in the public domain. Every face here is hers, altered
  (colour, proportions, tilt, light); the "persons" are inventions that differ in their pseudonyms.
- ``chelsea`` (a cat), ``coffee``, ``brick``, ``grass``, ``gravel``: CC0 by their makers; ``clock_motion``, ``rocket``
  and ``hubble_deep_field``: in the public domain. No faces.

Not used, though in the wheel: ``lfw_subset`` (faces collected from the web) and ``camera`` (its photographer waived his
rights; nothing says that the man in it agreed to be indexed).
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Box = tuple[float, float, float, float]
Basis = Literal["given", "none", "withdrawn", "expired", "partial", "face_box"]
Outcome = Literal["embedded", "no_face", "broken", "too_large", "uncovered_faces", "refused"]

# facenet-pytorch's box of the face in the 512 × 512 original.
FACE: Box = (181.1, 62.2, 267.7, 172.1)
COLLAR = (125, 190, 310, 300)
MARGIN = 70
DEMO_KEY = b"face-reindex demo: a key that is no secret"


@dataclass(frozen=True)
class Picture:
    """One file of the set, and what a run has to make of it."""

    name: str
    path: str  # relative to the folder, with forward slashes
    kind: str
    persons: int  # faces that were planted
    basis: Basis
    expected: Outcome
    people: tuple[str, ...]  # invented names: the planted faces, or who speaks for a picture without one
    recorded: tuple[str, ...]  # those of them that a basis record names
    boxes: tuple[Box, ...]  # of the planted faces, in pixels of the upright picture, left, top, right, bottom


class Drawing(NamedTuple):
    """A drawn file: its bytes, its suffix, where the faces are, and the portrait of one before it was treated."""

    content: bytes
    suffix: str
    boxes: tuple[Box, ...] = ()
    untreated: Image.Image | None = None


class Kind(NamedTuple):
    """One kind of picture: how many, how it is drawn, and how it is treated."""

    name: str
    number: int
    draw: Callable[[random.Random, int], Drawing]
    basis: Basis = "given"
    expected: Outcome = "embedded"


def make_pictures(
    folder: str | Path, *, seed: int = 0, copies: int = 1, kinds: Collection[str] | None = None
) -> list[Picture]:
    """Write the set into ``folder``, a sub-folder for each kind, and say what is in it.

    The bytes depend on ``seed`` and the versions of Pillow, pillow-heif and NumPy only; a picture's on no other one.

    Args:
        folder: made where it is missing.
        seed: another seed, another set.
        copies: how many times the number of each kind; no two files are alike.
        kinds: only these; all where it is left out.
    """
    root = Path(folder)
    pictures = []
    for kind in KINDS:
        if kinds is not None and kind.name not in kinds:
            continue
        (root / kind.name).mkdir(parents=True, exist_ok=True)
        for index in range(kind.number * copies):
            drawing = kind.draw(random.Random(f"{seed}/{kind.name}/{index}"), index)
            name = f"{kind.name}-{index:03d}"
            path = f"{kind.name}/{name}{drawing.suffix}"
            (root / path).write_bytes(drawing.content)
            people = _people(kind, index, len(drawing.boxes))
            pictures.append(
                Picture(
                    name=name,
                    path=path,
                    kind=kind.name,
                    persons=len(drawing.boxes),
                    basis=kind.basis,
                    expected=kind.expected,
                    people=people,
                    recorded=_recorded(kind.basis, people),
                    boxes=drawing.boxes,
                )
            )
    return pictures


def reference_of(picture: Picture, *, seed: int = 0) -> Image.Image | None:
    """The portrait of a picture's person before it was made a picture of its kind; None of what is no single portrait.

    So what differs between the two is what the kind does: rotation, colours, size, a lossy format.
    """
    kind = next(kind for kind in KINDS if kind.name == picture.kind)
    index = int(picture.name.rsplit("-", 1)[1])
    return kind.draw(random.Random(f"{seed}/{kind.name}/{index}"), index).untreated


def _people(kind: Kind, index: int, faces: int) -> tuple[str, ...]:
    if kind.name == "single_face":
        return (f"{kind.name}-{index // 2:03d}",)  # each has two pictures, under one record
    return tuple(f"{kind.name}-{index:03d}-{number}" for number in range(max(1, faces)))


def _recorded(basis: Basis, people: tuple[str, ...]) -> tuple[str, ...]:
    if basis == "none":
        return ()
    return people[:1] if basis in {"partial", "face_box"} else people


# --- Basis records ---------------------------------------------------------------------------------------------------


def write_basis(
    pictures: Iterable[Picture], path: str | Path, *, now: datetime, source_batch_id: str = "demo"
) -> list[dict[str, Any]]:
    """Write the basis records of these pictures as JSON lines, dated before ``now``, and return them.

    A person has one record for all pictures; consents were given 30 days before ``now``, the expired ones three years
    before it (they held for two), and what was withdrawn was withdrawn two days before it.
    """
    grouped: dict[str, list[Picture]] = {}
    for picture in pictures:
        for person in picture.recorded:
            grouped.setdefault(person, []).append(picture)
    records = [
        _record(number, person, shown, now, source_batch_id)
        for number, (person, shown) in enumerate(grouped.items(), 1)
    ]
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def _record(number: int, person: str, shown: Sequence[Picture], now: datetime, batch: str) -> dict[str, Any]:
    basis = shown[0].basis
    given = now - timedelta(days=3 * 365 if basis == "expired" else 30)
    events = [_event(given, "ConsentGiven", "P2Y")]
    if basis == "withdrawn":
        events.append(_event(now - timedelta(days=2), "ConsentWithdrawn", None))
    return {
        "schema_version": "1.0",
        "record_id": f"r-{number:06d}",
        "pii_principal_id": "hmac:" + hmac.new(DEMO_KEY, person.encode(), hashlib.sha256).hexdigest(),
        "processing": {
            "purposes": ["face-reindex:DuplicateDetection"],
            "lawful_basis": "eu-gdpr:A6-1-a",
            "special_category_condition": "eu-gdpr:A9-2-a",
            "pii_controllers": ["Example Controller"],
            "collection_method": "uploaded_by_subject",
            "retention_period": "P2Y",
            "jurisdiction": "EU",
            "withdrawal_method": "https://example.org/withdraw",
            "impact_assessment": "dpia-2026-01",
            "privacy_notice": "https://example.org/notice",
        },
        "parties": [{"party_id": "controller-1", "role": "controller"}],
        "events": events,
        "source_batch_id": batch,
        "face": {"box": [round(edge, 1) for edge in shown[0].boxes[0]]} if basis == "face_box" else None,
        "images": [picture.path for picture in shown],
        "last_interaction_at": events[-1]["event_time"],
        "expires_at": None,
        "written_release_ref": None,
        "authority_disclosure_ref": None,
        "legal_hold_ref": None,
    }


def _event(when: datetime, state: str, validity: str | None) -> dict[str, Any]:
    return {
        "event_time": when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "validity_duration": validity,
        "event_type": "explicit_consent",
        "event_state": state,
    }


# --- Sources ---------------------------------------------------------------------------------------------------------


@cache
def _source(name: str) -> Image.Image:
    """A picture out of scikit-image's wheel, read as a file: its package would import SciPy to do the same."""
    import importlib.util

    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise RuntimeError("the demo's pictures come with scikit-image: pip install 'face-reindex[demo]'")
    with Image.open(Path(spec.origin).parent / "data" / name) as image:
        return image.convert("RGB")


def _portrait(rng: random.Random, scale: tuple[float, float] = (0.6, 1.2)) -> tuple[Image.Image, Box]:
    """Head and shoulders of an invented person, and the box of the face.

    The cut ends above the badge on the suit: enlarged, a detector takes that for a face now and then.
    """
    cut = (rng.randint(20, 120), rng.randint(0, 20), rng.randint(330, 430), rng.randint(260, 335))
    image = _tilted(cut, rng.uniform(-10, 10))
    box = (FACE[0] - cut[0], FACE[1] - cut[1], FACE[2] - cut[0], FACE[3] - cut[1])
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        box = (image.width - box[2], box[1], image.width - box[0], box[3])
    factor = rng.uniform(*scale)
    across, down = factor * rng.uniform(0.94, 1.06), factor * rng.uniform(0.94, 1.06)
    image = image.resize((round(image.width * across), round(image.height * down)), Image.Resampling.BICUBIC)
    box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    gains = [rng.uniform(0.88, 1.12) for _ in range(3)]
    image = Image.merge("RGB", [band.point(_gain(gain)) for band, gain in zip(image.split(), gains, strict=True)])
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.85, 1.15)), box


def _gain(gain: float) -> list[int]:
    return [min(255, round(value * gain)) for value in range(256)]


@cache
def _mirrored() -> Image.Image:
    """The original with its mirror image ``MARGIN`` wide around it, for what turning brings in from outside.

    The crumpled lining of the collar, which a detector takes for a small face now and then, is smoothed.
    """
    original = _source("astronaut.png").copy()
    original.paste(original.crop(COLLAR).filter(ImageFilter.GaussianBlur(4)), COLLAR)
    pixels = np.asarray(original)
    return Image.fromarray(np.pad(pixels, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect"))


def _tilted(cut: tuple[int, int, int, int], degrees: float) -> Image.Image:
    """A part of the original, turned about the middle of the face, so that the face's box stays where it was."""
    # The mirrored picture begins MARGIN before the original: this is `cut` and MARGIN around it.
    wide = _mirrored().crop((cut[0], cut[1], cut[2] + 2 * MARGIN, cut[3] + 2 * MARGIN))
    middle = ((FACE[0] + FACE[2]) / 2 - cut[0] + MARGIN, (FACE[1] + FACE[3]) / 2 - cut[1] + MARGIN)
    turned = wide.rotate(degrees, resample=Image.Resampling.BILINEAR, center=middle)
    return turned.crop((MARGIN, MARGIN, turned.width - MARGIN, turned.height - MARGIN))


def _encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format_, **options)
    return target.getvalue()


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    return _encode(image, "JPEG", **{"quality": 88, **options})


# --- Pictures with faces ---------------------------------------------------------------------------------------------


def _single(rng: random.Random, index: int) -> Drawing:
    """Mostly a portrait at some scale; every fifth a person in front of something, in a larger picture."""
    if index % 5 == 4:
        return _group(rng, 1)
    image, box = _portrait(rng, (0.5, 2.0))
    return Drawing(_jpeg(image), ".jpg", (box,), image)


def _group(rng: random.Random, faces: int) -> Drawing:
    """Persons side by side in front of a wall or a meadow, at slightly different distances."""
    portraits = [_portrait(rng, (0.7, 1.1)) for _ in range(faces)]
    gap = 24
    width = sum(image.width for image, _ in portraits) + gap * (faces + 1) + (rng.randint(0, 300) if faces == 1 else 0)
    height = max(image.height for image, _ in portraits) + 2 * gap + rng.randint(0, 80)
    background = _source(rng.choice(["brick.png", "grass.png", "gravel.png"]))
    canvas = background.resize((width, height), Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(3))
    boxes = []
    left = gap
    for image, box in portraits:
        top = rng.randint(gap, height - gap - image.height)
        canvas.paste(image, (left, top))
        boxes.append((box[0] + left, box[1] + top, box[2] + left, box[3] + top))
        left += image.width + gap
    return Drawing(_jpeg(canvas), ".jpg", tuple(boxes))


def _several(rng: random.Random, index: int) -> Drawing:
    return _group(rng, 2 + index % 3)


def _three(rng: random.Random, _: int) -> Drawing:
    return _group(rng, 3)


def _two(rng: random.Random, _: int) -> Drawing:
    return _group(rng, 2)


# What a reader does to show orientation n upright, undone.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _exif_rotated(rng: random.Random, index: int) -> Drawing:
    """Stored as a camera held otherwise stores it, with the orientation in EXIF."""
    image, box = _portrait(rng)
    orientation = 2 + index % 7
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Drawing(_jpeg(image.transpose(_STORED[orientation]), exif=exif), ".jpg", (box,), image)


def _cmyk(rng: random.Random, _: int) -> Drawing:
    image, box = _portrait(rng)
    return Drawing(_jpeg(image.convert("CMYK")), ".jpg", (box,), image)


def _greyscale(rng: random.Random, index: int) -> Drawing:
    image, box = _portrait(rng)
    grey = image.convert("L")
    return Drawing(*((_encode(grey, "PNG"), ".png") if index % 2 else (_jpeg(grey), ".jpg")), (box,), image)


def _alpha(rng: random.Random, _: int) -> Drawing:
    """Transparent towards the edges, opaque where the face is."""
    image, box = _portrait(rng)
    mask = Image.new("L", image.size, 0)
    around = (int(box[0]) - 40, int(box[1]) - 40, int(box[2]) + 40, int(box[3]) + 60)
    mask.paste(255, around)
    covered = image.copy()
    covered.putalpha(mask.filter(ImageFilter.GaussianBlur(6)))
    return Drawing(_encode(covered, "PNG"), ".png", (box,), image)


def _palette(rng: random.Random, index: int) -> Drawing:
    image, box = _portrait(rng)
    indexed = image.quantize(colors=256, method=Image.Quantize.MEDIANCUT)
    files = ((_encode(indexed, "PNG"), ".png"), (_encode(indexed, "GIF"), ".gif"))
    return Drawing(*files[index % 2], (box,), image)


def _sixteen_bit(rng: random.Random, _: int) -> Drawing:
    image, box = _portrait(rng)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return Drawing(_encode(deep, "PNG"), ".png", (box,), image)


def _progressive(rng: random.Random, _: int) -> Drawing:
    image, box = _portrait(rng)
    return Drawing(_jpeg(image, progressive=True), ".jpg", (box,), image)


def _webp(rng: random.Random, _: int) -> Drawing:
    image, box = _portrait(rng)
    return Drawing(_encode(image, "WEBP", quality=85, method=2), ".webp", (box,), image)


def _heic(rng: random.Random, _: int) -> Drawing:
    """What phones store since 2017: somewhat more than half the bytes of the JPEG."""
    try:
        import pillow_heif  # pi-heif, by which HEIC is read, has no encoder
    except ImportError:
        raise RuntimeError("the demo's HEIC is written by pillow-heif: pip install 'face-reindex[demo]'") from None
    image, box = _portrait(rng)
    target = io.BytesIO()
    pillow_heif.from_pillow(image).save(target, quality=60)
    return Drawing(target.getvalue(), ".heic", (box,), image)


def _avif(rng: random.Random, _: int) -> Drawing:
    image, box = _portrait(rng)
    # Several threads would make other bytes than one.
    return Drawing(_encode(image, "AVIF", quality=75, max_threads=1), ".avif", (box,), image)


def _animated(rng: random.Random, _: int) -> Drawing:
    """Three frames; the face is in the first only, which is the one that counts."""
    image, box = _portrait(rng)
    frames = [frame.quantize(colors=128) for frame in (image, _gradient(rng, image.size), _gradient(rng, image.size))]
    content = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)
    return Drawing(content, ".gif", (box,), image)


def _compressed(rng: random.Random, _: int) -> Drawing:
    """What messengers make of a JPEG: blocks and smeared colours."""
    image, box = _portrait(rng)
    return Drawing(_jpeg(image, quality=rng.randint(10, 20)), ".jpg", (box,), image)


def _small(rng: random.Random, _: int) -> Drawing:
    """A face about as small as is embedded at all."""
    image, box = _portrait(rng, (1.0, 1.2))
    factor = rng.uniform(0.25, 0.4)
    size = (round(image.width * factor), round(image.height * factor))
    across, down = size[0] / image.width, size[1] / image.height
    shrunk = image.resize(size, Image.Resampling.BICUBIC)
    smaller = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return Drawing(_jpeg(shrunk), ".jpg", (smaller,), image)


# --- Pictures without, and files that are none -----------------------------------------------------------------------


def _gradient(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    corners = np.array([[rng.randint(0, 255) for _ in range(3)] for _ in range(4)], np.uint8).reshape(2, 2, 3)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


def _noise(rng: random.Random) -> Image.Image:
    return Image.fromarray(np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (240, 320, 3), dtype=np.uint8))


def _stripes(rng: random.Random) -> Image.Image:
    period = rng.randint(8, 40)
    lines = np.indices((300, 400)).sum(0) // period % 2
    return Image.fromarray((lines * rng.randint(120, 255)).astype(np.uint8)).convert("RGB")


_FACELESS = (
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "clock_motion.png",
    "hubble_deep_field.jpg",
    "brick.png",
    "grass.png",
    "gravel.png",
)


def _no_face(rng: random.Random, index: int) -> Drawing:
    """Photographs without a face, and textures made from nothing."""
    made: list[Callable[[random.Random], Image.Image]] = [lambda r: _gradient(r, (400, 300)), _noise, _stripes]
    choice = index % (len(_FACELESS) + len(made))
    if choice >= len(_FACELESS):
        return Drawing(_jpeg(made[choice - len(_FACELESS)](rng)), ".jpg")
    image = _source(_FACELESS[choice])
    factor = rng.uniform(0.5, 1.0)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    return Drawing(_jpeg(ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))), ".jpg")


def _truncated(rng: random.Random, _: int) -> Drawing:
    """A transfer that broke off: the header is whole, the picture ends early."""
    content = _jpeg(_portrait(rng)[0])
    return Drawing(content[: int(len(content) * rng.uniform(0.2, 0.6))], ".jpg")


def _fake(rng: random.Random, index: int) -> Drawing:
    """Files whose name says picture and whose bytes do not."""
    png = bytearray(_encode(_portrait(rng)[0], "PNG"))
    middle = len(png) // 2
    png[middle : middle + 64] = bytes(byte ^ 0xFF for byte in png[middle : middle + 64])
    files = (
        (f"This is text, number {index}, and no picture.\n".encode(), ".jpg"),
        (b"", ".jpg"),
        (bytes(png), ".png"),
        (f"<!doctype html><title>404</title><p>Not found: picture {index}</p>\n".encode(), ".jpg"),
        (rng.randbytes(4096), ".jpeg"),
        (b"\xff\xd8\xff\xe0" + rng.randbytes(2048), ".jpg"),
    )
    return Drawing(*files[index % len(files)])


def _tiny(rng: random.Random, index: int) -> Drawing:
    edge = (1, 8)[index % 2]
    return Drawing(_encode(_gradient(rng, (edge, edge)), "PNG"), ".png")


def _huge(_: random.Random, index: int) -> Drawing:
    """A header that promises 3.6 × 10⁹ pixels, and nothing behind it: to be refused before anything is allocated."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000 - index, 8, 2, 0, 0, 0)
    return Drawing(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""), ".png")


KINDS: tuple[Kind, ...] = (
    Kind("single_face", 116, _single),
    Kind("several_faces", 16, _several),
    Kind("bystanders", 8, _three, basis="partial", expected="uncovered_faces"),
    Kind("face_level", 8, _two, basis="face_box"),
    Kind("exif_rotated", 14, _exif_rotated),
    Kind("cmyk", 6, _cmyk),
    Kind("greyscale", 8, _greyscale),
    Kind("alpha", 6, _alpha),
    Kind("palette", 6, _palette),
    Kind("sixteen_bit", 4, _sixteen_bit),
    Kind("progressive", 8, _progressive),
    Kind("webp", 6, _webp),
    Kind("heic", 4, _heic),
    Kind("avif", 4, _avif),
    Kind("animated", 4, _animated),
    Kind("compressed", 6, _compressed),
    Kind("small", 6, _small),
    Kind("no_face", 20, _no_face, expected="no_face"),
    Kind("truncated", 6, _truncated, expected="broken"),
    Kind("fake", 6, _fake, expected="broken"),
    Kind("tiny", 4, _tiny, expected="no_face"),
    Kind("huge_header", 2, _huge, expected="too_large"),
    Kind("no_basis", 10, _single, basis="none", expected="refused"),
    Kind("withdrawn", 6, _single, basis="withdrawn", expected="refused"),
    Kind("expired", 6, _single, basis="expired", expected="refused"),
)


# --- As a program ----------------------------------------------------------------------------------------------------


def check_pictures(folder: str | Path, pictures: Iterable[Picture], *, long_side: int = 640) -> dict[str, Any]:
    """Run facenet-pytorch's detector over the readable ones; count by kind where it found what was planted.

    Scaled to ``long_side`` as the line does; a face counts from confidence 0.9. Of each picture with planted boxes the
    smallest overlap (intersection over union) enters ``least_overlap``.
    """
    import pi_heif
    import torch
    from facenet_pytorch import MTCNN
    from PIL import ImageOps

    pi_heif.register_heif_opener()
    torch.set_num_threads(1)
    detector = MTCNN(keep_all=True, min_face_size=20)
    result: dict[str, Any] = {}
    for picture in pictures:
        if picture.expected in {"broken", "too_large"} or picture.kind == "tiny":
            continue
        with Image.open(Path(folder) / picture.path) as image:
            pixels: Image.Image = ImageOps.exif_transpose(image)
            if pixels.mode.startswith("I"):
                pixels = Image.fromarray((np.asarray(pixels) // 257).astype(np.uint8))
            pixels = pixels.convert("RGB")
        factor = min(1.0, long_side / max(pixels.size))
        pixels = pixels.resize((round(pixels.width * factor), round(pixels.height * factor)), Image.Resampling.BILINEAR)
        boxes, confidences = detector.detect(pixels)
        found = [
            tuple(float(edge) / factor for edge in box)
            for box, confidence in zip(boxes if boxes is not None else [], confidences, strict=False)
            if confidence is not None and confidence >= 0.9
        ]
        row = result.setdefault(picture.kind, {"pictures": 0, "as_planted": 0, "least_overlap": 1.0, "differing": []})
        row["pictures"] += 1
        if len(found) == picture.persons:
            row["as_planted"] += 1
        else:
            row["differing"].append(f"{picture.name}: {len(found)} for {picture.persons}")
        for box in picture.boxes:
            best = max((overlap(box, other) for other in found), default=0.0)
            row["least_overlap"] = round(min(row["least_overlap"], best), 2)
    return result


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    area = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return shared / (area - shared)


def main(arguments: Sequence[str]) -> int:
    """Make the set; the last line is one JSON object."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m bench.pictures FOLDER [--check]", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    start = time.perf_counter()
    pictures = make_pictures(folder)
    seconds = time.perf_counter() - start
    records = write_basis(pictures, folder / "basis.jsonl", now=datetime.now(UTC))
    size = sum((folder / picture.path).stat().st_size for picture in pictures)
    result: dict[str, Any] = {
        "files": len(pictures),
        "records": len(records),
        "bytes": size,
        "seconds": round(seconds, 1),
    }
    if "--check" in arguments:
        result["found"] = check_pictures(folder, pictures)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
