"""`cbmf compare`: many methods on one cache, resumable, in one table."""

import subprocess
import sys

import pytest

from cbmf.cache.errors import InputError, RunError
from cbmf.cache.files import read_json
from cbmf.recipes.compare import METHODS, Options, compare

TINY = {"width": 16, "ffn_width": 32, "projection_width": 16, "batch_size": 32, "blocks": 1}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("cbmf.train.fit.draw_run", lambda run, floor: (run / "curves.png").touch())


def run(maker, out, layout="pooled", **options):
    """The comparison, and the names of the fits that it made."""
    cache, _ = maker(layout)
    fitted, said = set(), []

    def hear(progress):
        if progress.stage != "data":
            fitted.add(progress.stage)

    given = {"seeds": 1, "epochs": 1, "layout": layout, "settings": TINY, **options}
    found = compare(cache, Options(out=out, **given), hear, said.append)
    return found, fitted, said


@pytest.mark.slow
def test_every_method_stands_in_one_table_and_attention_on_one_token_is_left_out(maker, tmp_path):
    found, fitted, said = run(maker, tmp_path / "out")
    attention = {"dot", "additive", "general"}
    assert set(found.skipped) == attention and "null_key" in found.skipped["dot"]
    assert set(found.contestants) == set(METHODS) - attention
    assert fitted == {"cbmf", "linear", "convirt", "fusemix", "csa", "asif"}
    assert len(said) == len(METHODS) - 3
    text = (tmp_path / "out" / "compare.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    labels = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert labels == [METHODS[name].label for name in METHODS if name not in attention]
    assert "### Left out" in text and "one seed" in text
    table = read_json(tmp_path / "out" / "compare.json", 1)
    assert table["split"] == "test" and table["layout"] == "pooled"
    by_name = {row["system"]: row for row in table["retrieval"]["rows"]}
    assert by_name["ASIF"]["parameters"] == 0 < by_name["CSA"]["parameters"]
    whole, frozen = (by_name[METHODS[n].label]["parameters"] for n in ("add", "random"))
    assert by_name[METHODS["shared"].label]["parameters"] != whole > frozen


def test_seeds_are_fits_of_their_own_and_their_deviation_is_told(maker, tmp_path):
    found, _, said = run(maker, tmp_path / "out", methods=("linear", "csa"), seeds=2)
    assert len(said) == 4 and (tmp_path / "out" / "runs" / "linear-1").is_dir()
    linear, csa = found.comparison().recalls.rows
    assert linear.deviation("mean recall") and csa.deviation("mean recall") is None  # no chance
    text = (tmp_path / "out" / "compare.md").read_text()
    assert " σ" in text and "2 seeds" in text


def test_what_is_fitted_is_read_back_and_more_can_be_asked(maker, tmp_path):
    names = {"methods": ("add", "csa")}
    first, fitted, _ = run(maker, tmp_path / "out", **names)
    assert fitted == {"cbmf", "csa"}
    kept = (tmp_path / "out" / "compare.md").read_text()
    _, fitted, _ = run(maker, tmp_path / "out", **names)
    assert not fitted and (tmp_path / "out" / "compare.md").read_text() == kept
    more, fitted, _ = run(maker, tmp_path / "out", methods=("csa", "add", "asif"))
    assert fitted == {"asif"}
    assert [c.label for c in more.comparison().contestants] == ["CSA", "CBMF, add", "ASIF"]
    assert more.contestants["add"].seconds == first.contestants["add"].seconds
    with pytest.raises(RunError, match="another configuration"):
        run(maker, tmp_path / "out", **names, layout="pooled", preset="paper")


def test_other_benchmarks_have_tables_of_their_own(maker, tmp_path):
    names = {"methods": ("linear", "csa"), "benchmarks": ("retrieval",)}
    found, _, _ = run(maker, tmp_path / "out", **names)
    assert {entry.label for entry in found.entries} == {"linear heads", "CSA"}
    text = (tmp_path / "out" / "compare.md").read_text()
    assert text.count("### ") > 1 and text.count("| CSA |") > 1
    assert len(read_json(tmp_path / "out" / "compare.json", 1)["benchmarks"]) >= 1


@pytest.mark.slow
def test_on_tokens_every_fusion_is_fitted_and_peers_read_pooled_vectors(maker, tmp_path):
    found, _, _ = run(
        maker, tmp_path / "out", "tokens", methods=("dot", "general", "linear", "asif")
    )
    assert not found.skipped and len(found.contestants) == 4
    layouts = {
        name: read_json(tmp_path / "out" / "runs" / f"{name}-0" / "config.json", 1)["model"]
        for name in found.contestants
    }
    assert {name: model["layout"] for name, model in layouts.items()} == {
        "dot": "tokens",
        "general": "tokens",
        "linear": "pooled",
        "asif": "pooled",
    }


def test_wrong_options_are_one_line(maker, tmp_path):
    with pytest.raises(InputError, match=r"no method clip; there are add, mul.*asif"):
        Options(methods=("add", "clip"))
    with pytest.raises(InputError, match="--seeds must be at least 1"):
        Options(seeds=0)
    with pytest.raises(InputError, match="null_key"):
        run(maker, tmp_path / "out", methods=("dot",))


@pytest.mark.slow
def test_the_command_prints_the_table_and_where_it_is(maker, tmp_path):
    cache, _ = maker("pooled")
    words = ["compare", "--cache", cache.root, "--methods", "linear,dot", "--methods", "csa"]
    words += ["--seeds", "1", "--epochs", "1", "--set", "batch_size=32", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "cbmf", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "linear heads" in done.stdout and "CSA" in done.stdout
    assert "left out: dot: fusion 'dot' attends over tokens" in done.stdout
    assert f"results: {tmp_path}/out/compare.md" in done.stdout.replace("\n", "")
    wrong = [*command[:3], "compare", "--methods", "clip"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("cbmf: no method clip")
    assert "Traceback" not in done.stderr
