"""Embeddings against the distances that facenet-pytorch publishes (its tests/actions_test.py), with its weights.

Neither the weights (107 MB) nor the five photographs may be part of this repository, so this runs where both are at
hand: `vggface2` or `casia-webface` in the cache, and FACE_REINDEX_TEST_DATA naming a folder with
`test_images_aligned/*/1.png` of facenet-pytorch's repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.settings import load_settings
from tests.golden.support import photographs, workspace
from udfs.embed import Embedder
from udfs.nets import build_nets, read_model_file
from udfs.params import PipelineParams
from udfs.weights import PUBLISHED_URLS, build_model_file, resolve_weights

pytestmark = pytest.mark.unit

# Above the diagonal, in the order of the folders' names.
PUBLISHED = {
    "vggface2": [1.482895, 0.886342, 1.438450, 1.437583, 1.345686, 1.029880, 1.061939, 1.363125, 1.338803, 1.066040],
    "casia-webface": [1.430769, 0.992931, 1.414197, 1.329544, 1.253911, 1.144899, 1.079755, 1.358875, 1.337322,
                      1.204118],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_distances_are_those_that_facenet_pytorch_publishes(name: str) -> None:
    cache = load_settings(environ={}).model.cache_dir
    if not (Path(cache).expanduser() / PUBLISHED_URLS[name].rsplit("/", 1)[1]).exists():
        pytest.skip(
            f"the weights {name} are not in the cache {cache}; any job with `model.weights: {name}` fetches them"
        )
    aligned = [path for path in photographs() if path.parts[-3] == "test_images_aligned"]
    if len(aligned) != 5:
        pytest.skip("facenet-pytorch's five aligned photographs are not at hand (FACE_REINDEX_TEST_DATA)")
    model = build_model_file(resolve_weights(name, cache_dir=cache), workspace() / f"{name}.pt")
    crops = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in aligned])
    vectors = Embedder(build_nets(read_model_file(model)), PipelineParams()).embed(crops)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    # Its own bound: the norm of all 25 differences, each pair counted twice.
    error = np.linalg.norm(distances[np.triu_indices(5, 1)] - PUBLISHED[name]) * np.sqrt(2)
    assert error < 1e-2
