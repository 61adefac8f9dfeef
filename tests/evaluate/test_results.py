import json
from dataclasses import replace

import pytest
from rich.console import Console

from cbmf.cache.errors import RunError
from cbmf.evaluate.results import Result, Row, merge_results, read_results
from cbmf.evaluate.tables import markdown, show, table, together

WAYS = ("image_to_text", "text_to_image")


def row(system: str, kind: str, recall: float, median: float = 3.0) -> Row:
    metrics = {
        f"{way}/{name}": value
        for way in WAYS
        for name, value in (
            ("R@1", recall),
            ("R@5", recall + 0.1),
            ("R@10", recall + 0.2),
            ("median_rank", median),
            ("MRR", recall / 2),
        )
    }
    ends = {name: (v - 0.012, v + 0.014) for name, v in metrics.items() if "R@" in name}
    return Row(system, kind, metrics, ends)


def retrieval_result(**changes) -> Result:
    chance = Row("chance", "chance", {f"{w}/R@{k}": k / 1000 for w in WAYS for k in (1, 5, 10)})
    result = Result(
        benchmark="retrieval",
        dataset="flickr8k",
        split="test",
        protocol="standard",
        run="run1",
        preset="best",
        rows=[row("cbmf-add", "model", 0.4567), row("linear heads", "baseline", 0.5, 2), chance],
        encoders={"image": "deit-tiny-patch16-224", "text": "all-MiniLM-L6-v2"},
        fingerprints={"image": "a" * 64, "text": "b" * 64},
        counts={"images": 1000, "texts": 5000, "pairs": 5000},
        excluded={"pairs": 0},
    )
    return replace(result, **changes)


def zero_shot_results(system: str = "cbmf-add") -> list[Result]:
    metrics = {f"top-{k}": 0.1 * k for k in range(1, 6)} | {"mean_class_recall": 0.1}
    ends = {"top-1": (0.09, 0.11)}
    return [
        retrieval_result(
            benchmark="zero-shot",
            dataset="cifar10",
            protocol=protocol,
            rows=[Row(system, "model", metrics, ends), Row("chance", "chance", metrics)],
            encoders={"image": "deit-tiny-patch16-224", "prompt": "all-MiniLM-L6-v2"},
            counts={"images": 10000, "classes": 10, "templates": 18},
            excluded={"images": 3, "prompts": 0},
            note="this split chose the epoch",
        )
        for protocol in ("ensemble", "photo", "names")
    ]


def printed(results: list[Result], width: int) -> str:
    console = Console(width=width, force_terminal=True, no_color=True, color_system=None)
    with console.capture() as capture:
        console.print(table(results))
    return capture.get()


def test_results_come_back_as_they_were(tmp_path):
    results = [retrieval_result(), *zero_shot_results()]
    merge_results(tmp_path / "results", results)
    assert read_results(tmp_path / "results") == results


def test_a_benchmark_made_anew_replaces_its_entry_and_no_other(tmp_path):
    merge_results(tmp_path, [retrieval_result(), *zero_shot_results()])
    merge_results(tmp_path, [retrieval_result(dataset="coco")])
    merge_results(tmp_path, [retrieval_result(note="new")])
    found = read_results(tmp_path)
    assert [result.key[:2] for result in found] == [
        ("retrieval", "coco"),
        ("retrieval", "flickr8k"),
        *[("zero-shot", "cifar10")] * 3,
    ]
    assert found[1].note == "new"
    assert [result.protocol for result in found[2:]] == ["ensemble", "photo", "names"]
    merge_results(tmp_path, zero_shot_results("cbmf-mul"))
    assert [r.rows[0].system for r in read_results(tmp_path)[2:]] == ["cbmf-mul"] * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "other"}',
        '{"format": "cbmf-results", "version": 9}',
        '{"format": "cbmf-results", "version": 2, "results": [{"rows": 3}]}',
    ],
)
def test_damaged_results_are_refused_and_kept(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"results.json: .*move it away"):
        merge_results(tmp_path, [retrieval_result()])
    assert path.read_text() == text


def test_no_results_are_no_error(tmp_path):
    assert read_results(tmp_path) == []


def test_json_is_plain(tmp_path):
    merge_results(tmp_path, [retrieval_result()])
    stored = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert stored["rows"][0]["metrics"]["image_to_text/R@1"] == 0.4567
    assert stored["rows"][0]["intervals"]["image_to_text/R@1"] == pytest.approx([0.4447, 0.4707])
    assert stored["fingerprints"]["text"] == "b" * 64


def test_figures_are_percent_with_one_decimal_and_half_the_interval():
    model = row("cbmf-add", "model", 0.4567, 12.5)
    assert show(model, "image_to_text/R@1") == "45.7 ±1.3"
    assert show(model, "image_to_text/median_rank") == "12.5"
    assert show(model, "image_to_text/MRR") == "0.228"
    assert show(Row("chance", "chance", {}), "image_to_text/MRR") == "-"


def test_markdown_has_a_table_for_each_direction_and_the_best_is_bold():
    text = markdown([retrieval_result(note="chosen on it", excluded={"pairs": 7})])
    assert text.splitlines()[0] == (
        "## retrieval: flickr8k/test, deit-tiny-patch16-224 with all-MiniLM-L6-v2"
    )
    assert "| image → text | R@1 | R@5 | R@10 | median rank | MRR |" in text
    assert (
        "| linear heads | **50.0 ±1.3** | **60.0 ±1.3** | **70.0 ±1.3** | **2** | **0.250** |"
        in text
    )
    assert "| cbmf-add | 45.7 ±1.3 | 55.7 ±1.3 | 65.7 ±1.3 | 3 | 0.228 |" in text
    assert "| chance | 0.1 | 0.5 | 1.0 | - | - |" in text
    assert text.count("| text → image |") == 1
    for remark in ("1,000 images, 5,000 texts", "7 pairs", "Note: chosen on it."):
        assert remark in text


def test_chance_is_never_the_best():
    text = markdown(zero_shot_results())
    assert "| chance | 10.0 | 20.0 |" in text
    assert "| ensemble of 18 templates | top-1 |" in text


def test_names_cannot_break_out_of_a_table():
    text = markdown([retrieval_result(rows=[row("a|b\n# <script>", "model", 0.2)])])
    assert r"| a\|b # \<script\> |" in text
    assert "[bold]red[/bold]" in printed(
        [retrieval_result(rows=[row("[bold]red[/bold]", "model", 0.2)])], 100
    )


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    "long", ["cbmf-additive", "raw a-very-long-encoder-name-of-a-hub-v2-large"]
)
def test_nothing_is_cut_off_on_a_narrow_console(width, long):
    models = [row(long, "model", 0.4567, 12345.5), row(f"{long}, untrained", "untrained", 1 / 3)]
    for results in ([retrieval_result(rows=models)], zero_shot_results(long)):
        text = printed(results, width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        shown = "".join(text.split())
        for group in results:
            for line in group.rows:
                for name in line.metrics:
                    assert "".join(show(line, name).split()) in shown
        assert "median" in text or "per class" in text


def test_results_of_a_split_share_a_table():
    groups = list(together([retrieval_result(), *zero_shot_results()]))
    assert [len(group) for group in groups] == [1, 3]
    text = printed(groups[1], 80)
    for part in (
        "ensemble of 18 templates",
        "“a photo of a {}.”",
        "bare class names",
        "3 images",
        "this split chose the epoch",
    ):
        assert part in text
