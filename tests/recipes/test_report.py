"""The page of `cbmf report`: what stands on it, and that nothing breaks out of it."""

import csv
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import InputError
from cbmf.evaluate.suite import evaluate
from cbmf.precompute.stage import Request, precompute
from cbmf.recipes.report import write_report
from cbmf.train.config import preset
from cbmf.train.fit import fit

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "br", "hr", "input", "link"}
URL_ATTRIBUTES = ("src", "href", "xlink:href", "srcset", "poster", "action", "data", "background")


class Page(HTMLParser):
    """Tags and attributes of a page, its texts, and whether every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def words(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def pictures(self):
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


def assert_alone(page):
    """Nothing is loaded from elsewhere, and nothing can run."""
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for _, name, value in page.attributes:
        if name in URL_ATTRIBUTES:
            assert value.startswith(("data:image/jpeg;base64,", "#")), value[:60]
        assert not re.search(r"url\((?!#)", value) or name == "content"
    assert "@import" not in page.text and "default-src 'none'" in page.text
    style = page.text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "prefers-color-scheme: dark" in style


@pytest.fixture
def own(maker, tmp_path):
    """Cache and a copy of a run that tests may write into."""
    cache, run = maker("pooled")
    return cache, shutil.copytree(run.folder, tmp_path / "run-0")


def test_a_page_has_figures_curves_pictures_and_what_makes_it_again(own, drawn, tmp_path):
    cache, folder = own
    page = Page(write_report([folder], cache, tmp_path / "r.html", root=drawn))
    assert_alone(page)
    for words in (
        "In short",
        "COCO, recall at k",
        "linear heads",
        "How the fit went",
        "Pairs against random pairs, on coco2017/test",
        "The gap between modalities",
        "image → text: right at once in",
        "text → image: right at once in",
        "To make it again",
    ):
        assert words.lower() in page.words.lower(), words
    assert page.tags.count("svg") == 6
    assert len(page.pictures) > 10
    commands = page.text.partition("<pre>")[2].partition("</pre>")[0]
    assert "cbmf precompute coco2017" in commands and "--text demo-bert" in commands
    assert "cbmf fit" in commands and "--epochs 3" in commands and "width=32" in commands
    assert "cbmf evaluate all --run" in commands
    assert "Left out" not in page.words and "Without pictures" not in page.words
    assert (tmp_path / "r.html").stat().st_size < 3 * 2**20


def test_the_same_run_makes_the_same_page(own, drawn, tmp_path):
    cache, folder = own
    texts = [
        write_report([folder], cache, tmp_path / name, root=drawn).read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert texts[0] == texts[1]


def test_without_images_names_and_captions_stand_in_their_place(own, tmp_path, monkeypatch):
    cache, folder = own
    monkeypatch.setenv("CBMF_DATA", str(tmp_path / "nowhere"))
    page = Page(write_report([folder], cache, tmp_path / "r.html"))
    assert page.pictures == []
    assert "Without pictures: name the folder of the data set with --root" in page.words
    items = cache.items("coco2017", "test")
    named = [name for name in items.columns["image"].values if name in page.words]
    told = [text for text in items.columns["text"].values if text in page.words]
    assert len(named) > 3 and len(told) > 3


def test_images_that_were_not_the_encoded_ones_are_not_shown(own, drawn, tmp_path):
    cache, folder = own
    root = shutil.copytree(drawn / "coco", tmp_path / "coco")
    for path in root.rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")
    assert Page(write_report([folder], cache, tmp_path / "r.html", root=root)).pictures == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Cache, run and table of pairs whose captions, file names and table are markup."""
    home = tmp_path_factory.mktemp("hostile")
    folder = home / "<b onclick=x>"
    folder.mkdir()
    rows = []
    for number in range(40):
        name = f"<img src=x onerror=alert({number})>.png"
        Image.new("RGB", (24, 24), (6 * number, 200 - 5 * number, 90)).save(folder / name)
        split = "train" if number < 24 else "val" if number < 32 else "test"
        rows += [[name, f"{EVIL} {{{{7*7}}}} $x_{{$ number {number} of {k}", split] for k in (0, 1)]
    with (folder / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "split"], *rows])

    class Quiet:
        def __getattr__(self, name):
            return lambda *args, **options: None

    request = Request(
        "pairs",
        root=folder / "mine.csv",
        text=("demo-bert",),
        image=("demo-vit",),
        cache_root=home / "cache",
    )
    precompute(request, Quiet())
    cache = Cache(home / "cache")
    small = {"epochs": 1, "width": 16, "ffn_width": 16, "batch_size": 8}
    run = fit(cache, preset("best", layout="pooled", **small), out=home / "<i>run", dataset="mine")
    evaluate(cache, run, ["retrieval"])
    return cache, run.folder, folder / "mine.csv"


def test_markup_in_captions_file_names_and_folders_stays_text(hostile, tmp_path):
    cache, folder, table = hostile
    page = Page(write_report([folder], cache, tmp_path / "r.html", root=table))
    assert_alone(page)
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3"),
        *("h4", "p", "section", "ul", "ol", "li", "div", "span", "b", "small", "figure", "svg"),
        *("figcaption", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"),
        *("img", "footer", "defs", "path", "g", "use", "text", "clippath", "rect"),
    }
    assert "<script>alert(1)</script><img src=x onerror=alert(2)> {{7*7}}" in page.words
    assert "onerror=alert(3" in page.words and page.pictures
    bare = Page(write_report([folder], cache, tmp_path / "bare.html", root=tmp_path))
    assert_alone(bare)
    assert "<img src=x onerror=alert(" in bare.words and bare.pictures == []


@pytest.mark.slow
def test_several_runs_share_tables_and_have_a_section_each(own, drawn, tmp_path):
    cache, folder = own
    small = {"epochs": 2, "width": 16, "ffn_width": 32, "batch_size": 32}
    folders = [folder]
    for name, seed, fusion in (("mul-0", 0, "mul"), ("mul-1", 1, "mul")):
        config = preset("best", layout="pooled", seed=seed, fusion=fusion, **small)
        run = fit(cache, config, out=tmp_path / name)
        evaluate(cache, run, ["retrieval"])
        folders.append(run.folder)
    page = Page(write_report(folders, cache, tmp_path / "r.html", root=drawn))
    assert_alone(page)
    headings = [t for t in page.texts if t in ("run-0", "mul-0", "mul-1")]
    assert len(headings) >= 6  # a link and a section each
    table = page.text.partition("Beside the paper")[2].partition("</table>")[0]
    systems = [" ".join(s.split()) for s in re.findall(r'<th scope="row">([^<]*)</th>', table)]
    assert systems.count("cbmf-add") == 1 and systems.count("cbmf-mul") == 1
    assert "linear heads, beside cbmf-add" in systems
    assert "σ" in table  # over the two seeds of one system


def test_a_run_that_was_not_scored_or_whose_cache_is_gone_is_shown_as_far_as_it_goes(own, tmp_path):
    _, folder = own
    shutil.rmtree(folder / "results")
    page = Page(write_report([folder], Cache(tmp_path / "empty"), tmp_path / "r.html"))
    assert "How the fit went" in page.words and "Left out" in page.words
    assert "cbmf evaluate all --run" in page.words
    assert "pairs:" in page.words


def test_a_run_named_twice_is_refused(own, tmp_path):
    cache, folder = own
    with pytest.raises(InputError, match="each once"):
        write_report([folder, folder], cache, tmp_path / "r.html")


@pytest.mark.slow
def test_the_command_writes_beside_the_run_and_says_where(own, drawn, tmp_path):
    cache, folder = own
    words = [sys.executable, "-m", "cbmf", "report", folder, "--cache", cache.root, "--root", drawn]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"report: {folder}/report.html" in done.stdout
    assert_alone(Page(folder / "report.html"))
    none = subprocess.run(
        list(map(str, [*words[:4], tmp_path / "none"])), capture_output=True, text=True, check=False
    )
    assert none.returncode == 1 and none.stderr.count("\n") == 1
