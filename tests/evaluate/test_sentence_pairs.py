from pathlib import Path

import numpy as np
import pytest
from tiny_caches import EYE, Maker, run_of
from tiny_sentences import PAIRS, QUILL, TONGUE, by_hand, embedded, text_encoder, vectors

from cbmf.cache.items import Items, Pairs
from cbmf.evaluate.sentence_pairs import Scored, connected, prepare, scored
from cbmf.train.aligner import EncoderSpec
from cbmf.train.run import Run


def all_scored(maker: Maker, run: Run, items: Items) -> dict[str, Scored]:
    assert items.pairs is not None
    pairs = prepare(maker.cache, items, run, np.zeros(len(items.pairs.rows)))
    return {found.system: found for found in scored(maker.cache, run, pairs, [].append)}


def test_every_system_compares_within_an_encoder_and_across_two(maker, tmp_path, monkeypatch):
    monkeypatch.setattr("cbmf.evaluate.sentence_pairs.PAIRS_AT_ONCE", 2)
    items = maker.sentences("qqp", "test", PAIRS)
    quill, tongue = vectors(1), vectors(2)
    maker.stream(items, "text", quill, encoder="quill")
    maker.stream(items, "text", tongue, encoder="tongue")
    run = run_of(tmp_path / "run", [QUILL, TONGUE])
    found = all_scored(maker, run, items)
    models = {
        "cbmf-add": run.model,
        "linear heads": run.baselines["linear"],
        "cbmf-add, untrained": run.untrained,
    }
    expected = {}
    for name, model in models.items():
        one, two = embedded(model, 0, quill), embedded(model, 1, tongue)
        expected[f"{name}, quill"] = by_hand(one, one, PAIRS)
        expected[f"{name}, tongue"] = by_hand(two, two, PAIRS)
        expected[f"{name}, quill → tongue"] = by_hand(one, two, PAIRS)
        if name == "cbmf-add":
            expected[f"{name}, tongue → quill"] = by_hand(two, one, PAIRS)
    expected["raw quill, pooled"] = by_hand(quill, quill, PAIRS)
    expected["raw tongue, pooled"] = by_hand(tongue, tongue, PAIRS)
    assert list(found) == list(expected)
    for name, cosines in expected.items():
        assert found[name].cosines == pytest.approx(cosines, abs=1e-5)
    kinds = [scores.kind for scores in found.values()]
    assert kinds == ["model"] * 4 + ["baseline"] * 3 + ["untrained"] * 3 + ["raw"] * 2


def test_a_run_with_one_text_encoder_compares_within_it(maker, tmp_path):
    items = maker.sentences("qqp", "test", PAIRS)
    maker.stream(items, "text", vectors(2), encoder="tongue")
    run = run_of(tmp_path / "run", [EYE, TONGUE])
    names = ["cbmf-add", "linear heads", "cbmf-add, untrained"]
    assert list(all_scored(maker, run, items)) == [
        *(f"{name}, tongue" for name in names),
        "raw tongue, pooled",
    ]
    run.alone = True
    assert list(all_scored(maker, run, items)) == ["cbmf-add, tongue"]


def test_there_is_a_floor_for_every_pooling_of_the_encoder(maker, tmp_path):
    items = maker.sentences("qqp", "test", PAIRS)
    mean, first, pooler = vectors(1), vectors(2), vectors(3)
    maker.stream(items, "text", mean, encoder="quill", pool="mean")
    maker.stream(items, "text", mean, encoder="quill", pool="mean", dtype="float16")
    maker.stream(items, "text", first, encoder="quill", pool="cls")
    maker.stream(items, "text", pooler, encoder="quill", pool="pooler")
    maker.stream(items, "text", vectors(4), encoder="quill#other weights", pool="cls+mean")
    maker.stream(items, "text", vectors(5), encoder="tongue", pool="mean")
    maker.stream(items, "text", vectors(6), encoder="tongue", pool="cls", missing=[3])
    maker.stream(
        Maker(maker.root, shard_rows=2).sentences("qqp", "test", PAIRS),
        "text",
        vectors(7),
        encoder="tongue",
        pool="pooler",
        finish=False,
    )
    run = run_of(tmp_path / "run", [text_encoder("quill", "mean"), text_encoder("tongue", "mean")])
    found = all_scored(maker, run, items)
    raw = {name: scores.cosines for name, scores in found.items() if scores.kind == "raw"}
    assert sorted(raw) == [
        "raw quill, cls",
        "raw quill, mean",
        "raw quill, pooler",
        "raw tongue, mean",
    ]
    assert raw["raw quill, cls"] == pytest.approx(by_hand(first, first, PAIRS), abs=1e-6)
    assert raw["raw quill, pooler"] == pytest.approx(by_hand(pooler, pooler, PAIRS), abs=1e-6)


def test_the_first_token_stands_in_for_a_cls_stream(tmp_path: Path):
    maker = Maker(tmp_path / "cache", shard_rows=4)
    items = maker.sentences("qqp", "test", PAIRS)
    lengths = [2, 3, 1, 4, 2, 2]
    tokens = vectors(3, sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    maker.stream(items, "text", tokens, encoder="quill", pool="mean", lengths=lengths)
    maker.stream(items, "text", vectors(2), encoder="tongue", pool="mean")
    encoders = [text_encoder("quill", "mean"), text_encoder("tongue", "mean")]
    run = run_of(tmp_path / "run", encoders)
    found = all_scored(maker, run, items)
    first = tokens[starts]
    assert found["raw quill, cls"].cosines == pytest.approx(by_hand(first, first, PAIRS), abs=1e-6)
    mean = np.array([part.mean(0) for part in np.split(tokens, starts[1:])])
    assert found["raw quill, mean"].cosines == pytest.approx(by_hand(mean, mean, PAIRS), abs=1e-6)
    maker.stream(items, "text", vectors(9), encoder="quill", pool="cls")
    found = all_scored(maker, run, items)
    own = by_hand(vectors(9), vectors(9), PAIRS)  # a stream of CLS vectors comes first
    assert found["raw quill, cls"].cosines == pytest.approx(own, abs=1e-6)
    assert len([name for name in found if name == "raw quill, cls"]) == 1


def test_one_encoder_pooled_in_two_ways_has_each_floor_once(maker, tmp_path):
    items = maker.sentences("qqp", "test", PAIRS)
    maker.stream(items, "text", vectors(1), encoder="quill", pool="mean")
    maker.stream(items, "text", vectors(2), encoder="quill", pool="cls")
    mean, cls = text_encoder("quill", "mean"), text_encoder("quill", "cls")
    renamed = EncoderSpec("quill-cls", "text", "text", cls.identity, cls.width)
    found = all_scored(maker, run_of(tmp_path / "run", [mean, renamed]), items)
    assert [name for name in found if name.startswith("raw")] == [
        "raw quill, mean",
        "raw quill, cls",
    ]


def test_sides_of_two_columns_are_kept_apart(maker, tmp_path):
    one = maker.sentences("own", "test", PAIRS).column("text")
    pairs = Pairs("text", "other", np.array(PAIRS))
    items = maker.put(Items("own", "test", {"text": one, "other": one}, pairs))
    left, right = vectors(1), vectors(2)
    maker.stream(items, "text", left, encoder="tongue")
    maker.stream(items, "other", right, encoder="tongue")
    run = run_of(tmp_path / "run", [EYE, TONGUE])
    found = all_scored(maker, run, items)
    assert found["raw tongue, pooled"].cosines == pytest.approx(
        by_hand(left, right, PAIRS), abs=1e-6
    )
    rows = embedded(run.model, 1, left), embedded(run.model, 1, right)
    assert found["cbmf-add, tongue"].cosines == pytest.approx(by_hand(*rows, PAIRS), abs=1e-5)


def test_pairs_that_sentences_connect_are_one_unit():
    rows = np.array([(0, 1), (2, 3), (1, 4), (5, 5), (3, 6), (7, 8)])
    assert connected(rows, one_column=True).tolist() == [0, 1, 0, 2, 1, 3]
    # In two columns a row number of the left is another sentence than that of the right.
    assert connected(np.array([(0, 1), (1, 0), (0, 2)]), one_column=False).tolist() == [0, 1, 0]
