"""Drawn gear of cloth, leather and cord: boots, gloves, harnesses, rope, tents.

Every function draws one object in [-1, 1] x [-1, 1] (x right, y down) and varies its construction,
proportions and details by `rng`.
"""
# ruff: noqa: RUF005 (`points + [x, y]` moves a numpy array; it does not append)

import numpy as np

from jaxgear.data.synthetic.pen import Palette, Pen, arc, shade, smooth


def boot(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A boot from the side, toe to the right: shaft, laces, toe cap and a lugged sole."""
    if rng.random() < 0.25:
        state = rng.integers(2**32)  # the other boot of the pair, behind
        _boot(pen.placed(0.16, -0.14, 0.84), np.random.default_rng(state), c, 0.75)
        _boot(pen.placed(-0.12, 0.1, 0.86), np.random.default_rng(state), c, 1.0)
    else:
        _boot(pen, rng, c, 1.0)


def _boot(pen: Pen, rng: np.random.Generator, c: Palette, tone: float) -> None:
    high = rng.uniform(0.5, 0.95)
    main, second = shade(c.main, tone), shade(c.second, tone)
    edge = shade(main, 0.5)
    instep = np.array([(0.02, -high), (0.08, -high * 0.5), (0.2, -0.08), (0.5, 0.12), (0.82, 0.26)])
    upper = [*instep, (0.97, 0.45), (0.95, 0.62), (-0.66, 0.62), (-0.72, 0.4), (-0.6, 0.05)]
    upper = smooth([*upper, (-0.62, -high * 0.5), (-0.6, -high + 0.05)])
    pen.polygon(upper, main, edge)
    toe = smooth([(0.5, 0.62), (0.52, 0.32), (0.75, 0.24), (0.95, 0.42), (0.95, 0.62)])
    heel = smooth([(-0.68, 0.62), (-0.72, 0.35), (-0.62, 0.1), (-0.35, 0.2), (-0.25, 0.62)])
    for panel in (toe, heel):
        pen.polygon(panel, second, shade(second, 0.6))
    if rng.random() < 0.6:
        band = smooth([(-0.62, -0.25), (-0.3, -0.2), (0.1, 0.15), (0.3, 0.6)])
        pen.line(band, rng.uniform(0.05, 0.12), c.accent)
    collar = smooth([(-0.62, -high + 0.08), (-0.3, -high + 0.15), (0.04, -high + 0.02)])
    pen.line(collar, 0.13, shade(c.dark, tone), round_ends=True)
    tongue = [(-0.04, -high), (0.1, -high - 0.09), (0.16, -high * 0.8), (0.1, -high * 0.5)]
    pen.polygon(tongue, shade(second, 0.8), edge)
    sole = smooth([(-0.76, 0.6), (0.2, 0.6), (0.98, 0.54), (1.0, 0.68), (0.9, 0.78)])
    lugs = [(x, 0.78 if k % 4 < 2 else 0.86) for k, x in enumerate(np.linspace(0.9, -0.76, 24))]
    pen.polygon(np.concatenate([sole, lugs]), shade(c.dark, tone))
    if rng.random() < 0.6:
        pen.line(smooth([(-0.75, 0.64), (0.2, 0.64), (0.98, 0.58)]), 0.05, shade(c.accent, tone))
    lace = c.accent if rng.random() < 0.5 else (225, 225, 220)
    t = np.linspace(0.06, 0.8, int(rng.integers(5, 8)))
    along = np.linspace(0, 1, len(instep))
    front = np.stack([np.interp(t, along, instep[:, k]) for k in (0, 1)], 1)
    eyes = front + [-0.17, 0.1]
    for a, b, nxt in zip(front, eyes, [*front[1:], front[-1]], strict=True):
        pen.line([a, b, nxt], 0.04, lace)
        pen.disc(*b, 0.035, c.metal)


def glove(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A five-fingered glove seen from the back, cuff below; sometimes the pair."""
    if rng.random() < 0.3:
        state = rng.integers(2**32)
        for x, flip in ((-0.5, False), (0.5, True)):
            _glove(pen.placed(x, 0.0, 0.68, flip=flip), np.random.default_rng(state), c)
    else:
        _glove(pen, rng, c)


def _glove(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    spread, thick = rng.uniform(0.6, 1.25), rng.uniform(0.19, 0.23)
    edge = shade(c.main, 0.45)
    fingers = []
    for k, length in enumerate((0.5, 0.64, 0.6, 0.42)):
        x = -0.36 + 0.24 * k
        lean = np.radians((k - 1.4) * 11 * spread)
        tip = (x + np.sin(lean) * length, -0.1 - np.cos(lean) * length * 1.05)
        fingers.append(np.array([(x, 0.0), tip]))
    thumb = smooth([(-0.3, 0.3), (-0.62, 0.08), (-0.72 - 0.1 * spread, -0.22)])
    palm = [(-0.48, -0.1), (-0.2, -0.18), (0.3, -0.16), (0.47, -0.02), (0.42, 0.3), (0.34, 0.52)]
    palm = smooth([*palm, (-0.34, 0.52), (-0.45, 0.25)], closed=True)
    flare = rng.uniform(0.32, 0.48)
    foot = rng.uniform(0.75, 0.98)
    cuff = np.array([(-0.34, 0.45), (0.34, 0.45), (flare, foot), (-flare, foot)])
    for path in (*fingers, thumb):  # all rims first, so that the hand is one shape
        pen.line(path, thick + 0.05, edge, round_ends=True)
    pen.polygon(palm, c.main, edge, 0.04)
    for path in (*fingers, thumb):
        pen.line(path, thick, c.main, round_ends=True)
    tips = rng.random()
    for path in fingers:
        low, tip = path
        if tips < 0.5:
            pen.line([tip * 0.65 + low * 0.35, tip], thick * 0.92, c.second, round_ends=True)
        for t in (0.45, 0.68):
            x, y = low * (1 - t) + tip * t
            pen.line([(x - 0.07, y), (x + 0.07, y)], 0.022, edge)
    if rng.random() < 0.6:
        knuckles = smooth(
            [(-0.38, 0.0), (0.0, -0.08), (0.36, 0.02), (0.3, 0.16), (-0.32, 0.14)], True
        )
        pen.polygon(knuckles, c.accent if rng.random() < 0.5 else c.second, edge)
    pen.polygon(cuff, c.second, shade(c.second, 0.5))
    for y in np.linspace(0.55, foot - 0.08, 3):
        pen.line([(-flare * 0.95, y), (flare * 0.95, y)], 0.02, shade(c.second, 0.65))
    pen.polygon([(-0.38, 0.42), (0.38, 0.42), (0.38, 0.53), (-0.38, 0.53)], c.dark)
    pen.polygon([(0.05, 0.4), (0.3, 0.4), (0.3, 0.55), (0.05, 0.55)], c.accent)


def harness(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A climbing harness: waist belt, two leg loops, belay loop, straps and gear loops."""
    belt, leg = rng.uniform(0.15, 0.24), rng.uniform(0.12, 0.2)
    rx, ry = rng.uniform(0.62, 0.78), rng.uniform(0.13, 0.22)
    lx, ly = rng.uniform(0.27, 0.34), rng.uniform(0.18, 0.3)
    web = c.second if rng.random() < 0.6 else c.dark
    legs = [(-rng.uniform(0.36, 0.44), 0.55), (rng.uniform(0.36, 0.44), 0.55)]
    pen.line(arc((0, -0.55), rx, ry, 180, 360), belt, shade(c.main, 0.5))
    for x, y in legs:
        pen.line([(x * 1.4, -0.5), (x * 1.5, y)], 0.045, shade(web, 0.7))
        pen.line(arc((x, y), lx, ly, 180, 360), leg, shade(c.main, 0.5))
    for x, y in legs:
        near = arc((x, y), lx, ly, 0, 180)
        pen.line(near, leg, shade(c.main, 0.6), round_ends=True)
        pen.line(near, leg * 0.78, c.main)
        pen.line(near, leg * 0.25, c.accent)
        pen.line([(x * 0.45, y - 0.12), (x * 0.12, 0.02)], 0.07, shade(web, 0.7))
        pen.line([(x * 0.45, y - 0.12), (x * 0.12, 0.02)], 0.05, web)
    for x in (-0.55, -0.3, 0.3, 0.55)[:: int(rng.integers(1, 3))]:
        loop = arc((x, -0.42 - 0.12 * abs(x)), 0.12, rng.uniform(0.2, 0.3), 0, 180, 14)
        pen.line(loop, 0.035, c.accent if rng.random() < 0.5 else c.dark)
    near = arc((0, -0.55), rx, ry, 0, 180)
    pen.line(near, belt, shade(c.main, 0.6), round_ends=True)
    pen.line(near, belt * 0.8, c.main)
    pen.line(near, belt * 0.3, web)
    low = -0.55 + ry
    pen.tube(arc((0, (low + 0.1) / 2), 0.09, (0.16 - low) / 2, 0, 360, 20), 0.08, c.accent)
    x = rng.uniform(0.18, 0.3)
    for place in ((x, low - 0.02), (legs[1][0], 0.55 + ly)):
        box = np.array([(-0.09, -0.08), (0.09, -0.08), (0.09, 0.08), (-0.09, 0.08)]) + place
        pen.polygon(box, c.metal, shade(c.metal, 0.45))
        pen.line([box[0] * 0.5 + box[3] * 0.5, box[1] * 0.5 + box[2] * 0.5], 0.03, c.dark)


def rope(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A rope: a ring coil, a tied bundle, or a butterfly hanging over its wraps."""
    style = rng.choice(["ring", "bundle", "butterfly"], p=[0.3, 0.45, 0.25])
    width = rng.uniform(0.06, 0.09)
    for k in range(int(rng.integers(9, 13))):
        wobble = rng.uniform(-1, 1, 6)
        if style == "ring":
            size = 0.68 + 0.16 * wobble[0]
            path = arc((0.06 * wobble[1], 0.06 * wobble[2]), size, size * 0.92, 0, 380, 30)
        elif style == "bundle":
            wide = 0.04 + 0.32 * (k % 6) / 5
            top, foot = -0.72 - 0.2 * abs(wobble[1]), 0.72 + 0.2 * abs(wobble[2])
            path = [
                (0, top),
                (wide, top + 0.28),
                (wide * 0.55, -0.15),
                (wide * 1.1, 0.4),
                (0, foot),
            ]
            path += [(-wide * 1.1, 0.4), (-wide * 0.55, -0.15), (-wide, top + 0.28)]
            path = smooth([*path, (0.02, top)], steps=4)
        else:
            reach, drop = 0.16 + 0.36 * (k // 2) / 5, 0.62 + 0.2 * wobble[1]
            path = [
                (0.04 * wobble[2], -0.6),
                (reach, -0.5),
                (reach * 1.5, drop - 0.4),
                (reach * 1.1, drop),
            ]
            path += [(reach * 0.6, drop - 0.3), (0.06, -0.4)]
            path = smooth(np.array(path) * [1 if k % 2 else -1, 1], steps=5)
        _strand(pen, path, width, c)
    places = {
        "ring": ((0.68, 0.0), 0.26),
        "bundle": ((0, -0.12), 0.26),
        "butterfly": ((0, -0.5), 0.24),
    }
    at, half = places[style]
    for y in np.linspace(-0.16, 0.16, int(rng.integers(4, 7))):
        ends = np.array([(-half, y + 0.03), (half, y - 0.03)]) + at
        _strand(pen, np.linspace(*ends, 6), width * 1.1, c)
    if rng.random() < 0.6:
        tail = smooth([at, (at[0] - 0.2, 0.5), (at[0] - 0.1 + rng.uniform(-0.3, 0.3), 0.95)])
        _strand(pen, tail, width, c)


def _strand(pen: Pen, path: np.ndarray, width: float, c: Palette) -> None:
    pen.line(path, width, shade(c.main, 0.42))
    pen.line(path, width * 0.68, c.main)
    for k in range(1, len(path) - 1, 4):  # the sheath's pattern
        pen.line(path[k : k + 2], width * 0.4, c.second)


def tent(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A dome, an A-frame or a tunnel, with door, poles and guy lines."""
    style = rng.choice(["dome", "ridge", "tunnel"], p=[0.5, 0.3, 0.2])
    high, edge = rng.uniform(-0.75, -0.45), shade(c.main, 0.45)
    for side in (-1, 1):
        for x in (0.5, 0.8)[: int(rng.integers(1, 3))]:
            pen.line([(side * x * 0.7, -0.1), (side * (x + 0.2), 0.66)], 0.015, c.dark)
    if style == "dome":
        apex = (rng.uniform(-0.15, 0.15), high)
        left, right = (-0.9, 0.6), (0.9, 0.55)
        rib = rng.uniform(0.05, 0.4)
        foot = (rib, 0.66)
        west = smooth([left, (-0.75, 0.05), (-0.4, high * 0.8), apex])
        east = smooth([apex, (0.45, high * 0.75), (0.78, 0.05), right])
        pole = smooth([apex, (rib * 0.9 + 0.1, high * 0.4), (rib + 0.08, 0.2), foot])
        pen.polygon(np.concatenate([west, pole]), c.main, edge)
        pen.polygon(np.concatenate([pole[::-1], east]), shade(c.main, 0.72), edge)
        door = arc((-0.3, 0.62), 0.33, -high * 1.1 + 0.2, 180, 360, 18)
        band = np.concatenate([west[: len(west) // 3], [(rib, 0.3), foot]])
        if rng.random() < 0.5:
            pen.polygon(band, c.second, edge)
        for line in (west, east, pole):
            pen.line(line, 0.035, c.accent)
    elif style == "ridge":
        x = rng.uniform(-0.45, -0.2)
        back = (rng.uniform(0.45, 0.65), high + rng.uniform(0.0, 0.15))
        pen.polygon([(x, high), back, (0.95, 0.4), (x + 0.5, 0.65)], shade(c.main, 0.72), edge)
        pen.polygon([(x, high), (x + 0.5, 0.65), (x - 0.5, 0.65)], c.main, edge)
        door = np.array([(x, high + 0.25), (x + 0.26, 0.65), (x - 0.26, 0.65)])
        pen.line([(x, high), back], 0.03, c.accent)
        pen.line([(x, high), (x, 0.65)], 0.03, c.dark)
    else:
        heights = [high, high * 0.8, high * 0.55]
        for k in (2, 1, 0):  # hoops from back to front
            centre, rx = (-0.35 + 0.42 * k, 0.6 - 0.06 * k), 0.52 - 0.06 * k
            hoop = arc(centre, rx, centre[1] - heights[k], 180, 360, 20)
            pen.polygon(hoop, shade(c.main if k % 2 == 0 else c.second, 1 - 0.12 * k), edge)
            pen.line(hoop, 0.035, c.accent)
            if k:
                ahead = arc(
                    (centre[0] - 0.42, 0.66 - 0.06 * k),
                    rx + 0.06,
                    0.6 - heights[k - 1],
                    270,
                    360,
                    10,
                )
                skin = np.concatenate([hoop[10:], ahead[::-1]])
                pen.polygon(skin, shade(c.main, 0.8 - 0.1 * k))
        door = arc((-0.35, 0.6), 0.34, 0.5 - high * 0.7, 180, 360, 18)
    opened = rng.random()
    pen.polygon(door, c.dark if opened < 0.5 else shade(c.second, 0.9), edge)
    if opened < 0.5:  # a flap tied back
        pen.polygon([door[0], door[len(door) // 2], door.mean(0) + [-0.02, 0.02]], c.second, edge)
    pen.line([(-0.92, 0.64), (0.92, 0.62)], 0.02, c.dark)
