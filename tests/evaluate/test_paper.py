import json
from dataclasses import replace

import pytest

from cbmf.evaluate.paper import (
    Entry,
    headings,
    paper_tables,
    shown,
    to_json,
    to_markdown,
)
from cbmf.evaluate.paper_drawings import drawings
from cbmf.evaluate.paper_specs import SPECS
from cbmf.evaluate.results import Result, Row


def result(rows, benchmark="zero-shot", dataset="cifar10", protocol="names", axis=()):
    return Result(
        benchmark,
        dataset,
        "test",
        protocol,
        "run",
        "best",
        rows,
        {"image": "eye"},
        {},
        {},
        {},
        axis=list(axis),
    )


def row(system, kind, top1, half=0.01):
    return Row(system, kind, {"top-1": top1}, {"top-1": (top1 - half, top1 + half)})


def three_seeds():
    return [
        Entry(
            "cbmf-add",
            seed,
            [result([row("cbmf-add", "model", top1), row("raw eye", "raw", 0.5)])],
            "cbmf-add",
        )
        for seed, top1 in enumerate((0.60, 0.62, 0.64))
    ]


def test_a_table_has_the_papers_figures_ours_over_seeds_and_the_floor():
    (table,) = paper_tables(three_seeds())
    assert table.spec.number == "Table IV"
    assert [(r.system, r.kind) for r in table.rows][-2:] == [
        ("cbmf-add", "model"),
        ("raw eye", "raw"),
    ]
    text = to_markdown([table])
    assert "| *conVIRT, paper* | 62.1 |" in text
    assert "| cbmf-add | **62.0** ±1.0 σ2.0 |" in text
    assert "| raw eye | 50.0 ±1.0 |" in text  # the same in every seed: no deviation to tell
    (stored,) = json.loads(json.dumps(to_json([table])))
    ours = next(r for r in stored["rows"] if r["system"] == "cbmf-add")["metrics"]["top-1"]
    assert ours["mean"] == pytest.approx(0.62) and ours["deviation"] == pytest.approx(0.02)
    assert ours["interval"] == pytest.approx([0.61, 0.63])
    assert ours["seeds"] == {"0": 0.60, "1": 0.62, "2": 0.64}


def test_a_floor_that_beats_the_model_is_the_bold_one():
    rows = [row("cbmf-add", "model", 0.4), row("raw eye", "raw", 0.5), row("chance", "chance", 1.0)]
    text = to_markdown(paper_tables([Entry("cbmf-add", 0, [result(rows)])]))
    assert "| raw eye | **50.0** ±1.0 |" in text and "| cbmf-add | 40.0 ±1.0 |" in text


def test_two_runs_of_one_method_stay_apart_by_their_labels_and_share_their_floor():
    entries = [
        Entry(label, 0, [result([row("ConVIRT", "model", top1), row("raw eye", "raw", 0.5)])], was)
        for label, top1, was in (("frozen", 0.3, "ConVIRT"), ("end to end", 0.2, "ConVIRT"))
    ]
    (table,) = paper_tables(entries)
    ours = {r.system: r.mean("top-1") for r in table.rows if r.kind != "paper"}
    assert ours == {"frozen": 0.3, "end to end": 0.2, "raw eye": 0.5}


def test_a_table_without_results_is_left_out_and_every_number_of_the_paper_is_served():
    assert paper_tables([]) == []
    numbers = " ".join(spec.number for spec in SPECS)
    for number in ("II", "III", "IV", "V", "VI"):
        assert f"Table {number}" in numbers
    assert "Figure 3" in numbers and "Figure 4" in numbers


def test_a_figure_has_a_line_a_system_and_a_band_over_seeds():
    def curve(system, kind, ys):
        return Row(system, kind, {"image_to_text/k=100": ys[0]}, curves={"image_to_text": ys})

    entries = [
        Entry(
            "cbmf-add",
            seed,
            [
                result(
                    [
                        curve("cbmf-add", "model", [0.1 * (seed + 1), 0.9]),
                        curve("chance", "chance", [0.0, 0.5]),
                    ],
                    "retrieval",
                    "flickr8k",
                    "paper",
                    (100, 200),
                )
            ],
        )
        for seed in range(3)
    ]
    drawing = drawings(paper_tables(entries))["figure-4.png"]
    assert list(drawing.panels) == ["image → text"] and drawing.axis == [100, 200]
    model, chance = drawing.panels["image → text"]
    assert model.values == pytest.approx([0.2, 0.9])
    assert model.low == pytest.approx([0.1, 0.9]) and model.high == pytest.approx([0.3, 0.9])
    assert chance.label == "chance"


def test_columns_of_the_paper_stay_where_ours_has_others_and_common_notes_are_told_once():
    results = [
        replace(
            result(
                [Row("cbmf-add", "model", {"epoch 4": 0.5, "epoch 20": 0.6})],
                "fine-tune",
                "tiny-imagenet",
                "paper",
            ),
            note=f"the encoder is frozen; seed {seed}",
        )
        for seed in range(2)
    ]
    (table,) = paper_tables([Entry("cbmf-add", n, [r]) for n, r in enumerate(results)])
    epochs = [f"epoch {n}" for n in (4, 20, 40, 60, 80, 100)]
    assert table.metrics == epochs and table.notes == ["the encoder is frozen"]


def test_what_was_measured_on_other_candidates_is_not_set_beside_the_others():
    def curve(length):
        ks = [float(k) for k in range(1, length + 1)]
        rows = [Row("cbmf-add", "model", {"k=1": 0.1}, {}, {"text_to_image": ks})]
        return result(rows, "retrieval", "flickr8k", "paper", axis=ks)

    entries = [Entry(name, 0, [curve(n)], "cbmf-add") for name, n in (("few", 3), ("all", 9))]
    (table,) = paper_tables(entries)
    assert [r.system for r in table.rows if r.kind == "model"] == ["all"]
    assert table.notes[-1] == "measured on other candidates, and left out: few, seed 0"
    assert drawings([table])


def test_what_the_paper_has_not_measured_has_tables_too_where_they_are_asked_for():
    entries = [
        Entry("cbmf-add", 0, [result([row("cbmf-add", "model", 0.6)], dataset=name)])
        for name in ("pets", "pets2", "cifar10")
    ]
    assert [table.spec.number for table in paper_tables(entries)] == ["Table IV"]
    tables = paper_tables(entries, others=True)
    assert [(table.spec.number, table.where) for table in tables] == [
        ("Table IV", "cifar10/test"),
        ("", "pets/test"),
        ("", "pets2/test"),
    ]
    assert headings(tables[1]) == ["top-1"]
    ((figure,),) = shown(tables[1])
    assert (figure.text, figure.spread, figure.best) == ("60.0", " ±1.0", True)
