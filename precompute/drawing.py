"""Small pictures of simple scenes: what a scene is, how one is drawn by lot, how it is painted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

KINDS: tuple[str, ...] = (
    "boat", "car", "fish", "flower", "house", "kite", "mushroom", "star", "tree", "umbrella",
)  # fmt: skip
"""What can stand in a scene; also the class names of the labelled set, in order."""
COLOURS: dict[str, Colour] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 220, 40),
    "green": (30, 150, 50),
    "blue": (40, 80, 220),
    "purple": (130, 50, 170),
    "pink": (255, 130, 185),
    "white": (248, 248, 248),
}
SIZES: dict[str, float] = {"small": 9.5, "large": 15.5}
"""Half the width of a thing, in pixels."""
BACKGROUNDS: tuple[str, ...] = ("grass", "night", "sand", "sea", "sky", "snow")
LAYOUTS: dict[str, tuple[Point, ...]] = {
    "alone": ((32, 33),),
    "beside": ((16.5, 33), (47.5, 33)),
    "stacked": ((32, 16.5), (32, 47.5)),
    "below": ((16.5, 17), (47.5, 17), (32, 47)),
    "above": ((16.5, 47), (47.5, 47), (32, 17)),
}
"""Centres of the things, in pixels. "below" and "above" say where the third thing is."""

WIDTH = 64
"""Pixels a side of a finished picture."""
_FINE = 2  # painted this many times larger, then averaged down: smooth edges
_DARK: Colour = (45, 40, 45)
_BROWN: Colour = (120, 75, 40)
_CREAM: Colour = (255, 240, 190)
_LEAF: Colour = (40, 120, 50)


@dataclass(frozen=True)
class Thing:
    """One object of a scene, as words: a kind, a colour and a size."""

    kind: str
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """One to three things of different kinds, where they stand, and what is behind them."""

    things: tuple[Thing, ...]
    layout: str
    background: str


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, each as likely as another."""
    return items[int(rng.integers(len(items)))]


def draw_thing(rng: np.random.Generator, kind: str) -> Thing:
    """A thing of this kind with a colour and a size drawn by lot."""
    return Thing(kind, pick(rng, tuple(COLOURS)), pick(rng, tuple(SIZES)))


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn by lot: about a quarter hold one thing, under a half two, the rest three."""
    layout = pick(rng, ("alone", "alone", "beside", "beside", "stacked", "below", "above"))
    kinds = rng.permutation(len(KINDS))[: len(LAYOUTS[layout])]
    things = tuple(draw_thing(rng, KINDS[kind]) for kind in kinds)
    return Scene(things, layout, pick(rng, BACKGROUNDS))


def changed(scene: Scene, count: int, rng: np.random.Generator) -> Scene:
    """The scene with `count` (0 to `attribute_count`) attributes changed, drawn by lot.

    The layout stays, and the things are still of different kinds.
    """
    things, background = list(scene.things), scene.background
    for slot in rng.permutation(attribute_count(scene))[:count]:
        which, attribute = divmod(int(slot), 3)
        if which == len(things):
            background = _another(rng, BACKGROUNDS, [background])
            continue
        thing = things[which]
        if attribute == 0:
            kinds = [other.kind for other in (*things, *scene.things)]
            things[which] = replace(thing, kind=_another(rng, KINDS, kinds))
        elif attribute == 1:
            things[which] = replace(thing, colour=_another(rng, tuple(COLOURS), [thing.colour]))
        else:
            things[which] = replace(thing, size=_another(rng, tuple(SIZES), [thing.size]))
    return Scene(tuple(things), scene.layout, background)


def attribute_count(scene: Scene) -> int:
    """How many attributes of a scene can change: three a thing, and the background."""
    return 3 * len(scene.things) + 1


def _another(rng: np.random.Generator, options: Sequence[str], taken: Sequence[str]) -> str:
    return pick(rng, [option for option in options if option not in taken])


def paint(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The scene as an RGB picture of 64 by 64 pixels.

    Args:
        scene: What to show.
        rng: Moves, scales and tilts each thing a little, and adds a slight noise.

    Returns:
        The picture.
    """
    canvas = Image.new("RGB", (WIDTH * _FINE, WIDTH * _FINE))
    brush = ImageDraw.Draw(canvas)
    _paint_background(brush, scene.background, rng)
    for thing, (x, y) in zip(scene.things, LAYOUTS[scene.layout], strict=True):
        dx, dy = rng.uniform(-2.5, 2.5, 2)
        radius = SIZES[thing.size] * rng.uniform(0.92, 1.08)
        pen = _Pen(brush, (x + dx, y + dy), radius, rng.uniform(-0.18, 0.18))
        rgb = COLOURS[thing.colour]
        _PAINTERS[thing.kind](pen, _shade(rgb, rng.uniform(0.92, 1.0)))
    pixels = np.asarray(canvas.reduce(_FINE))  # (64, 64, 3)
    noisy = pixels + rng.normal(0.0, 4.0, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


class _Pen:
    """Draws in a thing's own square, -1..1 both ways with y downwards, tilted and in place."""

    def __init__(self, brush: ImageDraw.ImageDraw, centre: Point, radius: float, angle: float):
        self._brush, self._centre = brush, centre
        self._cos, self._sin = math.cos(angle) * radius, math.sin(angle) * radius

    def _place(self, points: Sequence[Point]) -> list[Point]:
        (left, top), cos, sin = self._centre, self._cos, self._sin
        placed = [(left + cos * x - sin * y, top + sin * x + cos * y) for x, y in points]
        return [(_FINE * x, _FINE * y) for x, y in placed]

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        self._brush.polygon(self._place(points), fill=fill, outline=_DARK, width=_FINE // 2)

    def line(self, points: Sequence[Point], fill: Colour, width: int = 2) -> None:
        self._brush.line(self._place(points), fill=fill, width=width, joint="curve")

    def oval(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        self.shape(arc(centre, rx, ry, 0.0, 360.0), fill)


def arc(centre: Point, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points along an ellipse from one angle to another, in degrees, clockwise from the right."""
    turns = [math.radians(start + (end - start) * i / 20) for i in range(21)]
    return [(centre[0] + rx * math.cos(t), centre[1] + ry * math.sin(t)) for t in turns]


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue


def _boat(pen: _Pen, colour: Colour) -> None:
    pen.line([(0, 0.35), (0, -1)], _DARK, 3)
    pen.shape([(0.08, -0.95), (0.08, 0.2), (0.8, 0.2)], colour)
    pen.shape([(-0.08, -0.7), (-0.08, 0.2), (-0.65, 0.2)], _shade(colour, 0.8))
    pen.shape([(-1, 0.35), (1, 0.35), (0.65, 0.85), (-0.65, 0.85)], _BROWN)


def _car(pen: _Pen, colour: Colour) -> None:
    pen.shape([(-0.6, -0.05), (-0.35, -0.55), (0.35, -0.55), (0.65, -0.05)], colour)
    pen.shape([(-0.42, -0.05), (-0.27, -0.4), (-0.03, -0.4), (-0.03, -0.05)], (190, 225, 240))
    pen.shape([(0.07, -0.05), (0.07, -0.4), (0.28, -0.4), (0.45, -0.05)], (190, 225, 240))
    pen.shape([(-1, -0.05), (0.8, -0.05), (1, 0.15), (1, 0.45), (-1, 0.45)], colour)
    for x in (-0.55, 0.55):
        pen.oval((x, 0.45), 0.28, 0.28, _DARK)
        pen.oval((x, 0.45), 0.1, 0.1, (200, 200, 200))


def _fish(pen: _Pen, colour: Colour) -> None:
    pen.shape([(0.45, 0), (1, -0.55), (0.85, 0), (1, 0.55)], _shade(colour, 0.8))
    pen.shape([(-0.25, -0.4), (0.2, -0.75), (0.3, -0.3)], _shade(colour, 0.8))
    pen.oval((-0.2, 0), 0.78, 0.48, colour)
    pen.line(arc((-0.55, 0), 0.2, 0.36, -70, 70), _DARK)
    pen.oval((-0.65, -0.12), 0.12, 0.12, _DARK)


def _flower(pen: _Pen, colour: Colour) -> None:
    pen.line([(0, 0), (0, 1)], _LEAF, 5)
    pen.shape([(0, 0.85), (0.45, 0.45), (0.5, 0.75)], _LEAF)
    for i in range(6):
        turn = math.radians(60 * i)
        pen.oval((0.4 * math.cos(turn), -0.35 + 0.4 * math.sin(turn)), 0.27, 0.27, colour)
    pen.oval((0, -0.35), 0.25, 0.25, (110, 60, 20))


def _house(pen: _Pen, colour: Colour) -> None:
    pen.shape([(0.35, -0.5), (0.35, -0.95), (0.6, -0.95), (0.6, -0.3)], _DARK)
    pen.shape([(-0.75, -0.1), (0.75, -0.1), (0.75, 0.9), (-0.75, 0.9)], colour)
    pen.shape([(-1, -0.1), (0, -0.95), (1, -0.1)], _shade(colour, 0.65))
    pen.shape([(-0.5, 0.9), (-0.5, 0.3), (-0.12, 0.3), (-0.12, 0.9)], _BROWN)
    pen.shape([(0.15, 0.25), (0.55, 0.25), (0.55, 0.6), (0.15, 0.6)], _CREAM)


def _kite(pen: _Pen, colour: Colour) -> None:
    left, right, top, low, middle = (-0.6, -0.4), (0.6, -0.4), (0, -1), (0, 0.4), (0, -0.4)
    pen.line([low, (0.2, 0.6), (-0.15, 0.8), (0.15, 1)], _DARK, 3)
    pen.shape([(0.05, 0.55), (0.4, 0.45), (0.38, 0.72)], colour)
    pen.shape([(-0.05, 0.75), (-0.4, 0.65), (-0.38, 0.92)], colour)
    pen.shape([left, top, middle], colour)
    pen.shape([middle, right, low], colour)
    pen.shape([top, right, middle], _shade(colour, 0.7))
    pen.shape([left, middle, low], _shade(colour, 0.7))


def _mushroom(pen: _Pen, colour: Colour) -> None:
    pen.shape([(-0.25, 0), (0.25, 0), (0.38, 0.9), (-0.38, 0.9)], _CREAM)
    pen.shape(arc((0, 0.1), 0.95, 0.95, 180, 360), colour)
    spot = _CREAM if min(colour) < 200 else (200, 120, 90)
    for x, y, radius in ((-0.5, -0.2, 0.16), (0.05, -0.5, 0.2), (0.5, -0.12, 0.16)):
        pen.oval((x, y), radius, radius, spot)


def _star(pen: _Pen, colour: Colour) -> None:
    reach = [(1.0 if i % 2 == 0 else 0.42, math.radians(36 * i - 90)) for i in range(10)]
    pen.shape([(r * math.cos(t), r * math.sin(t)) for r, t in reach], colour)


def _tree(pen: _Pen, colour: Colour) -> None:
    pen.shape([(-0.17, 0.2), (0.17, 0.2), (0.24, 1), (-0.24, 1)], _BROWN)
    for x, y in ((-0.4, -0.02), (0.4, -0.02), (0, -0.45)):
        pen.oval((x, y), 0.5, 0.48, colour)
    pen.oval((0, -0.1), 0.36, 0.3, _shade(colour, 0.85))


def _umbrella(pen: _Pen, colour: Colour) -> None:
    pen.line([(0, -0.2), (0, 0.8), *arc((0.17, 0.75), 0.17, 0.2, 180, 0)], _DARK, 4)
    hem = [p for i in (3, 2, 1, 0) for p in arc((-0.72 + 0.48 * i, 0), 0.24, 0.16, 360, 180)]
    pen.shape([*arc((0, 0), 0.96, 0.85, 180, 360), *hem], colour)
    pen.shape([(0, -0.85), *arc((0, 0), 0.24, 0.16, 360, 180)], _shade(colour, 0.7))
    pen.line([(0, -0.85), (0, -1)], _DARK, 4)


_PAINTERS: dict[str, Callable[[_Pen, Colour], None]] = {
    "boat": _boat, "car": _car, "fish": _fish, "flower": _flower, "house": _house,
    "kite": _kite, "mushroom": _mushroom, "star": _star, "tree": _tree, "umbrella": _umbrella,
}  # fmt: skip

_GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "grass": ((185, 215, 235), (125, 190, 85)),
    "night": ((20, 22, 60), (38, 36, 80)),
    "sand": ((130, 200, 215), (228, 200, 145)),
    "sea": ((70, 150, 200), (30, 110, 165)),
    "sky": ((140, 200, 245), (185, 225, 250)),
    "snow": ((175, 190, 210), (232, 238, 245)),
}
_MARKS: dict[str, int] = {"grass": 12, "night": 22, "sand": 12, "sea": 10, "sky": 7, "snow": 14}


def _paint_background(
    brush: ImageDraw.ImageDraw, background: str, rng: np.random.Generator
) -> None:
    """An upper and a lower ground, and a few marks that tell one background from another."""
    side = WIDTH * _FINE
    upper, lower = _GROUNDS[background]
    horizon = side * {"sky": 0.6, "night": 0.6, "sea": 0.5}.get(background, 0.22)
    horizon += rng.uniform(-6, 6)
    brush.rectangle((0, 0, side, horizon), fill=upper)
    brush.rectangle((0, horizon, side, side), fill=lower)
    top = 0.0 if background in ("sky", "night", "sea") else horizon
    for _ in range(_MARKS[background]):
        x, y = rng.uniform(0, side), rng.uniform(top, side)
        if background == "sky":
            brush.ellipse((x - 15, y - 5, x + 15, y + 5), fill=(240, 248, 255))
        elif background == "night":
            brush.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(230, 230, 200))
        elif background == "sea":
            brush.arc((x - 8, y - 4, x + 8, y + 4), 180, 360, fill=(150, 210, 235), width=2)
        elif background == "grass":
            brush.line((x - 3, y - 6, x, y, x + 3, y - 6), fill=(70, 140, 50), width=2)
        elif background == "sand":
            brush.ellipse((x - 2, y - 1, x + 2, y + 1), fill=(185, 150, 100))
        else:
            brush.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(255, 255, 255))
