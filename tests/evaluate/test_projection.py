import numpy as np
import pytest
import torch
from tiny_caches import EYE, TONGUE, Maker, caption_set, run_of, spec_of
from torch.nn import functional as F

from cbmf.cache.errors import InputError
from cbmf.evaluate.projection import project
from cbmf.train.bank import Bank


def token_stream(maker: Maker, *, dtype: str = "float32", missing=()):
    maker.shard_rows = 8
    items = maker.captions("toy", "test", 4)
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 20)
    vectors = random.normal(size=(int(lengths.sum()), 10))
    return maker.stream(
        items, "text", vectors, encoder="tongue", lengths=lengths, dtype=dtype, missing=missing
    )


@pytest.mark.parametrize("batch_tokens", [1, 7, 16, 50, 10_000])
@pytest.mark.parametrize("fusion", ["add", "dot"])
def test_tokens_give_what_one_item_alone_gives(maker, tmp_path, batch_tokens, fusion):
    stream = token_stream(maker)
    model = run_of(tmp_path, layout="tokens", fusion=fusion).model
    bank = Bank.from_stream(stream, "tokens")
    with torch.no_grad():
        alone = [model.encode(1, *bank.gather(torch.tensor([i]))) for i in range(len(stream))]
    rows = project(model, 1, stream, batch_tokens=batch_tokens)
    torch.testing.assert_close(rows, torch.cat(alone), rtol=0, atol=2e-6)
    assert rows.norm(dim=1).tolist() == pytest.approx([1] * len(stream))


@pytest.mark.parametrize("batch_tokens", [1, 3, 10_000])
def test_pooled_rows_are_in_the_order_of_the_stream(maker, tmp_path, batch_tokens):
    maker.shard_rows = 4
    caption_set(maker, "toy", "test", 9)
    stream = maker.cache.find("toy", "test", "image")
    model = run_of(tmp_path).model
    whole = torch.from_numpy(stream.pooled())[:, None]
    with torch.no_grad():
        expected = model.encode(0, whole, torch.ones(9, 1, dtype=torch.bool))
    rows = project(model, 0, stream, batch_tokens=batch_tokens)
    torch.testing.assert_close(rows, expected, rtol=0, atol=2e-6)


def test_no_padded_batch_is_larger_than_allowed(maker, tmp_path, monkeypatch):
    stream = token_stream(maker)
    model = run_of(tmp_path, layout="tokens").model
    seen = []
    encode = model.encode

    def watch(encoder, values, mask):
        seen.append((mask.numel(), len(mask)))
        return encode(encoder, values, mask)

    monkeypatch.setattr(model, "encode", watch)
    project(model, 1, stream, batch_tokens=12)
    assert all(size <= 12 for size, _ in seen)
    assert max(items for _, items in seen) > 1
    assert sum(items for _, items in seen) == len(stream)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_precision_is_widened(maker, tmp_path, dtype):
    exact = token_stream(maker)
    rounded = token_stream(maker, dtype=dtype)
    model = run_of(tmp_path, layout="tokens").model
    close = project(model, 1, rounded) - project(model, 1, exact)
    assert 0 < close.abs().max() < {"float16": 5e-3, "bfloat16": 5e-2}[dtype]


def test_failed_items_have_no_row(maker, tmp_path):
    stream = token_stream(maker, missing=[0, 9, 19])
    model = run_of(tmp_path, layout="tokens").model
    assert project(model, 1, stream).shape == (17, 8)


def test_a_tokens_stream_serves_pooled_heads(maker, tmp_path):
    stream = token_stream(maker)
    run = run_of(tmp_path, layout="tokens")
    head = run.baselines["linear"].heads[1]
    rows = project(run.baselines["linear"], 1, stream)
    with torch.no_grad():
        expected = F.normalize(head(torch.from_numpy(stream.pooled())), dim=1)
    torch.testing.assert_close(rows, expected, rtol=0, atol=2e-6)


def test_dropout_is_off_and_the_mode_is_kept(maker, tmp_path):
    stream = token_stream(maker)
    model = run_of(tmp_path, layout="tokens", block_dropout=0.5).model.train()
    assert torch.equal(project(model, 1, stream), project(model, 1, stream))
    assert model.training


def test_a_diverged_model_is_refused(maker, tmp_path):
    stream = token_stream(maker)
    model = run_of(tmp_path, [EYE, TONGUE], layout="tokens").model
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        project(model, 1, stream)


def test_specs_of_the_helpers_match_the_streams(maker):
    caption_set(maker, "toy", "test", 3)
    for name, encoder, modality in (("image", "eye", "image"), ("text", "tongue", "text")):
        stream = maker.cache.find("toy", "test", name)
        spec = spec_of(encoder, name, modality)
        assert (stream.identity, stream.pooled_width) == (spec.identity, spec.width)
