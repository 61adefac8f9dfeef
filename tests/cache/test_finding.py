"""What fits is found, what does not is refused with the way out."""

import random
from dataclasses import replace

import numpy as np
import pytest

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import CacheError, StreamError
from cbmf.cache.items import read_items
from cbmf.cache.manifest import differences
from cbmf.cache.stream import Stream
from cbmf.cache.upkeep import verify


def test_items_come_back_as_they_were_written(toy):
    read = read_items(toy.parent / "items.h5")
    assert read.columns["image"].ids == toy.items.columns["image"].ids
    assert read.columns["text"].values == toy.items.columns["text"].values
    np.testing.assert_array_equal(read.pairs.rows, toy.items.pairs.rows)


def test_older_items_stay_readable_for_the_streams_over_them(toy):
    stream = Stream(toy.fill(toy.spec()))
    older = toy.items
    ids = [f"new {i}" for i in range(toy.count)]
    image = replace(older.columns["image"], ids=ids)
    toy.items = replace(older, columns={**older.columns, "image": image})
    toy.write_items()
    cache = Cache(toy.root)
    assert cache.items_of(stream).columns["image"].ids == older.columns["image"].ids
    with pytest.raises(CacheError, match="no image embeddings"):
        cache.find("toy", "train", "image")


def test_one_of_several_encoders_has_to_be_named(toy):
    toy.fill(toy.spec())
    toy.fill(toy.spec(encoder="other", made_of={"class": "Other"}))
    cache = Cache(toy.root)
    with pytest.raises(CacheError, match=r"name one: image@enc-.*image@other-"):
        cache.find("toy", "train", "image")
    assert cache.find("toy", "train", "image", encoder="other").encoder == "other"


def test_an_exact_name_wins_over_a_part_of_another(toy):
    toy.fill(toy.spec(encoder="bert"))
    toy.fill(toy.spec(encoder="roberta", made_of={"class": "Other"}))
    cache = Cache(toy.root)
    assert cache.find("toy", "train", "image", encoder="bert").encoder == "bert"
    assert cache.find("toy", "train", "image", encoder="robert").encoder == "roberta"


def test_either_layout_serves_a_pooled_reader_only_tokens_a_token_reader(toy):
    toy.fill(toy.spec())
    cache = Cache(toy.root)
    assert cache.find("toy", "train", "image", layout="pooled").layout == "tokens"
    toy.fill(toy.spec(layout="pooled"))
    assert cache.find("toy", "train", "image", layout="pooled").layout == "pooled"
    assert cache.find("toy", "train", "image", layout="tokens").layout == "tokens"
    toy.fill(toy.spec("text", layout="pooled"))
    with pytest.raises(CacheError, match=r"no text stream fits 'tokens'"):
        cache.find("toy", "train", "text", layout="tokens")


def test_streams_of_another_encoder_are_refused(toy):
    toy.fill(toy.spec())
    with pytest.raises(StreamError, match="none is of the encoder"):
        Cache(toy.root).find("toy", "train", "image", identity="0" * 64)


def test_a_missing_split_says_what_there_is(toy):
    with pytest.raises(CacheError, match=r"no toy/test; it has toy/train.*cbmf precompute toy"):
        Cache(toy.root).items("toy", "test")


def test_what_differs_between_two_streams_is_said_in_words(toy):
    old = toy.spec()
    new = toy.spec(made_of={**old.made_of, "max_length": 128}, grid=7)
    assert list(differences(old.whole, new.whole)) == [
        "encoder.max_length: 64 -> 128",
        "storage.grid: None -> 7",
    ]
    assert old.folder != new.folder
    assert old.fingerprint != new.fingerprint


def test_the_identity_forgets_storage_and_items(toy):
    spec = toy.spec()
    for change in ({"dtype": "float32"}, {"grid": 7}, {"layout": "pooled"}, {"items_digest": "x"}):
        other = toy.spec(**change)
        assert other.identity == spec.identity
        assert other.fingerprint != spec.fingerprint


def test_verify_finds_every_flipped_byte_and_every_cut(toy):
    folder = toy.fill(toy.spec())
    cache = Cache(toy.root)
    assert not [f for _, found in verify(cache) for f in found]
    rng = random.Random(0)
    for path in [*folder.glob("0*.h5"), folder / "manifest.json", toy.parent / "items.h5"] * 6:
        whole = path.read_bytes()
        place = rng.randrange(len(whole))
        harmed = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], whole[:place]]
        for content in harmed:
            path.write_bytes(content)
            bad = {f.path for _, found in verify(cache) for f in found}
            assert bad == {path}
        path.write_bytes(whole)
