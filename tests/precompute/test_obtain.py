"""Whole data sets, as tiny versions of their official archives, from a mirror on this machine."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Notes, serving
from official_files import FLICKR, KARPATHY, official_files, zipped
from typer.testing import CliRunner

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import DiskFullError, InputError
from cbmf.cli import app
from cbmf.precompute.datasets.downloads import DOWNLOADS, Piece
from cbmf.precompute.datasets.obtain import obtain
from cbmf.precompute.datasets.registry import DATASETS, read_dataset
from cbmf.precompute.demo import DEMO_ENCODERS
from cbmf.precompute.web import DownloadError


@pytest.fixture(scope="module")
def official() -> dict[str, bytes]:
    return official_files()


@pytest.fixture
def site(official, monkeypatch, tmp_path):
    """A mirror of the official hosts; the table expects the checksums of its tiny files."""

    def tiny(piece: Piece) -> Piece:
        content = official[piece.wanted.url.partition("://")[2]]
        algorithm, _, there = (piece.wanted.digest or "").partition(":")
        digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}" if there else None
        size = len(content) if piece.wanted.size_bytes else None
        return replace(piece, wanted=replace(piece.wanted, digest=digest, size_bytes=size))

    for name, source in DOWNLOADS.items():
        pieces = tuple(tiny(piece) for piece in source.pieces)
        monkeypatch.setitem(DOWNLOADS, name, replace(source, pieces=pieces))
    with serving() as site:
        site.files = {f"/mirror/{path}": content for path, content in official.items()}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("CBMF_MIRROR", f"{site.address}/mirror/")
        monkeypatch.setenv("CBMF_DATA", str(tmp_path / "data"))
        yield site


def counts(dataset):
    return {s.name: len(next(iter(s.columns.values())).ids) for s in dataset.splits}


EXPECTED = {
    "cifar10": {"train": 30, "test": 6},
    "cifar100": {"train": 6, "test": 6},
    "tiny-imagenet": {"train": 2, "val": 2},
    "coco": {"train": 4, "val": 4},
    "coco2014": {"train": 4, "val": 4},
    "flickr8k": {"train": 4, "val": 1, "test": 1},
    "mrpc": {"train": 2, "test": 2},
    "qqp": {"train": 2, "val": 2},
    "stsb": {"train": 2, "val": 2, "test": 2},
}


@pytest.mark.parametrize("with_root", [True, False])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_data_set_is_fetched_so_that_its_reader_finds_it_and_only_once(
    site, tmp_path, name, with_root
):
    root = tmp_path / "elsewhere" if with_root else None
    notes = Notes()
    assert obtain(name, root, None, notes)
    assert counts(read_dataset(name, root)) == EXPECTED[name]
    home = root or tmp_path / "data" / DOWNLOADS[name].folder
    assert home == notes.errands[0].home
    assert all(size for _, _, size in notes.errands[0].pieces)
    assert not [entry for entry in os.listdir(home) if entry.startswith(".")]
    assert not (home / "__MACOSX").exists()
    asked = len(site.asked)
    assert obtain(name, root, None, notes)
    assert len(site.asked) == asked, "a second time nothing is asked for, not even sizes"
    assert notes.errands[1].pieces == []


def test_the_true_table_names_the_official_addresses_alone():
    """The registry tells people the same hosts."""
    assert set(DOWNLOADS) - {"coco-text", "flickr8k-text"} == set(DATASETS) - {
        "pairs",
        "imagefolder",
        *(name for name in DATASETS if name.endswith("-text")),
    }
    for name in set(DOWNLOADS) & set(DATASETS):
        for piece in DOWNLOADS[name].pieces:
            assert piece.file in DATASETS[name].source
            algorithm, _, digest = (piece.wanted.digest or "").partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[algorithm]


def test_only_what_the_asked_splits_need_is_fetched(site, tmp_path):
    obtain("coco", tmp_path / "coco", ["validation"], Notes())
    assert not any("train2017.zip" in path for path, _ in site.bodies())
    assert counts(read_dataset("coco", tmp_path / "coco")) == {"val": 4}


def test_karpathys_split_comes_on_demand(site, tmp_path, official):
    obtain("coco2014", tmp_path, ["test"], Notes(), karpathy=True)
    assert (tmp_path / "dataset_coco.json").is_file() and not (tmp_path / "other.json").exists()
    assert {path.rpartition("/")[2] for path, _ in site.bodies()} == {
        "caption_datasets.zip",
        "annotations_trainval2014.zip",
        "train2014.zip",
        "val2014.zip",
    }
    record = tmp_path / ".download" / "caption_datasets.zip.sha256"
    assert record.read_text().startswith(hashlib.sha256(official[KARPATHY]).hexdigest())
    with pytest.raises(InputError, match="leave --karpathy out"):
        obtain("mrpc", tmp_path, None, Notes(), karpathy=True)


@pytest.mark.parametrize(
    ("name", "files"),
    [("coco-text", {"annotations_trainval2017.zip"}), ("flickr8k-text", {"Flickr8k_text.zip"})],
)
def test_texts_alone_need_no_images(site, tmp_path, name, files):
    obtain(name, tmp_path, None, Notes())
    assert {path.rpartition("/")[2] for path, _ in site.bodies()} == files


def test_an_archive_that_lies_there_is_used_and_kept(site, tmp_path, official):
    own = tmp_path / "Flickr8k_text.zip"
    own.write_bytes(official[f"{FLICKR}/Flickr8k_text.zip"])
    obtain("flickr8k", tmp_path, None, Notes())
    assert own.is_file()
    assert [path.rpartition("/")[2] for path, _ in site.bodies()] == ["Flickr8k_Dataset.zip"]


def test_what_stands_for_an_archive_is_enough(site, tmp_path):
    (tmp_path / "tiny-imagenet-200").mkdir()
    obtain("tiny-imagenet", tmp_path, None, Notes())
    assert not site.asked


def test_a_folder_that_is_there_under_another_usual_name_is_filled(site, tmp_path):
    (tmp_path / "data" / "MSCOCO" / "train2017").mkdir(parents=True)
    notes = Notes()
    obtain("coco", None, ["val"], notes)
    assert notes.errands[0].home == tmp_path / "data" / "MSCOCO"


def test_a_wrong_archive_is_not_unpacked(site, tmp_path):
    path = f"/mirror/{FLICKR}/Flickr8k_text.zip"
    site.files[path] = zipped({"Flickr8k.token.txt": "another"})
    with pytest.raises(DownloadError, match="what came is not kept"):
        obtain("flickr8k", tmp_path, None, Notes())
    assert os.listdir(tmp_path / ".download") == []
    assert os.listdir(tmp_path) == [".download"]


@pytest.mark.parametrize("name", ["pairs", "imagefolder", "demo"])
def test_what_has_no_host_is_refused(site, tmp_path, name):
    with pytest.raises(InputError, match="nothing to fetch"):
        obtain(name, tmp_path, None, Notes())


def test_a_mirror_must_be_http(site, tmp_path, monkeypatch):
    monkeypatch.setenv("CBMF_MIRROR", "file:///srv")
    with pytest.raises(InputError, match="CBMF_MIRROR=file:///srv"):
        obtain("mrpc", tmp_path, None, Notes())


def test_a_disk_too_small_for_packed_and_unpacked_is_said_before_a_byte(site, tmp_path):
    site.declared = 10**15
    with pytest.raises(DiskFullError, match="fetched and unpacked"):
        obtain("coco2014", tmp_path, None, Notes())
    assert not site.bodies()


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.slow
def test_the_command_line_fetches_and_encodes(site, tmp_path):
    words = [
        *("precompute", "cifar10", "--download", "--cache", str(tmp_path / "cache")),
        *("--text", str(DEMO_ENCODERS["text"]), "--image", str(DEMO_ENCODERS["image"])),
    ]
    planned = run(*words, "--dry-run")
    assert "dry run: nothing written" in planned and not site.bodies()
    shown = run(*words)
    url = f"{site.address}/mirror/www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert url in shown and "MiB, md5:" in shown and "terms: no licence stated" in shown
    assert "its checksum is right" in shown and "items encoded" in shown
    assert Cache(tmp_path / "cache").splits() == [("cifar10", "test"), ("cifar10", "train")]
    again = run(*words)
    assert "nothing to fetch" in again and "nothing to encode" in again
    assert len(site.bodies()) == 1


def test_wrong_use_of_the_command_line_is_one_line(site, tmp_path):
    assert "goes with --download" in run("precompute", "coco", "--karpathy", code=2)
    assert "nothing to fetch" in run("precompute", "pairs", "--download", code=1)
    file = Path(tmp_path / "a.tar.gz")
    file.touch()
    out = run("precompute", "cifar10", "--download", "--root", str(file), code=1)
    assert "needs a folder" in out and len(out.strip().splitlines()) == 1
