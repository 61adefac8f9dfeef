"""CSA against scikit-learn's canonical correlation analysis, and its paper's similarity."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA
from solvable import encode, pairs_of, related, specs

from cbmf.cache.errors import InputError
from cbmf.train.config import PRESETS, preset
from cbmf.train.csa import CSA, SHARES, canonical_directions

WIDTHS = (6, 5)


def config(**options):
    return preset("csa", **options)


def solved(left, right, share=0, **options):
    """The model with the solution of that place among SHARES."""
    some = config(**options)
    model = CSA(specs(left.shape[1], right.shape[1]), some.model)
    train = pairs_of(left, right)
    for encoder in (0, 1):
        model.measure(encoder, train.statistics(encoder))
    for place, _ in enumerate(model.solutions(train, some)):
        if place == share:
            break
    return model


def variates(model, encoder, vectors):
    """What the directions give, without the weights; (N, S) float64."""
    values = torch.from_numpy(vectors.astype(np.float32))[:, None]
    with torch.no_grad():
        mean = model.mean(encoder, values, torch.ones(values.shape[:2], dtype=torch.bool))
        return model.heads[encoder](mean).double().numpy()


def test_directions_and_correlations_are_those_of_scikit_learn_up_to_sign():
    left, right = related(400)
    theirs = CCA(n_components=3, max_iter=10_000, tol=1e-12).fit(left, right)
    ours = solved(left, right)
    scores = theirs.transform(left, right)
    expected = [np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(ours.correlations[:3].numpy(), expected, atol=1e-4)
    for encoder, (vectors, wanted) in enumerate(zip((left, right), scores, strict=True)):
        got = variates(ours, encoder, vectors)
        for i in range(3):
            assert abs(np.corrcoef(got[:, i], wanted[:, i])[0, 1]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("standardise", [True, False])
def test_variates_have_variance_1_and_only_partners_are_correlated(standardise):
    left, right = related(400)
    model = solved(left, right, standardise=standardise)
    one, two = variates(model, 0, left), variates(model, 1, right)
    together = np.cov(np.concatenate([one, two], axis=1).T, bias=True)
    expected = np.eye(10)
    expected[:5, 5:] = expected[5:, :5] = np.diag(model.correlations.numpy())
    np.testing.assert_allclose(together, expected, atol=1e-3)
    np.testing.assert_allclose([one.mean(), two.mean()], 0, atol=1e-5)


def test_cosines_are_the_papers_weighted_similarity_and_rows_have_length_1():
    left, right = related(200)
    model = solved(left, right, share=2)  # half of 5 directions
    kept = round(SHARES[2] * 5)
    assert int((model.correlations > 0).sum()) == kept == 2
    image, text = encode(model, 0, left), encode(model, 1, right)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(200))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(200))
    a, b = (variates(model, i, v)[:, :kept] for i, v in enumerate((left, right)))
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    expected = (a * model.correlations[:kept].numpy()) @ b.T
    np.testing.assert_allclose((image @ text.T).numpy(), expected, atol=1e-5)


def test_invertible_linear_maps_of_either_side_change_nothing():
    left, right = related(300)
    random = np.random.default_rng(7)
    turned = left @ random.normal(size=(6, 6)) + random.normal(size=6)
    bent = right @ random.normal(size=(5, 5)) - 3
    plain, mapped = solved(left, right), solved(turned, bent)
    torch.testing.assert_close(plain.correlations, mapped.correlations, rtol=0, atol=1e-3)
    one = encode(plain, 0, left) @ encode(plain, 1, right).T
    two = encode(mapped, 0, turned) @ encode(mapped, 1, bent).T
    torch.testing.assert_close(one, two, rtol=0, atol=5e-3)


def test_directions_without_variance_are_left_out():
    left, right = related(300)
    doubled = np.concatenate([left, left[:, :2]], axis=1)  # rank 6 of 8
    together = np.cov(np.concatenate([doubled, right], axis=1).T)
    (one, two), correlations = canonical_directions(torch.from_numpy(together), 8)
    assert one.shape == (8, 5) and two.shape == (5, 5) and bool(one.isfinite().all())
    plain = np.cov(np.concatenate([left, right], axis=1).T)
    torch.testing.assert_close(
        correlations, canonical_directions(torch.from_numpy(plain), 6)[1], rtol=0, atol=1e-6
    )
    model = solved(doubled, right)
    assert bool(encode(model, 0, doubled).isfinite().all())


def test_fewer_and_fewer_directions_are_tried_down_to_one():
    left, right = related(100)
    some = config()
    model = CSA(specs(6, 5), some.model)
    tried = [choice["directions"] for choice in model.solutions(pairs_of(left, right), some)]
    assert tried == [5, 4, 2, 1]  # of 5, the shares rounded, each once
    narrow = config(width=4)
    model = CSA(specs(6, 5), narrow.model)
    assert next(model.solutions(pairs_of(left, right), narrow)) == {"directions": 4}


def test_it_aligns_two_encoders_and_has_a_preset():
    with pytest.raises(InputError, match="csa aligns two encoders, got 3"):
        CSA(specs(6, 5, 5), config().model)
    some = preset("best", method="csa")
    assert "csa" in PRESETS and some.preset == "csa" and not some.baseline
    assert some.captions_per_image == 0 and not some.mixup
