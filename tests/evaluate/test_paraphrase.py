from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from tiny_caches import EYE, Maker, run_of
from tiny_sentences import PAIRS, QUILL, TONGUE, by_hand, embedded, vectors

from cbmf.cache.errors import InputError, StreamError
from cbmf.evaluate.binary import best_threshold
from cbmf.evaluate.paraphrase import evaluate_paraphrase, suits
from cbmf.evaluate.results import Result, merge_results, read_results
from cbmf.evaluate.tables import markdown, table


def labelled_pairs(
    maker: Maker, split: str, seed: int, count: int = 80, labels: Sequence[int] | None = None
) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """A split whose paraphrases lie nearer to each other: vectors, pairs and labels."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, count) if labels is None else np.array(labels)
    count = len(truth)
    left = random.normal(size=(count, 10))
    noise = random.normal(size=(count, 10))
    right = np.where(truth[:, None] == 1, left + noise, 0.5 * left + noise)
    pairs = [(n, count + n) for n in range(count)]
    rows = np.concatenate([left, right]).astype(np.float32)
    items = maker.sentences("mrpc", split, pairs, labels=truth.tolist())
    maker.stream(items, "text", rows, encoder="tongue")
    return rows, pairs, truth


def score(maker: Maker, run, split: str = "test") -> dict[str, Result]:
    results = evaluate_paraphrase(maker.cache, run, "mrpc", split, [].append)
    return {result.protocol: result for result in results}


@pytest.fixture
def run(tmp_path):
    return run_of(tmp_path / "run", [EYE, TONGUE])


def test_every_figure_agrees_with_scikit_learn(maker, run):
    rows, pairs, labels = labelled_pairs(maker, "test", 1)
    other, others, chosen_on = labelled_pairs(maker, "val", 2)
    found = score(maker, run)
    for kind, model in (("model", run.model), ("untrained", run.untrained), ("raw", None)):
        here = rows if model is None else embedded(model, 1, rows)
        there = other if model is None else embedded(model, 1, other)
        cosines = np.array(by_hand(here, here, pairs))
        threshold = best_threshold(np.array(by_hand(there, there, others)), chosen_on)
        got = found["standard"].row(kind).metrics
        assert got["AP"] == pytest.approx(average_precision_score(labels, cosines))
        assert got["ROC_AUC"] == pytest.approx(roc_auc_score(labels, cosines))
        assert got["threshold"] == pytest.approx(threshold, abs=1e-5)
        for protocol, limit in (("standard", threshold), ("paper", 0.9)):
            got, called = found[protocol].row(kind).metrics, cosines >= limit
            assert got["accuracy"] == pytest.approx(accuracy_score(labels, called))
            for name, number in (("dissimilar", 0), ("similar", 1)):
                for metric, theirs in (
                    ("precision", precision_score),
                    ("recall", recall_score),
                    ("F1", f1_score),
                ):
                    expected = theirs(labels, called, pos_label=number)
                    assert got[f"{name}/{metric}"] == pytest.approx(expected)
    for protocol, names in (("standard", {"AP", "ROC_AUC", "accuracy"}), ("paper", {"accuracy"})):
        row = found[protocol].row("raw")
        assert set(row.intervals) == names
        for name, (low, high) in row.intervals.items():
            assert low < row.metrics[name] < high
    assert found["paper"].counts == {"pairs": 80, "paraphrases": labels.sum()}


def test_the_majority_class_is_the_floor_of_floors(maker, run):
    labelled_pairs(maker, "test", 1, labels=[0] * 10 + [1] * 30)
    labelled_pairs(maker, "val", 2)
    found = score(maker, run)
    metrics = found["standard"].row("chance").metrics
    assert {name: metrics[name] for name in ("AP", "ROC_AUC", "accuracy", "MCC")} == {
        "AP": 0.75,
        "ROC_AUC": 0.5,
        "accuracy": 0.75,
        "MCC": 0,
    }
    assert (metrics["similar/recall"], metrics["dissimilar/recall"]) == (1, 0)
    assert found["paper"].row("chance").metrics["accuracy"] == 0.75


def test_the_threshold_is_chosen_on_val_else_train_and_never_on_the_split_itself(maker, run):
    def threshold(split: str) -> float | None:
        found = score(maker, run, split)["standard"]
        return found.row("model").metrics.get("threshold")

    def best(split: str) -> float:
        rows, pairs, labels = parts[split]
        unit = embedded(run.model, 1, rows)
        return best_threshold(np.array(by_hand(unit, unit, pairs)), labels)

    parts = {"test": labelled_pairs(maker, "test", 1)}
    alone = score(maker, run)["standard"]
    assert "accuracy" not in alone.row("model").metrics
    assert "AP" in alone.row("model").metrics
    assert "no threshold could be chosen" in alone.note
    parts["train"] = labelled_pairs(maker, "train", 2)
    assert threshold("test") == pytest.approx(best("train"), abs=1e-5)
    parts["val"] = labelled_pairs(maker, "val", 3)
    assert threshold("test") == pytest.approx(best("val"), abs=1e-5)
    assert "thresholds chosen on val" in score(maker, run)["standard"].note
    assert threshold("val") == pytest.approx(best("train"), abs=1e-5)
    assert threshold("train") == pytest.approx(best("val"), abs=1e-5)
    parts["test"] = labelled_pairs(maker, "test", 1, labels=list(1 - parts["test"][2]))
    assert threshold("test") == pytest.approx(best("val"), abs=1e-5)


def test_a_split_that_cannot_choose_is_passed_over(maker, run):
    labelled_pairs(maker, "test", 1)
    labelled_pairs(maker, "train", 2)
    labelled_pairs(maker, "val", 3, labels=[1, 1, 1])
    assert "thresholds chosen on train" in score(maker, run)["standard"].note
    maker.sentences("mrpc", "val", [*PAIRS, (6, 7)], labels=[0, 1, 0, 1, 0, 1])  # not encoded
    assert "thresholds chosen on train" in score(maker, run)["standard"].note
    run.dataset = "mrpc"
    assert "train, which the model was fitted on" in score(maker, run)["standard"].note


def test_a_floor_without_its_vectors_elsewhere_has_no_threshold(maker, tmp_path):
    items = {
        split: maker.sentences("mrpc", split, PAIRS, labels=[0, 1, 0, 1, 1])
        for split in ("test", "val")
    }
    for split in items.values():
        maker.stream(split, "text", vectors(1), encoder="tongue")
    maker.stream(items["test"], "text", vectors(2), encoder="tongue", pool="cls")
    result = score(maker, run_of(tmp_path / "run"))["standard"]
    row = {row.system: row for row in result.rows}
    assert "accuracy" in row["raw tongue, pooled"].metrics
    assert "AP" in row["raw tongue, cls"].metrics
    assert "accuracy" not in row["raw tongue, cls"].metrics
    assert "| raw tongue, cls | - | - | - | - | - | - |" in markdown([result])


def test_unlabelled_and_missing_pairs_are_left_out_and_counted(maker, run):
    labels = [0, 1, -1, 1, 0, -1]
    pairs = [(0, 1), (2, 3), (0, 3), (4, 5), (6, 7), (6, 6)]
    items = maker.sentences("mrpc", "test", pairs, labels=labels)
    rows = vectors(1, 8)
    maker.stream(items, "text", rows, encoder="tongue", missing=[4])
    found = score(maker, run)["standard"]
    assert found.counts == {"pairs": 3, "paraphrases": 1}
    assert found.excluded == {"pairs": 1, "unlabelled pairs": 2}
    cosines = by_hand(rows, rows, [(0, 1), (2, 3), (6, 7)])
    assert found.row("raw").metrics["AP"] == average_precision_score([0, 1, 0], cosines)
    shown = " ".join(markdown([found]).split())
    assert "Left out, for want of embeddings: 1 pairs." in shown
    assert "Left out: 2 unlabelled pairs." in shown


def test_vectors_that_are_all_equal_are_no_better_than_the_majority(maker, run):
    for split in ("test", "val"):
        items = maker.sentences("mrpc", split, PAIRS, labels=[0, 1, 1, 1, 0])
        maker.stream(items, "text", np.ones((6, 10)), encoder="tongue")
    found = score(maker, run)
    for row in found["standard"].rows:
        assert row.metrics["ROC_AUC"] == 0.5
        assert row.metrics["AP"] == row.metrics["accuracy"] == pytest.approx(0.6)
    assert found["paper"].row("model").metrics["similar/recall"] == 1


def test_pairs_of_a_shared_sentence_are_drawn_together(maker, run):
    """Each pair five times over tells no more, so the interval must not shrink."""
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(40, 10)), random.integers(0, 2, 20)
    pairs = [(2 * n, 2 * n + 1) for n in range(20)]
    ends = []
    for times in (1, 5):
        items = maker.sentences("mrpc", "test", pairs * times, labels=labels.tolist() * times)
        maker.stream(items, "text", rows, encoder="tongue")
        standard, paper = score(maker, run).values()
        ends.append((standard.row("raw").intervals, paper.row("raw").intervals))
    assert ends[0][0] == {name: pytest.approx(both) for name, both in ends[1][0].items()}
    assert ends[0][1] == {name: pytest.approx(both) for name, both in ends[1][1].items()}


def test_what_cannot_be_measured_is_refused_in_a_line(maker, run, tmp_path):
    graded = maker.sentences("mrpc", "test", PAIRS, scores=[1, 2, 3, 4, 5])
    assert not suits(graded)
    assert not suits(maker.captions("flickr8k", "test", 2))
    assert not suits(maker.sentences("mrpc", "test", PAIRS, labels=[-1] * 5))
    with pytest.raises(InputError, match="mrpc/test has no pairs of sentences labelled"):
        score(maker, run)
    one_class = maker.sentences("mrpc", "test", PAIRS, labels=[1, 1, -1, 1, 1])
    assert suits(one_class)
    with pytest.raises(StreamError, match="text encoder tongue"):
        score(maker, run)
    maker.stream(one_class, "text", vectors(1), encoder="tongue")
    with pytest.raises(InputError, match="its 4 labelled and encoded pairs are all of class 1"):
        score(maker, run)
    one_pair = maker.sentences("mrpc", "test", [(0, 1)], labels=[0])
    maker.stream(one_pair, "text", vectors(1, 2), encoder="tongue")
    with pytest.raises(InputError, match="all of class 0"):
        score(maker, run)
    none = maker.sentences("mrpc", "test", [(0, 1), (2, 3)], labels=[0, 1])
    maker.stream(none, "text", vectors(1, 4), encoder="tongue", missing=[1, 2])
    with pytest.raises(InputError, match="of its 2 pairs of sentences none can be used"):
        score(maker, run)
    seeing = run_of(tmp_path / "seeing", [EYE, EYE.__class__(**{**vars(EYE), "name": "lens"})])
    with pytest.raises(InputError, match="has no text encoder"):
        score(maker, seeing)


def test_results_are_kept_and_fit_a_terminal_of_80_columns(maker, tmp_path):
    items = {
        split: maker.sentences("mrpc", split, PAIRS, labels=[0, 1, 0, 1, 1])
        for split in ("test", "val")
    }
    for split in items.values():
        maker.stream(split, "text", vectors(1), encoder="tongue")
        maker.stream(split, "text", vectors(2), encoder="quill")
    run = run_of(tmp_path / "run", [QUILL, TONGUE])
    results = evaluate_paraphrase(maker.cache, run, "mrpc", "test", [].append)
    merge_results(tmp_path / "results", results)
    assert read_results(tmp_path / "results") == results
    console = Console(width=80, no_color=True)
    for result in results:
        with console.capture() as capture:
            console.print(table([result]))
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].startswith("paraphrase: mrpc/test, quill with tongue")
        assert any(line.startswith("  cbmf-add, quill") for line in lines)
        heads = [line.split()[-1] for line in lines if line.endswith("F1₁")]
        assert heads == ["F1₁"]
    assert "threshold |" not in markdown(results)
