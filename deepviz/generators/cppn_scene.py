"""The scenes that :mod:`.cppn` paints: what a noise and a class vector make of the fixed weights.

All that depends on the vectors alone is computed here, once a frame. All weights come from one
seed; the classes differ in palette, in kind of form and in how the weights are scaled.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from deepviz.generators import NOISE_DIM, NUM_CLASSES

SEED = 7  # fixes every weight, and so how each class looks
LAYERS = 4  # each triples the spatial frequency: forms, folds in them, veins in the folds
CHANNELS = 12  # features of a coordinate, and units of each layer
WAVES = 8  # units of a layer that go through a sine; the others through a soft step
EMBEDDING = 16  # numbers that say how a class differs in weights and light
OUTPUTS = 4  # what the layers draw: height, hue, veil and glow
TAU = 2 * math.pi

# The kinds of form: how much each weighs the 12 features of a coordinate (columns; c2 is cos of
# twice the angle, and so on). A class has a taste for each kind and mostly shows its favourite.
FORMS = np.array(
    # x    y   |x|   r   1/r   c2   c3   c4   c5   c6  tile-x tile-y
    [
        [1.3, 1.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # free flow
        [0.0, 1.2, 1.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # mirrored, as a mask
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # eyes
        [0.0, 0.0, 0.0, 0.8, 1.1, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0],  # tunnel
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # stars of 3 to 6 arms
        [0.0, 0.0, 0.0, 0.9, 0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.9, 0.3, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        [0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0],  # tiles
        [0.0, 0.6, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0],  # ribbons
    ]
)
# How much each feature changes over a unit of length, on average over the picture.
STEEPNESS = np.array([1, 1, 1, 1, 1, 1.6, 2.2, 2.9, 3.6, 4.3, 3.1, 3.1])
SYMMETRY = np.array([0, 0.5, 0.7, 1, 1, 1, 1, 1, 0.8, 0.3])  # of each kind; warps would break it


class Scene(NamedTuple):
    """One frame, as the painters take it: all float32, phases and angles in turns.

    ``pose`` (2, 3) places the picture; ``warp``, ``phases`` (4,) and ``twist`` bend it.
    ``weights`` (LAYERS, CHANNELS, CHANNELS), ``biases`` (LAYERS, CHANNELS) and ``readout``
    (LAYERS, OUTPUTS, CHANNELS) are the network. ``palette`` (5, 3) are the coefficients of
    1, cos t, sin t, cos 2t, sin 2t in linear RGB, and ``glow`` (3,) the colour of the lines.
    ``light`` (2,) is the lamp's direction, ``relief`` the steepness of the heights, ``shine`` the
    strength of highlights, ``film`` how far a slope turns the hue, ``veil`` the depth of shadows.
    """

    pose: Any
    warp: Any
    phases: Any
    twist: Any
    weights: Any
    biases: Any
    readout: Any
    palette: Any
    glow: Any
    light: Any
    relief: Any
    shine: Any
    film: Any
    veil: Any


def samples_per_side(resolution: int) -> int:
    """Points along each side of a pixel that are painted and averaged.

    A fold can be sharper than a pixel, and would sparkle as it moves. Four points a pixel mend
    that at four times the price; large frames resolve their folds, and keep to one.
    """
    return 2 if resolution <= 512 else 1


class _Weights(NamedTuple):
    """The fixed random numbers that turn vectors into scenes, all float64."""

    classes: np.ndarray  # (NUM_CLASSES + 1, EMBEDDING); the last is shown where no class is
    forms: np.ndarray  # (NUM_CLASSES + 1, kinds of form)
    hues: np.ndarray  # (NUM_CLASSES + 1,), in turns
    noise: np.ndarray  # (NOISE_DIM, 16 + LAYERS * CHANNELS)
    weights: np.ndarray  # (LAYERS, CHANNELS, CHANNELS)
    biases: np.ndarray  # (EMBEDDING, LAYERS, CHANNELS)
    gains: np.ndarray  # (EMBEDDING, LAYERS, CHANNELS)
    readout: np.ndarray  # (EMBEDDING + 1, LAYERS, OUTPUTS, CHANNELS); the last for all classes
    style: np.ndarray  # (EMBEDDING, 16)


@lru_cache(maxsize=1)
def _draw_weights() -> _Weights:
    """All weights, from the one generator whose stream numpy froze for good (NEP 19)."""
    normal = np.random.RandomState(SEED).standard_normal
    unit = 1 / math.sqrt(EMBEDDING)
    return _Weights(
        classes=normal((NUM_CLASSES + 1, EMBEDDING)),
        forms=normal((NUM_CLASSES + 1, len(FORMS))),
        # The golden ratio sets neighbouring numbers, such as two breeds of dog, far apart in hue.
        hues=np.arange(NUM_CLASSES + 1) * (math.sqrt(5) - 1) / 2 % 1,
        noise=normal((NOISE_DIM, 16 + LAYERS * CHANNELS)) / math.sqrt(NOISE_DIM),
        weights=normal((LAYERS, CHANNELS, CHANNELS)),
        biases=normal((EMBEDDING, LAYERS, CHANNELS)) * unit,
        gains=normal((EMBEDDING, LAYERS, CHANNELS)) * unit,
        readout=normal((EMBEDDING + 1, LAYERS, OUTPUTS, CHANNELS)),
        style=normal((EMBEDDING, 16)) * unit,
    )


def _soft(x: np.ndarray) -> np.ndarray:
    """A tanh-like step to (-1, 1) without an exponential."""
    return x / np.sqrt(1 + x * x)


def compose(noise: np.ndarray, class_vector: np.ndarray) -> Scene:
    """The scene of one frame: classes choose palette and kind of form, the noise moves it.

    Parameters
    ----------
    noise : np.ndarray, shape = (NOISE_DIM,)
    class_vector : np.ndarray, shape = (NUM_CLASSES,)
        Weights in [0, 1], for any number of classes, or none.
    """
    fixed = _draw_weights()
    shares, shown = _mix(class_vector)
    length = np.sqrt(shares @ shares)
    # Divided by the root of the squares, a mix of twelve is as far from the mean as one class is:
    # it has a look of its own, and does not average out.
    embedding = shares @ fixed.classes[shown] / length
    taste = shares @ fixed.forms[shown] / length
    hue = np.angle(shares @ np.exp(1j * TAU * fixed.hues[shown])) / TAU
    style = _soft(1.3 * (embedding @ fixed.style))
    moves = np.clip(noise.astype(np.float64) @ fixed.noise, -32, 32)
    place, drift = moves[:16], moves[16:].reshape(LAYERS, CHANNELS)

    kinds = np.exp(4.5 * (taste - taste.max()))  # 4.5: the favourite leads, the next tints it
    symmetry = kinds @ SYMMETRY / kinds.sum()
    kinds /= np.sqrt(kinds @ kinds)
    angle = 0.15 * place[0]
    zoom = 1.15 * math.exp(0.12 * _soft(place[1]) + 0.25 * style[0])
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    shift = 0.35 * _soft(0.4 * place[2:4])
    lamp = 1.9 + 0.4 * place[9]
    values = Scene(
        pose=np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]]),
        warp=0.13 * (1 + 0.5 * style[2]) * (1 - 0.85 * symmetry),
        phases=0.1 * place[5:9],
        twist=0.1 * _soft(0.45 * place[4]) + 0.25 * style[1] ** 3,
        **_network(fixed, embedding, style, kinds @ FORMS + 0.05 * (1 - symmetry), place, drift),
        **_colours(hue, style),
        light=0.6 * np.array([math.cos(lamp), math.sin(lamp)]),
        relief=0.3 * (1 + 0.5 * style[10]),
        shine=0.6 + 0.4 * style[11],
        film=0.3 * style[13],
        veil=0.5 + 0.3 * style[14],
    )
    return Scene(*(np.float32(value) for value in values))


def _mix(class_vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the classes shown, and their numbers; the last is the one that stands for none."""
    weights = np.clip(class_vector.astype(np.float64), 0, 1)
    shown = np.flatnonzero(weights)
    top = weights.max()
    # Relative to the strongest, so that a low depth does not fade, and squared, so that the
    # strongest leads. 0.002 joins this to the empty vector without a jump.
    shares = (weights[shown] / (top + 0.002)) ** 2
    return np.append(shares, 0.7 * (1 - top) + 0.01), np.append(shown, NUM_CLASSES)


def _network(
    fixed: _Weights,
    embedding: np.ndarray,
    style: np.ndarray,
    features: np.ndarray,
    place: np.ndarray,
    drift: np.ndarray,
) -> dict[str, Any]:
    """Weights, biases and readout of the layers, modulated by class and noise."""
    weights = fixed.weights * (1 + 0.35 * _soft(np.tensordot(embedding, fixed.gains, 1)))[..., None]
    weights[0] *= features
    turns = math.sqrt(np.square(weights[0] * STEEPNESS).sum() / CHANNELS)
    weights[0] *= 0.66 / math.sqrt(turns) * (1 + 0.2 * style[3]) * math.exp(0.1 * _soft(place[10]))
    weights[1] *= 0.5 / math.sqrt(CHANNELS) * (1 + 0.12 * style[4])
    weights[2:] *= 0.48 / math.sqrt(CHANNELS) * (1 + 0.15 * style[5])
    weights[0, WAVES:] *= 1.6  # a soft step needs more than a sine to leave its straight part
    weights[1:, WAVES:] *= 3
    # The noise turns phases. The deeper a layer, the more pixels a turn moves, so the less it gets.
    reach = np.array([0.05, 0.02, 0.01, 0.006])[:, None]
    biases = 0.6 * np.tensordot(embedding, fixed.biases, 1) + reach * drift
    # How much of each layer goes to height, hue, veil and glow: fine veins belong in the height,
    # where they catch the light; in the hue they would be noise.
    share = np.array(
        [[0.5, 0.45, 0.9, 0.6], [0.3, 0.28, 0.35, 0.5], [0.18, 0.08, 0, 0.08], [0.08, 0.03, 0, 0]]
    )
    readout = np.tensordot(np.append(embedding / math.sqrt(EMBEDDING), 1), fixed.readout, 1)
    readout *= share[..., None] / math.sqrt(2 * CHANNELS)
    return {"weights": weights, "biases": biases, "readout": readout}


def _colours(hue: float, style: np.ndarray) -> dict[str, Any]:
    """A closed curve through five colours around ``hue``, and the colour that glows on it.

    A cosine palette (Inigo Quilez, "Palettes") with a second harmonic, fitted to colours that
    are chosen in OKLCH, where equal steps look equal: two dark, two middle, one bright.
    """
    near, far = 0.06 + 0.05 * style[6], 0.24 + 0.16 * style[7]
    chroma = 0.19 + 0.03 * style[8]
    anchors = [
        _oklch(0.28, 0.14, _cooler(hue - near, 1.2)),
        _oklch(0.58 + 0.05 * style[9], 1.25 * chroma, hue),
        _oklch(0.81, 0.85 * chroma, hue + near),
        _oklch(0.65, 1.15 * chroma, hue + far),
        _oklch(0.38, 0.18, _cooler(hue + far, 0.7)),
    ]
    turns = TAU * np.arange(5) / 5
    curve = [np.ones(5), np.cos(turns), np.sin(turns), np.cos(2 * turns), np.sin(2 * turns)]
    strength = 1.1 * (0.5 + 0.5 * style[12])
    palette = np.linalg.solve(np.stack(curve, axis=1), np.array(anchors))
    palette[3:] *= 0.6  # less of the second harmonic, or the curve dips below black into odd hues
    return {
        "palette": palette,
        "glow": strength * _oklch(0.86, 0.13, hue + 0.5 * far),
    }


def _cooler(hue: float, pull: float) -> float:
    """A hue drawn towards violet blue, as painters mix shadows; dark yellow would look like mud."""
    cold = TAU * 0.79
    across = math.sin(TAU * hue) + pull * math.sin(cold)
    along = math.cos(TAU * hue) + pull * math.cos(cold)
    return math.atan2(across, along) / TAU


def _oklch(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """Linear RGB of a colour in OKLCH (Björn Ottosson, "A perceptual color space"), clipped."""
    a, b = chroma * math.cos(TAU * hue), chroma * math.sin(TAU * hue)
    cones = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return np.clip(to_rgb @ cones**3, 0, 1)
