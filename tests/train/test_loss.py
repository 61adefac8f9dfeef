"""The loss against the paper's equations, written out with loops in float64."""

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cbmf.train.config import LossConfig, ModelConfig
from cbmf.train.loss import Temperature, contrastive_loss

SAME_IMAGE = ("positives", "masked")
SOFT = itertools.product(
    ["soft"], ["divide", "multiply"], [True, False], [True, False], SAME_IMAGE, [0.0]
)
HARD = itertools.product(["hard"], ["divide"], [True], [True], SAME_IMAGE, [0.0, 0.1])
CHOICES = [*SOFT, *HARD]


def unit(rows, width, seed):
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=random, dtype=torch.float64), dim=-1)


def literal(left, right, owner, group, tau, config) -> Any:
    """Eq. 3-6, pair by pair. Pair p: image owner[p], caption p."""
    x, y = [left[o] for o in owner], list(right)
    kind = [group[o] for o in owner]
    total, count = torch.zeros((), dtype=torch.float64), len(y)

    def candidates(p, among):
        """Indices that pair p is compared with."""
        masked = config.same_image == "masked"
        return [q for q in among if not (masked and among[q] == kind[p] and q != own(p, among))]

    def own(p, among):
        return p if among is captions else owner[p]

    captions = dict(enumerate(kind))
    images = dict(enumerate(group))

    @functools.cache
    def target(i, j):
        """t_ij of Eq. 5, with the stated treatment of one image's pairs."""

        def weight(m):
            cosines = x[i] @ x[m] + y[i] @ y[m]
            return torch.exp(
                cosines / (2 * tau) if config.soft_scale == "divide" else cosines / 2 * tau
            )

        among = candidates(i, captions)
        if j not in among:
            return torch.zeros((), dtype=torch.float64)
        whole = sum(weight(m) for m in among)
        if config.same_image == "positives" and kind[j] == kind[i]:
            kin = [m for m in among if kind[m] == kind[i]]
            return sum(weight(m) for m in kin) / len(kin) / whole
        return weight(j) / whole

    for i in range(count):
        for direction in (1, 2):
            among = captions if direction == 1 else images
            allowed = candidates(i, among)
            cosine = {j: (x[i] @ y[j] if direction == 1 else y[i] @ left[j]) for j in allowed}
            whole = sum(torch.exp(cosine[j] / tau) for j in allowed)
            loss = {j: -torch.log(torch.exp(cosine[j] / tau) / whole) for j in allowed}
            if config.targets == "hard":
                good = [j for j in allowed if among[j] == kind[i]]
                e = config.label_smoothing
                t = {j: (1 - e) * (j in good) / len(good) + e / len(allowed) for j in allowed}
            elif direction == 1:
                t = {j: target(i, j) for j in allowed}
            else:
                sums = [target(q, i) for q in range(count)]
                norm = sum(sums) if config.renormalise_targets else 1
                t = {j: sum(sums[q] for q in range(count) if owner[q] == j) / norm for j in allowed}
            if config.targets == "soft" and config.detach_targets:
                t = {j: v.detach() if torch.is_tensor(v) else v for j, v in t.items()}
            total = total + sum(t[j] * loss[j] for j in allowed)
    return total / (2 * count)


BATCHES = {
    "one caption an image": ([0, 1, 2, 3], [0, 1, 2, 3]),
    "several captions": ([0, 0, 1, 2, 2], [0, 1, 2]),
    "connected images": ([0, 0, 1, 2, 3], [7, 5, 7, 2]),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_loss_and_gradients_are_those_of_the_equations(choice, batch):
    targets, soft_scale, detach, renormalise, same, smoothing = choice
    config = LossConfig(
        targets=targets,
        soft_scale=soft_scale,
        detach_targets=detach,
        renormalise_targets=renormalise,
        same_image=same,
        label_smoothing=smoothing,
    )
    owner, group = BATCHES[batch]
    left = unit(len(group), 5, seed=0).requires_grad_()
    right = unit(len(owner), 5, seed=1).requires_grad_()
    tau = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    wanted = literal(left, right, owner, group, tau, config)
    gradients = torch.autograd.grad(wanted, (left, right, tau))
    groups = None if len(set(group)) == len(group) else torch.tensor(group)
    got = contrastive_loss(left, right, torch.tensor(owner), groups, 1 / tau, config)
    assert got.item() == pytest.approx(wanted.item(), abs=1e-5)
    for mine, slow in zip(torch.autograd.grad(got, (left, right, tau)), gradients, strict=True):
        torch.testing.assert_close(mine, slow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_equal_rows_cost_log_of_batch(targets):
    same = torch.ones(8, 4) / 2
    owner, config = torch.arange(8), LossConfig(targets=targets)
    loss = contrastive_loss(same, same, owner, None, torch.tensor(10.0), config)
    assert loss.item() == pytest.approx(math.log(8), abs=1e-5)


def test_orthogonal_pairs_have_the_closed_form():
    rows, scale = torch.eye(6), 3.0
    loss = contrastive_loss(rows, rows, torch.arange(6), None, torch.tensor(scale), LossConfig())
    assert loss.item() == pytest.approx(math.log(1 + 5 * math.exp(-scale)), abs=1e-6)


def test_captions_of_one_image_are_never_negatives():
    image = torch.eye(3)
    caption = torch.eye(3)[[0, 0, 1, 2]]
    owner = torch.tensor([0, 0, 1, 2])
    for same in ("positives", "masked"):
        loss = contrastive_loss(
            image, caption, owner, None, torch.tensor(100.0), LossConfig(same_image=same)
        )
        # Perfect rows: only the split over two equal positives costs, and only where they compete.
        floor = 2 * math.log(2) / 4 / 2 if same == "positives" else 0.0
        assert loss.item() == pytest.approx(floor, abs=1e-6)


def test_a_batch_of_one_group_has_no_negatives_and_finite_gradients():
    left = unit(2, 3, seed=0).requires_grad_()
    right = unit(2, 3, seed=1)
    for same in ("positives", "masked"):
        loss = contrastive_loss(
            left,
            right,
            torch.arange(2),
            torch.tensor([4, 4]),
            torch.tensor(5.0),
            LossConfig(same_image=same),
        )
        (gradient,) = torch.autograd.grad(loss, left)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        assert same == "positives" or loss.item() == pytest.approx(0, abs=1e-6)


def test_temperature_is_the_exponential_of_a_learned_clamped_number():
    temperature = Temperature(ModelConfig(log_scale=1.0, log_scale_min=0.5, log_scale_max=2.0))
    assert temperature.scale().item() == pytest.approx(math.e)
    with torch.no_grad():
        temperature.log_scale.fill_(3.0)
    temperature.clamp()
    temperature.scale().backward()
    assert temperature.scale().item() == pytest.approx(math.exp(2.0))
    gradient = temperature.log_scale.grad
    assert (
        gradient is not None and gradient.item() > 0
    )  # at the end of its range it can still come back


def test_a_fixed_temperature_is_no_parameter():
    assert not list(Temperature(ModelConfig(learn_scale=False)).parameters())


def crossing():
    """Four left rows of three groups; captions 1 and 4 are of another group than their owners."""
    left, right, owner = unit(4, 8, 0), unit(6, 8, 1), [0, 0, 1, 2, 2, 3]
    return left, right, owner, [5, 6, 6, 7], [5, 6, 6, 7, 5, 7]


def kin(image_group, owner_group, own_group):
    return image_group in (owner_group, own_group)


def test_partners_from_another_group_are_no_negatives_of_that_group():
    left, right, owner, group, own = crossing()
    logits = 3.0 * left @ right.T
    got, expected = {}, {}
    for mode in SAME_IMAGE:
        total = 0.0
        for p, o in enumerate(owner):
            for row, column, scores in (("left", p, logits[o]), ("right", o, logits.T[p])):
                among = range(6) if row == "left" else range(4)
                pairs = [(o, k) if row == "left" else (k, p) for k in among]
                same = [kin(group[i], group[owner[c]], own[c]) for i, c in pairs]
                if mode == "masked":
                    kept = [k for k in among if k == column or not same[k]]
                    total += scores[kept].logsumexp(0) - scores[column]
                else:
                    total += scores.logsumexp(0) - scores[[k for k in among if same[k]]].mean()
        expected[mode] = float(total) / 12
        config = LossConfig(targets="hard", same_image=mode)
        tensors = (torch.tensor(owner), torch.tensor(group), torch.tensor(3.0))
        got[mode] = contrastive_loss(left, right, *tensors, config, torch.tensor(own)).item()
    assert got == pytest.approx(expected, rel=1e-5)


def test_soft_targets_are_none_of_their_own_group_either():
    left, right, owner, group, own = crossing()
    x, tau = left[owner], 1 / 3.0
    alike = (x @ x.T + right @ right.T) / (2 * tau)
    logits, targets, total = x @ right.T / tau, torch.zeros(6, 6).double(), 0.0
    for p in range(6):
        kept = [q for q in range(6) if q == p or not kin(group[owner[p]], group[owner[q]], own[q])]
        targets[p, kept] = alike[p, kept].softmax(0)
        total -= targets[p, kept] @ logits[p, kept].log_softmax(0)
    for p in range(6):
        kept = [b for b in range(4) if b == owner[p] or not kin(group[b], group[owner[p]], own[p])]
        mass = torch.stack([sum(targets[q, p] for q in range(6) if owner[q] == b) for b in kept])
        total -= mass @ (left[kept] @ right[p] / tau).log_softmax(0)
    config = LossConfig(
        targets="soft", soft_scale="divide", same_image="masked", renormalise_targets=False
    )
    tensors = (torch.tensor(owner), torch.tensor(group), torch.tensor(3.0))
    got = contrastive_loss(left, right, *tensors, config, torch.tensor(own))
    assert got.item() == pytest.approx(float(total) / 12, rel=1e-5)


@pytest.mark.parametrize("targets", ["soft", "hard"])
@pytest.mark.parametrize("mode", SAME_IMAGE)
def test_groups_of_captions_that_are_their_owners_change_nothing(targets, mode):
    left, right, owner, group, _ = crossing()
    tensors = (torch.tensor(owner), torch.tensor(group), torch.tensor(3.0))
    config = LossConfig(targets=targets, same_image=mode)
    theirs = torch.tensor(group)[torch.tensor(owner)]
    one, two = (contrastive_loss(left, right, *tensors, config, own) for own in (None, theirs))
    assert one.item() == pytest.approx(two.item())
