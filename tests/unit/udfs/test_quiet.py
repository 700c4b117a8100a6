"""What is wrong with an image is told by its status, and by no line on a worker's stderr."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import noise

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
COMPRESSIONS = (
    "raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4", "tiff_ccitt", "zstd", "lzma",
    "webp",
)  # fmt: skip
MUTANTS = 5
BY_PILLOW = """
from PIL import Image
def decode(data):
    Image.open(io.BytesIO(data)).load()
"""
BY_US = """
from udfs.decode import decode as decode_
from udfs.params import PipelineParams
def decode(data):
    decode_(data, PipelineParams())
"""
READER = """
import io, pickle, sys
from concurrent.futures import ThreadPoolExecutor
{decoder}
def ended(data):
    try:
        decode(data)
    except Exception:
        return False
    return True
with open(sys.argv[1], "rb") as file, ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(ended, pickle.load(file))))
"""


def tiffs() -> Iterator[bytes]:
    """Sound ones, by every codec that Pillow writes."""
    pixels = Image.fromarray(noise(40, 56))
    for compression in COMPRESSIONS:
        for mode in ("RGB", "L", "1", "CMYK", "P", "RGBA", "YCbCr"):
            stream = BytesIO()
            with suppress(OSError, ValueError, SystemError, RuntimeError):  # not every codec takes every mode
                pixels.convert(mode).save(stream, "TIFF", compression=compression)
                yield stream.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, or with other bytes: anywhere, or where the directory is."""
    changed = bytearray(data)
    where = rng.choice(("cut", "anywhere", "front", "end"))
    if where == "cut":
        return data[: rng.randrange(8, len(data))]
    for _ in range(rng.randrange(1, 5)):
        near = rng.randrange(8, min(len(data), 260))
        at = {"anywhere": rng.randrange(8, len(data)), "front": near, "end": len(data) - near}[where]
        changed[at] = rng.randrange(256)
    return bytes(changed)


def read_by(decoder: str, files: Path) -> tuple[int, str]:
    """How many of the files a process decodes, and what it writes to stderr."""
    code = READER.format(decoder=decoder)
    done = subprocess.run(
        [sys.executable, "-c", code, str(files)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    return int(done.stdout), done.stderr


def test_damaged_pictures_write_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    sound = list(tiffs())
    assert len(sound) > 30
    files = [*sound, *(damaged(data, rng) for data in sound for _ in range(MUTANTS))]
    # Of a directory that says too much Pillow warns by Python's warnings, of another by its log.
    broken = np.zeros(60, np.uint8).tobytes()
    files += [b"II*\0\x08\0\0\0\x02\0\x15\x01\x03\0\x01\0\0\0\xff\0\0\0" + broken, sound[0][:-40] + broken]
    path = tmp_path / "files"
    path.write_bytes(pickle.dumps(files))
    decoded, said = read_by(BY_US, path)
    assert said == ""
    assert len(sound) * 0.8 <= decoded < len(files) * 0.9
    # They are such that decoders have much to say of.
    _, said = read_by(BY_PILLOW, path)
    assert len(said.splitlines()) > 50
