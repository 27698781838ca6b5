"""A pen that draws in the object's own frame; one homography holds the pose.

A shape function draws an object in the square [-1, 1] x [-1, 1] (x to the right, y down) without
using pixels: the pen's matrix holds rotation, scale, shear and perspective.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = np.ndarray | list | tuple  # [n, 2], (x, y) in the object's frame
Number = float | int


def smooth(points: Points, closed: bool = False, steps: int = 7) -> np.ndarray:
    """Catmull-Rom spline through `points` [n, 2], sampled `steps` times a segment: [m, 2]."""
    p = np.asarray(points, float)
    if closed:
        ends = np.concatenate([p[-1:], p, p[:2]])
    else:
        ends = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    a, b, c, d = (ends[k : len(ends) - 3 + k, None] for k in range(4))  # each [segments, 1, 2]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = b + 0.5 * t * (
        c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))
    )  # [segments, steps, 2]
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def arc(
    centre: tuple[Number, Number],
    rx: Number,
    ry: Number,
    start: Number = 0,
    end: Number = 360,
    n: int = 28,
) -> np.ndarray:
    """Points [n, 2] on an ellipse from `start` to `end`, in degrees clockwise from +x (y down)."""
    angle = np.radians(np.linspace(start, end, n))
    return np.stack([centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)], 1)


def mirrored(points: Points) -> np.ndarray:
    """`points` [n, 2] of the right half and their mirror image in x = 0, as one outline."""
    p = np.asarray(points, float)
    return np.concatenate([p, p[::-1] * [-1, 1]])


def shade(colour: Colour, factor: Number) -> Colour:
    """`colour` darker (factor below 1) or lighter (above 1)."""
    return tuple(min(255, int(c * factor + max(0.0, factor - 1) * 60)) for c in colour)


@dataclass(frozen=True)
class Palette:
    """Random colours of one object, with the same distribution for every class."""

    main: Colour
    second: Colour
    accent: Colour
    metal: Colour
    dark: Colour

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Palette":
        def paint(low: Number = 0.3) -> Colour:
            saturation = 0.08 if rng.random() < 0.2 else rng.uniform(0.4, 1.0)
            rgb = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(low, 0.92))
            return tuple(int(255 * c) for c in rgb)

        grey = int(rng.uniform(105, 190))
        metal = (grey, grey, min(255, grey + int(rng.uniform(0, 18))))
        dark = int(rng.uniform(20, 65))
        return cls(
            main=paint(),
            second=paint(),
            accent=paint(0.6),
            metal=paint(0.45) if rng.random() < 0.4 else metal,
            dark=(dark, dark, dark + 5),
        )


class Pen:
    """Draws polygons, lines and discs on `layer` (RGBA), given in the object's frame."""

    def __init__(self, layer: Image.Image, matrix: np.ndarray):
        """`matrix` [3, 3] maps (x, y, 1) of the object's frame to homogeneous pixels."""
        self.layer = layer
        self.matrix = matrix
        self._draw = ImageDraw.Draw(layer)
        # Pixels per unit at the object's centre; it scales line widths.
        self.unit = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))) / matrix[2, 2]

    def placed(
        self, x: Number, y: Number, scale: Number, degrees: Number = 0, flip: bool = False
    ) -> "Pen":
        """A pen for a part: its frame is placed at (x, y), scaled, rotated and maybe mirrored."""
        c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
        f = -1.0 if flip else 1.0
        return Pen(self.layer, self.matrix @ np.array([[c * f, -s, x], [s * f, c, y], [0, 0, 1]]))

    def _pixels(self, points: Points) -> list[float]:
        p = np.asarray(points, float) @ self.matrix[:, :2].T + self.matrix[:, 2]  # [n, 3]
        return (p[:, :2] / p[:, 2:]).ravel().tolist()

    def polygon(
        self, points: Points, fill: Colour, edge: Colour | None = None, width: Number = 0.02
    ) -> None:
        """Filled outline `points` [n, 2]; `edge` draws its rim, `width` units thick."""
        pixels = self._pixels(points)
        self._draw.polygon(pixels, fill=fill)
        if edge is not None:
            self._draw.line(pixels + pixels[:4], fill=edge, width=self._width(width))

    def line(self, points: Points, width: Number, fill: Colour, round_ends: bool = False) -> None:
        """Open line through `points` [n, 2], `width` units thick."""
        pixels = self._pixels(points)
        w = self._width(width)
        self._draw.line(pixels, fill=fill, width=w, joint="curve" if w > 8 else None)
        if round_ends:
            for x, y in (pixels[:2], pixels[-2:]):
                self._draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=fill)

    def tube(self, points: Points, width: Number, fill: Colour, rim: Number = 0.35) -> None:
        """A line that looks round: dark rim, the colour, and a lighter streak along it."""
        self.line(points, width, shade(fill, 0.55), round_ends=True)
        self.line(points, width * (1 - rim), fill, round_ends=True)
        self.line(points, width * 0.2, shade(fill, 1.35))

    def disc(
        self,
        x: Number,
        y: Number,
        rx: Number,
        fill: Colour,
        ry: Number | None = None,
        edge: Colour | None = None,
    ) -> None:
        """Filled ellipse with radii `rx`, `ry` (a circle without `ry`)."""
        self.polygon(arc((x, y), rx, rx if ry is None else ry, n=24), fill, edge)

    def hole(self, points: Points) -> None:
        """Cuts `points` [n, 2] out of the drawing, so that the background shows."""
        self._draw.polygon(self._pixels(points), fill=(0, 0, 0, 0))

    def _width(self, units: Number) -> int:
        return max(1, round(units * self.unit))
