"""Makes the photographs of the benchmarks: JPEGs as cameras and phones store them, with faces of known size and place.

    python -m bench.photos FOLDER --count 200

They differ from the demo's pictures (bench/pictures.py, whose sources and portrait they share) in what costs time: they
have camera sizes, sensor noise, and faces of the sizes that `Mix` says.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from bench.pictures import Box, _encode, _portrait, _source

_BACKGROUNDS = ("brick.png", "grass.png", "gravel.png", "coffee.png", "rocket.jpg")
_ASPECTS = (4 / 3, 3 / 2, 16 / 9, 1.0)


@dataclass(frozen=True)
class Photo:
    """One JPEG: its bytes, size, and the boxes of the planted faces (left, top, right, bottom, in pixels)."""

    content: bytes
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Mix:
    """What a set of photographs is like: ``megapixels`` from and to (drawn log-uniformly), or one fixed ``size``.

    ``share``: the longer side of a face as a part of the photograph's long side, from and to. ``faces``: how many are
    in a photograph, and how often; mostly portraits, some groups, some without anybody.
    """

    name: str
    megapixels: tuple[float, float] = (0.5, 4.0)
    size: tuple[int, int] | None = None
    share: tuple[float, float] = (0.05, 0.33)
    faces: tuple[tuple[int, float], ...] = ((0, 0.10), (1, 0.65), (2, 0.15), (3, 0.07), (5, 0.03))


MIXED = Mix("mixed 0.5 to 4 MP")
THUMBNAILS = Mix("320 x 240, a face in every third", size=(320, 240), share=(0.15, 0.33), faces=((0, 0.65), (1, 0.35)))
GROUPS = Mix("groups, 1 to 2 MP", megapixels=(1.0, 2.0), share=(0.02, 0.12), faces=((6, 0.5), (9, 0.5)))
_MIXES = {"mixed": MIXED, "thumbnails": THUMBNAILS, "groups": GROUPS}


def make_photos(mix: Mix, count: int, *, seed: int = 0, workers: int = 2) -> list[Photo]:
    """``count`` photographs; number i depends on ``mix``, ``seed`` and i only."""
    if count < 32 or workers == 1:
        return [make_photo(mix, seed, index) for index in range(count)]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_make, [(mix, seed, index) for index in range(count)], chunksize=8))


def _make(job: tuple[Mix, int, int]) -> Photo:
    return make_photo(*job)


def make_photo(mix: Mix, seed: int, index: int) -> Photo:
    """Photograph number ``index`` of a set."""
    rng = random.Random(f"{seed}/{mix.name}/{index}")
    width, height = mix.size or _camera_size(rng, mix.megapixels)
    faces = rng.choices([count for count, _ in mix.faces], [often for _, often in mix.faces])[0]
    canvas = _background(rng, width, height)
    boxes = list(_planted(rng, canvas, faces, mix.share))
    pixels = np.asarray(canvas, np.int16)
    # Sensor noise: what makes a camera's JPEG about 0.3 bytes a pixel, and its decoding slow.
    noise = np.random.default_rng(rng.getrandbits(64)).normal(0, 4, (height, width, 1)).astype(np.int16)
    noisy = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    return Photo(_encode(noisy, "JPEG", quality=88), width, height, tuple(boxes))


def _camera_size(rng: random.Random, megapixels: tuple[float, float]) -> tuple[int, int]:
    area = 1e6 * math.exp(rng.uniform(math.log(megapixels[0]), math.log(megapixels[1])))
    aspect = rng.choice(_ASPECTS)
    long, short = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return (short, long) if rng.random() < 0.3 else (long, short)


def _background(rng: random.Random, width: int, height: int) -> Image.Image:
    source = _wide(rng.choice(_BACKGROUNDS))
    side = rng.uniform(0.5, 1.0)
    cut = (round(source.width * side), round(source.height * side))
    left, top = rng.randint(0, source.width - cut[0]), rng.randint(0, source.height - cut[1])
    part = source.crop((left, top, left + cut[0], top + cut[1]))
    return part.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(width / 800))


@cache
def _wide(name: str) -> Image.Image:
    return _source(name)


def _planted(rng: random.Random, canvas: Image.Image, faces: int, share: tuple[float, float]) -> Iterator[Box]:
    """Paste head and shoulders side by side, each in a column of its own; as many as have room."""
    column = canvas.width // max(faces, 1)
    for number in range(faces):
        portrait, box = _portrait(rng, (1.0, 1.0))
        wanted = math.exp(rng.uniform(*map(math.log, share))) * max(canvas.size)
        factor = min(wanted / (box[3] - box[1]), column / portrait.width, canvas.height / portrait.height)
        size = (max(1, math.floor(portrait.width * factor)), max(1, math.floor(portrait.height * factor)))
        left = number * column + rng.randint(0, column - size[0])
        top = rng.randint(0, canvas.height - size[1])
        canvas.paste(portrait.resize(size, Image.Resampling.BICUBIC), (left, top))
        yield (left + box[0] * factor, top + box[1] * factor, left + box[2] * factor, top + box[3] * factor)


def main() -> None:
    """Write photographs into a folder, to look at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--mix", choices=sorted(_MIXES), default="mixed")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for index, photo in enumerate(make_photos(_MIXES[arguments.mix], arguments.count)):
        (arguments.folder / f"{index:05d}.jpg").write_bytes(photo.content)


if __name__ == "__main__":
    main()
