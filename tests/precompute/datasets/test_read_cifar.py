import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from small_layouts import arranged, cifar_values, picture
from split_views import images, labels

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets import cifar
from cbmf.precompute.datasets.registry import read_dataset

NAMES = ["air_plane", "bird", "cat"]


def python2_pickle(values, labels, label_key):
    """A batch as Python 2's cPickle wrote it: byte strings, protocol 2."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def whole(number):
        return b"J" + struct.pack("<i", number)

    content = values.tobytes()
    dtype = b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + short(b"|") + b"NNN" + whole(-1) + whole(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + short(b"b") + b"tR"
    array += b"(K\x01" + whole(len(values)) + whole(3072) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(content)) + content + b"tb"
    numbers = b"](" + b"".join(whole(label) for label in labels) + b"e"
    key = short(label_key.encode())
    return b"\x80\x02}(" + short(b"data") + array + key + numbers + b"u."


def python3_pickle(protocol):
    def dump(values, labels, label_key):
        return pickle.dumps({"data": values, label_key: labels}, protocol)

    return dump


@pytest.fixture
def cifar10_files():
    """Content by file name, for a given way to pickle."""

    def make(dump=python2_pickle, names_as=str.encode):
        meta = {b"label_names": [names_as(name) for name in NAMES], b"num_vis": 3072}
        return {
            "batches.meta": pickle.dumps(meta, 2),
            "data_batch_1": dump(cifar_values(4), [0, 1, 2, 0], "labels"),
            "data_batch_2": dump(cifar_values(2), [2, 1], "labels"),
            "test_batch": dump(cifar_values(3), [2, 1, 0], "labels"),
        }

    return make


def write_tar(path, files, folder="cifar-10-batches-py"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "dump",
    [python2_pickle, *(python3_pickle(p) for p in (2, 3, 4, 5))],
    ids=["python 2", *(f"python 3, protocol {p}" for p in (2, 3, 4, 5))],
)
def test_python_2_and_3_pickles_give_the_same_images(tmp_path, cifar10_files, dump):
    write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_files(dump))
    found = read_dataset("cifar10", tmp_path)
    train, test = found.splits
    assert (found.name, found.kind) == ("cifar10", "labelled")
    assert train.columns["image"].ids == [
        *(f"data_batch_1/{i:05d}" for i in range(4)),
        *(f"data_batch_2/{i:05d}" for i in range(2)),
    ]
    assert labels(train) == [0, 1, 2, 0, 2, 1]
    assert labels(test) == [2, 1, 0]
    assert test.classes == ["air plane", "bird", "cat"]
    image = images(test)[2].open()
    assert image.getpixel((0, 0)) == (2, 100, 200)
    assert image.getpixel((31, 0)) == (255, 255, 255)
    assert found.notes == [f"split train is not whole: no data_batch_{i}" for i in (3, 4, 5)]


def test_prompts_stand_on_the_test_split_only(tmp_path, cifar10_files):
    write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_files())
    train, test = read_dataset("cifar10", tmp_path).splits
    assert "prompt" not in train.columns and train.templates == []
    prompts = test.columns["prompt"]
    assert len(prompts.ids) == 3 * 19 and len(test.templates) == 19
    row = prompts.ids.index("bird/1")
    assert prompts.values[row] == "a photo of a bird."
    assert prompts.labels == [k for k in range(3) for _ in range(19)]
    assert prompts.templates == list(range(19)) * 3


def test_folder_archive_and_their_parent_read_alike(tmp_path, cifar10_files):
    files = cifar10_files()
    archive = write_tar(tmp_path / "a" / "cifar10" / "cifar-10-python.tar.gz", files)
    folder = tmp_path / "b" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    roots = [archive, archive.parent, tmp_path / "a", folder, folder.parent]
    views = [[arranged(s) for s in read_dataset("cifar10", root).splits] for root in roots]
    assert all(view == views[0] for view in views)


def test_cifar100_has_fine_classes(tmp_path):
    files = {
        "meta": pickle.dumps({"fine_label_names": NAMES, "coarse_label_names": ["x"]}),
        "train": python2_pickle(cifar_values(3), [0, 1, 2], "fine_labels"),
        "test": python2_pickle(cifar_values(2), [2, 2], "fine_labels"),
    }
    write_tar(tmp_path / "cifar-100-python.tar.gz", files, "cifar-100-python")
    train, test = read_dataset("cifar100", tmp_path).splits
    assert train.columns["image"].ids == ["train/00000", "train/00001", "train/00002"]
    assert labels(test) == [2, 2]
    assert test.classes[0] == "air plane"


def test_class_folders_are_read_too(tmp_path):
    for name in ("train/cat/1.png", "train/air_plane/1.png", "test/cat/7.PNG", "test/cat/x.txt"):
        picture(tmp_path / name) if name.lower().endswith("png") else None
    train, test = read_dataset("cifar10", tmp_path).splits
    assert train.columns["image"].ids == ["train/air_plane/1.png", "train/cat/1.png"]
    assert labels(test) == [1]
    assert test.classes == ["air plane", "cat"]


class Malicious:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_is_refused_and_never_run(tmp_path, cifar10_files):
    import os

    target = tmp_path / "was-here"
    files = cifar10_files()
    files["test_batch"] = pickle.dumps(Malicious(os.system, f"touch {target}"), 2)
    write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    name = os.system.__module__
    with pytest.raises(InputError, match=rf"test_batch: .*\(pickle names {name}\.system\)"):
        read_dataset("cifar10", tmp_path)
    assert not target.exists()
    files["test_batch"] = b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR."
    write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    with pytest.raises(InputError, match=r"not a CIFAR batch \(pickle names os\.system\)"):
        read_dataset("cifar10", tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"\x80\x04",
        b"junk",
        pickle.dumps([1]),
        pickle.dumps({"data": 1}),
        pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}),
        pickle.dumps({"data": np.zeros((1, 5), np.uint8), "labels": [0]}),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [9]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}),
        pickle.dumps({"data": np.array([None]), "labels": [0]}),
        pickle.dumps(Malicious(eval, "1")),
        pickle.dumps(Malicious(np.load, "x")),
        b"cnumpy\nndarray\n(I10\nI10\nttR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\nt" + b"b.",
        pickle.dumps(Malicious(np.load, "x")).replace(b"numpy", b"nu\n\x1by"),
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
    ],
)
def test_what_is_no_batch_is_one_line(tmp_path, cifar10_files, batch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in (cifar10_files() | {"test_batch": batch}).items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_dataset("cifar10", tmp_path)
    assert str(error.value).isprintable()


def test_a_cut_archive_and_no_archive_are_one_line(tmp_path, cifar10_files):
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_files(python3_pickle(4)))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cifar-10-python\.tar\.gz: "):
            read_dataset("cifar10", tmp_path)


def test_a_huge_member_is_refused_unread(tmp_path, cifar10_files, monkeypatch):
    write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_files())
    monkeypatch.setattr(cifar, "MEMBER_LIMIT", 1000)
    with pytest.raises(InputError, match="is over 1000 bytes"):
        read_dataset("cifar10", tmp_path)


def test_parts_that_are_missing_are_named(tmp_path, cifar10_files):
    path = tmp_path / "cifar-10-python.tar.gz"
    files = cifar10_files()
    write_tar(path, {name: files[name] for name in files if name != "test_batch"})
    assert [s.name for s in read_dataset("cifar10", tmp_path).splits] == ["train"]
    with pytest.raises(InputError, match=r"no split 'test' \(no test_batch\); there is train"):
        read_dataset("cifar10", tmp_path, ["test"])
    write_tar(path, {"test_batch": files["test_batch"]})
    with pytest.raises(InputError, match=r"found test_batch, but no batches\.meta"):
        read_dataset("cifar10", tmp_path)
    write_tar(path, {"batches.meta": files["batches.meta"]})
    with pytest.raises(InputError, match=r"found batches\.meta, but no data_batch_1"):
        read_dataset("cifar10", tmp_path)


def test_nothing_there_says_where_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"no cifar-10-python.tar.gz.*cs\.toronto\.edu"):
        read_dataset("cifar10", tmp_path)
