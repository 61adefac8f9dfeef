"""Captions to mined pairs in the cache: nothing encoded twice, pairs mined anew when asked."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import InputError
from cbmf.cli import app
from cbmf.precompute.encoders import EncoderOptions
from cbmf.precompute.mining import MiningOptions
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.stage import Request, precompute


class Quiet:
    """A reporter that remembers the order of events."""

    def __init__(self):
        self.events = []

    def planned(self, source, plans, cache):
        self.plans = plans

    def digesting(self, split, done, total):
        pass

    def mining(self, split, done, total):
        pass

    def mined(self, mined):
        self.events.append(("mined", mined.split))

    def progress(self, stream, progress):
        pass

    def finished(self, stream, progress):
        if progress is not None:
            self.events.append((stream.spec.encoder, progress.encoded))


@pytest.fixture
def run(tmp_path, coco, text_encoder):
    """40 images, two captions each; COCO's folder without its pictures."""
    for path in (coco / "val2017").iterdir():
        path.unlink()

    def run(text=(f"{text_encoder}@layer=1",), mining=None, layout="pooled", **options):
        reporter = Quiet()
        options = PrecomputeOptions(EncoderOptions(layout=layout), **options)
        mining = MiningOptions(str(text_encoder), **{"threshold": 0.9, **(mining or {})})
        asked = {"text": tuple(text), "cache_root": tmp_path / "cache", "options": options}
        request = Request("coco-text", root=coco, mining=mining, **asked)
        return precompute(request, reporter), reporter, Cache(tmp_path / "cache")

    return run


def slow_pairs(cache, threshold):
    """From the miner's cached vectors, by their texts' images."""
    items = cache.items("coco-text", "val")
    stream = cache.find("coco-text", "val", "text", encoder="tiny-bert")
    unit = stream.pooled() / np.linalg.norm(stream.pooled(), axis=1, keepdims=True)
    cosines, groups = unit @ unit.T, items.columns["text"].groups
    near = (cosines >= threshold) & (groups[:, None] == groups[None])
    return np.argwhere(np.triu(near, 1)).tolist()


def test_the_miner_comes_first_then_the_pairs_then_the_encoders(run):
    summary, reporter, cache = run()
    assert reporter.events == [("tiny-bert", 80), ("mined", "val"), ("tiny-bert.layer1", 80)]
    items = cache.items("coco-text", "val")
    assert set(items.columns) == {"text"} and len(items.columns["text"].ids) == 80
    assert (items.pairs.left, items.pairs.right) == ("text", "text")
    assert items.pairs.rows.tolist() == slow_pairs(cache, 0.9) != []
    assert items.pairs.labels is None and items.pairs.scores is None
    stream = cache.find("coco-text", "val", "text", encoder="tiny-bert")
    assert (stream.layout, stream.dtype) == ("pooled", "float16")
    record = json.loads(items.pairs.mined)
    assert record["miner_identity"] == stream.identity and record["threshold"] == 0.9
    assert summary.mined[0].pairs == len(items.pairs.rows) and summary.mined[0].texts == 80


def test_an_inner_layer_is_an_encoder_of_its_own(run, text_encoder):
    _, _, cache = run([str(text_encoder), f"{text_encoder}@layer=1", f"{text_encoder}@layer=-1"])
    streams = cache.streams("coco-text", "val")
    assert [stream.encoder for stream in streams] == ["tiny-bert", "tiny-bert.layer1"]
    assert streams[0].path.name.startswith("text@tiny-bert-")
    assert streams[1].path.name.startswith("text@tiny-bert.layer1-")
    assert np.abs(streams[0].pooled() - streams[1].pooled()).max() > 1e-3


@pytest.mark.parametrize("name", ["tiny@layer=two", "@layer=1"])
def test_a_layer_that_is_no_number_is_refused(run, name):
    with pytest.raises(InputError, match="expected NAME@layer=NUMBER"):
        run([name])


def test_a_second_run_encodes_and_writes_nothing(run, tmp_path):
    run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")}
    summary, reporter, cache = run()
    assert summary.encoded == 0 and reporter.events == [("mined", "val")]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")}
    assert after == before
    assert summary.mined[0].pairs == len(cache.items("coco-text", "val").pairs.rows)


@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_a_miner_among_the_encoders_is_encoded_once(run, text_encoder, layout):
    both = [f"{text_encoder}@layer=1", str(text_encoder)]
    summary, reporter, cache = run(both, layout=layout)
    assert reporter.events == [("tiny-bert", 80), ("mined", "val"), ("tiny-bert.layer1", 80)]
    assert [stream.layout for stream in cache.streams("coco-text", "val")] == [layout] * 2
    assert summary.encoded == 160


def test_vectors_that_are_there_in_another_layout_are_mined_from(run, text_encoder):
    run([str(text_encoder)], layout="tokens")
    summary, reporter, cache = run(mining={"threshold": 0.8})
    assert reporter.events == [("mined", "val"), ("tiny-bert.layer1", 80)]
    assert summary.encoded == 80
    assert cache.items("coco-text", "val").pairs.rows.tolist() == slow_pairs(cache, 0.8)


def test_another_threshold_mines_anew_and_every_stream_stays(run, tmp_path):
    _, _, cache = run()
    folders = [stream.path.name for stream in cache.streams("coco-text", "val")]
    fewer = len(cache.items("coco-text", "val").pairs.rows)
    for mining in ({"threshold": 0.5}, {"candidates": "all"}, {"identity": True}):
        summary, _, _ = run(mining=mining)
        assert summary.encoded == 0
    items = cache.items("coco-text", "val")
    own = items.pairs.rows[:, 0] == items.pairs.rows[:, 1]
    assert own.sum() == 80 and (~own).sum() == fewer
    assert [stream.path.name for stream in cache.streams("coco-text", "val")] == folders
    assert [stream.rows.tolist() for stream in cache.streams("coco-text", "val")]
    assert not list((tmp_path / "cache").rglob("items-*.h5"))


def test_all_pairs_captions_of_different_images(run):
    _, _, cache = run(mining={"candidates": "all", "partners": 1})
    items = cache.items("coco-text", "val")
    groups = items.columns["text"].groups
    rows = items.pairs.rows
    assert (groups[rows[:, 0]] != groups[rows[:, 1]]).any() and len(rows) <= 80
    assert json.loads(items.pairs.mined)["partners"] == 1


def test_changed_captions_are_encoded_and_mined_anew(run, coco):
    run()
    path = coco / "annotations" / "captions_val2017.json"
    table = json.loads(path.read_text())
    table["annotations"] = table["annotations"][:60]
    path.write_text(json.dumps(table))
    summary, reporter, cache = run()
    assert reporter.events == [("tiny-bert", 60), ("mined", "val"), ("tiny-bert.layer1", 60)]
    assert cache.items("coco-text", "val").pairs.rows.max() < 60
    assert summary.mined[0].texts == 60


def test_no_pair_at_all_is_an_error_and_the_vectors_are_kept(run):
    with pytest.raises(InputError, match=r"none of its 80 texts has a partner .* lower --thresh"):
        run(mining={"threshold": 1.0})
    summary, reporter, _ = run()
    assert reporter.events[0] == ("mined", "val") and summary.encoded == 80


def test_a_trial_mines_the_captions_of_so_many_images(run):
    _, _, cache = run(limit=10)
    items = cache.items("coco-text-limit10", "val")
    assert (
        len(items.columns["text"].ids) == 20 and len(np.unique(items.columns["text"].groups)) == 10
    )


def test_a_dry_run_writes_nothing(run, tmp_path, coco, text_encoder):
    request = Request(
        "coco-text",
        root=coco,
        text=(f"{text_encoder}@layer=1",),
        cache_root=tmp_path / "cache",
        dry_run=True,
        mining=MiningOptions(str(text_encoder)),
    )
    reporter = Quiet()
    precompute(request, reporter)
    assert [s.spec.encoder for s in reporter.plans[0].streams] == ["tiny-bert", "tiny-bert.layer1"]
    assert not (tmp_path / "cache").exists()


def cbmf(*words):
    return CliRunner().invoke(app, ["precompute", *map(str, words)])


def test_the_command_mines_and_says_how_many(tmp_path, coco, text_encoder):
    words = ["coco-text", "--root", coco, "--cache", tmp_path / "cache", "--text", text_encoder]
    done = cbmf(*words, "--miner", text_encoder, "--threshold", "0.9", "--identity")
    assert done.exit_code == 0
    assert "pairs and 80 of a caption with itself mined from 80 captions, at a cosine of 0.9" in (
        done.output
    )


def test_mining_another_data_set_is_refused(coco):
    done = cbmf("coco", "--root", coco, "--no-identity")
    assert done.exit_code == 1
    assert "coco: no pairs are mined of it; leave --miner, --threshold" in done.output
