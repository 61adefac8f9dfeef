import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_caches import caption_set, run_of
from torch.nn import functional as F

from cbmf.evaluate.ranks import Relation
from cbmf.evaluate.retrieval import prepare
from cbmf.evaluate.spaces import Space, plane, separation, spaces
from cbmf.train.config import preset


def pairs(count, each=2):
    rows = np.array([(n // each, n) for n in range(count * each)])
    return Relation.of_pairs(rows[:, 0], rows[:, 1], count)


def test_true_and_random_cosines_are_those_of_the_pairs():
    random = np.random.default_rng(0)
    left = F.normalize(torch.from_numpy(random.normal(size=(6, 4)).astype(np.float32)), dim=1)
    right = left.repeat_interleave(2, 0)
    right = F.normalize(right + 0.3 * torch.from_numpy(random.normal(size=(12, 4))).float(), dim=1)
    found = separation(Space("s", left, right), pairs(6))
    whole = (left @ right.T).numpy()
    of_pair = np.repeat(np.eye(6, dtype=bool), 2, axis=1)
    assert sorted(found.true) == pytest.approx(sorted(whole[of_pair]), abs=1e-6)
    strangers = whole[~of_pair]
    assert all(np.abs(strangers - cosine).min() < 1e-6 for cosine in found.random)
    labels = np.repeat([1, 0], [len(found.true), len(found.random)])
    scores = np.concatenate([found.true, found.random])
    assert found.area == pytest.approx(roc_auc_score(labels, scores))


def test_a_gap_is_the_distance_of_the_centres_and_a_plane_keeps_distances():
    left = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0]])
    right = torch.tensor([[-1.0, 0, 0], [-0.6, 0.8, 0]])
    relation = Relation.of_pairs(np.array([0, 1]), np.array([0, 1]), 2)
    found = plane(Space("s", left, right), relation)
    assert found.gap == pytest.approx(1.6)
    assert found.explained == pytest.approx(1.0)  # the points lie in a plane already
    for one, two in zip(found.left, found.right, strict=True):
        distance = np.linalg.norm(one - two)
        assert min(abs(distance - 2.0), abs(distance - 1.2)) < 1e-5


def test_before_is_the_untrained_model_where_the_widths_differ(maker, tmp_path):
    items = caption_set(maker, "toy", "test", 12)
    run = run_of(tmp_path / "run")
    before, after = spaces(run, prepare(maker.cache, items, run)).values()
    assert before.name == "untrained model" and after.name == "cbmf-add"
    assert before.left.shape == (12, 8) and before.right.shape == (60, 8)
    assert not torch.allclose(before.left, after.left)


def test_before_are_the_encoders_own_vectors_where_they_can_be_compared(maker, tmp_path):
    items = maker.captions("toy", "test", 6)
    random = np.random.default_rng(0)
    image, text = random.normal(size=(6, 12)), random.normal(size=(30, 12))
    maker.stream(items, "image", image, encoder="eye")
    maker.stream(items, "text", text, encoder="ear")
    from tiny_caches import EYE, EncoderSpec, identity_of

    ear = EncoderSpec("ear", "text", "text", identity_of("ear"), 12)
    run = run_of(tmp_path / "run", (EYE, ear))
    before = spaces(run, prepare(maker.cache, items, run))["Before"]
    unit = image / np.linalg.norm(image, axis=1, keepdims=True)
    assert np.allclose(before.left.numpy(), unit, atol=1e-5)


def test_a_method_that_is_solved_for_has_no_before_without_equal_widths(maker, tmp_path):
    items = caption_set(maker, "toy", "test", 12)
    run = run_of(tmp_path / "run")
    run.config = preset("csa")
    assert list(spaces(run, prepare(maker.cache, items, run))) == ["After"]
