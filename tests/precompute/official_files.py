"""Tiny data sets as their official hosts would have them: by host and path, the bytes of a file."""

import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
from PIL import Image

COCO, FLICKR = "images.cocodataset.org", "github.com/jbrownlee/Datasets/releases/download/Flickr8k"
KARPATHY = "cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
SENTEVAL = "dl.fbaipublicfiles.com/senteval/senteval_data"
MRPC_HEAD = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def jpeg(number: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (9, 7), (number * 40 % 256, 90, 30)).save(content, "JPEG")
    return content.getvalue()


def zipped(members) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return content.getvalue()


def tarred(members) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, part in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return content.getvalue()


def cifar(folder, meta, names_key, label_key, batches) -> bytes:
    rows = np.random.default_rng(0).integers(0, 255, (6, 3072), np.uint8)
    batch = pickle.dumps({"data": rows, label_key: [0, 1, 2, 0, 1, 2]})
    names = pickle.dumps({names_key: ["cat", "dog", "tree"]})
    return tarred({f"{folder}/{meta}": names, **{f"{folder}/{name}": batch for name in batches}})


def tiny_imagenet() -> bytes:
    top = "tiny-imagenet-200"
    members: dict = {f"{top}/wnids.txt": "n1\nn2\n", f"{top}/words.txt": "n1\tcat\nn2\tdog\n"}
    for number, wnid in enumerate(("n1", "n2")):
        members[f"{top}/train/{wnid}/images/{wnid}_0.JPEG"] = jpeg(number)
        members[f"{top}/val/images/val_{number}.JPEG"] = jpeg(number + 2)
    members[f"{top}/val/val_annotations.txt"] = "val_0.JPEG\tn1\t0\nval_1.JPEG\tn2\t0\n"
    return zipped(members)


def coco(year: str) -> dict[str, bytes]:
    tables, files = {"annotations/instances_val2017.json": "{}"}, {}
    for first, part in ((0, "train"), (10, "val")):
        ids = range(first, first + 4)
        table = {
            "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids],
            "annotations": [{"id": i, "image_id": i, "caption": f"picture {i}"} for i in ids],
        }
        tables[f"annotations/captions_{part}{year}.json"] = json.dumps(table)
        pictures = {f"{part}{year}/{i:012d}.jpg": jpeg(i) for i in ids}
        files[f"{COCO}/zips/{part}{year}.zip"] = zipped(pictures)
    files[f"{COCO}/annotations/annotations_trainval{year}.zip"] = zipped(tables)
    return files


def flickr8k() -> dict[str, bytes]:
    names = [f"{i}.jpg" for i in range(6)]
    texts = {
        "Flickr8k.token.txt": "".join(f"{n}#0\ta picture of {n}\n" for n in names),
        "Flickr_8k.trainImages.txt": "0.jpg\n1.jpg\n2.jpg\n3.jpg\n",
        "Flickr_8k.devImages.txt": "4.jpg\n",
        "Flickr_8k.testImages.txt": "5.jpg\n",
        "__MACOSX/._Flickr8k.token.txt": "",
    }
    pictures = {f"Flicker8k_Dataset/{name}": jpeg(i) for i, name in enumerate(names)}
    return {
        f"{FLICKR}/Flickr8k_text.zip": zipped(texts),
        f"{FLICKR}/Flickr8k_Dataset.zip": zipped(pictures | {"__MACOSX/._x": b""}),
    }


def karpathy() -> bytes:
    images = [
        {
            "cocoid": i,
            "filepath": f"{part}2014",
            "filename": f"COCO_{part}2014_{i:012d}.jpg",
            "split": split,
            "sentences": [{"sentid": i, "raw": f"picture {i}"}],
        }
        for i, part, split in [(0, "train", "train"), (10, "val", "val"), (11, "val", "test")]
    ]
    return zipped({"dataset_coco.json": json.dumps({"images": images}), "other.json": "{}"})


def sentences() -> dict[str, bytes]:
    qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tis it?\tit is?\t1\n"
    sts = "main\tf\t2012\t1\t2.5\ta man\ta woman\n"
    tables = {f"stsbenchmark/sts-{part}.csv": sts.encode() for part in ("train", "dev", "test")}
    glue = {f"QQP/{name}.tsv": qqp for name in ("train", "dev", "test")}
    return {
        f"{SENTEVAL}/msr_paraphrase_train.txt": f"{MRPC_HEAD}1\t1\t2\tone\tother\n".encode(),
        f"{SENTEVAL}/msr_paraphrase_test.txt": f"{MRPC_HEAD}0\t3\t4\tthis\tthat\n".encode(),
        "dl.fbaipublicfiles.com/glue/data/QQP-clean.zip": zipped(glue),
        "ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz": tarred(tables),
    }


def official_files() -> dict[str, bytes]:
    """Every file that the table of downloads names."""
    ten = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    kriz = "www.cs.toronto.edu/~kriz"
    return {
        f"{kriz}/cifar-10-python.tar.gz": cifar(
            "cifar-10-batches-py", "batches.meta", "label_names", "labels", ten
        ),
        f"{kriz}/cifar-100-python.tar.gz": cifar(
            "cifar-100-python", "meta", "fine_label_names", "fine_labels", ["train", "test"]
        ),
        "cs231n.stanford.edu/tiny-imagenet-200.zip": tiny_imagenet(),
        KARPATHY: karpathy(),
        **coco("2017"),
        **coco("2014"),
        **flickr8k(),
        **sentences(),
    }
