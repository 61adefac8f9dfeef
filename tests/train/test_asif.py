"""ASIF against relative representations written out, and what its paper says of anchors."""

import numpy as np
import pytest
import torch
from solvable import encode, pairs_of, related, specs
from torch.nn import functional as F

from cbmf.train.asif import ASIF
from cbmf.train.config import ModelConfig, preset

ANCHORS = 40


def anchored(nearest=None, power=1.0, seed=0):
    """A model over random pairs as anchors, and those."""
    random = np.random.default_rng(seed)
    left, right = random.normal(size=(ANCHORS, 6)), random.normal(size=(ANCHORS, 5))
    model = ASIF(specs(6, 5), ModelConfig(standardise=False))
    model.take(torch.from_numpy(left), torch.from_numpy(right))
    model.nearest.fill_(ANCHORS if nearest is None else nearest)
    model.power.fill_(power)
    return model, left, right


def cosines(one, two):
    one, two = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, two))
    return one @ two.T


def test_with_all_anchors_and_power_1_rows_are_plain_relative_representations():
    model, left, _ = anchored()
    new = np.random.default_rng(1).normal(size=(9, 6))
    relative = cosines(new, left)
    expected = relative / np.linalg.norm(relative, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(model, 0, new).numpy(), expected, atol=1e-6)
    assert model.width == ANCHORS


def test_only_the_nearest_anchors_count_to_a_power():
    model, _, right = anchored(nearest=3, power=8.0)
    new = np.random.default_rng(1).normal(size=(9, 5))
    relative = cosines(new, right)
    third = np.sort(relative, axis=1)[:, -3:-2]
    expected = np.where(relative >= third, relative, 0) ** 8
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = encode(model, 1, new)
    assert (rows != 0).sum(1).tolist() == [3] * 9
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("nearest", "power"), [(5, 8.0), (None, 8.0), (1, 1.0)])
def test_an_anchor_finds_its_own_partner_though_the_sides_have_nothing_in_common(nearest, power):
    model, left, right = anchored(nearest, power)
    scores = encode(model, 0, left) @ encode(model, 1, right).T
    assert scores.argmax(1).tolist() == list(range(ANCHORS))
    assert scores.argmax(0).tolist() == list(range(ANCHORS))


def test_a_high_power_of_small_similarities_is_still_a_number():
    model, left, _ = anchored(power=200.0)
    rows = encode(model, 0, np.random.default_rng(3).normal(size=(9, 6)))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(9))
    assert len(left) == ANCHORS


def test_an_item_that_is_like_no_anchor_has_the_row_zero():
    model, _, _ = anchored()
    assert bool((encode(model, 0, np.zeros((1, 6))) == 0).all())


def test_anchors_are_pairs_drawn_by_seed_and_as_many_as_allowed():
    left, right = related(90)
    train = pairs_of(left, right)

    def drawn(**options):
        config = preset("asif", batch_size=16, **options)
        model = ASIF(specs(6, 5), config.model)
        next(model.solutions(train, config))
        return model

    whole, few = drawn(), drawn(anchors=20)
    assert len(whole.anchors_0) == 90 and len(few.anchors_1) == 20
    units = F.normalize(torch.from_numpy(left.astype(np.float32)), dim=1)
    place = (few.anchors_0 @ units.T).argmax(1)
    partners = F.normalize(torch.from_numpy(right.astype(np.float32)), dim=1)[place]
    torch.testing.assert_close(few.anchors_1, partners)
    assert len(set(place.tolist())) == 20
    assert torch.equal(few.anchors_0, drawn(anchors=20).anchors_0)
    assert not torch.equal(few.anchors_0, drawn(anchors=20, seed=1).anchors_0)


def test_numbers_and_powers_that_are_given_are_not_tried():
    left, right = related(64)
    train = pairs_of(left, right)

    def tried(**options):
        config = preset("asif", **options)
        choices = ASIF(specs(6, 5), config.model).solutions(train, config)
        return [(choice["nearest"], choice["power"]) for choice in choices]

    assert tried(nearest=7, power=3.0) == [(7, 3.0)]
    assert tried(power=2.0) == [(64, 2.0), (16, 2.0), (4, 2.0), (1, 2.0)]
    assert tried(nearest=64) == [(64, 1.0), (64, 2.0), (64, 4.0), (64, 8.0)]


def test_what_is_loaded_has_as_many_anchors_as_what_was_saved(tmp_path):
    model, left, _ = anchored(nearest=4, power=2.0)
    model.save_pretrained(tmp_path)
    again = ASIF.from_pretrained(tmp_path)
    assert again.width == ANCHORS
    assert torch.equal(encode(again, 0, left), encode(model, 0, left))
