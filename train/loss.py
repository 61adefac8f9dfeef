"""Symmetric contrastive loss (Eq. 3-6), with each image in a batch once.

B left rows (images), C right rows (captions), D width. Pair p is caption p with its image
`owner[p]`, so there are as many pairs as captions. With one caption an image this is the paper's
loss to the letter; with more, each image is a candidate once, not once for each of its captions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .model_config import LossConfig, ModelConfig


class Temperature(nn.Module):
    """The factor on cosines, 1 / tau, as a learned logarithm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.low, self.high = config.log_scale_min, config.log_scale_max
        start = torch.tensor(config.log_scale)
        if config.learn_scale:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    def scale(self) -> Tensor:
        """The factor, a scalar above 0."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the logarithm back into its range; called after each step.

        The released code clamps on the way forward, which stops the gradient outside for good.
        """
        self.log_scale.clamp_(self.low, self.high)


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    owner: Tensor,
    group: Tensor | None,
    scale: Tensor,
    config: LossConfig,
    right_group: Tensor | None = None,
) -> Tensor:
    """Mean over pairs and both directions of the cross-entropy with the targets (Eq. 6).

    `positives`: the target of a row is uniform over all partners of its group; soft targets (Eq. 5)
    keep their mass on the group and spread it evenly within. `masked`: for each pair, the other
    members of its group are no candidates, in logits and in soft targets alike.

    Args:
        left: Unit rows, (B, D).
        right: Unit rows, (C, D).
        owner: Row of `left` that is the partner of each row of `right`, (C,) int64.
        group: Equal for left rows that are never negatives of each other's partners, (B,) int64;
            None when all differ.
        scale: 1 / tau, above 0.
        config: Targets and readings.
        right_group: Group of each row of `right` itself, (C,) int64, where it may be another than
            its owner's: then it is no negative of either. None when it is the owner's.

    Returns:
        Scalar in nats.
    """
    left, right, scale = left.float(), right.float(), scale.float()
    groups = torch.arange(len(left), device=left.device) if group is None else group
    if config.targets == "soft":
        return _soft(left, right, owner, groups, scale, config, right_group)
    logits = scale * left @ right.T  # (B, C)
    pair = torch.arange(len(owner), device=owner.device)  # (C,)
    if group is None and config.same_image == "positives" and not config.label_smoothing:
        # The sum over an image's pairs of their mean is their sum: no (B, C) targets are needed.
        all_right, all_left = logits.logsumexp(1)[owner], logits.logsumexp(0)
        return ((all_right + all_left) / 2 - logits[owner, pair]).mean()
    kin = _kin(groups, groups[owner], right_group)  # (B, C)
    forth = _hard(logits, kin, owner, pair, config)
    back = _hard(logits.T, kin.T, pair, owner, config)
    return (forth + back) / 2


def _kin(left_group: Tensor, owner_group: Tensor, right_group: Tensor | None) -> Tensor:
    """(B, C) bool: whether a right row or its owner is of a left row's group: no negative of it."""
    kin = left_group[:, None] == owner_group[None]
    return kin if right_group is None else kin | (left_group[:, None] == right_group[None])


def _hard(logits: Tensor, kin: Tensor, row: Tensor, column: Tensor, config: LossConfig) -> Tensor:
    """One direction. logits, kin: (R, K); pair p is logits[row[p], column[p]]."""
    smoothing = config.label_smoothing
    if config.same_image == "positives":
        partners = (logits * kin).sum(1) / kin.sum(1)  # (R,), mean logit of the partners
        target = (1 - smoothing) * partners + smoothing * logits.mean(1)
        return (logits.logsumexp(1) - target)[row].mean()
    own = logits[row, column]  # (C,)
    others = logits.masked_fill(kin, torch.finfo(logits.dtype).min).logsumexp(1)[row]
    total = torch.logaddexp(own, others)  # (C,), log of the sum over a pair's candidates
    candidates = (~kin).sum(1)[row] + 1
    mean = (own + logits.masked_fill(kin, 0).sum(1)[row]) / candidates
    return (total - (1 - smoothing) * own - smoothing * mean).mean()


def _soft(
    left: Tensor,
    right: Tensor,
    owner: Tensor,
    group: Tensor,
    scale: Tensor,
    config: LossConfig,
    right_group: Tensor | None,
) -> Tensor:
    """Both directions with the targets of Eq. 5, over C pairs."""
    lowest = torch.finfo(left.dtype).min
    image, kind = left[owner], group[owner]  # (C, D), (C,)
    kin = _kin(kind, kind, right_group)  # (C, C), row = image of a pair
    masked = config.same_image == "masked"
    hidden = kin & ~torch.eye(len(kin), dtype=torch.bool, device=kin.device) & masked
    with torch.set_grad_enabled(not config.detach_targets and torch.is_grad_enabled()):
        sharpness = scale / 2 if config.soft_scale == "divide" else 1 / (2 * scale)
        alike = (image @ image.T + right @ right.T) * sharpness  # (C, C)
        forth = alike.masked_fill(hidden, lowest).softmax(1)  # t of Eq. 5
        if not masked:
            even = (forth * kin).sum(1, keepdim=True) / kin.sum(1, keepdim=True)
            forth = torch.where(kin, even, forth)
        back = forth.T  # (C, C), row = caption, column = image of a pair
        if config.renormalise_targets:
            back = back / back.sum(1, keepdim=True)
        member = F.one_hot(owner, len(left)).to(back.dtype)  # (C, B)
        back = back @ member  # (C, B): an image's mass is that of its pairs
    logits = scale * image @ right.T  # (C, C), row = image of a pair
    one = -(forth * logits.masked_fill(hidden, lowest).log_softmax(1)).sum(1)  # (C,), Eq. 3
    logits = scale * right @ left.T  # (C, B)
    foreign = _kin(group, kind, right_group).T  # (C, B), other images of the group
    foreign = foreign & ~member.bool() & masked
    two = -(back * logits.masked_fill(foreign, lowest).log_softmax(1)).sum(1)  # (C,), Eq. 4
    return (one + two).mean() / 2
