"""The benchmarks run, and tell what they measured: every row, in the table and in the JSON.

Of the topics but `evaluate`, which runs all of the demo's benchmarks several times over.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbmf.cache.catalog import Cache

ROOT = Path(__file__).parents[2]
ROWS = {
    "cache": [
        "read pooled, Stream.blocks", "read pooled, Bank.from_stream", "write pooled, write_shard",
        "read tokens, Stream.blocks", "read tokens, Bank.from_stream", "write tokens, write_shard",
    ],
    "precompute": ["precompute images, demo-vit", "precompute texts, demo-bert"],
    "fit": [
        "fit, pooled", "fit as released, pooled", "fit as released, tokens",
        "time to equal recall in validation, pooled", "fit per operation, pooled",
        "an epoch from the cache, pooled", "arithmetic of a fit, pooled, float32",
        "arithmetic of a fit, tokens, float32", "arithmetic of a fit, tokens, bfloat16",
        "start of cbmf fit on a small cache",
    ],
    "scale": [
        "fit, resident, 16x items, time", "fit, resident, 16x items, peak memory",
        "retrieval of a tenth of the items, 4x items, time",
        "plan of a precompute, 16x items, peak memory",
    ],
}  # fmt: skip


def run(module, *words):
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(printed):
    """Cells of the table's lines, headings apart."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("topic", ROWS)
def test_every_row_of_a_topic_is_printed_and_kept_with_its_rounds(topic, tmp_path):
    path = tmp_path / "found.json"
    printed = table(run("run", topic, "--small", "--json", path, "--work", tmp_path))
    report = json.loads(path.read_text())
    kept = report["topics"][topic]
    assert report["machine"]["cpus"] == os.cpu_count()
    assert [row["what"] for row in kept] == [cells[0] for cells in printed]
    assert set(ROWS[topic]) <= {row["what"] for row in kept}
    for row, cells in zip(kept, printed, strict=True):
        assert len(cells) == 6 and row["unit"] in cells[1]
        values = [*row["ours"], *row["other"], *row.get("ratios", [])]
        assert all(math.isfinite(value) and value >= 0 for value in values)
        assert bool(row["other"]) == bool(cells[3])
    assert sorted(tmp_path.iterdir()) == [path]  # nothing is left behind


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_any_machine(tmp_path):
    path = tmp_path / "gpu.json"
    printed = run("gpu", "--small", "--json", path, "--work", tmp_path)
    assert "profile of at most 20 steps, pooled" in printed and "aten::" in printed
    names = [row["what"] for row in json.loads(path.read_text())["topics"]["gpu"]]
    assert names[0] == "fit of COCO's size, pooled"
    assert any(name.startswith("arithmetic of a fit, tokens") for name in names)


def test_interleaved_subjects_take_turns_and_the_first_round_does_not_count():
    code = (
        "import json; from benchmarks.timing import *; done = []; "
        "subjects = [Subject(n, lambda n=n: done.append(n) or 0.5, 2.0) for n in 'ab']; "
        "seconds = interleaved(subjects, 2); "
        "row = compared('w', *subjects, seconds, 'items/s'); "
        "print(json.dumps([done, seconds, row.ours, row.ratios]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    order, seconds, ours, ratios = json.loads(done.stdout)
    assert order == list("ababab")
    assert seconds == {"a": [0.5, 0.5], "b": [0.5, 0.5]}
    assert (ours, ratios) == ([4.0, 4.0], [1.0, 1.0])


def test_costs_and_rates_are_told_so_that_more_than_1_is_in_our_favour():
    code = (
        "from benchmarks.timing import *; "
        "print(Row('r', 'x/s', [4.0], [2.0]).ratios, "
        "Row('c', 's', [2.0], [4.0], fewer_is_better=True).ratios)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[2.0]", "[2.0]"]


def test_a_generated_cache_is_one_that_can_be_fitted(tmp_path):
    code = (
        "import sys; from pathlib import Path; from benchmarks.generated import *; "
        "write_cache(Path(sys.argv[1]), Size(40, captions=2.5, width=16, image_tokens=4, "
        "text_tokens=6), {'train': 1, 'val': 0.5})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    cache = Cache(tmp_path)
    items = cache.items("generated", "train")
    assert items.pairs is not None and len(items.pairs.rows) == 100
    image, text = (cache.find("generated", "train", c, layout="tokens") for c in ("image", "text"))
    assert (len(image), image.token_count) == (40, 160)
    lengths = [n for block in text.blocks() for n in (block.offsets[1:] - block.offsets[:-1])]
    assert len(lengths) == 100 and 3 <= min(lengths) <= max(lengths) <= 9
