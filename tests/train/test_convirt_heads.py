"""ConVIRT's heads on frozen encoders."""

import pytest
import torch

from cbmf.cache.errors import RunError
from cbmf.train.aligner import EncoderSpec
from cbmf.train.config import PRESETS, FitConfig, ModelConfig, preset
from cbmf.train.convirt import ConVIRT
from cbmf.train.fit import fit
from cbmf.train.history import read_history
from cbmf.train.linear import LinearHeads
from cbmf.train.loss import contrastive_loss
from cbmf.train.run import Run, build_model, default_folder

ENCODERS = [
    EncoderSpec("vit", "image", "image", "a" * 64, 12),
    EncoderSpec("bert", "text", "text", "b" * 64, 10),
]
PLAIN = ModelConfig(
    width=8, heads=1, projection_width=16, projection_dropout=0, input_dropout=0, standardise=False
)


def build(config=PLAIN):
    torch.manual_seed(0)
    return ConVIRT(ENCODERS, config)


def test_a_row_is_two_linear_maps_with_a_relu_between_and_unit_length():
    model = build()
    x = torch.randn(5, 1, 10)
    rows = model.encode(1, x, torch.ones(5, 1, dtype=torch.bool))
    inner, outer = model.heads[1][0], model.heads[1][-1]
    hidden = (x[:, 0] @ inner.weight.T + inner.bias).clamp(min=0)
    expected = hidden @ outer.weight.T + outer.bias
    torch.testing.assert_close(rows, expected / expected.norm(dim=1, keepdim=True))
    assert inner.out_features == 16 and rows.shape == (5, 8)


def test_tokens_are_averaged_without_their_padding():
    model = build()
    tokens = torch.randn(2, 4, 12)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    rows = model.encode(0, tokens, mask)
    means = torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    alone = model.encode(0, means[:, None], torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(rows, alone)


def test_every_weight_gets_a_gradient():
    model = build()
    one = torch.ones(6, 1, dtype=torch.bool)
    left = model.encode(0, torch.randn(6, 1, 12), one)
    right = model.encode(1, torch.randn(6, 1, 10), one)
    scale = model.temperature.scale()
    contrastive_loss(left, right, torch.arange(6), None, scale, FitConfig().loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_its_recipe_is_that_of_the_linear_heads_with_a_regularised_hidden_layer():
    convirt, linear = preset("best", method="convirt"), preset("linear")
    assert (convirt.preset, convirt.method, convirt.baseline) == ("convirt", "convirt", False)
    assert (convirt.model.width, convirt.model.projection_width) == (512, 512)
    for name in ("epochs", "batch_size", "lr", "weight_decay", "schedule", "warmup", "loss"):
        assert getattr(convirt, name) == getattr(linear, name)
    assert "convirt" in PRESETS
    assert default_folder("coco", convirt).name == "coco-convirt-pooled-0"


@pytest.mark.usefixtures("undrawn")
def test_it_is_fitted_kept_and_loaded(small, tmp_path):
    small.image_text()
    small.image_text(split="val")
    small.image_text(split="test")
    tiny = {"width": 16, "projection_width": 32, "batch_size": 16, "input_dropout": 0.0}
    config = preset("best", method="convirt", **tiny)
    run = fit(small.cache, config, out=tmp_path / "run")
    loaded = Run.load(tmp_path / "run")
    assert isinstance(loaded.model, ConVIRT) and not loaded.baselines and loaded.config == config
    assert all(
        torch.equal(value, loaded.model.state_dict()[name])
        for name, value in run.model.state_dict().items()
    )
    history = read_history(tmp_path / "run")
    assert history[-1]["val_recall"] > 0.7 > 1.5 * history[0]["val_recall"]
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    with pytest.raises(RunError, match="'convirt' model, not 'linear'"):
        LinearHeads.from_pretrained(tmp_path / "run")


def test_the_same_seed_starts_the_same_heads():
    config = preset("convirt", width=8, projection_width=16)
    one, two = (build_model(ENCODERS, config).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build_model(ENCODERS, preset("convirt", width=8, projection_width=16, seed=1))
    assert not torch.equal(one["heads.0.0.weight"], other.state_dict()["heads.0.0.weight"])
