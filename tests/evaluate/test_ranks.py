import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbmf.evaluate.ranks import (
    Relation,
    best_ranks,
    chance_recall,
    mean_reciprocal_rank,
    median_rank,
    recall_at,
)


def relation(*rows: list[int]) -> Relation:
    offsets = np.cumsum([0, *map(len, rows)])
    return Relation(offsets, np.array([c for row in rows for c in row], np.int64))


def slow_ranks(scores: np.ndarray, positives: Relation, ignored: Relation | None = None):
    """Mean rank of the first positive over the orders of ties, one query at a time."""
    ranks = []
    for q, row in enumerate(scores):
        own = set(positives.columns[positives.offsets[q] : positives.offsets[q + 1]].tolist())
        out = set()
        if ignored is not None:
            out = set(ignored.columns[ignored.offsets[q] : ignored.offsets[q + 1]].tolist())
        best = max(row[c] for c in own)
        tied = sum(row[c] == best for c in own)
        rank = 1
        ties = 0
        for c, score in enumerate(row):
            if c not in own and c not in out:
                rank += score > best
                ties += score == best
        ranks.append(rank + -(-ties // (tied + 1)))
    return np.array(ranks)


def random_case(queries: int, candidates: int, seed: int = 0):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, queries)
    rows = [sorted(random.choice(candidates, n, replace=False).tolist()) for n in counts]
    q, c = (torch.from_numpy(random.normal(size=(n, 7))).float() for n in (queries, candidates))
    return F.normalize(q, dim=1), F.normalize(c, dim=1), relation(*rows)


def test_ranks_of_a_hand_made_matrix():
    scores = torch.tensor(
        [
            [0.9, 0.1, 0.3, 0.2],  # positive 0 is first
            [0.9, 0.1, 0.3, 0.2],  # positive 1 is last
            [0.4, 0.8, 0.6, 0.2],  # positives 0 and 2: the better one is second
        ]
    )
    ranks = best_ranks(scores, torch.eye(4), relation([0], [1], [0, 2]))
    assert ranks.tolist() == [1, 4, 2]
    assert recall_at(ranks, 1) == pytest.approx(1 / 3)
    assert recall_at(ranks, 2) == pytest.approx(2 / 3)
    assert median_rank(ranks) == 2
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 16, 31, 64, 1000])
def test_blocks_of_any_size_give_the_ranks_of_the_whole_matrix(block):
    queries, candidates, positives = random_case(31, 47)
    expected = slow_ranks((queries @ candidates.T).numpy(), positives)
    assert best_ranks(queries, candidates, positives, block=block).tolist() == expected.tolist()


def test_tied_negatives_push_back_by_what_a_random_order_would():
    scores = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.7, 0.1]])
    # one positive among three equal negatives: 1 + 3/2, rounded up
    assert best_ranks(scores, torch.eye(5), relation([0], [0])).tolist() == [3, 3]
    # two positives in a tie with two negatives: 1 + 2/3, rounded up
    assert best_ranks(scores[:1], torch.eye(5), relation([0, 1])).tolist() == [2]
    # a lesser positive does not help in the tie
    assert best_ranks(scores[:1], torch.eye(5), relation([0, 4])).tolist() == [3]


def test_ties_agree_with_the_mean_over_random_orders():
    random = np.random.default_rng(3)
    own, negatives = 3, 8
    firsts = [random.permutation(own + negatives)[:own].min() + 1 for _ in range(20_000)]
    same = torch.ones(1, 4) / 2
    rank = best_ranks(same, same.expand(own + negatives, 4), relation([0, 1, 2]))[0]
    assert rank == np.ceil(np.mean(firsts).round(1))


@pytest.mark.parametrize("block", [5, 64])
def test_embeddings_all_alike_get_the_rank_of_guessing(block):
    direction = F.normalize(torch.randn(1, 33, generator=torch.Generator().manual_seed(0)), dim=1)
    queries, candidates = direction.repeat(20, 1), direction.repeat(100, 1)
    positives = relation(*([i * 5 + j for j in range(5)] for i in range(20)))
    ranks = best_ranks(queries, candidates, positives, block=block)
    assert set(ranks.tolist()) == {1 + -(-95 // 6)}
    assert recall_at(ranks, 1) == 0


def test_copies_of_a_candidate_tie_wherever_they_lie():
    queries, candidates, _ = random_case(40, 64)
    twice = torch.cat([candidates, candidates])  # candidate c and its copy c + 64
    own = np.random.default_rng(1).integers(0, 64, 40)
    alone = best_ranks(queries, candidates, relation(*([c] for c in own)))
    for block in (1, 10, 64, 200):
        ranks = best_ranks(queries, twice, relation(*([c] for c in own)), block=block)
        # the 2 (rank - 1) copies of better ones come before, and the own copy ties: 1/2, up
        assert ranks.tolist() == (1 + 2 * (alone - 1) + 1).tolist()


@pytest.mark.parametrize("block", [4, 100])
def test_ignored_candidates_count_for_nothing(block):
    queries, _, _ = random_case(30, 30)
    positives = relation(*([(i + 1) % 30] for i in range(30)))
    ignored = Relation(np.arange(31), np.arange(30))  # itself, with cosine 1
    expected = slow_ranks((queries @ queries.T).numpy(), positives, ignored)
    ranks = best_ranks(queries, queries, positives, ignored, block=block)
    assert ranks.tolist() == expected.tolist()
    assert (best_ranks(queries, queries, positives) == ranks + 1).all()


def test_only_sense_is_ranked():
    queries, candidates, positives = random_case(4, 6)
    with pytest.raises(ValueError, match="finite"):
        best_ranks(queries * torch.nan, candidates, positives)
    with pytest.raises(ValueError, match="at least one positive"):
        best_ranks(queries, candidates, relation([0], [], [1], [2]))
    with pytest.raises(ValueError, match="same width"):
        best_ranks(queries, candidates[:, :3], positives)
    with pytest.raises(ValueError, match="beyond"):
        best_ranks(queries, candidates, relation([0], [1], [2], [6]))
    with pytest.raises(ValueError, match="4 queries"):
        best_ranks(queries, candidates, relation([0], [1]))


def test_a_relation_of_pairs_counts_each_pair_once():
    found = Relation.of_pairs(np.array([2, 0, 2, 2]), np.array([5, 1, 3, 5]), 4)
    assert found.offsets.tolist() == [0, 1, 1, 3, 3]
    assert found.columns.tolist() == [1, 3, 5]


def test_chance_is_what_random_orders_give():
    positives, total, k = np.array([1, 5, 2, 5]), 40, 10
    random = np.random.default_rng(0)
    hits = [
        np.mean([random.permutation(total)[:n].min() < k for n in positives]) for _ in range(4000)
    ]
    assert chance_recall(positives, np.full(4, total), k) == pytest.approx(np.mean(hits), abs=0.01)


def test_chance_in_closed_form():
    one = np.array([1])
    assert chance_recall(one, np.array([50]), 5) == pytest.approx(0.1)
    assert chance_recall(np.array([5]), np.array([10]), 5) == pytest.approx(1 - 1 / 252)
    assert chance_recall(np.array([2]), np.array([4]), 3) == 1  # four places, three looked at
    assert chance_recall(one, np.array([3]), 10) == 1
