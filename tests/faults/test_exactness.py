"""The same numbers however they are made: in one go or in pieces, alone or shared."""

import re
import shutil

import forked
import numpy as np
import pytest
from campaign import check_run, digests

from cbmf.cache.catalog import Cache

COSINE = 0.9999
"""At least, between embeddings in float32 made in different ways."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def in_one_go(workshop):
    cache = workshop.root / "float32"
    assert workshop.run(workshop.precompute(cache, "--dtype", "float32")) == 0
    return cache


def vectors(cache):
    store = Cache(cache)
    return {
        (dataset, split, stream.column): (stream.rows, stream.pooled())
        for dataset, split in store.splits()
        for stream in store.streams(dataset, split)
    }


def check_close(cache, other):
    """Smallest cosine between the embeddings of two caches."""
    ours, theirs = vectors(cache), vectors(other)
    assert ours.keys() == theirs.keys()
    worst = 1.0
    for key, (rows, found) in ours.items():
        assert np.array_equal(rows, theirs[key][0])
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(theirs[key][1], axis=1)
        worst = min(worst, float(((found * theirs[key][1]).sum(1) / norms).min()))
    assert worst >= COSINE
    return worst


@pytest.mark.parametrize(
    "other",
    [("--batch-size", "1"), ("--batch-size", "32"), ("--shard-rows", "256")],
    ids=["one by one", "larger batches", "larger shards"],
)
def test_batches_and_shards_change_nothing_beyond_rounding(workshop, in_one_go, tmp_path, other):
    cache = tmp_path / "cache"
    assert workshop.run(workshop.precompute(cache, "--dtype", "float32", *other)) == 0
    print(f"{' '.join(other)}: cosine at least {check_close(in_one_go, cache):.7f}")


def test_in_pieces_it_is_the_same_to_the_byte(workshop, in_one_go, tmp_path):
    cache = tmp_path / "cache"
    for split in ("test", "train", "val"):
        words = workshop.precompute(cache, "--dtype", "float32", "--split", split)
        assert workshop.run(words) == 0, workshop.words_said()
    assert digests(cache) == digests(in_one_go)


def test_two_processes_make_no_shard_twice(workshop, in_one_go, tmp_path):
    cache = tmp_path / "cache"
    words = workshop.precompute(cache, "--dtype", "float32")
    said = [tmp_path / "a.log", tmp_path / "b.log"]
    both = [forked.start(words, log) for log in said]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert digests(cache) == digests(in_one_go)
    encoded = [int(re.search(r"([\d,]+) items encoded", log.read_text())[1]) for log in said]
    items = sum(len(rows) for rows, _ in vectors(in_one_go).values())
    assert sum(encoded) == items, encoded


def test_a_second_fit_in_the_same_folder_is_refused(workshop, undisturbed, fitted, tmp_path):
    out, said = tmp_path / "run", tmp_path / "first.log"
    first = forked.start(workshop.fit(undisturbed, out), said)
    while first.is_alive() and not (out / "config.json").exists():
        first.join(0.01)
    assert workshop.run(workshop.fit(undisturbed, out)) == 1
    assert "another fit is at work in it" in workshop.words_said()
    first.join()
    assert first.exitcode == 0, said.read_text()
    check_run(out, fitted)
    assert workshop.run(workshop.fit(undisturbed, out)) == 0
    assert not list(out.rglob("*.claim"))


def test_the_same_seed_gives_the_same_run_and_scores(workshop, undisturbed, fitted, tmp_path):
    scored = []
    for name in ("a", "b"):
        out = tmp_path / name / "run"
        assert workshop.run(workshop.fit(undisturbed, out)) == 0
        words = ["evaluate", "all", "--run", str(out), "--cache", str(undisturbed)]
        assert workshop.run(words) == 0
        table = json_of(out / "results" / "results.json")
        scored.append([{k: v for k, v in r.items() if k != "seconds"} for r in table["results"]])
        weights = (out / "model.safetensors").read_bytes()
        assert weights == (fitted / "model.safetensors").read_bytes()
    assert scored[0] == scored[1]


def json_of(path):
    from cbmf.cache.files import read_json

    return read_json(path)


def test_a_cache_moved_by_the_commands_is_fitted_to_the_same_weights(
    workshop, undisturbed, fitted, tmp_path
):
    file, cache = tmp_path / "moved.tar", tmp_path / "there"
    assert workshop.run(["cache", "export", str(file), "--cache", str(undisturbed)]) == 0
    assert workshop.run(["cache", "import", str(file), "--cache", str(cache)]) == 0
    assert digests(cache) == digests(undisturbed)
    assert workshop.run(workshop.fit(cache, tmp_path / "run")) == 0
    weights = [(run / "model.safetensors").read_bytes() for run in (tmp_path / "run", fitted)]
    assert weights[0] == weights[1]
    cut = file.read_bytes()
    for part in (0.2, 0.9):
        file.write_bytes(cut[: int(part * len(cut))])
        assert workshop.run(["cache", "import", str(file), "--cache", str(tmp_path / "cut")]) == 1
        assert "cut" in workshop.words_said() and "Traceback" not in workshop.words_said()
    shutil.rmtree(tmp_path / "cut")
