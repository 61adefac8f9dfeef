from typing import Any

import pytest
import torch
from torch import nn

from cbmf.cache.errors import InputError, RunError
from cbmf.cache.files import read_json, write_json
from cbmf.train.bank import Statistics
from cbmf.train.config import FUSIONS, ModelConfig, preset
from cbmf.train.dfe import Block, SelfAttention
from cbmf.train.linear import LinearHeads
from cbmf.train.model import CBMF, EncoderSpec
from cbmf.train.projection import Projection

SPECS = [
    EncoderSpec("vit", "image", "image", "1" * 64, 12, grid=7),
    EncoderSpec("bert", "text", "text", "2" * 64, 10),
]
SMALL: dict[str, Any] = {"width": 8, "projection_width": 8, "ffn_width": 16, "heads": 2}


def batch(length, width=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(4, length, width, generator=random)
    mask = torch.arange(length) < torch.tensor([[length], [1], [2], [length]])
    return x.masked_fill(~mask[..., None], 0), mask


def model_of(**options):
    torch.manual_seed(0)
    return CBMF(SPECS, ModelConfig(**SMALL, **options)).eval()


@pytest.mark.parametrize(
    ("fusion", "parameters"),
    [
        ("add", 1_884_039),
        ("mul", 1_884_039),
        ("concat", 1_981_361),
        ("general", 1_949_831),
        ("additive", 2_015_880),
        ("dot", 2_081_415),
    ],
)
def test_released_models_have_the_released_number_of_parameters(fusion, parameters):
    config = preset("released", fusion=fusion, layout="tokens").model
    specs = [EncoderSpec(name, "text", "text", name, 768) for name in ("bert", "roberta")]
    assert sum(p.numel() for p in CBMF(specs, config).parameters()) == parameters


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_block_is_torchs_transformer_layer(norm, activation, training):
    config = ModelConfig(norm=norm, activation=activation, block_dropout=0.0, **SMALL)
    block = Block(config).train(training)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, activation=activation, norm_first=norm == "pre", batch_first=True
    ).train()  # the fast path of evaluation is left out, dropout is turned off instead
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layer.self_attn.dropout = 0.0
    names = {
        "self_attn.in_proj_weight": "attention.into.weight",
        "self_attn.in_proj_bias": "attention.into.bias",
        "self_attn.out_proj.weight": "attention.out.weight",
        "self_attn.out_proj.bias": "attention.out.bias",
    }
    mine = block.state_dict()
    layer.load_state_dict(
        {
            name: mine[
                names.get(name, name.replace("linear1", "widen").replace("linear2", "narrow"))
            ]
            for name in layer.state_dict()
        }
    )
    x, mask = batch(5, width=8)
    wanted = layer(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(x, mask)[mask], wanted[mask])


def test_one_token_takes_a_shortcut_to_the_same_attention():
    attention = SelfAttention(ModelConfig(**SMALL)).eval()
    x = torch.randn(5, 1, 8)
    short = attention(x, torch.ones(5, 1, dtype=torch.bool))
    doubled = attention(x.repeat(1, 2, 1), torch.tensor([[True, False]]).expand(5, 2))
    torch.testing.assert_close(short, doubled[:, :1])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("pool", ["mean", "mean_unmasked"])
def test_rows_are_unit_and_do_not_depend_on_the_batch(fusion, pool):
    model = model_of(fusion=fusion, layout="tokens", pool=pool)
    model.measure(0, Statistics(torch.zeros(12), torch.ones(12), longest=4))
    x, mask = batch(5)
    rows = model.encode(0, x, mask)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    for item in range(4):
        length = int(mask[item].sum())
        alone = model.encode(0, x[item : item + 1, :length], mask[item : item + 1, :length])
        torch.testing.assert_close(alone[0], rows[item])


def test_unmasked_mean_counts_padding_up_to_the_longest_training_item():
    model = model_of(layout="tokens", pool="mean_unmasked", fusion="add")
    model.measure(0, Statistics(torch.zeros(12), torch.ones(12), longest=4))
    x, mask = batch(4)
    masked = model_of(layout="tokens", fusion="add")
    padded = masked.encode(0, x, torch.ones_like(mask))
    torch.testing.assert_close(model.encode(0, x, mask), padded)
    assert not torch.allclose(masked.encode(0, x, mask), padded)


def test_inputs_are_standardised_by_what_was_measured():
    plain, model = model_of(standardise=False), model_of()
    x, mask = batch(1)
    mean, deviation = torch.arange(12.0), torch.arange(1.0, 13.0)
    model.measure(0, Statistics(mean, deviation, 1))
    torch.testing.assert_close(
        model.encode(0, x * deviation + mean, mask), plain.encode(0, x, mask)
    )


def test_a_linear_skip_begins_as_the_linear_map_alone():
    projection = Projection(12, ModelConfig(**SMALL))
    x = torch.randn(3, 1, 12)
    assert projection.skip is not None
    torch.testing.assert_close(projection.eval()(x), projection.skip(x))


def test_the_first_token_can_stand_beside_the_others_of_an_image():
    model = model_of(layout="tokens", class_token="beside", fusion="none", standardise=False)
    x, mask = batch(3)
    x, mask = x[:1], mask[:1]
    beside = torch.cat([x[:, :1].expand(-1, 2, -1), x[:, 1:]], dim=-1)  # (1, 2, 24)
    assert model.dfe is not None
    z = model.dfe(model.projections[0](beside), mask[:, 1:]).mean(1)
    torch.testing.assert_close(model.encode(0, x, mask), z / z.norm())
    assert model.encode(1, x[..., :10], mask).shape == (1, 8)  # texts stay as they are


@pytest.mark.parametrize(
    "start",
    [{"gate": 0.0, "zero_start": False, "norm": "post"}, {"zero_start": True, "norm": "pre"}],
)
def test_the_dfe_can_begin_near_the_identity(start):
    model = model_of(**start)
    assert model.dfe is not None
    h, mask = torch.randn(3, 1, 8), torch.ones(3, 1, dtype=torch.bool)
    normalised = 0 if "gate" in start else torch.nn.functional.layer_norm(h, (8,))
    torch.testing.assert_close(model.dfe(h, mask), h + normalised)


def test_without_the_dfe_fused_tokens_are_averaged():
    model = model_of(dfe=False, fusion="add", layout="tokens", standardise=False)
    x, mask = batch(3)
    assert model.context is not None
    fused = model.projections[0](x[:1]) + model.context(0)  # an item of three tokens
    z = fused.mean(1)
    torch.testing.assert_close(model.encode(0, x, mask)[:1], z / z.norm())


def test_noise_and_dropout_act_in_training_only():
    model = model_of(input_noise=0.5, input_dropout=0.3)
    x, mask = batch(1)
    assert torch.equal(model.encode(0, x, mask), model.encode(0, x, mask))
    model.train()
    assert not torch.equal(model.encode(0, x, mask), model.encode(0, x, mask))


def test_more_than_two_encoders_share_one_dfe():
    three = [*SPECS, EncoderSpec("roberta", "text", "text", "3" * 64, 6)]
    model = CBMF(three, ModelConfig(**SMALL))
    assert model.encode(2, torch.randn(2, 1, 6), torch.ones(2, 1, dtype=torch.bool)).shape == (2, 8)
    assert model.get_parameter("context.vectors").shape[0] == 3
    assert model.index("roberta") == 2


def test_linear_heads_are_one_linear_map_per_encoder():
    heads = LinearHeads(SPECS, ModelConfig(standardise=False, **SMALL)).eval()
    x, mask = batch(1)
    weight, bias = heads.get_parameter("heads.0.weight"), heads.get_parameter("heads.0.bias")
    z = x[:, 0] @ weight.T + bias
    torch.testing.assert_close(heads.encode(0, x, mask), z / z.norm(dim=1, keepdim=True))
    count = sum(p.numel() for p in heads.parameters())
    assert count == 12 * 8 + 8 + 10 * 8 + 8 + 1


def test_encoders_of_one_name_are_refused():
    with pytest.raises(InputError, match="different names"):
        CBMF([SPECS[0], SPECS[0]], ModelConfig(**SMALL))


@pytest.mark.parametrize("method", [CBMF, LinearHeads])
def test_a_saved_model_comes_back_the_same(tmp_path, method):
    model = method(SPECS, ModelConfig(layout="tokens", fusion="none", **SMALL)).eval()
    model.measure(0, Statistics(torch.randn(12), torch.rand(12) + 1, 9))
    model.save_pretrained(tmp_path / "m")
    again = method.from_pretrained(tmp_path / "m")
    x, mask = batch(3)
    assert torch.equal(again.encode(0, x, mask), model.encode(0, x, mask))
    assert (again.encoders, again.layout, again.width) == (model.encoders, "tokens", 8)
    assert not again.training


def test_a_model_of_another_kind_version_or_shape_is_refused(tmp_path):
    model_of().save_pretrained(tmp_path)
    with pytest.raises(RunError, match="'cbmf' model, not 'linear'"):
        LinearHeads.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    card = read_json(path)
    for change, words in (
        ({"version": 99}, "version 99"),
        ({"model": card["model"] | {"width": 16}}, "not of this model"),
        ({"model": card["model"] | {"fusion": "magic"}}, "does not describe a model"),
        ({"encoders": [{"name": "x"}]}, "does not describe a model"),
    ):
        write_json(path, card | change)
        with pytest.raises(RunError, match=words):
            CBMF.from_pretrained(tmp_path)
    path.write_text("{")
    with pytest.raises(RunError, match="not a run or a model"):
        CBMF.from_pretrained(tmp_path)
    write_json(path, card)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        CBMF.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(RunError, match="no such file"):
        CBMF.from_pretrained(tmp_path)
