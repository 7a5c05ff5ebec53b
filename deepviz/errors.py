"""Errors that a user can act on: each message says what is wrong and what to do about it."""


class DeepvizError(Exception):
    """Something failed in a way that a user can mend. The command prints it as one line."""

    exit_code = 1


class SettingsError(DeepvizError):
    """A flag is out of its range, or contradicts another."""

    exit_code = 2


class SongError(DeepvizError):
    """The song cannot be read, or is too short to show."""


class WeightsError(DeepvizError):
    """The weights of a network cannot be had, or are not what they should be."""


class PreviousRunError(DeepvizError):
    """An earlier run was asked for that does not exist, or does not fit these settings."""


class RunningError(DeepvizError):
    """Another run is at work on the same song."""


class FramesError(DeepvizError):
    """Frames are missing on disk, or cannot be made or kept."""


class VideoError(DeepvizError):
    """The video or the contact sheet cannot be written."""


# What libraries say that raise a plain RuntimeError: torch, CUDA, OpenVINO.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "bad_alloc",
    "bad allocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: numpy's, torch's or OpenVINO's on the CPU, a graphics card's, or
    what the host pins for copies from it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in OUT_OF_MEMORY)
    )
