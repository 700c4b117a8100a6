"""Batch norms folded into the convolutions before them, in TensorFlow's own arithmetic.

Weights that were published both ways are thereby one network, bit for bit: each operation below is rounded to 32 bits
by itself, as it is in tensorflow/tools/graph_transforms/fold_old_batch_norms.cc.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from udfs.nets import StateDict

#: Of every batch norm of facenet's networks.
EPSILON: Final = np.float32(0.001)


def fold_batch_norms(state: StateDict) -> StateDict:
    """The embedding network's tensors with the batch norms behind convolutions folded; the last one follows none."""
    folded = dict(state)
    for name in state:
        layer = name.removesuffix(".conv.weight")
        if layer == name or f"{layer}.bn.weight" not in state:
            continue
        gamma, beta, mean, variance = (
            state[f"{layer}.bn.{key}"].float().numpy() for key in ("weight", "bias", "running_mean", "running_var")
        )
        scale = (np.float32(1) / np.sqrt(variance + EPSILON)) * gamma
        weight = state[name].float().numpy() * scale[:, None, None, None]
        folded[name] = torch.from_numpy(np.ascontiguousarray(weight))
        folded |= idle_norm(f"{layer}.bn", torch.from_numpy(-mean * scale + beta))
    return {name: torch.zeros_like(t) if name.endswith("num_batches_tracked") else t for name, t in folded.items()}


def idle_norm(name: str, offset: Tensor) -> StateDict:
    """The tensors of a batch norm that only adds ``offset``: its variance and epsilon make one."""
    ones = torch.ones_like(offset)
    return {
        f"{name}.weight": ones,
        f"{name}.bias": offset,
        f"{name}.running_mean": torch.zeros_like(offset),
        f"{name}.running_var": ones - float(EPSILON),
        f"{name}.num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }
