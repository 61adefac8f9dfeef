"""FuseMix: its adapters, and mixing with one weight for both sides and a whole batch."""

import numpy as np
import pytest
import torch
from solvable import specs
from torch.nn import functional as F

from cbmf.train.batches import epoch_batches, generator
from cbmf.train.config import PRESETS, FitConfig, ModelConfig, preset
from cbmf.train.data import load_data
from cbmf.train.fit import fit
from cbmf.train.fusemix import FuseMix
from cbmf.train.history import read_history
from cbmf.train.loss import contrastive_loss
from cbmf.train.mixing import mix
from cbmf.train.run import Run, build_model
from cbmf.train.source import choose_source
from cbmf.train.step import Step

SMALL = {"width": 16, "blocks": 2, "batch_size": 16, "projection_dropout": 0.0}


def one_hot_batch(small, **options):
    """A batch of one caption an image, and vectors that tell which image they are of."""
    small.image_text(images=12, captions=1)
    config = preset("fusemix", batch_size=12, **options)
    data = load_data(
        small.cache, choose_source(small.cache, config, None), config, torch.device("cpu")
    )
    batch = next(epoch_batches(data.train.table, config, epoch=0))
    own = torch.eye(len(batch.left))[:, None]
    return batch, own


def test_both_sides_share_the_partner_and_one_weight_for_the_whole_batch(small):
    batch, own = one_hot_batch(small)
    random = generator(0, 0, purpose=2)
    left, right = mix(own, own, batch, 1.0, random, each=False)
    assert torch.equal(left, right) and not torch.equal(left, own)
    weights = left[left > 0].unique()  # of a pair and of its partner, or 1 where that is itself
    assert len(weights) <= 3 and float(weights.min()) <= 0.5
    torch.testing.assert_close(left.sum(-1), torch.ones(len(left), 1))
    assert torch.equal((left > 0).sum(1), (right > 0).sum(1))
    each, _ = mix(own, own, batch, 1.0, generator(0, 0, purpose=2))
    assert len(each[each > 0].unique()) > 3


def test_a_weight_of_1_is_the_plain_symmetric_info_nce(small):
    small.image_text(images=30, captions=1)

    def step(mixup):
        config = preset("fusemix", **SMALL, mixup=mixup)
        source = choose_source(small.cache, config, None)
        data = load_data(small.cache, source, config, torch.device("cpu"))
        model = build_model(source.encoders("pooled"), config).train()
        batch = next(epoch_batches(data.train.table, config, epoch=0))
        taken = Step(model, config, steps=10)
        loss = taken.backward(data.train, batch, generator(0, 0, purpose=2))
        rows = [
            model.encode(
                i, bank.values[torch.from_numpy(at)].float()[:, None], torch.ones(1, 1) > 0
            )
            for i, (bank, at) in enumerate(data.train.items(batch.left, batch.right))
        ]
        logits = model.temperature.scale() * rows[0] @ rows[1].T
        own = torch.arange(len(logits))
        plain = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return loss, plain.detach(), {n: p.grad for n, p in model.named_parameters()}

    # Beta(a, a) for a near 0 has all its mass on 0 and 1: each pair is mixed with nothing.
    loss, plain, gradients = step(mixup=1e-9)
    torch.testing.assert_close(loss, plain)
    unmixed = step(mixup=0.0)
    torch.testing.assert_close(loss, unmixed[0])
    torch.testing.assert_close(gradients, unmixed[2])
    assert float(step(mixup=1.0)[0]) != pytest.approx(float(plain), rel=1e-3)


def test_a_row_goes_through_residual_blocks_and_a_projection():
    torch.manual_seed(0)
    config = ModelConfig(
        width=8, blocks=2, projection_dropout=0.5, input_dropout=0.0, standardise=False
    )
    model = FuseMix(specs(12, 10), config).eval()
    x = torch.randn(5, 1, 10)
    rows = model.encode(1, x, torch.ones(5, 1, dtype=torch.bool))
    first, second, norm, last = model.heads[1]
    h = x[:, 0]
    for block in (first, second):
        before, widen, _, _, narrow = block.layers
        assert widen.out_features == 40
        h = h + narrow(F.gelu(widen(before(h))))
    expected = last(norm(h))
    torch.testing.assert_close(rows, F.normalize(expected, dim=1))


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = FuseMix(specs(12, 10), preset("fusemix", width=8, blocks=2).model)
    one = torch.ones(6, 1, dtype=torch.bool)
    left = model.encode(0, torch.randn(6, 1, 12), one)
    right = model.encode(1, torch.randn(6, 1, 10), one)
    scale = model.temperature.scale()
    contrastive_loss(left, right, torch.arange(6), None, scale, FitConfig().loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_its_recipe_is_its_papers():
    config = preset("best", method="fusemix")
    assert "fusemix" in PRESETS and (config.preset, config.baseline) == ("fusemix", False)
    assert (config.mixup, config.mixup_each) == (1.0, False)
    assert (config.model.width, config.model.projection_dropout) == (512, 0.6)
    ends = np.exp([-config.model.log_scale_max, -config.model.log_scale_min])
    np.testing.assert_allclose(ends, [0.001, 0.5])  # of the temperature


@pytest.mark.usefixtures("undrawn")
def test_it_is_fitted_kept_and_loaded(small, tmp_path):
    for split in ("train", "val", "test"):
        small.image_text(split=split)
    run = fit(small.cache, preset("fusemix", **SMALL), out=tmp_path / "run")
    loaded = Run.load(tmp_path / "run")
    assert isinstance(loaded.model, FuseMix) and not loaded.baselines
    own, kept = run.model.state_dict(), loaded.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in own.items())
    history = read_history(tmp_path / "run")
    assert max(line["val_recall"] for line in history) > 0.5
