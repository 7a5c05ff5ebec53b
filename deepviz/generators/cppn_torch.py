"""Paints the scenes of :mod:`.cppn_scene` with torch, on any device that it has.

The same network as :mod:`.cppn_kernel`, where the formulas are explained; names and order agree.
"""

from __future__ import annotations

import numpy as np
import torch

from deepviz.generators.cppn_scene import TAU, WAVES, Scene, samples_per_side

TILE = 1 << 17  # pixels at a time: 20 MB a layer, which stays in a large GPU's second-level cache
STEP = 1 / 512


def paint(scenes: list[Scene], resolution: int, device: str) -> np.ndarray:
    """Frames of scenes, uint8, shape = (scenes, resolution, resolution, 3)."""
    frames = torch.empty((len(scenes), resolution**2, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        for scene, frame in zip(scenes, frames, strict=True):
            there = Scene(*(torch.as_tensor(value, device=device) for value in scene))
            for first in range(0, resolution**2, TILE):
                pixels = torch.arange(first, min(first + TILE, resolution**2), device=device)
                frame[first : first + TILE] = _paint_pixels(there, resolution, pixels)
    return frames.reshape(-1, resolution, resolution, 3).cpu().numpy()


def _paint_pixels(scene: Scene, resolution: int, pixels: torch.Tensor) -> torch.Tensor:
    side = samples_per_side(resolution)
    total = torch.zeros((), device=pixels.device)
    for sample in range(side * side):
        x = (pixels % resolution + (sample % side + 0.5) / side) * (2 / resolution) - 1
        y = (pixels // resolution + (sample // side + 0.5) / side) * (2 / resolution) - 1
        total = total + _paint_points(x, y, scene, 2 / (resolution * side))
    return (total / side**2 + 0.5).to(torch.uint8).T


def _paint_points(x: torch.Tensor, y: torch.Tensor, scene: Scene, pitch: float) -> torch.Tensor:
    here = _features(x, y, scene)
    right = _features(x + STEP, y, scene)
    below = _features(x, y + STEP, scene)
    units = torch.stack([here, (right - here) / STEP, (below - here) / STEP], dim=1)
    drawn = torch.zeros((), device=x.device)
    for weights, biases, readout in zip(scene.weights, scene.biases, scene.readout, strict=True):
        units = _layer(weights, biases, units, pitch)
        drawn = drawn + _product(readout, units)
    return _shade(x, y, drawn, scene, pitch)


def _product(weights: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """(out, in) by (in, 3, P): values and their derivatives alike."""
    return (weights @ units.flatten(1)).unflatten(1, units.shape[1:])


def _soft(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(1 + x * x)


def _sharpness(slope_x: torch.Tensor, slope_y: torch.Tensor, pitch: float) -> torch.Tensor:
    turns = (slope_x.square() + slope_y.square()) * pitch**2
    return (1 - 4 * turns).clamp(min=0).square()


def _features(x: torch.Tensor, y: torch.Tensor, scene: Scene) -> torch.Tensor:
    pose, phases, warp = scene.pose, scene.phases, scene.warp
    x0 = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]
    y0 = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]
    slow, fast = 0.45, 1.1
    x1 = x0 + warp * (_cosine(slow * y0 + phases[0]) + 0.4 * _cosine(fast * y0 + phases[2]))
    y1 = y0 + warp * (_cosine(slow * x0 + phases[1]) + 0.4 * _cosine(fast * x0 + phases[3]))
    square = x1 * x1 + y1 * y1
    angle = TAU * 2 * scene.twist / (1 + square)
    sine, cosine = angle.sin(), angle.cos()
    x2 = cosine * x1 - sine * y1
    y2 = sine * x1 + cosine * y1
    r = torch.sqrt(square + 0.01)
    a1, b1 = x2 / r, y2 / r
    a2, b2 = a1 * a1 - b1 * b1, 2 * a1 * b1
    a3, b3 = a2 * a1 - b2 * b1, a2 * b1 + b2 * a1
    columns = [x2, y2, torch.sqrt(x2 * x2 + 0.003), r, 0.5 / (r + 0.15), r * a2, r * a3]
    columns += [r * (a2 * a2 - b2 * b2), r * (a2 * a3 - b2 * b3), r * (a3 * a3 - b3 * b3)]
    return torch.stack([*columns, _cosine(0.7 * x2), _cosine(0.7 * y2)])


def _cosine(turns: torch.Tensor) -> torch.Tensor:
    return torch.cos(TAU * turns)


def _layer(
    weights: torch.Tensor, biases: torch.Tensor, units: torch.Tensor, pitch: float
) -> torch.Tensor:
    value, slope_x, slope_y = _product(weights, units).unbind(1)
    value = value + biases[:, None]
    left = _sharpness(slope_x[:WAVES], slope_y[:WAVES], pitch)
    angle, u = TAU * value[:WAVES], value[WAVES:]
    q = torch.rsqrt(1 + u * u)
    gain = torch.cat([-TAU * left * angle.sin(), q * q * q])
    value = torch.cat([left * angle.cos(), u * q])
    return torch.stack([value, gain * slope_x, gain * slope_y], dim=1)


def _shade(
    x: torch.Tensor, y: torch.Tensor, drawn: torch.Tensor, scene: Scene, pitch: float
) -> torch.Tensor:
    height, hue, veil, line = drawn[:, 0]
    slope_x, slope_y = -scene.relief * drawn[0, 1], -scene.relief * drawn[0, 2]
    upright = torch.rsqrt(1 + slope_x * slope_x + slope_y * slope_y)
    towards = slope_x * scene.light[0] + slope_y * scene.light[1]
    lit = ((towards + 0.75) * upright).clamp(min=0)
    gleam = ((0.55 * towards + 0.94) * upright).clamp(min=0) ** 16

    left = _sharpness(drawn[1, 1], drawn[1, 2], pitch)
    angle = TAU * (hue + scene.film * (1 - upright) + 0.25 * veil)
    s1, c1 = left * angle.sin(), left * angle.cos()
    curve = torch.stack([torch.ones_like(c1), c1, s1, c1 * c1 - s1 * s1, 2 * s1 * c1])
    paint = (scene.palette.T @ curve).clamp(min=0)

    across = drawn[3, 1].square() + drawn[3, 2].square()
    width = 0.0025 + 0.6 * across * pitch**2
    neon = torch.sqrt(0.0025 * width) / (width + line * line)

    shadow = 0.5 + 0.5 * _soft(1.8 * veil)
    light = (0.12 + 1.35 * lit) * (0.3 + 0.9 * (0.5 + 0.5 * _soft(height)))
    light = light * (1 - scene.veil + 1.5 * scene.veil * shadow)
    shine = 0.4 * scene.shine * gleam * lit * (0.3 + 0.7 * shadow)
    exposure = 2.7 * (1 - 0.25 * (x * x + y * y))
    e = exposure * (paint * light + shine + neon * scene.glow[:, None])
    top = e.amax(dim=0)
    return 255 * torch.sqrt((e * (1 + 0.12 * top) / (1 + top)).clamp(max=1))
