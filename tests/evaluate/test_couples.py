"""A run of more than two encoders: each couple of them has its own table."""

import numpy as np
import pytest
from tiny_caches import EYE, TEMPLATES, TONGUE, caption_set, labelled_set, run_of, spec_of

from cbmf.cache.errors import InputError
from cbmf.evaluate.figures import draw_results, figures_of
from cbmf.evaluate.results import read_results
from cbmf.evaluate.sides import choose_encoders, couples
from cbmf.evaluate.suite import evaluate

LENS = spec_of("lens", "image", "image")
EAR = spec_of("ear", "text", "text")
STANDARD = "standard"


@pytest.fixture
def run(maker, tmp_path, undrawn):
    """Two image encoders and a text encoder over a set of captions."""
    items = caption_set(maker, "toy", "test", 40)
    random = np.random.default_rng(8)
    maker.stream(items, "image", random.normal(size=(40, 12)), encoder="lens")
    return run_of(tmp_path / "run", (EYE, TONGUE, LENS))


def names(results):
    return [
        " with ".join(result.encoders.values()) for result in results if result.protocol == STANDARD
    ]


def test_every_couple_is_measured_and_kept(maker, run):
    first = evaluate(maker.cache, run, ["retrieval"])
    assert names(first.results) == ["eye with tongue", "lens with tongue"]
    assert len(first.results) == 4 and len(read_results(first.folder)) == 4
    one, two = (r for r in first.results if r.protocol == STANDARD)
    assert one.row("model").metrics != two.row("model").metrics
    assert [row.kind for row in two.rows] == ["model", "baseline", "untrained", "chance"]
    again = evaluate(maker.cache, run, ["retrieval"])
    assert again.kept == 4 and again.results == first.results
    text = (first.folder / "results.md").read_text()
    assert "## retrieval: toy/test, eye with tongue" in text
    assert "## retrieval: toy/test, lens with tongue" in text


def test_a_couple_scores_as_it_would_alone(maker, run, tmp_path):
    found = evaluate(maker.cache, run, ["retrieval"], again=True).results
    pair = run_of(tmp_path / "pair", (EYE, TONGUE))
    state = run.model.state_of(2)
    pair.model.load_state_dict(state)
    alone = evaluate(maker.cache, pair, ["retrieval"]).results
    assert found[0].row("model").metrics == alone[0].row("model").metrics


def test_a_couple_that_was_taken_over_has_no_untrained_row(maker, run):
    run.held = 2
    one, two = (
        r for r in evaluate(maker.cache, run, ["retrieval"]).results if r.protocol == STANDARD
    )
    assert [row.kind for row in one.rows] == ["model", "baseline", "chance"]
    assert [row.kind for row in two.rows] == ["model", "baseline", "untrained", "chance"]


def test_chosen_encoders_alone_are_measured(maker, run):
    run.measured = choose_encoders(run, ["len", "tongue"])
    assert run.measured == (1, 2)
    assert names(evaluate(maker.cache, run, ["retrieval"]).results) == ["lens with tongue"]
    run.measured = None
    everything = evaluate(maker.cache, run, ["retrieval"])
    assert names(everything.results) == ["eye with tongue", "lens with tongue"]
    assert everything.kept == 2


def test_names_of_encoders_must_fit_one(run):
    assert choose_encoders(run, []) is None
    for name, said in (("nose", "no encoder of run run fits 'nose'"), ("e", "several encoders")):
        with pytest.raises(InputError, match=said):
            choose_encoders(run, [name])


def test_couples_of_one_modality_stand_once_each(run):
    run.measured = choose_encoders(run, ["eye", "lens"])
    assert couples(run, "image", "image") == [(0, 2)]
    with pytest.raises(InputError, match="others are to be measured"):
        couples(run, "image", "text")


def test_a_couple_that_the_cache_lacks_is_skipped_with_the_reason(maker, run, tmp_path):
    more = run_of(tmp_path / "more", (EYE, TONGUE, LENS, EAR))
    found = evaluate(maker.cache, more, ["retrieval"])
    assert names(found.results) == ["eye with tongue", "lens with tongue"]
    assert [skip.benchmark for skip in found.skipped] == ["retrieval"] * 2
    assert "encoder ear" in found.skipped[0].reason


def test_zero_shot_is_measured_with_every_image_encoder(maker, run):
    items = labelled_set(maker, "pets", "test", 30)
    found = evaluate(maker.cache, run, ["zero-shot"])
    assert {tuple(result.encoders.values()) for result in found.results} == {("eye", "tongue")}
    random = np.random.default_rng(3)
    maker.stream(items, "image", random.normal(size=(30, 12)), encoder="lens")
    found = evaluate(maker.cache, run, ["zero-shot"], again=True)
    assert {tuple(result.encoders.values()) for result in found.results} == {
        ("eye", "tongue"),
        ("lens", "tongue"),
    }
    assert len(found.results) == 2 * len(TEMPLATES)


def test_figures_of_two_couples_are_two_files(maker, run):
    found = evaluate(maker.cache, run, ["retrieval"])
    assert [path.name for path in found.figures] == [
        "retrieval-toy-test.png",
        "retrieval-toy-test-lens-with-tongue.png",
    ]
    draw_results(found.folder)
    assert all(path.stat().st_size > 1000 for path in figures_of(found.folder))
