"""Methods side by side: figures as retrieval has them, and differences drawn together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_caches import Maker, caption_set, run_of

from cbmf.evaluate.comparison import (
    MEAN,
    Contestant,
    Found,
    cells,
    columns,
    compare,
    document,
    find,
    markdown,
)
from cbmf.evaluate.retrieval import evaluate_retrieval
from cbmf.evaluate.suite import silent

NAMES = [f"{way}/R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]


def found(share, seed=0, units=200):
    """Of one query a unit and direction, about so many succeed."""
    random = np.random.default_rng(seed)
    hits = (random.random((units, 6)) < share).astype(float)
    return Found(NAMES, hits, np.ones((units, 6), np.int64))


def contestant(label, *founds):
    seeds = dict(enumerate(founds))
    return Contestant(label, 1234, seeds, {seed: 2.5 + seed for seed in seeds})


def test_the_recalls_and_intervals_of_one_seed_are_those_of_the_benchmark(maker: Maker, tmp_path):
    caption_set(maker, "toy", "test", 40)
    run = run_of(tmp_path / "run")
    run.alone = True
    expected = evaluate_retrieval(maker.cache, run, "toy", "test", silent).row("model")
    own = find(maker.cache, run, "toy", "test")
    (row,) = compare([contestant("ours", own)], "toy/test").recalls.rows
    assert own.names == NAMES
    for name in NAMES:
        assert row.mean(name) == pytest.approx(expected.metrics[name])
        assert row.ends[name][0] == pytest.approx(expected.intervals[name])
    assert row.mean(MEAN) == pytest.approx(np.mean([expected.metrics[name] for name in NAMES]))
    low, high = row.ends[MEAN][0]
    assert low < row.mean(MEAN) < high


def test_a_method_is_level_with_itself_and_not_with_a_better_one():
    base = found(0.5)
    better = replace(base, hits=np.maximum(base.hits, found(0.3, seed=1).hits))
    noise = found(0.5, seed=2)
    comparison = compare(
        [
            contestant(n, f)
            for n, f in (("a", base), ("a again", base), ("b", better), ("c", noise))
        ],
        "toy/test",
    )
    first, again, ahead, other = comparison.differences
    assert (again.value, again.low, again.high) == (0, 0, 0) and again.level and first.level
    assert not ahead.level and 0 < ahead.low < ahead.value < ahead.high
    assert other.level and other.high - other.low > ahead.high - ahead.low


def test_figures_are_means_over_seeds_and_sigma_is_their_deviation():
    parts = [found(0.4, seed) for seed in range(3)]
    row = compare([contestant("a", *parts)], "toy/test").recalls.rows[0]
    each = [part.hits.mean(0) for part in parts]
    for column, name in enumerate(NAMES):
        assert row.mean(name) == pytest.approx(np.mean([shares[column] for shares in each]))
        sigma = np.std([shares[column] for shares in each], ddof=1)
        assert (row.deviation(name) or 0) == pytest.approx(sigma)
    assert row.deviation(MEAN) == pytest.approx(np.std([s.mean() for s in each], ddof=1))


def test_a_unit_with_more_queries_counts_for_more():
    hits, queries = np.array([[3.0] * 6, [0.0] * 6]), np.array([[3] * 6, [1] * 6])
    row = compare([contestant("a", Found(NAMES, hits, queries))], "toy/test").recalls.rows[0]
    assert row.mean("image_to_text/R@1") == row.mean(MEAN) == 0.75


def test_the_table_has_the_best_in_bold_and_every_figure_in_json():
    comparison = compare(
        [contestant("a_b", found(0.2), found(0.2, 1)), contestant("c", found(0.9))], "toy/test"
    )
    text = markdown(comparison)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].count("|") == len(columns(comparison)) + 2
    assert lines[1].startswith("| a\\_b | ") and "**" not in lines[1]
    assert lines[2].startswith("| c | **") and lines[2].count("**") == 2 * len([*NAMES, MEAN])
    assert lines[1].endswith("| 3.0 | 1,234 |") and "| 2.5 | 1,234 |" in lines[2]
    assert "2 seeds" in text and "200 left items" in text and "that of a_b" in text
    whole = json.loads(json.dumps(document(comparison)))
    assert [row["system"] for row in whole["rows"]] == ["a_b", "c"]
    own = whole["rows"][1]
    low, high = own["difference"]["interval"]
    assert low < own["difference"]["mean"] < high and own["seconds"] == {"0": 2.5}
    assert set(own["metrics"]) == {*NAMES, MEAN} and own["parameters"] == 1234
    assert cells(comparison)[0][-3].text == ""  # nothing is compared with itself
