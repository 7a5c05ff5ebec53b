"""Checkpoints are found, downloaded whole or not at all, and refused in a line if they are bad."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from pytorch_pretrained_biggan import model as package

from deepviz.errors import WeightsError
from deepviz.generators import weights
from deepviz.generators.checkpoint import read_checkpoint
from deepviz.generators.weights import cache_folder, find_weights
from tests.checkpoints import make_checkpoint

NAME = "biggan-deep-128"
FILES = ("config.json", "pytorch_model.bin")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_checkpoint(folder, 128)
    return folder


@pytest.fixture
def damaged(good, tmp_path):
    """A function: changes by name of tensor or of config -> folder of the checkpoint with them."""

    def make(tensors: dict | None = None, **config) -> Path:
        shutil.copytree(good, tmp_path / "damaged")
        folder = tmp_path / "damaged"
        if tensors:
            stored = torch.load(folder / "pytorch_model.bin", weights_only=True)
            stored.update(tensors)
            kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
            torch.save(kept, folder / "pytorch_model.bin")
        described = json.loads((folder / "config.json").read_text()) | config
        kept = {name: value for name, value in described.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(kept))
        return folder

    return make


class Server:
    """A web server on this machine that hands out a checkpoint, or misbehaves in a chosen way."""

    def __init__(self, folder: Path) -> None:
        self.content = {name: (folder / name).read_bytes() for name in FILES}
        self.fault = ""
        self.requests = 0
        self.released = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests += 1
                owner.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *args: None  # a client that goes away is the test
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.content[request.path.strip("/")]
        faulty = self.fault if request.path.endswith(".bin") else ""
        if faulty in ("403", "404"):
            request.send_error(int(faulty))
            return
        if faulty == "hangs":
            self.released.wait()
            return
        length = len(content)
        if faulty == "too much":
            content += content[-100:]
            length -= 100
        if faulty == "a page":
            content = b"<html>Please log in</html>"
            length = len(content)
        if faulty in ("cut off", "cut off, length unknown", "stops"):
            content = content[: length // 2]
        request.send_response(200)
        if faulty != "cut off, length unknown":
            request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(content)
        request.wfile.flush()
        if faulty == "stops":
            self.released.wait()


@pytest.fixture
def server(good, tmp_path, monkeypatch):
    """A server whose addresses stand in the package's tables, and an empty cache."""
    server = Server(good)
    config, tensors = (f"{server.address}/{name}" for name in FILES)
    monkeypatch.setitem(package.PRETRAINED_CONFIG_ARCHIVE_MAP, NAME, config)
    monkeypatch.setitem(package.PRETRAINED_MODEL_ARCHIVE_MAP, NAME, tensors)
    monkeypatch.setenv("DEEPVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download_fills_the_cache_and_is_not_repeated(server, good):
    folder = find_weights(128)
    assert folder == cache_folder() / NAME
    assert files_in(folder) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_bytes() == (good / name).read_bytes()
    assert server.requests == 2
    assert find_weights(128) == folder
    assert server.requests == 2


def test_the_cache_can_be_named_as_weights(server):
    cached = find_weights(128)
    server.http.shutdown()
    assert find_weights(128, str(cached)) == cached
    assert read_checkpoint(cached).architecture.output_dim == 128


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("403", "answers 403 Forbidden"),
        ("404", "answers 404 Not Found"),
        ("hangs", "does not answer"),
        ("stops", "stopped sending"),
        ("cut off", "broke off in the middle"),
        ("cut off, length unknown", "damaged or cut off"),
        ("too much", "damaged or cut off"),
        ("a page", "what was sent is no checkpoint"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(server, monkeypatch, fault, said):
    monkeypatch.setattr(weights, "READ_TIMEOUT", 0.3)
    server.fault = fault
    with pytest.raises(WeightsError) as caught:
        find_weights(128)
    message = str(caught.value)
    assert said in message
    assert f"{server.address}/config.json" in message
    assert f"{server.address}/pytorch_model.bin" in message
    assert "--weights" in message
    assert "\n" not in message
    assert files_in(cache_folder()) == []
    server.fault = ""
    read_checkpoint(find_weights(128))


def test_no_network_says_what_to_do(server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(WeightsError, match=r"cannot be reached.*--weights FOLDER"):
        find_weights(128)


def test_a_checkpoint_of_another_size_is_not_kept(server, monkeypatch):
    for table in (package.PRETRAINED_CONFIG_ARCHIVE_MAP, package.PRETRAINED_MODEL_ARCHIVE_MAP):
        monkeypatch.setitem(table, "biggan-deep-512", table[NAME])
    with pytest.raises(WeightsError, match="a checkpoint for 128 pixels"):
        find_weights(512)
    assert files_in(cache_folder()) == []


def test_an_interrupted_download_leaves_nothing(server, monkeypatch):
    class Interrupted:
        def __init__(self, **settings: object) -> None: ...
        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *error: object) -> None: ...
        def update(self, count: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_weights(128)
    assert files_in(cache_folder()) == []


def test_a_full_disk_leaves_nothing(server):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"File too large.*--weights FOLDER"):
            find_weights(128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_in(cache_folder()) == []


def test_a_cache_that_cannot_be_made_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPVIZ_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"file/biggan-deep-128: Not a directory"):
        find_weights(128)


def test_downloads_at_the_same_time_do_not_disturb_each_other(server, good):
    with ThreadPoolExecutor(3) as threads:
        folders = list(threads.map(find_weights, [128] * 3))
    assert len(set(folders)) == 1
    assert files_in(cache_folder()) == sorted(FILES)
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (good / name).read_bytes()


def test_a_resolution_that_was_never_released_is_refused(server):
    with pytest.raises(WeightsError, match="128, 256 or 512"):
        find_weights(64)


def test_a_named_folder_must_hold_a_checkpoint(good, tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        find_weights(128, str(tmp_path / "missing"))
    with pytest.raises(WeightsError, match="Not a directory"):
        find_weights(128, str(good / "config.json"))
    with pytest.raises(WeightsError, match=r"neither pytorch_model\.bin nor"):
        find_weights(128, str(tmp_path))
    shutil.copy(good / "pytorch_model.bin", tmp_path)
    with pytest.raises(WeightsError, match=r"no config\.json"):
        find_weights(128, str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_named(damaged):
    folder = damaged()
    (folder / "pytorch_model.bin").chmod(0)
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin cannot be read: Permission"):
        read_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 10, 3000, 1_000_000, -100])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off_is_refused(damaged, zipped, kept):
    file = damaged() / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is damaged or cut off"):
        read_checkpoint(file.parent)


def test_a_cut_off_safetensors_file_is_refused(damaged):
    folder = damaged()
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged or cut off"):
        read_checkpoint(folder)


def test_the_format_of_the_released_files_is_read(damaged):
    file = damaged() / "pytorch_model.bin"
    expected = read_checkpoint(file.parent).tensors
    tensors = torch.load(file, weights_only=True)
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    for name, tensor in read_checkpoint(file.parent).tensors.items():
        assert torch.equal(tensor, expected[name])


class _Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("how", ["torch", "torch, old format", "plain pickle"])
def test_code_in_a_checkpoint_is_not_run(damaged, tmp_path, how):
    folder, trace = damaged(), tmp_path / "it-ran"
    content = {"generator.gen_z.bias": _Malicious(trace)}
    if how == "plain pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))
    else:
        zipped = how == "torch"
        path = folder / "pytorch_model.bin"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin holds code.*not run"):
        read_checkpoint(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"generator.layers.3.conv_1.weight_orig": torch.zeros(2, 2, 3, 3)}, "has the shape"),
        ({"generator.layers.3.conv_1.weight_orig": None}, r"conv_1\.weight is missing"),
        ({"generator.layers.8.gamma": None}, r"layers\.8\.gamma is missing"),
        ({"generator.bn.weight": torch.full((8,), torch.nan)}, r"bn\.weight holds values"),
        ({"generator.bn.running_means": torch.full((51, 8), torch.inf)}, r"running_means holds"),
        ({"generator.bn.running_vars": -torch.ones(51, 8)}, "negative variances"),
        ({"generator.gen_z.weight_u": torch.zeros(2048)}, r"spectral norm of generator\.gen_z"),
        ({"generator.gen_z.weight_v": None}, r"gen_z\.weight_v is missing"),
        ({"generator.conv_to_rgb.bias": "black"}, r"conv_to_rgb\.bias is missing"),
    ],
)
def test_a_bad_tensor_is_named(damaged, tensors, said):
    with pytest.raises(WeightsError, match=said) as caught:
        read_checkpoint(damaged(tensors))
    assert "pytorch_model.bin" in str(caught.value)


def test_a_file_without_named_tensors_is_refused(damaged):
    folder = damaged()
    torch.save([torch.zeros(3)], folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no table of named tensors"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"output_dim": 256}, "output_dim is 256, but its layers make 128"),
        ({"channel_width": 16}, "has the shape"),
        ({"num_classes": 10}, "has the shape"),
        ({"n_stats": 5}, "has the shape"),
        ({"attention_layer_position": 3}, "is missing"),
        ({"attention_layer_position": 99}, "attention_layer_position is 99"),
        ({"channel_width": 10**9}, "channel_width is 1000000000"),
        ({"channel_width": "8"}, "channel_width is '8'"),
        ({"z_dim": True}, "z_dim is True"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"layers": []}, "attention_layer_position is 8"),
        ({"layers": [[False, 16, 4]] * 9}, "cannot follow a width of 16"),
        ({"layers": [[0, 16, 16]]}, "a layer is"),
        ({"layers": 7}, "does not describe"),
        ({"eps": ...}, "lacks 'eps'"),
    ],
)
def test_a_config_that_lies_is_refused(damaged, config, said):
    with pytest.raises(WeightsError, match=said) as caught:
        read_checkpoint(damaged(**config))
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ud800", "[" * 100_000])
def test_a_config_that_is_none_is_refused(damaged, text):
    folder = damaged()
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(WeightsError, match=r"config\.json does not describe"):
        read_checkpoint(folder)


def test_weights_without_spectral_norm_are_taken_as_they_are(damaged):
    folder = damaged()
    whole = read_checkpoint(folder).tensors
    torch.save(whole, folder / "pytorch_model.bin")
    for name, tensor in read_checkpoint(folder).tensors.items():
        assert torch.equal(tensor, whole[name])
