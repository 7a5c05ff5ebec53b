"""Which generator a run gets, and a song rendered with each."""

import numpy as np
import pytest
from pytorch_pretrained_biggan import model as package

import deepviz
from deepviz import Settings, generators
from deepviz.errors import SettingsError, WeightsError
from tests.checkpoints import make_checkpoint

NOWHERE = "http://127.0.0.1:9/"  # the discard port: nothing listens there


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A real BigGAN-deep for 128 pixels, with few channels."""
    folder = tmp_path_factory.mktemp("biggan-deep-128")
    make_checkpoint(folder, 128)
    return folder


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and addresses where nobody answers."""
    monkeypatch.setenv("DEEPVIZ_CACHE", str(tmp_path / "cache"))
    for table in (package.PRETRAINED_MODEL_ARCHIVE_MAP, package.PRETRAINED_CONFIG_ARCHIVE_MAP):
        for name in table:
            monkeypatch.setitem(table, name, NOWHERE + name)


def test_a_song_is_rendered_with_biggan(folder, melody, read_video, checkpoint, caplog):
    caplog.set_level("INFO", logger="deepviz")
    path = deepviz.render(melody, weights=checkpoint, resolution=128, duration=0.6, batch_size=7)
    video = read_video(path)
    assert video.frames.shape == (26, 128, 128, 3)
    assert video.frames.std() > 10
    assert "model     biggan-deep-128 on cpu" in caplog.text


def test_the_batch_size_does_not_change_a_frame(checkpoint):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(5, 128)).astype(np.float32)
    class_vectors = np.eye(1000, dtype=np.float32)[:5]
    painted = []
    for size in (1, 2, 5):
        settings = Settings(song="x", weights=str(checkpoint), resolution=128, batch_size=size)
        generator = generators.load_generator(settings)
        batches = [(noise[i : i + size], class_vectors[i : i + size]) for i in range(0, 5, size)]
        painted.append(np.concatenate(list(generator.render(batches))))
    np.testing.assert_array_equal(painted[1], painted[2])
    assert np.abs(painted[0].astype(int) - painted[1]).max() <= 1  # another size of micro-batch


def test_a_cpu_is_handed_30_frames_at_a_time(checkpoint):
    settings = {"song": "x", "resolution": 128, "device": "cpu"}
    for chosen in ({"model": "cppn"}, {"weights": checkpoint}):
        assert generators.load_generator(Settings(**settings, **chosen)).batch_size == 30


def test_a_precision_named_by_hand_is_taken_and_shown(checkpoint):
    settings = {"song": "x", "weights": checkpoint, "resolution": 128, "device": "cpu"}
    default = generators.load_generator(Settings(**settings))
    half = generators.load_generator(Settings(**settings, precision="bfloat16"))
    assert "float" not in default.device
    assert "bfloat16" in half.device
    noise = np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32)
    class_vectors = np.eye(1000, dtype=np.float32)[:2]
    difference = default.paint(noise, class_vectors) - half.paint(noise, class_vectors)
    assert 1e-4 < np.abs(difference).mean() < 0.02


def test_without_weights_the_built_in_network_paints_and_says_why(no_network, caplog):
    generator = generators.load_generator(Settings(song="x", resolution=256))
    assert generator.name == "cppn"
    assert generator.resolution == 256
    assert "127.0.0.1 cannot be reached" in caplog.text
    assert "--weights FOLDER" in caplog.text


def test_a_size_that_biggan_lacks_is_painted_by_the_built_in_network(no_network, caplog):
    assert generators.load_generator(Settings(song="x", resolution=320)).name == "cppn"
    assert "BigGAN-deep has no resolution 320" in caplog.text


def test_biggan_asked_for_by_name_fails_rather_than_falls_back(no_network, checkpoint):
    with pytest.raises(WeightsError, match="cannot be reached"):
        generators.load_generator(Settings(song="x", model="biggan-deep"))
    with pytest.raises(WeightsError, match="nowhere"):
        generators.load_generator(Settings(song="x", weights="nowhere"))
    with pytest.raises(WeightsError, match="--resolution 128"):
        generators.load_generator(Settings(song="x", weights=str(checkpoint), resolution=256))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match="--device cuda:99"):
        generators.load_generator(Settings(song="x", model="cppn", device="cuda:99"))
