import numpy as np
import pytest
import torch
from tiny_caches import EYE, TONGUE, Maker, caption_set, column, run_of, spec_of
from torch.nn import functional as F

from cbmf.cache.errors import CacheError, InputError, StreamError
from cbmf.cache.items import Items, Pairs
from cbmf.evaluate.projection import project
from cbmf.evaluate.retrieval import evaluate_retrieval
from cbmf.evaluate.suite import silent
from cbmf.train.linear import LinearHeads


def score(maker: Maker, run, dataset: str = "toy", split: str = "test"):
    return evaluate_retrieval(maker.cache, run, dataset, split, silent)


def embed(model, encoder: int, vectors: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(vectors)[:, None]
    with torch.no_grad():
        return model.encode(encoder, values, torch.ones(values.shape[:2], dtype=torch.bool))


def slow_metrics(scores: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """R@k, median rank and MRR by sorting each row whole. own: (Q, C) bool."""
    ranks = np.array([own[q][np.argsort(-scores[q])].argmax() + 1 for q in range(len(scores))])
    found = {f"R@{k}": (ranks <= k).mean() for k in (1, 5, 10)}
    return {**found, "median_rank": np.median(ranks), "MRR": (1 / ranks).mean()}


@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_metrics_of_every_system_agree_with_sorting_the_whole_matrix(maker, tmp_path, layout):
    items = maker.captions("toy", "test", 30)
    random = np.random.default_rng(0)
    lengths = {"image": [3] * 30, "text": random.integers(1, 6, 150)}
    streams = {
        name: maker.stream(
            items,
            name,
            random.normal(size=(sum(lengths[name]), spec.width)),
            encoder=spec.name,
            lengths=lengths[name],
        )
        for name, spec in (("image", EYE), ("text", TONGUE))
    }
    run = run_of(tmp_path / "run", layout=layout)
    result = score(maker, run)
    own = np.arange(30)[:, None] == np.repeat(np.arange(30), 5)[None]  # (30, 150)
    models = {"baseline": run.baselines["linear"], "model": run.model, "untrained": run.untrained}
    for kind, model in models.items():
        if model.layout == "pooled":
            image, text = (embed(model, i, streams[n].pooled()) for i, n in enumerate(streams))
        else:
            image, text = (project(model, i, streams[n]) for i, n in enumerate(streams))
        scores = (image @ text.T).numpy()
        got = result.row(kind).metrics
        for way, expected in (
            ("image_to_text", slow_metrics(scores, own)),
            ("text_to_image", slow_metrics(scores.T, own.T)),
        ):
            assert {k: got[f"{way}/{k}"] for k in expected} == pytest.approx(expected)
    assert [row.kind for row in result.rows] == ["model", "baseline", "untrained", "chance"]
    assert result.counts == {"images": 30, "texts": 150, "pairs": 150}


def test_heads_that_undo_the_encoders_retrieve_everything(maker, tmp_path):
    items = maker.captions("toy", "test", 8)
    hot = np.eye(12)[:8]
    turned = np.eye(10)[::-1][np.arange(40) // 5]
    maker.stream(items, "image", hot, encoder="eye")
    maker.stream(items, "text", turned, encoder="tongue")
    run = run_of(tmp_path / "run")
    linear = run.baselines["linear"]
    with torch.no_grad():
        matrices = (np.eye(8, 12), np.eye(10)[::-1][:8].copy())
        for number, matrix in enumerate(matrices):
            linear.get_parameter(f"heads.{number}.weight").copy_(torch.from_numpy(matrix))
            linear.get_parameter(f"heads.{number}.bias").zero_()
    row = score(maker, run).row("baseline")
    for way in ("image_to_text", "text_to_image"):
        assert row.metrics[f"{way}/R@1"] == row.metrics[f"{way}/MRR"] == 1
        assert row.metrics[f"{way}/median_rank"] == 1
        assert row.intervals[f"{way}/R@1"] == (1, 1)


def test_a_model_that_makes_all_alike_scores_no_better_than_chance(maker, tmp_path):
    caption_set(maker, "toy", "test", 40)
    run = run_of(tmp_path / "run")
    with torch.no_grad():
        for number in (0, 1):
            run.baselines["linear"].get_parameter(f"heads.{number}.weight").zero_()
            run.baselines["linear"].get_parameter(f"heads.{number}.bias").fill_(1)
    result = score(maker, run)
    alike, chance = result.row("baseline").metrics, result.row("chance").metrics
    assert all(alike[name] <= value for name, value in chance.items())
    assert alike["text_to_image/median_rank"] == 1 + 20  # 39 equal negatives: half, rounded up


def test_chance_is_the_closed_form(maker, tmp_path):
    caption_set(maker, "toy", "test", 20)
    chance = score(maker, run_of(tmp_path / "run")).row("chance").metrics
    assert chance["text_to_image/R@5"] == pytest.approx(5 / 20)
    missed = np.prod([(100 - 10 - j) / (100 - j) for j in range(5)])
    assert chance["image_to_text/R@10"] == pytest.approx(1 - missed)
    assert set(chance) == {
        f"{w}/R@{k}" for w in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }


def test_pairs_with_a_missing_item_are_dropped_and_counted(maker, tmp_path):
    items = maker.captions("toy", "test", 10)
    random = np.random.default_rng(0)
    image, text = random.normal(size=(10, 12)), random.normal(size=(50, 10))
    pictures = maker.stream(items, "image", image, encoder="eye", missing=[3])
    captions = maker.stream(items, "text", text, encoder="tongue", missing=[0, 16, 17, 49])
    run = run_of(tmp_path / "run")
    result = score(maker, run)
    # image 3 takes its captions 15..19 with it, two of which are missing anyway
    assert result.excluded == {"pairs": 7}
    assert result.counts == {"images": 9, "texts": 43, "pairs": 43}
    left = np.delete(np.arange(10), 3)
    right = np.array([r for r in range(50) if r // 5 != 3 and r not in (0, 49)])
    scores = embed(run.model, 0, pictures.pooled()) @ embed(run.model, 1, captions.pooled()).T
    kept = np.isin(captions.rows, right)
    own = left[:, None] == (right // 5)[None]
    expected = slow_metrics(scores.numpy()[:, kept], own)
    got = result.row("model").metrics
    assert {k: got[f"image_to_text/{k}"] for k in expected} == pytest.approx(expected)


def test_another_run_of_the_same_gives_the_same(maker, tmp_path):
    caption_set(maker, "toy", "test", 25)
    first, second = (score(maker, run_of(tmp_path / "run")) for _ in range(2))
    assert first.rows == second.rows
    low, high = first.row("model").intervals["text_to_image/R@5"]
    assert low < first.row("model").metrics["text_to_image/R@5"] < high


def twins(maker: Maker, pairs: list[tuple[int, int]], count: int, **more) -> Items:
    rows = np.array(pairs, np.int64)
    items = Items(
        "twins",
        "test",
        {"text": column("text", [f"t{i}" for i in range(count)])},
        Pairs("text", "text", rows, **more),
    )
    return maker.put(items)


A, B = spec_of("tongue", "text", "text"), spec_of("lip", "text", "text")


def twin_streams(maker: Maker, items: Items, count: int):
    latent = np.random.default_rng(1).normal(size=(count // 2, 10)).repeat(2, 0)
    blur = np.random.default_rng(2).normal(size=(2, count, 10))
    one = maker.stream(items, "text", latent + 0.1 * blur[0], encoder="tongue")
    two = maker.stream(items, "text", latent + 0.1 * blur[1], encoder="lip")
    return one, two


def test_within_one_column_the_query_is_no_candidate_and_raw_floors_stand_beside(maker, tmp_path):
    items = twins(maker, [(i, i + 1) for i in range(0, 20, 2)], 20)
    one, _ = twin_streams(maker, items, 20)
    result = score(maker, run_of(tmp_path / "run", (A, B), "twins"), "twins")
    raw = [row for row in result.rows if row.kind == "raw"]
    assert [row.system for row in raw] == ["raw tongue", "raw lip"]
    # twins lie close together in each encoder's own space: all are found, both ways round
    for row in raw:
        assert row.metrics["left_to_right/R@1"] == row.metrics["right_to_left/R@1"] == 1
    assert result.encoders == {"left": "tongue", "right": "lip"}
    assert result.counts == {"left items": 20, "right items": 20, "pairs": 10}
    chance = result.row("chance").metrics
    assert chance["left_to_right/R@1"] == pytest.approx(1 / 19)  # itself is no candidate
    rows = F.normalize(torch.from_numpy(one.pooled()), dim=1)
    near = (rows @ rows.T - 2 * torch.eye(20)).argmax(1)
    assert near.tolist() == [i ^ 1 for i in range(20)]


def test_an_item_paired_with_itself_is_its_own_partner(maker, tmp_path):
    items = twins(maker, [(i, i) for i in range(12)], 12)
    twin_streams(maker, items, 12)
    result = score(maker, run_of(tmp_path / "run", (A, B), "twins"), "twins")
    for row in result.rows:
        if row.kind == "raw":  # the same vector on both sides
            assert row.metrics["left_to_right/R@1"] == 1
    assert result.row("chance").metrics["left_to_right/R@1"] == pytest.approx(1 / 12)


def test_labelled_pairs_count_where_the_label_is_one(maker, tmp_path):
    labels = np.array([1, 0, 1, 1, 0])
    items = twins(maker, [(0, 1), (0, 4), (2, 3), (4, 5), (6, 7)], 8, labels=labels)
    twin_streams(maker, items, 8)
    result = score(maker, run_of(tmp_path / "run", (A, B), "twins"), "twins")
    assert result.counts == {"left items": 6, "right items": 6, "pairs": 3}


def test_what_cannot_be_retrieved_is_refused_in_a_line(maker, tmp_path):
    run = run_of(tmp_path / "run")
    twin_streams(maker, graded := twins(maker, [(0, 1)], 4, scores=np.array([3.5])), 4)
    with pytest.raises(InputError, match="twins/test has no pairs that belong together"):
        score(maker, run, graded.dataset)
    matched = twins(maker, [(0, 1)], 4)
    with pytest.raises(InputError, match=r"text with text.*aligns eye \(image\), tongue \(text\)"):
        score(maker, run, matched.dataset)
    items = maker.captions("toy", "test", 2)
    maker.stream(items, "image", np.ones((2, 12)), encoder="eye", missing=[0])
    maker.stream(items, "text", np.ones((10, 10)), encoder="tongue", missing=[5, 6, 7, 8, 9])
    with pytest.raises(InputError, match="none of its 10 pairs has both items"):
        score(maker, run)


def test_streams_of_another_encoder_are_refused_with_the_way_out(maker, tmp_path):
    items = maker.captions("toy", "test", 4)
    maker.stream(items, "image", np.ones((4, 12)), encoder="camera")
    maker.stream(items, "text", np.ones((20, 10)), encoder="tongue#other")
    run = run_of(tmp_path / "run7")
    with pytest.raises(StreamError) as caught:
        score(maker, run)
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "run7 was fitted on image encoder eye",
        "image embeddings of camera",
        "cbmf precompute toy --text tongue --image eye",
    ):
        assert part in line
    maker.stream(items, "image", np.ones((4, 12)), encoder="eye")
    with pytest.raises(StreamError, match="same name, but other weights or settings"):
        score(maker, run)


def test_no_stream_and_half_a_stream_are_refused(maker, tmp_path):
    maker.shard_rows = 256
    items = maker.captions("toy", "test", 300)
    run = run_of(tmp_path / "run")
    with pytest.raises(StreamError, match="embeddings of none"):
        score(maker, run)
    maker.stream(items, "image", np.ones((300, 12)), encoder="eye", finish=False)
    with pytest.raises(CacheError, match=r"incomplete.*cbmf precompute toy"):
        score(maker, run)


def test_tokens_of_the_grid_that_the_run_reads_are_found(maker, tmp_path):
    items = maker.captions("toy", "test", 3)
    random = np.random.default_rng(0)
    encoders = (spec_of("eye", "image", "image", grid=1), TONGUE)
    run = run_of(tmp_path / "run", encoders, layout="tokens")
    maker.stream(items, "text", random.normal(size=(15, 10)), encoder="tongue", lengths=[1] * 15)
    maker.stream(items, "image", random.normal(size=(3, 12)), encoder="eye")
    with pytest.raises(
        StreamError, match=r"reads tokens of eye \(grid 1\).*--layout tokens --grid 1"
    ):
        score(maker, run)
    maker.stream(
        items, "image", random.normal(size=(15, 12)), encoder="eye", lengths=[5] * 3, grid=2
    )
    with pytest.raises(StreamError, match=r"tokens, grid 2"):
        score(maker, run)
    wanted = maker.stream(
        items, "image", random.normal(size=(6, 12)), encoder="eye", lengths=[2] * 3, grid=1
    )
    assert score(maker, run).fingerprints["image"] == wanted.fingerprint


def test_a_run_of_linear_heads_alone_has_its_own_name(maker, tmp_path):
    caption_set(maker, "toy", "test", 6)
    run = run_of(tmp_path / "run", method="linear", width=8)
    run.model, run.baselines = LinearHeads((EYE, TONGUE), run.config.model).eval(), {}
    result = score(maker, run)
    assert [row.system for row in result.rows] == [
        "linear heads",
        "linear heads, untrained",
        "chance",
    ]
