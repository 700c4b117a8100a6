"""Embeddings against the distances that facenet-pytorch publishes (its tests/actions_test.py), with its weights.

Neither the weights nor the photographs may be part of this repository, so this runs where both are at hand: the weights
in the cache (`make weights` fetches `casia-webface`), and FACE_REINDEX_TEST_DATA naming a folder with
`test_images/*/1.jpg` of facenet-pytorch's repository, or some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from facenet_pytorch import MTCNN
from PIL import Image
from torchvision.transforms import Resize

from jobs.settings import load_settings
from tests.golden.support import Pixels, photographs, workspace
from udfs import casia
from udfs.detect import Detector
from udfs.embed import Embedder
from udfs.nets import Nets, build_nets, read_model_file
from udfs.params import PipelineParams
from udfs.weights import PUBLISHED_URLS, build_model_file, resolve_weights

pytestmark = pytest.mark.unit

PEOPLE = ["angelina_jolie", "bradley_cooper", "kate_siegel", "paul_rudd", "shea_whigham"]
# Above the diagonal, in this order.
PUBLISHED = {
    "vggface2": [1.482895, 0.886342, 1.438450, 1.437583, 1.345686, 1.029880, 1.061939, 1.363125, 1.338803, 1.066040],
    "casia-webface": [1.430769, 0.992931, 1.414197, 1.329544, 1.253911, 1.144899, 1.079755, 1.358875, 1.337322,
                      1.204118],
}  # fmt: skip
# Its own bound: the norm of all 25 differences, each pair counted twice.
BOUND = 1e-2
FULL_SIZE = PipelineParams(detection_long_side=0)


def their_crop(_: Nets, picture: Image.Image) -> Pixels:
    """The largest face, cut out by facenet-pytorch's own detector, as its test does."""
    standardised = MTCNN()(picture)
    return (standardised * 128 + 127.5).round().byte().permute(1, 2, 0).numpy()


def our_crop(nets: Nets, picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture)
    [found] = Detector(nets, FULL_SIZE).detect([pixels])
    boxes = found.boxes
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Embedder(nets, FULL_SIZE).crops(pixels, boxes[[np.argmax(sizes)]])[0]


CACHE = Path(load_settings(environ={}).model.cache_dir).expanduser()
CACHED = {
    "vggface2": CACHE / PUBLISHED_URLS["vggface2"].rsplit("/", 1)[1],
    casia.NAME: casia.cached_file(CACHE),
}


@cache
def nets_of(name: str) -> Nets:
    if not CACHED[name].exists():
        pytest.skip(f"the weights {name} are not in {CACHE}; `make weights` fetches them")
    weights = resolve_weights(name, cache_dir=CACHE)
    return build_nets(read_model_file(build_model_file(weights, workspace() / f"{name}.pt")))


@pytest.mark.parametrize("crop", [their_crop, our_crop])
# `vggface2` joins where its weights are: nothing but a download from GitHub brings them.
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name == casia.NAME or CACHED[name].exists()])
def test_distances_are_those_that_facenet_pytorch_publishes(
    name: str, crop: Callable[[Nets, Image.Image], Pixels]
) -> None:
    paths = {path.parent.name: path for path in photographs() if path.parent.parent.name == "test_images"}
    at_hand = [number for number, person in enumerate(PEOPLE) if person in paths]
    if len(at_hand) < 3:
        pytest.skip("facenet-pytorch's photographs are not at hand (FACE_REINDEX_TEST_DATA)")
    nets = nets_of(name)
    pictures = [Resize(512)(Image.open(paths[PEOPLE[number]]).convert("RGB")) for number in at_hand]
    vectors = Embedder(nets, FULL_SIZE).embed([crop(nets, picture) for picture in pictures])
    published = np.zeros((5, 5))
    published[np.triu_indices(5, 1)] = PUBLISHED[name]
    pairs = np.triu_indices(len(at_hand), 1)
    found = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)[pairs]
    error = float(np.linalg.norm(found - published[np.ix_(at_hand, at_hand)][pairs])) * 2**0.5
    # Fewer pairs, less error: scaled to those at hand.
    bound = BOUND * (len(found) / 10) ** 0.5
    print(f"{name}, {crop.__name__}: norm of the differences {error:.4f}, bound {bound:.4f}, {len(found)} of 10 pairs")
    assert error < bound
