"""Drawn gear of metal and plastic: axes, carabiners, crampons, helmets, pulleys.

Every function draws one object in [-1, 1] x [-1, 1] (x right, y down) and varies its construction,
proportions and details by `rng`.
"""
# ruff: noqa: RUF005 (`points + [x, y]` moves a numpy array; it does not append)

import numpy as np

from jaxgear.data.synthetic.pen import Palette, Pen, arc, mirrored, shade, smooth


def axe(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """An ice axe: shaft, toothed pick to the left, adze or hammer to the right, spike below."""
    bend = rng.choice([0.0, rng.uniform(0.05, 0.35)])
    width = rng.uniform(0.075, 0.12)
    t = np.linspace(0, 1, 14)
    shaft = np.stack([bend * np.sin(np.pi * t) ** 1.5, -0.75 + 1.55 * t], 1)  # [14, 2]
    foot = shaft[-1]
    pen.polygon(
        [(foot[0] - width / 2, foot[1]), (foot[0] + width / 2, foot[1]), (foot[0], 1.0)], c.metal
    )
    pen.tube(shaft, width, c.main)
    grip = int(rng.integers(7, 11))
    if rng.random() < 0.7:
        pen.tube(shaft[grip:], width * 1.25, c.dark if rng.random() < 0.5 else c.accent)
        for x, y in shaft[grip + 1 : -1]:
            pen.line([(x - width * 0.5, y), (x + width * 0.5, y)], 0.02, shade(c.dark, 0.6))
    droop = rng.uniform(0.12, 0.45)
    top = smooth([(0.1, -0.93), (-0.25, -0.92), (-0.6, -0.83 + droop * 0.3), (-0.9, -0.82 + droop)])
    under = smooth([(-0.9, -0.82 + droop), (-0.55, -0.7 + droop * 0.3), (-0.2, -0.75), (0.1, -0.7)])
    teeth = under.copy()
    teeth[2:12:2, 1] += 0.045  # saw the pick's underside
    pen.polygon(np.concatenate([top, teeth]), c.metal, shade(c.metal, 0.5))
    if rng.random() < 0.65:
        drop = rng.uniform(0.0, 0.15)
        blade = [(0.06, -0.93), (0.3, -0.9), (0.5, -0.84 + drop), (0.56, -0.5 + drop)]
        blade += [(0.42, -0.48 + drop), (0.3, -0.7), (0.06, -0.72)]
    else:
        blade = [(0.06, -0.9), (0.3, -0.9), (0.3, -0.97), (0.46, -0.97), (0.46, -0.7), (0.3, -0.7)]
        blade += [(0.3, -0.76), (0.06, -0.74)]
    pen.polygon(blade, shade(c.metal, 0.85), shade(c.metal, 0.45))
    pen.polygon(arc((0.03, -0.82), 0.07, 0.06, n=12), c.dark)
    if rng.random() < 0.35:  # a leash from the head
        reach = rng.uniform(0.25, 0.55)
        loop = smooth([(0.0, -0.75), (reach, -0.35), (reach * 0.9, 0.2), (0.1, -0.1), (0.0, -0.75)])
        pen.line(loop, 0.045, c.accent)


def carabiner(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A ring of bar stock with a gate on the right: plain, wire or screw; sometimes a quickdraw."""
    if rng.random() < 0.2:
        sling = rng.uniform(0.1, 0.17)
        pen.line([(0, -0.35), (0, 0.35)], sling, shade(c.accent, 0.6))
        pen.line([(0, -0.35), (0, 0.35)], sling * 0.75, c.accent)
        _ring(pen.placed(0.0, -0.6, 0.42, rng.uniform(-15, 15)), rng, c)
        _ring(pen.placed(0.0, 0.6, 0.42, 180 + rng.uniform(-15, 15), rng.random() < 0.5), rng, c)
    else:
        _ring(pen, rng, c)


def _ring(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    w = rng.uniform(0.12, 0.2)
    wide = rng.uniform(0.38, 0.6)
    neck = rng.choice([rng.uniform(0.15, 0.35), wide])  # a D or pear, or an oval
    left = rng.uniform(0.3, 0.5)
    outline = [(-left, -0.45), (-left * 0.8, -0.78), (0, -0.9), (wide * 0.8, -0.78), (wide, -0.5)]
    gate = np.array([(wide, -0.5), (neck, 0.55)])
    outline += [
        (wide + (neck - wide) * 0.3, -0.18),
        (wide + (neck - wide) * 0.7, 0.23),
        (neck, 0.55),
    ]
    outline += [(neck * 0.75, 0.8), (-0.05, 0.9), (-left * 0.85, 0.75), (-left, 0.4)]
    path = smooth(outline, closed=True)
    path = np.concatenate([path, path[:2]])
    style = rng.choice(["plain", "wire", "screw"])
    if style == "wire":
        start, end = 7 * 4, 7 * 7  # the spline's samples along the gate
        pen.tube(np.concatenate([path[end:], path[: start + 1]]), w, c.main)
        for side in (-0.25, 0.25):
            pen.line(gate + [w * side, 0], w * 0.16, c.dark)
    else:
        pen.tube(path, w, c.main)
        pen.line(gate, w * 0.95, shade(c.metal, 0.5))
        pen.line(gate, w * 0.7, c.metal)
        if style == "screw":
            a, b = gate[0] * 0.75 + gate[1] * 0.25, gate[0] * 0.4 + gate[1] * 0.6
            pen.line([a, b], w * 1.45, shade(c.second, 0.5))
            pen.line([a, b], w * 1.15, c.second)
            for t in np.linspace(0.2, 0.8, 4):
                x, y = a * (1 - t) + b * t
                pen.line([(x - w * 0.55, y), (x + w * 0.55, y)], 0.02, shade(c.second, 0.5))
    pen.disc(*gate[1], w * 0.22, c.dark)
    pen.line([gate[0] - [w * 0.5, 0.0], gate[0] + [w * 0.5, 0.04]], 0.03, c.dark)


def crampon(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A spiked frame with straps, from the side or from above, alone or as a pair."""
    view = _crampon_profile if rng.random() < 0.6 else _crampon_top
    if rng.random() < 0.35:
        apart = (0.0, 0.42) if view is _crampon_profile else (0.45, 0.0)
        state = rng.integers(2**32)  # a pair is twice the same
        view(pen.placed(-apart[0], -apart[1], 0.7), np.random.default_rng(state), c)
        turn = rng.uniform(-12, 12)
        view(pen.placed(*apart, 0.7, turn), np.random.default_rng(state), c)
    else:
        view(pen, rng, c)


def _crampon_profile(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    long = rng.uniform(0.22, 0.36)
    frame = np.array([(-0.85, 0.25), (-0.4, 0.25), (-0.15, 0.12), (0.2, 0.12), (0.75, 0.2)])
    for dx, dy, tone in ((0.12, -0.16, 0.6), (0.0, 0.0, 1.0)):  # the far rail, then the near one
        metal = shade(c.metal, tone)
        rail = frame + [dx, dy]
        for x in (-0.8, -0.52, 0.2, 0.42, 0.66):
            y = np.interp(x, frame[:, 0], frame[:, 1])
            lean = rng.uniform(-0.08, 0.08)
            spike = [(x - 0.09, y), (x + 0.09, y), (x + lean, y + long + 0.1)]
            pen.polygon(np.array(spike) + [dx, dy], metal, shade(metal, 0.6))
        point = [(0.7, 0.12), (0.98, 0.2 + long * 0.8), (0.72, 0.3)]
        pen.polygon(np.array(point) + [dx * 0.6, dy], metal, shade(metal, 0.6))
        pen.line(rail, 0.11, shade(metal, 0.55))
        pen.line(rail, 0.075, metal)
        if tone < 1:
            for x in (-0.8, -0.35, 0.2, 0.7):
                y = np.interp(x, frame[:, 0], frame[:, 1])
                pen.line([(x, y), (x + dx, y + dy)], 0.07, shade(c.metal, 0.8))
    strap = c.accent if rng.random() < 0.6 else c.dark
    rise = rng.uniform(0.35, 0.65)
    heel = smooth(
        [(-0.85, 0.2), (-0.95, -rise * 0.5), (-0.6, -rise), (-0.2, -rise * 0.7), (-0.3, 0.1)]
    )
    pen.line(heel, 0.085, shade(strap, 0.6))
    pen.line(heel, 0.06, strap)
    pen.polygon([(-0.98, 0.2), (-0.82, 0.2), (-0.86, -rise), (-0.98, -rise)], c.second, c.dark)
    toe = smooth([(0.3, 0.1), (0.35, -rise * 0.5), (0.65, -rise * 0.55), (0.85, 0.1)])
    pen.line(toe, 0.06, strap if rng.random() < 0.5 else c.metal)


def _crampon_top(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    edge = shade(c.metal, 0.5)
    wide, long = rng.uniform(0.3, 0.38), rng.uniform(0.14, 0.22)
    front = mirrored([(0.16, -0.66), (wide, -0.45), (wide * 0.95, -0.15), (0.2, 0.12)])
    heel = mirrored([(0.16, 0.36), (wide * 0.8, 0.5), (wide * 0.75, 0.85), (0.15, 0.92)])
    for side in (-1, 1):
        for y in (-0.5, -0.3, -0.08, 0.5, 0.72):
            x = side * (wide if y < 0.3 else wide * 0.78) * 0.9
            tip = (x + side * long, y + rng.uniform(0.0, 0.14))
            pen.polygon([(x, y - 0.08), tip, (x, y + 0.08)], c.metal, edge)
        spike = [(side * 0.05, -0.6), (side * 0.14, -1.0), (side * 0.24, -0.58)]
        pen.polygon(spike, c.metal, edge)
    pen.line([(0, 0.0), (0, 0.5)], 0.15, edge)
    pen.line([(0, 0.0), (0, 0.5)], 0.11, c.metal)
    for y in np.linspace(0.15, 0.36, 4):
        pen.disc(0, y, 0.025, c.dark)
    for corners in (front, heel):
        outline = smooth(corners, closed=True, steps=3)
        middle = outline.mean(0)
        pen.polygon(outline, c.metal, edge)
        pen.polygon(middle + (outline - middle) * 0.62, c.dark, edge)
        across = middle[1] + rng.uniform(-0.05, 0.05)
        pen.line([(-wide * 0.7, across), (wide * 0.7, across)], 0.07, c.metal)
    strap = c.accent if rng.random() < 0.6 else c.second
    for y, reach in ((-0.42, 0.2), (0.58, 0.22)):
        band = smooth([(-0.33, y), (-0.12, y + reach), (0.2, y + reach), (0.33, y)])
        pen.line(band, 0.1, shade(strap, 0.6))
        pen.line(band, 0.07, strap)
        pen.polygon(arc((0.05, y + reach), 0.09, 0.08, 45, 405, 5), c.dark)


def helmet(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A dome with vents and ridges, a brim at the right, and a chin strap with its buckle."""
    high = rng.uniform(0.68, 0.88)
    dip = rng.uniform(0.0, 0.14)
    strap = c.dark if rng.random() < 0.6 else c.accent
    chin = (rng.uniform(-0.05, 0.25), rng.uniform(0.75, 0.95))
    fork = (chin[0] - 0.2, rng.uniform(0.35, 0.5))
    for start in ((-0.62, 0.1), (0.08, 0.12)):
        pen.line([start, fork], 0.05, strap)
    pen.line([fork, chin], 0.055, strap)
    pen.line(smooth([(0.58, 0.1), (0.5, 0.5), chin]), 0.05, shade(strap, 0.8))
    buckle = np.array([(-0.1, -0.08), (0.08, -0.08), (0.08, 0.05), (-0.1, 0.05)])
    pen.polygon(buckle + chin, c.dark)
    pen.polygon(
        smooth([(-0.75, 0.05), (0, 0.12), (0.8, 0.05), (0.5, 0.22), (-0.6, 0.26)], True), c.dark
    )
    brim = [(0.84, 0.12 - dip * 0.3), (0.4, 0.13 - dip), (-0.1, 0.14), (-0.6, 0.24), (-0.8, 0.16)]
    shell = np.concatenate([arc((0, 0.1), 0.82, high, 180, 360, 22), smooth(brim)])
    pen.polygon(shell, c.main, shade(c.main, 0.5))
    if rng.random() < 0.5:
        band = np.concatenate(
            [arc((0, 0.1), 0.82, high, 185, 355, 16), arc((0, 0.12), 0.8, high * 0.6, 355, 185, 16)]
        )
        pen.polygon(band, c.second if rng.random() < 0.5 else shade(c.main, 1.2))
    count = int(rng.integers(3, 6))
    slit = rng.uniform(0.045, 0.075)
    lit = c.dark if rng.random() < 0.75 else shade(c.accent, 0.8)
    for row, level in enumerate((0.45, 0.75)[: int(rng.integers(1, 3))]):
        for k in range(count - row):
            x = np.interp(k, [0, max(1, count - row - 1)], [-0.5 + 0.1 * row, 0.5 - 0.1 * row])
            y = 0.1 - high * level * np.sqrt(1 - x * x * 0.9)
            vent = arc((x, y), slit, rng.uniform(0.1, 0.16) * (1 - 0.35 * row), n=12)
            lean = np.array([[1, 0], [-x * 0.9, 1]])  # vents fan out from the crown
            pen.polygon((vent - [x, y]) @ lean + [x, y], lit)
    pen.line(smooth([(-0.8, 0.02), (0, -0.02), (0.82, 0.0 - dip * 0.3)]), 0.025, shade(c.main, 0.6))
    if rng.random() < 0.5:
        pen.disc(-0.55, 0.0, 0.07, c.accent, edge=c.dark)


def pulley(pen: Pen, rng: np.random.Generator, c: Palette) -> None:
    """A grooved wheel between two plates that meet in an eye at the top; sometimes two wheels."""
    double = rng.random() < 0.2
    wheels = [(-0.42, 0.38), (0.42, 0.38)] if double else [(0.0, 0.36)]
    radius = rng.uniform(0.4, 0.44) if double else rng.uniform(0.5, 0.6)
    width = rng.uniform(0.6, 0.7) if double else rng.uniform(0.32, 0.42)
    neck = rng.uniform(0.22, 0.32)
    shift = rng.uniform(0.05, 0.16) * rng.choice([-1, 1])
    right = [(neck * 0.6, -0.97), (neck, -0.78), (neck * 0.95, -0.45), (width * 0.9, 0.05)]
    right += [(width, 0.42), (width * 0.6, 0.62 if rng.random() < 0.5 else 0.78)]
    plate = smooth(mirrored(right), closed=True)
    pen.polygon(plate + [shift, -0.03], shade(c.main, 0.6), shade(c.main, 0.35))
    for x, y in wheels:  # rim, groove, and the side of the wheel
        for r, tone in ((1.0, 0.4), (0.95, 1.05), (0.84, 0.45), (0.79, 0.8), (0.68, 1.0)):
            pen.disc(x + shift / 2, y, radius * r, shade(c.metal, tone))
    pen.polygon(plate, c.main, shade(c.main, 0.45), 0.03)
    inner = plate.mean(0) + (plate - plate.mean(0)) * 0.86
    pen.line(np.concatenate([inner, inner[:1]]), 0.02, shade(c.main, 1.25))
    cut = rng.choice(["solid", "slots", "window"])
    for x, y in wheels:
        if cut == "slots":  # holes around the axle show the wheel
            for angle in (-140, -90, -40):
                at = np.radians(angle)
                spot = (x + np.cos(at) * 0.22, y + np.sin(at) * 0.26)
                pen.disc(*spot, 0.06, shade(c.metal, 0.7), 0.07, shade(c.main, 0.4))
        elif cut == "window":
            window = np.concatenate(
                [arc((x, y), 0.26, 0.42, 205, 335, 12), arc((x, y), 0.2, 0.2, 335, 205, 8)]
            )
            pen.polygon(window, shade(c.metal, 0.75), shade(c.main, 0.4))
        pen.disc(x, y, 0.17, shade(c.metal, 0.5))
        pen.disc(x, y, 0.13, c.metal)
        pen.polygon(arc((x, y), 0.07, 0.07, n=7), c.dark)
    eye = arc((0, -0.72), neck * 0.55, rng.uniform(0.11, 0.15), n=16)
    pen.polygon((eye - [0, -0.72]) * 1.3 + [0, -0.72], shade(c.main, 0.5))
    pen.hole(eye)
