"""The three stages together, as a user runs them: by command, in fresh processes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

CBMF = "from cbmf.cli import main; main()"


def cbmf(*words, cwd, code=CBMF, **environment):
    """Run a command; its result with everything that it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which the demo's data are drawn and encoded."""
    home = tmp_path_factory.mktemp("home")
    done = cbmf("precompute", "demo", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "2,000 images, 10,000 texts" in done.stdout
    return home


NOTHING_HEAVY = """
import sys
from cbmf.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"transformers", "tokenizers", "PIL", "torchvision", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""


def test_fit_and_evaluate_load_no_encoder_and_no_image_library(home):
    fitted = cbmf("fit", "--epochs", "3", "--cache", cwd=home, code=NOTHING_HEAVY)
    assert fitted.returncode == 0, fitted.stderr
    assert (home / "runs" / "demo-best-add-pooled-0" / "curves.png").stat().st_size > 1000
    scored = cbmf("evaluate", "all", cwd=home, code=NOTHING_HEAVY)
    assert scored.returncode == 0, scored.stderr
    assert "linear heads" in scored.stdout and "chance" in scored.stdout
    assert "…" not in scored.stdout


def test_the_second_precompute_encodes_nothing(home):
    done = cbmf("precompute", "demo", cwd=home)
    assert "nothing to encode: every embedding is there already" in done.stdout
    assert "\n0 items encoded, 0 failed" in done.stdout


def test_help_comes_without_torch(tmp_path):
    code = CBMF.replace("main()", "") + (
        "import sys\ntry: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'h5py', 'PIL'} & set(sys.modules)"
    )
    for words in (["--help"], ["precompute", "--help"], ["fit", "-h"], ["cache", "ls", "--help"]):
        done = cbmf(*words, cwd=tmp_path, code=code)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["precompute", "coco", "--root", "nowhere"], r"nowhere.*cocodataset\.org"),
        (["precompute", "cocoa"], r"cocoa.*coco"),
        (["precompute", "demo", "--image", "./no/encoder"], r"no/encoder: no config\.json"),
        (["precompute", "demo", "--grid", "7"], r"--layout tokens"),
        (["fit", "--cache", "nothing-here"], r"no data set with training pairs.*cbmf precompute"),
        (["fit", "--fusion", "dot", "--cache"], r"tokens.*null_key"),
        (["fit", "--preset", "worst", "--cache"], r"worst.*best"),
        (["fit", "--dataset", "demo-scenes10", "--cache"], r"demo-scenes10"),
        (["evaluate", "all", "--run", "no-run"], r"no-run"),
        (["evaluate", "everything"], r"everything"),
        (["cache", "info", "nothing-like-it"], r"no stream 'nothing-like-it'"),
    ],
)
def test_bad_input_is_one_line_with_the_way_out(home, words, said):
    done = cbmf(*words, cwd=home)
    assert done.returncode in (1, 2)
    line = done.stderr.strip()
    assert re.search(said, line), line
    assert "\n" not in line and "Traceback" not in done.stderr


def test_a_run_is_refused_on_streams_of_another_encoder(home, tmp_path):
    fitted = cbmf("fit", "--cache", "--epochs", "2", "--out", tmp_path / "run", cwd=home)
    assert fitted.returncode == 0, fitted.stderr
    other = cbmf(
        "precompute", "demo", "--root", home / "data" / "demo", "--text", "demo-roberta",
        "--image", "demo-vit", "--cache", tmp_path / "other", cwd=home,
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    run, cache = tmp_path / "run", tmp_path / "other"
    done = cbmf("evaluate", "retrieval", "--run", run, "--cache", cache, cwd=home)
    assert done.returncode == 1
    assert re.search(r"demo-bert.*demo-roberta.*cbmf precompute", done.stderr), done.stderr


@pytest.mark.slow
def test_the_demo_is_far_above_chance_and_above_the_untrained_model(tmp_path):
    done = cbmf("demo", "--out", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "demo" / "run-0" / "results" / "results.json").read_text())
    seen = set()
    every = {"retrieval", "zero-shot", "linear", "fine-tune", "paraphrase", "similarity"}
    assert {result["benchmark"] for result in table["results"]} == every
    for result in table["results"]:
        if result["benchmark"] not in ("retrieval", "zero-shot"):
            continue  # what an untrained model can do as well
        rows = {row["kind"]: row["metrics"] for row in result["rows"]}
        names = [n for n in rows["model"] if n.endswith(("R@10", "top-1"))]
        for name in names:
            seen.add((result["benchmark"], name))
            assert rows["model"][name] > 10 * min(rows["chance"][name], 0.08)
            assert rows["model"][name] > rows["untrained"][name] + 0.3
    assert len(seen) == 3
    again = cbmf("demo", "--out", tmp_path / "demo", cwd=tmp_path)
    assert again.returncode == 0 and "nothing is done again" in again.stdout


@pytest.mark.slow
def test_tokens_are_cached_fitted_and_scored(home, tmp_path):
    root = ("--root", home / "data" / "demo", "--cache", tmp_path / "tokens")
    done = cbmf(
        "precompute", "demo", "--layout", "tokens", "--grid", "4", "--limit", "200", *root, cwd=home
    )
    assert done.returncode == 0, done.stderr
    for fusion in ("dot", "additive"):
        fitted = cbmf(
            "fit", "--fusion", fusion, "--epochs", "2", "--cache", tmp_path / "tokens",
            "--out", tmp_path / fusion, cwd=home,
        )  # fmt: skip
        assert fitted.returncode == 0, fitted.stderr
        assert "tokens" in fitted.stdout
    scored = cbmf(
        "evaluate", "all", "--run", tmp_path / "dot", "--cache", tmp_path / "tokens", cwd=home
    )
    assert scored.returncode == 0, scored.stderr
    from cbmf.cache.catalog import Cache

    stream = Cache(tmp_path / "tokens").find("demo-limit200", "train", "image", layout="tokens")
    assert (stream.grid, stream.token_count) == (4, 200 * 17)
    assert np.isfinite(stream.pooled()).all()
