from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from deepviz import Settings
from deepviz.errors import SettingsError
from deepviz.settings import describe_default, describe_range

README = Path(__file__).parent.parent / "README.md"


def test_defaults_are_those_of_the_flag_reference():
    settings = Settings(song="x.mp3")
    assert settings.resolution == 512
    assert settings.duration is None
    assert settings.pitch_sensitivity == 220
    assert settings.tempo_sensitivity == 0.25
    assert settings.depth == 1
    assert settings.class_count == 12
    assert not settings.sort_classes_by_power
    assert settings.jitter == 0.5
    assert settings.frame_length == 512
    assert settings.truncation == 1
    assert settings.smooth_factor == 20
    assert settings.batch_size is None  # the generator's: test_generators.py
    assert not settings.use_previous_classes
    assert not settings.use_previous_vectors
    assert settings.output_file == "output.mp4"
    assert settings.scaling == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 62),
        ("resolution", 255),
        ("resolution", 4098),
        ("resolution", "256"),
        ("duration", 0),
        ("duration", float("inf")),
        ("start", -1),
        ("pitch_sensitivity", 0),
        ("pitch_sensitivity", 300),
        ("tempo_sensitivity", -0.1),
        ("tempo_sensitivity", float("nan")),
        ("depth", 0),
        ("depth", 1.01),
        ("classes", [1000]),
        ("classes", [-1]),
        ("classes", []),
        ("classes", [1.5]),
        ("classes", 207),
        ("classes", range(13)),
        ("num_classes", 0),
        ("num_classes", 13),
        ("jitter", 1.1),
        ("frame_length", 500),
        ("frame_length", 0),
        ("truncation", 0.05),
        ("smooth_factor", 0),
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("scaling", 0),
        ("seed", -1),
        ("model", "stylegan"),
        ("device", "tpu"),
        ("precision", "float8"),
        ("use_disk", 2),
        ("output_file", "movie.avi"),
        ("output_file", "movie"),
        ("song", None),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_flag(name, value):
    with pytest.raises(SettingsError, match=f"--{name} "):
        Settings(**{"song": "x.mp3", name: value})


@pytest.mark.parametrize(
    ("first", "second", "settings"),
    [
        ("--classes", "--num_classes", {"classes": [1, 2], "num_classes": 3}),
        ("--classes", "--use_previous_classes", {"classes": [1], "use_previous_classes": True}),
        ("--classes", "--use_previous_vectors", {"classes": [1], "use_previous_vectors": True}),
        ("-d", "-s", {"use_disk": True, "save_only": True}),
        ("--weights", "--model cppn", {"weights": "folder", "model": "cppn"}),
        ("--precision", "--model cppn", {"precision": "float16", "model": "cppn"}),
        ("--resolution", "BigGAN", {"resolution": 300, "model": "biggan-deep"}),
        ("--resolution", "--scaling", {"resolution": 4096, "scaling": 4}),
        ("-d", ".png", {"use_disk": True, "output_file": "x.png"}),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(first, second, settings):
    with pytest.raises(SettingsError) as caught:
        Settings(song="x.mp3", **settings)
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_the_api_takes_what_python_users_have_at_hand():
    settings = Settings(song=Path("x.mp3"), classes=[7, 8], use_disk=1, jitter=1, weights=Path("w"))
    assert settings.song == "x.mp3"
    assert settings.classes == (7, 8)
    assert settings.use_disk is True
    assert settings.class_count == 2


def test_the_readme_tells_every_flag_with_its_range_and_default():
    rows = {
        line.split("`")[1]: line
        for line in README.read_text("utf-8").splitlines()
        if "| `--" in line
    }
    for spec in fields(Settings):
        row = rows[f"--{spec.name}"]
        assert describe_range(spec) in row, row
        assert describe_default(spec) in row, row
        if spec.default is not MISSING:
            assert spec.metadata["help"] in row, row
