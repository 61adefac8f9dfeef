import subprocess
import sys

import numpy as np
import pytest
from tiny_caches import caption_set, run_of

from cbmf.evaluate.projections import projected

pytestmark = pytest.mark.filterwarnings("ignore:.*SwigPy.*:DeprecationWarning")


def test_an_index_finds_what_exact_search_finds_and_is_kept(maker, tmp_path):
    pytest.importorskip("faiss")
    from cbmf.evaluate.faiss_index import indexed

    items = caption_set(maker, "toy", "test", 40)
    (stream,) = maker.cache.streams("toy", "test", "text")
    run = run_of(tmp_path / "run")
    rows = projected(run, run.model, 1, stream).numpy()
    queries = rows[[3, 77]]
    cosines, places = indexed(run, run.model, 1, stream, queries, 5)
    whole = queries @ rows.T
    assert (places[:, 0] == [3, 77]).all()
    assert np.allclose(cosines, -np.sort(-whole, axis=1)[:, :5], atol=1e-3)
    (kept,) = (tmp_path / "run").rglob("*.faiss.safetensors")
    before = kept.stat().st_mtime_ns
    again = indexed(run, run.model, 1, stream, queries, 5)
    assert (again[1] == places).all() and kept.stat().st_mtime_ns == before
    kept.write_bytes(kept.read_bytes()[:-7])
    healed = indexed(run, run.model, 1, stream, queries, 5)
    assert (healed[1] == places).all() and kept.stat().st_mtime_ns > before
    assert len(items.columns["text"].ids) == 200


def test_many_items_are_parted_into_lists(maker, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    from cbmf.evaluate import faiss_index

    monkeypatch.setattr(faiss_index, "FEW_ITEMS", 100)
    caption_set(maker, "toy", "test", 600)
    (stream,) = maker.cache.streams("toy", "test", "text")
    run = run_of(tmp_path / "run")
    rows = projected(run, run.model, 1, stream).numpy()
    queries = rows[::300]
    _, places = faiss_index.indexed(run, run.model, 1, stream, queries, 10)
    true = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    shared = [len(set(a) & set(b)) for a, b in zip(places, true, strict=True)]
    assert np.mean(shared) >= 9


def test_without_faiss_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "from cbmf.evaluate.faiss_index import require_faiss\n"
        "try: require_faiss()\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'cbmf[faiss]'" in done.stdout and done.stdout.count("\n") == 1
