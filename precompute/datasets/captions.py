"""From images and captions to a split: what cannot be used is left out, with the reason."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from ...cache.errors import InputError
from ..dataset import LeftOut, SourceColumn, SourcePairs, Split
from ..images import ImageSource
from .source import first_reason, printable, text_fault

NO_FILE = "no such file"


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption as its file has it."""

    item_id: str
    image_id: str
    text: object
    """A string, if the file is in order."""


def caption_split(
    name: str,
    images: Mapping[str, ImageSource | str],
    captions: Iterable[Caption],
    left_out: Iterable[LeftOut],
    where: str,
) -> Split:
    """An image-text split. Captions of images that are not in it are passed over.

    Args:
        name: Name of the split.
        images: By image id the image, or the reason why there is none.
        captions: Captions, in any order.
        left_out: What the reading of the files has left out.
        where: File or folder, for error lines.

    Raises:
        InputError: If a caption id stands twice, or nothing usable remains.
    """
    left = list(left_out)
    there = {image_id for image_id, image in images.items() if not isinstance(image, str)}
    taken, texts = _take(there, captions, left, where)
    described = {caption.image_id for caption in taken}
    for image_id, image in images.items():
        if isinstance(image, str):
            left.append(LeftOut("image", printable(image_id), image))
        elif image_id not in described:
            left.append(LeftOut("image", image_id, "no caption"))
    if not taken:
        raise InputError(
            f"{where}: no image with a caption in split {name!r}; {first_reason(left)}"
        )
    image_ids = [image_id for image_id in images if image_id in described]
    sources = [source for i in image_ids if not isinstance(source := images[i], str)]
    groups = [caption.image_id for caption in taken]
    return Split(
        name=name,
        columns={
            "image": SourceColumn("image", image_ids, sources),
            "text": SourceColumn("text", [c.item_id for c in taken], texts, groups),
        },
        pairs=SourcePairs("image", "text", [(c.image_id, c.item_id) for c in taken]),
        left_out=left,
    )


def text_split(
    name: str,
    images: Container[str],
    captions: Iterable[Caption],
    left_out: Iterable[LeftOut],
    where: str,
) -> Split:
    """A split of captions alone, grouped by their images, which need not be there. No pairs yet.

    Args:
        name: Name of the split.
        images: Ids of the split's images; other captions are passed over.
        captions: Captions, in any order.
        left_out: What the reading of the files has left out.
        where: File or folder, for error lines.

    Raises:
        InputError: If a caption id stands twice, or nothing usable remains.
    """
    left = list(left_out)
    taken, texts = _take(images, captions, left, where)
    if not taken:
        raise InputError(f"{where}: no caption in split {name!r}; {first_reason(left)}")
    groups = [caption.image_id for caption in taken]
    column = SourceColumn("text", [c.item_id for c in taken], texts, groups)
    return Split(name=name, columns={"text": column}, left_out=left)


def _take(
    images: Container[str],
    captions: Iterable[Caption],
    left: list[LeftOut],
    where: str,
) -> tuple[list[Caption], list[str]]:
    """The usable captions of these images, and their trimmed texts."""
    seen: set[str] = set()
    taken: list[Caption] = []
    texts: list[str] = []
    for caption in captions:
        if caption.image_id not in images:
            continue
        if caption.item_id in seen:
            raise InputError(
                f"{where}: caption id {caption.item_id!r} stands twice; make it unique"
            )
        seen.add(caption.item_id)
        fault = text_fault(caption.text, "caption")
        if fault is None:
            taken.append(caption)
            texts.append(str(caption.text).strip())
        else:
            left.append(LeftOut("text", caption.item_id, fault))
    return taken, texts
