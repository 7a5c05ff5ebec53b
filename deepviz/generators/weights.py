"""Where BigGAN-deep checkpoints come from: a folder that a user names, the cache, a download."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from deepviz.errors import WeightsError
from deepviz.generators.checkpoint import CONFIG_NAME, PICKLE_NAME, read_checkpoint, weights_file

CONNECT_TIMEOUT = 10.0  # seconds until a server must have answered
READ_TIMEOUT = 30.0  # seconds that a download may stand still
CHUNK = 1 << 20  # bytes between two steps of the progress bar


def find_weights(resolution: int, folder: str | None = None) -> Path:
    """Find the folder of a checkpoint, downloading it into the cache if it is nowhere else.

    Parameters
    ----------
    resolution : int
        Height and width of a picture in pixels: 128, 256 or 512. Not used with ``folder``.
    folder : str, optional
        A folder that a user named; nothing else is looked at then.

    Raises
    ------
    WeightsError
        If the folder holds no checkpoint, or none can be downloaded. The message says what to do.
    """
    if folder is not None:
        weights_file(Path(folder))
        return Path(folder)
    cached = cache_folder() / f"biggan-deep-{resolution}"
    try:
        weights_file(cached)
    except WeightsError:
        _download_checkpoint(resolution, cached)
    return cached


def cache_folder() -> Path:
    """``$DEEPVIZ_CACHE``, else ``deepviz`` in the user's cache folder on this platform."""
    named = os.environ.get("DEEPVIZ_CACHE")
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("deepviz", appauthor=False)


def _download_checkpoint(resolution: int, target: Path) -> None:
    """Download a checkpoint into the folder ``target``: whole and readable, or not at all."""
    from pytorch_pretrained_biggan import model as package

    name = f"biggan-deep-{resolution}"
    if name not in package.PRETRAINED_MODEL_ARCHIVE_MAP:
        raise WeightsError(f"BigGAN-deep has no weights for {resolution} pixels: 128, 256 or 512")
    addresses = {
        PICKLE_NAME: package.PRETRAINED_MODEL_ARCHIVE_MAP[name],
        CONFIG_NAME: package.PRETRAINED_CONFIG_ARCHIVE_MAP[name],
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=target) as folder:
            for file, address in addresses.items():
                _download(address, Path(folder) / file, f"{name} {file}")
            _check_download(Path(folder), resolution)
            for file in addresses:  # the config last: it marks the checkpoint as whole
                os.replace(Path(folder) / file, target / file)
    except (OSError, WeightsError) as error:
        reason = error if isinstance(error, WeightsError) else f"{target}: {error.strerror}"
        raise WeightsError(
            f"{name} cannot be downloaded: {reason}. Get {addresses[CONFIG_NAME]} as {CONFIG_NAME} "
            f"and {addresses[PICKLE_NAME]} as {PICKLE_NAME} in one folder, "
            "and name it with --weights FOLDER"
        ) from None


def _check_download(folder: Path, resolution: int) -> None:
    """Refuse what is no checkpoint: a page that a proxy sends in its place has its length too."""
    try:
        side = read_checkpoint(folder).architecture.output_dim
    except WeightsError as error:
        raise WeightsError(f"what was sent is no checkpoint ({error})") from None
    if side != resolution:
        raise WeightsError(f"what was sent is a checkpoint for {side} pixels")


def _download(address: str, target: Path, label: str) -> None:
    """Stream one file to disk under a progress bar."""
    import requests
    from tqdm import tqdm

    host = urlsplit(address).hostname
    try:
        with requests.get(
            address,
            stream=True,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            headers={"Accept-Encoding": "identity"},  # so that the length is that of the file
        ) as response:
            if response.status_code != requests.codes.ok:
                raise WeightsError(f"{host} answers {response.status_code} {response.reason}")
            stated = response.headers.get("Content-Length", "")
            length = int(stated) if stated.isdecimal() else None
            bar = tqdm(total=length, desc=label, unit="B", unit_scale=True, disable=None)
            with bar, target.open("xb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
                received = file.tell()
    except requests.Timeout:
        raise WeightsError(f"{host} does not answer") from None
    except requests.exceptions.ChunkedEncodingError:
        raise WeightsError(f"{host} broke off in the middle of {target.name}") from None
    except requests.ConnectionError as error:
        # a time-out in the middle of a file has this class too
        failed = "stopped sending" if "timed out" in str(error) else "cannot be reached"
        raise WeightsError(f"{host} {failed}") from None
    except requests.RequestException as error:
        raise WeightsError(f"{address}: {error}") from None
    if length is not None and received != length:
        raise WeightsError(f"{host} sent {received} of {length} bytes of {target.name}")
