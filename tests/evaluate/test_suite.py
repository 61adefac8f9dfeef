import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_caches import caption_set, column, labelled_set, run_of

from cbmf.cache.errors import CacheError, InputError, RunError, StreamError
from cbmf.cache.items import Items, Pairs
from cbmf.evaluate.figures import draw_results
from cbmf.evaluate.results import read_results
from cbmf.evaluate.suite import evaluate
from cbmf.train.config import preset
from cbmf.train.fit import fit

pytestmark = pytest.mark.usefixtures("undrawn")


def keys(evaluation):
    return [(r.benchmark, r.dataset, r.split, r.protocol) for r in evaluation.results]


PROTOCOLS = ("ensemble", "photo", "names")


def of_retrieval(dataset, split):
    return [("retrieval", dataset, split, protocol) for protocol in ("standard", "paper")]


def fitted(maker, folder, **overrides):
    config = preset("best", epochs=8, batch_size=32, width=8, heads=2, ffn_width=16, **overrides)
    return fit(maker.cache, config, out=folder, dataset="toy", device="cpu")


def test_a_fit_is_evaluated_on_everything_that_the_cache_allows(maker, tmp_path):
    for split, images, seed in (("train", 120, 0), ("val", 30, 1), ("test", 40, 2)):
        caption_set(maker, "toy", split, images, seed)
    labelled_set(maker, "pets", "train", 30, 3)
    labelled_set(maker, "pets", "test", 40, 3)
    run = fitted(maker, tmp_path / "run")
    said = []
    evaluation = evaluate(maker.cache, run, ["all"], fine_tune_epochs=5, report=said.append)
    assert keys(evaluation) == [
        *of_retrieval("toy", "test"),
        *(("zero-shot", "pets", "test", protocol) for protocol in PROTOCOLS),
        *(("linear", "pets", "test", protocol) for protocol in ("standard", "paper")),
        ("fine-tune", "pets", "test", "paper"),
    ]
    assert evaluation.skipped == []
    assert said[0] == "retrieval toy/test: cbmf-add"
    result = evaluation.results[0]
    got = {row.kind: row.metrics["text_to_image/R@10"] for row in result.rows}
    assert got["model"] > got["untrained"] and got["baseline"] > got["chance"]
    assert result.note == ""
    assert evaluation.folder == tmp_path / "run" / "results"
    stored = read_results(evaluation.folder)
    assert sorted(stored, key=str) == sorted(evaluation.results, key=str)
    text = (evaluation.folder / "results.md").read_text()
    assert text.startswith("# Results of run\n")
    assert "linear heads" in text and "## zero-shot: pets/test" in text


def test_the_split_that_chose_the_epoch_says_so(maker, tmp_path):
    for split, images in (("train", 40), ("val", 20), ("test", 20)):
        caption_set(maker, "toy", split, images)
    run = fitted(maker, tmp_path / "run", baseline=False)
    notes = {
        split: evaluate(maker.cache, run, ["retrieval"], split=split).results[0].note
        for split in ("train", "val", "test")
    }
    assert "fitted on this split" in notes["train"]
    assert "chose the epoch" in notes["val"]
    assert notes["test"] == ""
    stored = [r.split for r in read_results(run.folder / "results")]
    assert stored == ["test", "test", "train", "train", "val", "val"]


def test_a_val_that_took_no_part_needs_no_note(maker, tmp_path):
    for split, images in (("train", 80), ("val", 20)):
        caption_set(maker, "toy", split, images)
    run = fitted(maker, tmp_path / "run", baseline=False)  # without test, val is kept to report on
    result = evaluate(maker.cache, run, ["retrieval"]).results[0]
    assert (result.split, result.note) == ("val", "")


def test_retrieval_alone_is_on_the_own_data_set_and_all_is_on_every_one(maker, tmp_path):
    caption_set(maker, "other", "train", 8)
    caption_set(maker, "toy", "test", 8)
    run = run_of(tmp_path / "run")
    own, other = of_retrieval("toy", "test"), of_retrieval("other", "train")
    assert keys(evaluate(maker.cache, run, ["retrieval"])) == own
    assert keys(evaluate(maker.cache, run, ["retrieval"], dataset="other")) == other
    assert len(evaluate(maker.cache, run, ["all"]).results) == 4


def test_what_the_run_cannot_read_is_skipped_under_all_and_refused_by_name(maker, tmp_path):
    caption_set(maker, "toy", "test", 8)
    foreign = maker.labelled("pets", "test", [0, 1], ["cat", "dog"])
    maker.stream(foreign, "image", np.ones((2, 12)), encoder="camera")
    maker.stream(foreign, "prompt", np.ones((6, 10)), encoder="tongue")
    text = {"text": column("text", ["a", "b"])}
    pairs = Pairs("text", "text", np.array([[0, 1]]), scores=np.array([2.5]))
    maker.put(Items("graded", "test", text, pairs))
    maker.put(Items("bare", "test", text))
    run = run_of(tmp_path / "run")
    evaluation = evaluate(maker.cache, run, ["all"])
    assert keys(evaluation) == of_retrieval("toy", "test")
    skipped = {(s.benchmark, s.dataset): s.reason for s in evaluation.skipped}
    assert "camera" in skipped["zero-shot", "pets/test"]
    assert "tongue" in skipped["similarity", "graded/test"]
    assert "neither" in skipped["retrieval", "bare/test"]
    with pytest.raises(StreamError, match="camera"):
        evaluate(maker.cache, run, ["zero-shot"], dataset="pets")
    with pytest.raises(
        InputError, match=r"nothing could be evaluated: zero-shot pets/test: .*camera"
    ):
        evaluate(maker.cache, run, ["zero-shot"])
    with pytest.raises(InputError, match="toy/test has no labelled images"):
        evaluate(maker.cache, run, ["zero-shot"], dataset="toy")


def test_bad_requests_are_one_line(maker, tmp_path):
    run = run_of(tmp_path / "run")
    with pytest.raises(InputError, match="has nothing to evaluate all on"):
        evaluate(maker.cache, run, ["all"])
    with pytest.raises(CacheError, match="has no toy/test; it has nothing"):
        evaluate(maker.cache, run, ["retrieval"])
    caption_set(maker, "toy", "train", 8)
    with pytest.raises(InputError, match="no benchmark 'recall'; there are retrieval, zero-shot"):
        evaluate(maker.cache, run, ["recall"])
    with pytest.raises(InputError, match="no benchmark is named"):
        evaluate(maker.cache, run, [])
    with pytest.raises(InputError, match="neither test nor val, only train"):
        evaluate(maker.cache, run, ["retrieval"])
    with pytest.raises(CacheError, match="no toy/val"):
        evaluate(maker.cache, run, ["retrieval"], split="val")


def test_damaged_results_lose_nothing(maker, tmp_path):
    caption_set(maker, "toy", "test", 8)
    run = run_of(tmp_path / "run")
    path = evaluate(maker.cache, run, ["retrieval"]).folder / "results.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunError, match=r"results\.json"):
        evaluate(maker.cache, run, ["retrieval"])


def test_evaluating_again_gives_the_same_file_but_for_the_time(maker, tmp_path):
    caption_set(maker, "toy", "test", 20)
    labelled_set(maker, "pets", "test", 20)
    run = run_of(tmp_path / "run")
    stored = []
    for _ in range(2):
        path = evaluate(maker.cache, run, ["all"], again=True).folder / "results.json"
        results = json.loads(path.read_text())["results"]
        stored.append([{**result, "seconds": 0} for result in results])
    assert stored[0] == stored[1]
    assert len(stored[0]) == 5


def test_no_encoder_and_no_image_library_is_imported(maker, tmp_path):
    for split, images in (("train", 40), ("test", 10)):
        caption_set(maker, "toy", split, images)
    labelled_set(maker, "pets", "test", 10)
    fitted(maker, tmp_path / "run", baseline=False)
    script = f"""
import sys
from pathlib import Path
from cbmf.cache.catalog import Cache
from cbmf.evaluate.suite import evaluate
from cbmf.train.run import Run
run = Run.load(Path({str(tmp_path / "run")!r}))
print(len(evaluate(Cache(Path({str(maker.root)!r})), run, ["all"]).results))
names = ("transformers", "PIL", "torchvision", "cv2", "matplotlib", "cbmf.precompute")
print([name for name in names if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert done.stdout.splitlines() == ["5", "[]"]


def test_an_interrupted_fit_says_so(maker, tmp_path):
    caption_set(maker, "toy", "test", 8)
    run = run_of(tmp_path / "run")
    run.finished = False
    assert "interrupted" in evaluate(maker.cache, run, ["retrieval"]).results[0].note


def test_what_is_there_over_the_same_inputs_is_kept_and_what_changed_is_measured_anew(
    maker, tmp_path
):
    for split, images, seed in (("train", 60, 0), ("test", 20, 1)):
        caption_set(maker, "toy", split, images, seed)
    run = fitted(maker, tmp_path / "run", baseline=False)
    first = evaluate(maker.cache, run, ["retrieval"])
    said = []
    second = evaluate(maker.cache, run, ["retrieval"], report=said.append)
    assert (first.kept, second.kept, said) == (0, 2, [])
    assert second.results == first.results == read_results(first.folder)
    assert second.figures == [first.folder / "retrieval-toy-test.png"]
    maker.stream(maker.items["toy", "test"], "text", np.ones((100, 10)), encoder="another")
    assert evaluate(maker.cache, run, ["retrieval"]).kept == 0  # another stream may be a floor
    with (run.folder / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert evaluate(maker.cache, run, ["retrieval"]).kept == 0
    assert evaluate(maker.cache, run, ["retrieval"], again=True).kept == 0
    run.alone = True
    alone = evaluate(maker.cache, run, ["retrieval"]).results[0]
    assert [row.kind for row in alone.rows] == ["model", "chance"]


def test_curves_are_drawn_for_each_result_that_has_them(maker, tmp_path):
    caption_set(maker, "toy", "test", 30)
    folder = evaluate(maker.cache, run_of(tmp_path / "run"), ["retrieval"]).folder
    draw_results(folder)  # in a process of its own
    assert (folder / "retrieval-toy-test.png").read_bytes().startswith(b"\x89PNG")
