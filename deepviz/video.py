"""A stream of frames and the song's sound → an MP4 file, through moviepy's ffmpeg."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from deepviz.errors import VideoError
from deepviz.files import whole_file

CODEC = "libx264"
PRESET = "veryfast"
CRF = 17  # constant rate factor: visually lossless is said to begin at 18
AUDIO_BITRATE = "256k"  # AAC, stereo: past telling from the song for nearly everybody
LOG_LINES = 5  # of ffmpeg's own last words, quoted in an error


def write_video(
    frames: Iterable[np.ndarray],
    target: Path,
    *,
    fps: Fraction,
    song: Path,
    start: Fraction,
    end: Fraction,
) -> None:
    """Encode frames as they come, with the song's sound, as H.264 and AAC.

    The file holds exactly the frames given, at exactly ``fps``, and of the sound what lies between
    ``start`` and ``end``, decoded from the song itself. It appears under its name when it is whole.

    Parameters
    ----------
    frames : iterable of np.ndarray, uint8, shape = (height, width, 3)
        RGB, all of one size, both sides even; at least one.
    target : Path
        The file to write.
    fps : Fraction
        Frames a second.
    song : Path
        File with the sound.
    start, end : Fraction
        Part of the song, in seconds.

    Raises
    ------
    VideoError
        If the encoder cannot be started or fails; with what it said.
    """
    stream = iter(frames)
    first = next(stream)
    with (
        whole_file(target) as temporary,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
    ):
        writer = _start_encoder(temporary, first.shape, fps, song, start, end, log)
        try:
            for frame in chain([first], stream):
                writer.write_frame(frame)
            writer.proc.stdin.close()
            if writer.proc.wait() != 0:
                raise OSError
        except OSError as error:
            raise VideoError(f"{target} could not be encoded: {_last_words(log)}") from error
        finally:
            _stop_encoder(writer)


def _start_encoder(
    temporary: Path,
    shape: tuple[int, ...],
    fps: Fraction,
    song: Path,
    start: Fraction,
    end: Fraction,
    log: IO[str],
) -> Any:
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    try:
        return FFMPEG_VideoWriter(
            str(temporary.absolute()),
            size=(shape[1], shape[0]),
            fps=float(fps),
            codec=CODEC,
            preset=PRESET,
            audiofile=f"file:{song}",  # or a name such as "a:b.mp3" would be taken for a protocol
            audio_codec="aac",
            logfile=log,
            ffmpeg_params=_encoder_options(fps, start, end),
        )
    except OSError as error:
        raise VideoError(f"ffmpeg could not be started: {error}") from error


def _encoder_options(fps: Fraction, start: Fraction, end: Fraction) -> list[str]:
    """What moviepy does not say to ffmpeg by itself.

    moviepy announces the frame rate with two decimals, which would drift by 0.3 s an hour: here
    the n-th frame is put at n / fps in a time base of exactly one frame. The sound is cut by
    counting its samples, which does not depend on what time stamps the song's file has.
    """
    rate = f"{fps.numerator}/{fps.denominator}"
    picture = (
        f"settb={fps.denominator}/{fps.numerator},setpts=N,"
        "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,"
        "format=yuv420p"
    )
    count_samples = "asetpts=N/SR/TB"
    cut = f"atrim=start={float(start):.6f}:end={float(end):.6f}"
    return [
        *("-loglevel", "error", "-nostats"),
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "1", "-map_chapters", "-1"),
        *("-vf", picture, "-r", rate, "-crf", str(CRF)),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
        *("-color_range", "tv"),
        *("-af", f"{count_samples},{cut},{count_samples}", "-b:a", AUDIO_BITRATE),
        *("-movflags", "+faststart", "-f", "mp4"),
    ]


def _stop_encoder(writer: Any) -> None:
    """Leave no ffmpeg behind, whether it ended by itself or not."""
    process, writer.proc = writer.proc, None
    if process.poll() is None:
        process.kill()
    process.wait()
    with suppress(OSError):  # what was still in the pipe's buffer has nowhere to go
        process.stdin.close()


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    return " / ".join(lines[-LOG_LINES:]) or "ffmpeg ended without a word"
