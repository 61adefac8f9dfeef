import shutil

import numpy as np
import pytest

from cbmf.cache.errors import CacheError, InputError, StreamError
from cbmf.train.config import preset
from cbmf.train.source import choose_layout, choose_source


def source(small, dataset=None, **options):
    return choose_source(small.cache, preset("best", **options), dataset)


def test_the_only_encoded_data_set_is_taken(small):
    small.image_text()
    small.image_text("other", image={"shards": 1})
    found = source(small)
    assert found.dataset == "small" and found.val is None
    assert [s.column for s in found.train] == ["image", "text"]
    left, right = found.encoders("pooled")
    assert (left.name, left.width, left.modality) == ("tiny-vit", 12, "image")
    assert (right.name, right.width, right.identity) == ("tiny-bert", 10, found.train[1].identity)


def test_several_data_sets_are_listed(small):
    small.image_text("one")
    small.image_text("two")
    with pytest.raises(InputError, match="one, two; name one with --dataset"):
        source(small)
    assert source(small, "two").dataset == "two"


def test_labelled_pairs_stand_back_behind_plain_ones(small):
    small.image_text("plain")
    small.text_text("labelled", topics=4, labels=np.ones(24, np.int64))
    assert source(small).dataset == "plain"
    assert source(small, "labelled").dataset == "labelled"


def test_an_empty_cache_says_what_to_run(small):
    with pytest.raises(InputError, match="cbmf precompute"):
        source(small)


def test_a_data_set_without_positive_pairs_is_refused(small):
    small.image_text(labels=np.zeros(120, np.int64))
    with pytest.raises(InputError, match="no pairs to train on"):
        source(small, "small")


def test_an_incomplete_stream_is_refused(small):
    small.image_text(text={"shards": 2})
    with pytest.raises(StreamError, match="2 of 3 shards"):
        source(small)


def test_a_choice_of_encoders_must_be_made(small):
    items = small.image_text()
    small.image_text(image={"encoder": "other-vit"})
    with pytest.raises(CacheError, match="name one"):
        source(small)
    assert source(small, left="other-vit").train[0].encoder == "other-vit"
    assert items.dataset == "small"


def test_tokens_are_asked_for_with_the_layout(small):
    small.image_text()
    with pytest.raises(CacheError, match="tokens"):
        source(small, layout="tokens")
    small.image_text(layout="tokens", image={"grid": 2})
    found = source(small, layout="tokens")
    assert [s.layout for s in found.train] == ["tokens", "tokens"]
    assert found.encoders("tokens")[0].grid == 2
    assert found.encoders("pooled")[0].grid is None


def test_val_is_used_when_test_remains_to_report_on(small):
    small.image_text()
    small.image_text(split="val", images=20)
    assert source(small).val is None
    small.image_text(split="test", images=20)
    val = source(small).val
    assert val is not None and [s.split for s in val] == ["val", "val"]


def test_a_val_split_of_other_encoders_is_refused(small):
    small.image_text()
    small.image_text(split="test", images=20)
    small.image_text(split="val", images=20, text={"setup": "another pooling"})
    with pytest.raises(StreamError, match="none is of the encoder"):
        source(small)


def test_a_val_split_of_another_grid_is_refused(small):
    small.image_text(layout="tokens", image={"grid": 2})
    small.image_text(split="test", images=20)
    small.image_text(split="val", images=20, layout="tokens", image={"grid": 3})
    with pytest.raises(StreamError, match=r"grid 3.*grid 2"):
        source(small, layout="tokens")


def test_a_val_split_of_several_grids_gives_that_of_training(small):
    small.image_text(layout="tokens", image={"grid": 3})
    small.image_text(split="test", images=20)
    for grid in (2, 3, 4):
        small.image_text(split="val", images=20, layout="tokens", image={"grid": grid})
    assert source(small, layout="tokens").val[0].grid == 3


def test_best_reads_tokens_where_the_cache_has_them_and_nothing_else_does(small):
    small.image_text()
    assert choose_layout(small.cache, "best", "cbmf") == "pooled"
    small.image_text(layout="tokens", image={"grid": 2})
    assert choose_layout(small.cache, "best", "cbmf") == "tokens"
    for preset_name, method in (("best", "linear"), ("released", "cbmf"), ("paper", "cbmf")):
        assert choose_layout(small.cache, preset_name, method) == "pooled"


def test_sentence_pairs_take_the_two_encoders_there_are(small):
    small.text_text()
    found = source(small)
    assert [s.encoder for s in found.train] == ["bert-tiny", "roberta-tiny"]
    assert [s.encoder for s in source(small, left="roberta-tiny").train] == [
        "roberta-tiny",
        "bert-tiny",
    ]
    assert [s.encoder for s in source(small, right="bert-tiny").train] == [
        "roberta-tiny",
        "bert-tiny",
    ]


def test_sentence_pairs_need_two_different_encoders(small):
    small.text_text()
    with pytest.raises(InputError, match="name two encoders"):
        source(small, left="bert-tiny", right="bert-tiny")
    for folder in (small.root / "sentences" / "train").glob("text@roberta*"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="two different encoders"):
        source(small)


def test_one_encoder_for_both_columns_gets_two_names(small):
    small.image_text(text={"encoder": "clip"}, image={"encoder": "clip"})
    assert [s.name for s in source(small).encoders("pooled")] == ["clip-image", "clip-text"]


@pytest.mark.parametrize("layout", ["tokens", "pooled"])
def test_the_miner_of_the_pairs_steps_back_behind_two_other_encoders(small, layout):
    small.captions(layout=layout)
    found = source(small, layout=layout)
    assert [s.encoder for s in found.train] == ["bert-tiny", "roberta-tiny"]
    found = source(small, layout=layout, right="bert-tiny")
    assert [s.encoder for s in found.train] == ["roberta-tiny", "bert-tiny"]


def test_the_miner_is_fitted_where_it_is_named_or_one_of_two(small):
    small.captions(layout="pooled")
    found = source(small, left="mini", right="roberta-tiny")
    assert [s.encoder for s in found.train] == ["mini", "roberta-tiny"]
    with pytest.raises(InputError, match="two different encoders"):
        source(small, left="mini")
    for folder in (small.root / "coco-text" / "train").glob("text@roberta*"):
        shutil.rmtree(folder)
    assert [s.encoder for s in source(small).train] == ["bert-tiny", "mini"]


def test_too_few_encoders_with_tokens_are_listed_with_what_they_have(small):
    small.captions()
    for folder in (small.root / "coco-text" / "train").glob("text@roberta*"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"with tokens .*bert-tiny-\w+ \(tokens\).*\(pooled\)"):
        source(small, layout="tokens")
    with pytest.raises(CacheError, match=r"no text stream fits 'mini tokens'"):
        source(small, layout="tokens", left="bert-tiny", right="mini")
    assert choose_layout(small.cache, "best", "cbmf", "coco-text") == "pooled"


def test_best_reads_tokens_of_two_encoders_whatever_the_miner_has(small):
    small.captions()
    assert choose_layout(small.cache, "best", "cbmf") == "tokens"


def test_streams_over_older_captions_are_no_choice(small):
    small.captions(images=30)
    for folder in (small.root / "coco-text" / "train").glob("text@mini*"):
        shutil.rmtree(folder)
    small.captions(images=40)
    assert [s.encoder for s in source(small, layout="tokens").train] == [
        "bert-tiny",
        "roberta-tiny",
    ]


def test_val_of_mined_pairs_is_used_when_test_remains(small):
    for split, images in (("train", 40), ("val", 20), ("test", 20)):
        small.captions(split=split, images=images)
    assert [s.split for s in source(small, layout="tokens").val] == ["val", "val"]
