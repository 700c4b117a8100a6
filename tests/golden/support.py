"""Pictures and networks that the tests of udfs/ share; each is made once a process."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from udfs.detect import Engine
from udfs.nets import ModelFile, Nets, build_nets, read_model_file
from udfs.pyramid import Levels
from udfs.weights import Weights, build_model_file, resolve_weights

Pixels = NDArray[np.uint8]


@cache
def workspace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="face-reindex-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def random_weights() -> Weights:
    return resolve_weights("random", cache_dir=workspace() / "cache")


@cache
def model_path() -> Path:
    return build_model_file(random_weights(), workspace() / "model.pt")


@cache
def model() -> ModelFile:
    return read_model_file(model_path())


@cache
def nets() -> Nets:
    import torch

    torch.set_num_threads(2)
    return build_nets(model())


@cache
def astronaut() -> Pixels:
    """One face (NASA, public domain; from scikit-image's wheel)."""
    from skimage.data import astronaut as picture

    return np.ascontiguousarray(picture())


def small_astronaut(side: int = 256) -> Pixels:
    return np.array(Image.fromarray(astronaut()).resize((side, side), Image.Resampling.BICUBIC))


def portrait(side: int = 160) -> Pixels:
    """The astronaut's head, filling the picture."""
    return np.array(Image.fromarray(astronaut()[0:240, 110:350]).resize((side, side), Image.Resampling.BICUBIC))


def group(columns: int, *, side: int = 200) -> Pixels:
    """The same head ``columns`` times side by side, each a little different."""
    heads = [Image.fromarray(portrait(side)) for _ in range(columns)]
    heads = [h.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if i % 2 else h for i, h in enumerate(heads)]
    return np.concatenate([np.array(head) for head in heads], axis=1)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: Pixels | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def proposed(engine: Engine, images: Sequence[Pixels], found: Levels) -> tuple[Tensor, Tensor]:
    """P-Net's answer for all cells of images: probabilities and moves."""
    return engine.propose(engine.load(images), found, engine.upload(found.table))


def photographs() -> list[Path]:
    """Real photographs for tests only; empty where they are not at hand."""
    folder = os.environ.get("FACE_REINDEX_TEST_DATA")
    places = [Path(folder)] if folder else [Path(__file__).parents[3] / "shared" / "data" / "faces"]
    return sorted(p for place in places if place.is_dir() for p in place.rglob("*.[pj][np]g"))
