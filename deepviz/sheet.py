"""A contact sheet: frames spread over the song above what drove them, to judge settings by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepviz.errors import VideoError
from deepviz.files import whole_file

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SHEET_FRAMES = 24
COLUMNS = 6
LARGEST_TILE = 256  # pixels; six of them fill a screen
SMALLEST_TILE = 128  # enough for a label
GAP = 8
LABEL_HEIGHT = 22
FONT_SIZE = 14
ROW_HEIGHT = 12  # of a track's column in the strip
POWER_HEIGHT = 56
LABEL_STEP = 4  # of the ticks under the strip, every fourth has its time
MARGIN = 40  # left of the strip, for the names of the columns

BACKGROUND = (16, 16, 20)
TEXT = (214, 214, 220)
FAINT = (96, 96, 108)
POWER = (244, 178, 84)
# From silence to a pitch at its strongest; dark to light, so that it reads in grey as well.
HEAT = np.array(
    [(16, 16, 20), (52, 28, 92), (150, 44, 110), (236, 104, 76), (255, 226, 150)], np.float64
)


def choose_frames(numbers: Sequence[int], count: int = SHEET_FRAMES) -> list[int]:
    """``count`` of ``numbers``, from the middles of as many equal parts; all if they are fewer."""
    count = min(count, len(numbers))
    return [numbers[(2 * part + 1) * len(numbers) // (2 * count)] for part in range(count)]


def write_sheet(
    frames: Iterable[np.ndarray],
    target: Path,
    *,
    labels: Sequence[str],
    positions: Sequence[float],
    names: Sequence[str],
    track: np.ndarray,
    power: np.ndarray,
) -> None:
    """Draw frames in rows over a strip with a feature track and the power; write it as a PNG.

    Parameters
    ----------
    frames : iterable of np.ndarray, uint8, shape = (side, side, 3)
    target : Path
        The file to write, whole or not at all.
    labels : sequence of str
        What stands under each frame: its time.
    positions : sequence of float
        Where each frame lies in the part of the song that the strip shows, from 0 to 1.
    names : sequence of str
        Of the track's columns.
    track : np.ndarray, shape = (rows, columns)
        In [0, 1], for the part of the song that the strip shows.
    power : np.ndarray, shape = (rows,)
        In [0, 1], likewise.

    Raises
    ------
    VideoError
        If the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    tiles = [_tile(frame) for frame in frames]
    side = tiles[0].width
    rows = -(-len(tiles) // COLUMNS)
    width = GAP + COLUMNS * (side + GAP)
    top = GAP + rows * (side + LABEL_HEIGHT) + GAP
    bottom = top + ROW_HEIGHT * len(names) + POWER_HEIGHT
    strip = (GAP + MARGIN, top, width - GAP, bottom)

    sheet = Image.new("RGB", (width, bottom + LABEL_HEIGHT + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.font = ImageFont.load_default(FONT_SIZE)
    for index, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left = GAP + index % COLUMNS * (side + GAP)
        upper = GAP + index // COLUMNS * (side + LABEL_HEIGHT)
        sheet.paste(tile, (left, upper))
        draw.text((left + side // 2, upper + side + 3), label, fill=TEXT, anchor="ma")
    sheet.paste(_strip(track, power, strip[2] - strip[0]), strip[:2])
    _name_rows(draw, strip, names)
    _mark_times(draw, strip, labels, positions)
    _save(sheet, target)


def _tile(frame: np.ndarray) -> Any:
    from PIL import Image

    side = int(np.clip(frame.shape[0], SMALLEST_TILE, LARGEST_TILE))
    return Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS)


def _strip(track: np.ndarray, power: np.ndarray, width: int) -> Any:
    """The track as rows of colour over the power as a filled curve."""
    from PIL import Image

    at = np.linspace(0, 1, len(HEAT))
    level = np.clip(_fit(track, width).T, 0, 1)
    colours = np.stack([np.interp(level, at, channel) for channel in HEAT.T], axis=-1)
    heat = np.repeat(colours.round().astype(np.uint8), ROW_HEIGHT, axis=0)
    curve = np.full((POWER_HEIGHT, width, 3), BACKGROUND, np.uint8)
    height = np.clip(_fit(power[:, None], width)[:, 0], 0, 1) * (POWER_HEIGHT - 4)
    curve[np.arange(POWER_HEIGHT, 0, -1)[:, None] <= height] = POWER
    return Image.fromarray(np.concatenate([heat, curve]))


def _fit(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows over time brought to ``width`` of them: means where there are more, else repeats."""
    edges = np.linspace(0, len(rows), width + 1)
    starts = np.minimum(edges[:-1].astype(int), len(rows) - 1)
    ends = np.maximum(edges[1:].astype(int), starts + 1)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=float)])
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)[:, None]
    return means


def _name_rows(draw: ImageDraw, strip: tuple[int, int, int, int], names: Sequence[str]) -> None:
    left, top, _, bottom = strip
    for row, name in enumerate(names):
        middle = top + ROW_HEIGHT * (row + 0.5)
        draw.text((left - 6, middle), name, fill=TEXT, anchor="rm", font_size=ROW_HEIGHT - 1)
    middle = bottom - POWER_HEIGHT / 2
    draw.text((left - 6, middle), "power", fill=TEXT, anchor="rm", font_size=ROW_HEIGHT - 1)


def _mark_times(
    draw: ImageDraw,
    strip: tuple[int, int, int, int],
    labels: Sequence[str],
    positions: Sequence[float],
) -> None:
    """A tick where each frame was taken, and the time under every fourth of them."""
    left, _, right, bottom = strip
    for index, (label, position) in enumerate(zip(labels, positions, strict=True)):
        x = left + (right - left) * position
        labelled = index % LABEL_STEP == 0
        length = 6 if labelled else 3
        draw.line((x, bottom, x, bottom + length), fill=TEXT if labelled else FAINT)
        if labelled:
            draw.text((x, bottom + 7), label, fill=TEXT, anchor="ma", font_size=FONT_SIZE - 2)


def _save(sheet: Any, target: Path) -> None:
    try:
        with whole_file(target) as temporary:
            sheet.save(temporary, format="PNG", optimize=True)
    except OSError as error:
        raise VideoError(f"{target} cannot be written: {error}") from error
