import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import pearsonr, spearmanr
from tiny_caches import EYE, Maker, run_of
from tiny_sentences import PAIRS, QUILL, TONGUE, by_hand, embedded, vectors

from cbmf.cache.errors import InputError
from cbmf.evaluate.grades import TOLERANCES, within_tolerance
from cbmf.evaluate.results import Result, merge_results, read_results
from cbmf.evaluate.similarity import evaluate_similarity, suits
from cbmf.evaluate.tables import markdown, table
from cbmf.train.aligner import EncoderSpec


def score(maker: Maker, run, split: str = "test") -> dict[str, Result]:
    results = evaluate_similarity(maker.cache, run, "stsb", split, [].append)
    return {result.protocol: result for result in results}


@pytest.fixture
def run(tmp_path):
    return run_of(tmp_path / "run", [EYE, TONGUE])


def test_every_figure_agrees_with_scipy(maker, run):
    random = np.random.default_rng(0)
    grades = random.uniform(0, 5, 60).round(1)
    left, noise = random.normal(size=(2, 60, 10))
    rows = np.concatenate([left, grades[:, None] / 5 * left + noise]).astype(np.float32)
    pairs = [(n, 60 + n) for n in range(60)]
    items = maker.sentences("stsb", "test", pairs, scores=grades.tolist())
    maker.stream(items, "text", rows, encoder="tongue")
    found = score(maker, run)
    models = (
        ("model", run.model),
        ("baseline", run.baselines["linear"]),
        ("untrained", run.untrained),
    )
    for kind, model in (*models, ("raw", None)):
        unit = rows if model is None else embedded(model, 1, rows)
        cosines = np.array(by_hand(unit, unit, pairs))
        row = found["standard"].row(kind)
        assert row.metrics == {
            "Spearman": pytest.approx(spearmanr(cosines, grades)[0]),
            "Pearson": pytest.approx(pearsonr(cosines, grades)[0]),
        }
        for name, (low, high) in row.intervals.items():
            assert low < row.metrics[name] < high
        curves = within_tolerance(cosines, grades)
        row = found["paper"].row(kind)
        assert row.curves == {name: pytest.approx(curve) for name, curve in curves.items()}
        assert row.metrics == {n: pytest.approx(curve.mean()) for n, curve in curves.items()}
    assert list(found["paper"].row("model").curves) == ["0-1", "1-2", "2-3", "3-4", "4-5", "all"]
    assert found["paper"].axis == TOLERANCES.tolist()
    assert found["standard"].axis == []
    assert found["standard"].row("chance").metrics == {"Spearman": 0, "Pearson": 0}
    # The interval of a correlation is about the one of Fisher's transformation.
    raw = found["standard"].row("raw")
    low, high = raw.intervals["Pearson"]
    width = 2 * 1.96 / np.sqrt(57) * (1 - raw.metrics["Pearson"] ** 2)
    assert high - low == pytest.approx(width, rel=0.3)


def test_vectors_that_are_all_equal_follow_no_grade(maker, run):
    items = maker.sentences("stsb", "test", PAIRS, scores=[0, 1, 2, 3, 5])
    maker.stream(items, "text", np.ones((6, 10)), encoder="tongue")
    found = score(maker, run)
    assert found["standard"].row("raw").metrics == {"Spearman": 0, "Pearson": 0}
    assert found["standard"].row("raw").intervals == {}
    assert found["paper"].row("raw").metrics["4-5"] == pytest.approx(1)


def test_other_grades_than_0_to_5_have_correlations_only(maker, run):
    items = maker.sentences("stsb", "test", PAIRS, scores=[0, 20, 40, 60, 100])
    maker.stream(items, "text", vectors(1), encoder="tongue")
    assert list(score(maker, run)) == ["standard"]


def test_missing_pairs_are_left_out_and_counted(maker, run):
    items = maker.sentences("stsb", "test", PAIRS, scores=[0, 1, 2, 3, 5])
    maker.stream(items, "text", vectors(1), encoder="tongue", missing=[4])
    found = score(maker, run)["standard"]
    assert (found.counts, found.excluded) == ({"pairs": 4}, {"pairs": 1})


def test_what_cannot_be_measured_is_refused_in_a_line(maker, run):
    assert not suits(maker.captions("flickr8k", "test", 2))
    assert not suits(maker.sentences("stsb", "test", PAIRS, labels=[0, 1, 0, 1, 0]))
    with pytest.raises(InputError, match="stsb/test has no pairs of sentences with graded"):
        score(maker, run)
    for pairs, grades in (([(0, 1)], [2.5]), (PAIRS, [2.5] * 5)):
        items = maker.sentences("stsb", "test", pairs, scores=grades)
        assert suits(items)
        maker.stream(items, "text", vectors(1, max(map(max, pairs)) + 1), encoder="tongue")
        with pytest.raises(InputError, match=r"all have grade 2\.5, nothing can follow it"):
            score(maker, run)


def test_results_are_kept_and_fit_a_terminal_of_80_columns(maker, tmp_path):
    items = maker.sentences("stsb", "test", PAIRS, scores=[0, 1.5, 2.5, 3.5, 5])
    maker.stream(items, "text", vectors(1), encoder="tongue")
    maker.stream(items, "text", vectors(2), encoder="quill")
    run = run_of(tmp_path / "run", [QUILL, TONGUE])
    results = evaluate_similarity(maker.cache, run, "stsb", "test", [].append)
    merge_results(tmp_path / "results", results)
    assert read_results(tmp_path / "results") == results
    console = Console(width=80, no_color=True)
    for result in results:
        with console.capture() as capture:
            console.print(table([result]))
        assert max(map(len, capture.get().splitlines())) <= 80
        assert "cbmf-add, tongue → quill" in capture.get()
    assert "| grades | 0-1 | 1-2 | 2-3 | 3-4 | 4-5 | all |" in markdown(results)


@pytest.mark.real
@pytest.mark.skipif("CBMF_REAL_DATA" not in os.environ, reason="CBMF_REAL_DATA is not set")
def test_the_floor_of_stsb_is_what_the_encoder_is_published_with(tmp_path):
    """all-MiniLM-L6-v2 has a Spearman of 82.03 on the test split (its entry in MTEB)."""
    shared = Path(os.environ["CBMF_REAL_DATA"])
    root, encoder = shared / "data" / "stsbenchmark", shared / "weights" / "all-MiniLM-L6-v2"
    words = ["precompute", "stsb", "--split", "test", "--root", root, "--text", encoder]
    script = "from cbmf.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words), "--cache", "cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    maker = Maker(tmp_path / "cache")
    stream = maker.cache.find("stsb", "test", "text")
    spec = EncoderSpec(stream.encoder, "text", "text", stream.identity, stream.width)
    found = score(maker, run_of(tmp_path / "run", [EYE, spec]))["standard"]
    assert found.counts == {"pairs": 1379}
    assert found.row("raw").metrics["Spearman"] == pytest.approx(0.8203, abs=0.001)
