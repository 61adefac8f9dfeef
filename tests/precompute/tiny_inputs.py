"""Tiny random encoders and generated pictures in COCO's layout, for the tests of stage 1."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the cat dog red blue green sits runs on under tree".split()
)


def save_vit(folder: Path, pooler: bool) -> Path:
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def picture(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse, "RGB").resize((40, 30))


def write_coco(root: Path, images: int = 40, split: str = "val") -> Path:
    """COCO's official layout with generated pictures; two captions each."""
    folder = root / f"{split}2017"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    table: dict = {"images": [], "annotations": []}
    for number in range(images):
        name = f"{number:012d}.jpg"
        picture(number).save(folder / name)
        table["images"].append({"id": number, "file_name": name, "width": 40, "height": 30})
        for k in range(2):
            caption = " ".join(rng.choice(WORDS[5:], rng.integers(2, 12)))
            note = {"id": 10 * number + k, "image_id": number, "caption": caption}
            table["annotations"].append(note)
    (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(table))
    return root


def save_convolutional(folder: Path) -> Path:
    """A MobileNetV2 of random weights: it sees 64 x 64 pixels as 2 x 2 cells, 1280 wide."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ImageProcessor, MobileNetV2Model

    torch.manual_seed(0)
    config = MobileNetV2Config(image_size=64, depth_multiplier=0.1)
    MobileNetV2Model(config).save_pretrained(folder)
    frame = {"height": 64, "width": 64}
    MobileNetV2ImageProcessor(size={"shortest_edge": 72}, crop_size=frame).save_pretrained(folder)
    return folder
