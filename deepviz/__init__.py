"""deepviz turns a song into a music video painted by a generative network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepviz.errors import DeepvizError
from deepviz.settings import Settings

__version__ = "0.1.0"
__all__ = ["DeepvizError", "Settings", "__version__", "render"]


def render(song: str | Path, **settings: Any) -> Path:
    """Render a song, as the command does.

    Parameters
    ----------
    song : str or Path
        Audio file.
    **settings
        The command's flags by their long names, such as ``resolution=256``.

    Returns
    -------
    Path
        The file that was written: ``output_file``.

    Raises
    ------
    DeepvizError
        If a setting is wrong, the song cannot be read or the video cannot be made; the message
        says why and what to do.

    Examples
    --------
    >>> import deepviz
    >>> deepviz.render("x.mp3", output_file="x.mp4", resolution=256)  # doctest: +SKIP
    PosixPath('x.mp4')
    """
    from deepviz.pipeline import render as render_settings

    return render_settings(Settings(song=str(song), **settings))
