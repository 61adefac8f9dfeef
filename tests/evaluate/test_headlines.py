from dataclasses import replace

from cbmf.evaluate.headlines import headlines
from cbmf.evaluate.results import Result, Row


def result(ours=0.60, floor=0.50, half=0.02, **changes):
    ends = {"top-1": (ours - half, ours + half)}
    rows = [
        Row("cbmf-add", "model", {"top-1": ours, "top-2": 0.9}, ends),
        Row("linear heads", "baseline", {"top-1": floor - 0.1}),
        Row("raw eye", "raw", {"top-1": floor}),
        Row("cbmf-add, untrained", "untrained", {"top-1": 0.99}),
        Row("chance", "chance", {"top-1": 0.1}),
    ]
    whole = Result(
        "zero-shot", "pets", "test", "ensemble", "run", "best", rows, {"image": "eye"}, {}, {}, {}
    )
    return replace(whole, **changes)


def test_the_model_stands_beside_the_best_floor_and_chance():
    (line,) = headlines([result()])
    assert line.what == "zero-shot, pets/test, top-1"
    assert (line.figure, line.floor, line.chance) == ("60.0 ±2.0", "raw eye 50.0", "10.0")
    assert line.verdict == "ahead"


def test_a_difference_within_half_the_interval_is_none():
    verdicts = [headlines([result(floor=floor)])[0].verdict for floor in (0.59, 0.61, 0.57, 0.63)]
    assert verdicts == ["level", "level", "ahead", "behind"]


def test_each_direction_of_retrieval_and_the_last_epoch_are_told():
    ways = {f"{way}/R@{k}": k / 100 for way in ("a_to_b", "b_to_a") for k in (1, 5, 10)}
    retrieval = result(
        benchmark="retrieval", protocol="standard", rows=[Row("cbmf-add", "model", ways)]
    )
    epochs = {f"epoch {n}": n / 100 for n in (20, 40, 60)}
    tuned = result(benchmark="fine-tune", protocol="paper", rows=[Row("m", "model", epochs)])
    lines = headlines([tuned, retrieval])
    assert [line.what for line in lines] == [
        "retrieval, pets/test a → b, R@10",
        "retrieval, pets/test b → a, R@10",
        "fine-tune, pets/test, epoch 60",
    ]
    assert lines[2].figure == "60.0" and lines[2].verdict == "" and lines[2].floor == ""


def test_of_several_encoders_each_line_names_its_own():
    lines = headlines([result(), result(encoders={"image": "eye2"})])
    assert [line.what for line in lines] == [
        "zero-shot, pets/test, top-1, eye",
        "zero-shot, pets/test, top-1, eye2",
    ]


def test_a_protocol_that_is_not_told_has_no_line():
    assert headlines([result(protocol="names")]) == []
