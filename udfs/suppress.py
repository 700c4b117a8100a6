"""Non-maximum suppression of boxes from many images, each image as if it were alone: the processor's form.

On a GPU a kernel does the same (udfs/kernels.cu, ``suppress``), in the same arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def nms_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Greedy suppression within each group by intersection over union.

    ``boxes``: [n, 4]; ``scores``: [n]; ``groups``: int64 [n], ascending. Returns the indices kept, by group and
    then by falling score (equal scores in the given order).
    """
    if boxes.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    picks, start = [], 0
    for count in torch.unique_consecutive(groups, return_counts=True)[1].tolist():
        part = slice(start, start + count)
        picks.append(nms(boxes[part], scores[part], threshold) + start)
        start += count
    return torch.cat(picks)


def nms_by_smaller_area(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Greedy suppression where overlap is the intersection over the *smaller* of two boxes (MTCNN's last stage).

    Lengths count both end pixels, as in MTCNN. Arguments as in `nms_by_group`; returns the indices kept, by group
    and then by falling score (the last of equal scores first, as a sort from the back gives it).
    """
    count = boxes.shape[0]
    order = torch.sort(scores, stable=True).indices.flip(0)
    order = order[torch.sort(groups[order], stable=True).indices]
    ranked, group = boxes[order], groups[order]
    length = (torch.minimum(ranked[:, None, 2:4], ranked[None, :, 2:4])
              - torch.maximum(ranked[:, None, :2], ranked[None, :, :2]) + 1).clamp(min=0)  # fmt: skip
    area = (ranked[:, 2] - ranked[:, 0] + 1) * (ranked[:, 3] - ranked[:, 1] + 1)
    overlap = length[..., 0] * length[..., 1] / torch.minimum(area[:, None], area[None, :])
    beats = ((overlap > threshold) & (group[:, None] == group[None, :])).triu(1)
    # A box stays if no better box that itself stays beats it. Each round settles at least one more rank, and
    # chains are short, so a few matrix products replace a loop over boxes.
    keep = torch.ones(count, dtype=torch.bool, device=boxes.device)
    for _ in range(count):
        settled = ~(beats & keep[:, None]).any(dim=0)
        if torch.equal(settled, keep):
            break
        keep = settled
    return order[keep]
