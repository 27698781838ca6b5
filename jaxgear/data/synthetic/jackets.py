"""Drawn jackets: hardshells (smooth, hooded, zipped) and insulated ones (quilted in baffles).

Both have the same cuts and colours, so only the construction distinguishes the classes.
"""
# ruff: noqa: RUF005 (`points + [x, y]` moves a numpy array; it does not append)

import itertools
from dataclasses import dataclass

import numpy as np

from jaxgear.data.synthetic.pen import Palette, Pen, arc, mirrored, shade, smooth


@dataclass(frozen=True)
class Cut:
    """Random proportions of a jacket, in units of the object's frame."""

    shoulder: float  # half width at the shoulders
    hem: float  # half width at the hem
    foot: float  # y of the hem
    elbow: np.ndarray  # [2], of the right sleeve
    cuff: np.ndarray  # [2]
    hooded: bool

    @classmethod
    def random(cls, rng: np.random.Generator, hood: float) -> "Cut":
        out = rng.uniform(0.0, 0.2)
        return cls(
            shoulder=rng.uniform(0.38, 0.46),
            hem=rng.uniform(0.36, 0.48),
            foot=rng.uniform(0.72, 0.92),
            elbow=np.array([0.58 + out, rng.uniform(-0.1, 0.1)]),
            cuff=np.array([0.6 + out * 1.4, rng.uniform(0.45, 0.66)]),
            hooded=bool(rng.random() < hood),
        )

    def torso(self) -> np.ndarray:
        """Outline [n, 2] without hood and sleeves."""
        waist = (self.shoulder + self.hem) / 2 - 0.05
        right = [(0.15, -0.6), (self.shoulder, -0.5), (waist, 0.1), (self.hem, self.foot)]
        return np.concatenate([smooth(right), smooth(right)[::-1] * [-1, 1]])

    def sleeve(self, side: int) -> np.ndarray:
        """Axis [n, 2] of one sleeve from shoulder to cuff; `side` is -1 (left) or 1."""
        return smooth([(self.shoulder - 0.06, -0.42), self.elbow, self.cuff]) * [side, 1]


def hardshell(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A smooth hooded shell: long zip, pocket zips, cuff tabs, and folds as its only texture."""
    cut = Cut.random(rng, hood=0.92)
    edge = shade(c.main, 0.5)
    zipper = c.accent if rng.random() < 0.6 else c.dark
    for side in (-1, 1):
        axis = cut.sleeve(side)
        widths = np.linspace(0.27, 0.17, len(axis) - 1)  # tapers to the cuff
        for rim, colour in ((0.035, edge), (0.0, shade(c.main, 0.9))):
            for joint, width in zip(itertools.pairwise(axis), widths, strict=True):
                pen.line(joint, width + rim, colour, round_ends=True)
        elbow = cut.elbow * [side, 1]
        pen.line([elbow - [0.08 * side, 0], elbow + [0.06 * side, 0.06]], 0.025, edge)
        tab = cut.cuff * [side, 1]
        pen.line([tab - [0.09, 0.06], tab + [0.09, -0.06]], 0.06, c.dark)
    _collar(pen, rng, c, cut, puffy=False)
    torso = cut.torso()
    pen.polygon(torso, c.main, edge, 0.03)
    if rng.random() < 0.45:  # a yoke of another colour
        yoke = [(0.15, -0.6), (cut.shoulder, -0.5), (cut.shoulder - 0.03, -0.25), (0.0, -0.18)]
        pen.polygon(mirrored(yoke), c.second)
    for _ in range(int(rng.integers(2, 5))):  # folds
        x, y = rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.5)
        tip = (x + rng.uniform(-0.2, 0.2), y + rng.uniform(0.12, 0.3))
        pen.polygon([(x, y), tip, (x + 0.05, y + 0.1)], shade(c.main, rng.choice([0.82, 1.12])))
    pen.line([(0, -0.58), (0, cut.foot)], 0.06, shade(c.main, 0.7))
    pen.line([(0, -0.58), (0, cut.foot - 0.02)], 0.028, zipper)
    for side in (-1, 1):
        if rng.random() < 0.8:
            pen.line([(side * 0.2, 0.05), (side * 0.3, 0.42)], 0.035, zipper)
        if rng.random() < 0.5:
            pen.line([(side * 0.12, -0.32), (side * 0.24, -0.08)], 0.03, zipper)
    hem = cut.hem * 0.97
    pen.line([(-hem, cut.foot - 0.03), (hem, cut.foot - 0.03)], 0.03, edge)
    if rng.random() < 0.6:
        pen.disc(rng.uniform(0.15, 0.24), -0.35, 0.04, c.accent, 0.03)


def insulated(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A quilted jacket: the body and sleeves are stacks of bulging horizontal baffles."""
    cut = Cut.random(rng, hood=0.5)
    edge, light = shade(c.main, 0.5), shade(c.main, 1.25)
    step = rng.uniform(0.12, 0.2)
    for side in (-1, 1):
        axis = cut.sleeve(side)
        length = np.concatenate([[0], np.hypot(*np.diff(axis, axis=0).T).cumsum()])
        marks = np.arange(length[-1], 0, -step * 0.9)
        for at in marks:  # from the cuff up: each baffle overlaps the one below
            x, y = (np.interp(at, length, axis[:, k]) for k in (0, 1))
            w = np.interp(at, [0, length[-1]], [0.17, 0.12])
            pen.disc(x, y, w + 0.015, edge, step * 0.72)
            pen.disc(x, y - 0.005, w, shade(c.main, 0.92), step * 0.62)
            pen.line(arc((x, y), w * 0.8, step * 0.4, 200, 340, 8), 0.025, light)
        pen.line(
            [cut.cuff * [side, 1] + [-0.1, 0.04], cut.cuff * [side, 1] + [0.1, 0.04]], 0.05, c.dark
        )
    _collar(pen, rng, c, cut, puffy=True)
    pen.polygon(cut.torso(), shade(c.main, 0.85), edge, 0.03)
    yoke = rng.random() < 0.3
    slope = rng.choice([0.0, 0.0, rng.uniform(0.04, 0.12)])  # straight or chevron baffles
    tops = np.arange(-0.52, cut.foot - step * 0.6, step)
    for top in tops:
        middle = top + step / 2
        half = np.interp(middle, [-0.55, -0.45, 0.1, cut.foot], [cut.shoulder * 0.8, cut.shoulder,
                         (cut.shoulder + cut.hem) / 2 - 0.04, cut.hem]) + 0.02  # fmt: skip
        right = [(0.0, top + slope), (half * 0.6, top + slope * 0.4), (half, top + step * 0.2)]
        right += [
            (half + 0.03, middle),
            (half, top + step * 0.9),
            (half * 0.6, top + step + slope * 0.4),
        ]
        band = smooth(mirrored([*right, (0.0, top + step + slope)]), closed=True, steps=3)
        cloth = c.second if yoke and top < -0.2 else c.main
        pen.polygon(band, cloth, shade(cloth, 0.42), 0.035)
        glow = [
            (-half * 0.85, top + step * 0.36),
            (0, top + step * 0.34 + slope),
            (half * 0.85, top + step * 0.36),
        ]
        pen.line(glow, step * 0.22, shade(cloth, 1.25))
    pen.line([(0, -0.58), (0, cut.foot)], 0.075, shade(c.main, 0.6))
    pen.line([(0, -0.58), (0, cut.foot)], 0.03, c.accent if rng.random() < 0.5 else c.dark)
    if rng.random() < 0.6:
        for side in (-1, 1):
            pen.line([(side * 0.27, 0.15), (side * 0.33, 0.42)], 0.03, edge)


def _collar(pen: Pen, rng: np.random.Generator, c: Palette, cut: Cut, puffy: bool) -> None:
    """The hood, or a stand-up collar, behind the torso's neck line."""
    edge = shade(c.main, 0.5)
    if cut.hooded:
        hood = smooth(
            mirrored([(0.08, -0.98), (0.24, -0.86), (0.28, -0.66), (0.2, -0.5)]), closed=True
        )
        pen.polygon(hood, shade(c.main, 0.95), edge)
        if puffy:
            for y in (-0.88, -0.74, -0.6):
                pen.line(arc((0, y + 0.05), 0.26, 0.07, 200, 340, 10), 0.03, edge)
        else:
            pen.line(arc((0, -0.83), 0.2, 0.1, 190, 350, 12), 0.05, shade(c.main, 1.2))  # brim
        pen.disc(0, -0.68, 0.15, shade(c.second, 0.45), rng.uniform(0.13, 0.17), edge)
    else:
        pen.polygon(mirrored([(0.14, -0.76), (0.18, -0.7), (0.2, -0.5)]), shade(c.main, 0.9), edge)
        pen.disc(0, -0.75, 0.12, shade(c.second, 0.45), 0.035)
