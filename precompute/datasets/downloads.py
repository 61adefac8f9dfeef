"""What `--download` fetches for each data set, and from where.

Checksums are those that others publish for the official files (torchvision, torchtext, Paddle,
GLUE's loaders; docs/datasets.md names them). Where no two independent ones were found, there is
none here, and the digest of a first download is kept beside the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..download import Wanted
from .karpathy import WHERE as _KARPATHY

_COCO = "http://images.cocodataset.org"
_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
_KRIZ = "https://www.cs.toronto.edu/~kriz"
_SENTEVAL = "https://dl.fbaipublicfiles.com/senteval/senteval_data"


@dataclass(frozen=True)
class Piece:
    """One file of a data set, kept as it is or unpacked."""

    wanted: Wanted
    gives: tuple[str, ...] = ()
    """Paths below the data set's folder that unpacking gives; empty: read as it is."""
    only: tuple[str, ...] = ()
    """Patterns of the members to unpack; empty for all."""
    below: str = ""
    """Folder that it is unpacked into."""
    instead: tuple[str, ...] = ()
    """Paths each of which stands for it: it is not fetched where one is there."""
    splits: tuple[str, ...] = ()
    """Splits that need it; empty for all."""

    @property
    def file(self) -> str:
        """Its name."""
        return urlsplit(self.wanted.url).path.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    pieces: tuple[Piece, ...]
    terms: str
    """One line: what its makers allow."""
    folder: str
    """Name of its folder below `$CBMF_DATA`."""
    karpathy: Piece | None = None
    """Karpathy's split file, on demand."""


def _kept(url: str, digest: str, size_bytes: int | None = None, *instead: str) -> Piece:
    return Piece(Wanted(url, digest, size_bytes), instead=instead)


def _karpathy(file: str) -> Piece:
    places = (f"karpathy/{file}", f"annotations/{file}", f"Flickr8k_text/{file}", f"text/{file}")
    return Piece(Wanted(_KARPATHY), gives=(file,), only=(file,), instead=places)


def _coco_images(part: str, year: str, digest: str) -> Piece:
    name = f"{part}{year}"
    url = f"{_COCO}/zips/{name}.zip"
    places = (f"images/{name}",)
    return Piece(Wanted(url, digest), (name,), (f"{name}/*",), instead=places, splits=(part,))


def _coco_captions(year: str, digest: str) -> Piece:
    files = tuple(f"annotations/captions_{part}{year}.json" for part in ("train", "val"))
    url = f"{_COCO}/annotations/annotations_trainval{year}.zip"
    return Piece(Wanted(url, digest), gives=files, only=files)


_COCO_TERMS = "annotations CC BY 4.0; images under Flickr's terms of use (cocodataset.org)"
_COCO_2017_CAPTIONS = _coco_captions("2017", "md5:f4bbac642086de4f52a3fdda2de5fa2c")
_COCO_2017 = Source(
    (
        _COCO_2017_CAPTIONS,
        _coco_images("val", "2017", "md5:442b8da7639aecaf257c1dceb8ba8c80"),
        _coco_images("train", "2017", "md5:cced6f7f71b7629ddf16f17bbcfab6b2"),
    ),
    _COCO_TERMS,
    "coco",
    _karpathy("dataset_coco.json"),
)
_COCO_2014 = Source(
    (
        _coco_captions("2014", "md5:0a379cfc70b0e71301e0f377548639bd"),
        _coco_images("val", "2014", "md5:a3d79f5ed8d289b7a7554ce06a5782b3"),
        _coco_images("train", "2014", "md5:0da8c0bd3d6becc4dcb32757491aca88"),
    ),
    _COCO_TERMS,
    "coco",
    _karpathy("dataset_coco.json"),
)
_FLICKR8K_TERMS = (
    "non-commercial research and education only; images remain their photographers' (Flickr)"
)
_FLICKR8K_TEXT = Piece(
    Wanted(f"{_FLICKR8K}/Flickr8k_text.zip", "md5:bf6c1abcb8e4a833b7f922104de18627"),
    gives=("Flickr8k_text",),
    below="Flickr8k_text",
    instead=("Flickr8k.token.txt", "captions.txt", "text"),
)
_FLICKR8K_IMAGES = Piece(
    Wanted(f"{_FLICKR8K}/Flickr8k_Dataset.zip", "md5:f18a1e2920de5bd84dae7cf08ec78978"),
    gives=("Flicker8k_Dataset",),
    instead=("Images", "Flickr8k_Dataset", "images"),
)

DOWNLOADS: dict[str, Source] = {
    "coco": _COCO_2017,
    "coco2017": _COCO_2017,
    "coco2014": _COCO_2014,
    "coco-text": Source((_COCO_2017_CAPTIONS,), _COCO_TERMS, "coco"),
    "flickr8k": Source(
        (_FLICKR8K_TEXT, _FLICKR8K_IMAGES),
        _FLICKR8K_TERMS,
        "flickr8k",
        _karpathy("dataset_flickr8k.json"),
    ),
    "flickr8k-text": Source((_FLICKR8K_TEXT,), _FLICKR8K_TERMS, "flickr8k"),
    "cifar10": Source(
        (
            _kept(
                f"{_KRIZ}/cifar-10-python.tar.gz",
                "md5:c58f30108f718f92721af3b95e74349a",
                170_498_071,
                "cifar-10-batches-py",
                "batches.meta",
                "cifar-10-python.tar",
            ),
        ),
        "no licence stated; cite Krizhevsky, 2009 (www.cs.toronto.edu/~kriz/cifar.html)",
        "cifar10",
    ),
    "cifar100": Source(
        (
            _kept(
                f"{_KRIZ}/cifar-100-python.tar.gz",
                "md5:eb9058c3a382ffc7106e4002c42a8d85",
                None,
                "cifar-100-python",
                "meta",
                "cifar-100-python.tar",
            ),
        ),
        "no licence stated; cite Krizhevsky, 2009 (www.cs.toronto.edu/~kriz/cifar.html)",
        "cifar100",
    ),
    "tiny-imagenet": Source(
        (
            _kept(
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "md5:90528d7ca1a48142e341f4ef8d21d0de",
                248_100_043,
                "tiny-imagenet-200",
                "wnids.txt",
            ),
        ),
        "of ImageNet: non-commercial research and education only (image-net.org)",
        "tiny-imagenet",
    ),
    "qqp": Source(
        (
            Piece(
                Wanted(
                    "https://dl.fbaipublicfiles.com/glue/data/QQP-clean.zip",
                    "sha256:40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0",
                ),
                gives=("QQP/train.tsv", "QQP/dev.tsv"),
                only=("QQP/train.tsv", "QQP/dev.tsv"),
                instead=("train.tsv", "quora_duplicate_questions.tsv"),
            ),
        ),
        "Quora's terms of service: non-commercial use (www.quora.com/about/tos)",
        "qqp",
    ),
    "mrpc": Source(
        (
            _kept(
                f"{_SENTEVAL}/msr_paraphrase_train.txt",
                "sha256:60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
                1_047_044,
                "train.tsv",
            ),
            _kept(
                f"{_SENTEVAL}/msr_paraphrase_test.txt",
                "sha256:a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
                441_275,
            ),
        ),
        "Microsoft Research's licence for the Paraphrase Corpus: research use",
        "mrpc",
    ),
    "stsb": Source(
        (
            Piece(
                Wanted(
                    "http://ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz",
                    "md5:4eb0065aba063ef77873d3a9c8088811",
                ),
                gives=("stsbenchmark",),
                instead=("sts-train.csv", "train.tsv"),
            ),
        ),
        "CC BY-SA 4.0; its parts under the licences that LICENSE.txt in it names",
        "stsb",
    ),
}
"""By the name of the data set."""
