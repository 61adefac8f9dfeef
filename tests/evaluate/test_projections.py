import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_caches import caption_set, class_set, run_of

from cbmf.cache.errors import ShardError
from cbmf.evaluate.linear import evaluate_linear
from cbmf.evaluate.projection import project
from cbmf.evaluate.projections import projected
from cbmf.evaluate.suite import evaluate

pytestmark = pytest.mark.usefixtures("undrawn")


def kept(run) -> list[Path]:
    return sorted((run.folder / "projections").glob("*/*.safetensors"))


def images_of(maker):
    caption_set(maker, "toy", "test", 9)
    return maker.cache.find("toy", "test", "image")


def lose_shards(root: Path) -> None:
    """Leave manifests and items, take every embedding away."""
    for path in root.glob("*/*/*@*/*.h5"):
        path.unlink()


def test_a_second_evaluation_reads_no_embedding_and_finds_the_same(maker, tmp_path):
    caption_set(maker, "toy", "test", 20)
    run = run_of(tmp_path / "run")
    first = evaluate(maker.cache, run, ["retrieval"])
    lose_shards(maker.root)
    second = evaluate(maker.cache, run_of(tmp_path / "run"), ["retrieval"], again=True)
    assert second.kept == 0
    assert [r.rows for r in second.results] == [r.rows for r in first.results]
    assert len(kept(run)) == 6  # model, linear heads, untrained; two streams each
    shutil.rmtree(run.folder / "projections")
    with pytest.raises(ShardError):
        evaluate(maker.cache, run, ["retrieval"], again=True)


def test_a_classifier_learns_on_kept_rows_what_it_learned_before(maker, tmp_path):
    for split in ("train", "test"):
        class_set(maker, "pets", split, per_class=5, seed=len(split))
    run = run_of(tmp_path / "run")
    first, second = (
        evaluate_linear(maker.cache, run, "pets", "test", lambda text: None) for _ in range(2)
    )
    assert [r.rows for r in first] == [r.rows for r in second]
    assert len(kept(run)) == 6


def test_kept_rows_are_those_of_the_projection_bit_for_bit(maker, tmp_path):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    expected = project(run.model, 0, stream)
    for _ in range(2):
        assert torch.equal(projected(run, run.model, 0, stream), expected)
    assert len(kept(run)) == 1


def test_other_weights_give_other_rows_and_the_old_ones_go(maker, tmp_path):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    before = projected(run, run.model, 0, stream)
    old = kept(run)
    with torch.no_grad():
        for weight in run.model.projections.parameters():
            weight.mul_(-1.5)
    after = projected(run, run.model, 0, stream)
    assert not torch.equal(before, after)
    assert torch.equal(after, project(run.model, 0, stream))
    assert len(kept(run)) == 1 and kept(run) != old


def test_another_stream_gives_other_rows(maker, tmp_path):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    projected(run, run.model, 0, stream)
    vectors = np.random.default_rng(4).normal(size=(9, 12))
    shutil.rmtree(stream.path)
    other = maker.stream(maker.items["toy", "test"], "image", vectors, encoder="eye")
    assert other.fingerprint == stream.fingerprint  # the same on paper, other numbers in its shards
    assert torch.equal(projected(run, run.model, 0, other), project(run.model, 0, other))
    assert len(kept(run)) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_noticed_and_made_anew(maker, tmp_path, damage):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    expected = projected(run, run.model, 0, stream)
    path = kept(run)[0]
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    path.write_bytes(
        {"flip": bytes(flipped), "cut": whole[:-9], "empty": b"", "other": b"x" * 99}[damage]
    )
    assert torch.equal(projected(run, run.model, 0, stream), expected)
    assert path.read_bytes() == whole


def test_where_nothing_can_be_kept_rows_are_made_each_time(maker, tmp_path):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / "projections").write_text("in the way, as a read-only folder would be to a user")
    rows = [projected(run, run.model, 0, stream) for _ in range(2)]
    assert torch.equal(*rows)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_run_folder_works(maker, tmp_path):
    stream, run = images_of(maker), run_of(tmp_path / "run")
    run.folder.mkdir(mode=0o555)
    assert torch.equal(projected(run, run.model, 0, stream), project(run.model, 0, stream))
    assert not kept(run)
