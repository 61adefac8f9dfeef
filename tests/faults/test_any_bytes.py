"""Whatever the bytes of a data set's files are, its reader gives a data set or one line."""

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cbmf.cache.errors import InputError
from cbmf.precompute.dataset import arrange
from cbmf.precompute.datasets.registry import read_dataset
from cbmf.precompute.scenes import write_demo

pytestmark = pytest.mark.slow

SEPARATORS = b'\t,"\n\r{}[]:\\\0\xff\x80'
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([bytes([byte]) for byte in SEPARATORS]),
    st.sampled_from([b"../../x.jpg", b"1e999", b"NaN", b"-1", b"99999999999999999999", b"null"]),
    st.text(max_size=4).map(lambda text: text.encode("utf-16")),
)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["set", "put", "cut", "end", "twice"]), PIECES),
    min_size=1,
    max_size=4,
)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(path.name) * 7 % 256, 90, 30)).save(path)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_flickr8k(root: Path) -> None:
    names = [f"{i}_a.jpg" for i in range(6)]
    for name in names:
        picture(root / "Flicker8k_Dataset" / name)
    text = root / "Flickr8k_text"
    lines(
        text / "Flickr8k.token.txt",
        *(f"{n}#{k}\tCaption {k} of {n} ." for n in names for k in (0, 1)),
    )
    for part, some in (("train", names[:3]), ("dev", names[3:4]), ("test", names[4:])):
        lines(text / f"Flickr_8k.{part}Images.txt".replace("train", "train"), *some)


def write_cifar(root: Path, names: tuple[str, ...], keys: tuple[str, str], meta: str) -> None:
    folder = root / ("cifar-10-batches-py" if "10" in root.name[-2:] else "cifar-100-python")
    folder.mkdir(parents=True)
    classes = {keys[1].encode(): ["cat", "dog", "car"]}
    (folder / meta).write_bytes(pickle.dumps(classes, 2))
    for name in names:
        values = np.arange(3 * 3072, dtype=np.uint8).reshape(3, 3072)
        table = {b"data": values, keys[0].encode(): [0, 1, 2]}
        (folder / name).write_bytes(pickle.dumps(table, 2))


def write_tiny_imagenet(root: Path) -> None:
    for wnid in ("n01", "n02"):
        for number in range(2):
            picture(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        picture(root / "val/images" / f"val_{wnid}.JPEG")
    lines(
        root / "val/val_annotations.txt",
        *(f"val_{w}.JPEG\t{w}\t0\t0\t9\t9" for w in ("n01", "n02")),
    )
    lines(root / "wnids.txt", "n01", "n02")
    lines(root / "words.txt", "n01\tcat, house cat", "n02\tcrane")


def write_pairs(root: Path) -> None:
    for number in range(6):
        picture(root / "pics" / f"{number}.jpg")
    rows = [f'pics/{i}.jpg,"a thing, no. {i}",train' for i in range(6)]
    lines(root / "captions.csv", "image,caption,split", *rows)


def write_sentences(root: Path) -> None:
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    for name in ("train", "test"):
        path = root / f"msr_paraphrase_{name}.txt"
        lines(path, head, "1\t1\t2\tA cat.\tThe cat.", "0\t3\t4\tNo.\tYes.")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """Folder of each data set, whole."""
    root = tmp_path_factory.mktemp("layouts")
    write_demo(
        root / "demo", train=4, val=2, test=2, labelled_train=1, labelled_test=1, sentences=4
    )
    write_flickr8k(root / "flickr8k")
    write_cifar(
        root / "cifar10", ("data_batch_1", "test_batch"), ("labels", "label_names"), "batches.meta"
    )
    write_cifar(root / "cifar100", ("train", "test"), ("fine_labels", "fine_label_names"), "meta")
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(root / "cifar10" / "cifar-10-batches-py", "cifar-10-batches-py")
    (root / "cifar10-packed").mkdir()
    os.replace(root / "cifar-10-python.tar.gz", root / "cifar10-packed" / "cifar-10-python.tar.gz")
    write_tiny_imagenet(root / "tiny" / "tiny-imagenet-200")
    (root / "tiny-packed").mkdir()
    with zipfile.ZipFile(root / "tiny-packed" / "tiny-imagenet-200.zip", "w") as archive:
        for path in sorted((root / "tiny").rglob("*")):
            archive.write(path, path.relative_to(root / "tiny").as_posix())
    write_pairs(root / "pairs")
    write_sentences(root / "mrpc")
    found = {
        "coco": root / "demo" / "coco",
        "coco-text": root / "demo" / "coco",
        "imagefolder": root / "demo" / "scenes10",
        "qqp": root / "demo" / "paraphrase",
        "stsb": root / "demo" / "similarity",
        "flickr8k": root / "flickr8k",
        "flickr8k-text": root / "flickr8k",
        "cifar10": root / "cifar10",
        "cifar10 packed": root / "cifar10-packed",
        "cifar100": root / "cifar100",
        "tiny-imagenet": root / "tiny",
        "tiny-imagenet packed": root / "tiny-packed",
        "pairs": root / "pairs" / "captions.csv",
        "mrpc": root / "mrpc",
    }
    for name, place in found.items():
        assert read_all(name, place), name
    return found


def read_all(name: str, place: Path) -> int:
    """Read a data set with all its images; how many splits it has."""
    found = read_dataset(name.split()[0], place, None)
    for split in found.splits:
        ordered, _ = arrange(split)
        for column in ordered.columns.values():
            for value in column.values:
                if not isinstance(value, str):
                    look_at(value)
                else:
                    value.encode("utf-8")
    return len(found.splits)


def look_at(image) -> None:
    try:
        assert image.open().mode == "RGB"
    except InputError:
        return
    image.digest()


def changed(content: bytes, changes) -> bytes:
    for where, how, piece in changes:
        at = min(int(where * len(content)), max(0, len(content) - 1))
        if how == "set":
            content = content[:at] + piece + content[at + len(piece) :]
        elif how == "put":
            content = content[:at] + piece + content[at:]
        elif how == "cut":
            content = content[:at] + content[at + len(piece) + 1 :]
        elif how == "end":
            content = content[:at]
        else:
            content = content + content[at:]
    return content


NAMES = [
    "coco", "coco-text", "imagefolder", "qqp", "stsb", "flickr8k", "flickr8k-text", "cifar10",
    "cifar10 packed", "cifar100", "tiny-imagenet", "tiny-imagenet packed", "pairs", "mrpc",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_gives_a_data_set_or_one_line(layouts, name, long):
    place = layouts[name]
    folder = place if place.is_dir() else place.parent
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.name)
    tables = [path for path in files if path.suffix.lower() not in (".jpg", ".jpeg", ".png")]

    @settings(
        max_examples=1000 if long else 40,
        deadline=None,
        database=None,
        derandomize=not long,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        path=st.one_of(st.sampled_from(tables or files), st.sampled_from(files)), changes=CHANGES
    )
    def holds(path, changes):
        content = path.read_bytes()
        path.write_bytes(changed(content, changes))
        try:
            read_all(name, place)
        except InputError as error:
            assert str(error)
        finally:
            path.write_bytes(content)

    holds()


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_an_image_of_any_bytes_is_a_picture_or_one_line(tmp_path, kind, long):
    from cbmf.precompute.images import ImageFile

    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (1, 200, 90)).save(buffer, kind)

    @settings(max_examples=2000 if long else 60, deadline=None, database=None, derandomize=not long)
    @given(changes=CHANGES)
    def holds(changes):
        (tmp_path_of / "x").write_bytes(changed(buffer.getvalue(), changes))
        look_at(ImageFile(tmp_path_of, "x"))

    tmp_path_of = tmp_path
    holds()
