"""The benchmarks take runs of the peer methods as they take any other."""

import numpy as np
import pytest
from tiny_caches import caption_set, class_set

from cbmf.evaluate.suite import evaluate
from cbmf.train.config import preset
from cbmf.train.fit import fit

PEERS = {
    "fusemix": ("FuseMix", {"blocks": 1, "width": 8, "projection_dropout": 0.0, "batch_size": 16}),
    "csa": ("CSA", {}),
    "asif": ("ASIF", {}),
}


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr("cbmf.train.fit.draw_run", lambda run, floor: (run / "curves.png").touch())


@pytest.mark.usefixtures("undrawn", "no_curves")
@pytest.mark.parametrize("method", PEERS)
def test_a_peer_is_scored_on_pairs_and_on_labelled_images(maker, tmp_path, method):
    name, options = PEERS[method]
    for seed, split in enumerate(("train", "val", "test")):
        caption_set(maker, "toy", split, 60, seed=seed)
        class_set(maker, "animals", split, per_class=6, seed=seed)
    run = fit(maker.cache, preset(method, **options), out=tmp_path / "run", dataset="toy")
    found = evaluate(maker.cache, run, ["retrieval", "linear", "fine-tune"], fine_tune_epochs=2)
    by_benchmark = {}
    for result in found.results:
        by_benchmark.setdefault(result.benchmark, result)
    assert set(by_benchmark) == {"retrieval", "linear", "fine-tune"}
    row = by_benchmark["retrieval"].row("model")
    chance = by_benchmark["retrieval"].row("chance")
    assert row.system == name
    assert row.metrics["text_to_image/R@10"] > 1.3 * chance.metrics["text_to_image/R@10"]
    kinds = {row.kind for result in found.results for row in result.rows}
    assert ("untrained" in kinds) == (method == "fusemix")  # before it is solved it is nothing
    for result in found.results:
        assert all(np.isfinite(list(row.metrics.values())).all() for row in result.rows)
    again = evaluate(maker.cache, run, ["retrieval", "linear", "fine-tune"], fine_tune_epochs=2)
    assert again.kept == len(again.results) == len(found.results)
