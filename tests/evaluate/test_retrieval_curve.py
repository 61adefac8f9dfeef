import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from tiny_caches import caption_set, run_of

from cbmf.evaluate.projection import project
from cbmf.evaluate.retrieval_curve import evaluate_curve
from cbmf.evaluate.suite import silent


def test_candidates_are_of_all_splits_and_the_curve_is_that_of_the_whole_matrix(maker, tmp_path):
    for split, images, seed in (("train", 60, 0), ("test", 30, 1)):
        caption_set(maker, "toy", split, images, seed)
    run = run_of(tmp_path / "run")
    result = evaluate_curve(maker.cache, run, "toy", "test", silent)
    assert result.axis == [100.0, 200.0, 300.0, 400.0]
    assert result.counts["candidates image → text"] == 450
    assert result.counts["candidates text → image"] == 90
    image = project(run.model, 0, maker.cache.find("toy", "test", "image"))
    pool = [project(run.model, 1, maker.cache.find("toy", s, "text")) for s in ("test", "train")]
    scores = (image @ torch.cat(pool).T).numpy()  # (30, 450), the first 150 are the test's
    own = np.zeros((30, 450), bool)
    own[np.repeat(np.arange(30), 5), np.arange(150)] = True
    ranks = np.array([own[q][np.argsort(-scores[q])].argmax() for q in range(30)])
    curve = result.row("model").curves["image_to_text"]
    assert curve == [float((ranks < k).mean()) for k in (100, 200, 300, 400)]
    luck = hypergeom(450, 5, 100).sf(0)  # any of the five partners among 100 of 450
    assert result.row("chance").curves["image_to_text"][0] == pytest.approx(luck)


def test_a_split_that_is_not_encoded_alike_gives_no_candidates(maker, tmp_path):
    caption_set(maker, "toy", "test", 30)
    maker.captions("toy", "train", 10)  # items without embeddings
    result = evaluate_curve(maker.cache, run_of(tmp_path / "run"), "toy", "test", silent)
    assert result.counts["candidates image → text"] == 150


def test_memory_of_ranking_is_flat_in_the_number_of_candidates():
    script = """
import json, resource, sys
import numpy as np, torch
from cbmf.evaluate.ranks import Relation, best_ranks
queries, candidates = int(sys.argv[1]), int(sys.argv[2])
with torch.no_grad():
    one = torch.nn.functional.normalize(torch.randn(queries, 16), dim=1)
    two = torch.nn.functional.normalize(torch.randn(candidates, 16), dim=1)
    own = Relation.of_pairs(np.arange(queries), np.arange(queries), queries)
    best_ranks(one[:64], two[:64], Relation.of_pairs(np.arange(64), np.arange(64), 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best_ranks(one, two, own)
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))
"""

    def grown(queries: int, candidates: int) -> int:
        words = [sys.executable, "-c", script, str(queries), str(candidates)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        return json.loads(done.stdout)

    whole_matrix = 8_000 * 40_000 * 4
    small, large = grown(8_000, 8_000), grown(8_000, 40_000)
    assert large < whole_matrix / 8
    assert large < small + 64 * 2**20
