"""Paints the scenes of :mod:`.cppn_scene` with torch, on a GPU or any other device that it has.

The same network as :mod:`.cppn_kernel`, where the formulas are explained; names and order agree.
Here each step takes a whole tile of points, and small frames share a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch

from deepviz.generators.cppn_scene import (
    CHANNELS,
    LAYERS,
    OUTPUTS,
    TAU,
    WAVES,
    Scene,
    samples_per_side,
)
from deepviz.generators.gpu import Recorded, exact_arithmetic, pinned, stream_frames

# Points at a time. Many enough to fill a GPU even in the steps that have one number a point; few
# enough that a layer's 38 MB stay in a large one's second-level cache.
TILE = 1 << 18
STEP = 1 / 512

# Scenes travel to the device as rows of numbers: all fields of one, flattened, in this order.
SHAPES = Scene(
    pose=(2, 3),
    warp=(1,),
    phases=(4, 1),
    twist=(1,),
    weights=(LAYERS, CHANNELS, CHANNELS),
    biases=(LAYERS, CHANNELS, 1),
    readout=(LAYERS, OUTPUTS, CHANNELS),
    palette=(5, 3),
    glow=(3, 1),
    light=(2, 1),
    relief=(1,),
    shine=(1,),
    film=(1,),
    veil=(1,),
)
SIZES = [int(np.prod(shape)) for shape in SHAPES]


def render(batches: Iterable[list[Scene]], resolution: int, device: str) -> Iterator[np.ndarray]:
    """Batches of scenes to frames, uint8, shape = (scenes, resolution, resolution, 3)."""
    where = torch.device(device)
    painter: _Painter | None = None

    def launch(scenes: list[Scene]) -> torch.Tensor:
        nonlocal painter
        painter = painter or _Painter(resolution, where)
        return painter.paint(scenes)

    return stream_frames(batches, launch, where)


class _Painter:
    """Paints frames tile by tile: all pixels of as many scenes as fit, or a part of one scene."""

    def __init__(self, resolution: int, device: torch.device) -> None:
        samples = samples_per_side(resolution) ** 2
        self._resolution, self._device = resolution, device
        self._pixels = min(resolution**2, TILE // samples)  # of each scene in a tile
        self._scenes = TILE // (self._pixels * samples)  # in a tile
        self._starts = torch.arange(0, resolution**2, self._pixels, device=device)
        # Always whole tiles: a pixel is computed by the same steps, whatever stands beside it.
        self._paint_tile = Recorded(
            partial(_paint_tile, resolution=resolution, pixels=self._pixels),
            torch.zeros(self._scenes, sum(SIZES), device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
        )

    def paint(self, scenes: list[Scene]) -> torch.Tensor:
        """Frames of scenes, on the device."""
        packed = pinned(np.stack([_pack(scene) for scene in scenes]), self._device)
        packed = packed.to(self._device, non_blocking=True)
        shape = (len(scenes), self._resolution**2, 3)
        frames = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for first in range(0, len(scenes), self._scenes):
            group = slice(first, first + self._scenes)
            for number in range(len(self._starts)):
                start = number * self._pixels
                tile = self._paint_tile(packed[group], self._starts[number : number + 1])
                part = frames[group, start : start + self._pixels]
                part.copy_(tile[: part.shape[0], : part.shape[1]])
        return frames.view(-1, self._resolution, self._resolution, 3)


def _pack(scene: Scene) -> np.ndarray:
    """A scene as a row of numbers; what goes through a sine is in radians from here on."""
    radians = np.array([TAU] * WAVES + [1] * (CHANNELS - WAVES), np.float32)
    weights, biases = scene.weights * radians[:, None], scene.biases * radians
    fields = scene._replace(weights=weights, biases=biases)
    return np.concatenate([np.ravel(field) for field in fields])


def _paint_tile(
    packed: torch.Tensor, start: torch.Tensor, *, resolution: int, pixels: int
) -> torch.Tensor:
    """Pixels from ``start`` on of each of the scenes, uint8, shape = (scenes, pixels, 3)."""
    parts = packed.split(SIZES, dim=1)
    scene = Scene(*(part.unflatten(1, shape) for part, shape in zip(parts, SHAPES, strict=True)))
    side = samples_per_side(resolution)
    pixel = start + torch.arange(pixels, device=start.device)
    sample = torch.arange(side * side, device=start.device)[:, None]
    x = (pixel % resolution + (sample % side + 0.5) / side) * (2 / resolution) - 1
    y = (pixel // resolution + (sample // side + 0.5) / side) * (2 / resolution) - 1
    with exact_arithmetic():
        colours = _paint_points(x.flatten(), y.flatten(), scene, 2 / (resolution * side))
    mean = colours.unflatten(2, (side * side, pixels)).mean(2)
    return (mean + 0.5).to(torch.uint8).transpose(1, 2)


def _paint_points(x: torch.Tensor, y: torch.Tensor, scene: Scene, pitch: float) -> torch.Tensor:
    """Colours in [0, 255], shape = (scenes, 3, points).

    Units are kept as (scenes, channels, 3, points): their values, and derivatives by x and by y.
    """
    here_right_below = torch.stack([x, x + STEP, x]), torch.stack([y, y, y + STEP])
    units = _features(*here_right_below, scene)
    units[:, :, 1:].sub_(units[:, :, :1]).mul_(1 / STEP)
    drawn = torch.zeros_like(units[:, :OUTPUTS]).flatten(2)
    for i in range(LAYERS):
        units = _layer(scene.weights[:, i], scene.biases[:, i], units, pitch)
        drawn.baddbmm_(scene.readout[:, i], units.flatten(2))
    return _shade(x, y, drawn.unflatten(2, (3, -1)), scene, pitch)


def _soft(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(1 + x * x)


def _sharpness(slope_x: torch.Tensor, slope_y: torch.Tensor, pitch: float) -> torch.Tensor:
    one, scale = slope_x.new_ones(()), -4 * pitch**2
    left = torch.addcmul(one, slope_x, slope_x, value=scale)
    return left.addcmul_(slope_y, slope_y, value=scale).clamp_(min=0).square_()


def _features(x: torch.Tensor, y: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Coordinates, shape = (3, P), to the columns of ``cppn_scene.FORMS``, (S, CHANNELS, 3, P)."""
    pose, phases, warp = scene.pose[..., None, None], scene.phases[..., None], scene.warp[..., None]
    x0 = pose[:, 0, 0] * x + pose[:, 0, 1] * y + pose[:, 0, 2]
    y0 = pose[:, 1, 0] * x + pose[:, 1, 1] * y + pose[:, 1, 2]
    slow, fast = 0.45, 1.1
    x1 = x0 + warp * (_cosine(slow * y0 + phases[:, 0]) + 0.4 * _cosine(fast * y0 + phases[:, 2]))
    y1 = y0 + warp * (_cosine(slow * x0 + phases[:, 1]) + 0.4 * _cosine(fast * x0 + phases[:, 3]))
    square = x1 * x1 + y1 * y1
    angle = TAU * 2 * scene.twist[..., None] / (1 + square)
    sine, cosine = angle.sin(), angle.cos()
    x2 = cosine * x1 - sine * y1
    y2 = sine * x1 + cosine * y1
    r = torch.sqrt(square + 0.01)
    a1, b1 = x2 / r, y2 / r
    a2, b2 = a1 * a1 - b1 * b1, 2 * a1 * b1
    a3, b3 = a2 * a1 - b2 * b1, a2 * b1 + b2 * a1
    columns = [x2, y2, torch.sqrt(x2 * x2 + 0.003), r, 0.5 / (r + 0.15), r * a2, r * a3]
    columns += [r * (a2 * a2 - b2 * b2), r * (a2 * a3 - b2 * b3), r * (a3 * a3 - b3 * b3)]
    return torch.stack([*columns, _cosine(0.7 * x2), _cosine(0.7 * y2)], dim=1)


def _cosine(turns: torch.Tensor) -> torch.Tensor:
    return torch.cos(TAU * turns)


def _layer(
    weights: torch.Tensor, biases: torch.Tensor, units: torch.Tensor, pitch: float
) -> torch.Tensor:
    # Most of the time goes into reading and writing the units: in place, and no pass for nothing.
    units = (weights @ units.flatten(2)).unflatten(2, (3, -1))  # derivatives as values
    value, slopes = units[:, :, 0].add_(biases), units[:, :, 1:]
    angle, u = value[:, :WAVES], value[:, WAVES:]
    left = _sharpness(slopes[:, :WAVES, 0], slopes[:, :WAVES, 1], pitch / TAU)
    slopes[:, :WAVES].mul_((-left * angle.sin())[:, :, None])
    torch.mul(left, angle.cos(), out=angle)
    q = torch.addcmul(u.new_ones(()), u, u).rsqrt_()
    slopes[:, WAVES:].mul_(q.pow(3)[:, :, None])
    u.mul_(q)
    return units


def _shade(
    x: torch.Tensor, y: torch.Tensor, drawn: torch.Tensor, scene: Scene, pitch: float
) -> torch.Tensor:
    height, hue, veil, line = drawn[:, :, 0].unbind(1)
    by_x, by_y = drawn[:, :, 1].unbind(1), drawn[:, :, 2].unbind(1)
    slope_x, slope_y = -scene.relief * by_x[0], -scene.relief * by_y[0]
    upright = torch.rsqrt(1 + slope_x * slope_x + slope_y * slope_y)
    towards = slope_x * scene.light[:, 0] + slope_y * scene.light[:, 1]
    lit = ((towards + 0.75) * upright).clamp(min=0)
    gleam = ((0.55 * towards + 0.94) * upright).clamp(min=0) ** 16

    left = _sharpness(by_x[1], by_y[1], pitch)
    angle = TAU * (hue + scene.film * (1 - upright) + 0.25 * veil)
    s1, c1 = left * angle.sin(), left * angle.cos()
    curve = torch.stack([torch.ones_like(c1), c1, s1, c1 * c1 - s1 * s1, 2 * s1 * c1], dim=1)
    paint = (scene.palette.mT @ curve).clamp(min=0)

    across = by_x[3].square() + by_y[3].square()
    width = 0.0025 + 0.6 * across * pitch**2
    neon = torch.sqrt(0.0025 * width) / (width + line * line)

    shadow = 0.5 + 0.5 * _soft(1.8 * veil)
    light = (0.12 + 1.35 * lit) * (0.3 + 0.9 * (0.5 + 0.5 * _soft(height)))
    light = light * (1 - scene.veil + 1.5 * scene.veil * shadow)
    shine = 0.4 * scene.shine * gleam * lit * (0.3 + 0.7 * shadow)
    exposure = 2.7 * (1 - 0.25 * (x * x + y * y))
    e = exposure * (paint * light[:, None] + shine[:, None] + neon[:, None] * scene.glow)
    top = e.amax(dim=1, keepdim=True)
    return 255 * torch.sqrt((e * (1 + 0.12 * top) / (1 + top)).clamp(max=1))
