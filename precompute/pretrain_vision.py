"""What the demo's ViT learns from generated pictures, as losses of a batch drawn anew.

Shapes: B pictures, S things, T tokens (P patches and CLS), D width, A attributes.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTModel

from .drawing import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    LAYOUTS,
    SIZES,
    WIDTH,
    Point,
    Scene,
    draw_scene,
    paint,
)

PATCH = 8
"""Pixels a side of a patch."""
GRID = WIDTH // PATCH
"""Patches a side of a picture."""
WINDOW = 5
"""Patches a side of a window: enough for one thing."""


class Heads(nn.Module):
    """The linear heads that the encoder learns through; thrown away afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.thing = nn.Linear(width, len(KINDS) + len(COLOURS) + len(SIZES))
        self.cls = nn.Linear(width, len(_ATTRIBUTES))
        self.mean = nn.Linear(width, len(_ATTRIBUTES))
        self.patch = nn.Linear(width, len(KINDS) + len(COLOURS) + 2)


def window_loss(vit: ViTModel, heads: Heads, rng: np.random.Generator) -> Tensor:
    """Which kind, colour and size each thing is, from the patches around it alone."""
    scenes = [draw_scene(rng) for _ in range(24)]
    of_scene, corner, kinds, colours, sizes = [], [], [], [], []
    for i, scene in enumerate(scenes):
        for thing, (x, y) in zip(scene.things, LAYOUTS[scene.layout], strict=True):
            of_scene.append(i)
            column, row = (
                int(np.clip(round(at / PATCH - WINDOW / 2), 0, GRID - WINDOW)) for at in (x, y)
            )
            corner.append(1 + GRID * row + column)
            kinds.append(KINDS.index(thing.kind))
            colours.append(list(COLOURS).index(thing.colour))
            sizes.append(list(SIZES).index(thing.size))
    steps = GRID * torch.arange(WINDOW)[:, None] + torch.arange(WINDOW)  # (5, 5)
    patches = torch.tensor(corner)[:, None] + steps.flatten()  # (S, 25), 0 would be CLS
    seen = torch.cat([torch.zeros(len(corner), 1, dtype=torch.long), patches], dim=1)
    tokens = vit.embeddings(_pixels(scenes, rng))[torch.tensor(of_scene)[:, None], seen]
    for layer in vit.layers:
        tokens = layer(tokens)
    tokens = vit.layernorm(tokens)  # (S, 26, D)
    loss = torch.zeros(())
    for pooled in (tokens[:, 0], tokens[:, 1:].mean(dim=1)):
        logits = heads.thing(pooled).split([len(KINDS), len(COLOURS), len(SIZES)], dim=1)
        for guess, truth in zip(logits, (kinds, colours, sizes), strict=True):
            loss = loss + F.cross_entropy(guess, torch.tensor(truth))
    return loss


def picture_loss(vit: ViTModel, heads: Heads, rng: np.random.Generator) -> Tensor:
    """All attributes of a scene from CLS and from the mean patch, and what each patch lies on."""
    scenes = [draw_scene(rng) for _ in range(32)]
    tokens = vit(_pixels(scenes, rng)).last_hidden_state  # (B, 65, D)
    truth = torch.zeros(len(scenes), len(_ATTRIBUTES))
    for row, scene in zip(truth, scenes, strict=True):
        row[[_ATTRIBUTES[name] for name in _attributes(scene)]] = 1.0
    cls, mean = heads.cls(tokens[:, 0]), heads.mean(tokens[:, 1:].mean(dim=1))
    loss = 20 * sum(
        (F.binary_cross_entropy_with_logits(guess, truth) for guess in (cls, mean)),
        torch.zeros(()),
    )
    kinds, colours = torch.tensor(np.stack([_patch_labels(s) for s in scenes], axis=1))
    of_kind, of_colour = heads.patch(tokens[:, 1:]).split([len(KINDS) + 1, len(COLOURS) + 1], 2)
    loss = loss + F.cross_entropy(of_kind.flatten(0, 1), kinds.flatten())
    return loss + F.cross_entropy(of_colour.flatten(0, 1), colours.flatten())


def _cell(point: Point) -> str:
    return f"{point[0] // 22:.0f}{point[1] // 22:.0f}"  # a picture in three by three


_ATTRIBUTES: dict[str, int] = {
    name: i
    for i, name in enumerate(
        [*BACKGROUNDS, *LAYOUTS, *KINDS, *COLOURS]
        + [f"{a} {b}" for a, b in product(KINDS, (*COLOURS, *SIZES))]
        + [f"{kind} {x}{y}" for kind, x, y in product(KINDS, range(3), range(3))]
    )
}
"""All that can be said of a scene, and its place in the vector of A attributes."""


def _attributes(scene: Scene) -> set[str]:
    """What is true of a scene, as keys of `_ATTRIBUTES`."""
    names = {scene.background, scene.layout}
    for thing, point in zip(scene.things, LAYOUTS[scene.layout], strict=True):
        pairs = (f"{thing.kind} {word}" for word in (thing.colour, thing.size, _cell(point)))
        names |= {thing.kind, thing.colour, *pairs}
    return names


def _patch_labels(scene: Scene) -> np.ndarray:
    """Kind and colour under each patch, (2, P); 0 is the background."""
    centres = np.arange(PATCH / 2, WIDTH, PATCH)
    labels = np.zeros((2, GRID, GRID), dtype=np.int64)
    for thing, (x, y) in zip(scene.things, LAYOUTS[scene.layout], strict=True):
        radius = 0.75 * SIZES[thing.size]
        under = np.outer(abs(centres - y) <= radius, abs(centres - x) <= radius)
        labels[0, under] = 1 + KINDS.index(thing.kind)
        labels[1, under] = 1 + list(COLOURS).index(thing.colour)
    return labels.reshape(2, -1)


def _pixels(scenes: list[Scene], rng: np.random.Generator) -> Tensor:
    """The painted scenes as the image processor gives them, (B, 3, 64, 64) in -1..1."""
    pictures = np.stack([np.asarray(paint(scene, rng)) for scene in scenes])
    return torch.tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
