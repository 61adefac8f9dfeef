"""A run extended by an encoder: what it had stays as it is to the bit, the new part learns."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from cbmf.cache.errors import CacheError, InputError, RunError
from cbmf.cache.files import file_digest
from cbmf.cli import app
from cbmf.evaluate.projection import project
from cbmf.train.batches import epoch_batches, generator
from cbmf.train.config import preset
from cbmf.train.data import load_data
from cbmf.train.extension import config_of_extension, extend_run, extended_source
from cbmf.train.fit import fit
from cbmf.train.run import Run, build_model
from cbmf.train.step import Step

TINY = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "epochs": 3,
    "batch_size": 16,
}
SPLITS = ("train", "val", "test")


@pytest.fixture
def fitted(small, undrawn, tmp_path):
    """A fitted run, and a third encoder beside its own in the cache."""

    def make(name="best", column="image", layout="tokens", **options):
        for split in SPLITS:
            small.image_text(split=split, images=40, layout=layout, image={"grid": 2})
        config = preset(name, layout=layout, **{**TINY, "baseline": False, **options})
        run = fit(small.cache, config, out=tmp_path / "base")
        small.encoder("tiny-conv", column=column)
        return run

    return make


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def first_step(small, run, **changes):
    """The first step of an extension, before it is taken."""
    config = config_of_extension(run, changes)
    source = extended_source(small.cache, config, run.dataset, run.model.encoders, "tiny-conv")
    data = load_data(small.cache, source, config, torch.device("cpu"))
    model = build_model(source.encoders(config.model.layout), config)
    model.take_over(run.model, 2)
    model.hold(2)
    model.measure(2, data.train.statistics(2))
    batch = next(epoch_batches(data.train.table, config, epoch=0))
    return Step(model.train(), config, steps=10), data.train, batch


def rows_by(run, cache):
    """Rows of the test split by each of the run's encoders, by name."""
    rows = {}
    for place, spec in enumerate(run.model.encoders):
        stream = cache.find(
            run.dataset, "test", spec.column, identity=spec.identity, layout=run.model.layout
        )
        rows[spec.name] = project(run.model, place, stream)
    return rows


@pytest.mark.parametrize("column", ["image", "text"])
@pytest.mark.parametrize(
    "options",
    [
        {"layout": "pooled"},
        {"layout": "tokens", "fusion": "concat"},
        {"layout": "tokens", "fusion": "dot", "name": "released", "lr": 0.01},
        {"layout": "pooled", "fusion": "none", "ema": 0.9},
    ],
    ids=["pooled add", "concat", "released dot", "no context"],
)
def test_rows_by_the_old_encoders_are_the_same_to_the_bit(small, fitted, tmp_path, column, options):
    layout = options["layout"]
    base = fitted(column=column, **options)
    before = weights(base.folder)
    run = extend_run(base, "tiny-conv", small.cache, out=tmp_path / "new")
    assert [spec.name for spec in run.model.encoders] == ["tiny-vit", "tiny-bert", "tiny-conv"]
    old, new = rows_by(base, small.cache), rows_by(run, small.cache)
    assert layout == run.model.layout and same(old, {name: new[name] for name in old})
    assert same(before, run.model.state_of(2)) and same(before, weights(base.folder))
    start = build_model(run.model.encoders, run.config)
    start.take_over(base.model, 2)
    first, last = (model.projections[2].state_dict() for model in (start, run.model))
    assert any(not torch.equal(first[key], last[key]) for key in first)
    if run.model.context is not None:
        assert not torch.equal(start.context.vectors[2], run.model.context.vectors[2])


@pytest.mark.parametrize("chunk_size", [0, 7])
def test_only_the_new_part_gets_gradients(small, fitted, chunk_size):
    step, banks, batch = first_step(small, fitted(layout="tokens"), chunk_size=chunk_size)
    step.backward(banks, batch, generator(0, 0, purpose=2))
    learned = {name for name, p in step.model.named_parameters() if p.grad is not None}
    own = {name for name, _ in step.model.named_parameters() if name.startswith("projections.2.")}
    assert own and learned == {*own, "context.vectors"}
    contexts = step.model.context.vectors.grad
    assert not contexts[:2].any() and contexts[2].any()
    assert {id(p) for group in step.optimizer.param_groups for p in group["params"]} == {
        id(p) for name, p in step.model.named_parameters() if name in learned
    }


@pytest.mark.parametrize(("column", "token_dropout"), [("image", 0.0), ("text", 0.75)])
def test_the_loss_is_that_with_each_old_encoder_of_which_nothing_is_left_out(
    small, fitted, column, token_dropout
):
    calm = {"input_dropout": 0.0, "projection_dropout": 0.0, "token_dropout": token_dropout}
    base = fitted(layout="tokens", column=column)
    step, banks, batch = first_step(small, base, mixup=0.0, **calm)
    found = step.backward(banks, batch, generator(0, 0, purpose=2))
    assert step.model.config.block_dropout > 0  # of the shared part, which is held
    step.model.eval()
    with torch.no_grad():
        vit, bert, conv = (
            step.model.encode(encoder, *bank.gather(torch.from_numpy(places)))
            for encoder, (bank, places) in enumerate(banks.items(batch.left, batch.right))
        )
        losses = []
        for other in (vit, bert):
            logits = step.model.temperature.scale() * conv @ other.T
            partner = torch.arange(len(logits))
            losses.append((cross_entropy(logits, partner) + cross_entropy(logits.T, partner)) / 2)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def stop_after(epoch):
    def report(progress):
        if (progress.stage, progress.epoch) == ("cbmf", epoch):
            raise KeyboardInterrupt

    return report


def test_an_interrupted_extension_goes_on_bit_by_bit(small, fitted, tmp_path):
    base = fitted(layout="pooled", baseline=True)
    config = config_of_extension(base, {"ema": 0.9, "input_noise": 0.1, "lr": 5e-3})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    extend_run(base, "tiny-conv", small.cache, config, out=whole)
    with pytest.raises(KeyboardInterrupt):
        extend_run(base, "tiny-conv", small.cache, config, out=parts, report=stop_after(1))
    run = extend_run(base, "tiny-conv", small.cache, config, out=parts)
    assert run.finished and same(weights(whole), weights(parts))
    heads = [weights(folder / "baselines/linear") for folder in (whole, parts)]
    assert same(*heads)
    assert same(base.baselines["linear"].state_dict(), run.baselines["linear"].state_of(2))


def test_the_record_names_the_run_and_another_one_of_that_name_is_refused(small, fitted, tmp_path):
    base = fitted(layout="pooled")
    out = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        extend_run(base, "tiny-conv", small.cache, out=out, report=stop_after(1))
    card = json.loads((out / "config.json").read_text())
    digest = file_digest(base.folder / "model.safetensors")
    assert card["extends"] == {"run": "base", "encoders": 2, "weights": digest}
    shutil.rmtree(base.folder)
    other = fit(small.cache, replace(base.config, left="tiny-vit", seed=5), out=base.folder)
    with pytest.raises(RunError, match=r"extends\.weights"):
        extend_run(other, "tiny-conv", small.cache, out=out)


def test_the_new_encoder_learns_to_find_captions(small, fitted, tmp_path):
    base = fitted(layout="pooled", epochs=20, lr=5e-3)
    run = extend_run(base, "tiny-conv", small.cache, out=tmp_path / "new")
    rows = rows_by(run, small.cache)
    pairs = torch.from_numpy(small.cache.items("small", "test").pairs.rows)

    def found(images):
        scores = rows["tiny-bert"] @ images.T
        return (scores.argmax(1)[pairs[:, 1]] == pairs[:, 0]).float().mean()

    untrained = project(
        run.untrained, 2, small.cache.find("small", "test", "image", encoder="conv")
    )
    assert found(rows["tiny-conv"]) > max(0.25, 3 * found(untrained))
    old = project(run.untrained, 1, small.cache.find("small", "test", "text"))
    assert torch.equal(old, rows["tiny-bert"])


def test_an_extended_run_can_be_extended_again(small, fitted, tmp_path):
    base = fitted(layout="pooled")
    small.encoder("tiny-roberta", column="text", width=7)
    one = extend_run(base, "tiny-conv", small.cache)
    assert one.folder == tmp_path / "base+tiny-conv"
    two = extend_run(one, "tiny-roberta", small.cache, out=tmp_path / "two")
    assert len(two.model.encoders) == 4 and two.held == 3 and not two.baselines
    assert same(weights(one.folder), two.model.state_of(3))
    assert same(weights(base.folder), two.model.state_of(2))


def test_of_pairs_of_one_column_the_new_encoder_stands_on_the_right(small, undrawn, tmp_path):
    for split in SPLITS:
        small.captions(split=split, layout="pooled")
    options = {**TINY, "left": "bert-tiny", "right": "roberta-tiny", "baseline": False}
    base = fit(small.cache, preset("best", **options), out=tmp_path / "base")
    run = extend_run(base, "mini", small.cache, out=tmp_path / "new")
    source = extended_source(small.cache, run.config, "coco-text", base.model.encoders, "mini")
    assert source.sides == (0, 1, 1)
    assert same(weights(base.folder), run.model.state_of(2))


def test_what_cannot_be_extended_says_why(small, fitted, tmp_path):
    base = fitted(layout="pooled")
    with pytest.raises(InputError, match="is there twice"):
        extend_run(base, "tiny-vit", small.cache)
    with pytest.raises(CacheError, match=r"no image stream fits 'nothing.*no text stream"):
        extend_run(base, "nothing", small.cache)
    for changes, said in (
        ({"width": 32, "fusion": "mul"}, "width, fusion: run base is 16, add and stays as it is"),
        ({"left": "tiny-conv"}, "left: run base"),
    ):
        with pytest.raises(InputError, match=said):
            config_of_extension(base, changes)
    with pytest.raises(RunError, match="interrupted; finish it"):
        config_of_extension(replace(base, finished=False))
    with pytest.raises(InputError, match="part that belongs to one encoder alone"):
        config_of_extension(replace(base, config=replace(base.config, method="asif")))
    assert not (tmp_path / "base+tiny-vit").exists()


def test_a_second_encoder_of_a_name_that_is_taken_gets_another_one(small, fitted, tmp_path):
    base = fitted(layout="pooled")
    small.encoder("tiny-vit", setup="another pooling")
    other = next(
        stream
        for stream in small.cache.streams("small", "train", "image")
        if (stream.encoder, stream.width) == ("tiny-vit", 9)
    )
    run = extend_run(base, other.path.name, small.cache, out=tmp_path / "new")
    found = [spec.name for spec in run.model.encoders]
    assert found[:2] == ["tiny-vit", "tiny-bert"] and found[2] == "tiny-vit-image"


def test_the_commands_fit_three_encoders_and_extend_a_run(small, fitted, tmp_path):
    base = fitted(layout="pooled")
    cli = CliRunner()
    common = ("--cache", str(small.root), "--epochs", "2", "--batch-size", "16")
    three = ("--left", "tiny-vit", "--left", "tiny-conv", "--out", str(tmp_path / "three"))
    sizes = [f"--set={name}={value}" for name, value in TINY.items() if name.endswith("width")]
    done = cli.invoke(app, ["fit", *common, *three, *sizes, "--set", "baseline=false"])
    assert done.exit_code == 0, done.output
    assert len(Run.load(tmp_path / "three").model.encoders) == 3
    file = tmp_path / "fit.toml"
    file.write_text(f'left = "tiny-conv"\nlayout = "pooled"\nout = "{tmp_path / "one"}"\n')
    done = cli.invoke(
        app, ["fit", *common, *sizes, "--set", "baseline=false", "--config", str(file)]
    )
    assert done.exit_code == 0, done.output
    assert Run.load(tmp_path / "one").model.encoders[0].name == "tiny-conv"
    extension = ("--extend", str(base.folder), "--add", "tiny-conv", "--out", str(tmp_path / "new"))
    done = cli.invoke(app, ["fit", *common, *extension])
    assert done.exit_code == 0, done.output
    assert "tiny-vit with tiny-bert with tiny-conv" in done.output
    run = Run.load(tmp_path / "new")
    assert run.config.epochs == 2 and run.held == 2
    assert cli.invoke(app, ["fit", *common, *extension, "--fusion", "mul"]).exit_code == 1
    assert cli.invoke(app, ["fit", *common, "--extend", str(base.folder)]).exit_code == 2
