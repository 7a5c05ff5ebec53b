"""Paints the scenes of :mod:`.cppn_scene` on the CPU, compiled by numba.

A tile of pixels goes through the whole network while it stays in the first-level cache, and every
inner loop runs over its pixels, so that LLVM makes vector instructions of it. Each unit carries
its value and its two derivatives by the pixel's coordinates (forward-mode differentiation): they
fade out a sine that is too fine for the pixels, and give the slope that the light falls on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

from deepviz.generators.cppn_scene import Scene, samples_per_side

# The shape of the network, again: numba's cache sees changes of this file alone. For the same
# reason the compiled functions take plain tuples, not a Scene.
LAYERS, CHANNELS, WAVES, OUTPUTS = 4, 12, 8, 4

TILE = 128  # pixels; 256 falls out of the first-level cache, 64 pays more for the loops
VALUES = 3 * TILE  # a tile of values, of derivatives by x, and of derivatives by y
f32 = np.float32  # a bare literal would turn the arithmetic around it to float64
STEP = f32(1 / 512)  # of the differences that give the derivatives of the features
TURN = f32(2 * np.pi)
HALF, ONE, TWO = f32(0.5), f32(1), f32(2)

# Chebyshev fits in u² of cos(TURN u) and sin(TURN u) / u for |u| <= 1/2: exact to 5e-5, a
# hundredth of a grey level, at a fifth of the price of a library call.
C0, C1, C2, C3, C4 = map(f32, (0.99995902, -19.730942, 64.671442, -82.390806, 45.621051))
S0, S1, S2, S3, S4 = map(f32, (6.2831611, -41.336832, 81.447706, -74.90942, 33.548355))


def _jit(function: Any) -> Any:
    """Compiled without the interpreter's lock; kept on disk where a folder for it can be had."""
    try:
        return njit(function, cache=True, nogil=True, fastmath=True, error_model="numpy")
    except RuntimeError:  # neither beside this file nor in the user's cache folder
        return njit(function, nogil=True, fastmath=True, error_model="numpy")


@_jit
def _sine_and_cosine(turns):  # type: ignore[no-untyped-def]
    u = turns - np.floor(turns + HALF)
    v = u * u
    sine = u * (S0 + v * (S1 + v * (S2 + v * (S3 + v * S4))))
    return sine, C0 + v * (C1 + v * (C2 + v * (C3 + v * C4)))


@_jit
def _cosine(turns):  # type: ignore[no-untyped-def]
    return _sine_and_cosine(turns)[1]


@_jit
def _soft(x):  # type: ignore[no-untyped-def]
    return x / np.sqrt(ONE + x * x)


@_jit
def _sharpness(slope_x, slope_y, pitch):  # type: ignore[no-untyped-def]
    """How much of a sine of this many turns a unit is left when averaged over a pixel."""
    turns = (slope_x * slope_x + slope_y * slope_y) * pitch * pitch
    left = max(f32(0), ONE - f32(4) * turns)
    return left * left


@_jit
def _row(array):  # type: ignore[no-untyped-def]
    return array[0], array[1], array[2]


@_jit
def _coordinates(first, resolution, side, grid):  # type: ignore[no-untyped-def]
    """x and y in [-1, 1] of the points to paint, from pixel ``first`` on, into ``grid``
    (2, VALUES): ``side`` by ``side`` points a pixel, TILE of them, then TILE points a STEP to
    their right, then TILE points a STEP below them."""
    pixels = TILE // (side * side)
    pitch = TWO / f32(resolution)
    for sample in range(side * side):
        right = (f32(sample % side) + HALF) / f32(side)
        below = (f32(sample // side) + HALF) / f32(side)
        row, column = first // resolution, first % resolution
        for p in range(sample * pixels, (sample + 1) * pixels):
            x, y = (f32(column) + right) * pitch - ONE, (f32(row) + below) * pitch - ONE
            grid[0, p], grid[0, TILE + p], grid[0, 2 * TILE + p] = x, x + STEP, x
            grid[1, p], grid[1, TILE + p], grid[1, 2 * TILE + p] = y, y, y + STEP
            column += 1
            if column == resolution:
                row, column = row + 1, 0


@_jit
def _features(grid, bend, units):  # type: ignore[no-untyped-def]
    """What the first layer sees of each coordinate: the columns of ``cppn_scene.FORMS``."""
    # Read before the loop: LLVM gives up on vectors where stores might change what is read.
    pose, phases, warp, twist = bend
    (xx, xy, shift_x), (yx, yy, shift_y) = _row(pose[0]), _row(pose[1])
    (phase0, phase1, phase2), phase3 = _row(phases), phases[3]
    flat = units.reshape(CHANNELS * VALUES)  # one row after another, so that none overlap
    slow, fast, weak = f32(0.45), f32(1.1), f32(0.4) * warp
    for p in range(VALUES):
        x, y = grid[0, p], grid[1, p]
        x0 = xx * x + xy * y + shift_x
        y0 = yx * x + yy * y + shift_y
        x1 = x0 + warp * _cosine(slow * y0 + phase0) + weak * _cosine(fast * y0 + phase2)
        y1 = y0 + warp * _cosine(slow * x0 + phase1) + weak * _cosine(fast * x0 + phase3)
        square = x1 * x1 + y1 * y1
        sine, cosine = _sine_and_cosine(TWO * twist / (ONE + square))
        x2 = cosine * x1 - sine * y1
        y2 = sine * x1 + cosine * y1
        r = np.sqrt(square + f32(0.01))  # never 0, so that the centre stays smooth
        # cos and sin of multiples of the angle, as powers of a complex number
        a1, b1 = x2 / r, y2 / r
        a2, b2 = a1 * a1 - b1 * b1, TWO * a1 * b1
        a3, b3 = a2 * a1 - b2 * b1, a2 * b1 + b2 * a1
        flat[0 * VALUES + p] = x2
        flat[1 * VALUES + p] = y2
        flat[2 * VALUES + p] = np.sqrt(x2 * x2 + f32(0.003))
        flat[3 * VALUES + p] = r
        flat[4 * VALUES + p] = HALF / (r + f32(0.15))
        flat[5 * VALUES + p] = r * a2
        flat[6 * VALUES + p] = r * a3
        flat[7 * VALUES + p] = r * (a2 * a2 - b2 * b2)
        flat[8 * VALUES + p] = r * (a2 * a3 - b2 * b3)
        flat[9 * VALUES + p] = r * (a3 * a3 - b3 * b3)
        flat[10 * VALUES + p] = _cosine(f32(0.7) * x2)
        flat[11 * VALUES + p] = _cosine(f32(0.7) * y2)


@_jit
def _slopes(units):  # type: ignore[no-untyped-def]
    """Turns the features of the points beside a pixel into derivatives."""
    for i in range(CHANNELS):
        for p in range(TILE):
            units[i, TILE + p] = (units[i, TILE + p] - units[i, p]) / STEP
            units[i, 2 * TILE + p] = (units[i, 2 * TILE + p] - units[i, p]) / STEP


@_jit
def _layer(weights, biases, units, result, pitch):  # type: ignore[no-untyped-def]
    """One layer: products with the weights, then WAVES cosines and CHANNELS - WAVES soft steps."""
    for o in range(CHANNELS):
        for p in range(VALUES):
            total = f32(0)
            for i in range(CHANNELS):
                total += weights[o, i] * units[i, p]
            result[o, p] = total
    for o in range(WAVES):
        for p in range(TILE):
            slope_x, slope_y = result[o, TILE + p], result[o, 2 * TILE + p]
            left = _sharpness(slope_x, slope_y, pitch)
            sine, cosine = _sine_and_cosine(result[o, p] + biases[o])
            result[o, p] = left * cosine
            result[o, TILE + p] = -TURN * left * sine * slope_x
            result[o, 2 * TILE + p] = -TURN * left * sine * slope_y
    for o in range(WAVES, CHANNELS):
        for p in range(TILE):
            u = result[o, p] + biases[o]
            q = ONE / np.sqrt(ONE + u * u)
            result[o, p] = u * q
            result[o, TILE + p] *= q * q * q
            result[o, 2 * TILE + p] *= q * q * q


@_jit
def _draw(readout, units, drawn):  # type: ignore[no-untyped-def]
    """Adds what a layer draws to ``drawn`` (OUTPUTS, VALUES)."""
    for o in range(OUTPUTS):
        for p in range(VALUES):
            total = drawn[o, p]
            for i in range(CHANNELS):
                total += readout[o, i] * units[i, p]
            drawn[o, p] = total


@_jit
def _light(grid, drawn, stage, pitch, lights):  # type: ignore[no-untyped-def]
    """What lights each pixel of a tile into ``lights`` (5, TILE): cosine and sine of the place on
    the palette, how bright the paint is lit, white highlights, and lines that glow."""
    lamp, relief, shine, film, depth = stage
    light_x, light_y, gloss = lamp[0], lamp[1], f32(0.4) * shine
    for p in range(TILE):
        height, hue, veil, line = drawn[0, p], drawn[1, p], drawn[2, p], drawn[3, p]
        slope_x, slope_y = -relief * drawn[0, TILE + p], -relief * drawn[0, 2 * TILE + p]
        upright = ONE / np.sqrt(ONE + slope_x * slope_x + slope_y * slope_y)
        towards = slope_x * light_x + slope_y * light_y
        lit = max(f32(0), (towards + f32(0.75)) * upright)
        gleam = max(f32(0), (f32(0.55) * towards + f32(0.94)) * upright)
        for _ in range(4):
            gleam *= gleam

        left = _sharpness(drawn[1, TILE + p], drawn[1, 2 * TILE + p], pitch)
        sine, cosine = _sine_and_cosine(hue + film * (ONE - upright) + f32(0.25) * veil)
        lights[0, p] = left * cosine
        lights[1, p] = left * sine

        shadow = HALF + HALF * _soft(f32(1.8) * veil)
        hollow = f32(0.75) + f32(0.45) * _soft(height)
        shade = hollow * (ONE - depth + f32(1.5) * depth * shadow)
        x, y = grid[0, p], grid[1, p]
        exposure = f32(2.7) * (ONE - f32(0.25) * (x * x + y * y))
        lights[2, p] = exposure * shade * (f32(0.12) + f32(1.35) * lit)
        lights[3, p] = exposure * gloss * gleam * lit * (f32(0.3) + f32(0.7) * shadow)

        # A line of light where the last output is 0, never thinner than a pixel.
        slope_x, slope_y = pitch * drawn[3, TILE + p], pitch * drawn[3, 2 * TILE + p]
        width = f32(0.0025) + f32(0.6) * (slope_x * slope_x + slope_y * slope_y)
        lights[4, p] = exposure * np.sqrt(f32(0.0025) * width) / (width + line * line)


@_jit
def _colour(lights, palette, glow, colour):  # type: ignore[no-untyped-def]
    """Colours of a tile into ``colour`` (3, TILE), in [0, 255]."""
    for c in range(3):
        (k0, k1, k2), k3, k4 = _row(palette[:, c]), palette[3, c], palette[4, c]
        neon = glow[c]
        for p in range(TILE):
            c1, s1 = lights[0, p], lights[1, p]
            c2, s2 = c1 * c1 - s1 * s1, TWO * s1 * c1
            paint = max(f32(0), k0 + k1 * c1 + k2 * s1 + k3 * c2 + k4 * s2)
            colour[c, p] = paint * lights[2, p] + lights[3, p] + neon * lights[4, p]
    for p in range(TILE):
        red, green, blue = colour[0, p], colour[1, p], colour[2, p]
        # A film's shoulder on the strongest of the three, so that what is bright keeps its hue.
        top = max(red, max(green, blue))
        scale = (ONE + f32(0.12) * top) / (ONE + top)
        colour[0, p] = f32(255) * np.sqrt(min(ONE, scale * red))
        colour[1, p] = f32(255) * np.sqrt(min(ONE, scale * green))
        colour[2, p] = f32(255) * np.sqrt(min(ONE, scale * blue))


@_jit
def _paint_pixels(bend, network, stage, colours, resolution, side, first, last, frame):  # type: ignore[no-untyped-def]
    """Pixels ``first`` to ``last`` of ``frame`` (pixels, 3), in whole tiles."""
    weights, biases, readout = network
    palette, glow = colours
    grid = np.empty((2, VALUES), np.float32)
    units = np.empty((CHANNELS, VALUES), np.float32)
    spare = np.empty((CHANNELS, VALUES), np.float32)
    drawn = np.empty((OUTPUTS, VALUES), np.float32)
    lights = np.empty((5, TILE), np.float32)
    colour = np.empty((3, TILE), np.float32)
    pitch = TWO / f32(resolution * side)
    pixels = TILE // (side * side)
    for start in range(first, last, pixels):
        _coordinates(start, resolution, side, grid)
        _features(grid, bend, units)
        _slopes(units)
        drawn[:] = f32(0)
        for i in range(LAYERS):
            _layer(weights[i], biases[i], units, spare, pitch)
            _draw(readout[i], spare, drawn)
            units, spare = spare, units
        _light(grid, drawn, stage, pitch, lights)
        _colour(lights, palette, glow, colour)
        for p in range(min(pixels, last - start)):
            for c in range(3):
                total = f32(0)
                for sample in range(side * side):
                    total += colour[c, sample * pixels + p]
                frame[start + p, c] = np.uint8(total / f32(side * side) + HALF)


def paint(scenes: list[Scene], resolution: int, threads: ThreadPoolExecutor) -> np.ndarray:
    """Frames of scenes, uint8, shape = (scenes, resolution, resolution, 3)."""
    pixels, side = resolution * resolution, samples_per_side(resolution)
    frames = np.empty((len(scenes), pixels, 3), np.uint8)
    # Bands of whole tiles: a pixel's tile, and so its last bit, is the same with any threads.
    band = TILE * max(1, -(-pixels // (TILE * 8)))
    jobs = [(i, first) for i in range(len(scenes)) for first in range(0, pixels, band)]

    def work(job: tuple[int, int]) -> None:
        i, first = job
        s = scenes[i]
        _paint_pixels(
            (s.pose, s.phases, s.warp, s.twist),
            (s.weights, s.biases, s.readout),
            (s.light, s.relief, s.shine, s.film, s.veil),
            (s.palette, s.glow),
            *(resolution, side, first, min(first + band, pixels), frames[i]),
        )

    list(threads.map(work, jobs))
    return frames.reshape(len(scenes), resolution, resolution, 3)
