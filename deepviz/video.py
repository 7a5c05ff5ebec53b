"""A stream of frames and the song's sound → an MP4 file, through moviepy's ffmpeg."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from deepviz.errors import VideoError
from deepviz.files import whole_file
from deepviz.hardware import has_graphics_driver

# Speed and quality of each encoder. libx264: the fastest preset that still predicts well, at a
# constant rate factor a little under 18, where differences to the original can't be seen.
ENCODERS = {
    "libx264": ("superfast", ["-crf", "16"]),
    "h264_nvenc": ("p4", ["-rc", "vbr", "-cq", "18", "-b:v", "0"]),
}
# From RGB to the YUV that a file tagged BT.709 promises; ffmpeg's own default is BT.601.
COLOURS = "out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
AUDIO_BITRATE = "256k"  # AAC, stereo: past telling from the song for nearly everybody
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
TRIAL_TIMEOUT = 10  # seconds after which an encoder that hangs on one frame is given up
LOG_LINES = 3  # of ffmpeg's own first words, quoted in an error with its last one


class Sound(NamedTuple):
    """What is heard: the part of a song between two times, in seconds."""

    file: Path
    start: Fraction
    end: Fraction


def pick_encoder(wanted: str, side: int) -> str:
    """The H.264 encoder to take: with "auto", NVENC if it encodes a trial frame, else libx264.

    Parameters
    ----------
    wanted : str
        "auto", or a name in ``ENCODERS``, which is taken as it is.
    side : int
        Height and width of the video, pixels: NVENC has limits at both ends.
    """
    if wanted != "auto":
        return wanted
    if not has_graphics_driver():
        return "libx264"
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "quiet"]
    command += ["-f", "lavfi", "-i", f"color=size={side}x{side}", "-frames:v", "1"]
    command += ["-c:v", "h264_nvenc", "-f", "null", "-"]
    try:
        works = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=TRIAL_TIMEOUT).returncode
    except subprocess.TimeoutExpired:
        return "libx264"
    return "libx264" if works else "h264_nvenc"


def write_video(
    frames: Iterable[np.ndarray],
    target: Path,
    *,
    fps: Fraction,
    sound: Sound,
    encoder: str = "libx264",
) -> None:
    """Encode frames as they come, with the song's sound, as H.264 and AAC.

    The file holds exactly the frames given, at exactly ``fps``. It appears under its name when it
    is whole.

    Parameters
    ----------
    frames : iterable of np.ndarray, uint8, shape = (height, width, 3)
        RGB, all of one size, both sides even; at least one.
    target : Path
        The file to write.
    fps : Fraction
        Frames a second.
    sound : Sound
        What is heard.
    encoder : str
        A name in ``ENCODERS``.

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
        writer = None
        try:
            with _signals_held():  # an encoder that nobody knows of could not be stopped
                writer = _start_encoder(temporary, first.shape, fps, sound, encoder, log)
            for frame in chain([first], stream):
                with _blaming_the_encoder(target, log):
                    writer.write_frame(frame)
            with _blaming_the_encoder(target, log):
                writer.proc.stdin.close()
                if writer.proc.wait() != 0:
                    raise OSError
        finally:
            if writer is not None:
                _stop_encoder(writer)


def _start_encoder(
    temporary: Path,
    shape: tuple[int, ...],
    fps: Fraction,
    sound: Sound,
    encoder: str,
    log: IO[str],
) -> Any:
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    preset, quality = ENCODERS[encoder]
    try:
        return FFMPEG_VideoWriter(
            str(temporary.absolute()),
            size=(shape[1], shape[0]),
            fps=float(fps),
            codec="h264",  # the true one is named below: by that name moviepy would ask for alpha
            preset=preset,
            audiofile=f"file:{sound.file}",  # or "a:b.mp3" would be taken for a protocol
            audio_codec="aac",
            logfile=log,
            ffmpeg_params=["-c:v", encoder, *quality, *_encoder_options(fps, sound)],
        )
    except OSError as error:
        raise VideoError(f"ffmpeg could not be started: {error}") from error


def _encoder_options(fps: Fraction, sound: Sound) -> list[str]:
    """What moviepy does not say to ffmpeg by itself.

    moviepy announces the frame rate with two decimals, which would drift by 0.3 s an hour: here
    the n-th frame is put at n / fps in a time base of exactly one frame. The sound is cut by
    counting its samples, which does not depend on what time stamps the song's file has.
    """
    rate = f"{fps.numerator}/{fps.denominator}"
    picture = f"settb={fps.denominator}/{fps.numerator},setpts=N,scale={COLOURS}"
    # Whole numbers on the way: AAC takes no NaN. A file that is cut off ends in silence.
    heard = (
        "aformat=sample_fmts=s32,asetpts=N/SR/TB,"
        f"apad=whole_dur={float(sound.end):.6f},"
        f"atrim=start={float(sound.start):.6f}:end={float(sound.end):.6f},asetpts=N/SR/TB"
    )
    return [
        *("-hide_banner", "-loglevel", "error", "-nostats"),
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "1", "-map_chapters", "-1"),
        *("-vf", picture, "-r", rate, "-pix_fmt", "yuv420p"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
        *("-color_range", "tv"),
        *("-af", heard, "-b:a", AUDIO_BITRATE),
        *("-movflags", "+faststart", "-f", "mp4"),
    ]


@contextmanager
def _signals_held() -> Iterator[None]:
    """Put off signals that end the run until the block is done."""
    if threading.current_thread() is not threading.main_thread():  # they come to that one alone
        yield
        return
    came: list[int] = []
    numbers = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name)]
    numbers = [n for n in numbers if signal.getsignal(n) is not None]
    handlers = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _blaming_the_encoder(target: Path, log: IO[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
        # The first lines name the cause, the last what came of it.
        said = [*lines[:LOG_LINES], *lines[LOG_LINES:][-1:]]
        words = " / ".join(said) or "ffmpeg ended without a word"
        raise VideoError(f"{target} could not be encoded: {words}") from error


def _stop_encoder(writer: Any) -> None:
    """Leave no ffmpeg behind, whether it ended by itself or not."""
    process = writer.proc
    with _signals_held():
        if process.poll() is None:
            process.kill()
        process.wait()
        with suppress(OSError):  # what was still in the pipe's buffer has nowhere to go
            process.stdin.close()
