import json
import subprocess
import sys
from pathlib import Path

import pytest

import deepviz
from deepviz.cli import main

ROOT = Path(__file__).parent.parent
TRIAL = ["--model", "cppn", "--resolution", "64", "--duration", "0.1"]


def run(capsys, *flags) -> tuple[int, str, str]:
    code = main([str(flag) for flag in flags])
    return code, *capsys.readouterr()


def test_the_plan_says_what_will_be_made(folder, melody, capsys):
    code, out, err = run(capsys, "--song", melody, *TRIAL, "--seed", 7, "--classes", 207, 88)
    assert code == 0
    assert err == ""  # no progress bar where there is no terminal
    for words in (
        str(melody),
        "0:03.0",
        "5 at 43.07 a second, 64 by 64",
        "cppn on cpu",
        "207 golden retriever, 88 macaw",
        "seed      7",
        "estimate",
        "output.mp4: 0:00.1",
    ):
        assert words in out


def test_a_fresh_seed_is_printed_and_remembered(folder, melody, capsys):
    _, out, _ = run(capsys, "--song", melody, *TRIAL)
    seed = int(out.split("seed")[1].split()[0])
    (record,) = Path(".deepviz").glob("*/settings.json")
    assert json.loads(record.read_text())["seed"] == seed


def test_flags_of_zero_and_one_also_work_bare(folder, melody, capsys):
    song = ["--song", melody, *TRIAL]
    assert run(capsys, *song, "-d", "--seed", 1)[0] == 0
    assert len(list(Path(".deepviz").glob("*/frames/*.png"))) == 5
    assert run(capsys, *song, "--use_previous_vectors")[0] == 0
    assert run(capsys, *song, "--use_previous_classes", 1, "--use_disk", 0)[0] == 0
    assert run(capsys, "-s", "--song", melody, "--duration", "0.1")[0] == 0


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "--song is missing"),
        (["--song", "nowhere.mp3"], 1, "there is no song nowhere.mp3"),
        (["--song", "text.mp3"], 1, "no song that can be decoded"),
        (["--song", "empty.wav"], 1, "empty file"),
        (["--song", "x.mp3", "--jitter", "2"], 2, "--jitter 2 is out of its range: 0 to 1"),
        (["--song", "x.mp3", "--jitter", "much"], 2, "--jitter"),
        (["--song", "x.mp3", "--use_disk", "2"], 2, "takes 0 or 1"),
        (["--song", "x.mp3", "--classes", "cat"], 2, "--classes"),
        (["--song", "x.mp3", "--no_such_flag"], 2, "--no_such_flag"),
        (["--song", "x.mp3", "--resolut", "256"], 2, "--resolut"),
        (["--song", "x.mp3", "--output_file", "nowhere/x.mp4"], 1, "no folder nowhere"),
        (["--song", "text.mp3", "--work_dir", "text.mp3", "--output_file", "x.avi"], 2, ".mp4"),
        (["--list_classes", "no such thing"], 1, "no class"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(folder, capsys, flags, code, message):
    Path("text.mp3").write_text("words, no music\n" * 1000)
    Path("empty.wav").touch()
    got, _, err = run(capsys, *flags)
    assert got == code
    assert message in err
    assert err.startswith("deepviz: error: ")
    assert err.count("\n") == 1
    assert not Path("output.mp4").exists()


def test_a_work_folder_that_cannot_be_made_is_one_line(folder, melody, capsys):
    Path("file").touch()
    code, _, err = run(capsys, "--song", melody, *TRIAL, "--work_dir", "file")
    assert code == 2
    assert "--work_dir" in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback_and_nothing_else_does(folder, capsys):
    assert "Traceback" not in run(capsys, "--song", "nowhere.mp3")[2]
    assert "Traceback" in run(capsys, "--song", "nowhere.mp3", "--debug")[2]


def test_help_groups_the_flags_and_gives_their_ranges():
    done = subprocess.run(
        [sys.executable, "visualize.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    groups = ["the song:", "what the video shows:", "how it moves:", "speed and memory:"]
    places = [text.index(title) for title in [*groups, "earlier runs:", "output:"]]
    assert places == sorted(places)
    for words in ("(1 to 299; default: 220)", "multiples of 64", "0 to 999", "-d [0|1]"):
        assert words in text


def test_help_loads_none_of_the_heavy_libraries():
    script = (
        "import sys, deepviz.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'librosa', 'moviepy', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version_and_class_names(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert deepviz.__version__ in capsys.readouterr().out
    code, out, _ = run(capsys, "--list_classes", "Golden Retriever")
    assert (code, out) == (0, "207  golden retriever\n")
    code, out, _ = run(capsys, "--list_classes")
    assert out.count("\n") == 1000


def test_a_fault_of_our_own_is_one_line_too(folder, melody, capsys, monkeypatch):
    def fail(settings):
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr("deepviz.generators.load_generator", fail)
    code, _, err = run(capsys, "--song", melody, *TRIAL)
    assert code == 1
    assert err.count("\n") == 1
    assert "ZeroDivisionError: by mistake" in err
    assert "report" in err


def test_a_long_wait_says_what_would_shorten_it(folder, melody, capsys, monkeypatch):
    monkeypatch.setattr("deepviz.plan.LONG_WAIT", -1)
    _, out, _ = run(capsys, "--song", melody, *TRIAL, "--resolution", "256")
    for words in ("shorter with", "--resolution 128", "--frame_length 1024", "--duration"):
        assert words in out
