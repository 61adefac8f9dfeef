"""Steps in chunks: the loss and the gradients of the whole batch, with less memory."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbmf.cache.errors import InputError
from cbmf.train.batches import epoch_batches, generator
from cbmf.train.config import FUSIONS, preset
from cbmf.train.data import load_data
from cbmf.train.encoding import encode_items
from cbmf.train.fit import fit
from cbmf.train.run import build_model
from cbmf.train.source import choose_source
from cbmf.train.step import Step
from cbmf.train.validation import batch_loss

TINY = {"width": 16, "projection_width": 16, "ffn_width": 32, "heads": 2, "zero_start": False}
CALM = {
    "input_dropout": 0.0,
    "projection_dropout": 0.0,
    "block_dropout": 0.0,
    "token_dropout": 0.0,
    "clip": 0.0,
}


def step_of(small, config, device="cpu"):
    """A step before the first one, its data, and the first batch."""
    source = choose_source(small.cache, config, None)
    data = load_data(small.cache, source, config, torch.device(device))
    model = build_model(source.encoders(config.model.layout), config)
    for index, bank in enumerate((data.train.left, data.train.right)):
        model.measure(index, bank.statistics())
    batch = next(epoch_batches(data.train.table, config, epoch=0))
    return Step(model.train(), config, steps=10), data.train, batch


def loss_and_gradients(small, config):
    step, banks, batch = step_of(small, config)
    loss = step.backward(banks, batch, generator(0, 0, purpose=2))
    return loss, {name: p.grad for name, p in step.model.named_parameters()}


def same_gradients(one, two, **tolerance):
    missing = [{name for name, g in part.items() if g is None} for part in (one, two)]
    assert one.keys() == two.keys() and missing[0] == missing[1]
    one, two = ({n: g for n, g in part.items() if g is not None} for part in (one, two))
    torch.testing.assert_close(one, two, **tolerance)


LOSSES = [
    {"targets": "hard"},
    {"targets": "hard", "same_image": "masked", "label_smoothing": 0.1},
    {"targets": "soft"},
    {"targets": "soft", "detach_targets": False, "log_scale": 1.0},
]


@pytest.mark.parametrize("loss", LOSSES, ids=[" ".join(map(str, x.values())) for x in LOSSES])
@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_chunks_have_the_loss_and_the_gradients_of_the_whole_batch(small, layout, loss):
    small.image_text(layout="tokens")
    mixup = 1.0 if layout == "pooled" else 0.0
    options = {**TINY, **CALM, **loss, "layout": layout, "mixup": mixup, "captions_per_image": 2}
    whole, gradients = loss_and_gradients(small, preset("best", batch_size=40, **options))
    assert sum(g.abs().sum() > 0 for g in gradients.values()) > 10
    assert gradients["temperature.log_scale"].abs() > 1e-3
    for size in (1, 7, 30):  # 30: more than one chunk on the right alone
        config = preset("best", batch_size=40, chunk_size=size, **options)
        again, found = loss_and_gradients(small, config)
        torch.testing.assert_close(again, whole, rtol=1e-6, atol=0)
        same_gradients(found, gradients, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_chunks_have_the_gradients_of_the_whole_batch_with_every_fusion(small, fusion):
    small.image_text(layout="tokens")
    options = {**TINY, **CALM, "layout": "tokens", "fusion": fusion, "batch_size": 40}
    whole, gradients = loss_and_gradients(small, preset("best", **options))
    again, found = loss_and_gradients(small, preset("best", chunk_size=9, **options))
    torch.testing.assert_close(again, whole, rtol=1e-6, atol=0)
    same_gradients(found, gradients, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_the_second_pass_over_a_chunk_draws_what_the_first_one_drew(small, layout):
    small.image_text(layout="tokens")
    options = {**TINY, "layout": layout, "mixup": 0.0, "input_noise": 0.2, "captions_per_image": 2}
    config = preset("best", batch_size=40, chunk_size=9, **options)
    torch.manual_seed(7)
    loss, found = loss_and_gradients(small, config)
    after = torch.get_rng_state()

    step, banks, batch = step_of(small, config)  # the oracle: the chunks in one graph
    torch.manual_seed(7)
    sides = []
    for side, (bank, items) in enumerate(((banks.left, batch.left), (banks.right, batch.right))):
        order = np.argsort(bank.lengths(torch.from_numpy(items)).numpy(), kind="stable")
        parts = np.array_split(order, -(-len(order) // 9))
        rows = torch.cat([encode_items(step.model, side, bank, items[part]) for part in parts])
        sides.append(rows[torch.from_numpy(np.argsort(order))])
    expected = batch_loss(*sides, batch, step.model.temperature.scale(), config.loss)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    gradients = {name: p.grad for name, p in step.model.named_parameters()}
    same_gradients(found, gradients, rtol=1e-4, atol=2e-6)
    assert torch.equal(torch.get_rng_state(), after)  # each number is drawn once a step


def test_chunks_in_bfloat16_come_close_and_leave_no_parameter_out(small):
    small.image_text(layout="tokens")
    options = {**TINY, **CALM, "layout": "tokens", "precision": "bfloat16", "batch_size": 40}
    whole, gradients = loss_and_gradients(small, preset("best", **options))
    again, found = loss_and_gradients(small, preset("best", chunk_size=9, **options))
    torch.testing.assert_close(again, whole, rtol=2e-2, atol=0)
    one, two = (torch.cat([g.flatten() for g in part.values()]) for part in (found, gradients))
    assert torch.cosine_similarity(one, two, dim=0) > 0.99


@pytest.mark.usefixtures("undrawn")
def test_a_chunk_that_holds_the_batch_changes_nothing_and_smaller_ones_go_on_bit_by_bit(
    small, tmp_path
):
    small.image_text(layout="tokens")
    options = {**TINY, "layout": "tokens", "batch_size": 16, "epochs": 3, "baseline": False}

    def weights(name, chunk_size, **how):
        config = preset("best", **options, chunk_size=chunk_size)
        fit(small.cache, config, out=tmp_path / name, **how)
        return load_file(tmp_path / name / "model.safetensors")

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    whole, covered, chunks = weights("whole", 0), weights("covered", 16), weights("chunks", 5)
    assert all(torch.equal(whole[name], covered[name]) for name in whole)
    assert not all(torch.equal(whole[name], chunks[name]) for name in whole)  # other dropout
    with pytest.raises(KeyboardInterrupt):
        weights("parts", 5, report=stop)
    parts = weights("parts", 5)
    assert all(torch.equal(chunks[name], parts[name]) for name in chunks)


def test_a_negative_chunk_is_refused():
    with pytest.raises(InputError, match="chunk_size"):
        preset("best", chunk_size=-1)


def peak_bytes(chunk_size):
    """By how much a step on a batch of 2048 items raises the memory of a fresh process."""
    code = """
        import json, resource, sys
        import numpy as np, torch
        from cbmf.train.aligner import EncoderSpec
        from cbmf.train.bank import Bank
        from cbmf.train.batches import epoch_batches, generator
        from cbmf.train.config import preset
        from cbmf.train.data import PairedBanks
        from cbmf.train.pairs import PairTable
        from cbmf.train.run import build_model
        from cbmf.train.step import Step

        torch.set_num_threads(1)
        count, tokens = 2048, 40
        offsets = torch.arange(count + 1) * tokens
        banks = [
            Bank(np.arange(count), torch.randn(count * tokens, 32, dtype=torch.float16), offsets)
            for _ in range(2)
        ]
        every = np.arange(count)
        table = PairTable(every, np.arange(count + 1), every, every)
        config = preset("best", layout="tokens", batch_size=count, chunk_size=int(sys.argv[1]),
                        width=32, projection_width=64, ffn_width=64, token_dropout=0.0)
        specs = [EncoderSpec(m, m, m, m, 32) for m in ("image", "text")]
        step = Step(build_model(specs, config).train(), config, steps=10)
        batch = next(epoch_batches(table, config, 0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step.take(PairedBanks(*banks, table), batch, generator(0, 0, 2))
        print(json.dumps(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(chunk_size)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_chunks_of_128_take_a_fraction_of_the_memory_of_a_batch_of_2048():
    whole, chunks = peak_bytes(0), peak_bytes(128)
    assert chunks < whole / 4, f"{whole / 2**20:.0f} MiB whole, {chunks / 2**20:.0f} MiB in chunks"
