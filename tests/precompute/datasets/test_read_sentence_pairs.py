import pytest
from small_layouts import arranged, shuffled
from split_views import pairs

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.registry import read_dataset
from cbmf.precompute.datasets.sentences import text_id

MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"


def write(path, lines, mark="", end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((mark + end.join(lines) + end).encode())
    return path


def judged(split, what="labels"):
    column = split.columns["text"]
    text = dict(zip(column.ids, column.values, strict=True))
    judgements = getattr(split.pairs, what)
    rows = zip(pairs(split).ids, judgements, strict=True)
    return [(text[left], text[right], judgement) for (left, right), judgement in rows]


def test_mrpc_of_microsoft_knows_a_mark_and_no_quotes(tmp_path):
    lines = [MRPC_HEADER, '1\t1\t2\t"Open, he said.\tIt is.', "0\t3\t4\tIt is.\tNo."]
    write(tmp_path / "mrpc/msr_paraphrase_train.txt", lines, "\ufeff", "\r\n")
    write(tmp_path / "mrpc/msr_paraphrase_test.txt", [MRPC_HEADER, "1\t1\t2\ta\tb"], "\ufeff")
    found = read_dataset("mrpc", tmp_path)
    train, test = found.splits
    assert (found.name, found.kind, test.name) == ("mrpc", "sentence-pairs", "test")
    assert judged(train) == [('"Open, he said.', "It is.", 1), ("It is.", "No.", 0)]
    assert train.columns["text"].ids == [text_id(t) for t in ('"Open, he said.', "It is.", "No.")]
    assert pairs(train).left == pairs(train).right == "text"


def test_mrpc_of_glue_has_val_and_goes_before_microsofts_train(tmp_path):
    write(tmp_path / "MRPC/train.tsv", [MRPC_HEADER, "1\t1\t2\ta\tb"])
    write(tmp_path / "MRPC/dev.tsv", [MRPC_HEADER, "0\t1\t2\tc\td"])
    write(
        tmp_path / "MRPC/test.tsv", ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t1\t2\te\tf"]
    )
    write(
        tmp_path / "MRPC/msr_paraphrase_train.txt", [MRPC_HEADER, "1\t1\t2\ta\tb", "1\t1\t2\tx\ty"]
    )
    write(tmp_path / "MRPC/msr_paraphrase_test.txt", [MRPC_HEADER, "1\t1\t2\tg\th"])
    found = read_dataset("mrpc", tmp_path)
    assert {s.name: judged(s) for s in found.splits} == {
        "train": [("a", "b", 1)],
        "val": [("c", "d", 0)],
        "test": [("g", "h", 1)],
    }


def test_stsb_has_scores_and_lines_of_many_widths(tmp_path):
    rows = [
        "main-news\tMSRpar\t2012\t1\t4.500\tA plane.\tAn air plane.",
        'main-news\tx\t2012\t2\t0\t"A plane.\tB\tsource\tlicence',
    ]
    for name in ("train", "dev", "test"):
        write(tmp_path / f"stsbenchmark/sts-{name}.csv", rows)
    found = read_dataset("stsb", tmp_path)
    assert [s.name for s in found.splits] == ["train", "val", "test"]
    assert judged(found.splits[1], "scores") == [
        ("A plane.", "An air plane.", 4.5),
        ('"A plane.', "B", 0.0),
    ]
    assert pairs(found.splits[1]).labels is None


def test_stsb_of_glue_is_read(tmp_path):
    header = (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    )
    row = "0\tg\tf\t2012\t1\tnone\tnone\tA plane.\tB plane.\t3.8"
    write(tmp_path / "STS-B/train.tsv", [header, row])
    write(tmp_path / "STS-B/dev.tsv", [header, row, "1\ttoo\tfew"])
    train, val = read_dataset("stsb", tmp_path).splits
    assert judged(train, "scores") == [("A plane.", "B plane.", 3.8)]
    assert [(x.item_id, x.reason) for x in val.left_out] == [
        ("dev.tsv:3", "3 columns, expected 10")
    ]


@pytest.mark.parametrize("score", ["", "high", "nan", "inf", "4,5"])
def test_a_score_that_is_no_number_is_left_out(tmp_path, score):
    lines = [f"g\tf\ty\t{i}\t{s}\ta\tb" for i, s in enumerate(("1", score))]
    write(tmp_path / "sts-dev.csv", lines)
    (val,) = read_dataset("stsb", tmp_path).splits
    assert [(x.item_id, x.reason) for x in val.left_out] == [
        ("sts-dev.csv:2", f"score {score!r} is not a number")
    ]


def test_qqp_of_glue_leaves_out_torn_lines(tmp_path):
    lines = [QQP_HEADER, "1\t1\t2\ta\tb\t1", "2\t3\t4\ttorn", "b\t0", "3\t5\t6\t \tb\t0"]
    write(tmp_path / "QQP/train.tsv", [*lines, "4\t7\t8\tc\td\tyes"])
    write(tmp_path / "QQP/dev.tsv", [QQP_HEADER, '1\t1\t2\t"a\tb\t0'])
    write(tmp_path / "QQP/test.tsv", ["id\tquestion1\tquestion2", "0\tx\ty"])
    train, val = read_dataset("qqp", tmp_path).splits
    assert judged(train) == [("a", "b", 1)] and judged(val) == [('"a', "b", 0)]
    assert sorted((x.item_id, x.reason) for x in train.left_out) == [
        ("train.tsv:3", "4 columns, expected 6"),
        ("train.tsv:4", "2 columns, expected 6"),
        ("train.tsv:5", "empty sentence"),
        ("train.tsv:6", "label 'yes' is not 0 or 1"),
    ]


def test_qqp_with_three_columns_and_longer_names_is_read(tmp_path):
    header = "question1\tquestion2\tis_duplicate"
    write(tmp_path / "glue_qqp_train_sample.tsv", [header, "a\tb\t1"])
    write(tmp_path / "glue_qqp_dev_sample.tsv", [header, "c\td\t0"])
    found = read_dataset("qqp", tmp_path)
    assert [s.name for s in found.splits] == ["train", "val"]
    write(tmp_path / "another_train.tsv", [header, "a\tb\t1"])
    with pytest.raises(InputError, match=r"may both be train\.tsv"):
        read_dataset("qqp", tmp_path)


def test_quoras_own_file_is_split_without_leaks_in_any_order(tmp_path):
    rows = [f"{i}\t0\t0\tq{i // 2}\tr{i}\t{i % 2}" for i in range(400)]
    path = write(tmp_path / "quora_duplicate_questions.tsv", [QQP_HEADER, *rows])
    found = read_dataset("qqp", tmp_path)
    train, val = found.splits
    assert len(pairs(train).ids) + len(pairs(val).ids) == 400
    assert 15 <= len(pairs(val).ids) <= 70
    assert not set(train.columns["text"].ids) & set(val.columns["text"].ids)
    assert "90/10" in found.notes[0]
    write(path, [QQP_HEADER, *shuffled(rows)])
    again = read_dataset("qqp", tmp_path)
    assert [arranged(s) for s in again.splits] == [arranged(s) for s in found.splits]


def test_a_pair_that_is_judged_twice_keeps_both_in_one_order(tmp_path):
    lines = ["1\t1\t2\ta\tb", "0\t1\t2\ta\tb", "1\t1\t2\ta\tb"]
    views = []
    for order in (lines, lines[::-1], [lines[1], lines[0], lines[2]]):
        write(tmp_path / "train.tsv", [MRPC_HEADER, *order])
        views.append(arranged(read_dataset("mrpc", tmp_path).splits[0]))
    assert views[0] == views[1] == views[2]
    assert views[0]["judged"][0] == [0, 1, 1]


def test_stray_bytes_are_left_out(tmp_path):
    path = write(tmp_path / "train.tsv", [MRPC_HEADER, "1\t1\t2\ta\tb"])
    path.write_bytes(path.read_bytes() + b"1\t1\t2\tcaf\xe9\tb\n")
    (train,) = read_dataset("mrpc", tmp_path).splits
    assert [(x.item_id, x.reason) for x in train.left_out] == [("train.tsv:3", "not UTF-8")]


def test_a_missing_column_is_named(tmp_path):
    write(tmp_path / "train.tsv", ["a\tb"])
    with pytest.raises(InputError, match=r"no column '#1 string', .* it has 'a', 'b'"):
        read_dataset("mrpc", tmp_path)


def test_an_empty_table_is_one_line(tmp_path):
    write(tmp_path / "train.tsv", [MRPC_HEADER])
    with pytest.raises(InputError, match="no pair of sentences in split 'train'"):
        read_dataset("mrpc", tmp_path)


@pytest.mark.parametrize("name", ["mrpc", "qqp", "stsb"])
def test_nothing_there_says_where_to_get_it(tmp_path, name):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=f"^{name}: no .*; get it: http"):
            read_dataset(name, root)


def test_a_split_that_is_asked_for_must_be_there(tmp_path):
    write(tmp_path / "train.tsv", [MRPC_HEADER, "1\t1\t2\ta\tb"])
    with pytest.raises(InputError, match=r"no split 'val' \(no dev.tsv\); there is train"):
        read_dataset("mrpc", tmp_path, ["train", "dev"])
