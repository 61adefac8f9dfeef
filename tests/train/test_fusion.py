"""Fusions against their formulas, and the context's gradient."""

import math
from typing import Any

import pytest
import torch

from cbmf.cache.errors import InputError
from cbmf.train import fusion as fusions
from cbmf.train.config import ATTENTION_FUSIONS, FUSIONS, ModelConfig
from cbmf.train.fusion import Context
from cbmf.train.model import CBMF, EncoderSpec

WIDTH = 8


def build_fusion(config) -> Any:
    return fusions.build_fusion(config)


SPECS = [
    EncoderSpec("vit", "image", "image", "1" * 64, 12),
    EncoderSpec("bert", "text", "text", "2" * 64, 10),
]


def config(fusion, **options):
    return ModelConfig(
        fusion=fusion, width=WIDTH, projection_width=8, ffn_width=16, heads=2, **options
    )


def sample(length, seed=0, width=WIDTH):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(3, length, width, generator=random)
    mask = torch.arange(length) < torch.tensor([[length], [max(1, length - 1)], [1]])
    return x, mask, torch.randn(WIDTH, generator=random)


def by_hand(fusion, module, x, mask, context):
    """What the fusion gives, item by item and token by token."""
    fused = torch.zeros_like(x)
    for b, item in enumerate(x):
        tokens = [t for t, there in zip(item, mask[b], strict=True) if there]
        values = [module.value(t) if fusion == "dot" else t for t in tokens]
        if fusion == "dot":
            scores = [module.query(context) @ module.key(t) / math.sqrt(WIDTH) for t in tokens]
        elif fusion == "general":
            scores = [context @ module.key(t) for t in tokens]
        else:
            scores = [
                module.weigh(torch.tanh(module.query(context) + module.key(t)))[0] for t in tokens
            ]
        weights = torch.stack(scores).softmax(0)
        answer = sum(w * v for w, v in zip(weights, values, strict=True))
        fused[b] = item + answer
    return fused


@pytest.mark.parametrize("fusion", ATTENTION_FUSIONS)
def test_attention_is_a_softmax_over_real_tokens_added_to_each_token(fusion):
    module = build_fusion(config(fusion, layout="tokens"))
    x, mask, context = sample(4)
    fused, out_mask = module(x, mask, context)
    torch.testing.assert_close(fused, by_hand(fusion, module, x, mask, context))
    assert torch.equal(out_mask, mask)


@pytest.mark.parametrize("fusion", ATTENTION_FUSIONS)
def test_without_residual_the_answer_stands_alone_as_in_equation_2(fusion):
    module = build_fusion(config(fusion, layout="tokens", attention_residual=False))
    x, mask, context = sample(4)
    fused, out_mask = module(x, mask, context)
    torch.testing.assert_close(fused, (by_hand(fusion, module, x, mask, context) - x)[:, :1])
    assert out_mask.shape == (3, 1) and out_mask.all()


def test_element_wise_fusions_are_their_formulas():
    x, mask, context = sample(2)
    assert torch.equal(build_fusion(config("add"))(x, mask, context)[0], x + context)
    assert torch.equal(build_fusion(config("mul"))(x, mask, context)[0], x * context)
    concat, beside = build_fusion(config("concat")), torch.arange(10.0)
    first, _, last = concat.mlp
    both = torch.cat([x[1, 0], beside])
    torch.testing.assert_close(concat(x, mask, beside)[0][1, 0], x[1, 0] + last(first(both).relu()))
    assert build_fusion(config("none")) is None


def test_a_null_key_takes_part_in_the_softmax():
    module = build_fusion(config("general", null_key=True))
    x, mask, context = sample(1)
    with torch.no_grad():
        module.null_value.normal_()
        module.null_key.normal_()
    fused, _ = module(x, mask, context)
    scores = torch.stack([context @ module.key(x[0, 0]), context @ module.null_key]).softmax(0)
    wanted = x[0, 0] + scores[0] * x[0, 0] + scores[1] * module.null_value
    torch.testing.assert_close(fused[0, 0], wanted)


@pytest.mark.parametrize("fusion", ATTENTION_FUSIONS)
def test_attention_over_one_vector_is_refused_with_the_ways_out(fusion):
    with pytest.raises(InputError, match=r"--layout tokens.*add, mul or concat.*null_key=true"):
        CBMF(SPECS, config(fusion))


LIVE = [
    (fusion, length, null)
    for fusion in FUSIONS
    if fusion != "none"
    for length in (1, 4)
    for null in ((True, False) if fusion in ATTENTION_FUSIONS else (False,))
    if length > 1 or null or fusion not in ATTENTION_FUSIONS
]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("fusion", "length", "null"), LIVE)
def test_the_context_is_never_dead(fusion, length, null, residual):
    torch.manual_seed(0)
    layout = "pooled" if length == 1 else "tokens"
    model = CBMF(
        SPECS, config(fusion, layout=layout, null_key=null, attention_residual=residual)
    ).eval()
    for encoder, spec in enumerate(SPECS):
        x = torch.randn(3, length, spec.width)
        rows = model.encode(encoder, x, torch.ones(3, length, dtype=torch.bool))
        model.zero_grad()
        (rows * torch.randn_like(rows)).sum().backward()
        gradient = model.get_parameter("context.vectors").grad
        assert gradient is not None
        live = gradient.abs().amax(1)
        assert live[encoder] > 1e-6
        assert live[1 - encoder] == 0  # the other encoder's context has no part in it


def test_additive_attention_keeps_its_tanh():
    """Without it the context cancels in the softmax: weights would not depend on it at all."""
    module = build_fusion(config("additive", layout="tokens"))
    x, mask, context = sample(4)
    assert not torch.allclose(module(x, mask, context)[0], module(x, mask, 3 * context)[0])


def test_encoders_share_the_contexts_mlp():
    context = Context(2, config("add"))
    with torch.no_grad():
        context.vectors[1] = context.vectors[0]
    assert torch.equal(context(0), context(1))
