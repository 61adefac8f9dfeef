"""`cbmf search`: by words and by a picture, and what it refuses."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_report import EVIL, Page, assert_alone

from cbmf.cache.errors import InputError
from cbmf.evaluate.projections import projected
from cbmf.recipes.search import Query, search, write_gallery


@pytest.fixture(params=["pooled", "tokens"])
def own(request, maker, tmp_path):
    cache, run = maker(request.param)
    return cache, shutil.copytree(run.folder, tmp_path / "run-0"), run


@pytest.fixture
def pooled(maker, tmp_path):
    cache, run = maker("pooled")
    return cache, shutil.copytree(run.folder, tmp_path / "run-0"), run


def test_a_cached_text_finds_itself_and_what_the_cached_rows_say(own):
    cache, folder, run = own
    items = cache.items("coco2017", "test")
    (images,) = cache.streams("coco2017", "test", "image")
    (texts,) = cache.streams("coco2017", "test", "text")
    rows = [projected(run, run.model, place, s).numpy() for place, s in enumerate((images, texts))]
    caption = items.columns["text"].values[7]
    answer = search(cache, folder, Query(text=caption, find="text", count=5))
    assert answer.cosines[0] > 0.999 and answer.total == len(items.columns["text"].ids)
    assert items.columns["text"].values[answer.rows[0]] == caption
    across = search(cache, folder, Query(text=caption, count=5))
    order = np.argsort(-(rows[1][7] @ rows[0].T))
    assert across.column == "image" and across.rows == order[:5].tolist()


def test_a_picture_finds_itself_and_its_captions_stand_beside(own, drawn):
    cache, folder, _ = own
    items = cache.items("coco2017", "test")
    image = items.columns["image"]
    path = next((drawn / "coco").rglob(image.values[3].rpartition("/")[2]))
    answer = search(cache, folder, Query(image=path, find="image", count=3))
    assert answer.rows[0] == 3 and answer.cosines[0] > 0.999
    card = answer.cards(None)[0]
    partners = [items.columns["text"].values[t] for i, t in items.pairs.rows if i == 3]
    assert (card.rank, card.text) == (1, image.values[3]) and card.about in partners
    texts = search(cache, folder, Query(image=path, count=3))
    assert texts.column == "text" and len(texts.rows) == 3


def test_faiss_finds_the_same(pooled):
    pytest.importorskip("faiss")
    cache, folder, _ = pooled
    ways = [search(cache, folder, Query(text="a red car", index=i)) for i in ("exact", "faiss")]
    assert ways[0].rows == ways[1].rows
    assert ways[0].cosines == pytest.approx(ways[1].cosines, abs=2e-3)


def test_a_gallery_has_pictures_and_escapes_the_query(pooled, drawn, tmp_path):
    cache, folder, _ = pooled
    answer = search(cache, folder, Query(text=EVIL, count=6))
    page = Page(write_gallery(answer, tmp_path / "s.html", drawn))
    assert_alone(page)
    assert len(page.pictures) == 6 and EVIL in page.words
    bare = Page(write_gallery(answer, tmp_path / "bare.html", tmp_path))
    assert bare.pictures == [] and "Without pictures" in bare.words
    assert answer.cards(None)[0].text in bare.words


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "a text or .*--image"),
        ({"text": "a", "image": "b"}, "one of the two"),
        ({"text": "a", "find": "sound"}, "image or text"),
        ({"text": "a", "index": "magic"}, "exact or faiss"),
        ({"text": "a", "count": 0}, "at least 1"),
    ],
)
def test_a_query_that_cannot_be_is_refused(query, said):
    with pytest.raises(InputError, match=said):
        Query(**query)


def test_another_encoder_is_refused_and_the_right_one_may_be_named(pooled, tmp_path):
    from cbmf.precompute.scenes import demo_encoder

    cache, folder, _ = pooled
    with pytest.raises(InputError, match=r"demo-roberta: not the demo-bert"):
        search(cache, folder, Query(text="a car", encoder="demo-roberta"))
    moved = shutil.copytree(demo_encoder("demo-bert"), tmp_path / "elsewhere")
    found = search(cache, folder, Query(text="a car", encoder=str(moved)))
    assert found.rows == search(cache, folder, Query(text="a car")).rows


def test_what_is_no_picture_is_refused(pooled, tmp_path):
    cache, folder, _ = pooled
    (tmp_path / "x.jpg").write_text("no picture")
    for name in ("x.jpg", "none.jpg"):
        with pytest.raises(InputError, match=name):
            search(cache, folder, Query(image=tmp_path / name))


ONE_ENCODER = """
import sys
from cbmf.precompute import encoders
loaded, real = [], encoders.load_model
def load(name, modality):
    loaded.append(modality)
    return real(name, modality)
encoders.load_model = load
from cbmf.cli import main
try: main()
except SystemExit as end: assert not end.code
assert loaded == ["text"], loaded
"""


@pytest.mark.slow
def test_the_command_prints_a_table_and_loads_the_one_encoder_that_it_needs(pooled, tmp_path):
    cache, folder, _ = pooled
    words = ["search", folder, "a red [bold]car[/bold]", "--cache", cache.root, "-k", "4"]
    done = subprocess.run(
        [sys.executable, "-c", ONE_ENCODER, *map(str, words), "--html", str(tmp_path / "s.html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r" *cosine +file +caption", lines[0])
    ranks = [found[1] for line in lines if (found := re.match(r" *(\d+) +-?\d\.\d{3} ", line))]
    assert ranks == ["1", "2", "3", "4"]
    assert "of 20 images of coco2017/test, run run-0" in done.stdout
    assert_alone(Page(tmp_path / "s.html"))
