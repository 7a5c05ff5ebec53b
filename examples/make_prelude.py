"""Make `prelude.ogg`, the example song: Bach's Prelude in C major for a small orchestra.

The composition is the Prelude in C major BWV 846 from The Well-Tempered Clavier I (1722), bars 1
to 19, the last of them its first full close in C. The broken chords are Bach's; the instruments,
the flute's links between his top notes and the dynamics are ours. Clear chords that grow from pp
to ff and back show what deepviz does: harmony chooses what is seen, loudness how it moves.

This is for the developers; users only need the recording. Beside deepviz itself it takes::

    pip install mido
    apt install fluidsynth fluid-soundfont-gm
    python examples/make_prelude.py
"""

import itertools
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import mido  # type: ignore[import-untyped]
import numpy as np
import soundfile
from librosa import note_to_midi

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")  # where Debian puts it
SONG = Path(__file__).with_name("prelude.ogg")

SAMPLE_RATE = 44100
PEAK = 10 ** (-1.2 / 20)  # Vorbis overshoots by a few tenths of a dB: this ends near -1 dBFS
COMPRESSION = 0.6  # Vorbis quality 4, about 128 kbit/s: the whole stays under 1 MB
LEAD_IN = 0.1  # seconds before the first note
FADE = 1.0  # seconds over which the last chord's ringing goes to zero
TICKS = 480  # per crotchet

# Bars 1 to 19, each a chord from low to high.
CHORDS = [
    "C4 E4 G4 C5 E5", "C4 D4 A4 D5 F5", "B3 D4 G4 D5 F5", "C4 E4 G4 C5 E5", "C4 E4 A4 E5 A5",
    "C4 D4 F#4 A4 D5", "B3 D4 G4 D5 G5", "B3 C4 E4 G4 C5", "A3 C4 E4 G4 C5", "D3 A3 D4 F#4 C5",
    "G3 B3 D4 G4 B4", "G3 Bb3 E4 G4 C#5", "F3 A3 D4 A4 D5", "F3 Ab3 D4 F4 B4", "E3 G3 C4 G4 C5",
    "E3 F3 A3 C4 F4", "D3 F3 A3 C4 F4", "G2 D3 G3 B3 F4", "C3 E3 G3 C4 E4",
]  # fmt: skip
FIGURE = [0, 1, 2, 3, 4, 2, 3, 4]  # a half bar in semiquavers, as indices into the chord
RINGING = [8, 7, 3, 3, 3, 3, 2, 1]  # how long each rings: Bach holds the two lowest notes

TIMPANI = ["F2", "C3", "F2", "D2", "G2"]  # bars 14 to 18
LAST_CHORD = ["C2", "C3", "G3", "C4", "E4", "G4", "C5"]

# Bars 4 to 19: the flute has the top note of each chord, as "note:crotchets", and links them.
# From bar 12 it climbs above the chords, to reach Bach's F two octaves up in bar 16.
MELODY = [
    "rest:2 E5:2", "A5:3 E5:1", "D5:3 F#5:1", "G5:3 D5:1", "C5:3 B4:1", "C5:2 E5:1 D5:1",
    "C5:3 A4:1", "B4:2 G5:1 D5:1", "C#5:1.5 G5:0.5 Bb5:1 C#6:1", "D6:2.5 A5:0.5 F5:0.5 A5:0.5",
    "B5:1.5 Ab5:1.5 B5:1", "C6:2 E6:1 G6:1", "F6:3 C6:0.5 E6:0.5",
    "F6:2 D6:0.5 C6:0.5 A5:0.5 C6:0.5", "B5:1.5 G5:0.5 F5:2", "E5:3",
]  # fmt: skip

# Values at bars (17.5 is the middle of bar 17), with straight hairpins and rubato in between.
PP, P, MP, MF, F, FF = 0.1, 0.25, 0.42, 0.6, 0.8, 1.0
DYNAMICS = {
    1: PP, 2.5: P, 4: P, 5: MF, 6: F, 7: F, 7.9: MF, 8: P, 9: MP, 10: F, 11: MF, 12: MP, 13: MF,
    14: F, 14.9: F, 15: MF, 16: FF, 17.5: FF, 18: F, 19: P, 19.9: PP, 20: P,
}  # fmt: skip
TEMPO = {1: 84, 4: 88, 11: 87, 12: 89, 15: 92, 16: 88, 18: 87, 19: 76, 19.75: 54, 20: 60}
ACCENTS = {6, 10, 12, 14, 15, 16, 17}  # bars whose first beat is struck
END = 80.0  # crotchets from the start to where the ringing is cut


class Part(NamedTuple):
    """An instrument: its General MIDI program and how it sits in the room, all 0 to 127."""

    program: int
    volume: int
    pan: int  # 0 left, 64 middle, 127 right
    reverb: int
    vibrato: int = 0
    bowed: bool = False  # or blown: the loudness can change while a note sounds


PARTS = {
    "harp": Part(46, 94, 36, 60),
    "piano": Part(0, 106, 80, 50),
    "flute": Part(73, 100, 48, 70, vibrato=12, bowed=True),
    "oboe": Part(68, 84, 84, 70, vibrato=10, bowed=True),
    "strings": Part(48, 100, 54, 70, bowed=True),
    "cello": Part(42, 92, 98, 55, vibrato=8, bowed=True),
    "pizzicato": Part(45, 100, 108, 60),
    "timpani": Part(47, 86, 74, 75),
    "glockenspiel": Part(9, 92, 16, 80),
}


class Note(NamedTuple):
    """One note; `start` and `length` in crotchets, `force` as a MIDI velocity."""

    part: str
    start: float
    length: float
    pitch: int
    force: float


def at(beat: float, values: Mapping[float, float]) -> float:
    """`values`, which are given at bars counted from 1, at a `beat` counted from 0."""
    return float(np.interp(beat / 4 + 1, list(values), list(values.values())))


def note(part: str, start: float, length: float, name: str, lift: int = 0, lean: int = 0) -> Note:
    """A note at the written dynamic; `lift` in semitones, `lean` makes it stand out."""
    # FluidSynth plays 40 dB for each factor of ten. A bow has the expression curve as well.
    soft, loud = (78, 112) if PARTS[part].bowed else (54, 112)
    accent = 12 if start % 4 == 0 and start / 4 + 1 in ACCENTS else 0
    force = soft + (loud - soft) * at(start, DYNAMICS) + lean + accent
    return Note(part, start, length, int(note_to_midi(name)) + lift, force)


def broken_chords(part: str, first: int, last: int) -> Iterator[Note]:
    """Bach's figure, twice a bar: the first note leads, the top note sings."""
    for half, beat in itertools.product((0, 2), range(4 * first - 4, 4 * last, 4)):
        chord = CHORDS[beat // 4].split()
        for place, (voice, length) in enumerate(zip(FIGURE, RINGING, strict=True)):
            lean = {0: 8, 4: 5}.get(place, 0)
            yield note(part, beat + half + place / 4, length / 4, chord[voice], lean=lean)


def held(part: str, voices: str, first: int, last: int, lift: int, length: int) -> Iterator[Note]:
    """Some voices of the chords, "0" the lowest, again every `length` crotchets."""
    for beat in range(4 * first - 4, 4 * last, length):
        for voice in voices:
            yield note(part, beat, length, CHORDS[beat // 4].split()[int(voice)], lift)


def melody(part: str, first: int, last: int, lift: int) -> Iterator[Note]:
    """The tune from bar `first` to `last`."""
    for bar in range(first, last + 1):
        beat = 4.0 * (bar - 1)
        for name, length in (word.split(":") for word in MELODY[bar - 4].split()):
            if name != "rest":
                yield note(part, beat, float(length), name, lift)
            beat += float(length)


def score() -> list[Note]:
    """The whole arrangement."""
    notes = [
        *broken_chords("harp", 1, 19),
        *broken_chords("piano", 10, 17),
        *melody("flute", 4, 19, lift=0),
        *melody("oboe", 12, 17, lift=-12),
        *held("strings", "123", 5, 7, lift=0, length=4),
        *held("strings", "123", 9, 18, lift=0, length=4),
        *held("cello", "0", 5, 9, lift=-12, length=4),
        *held("cello", "0", 10, 18, lift=0, length=4),
        *held("pizzicato", "0", 5, 18, lift=-12, length=2),
        *held("glockenspiel", "4", 14, 17, lift=24, length=2),
    ]
    for stroke, bar in itertools.product(range(32), range(14, 19)):  # a roll in demisemiquavers
        start, lean = 4 * bar - 4 + stroke / 8, -20 if stroke else 0
        notes.append(note("timpani", start, 1 / 8, TIMPANI[bar - 14], lean=lean))
    for place, name in enumerate(LAST_CHORD):  # spread from below, then left to ring
        notes.append(note("harp", 76 + place / 8, END - 76 - place / 8, name, lean=16))
    return notes


def controls(part: Part) -> Iterator[tuple[float, int, int]]:
    """Beats, MIDI controllers and values: the room, and the dynamics while notes sound."""
    yield from ((0, 7, part.volume), (0, 10, part.pan), (0, 91, part.reverb), (0, 1, part.vibrato))
    for beat in np.arange(0, END, 1 / 8) if part.bowed else ():
        yield beat, 11, round(48 + 79 * at(beat, DYNAMICS))


def to_midi(notes: list[Note]) -> mido.MidiFile:
    """The notes with tempo and dynamics, as unevenly as hands play, as a MIDI file of one track."""
    rng = random.Random(846)
    channels = {name: channel for channel, name in enumerate(PARTS)}  # 9, the drums, stays free
    events: list[tuple[float, mido.Message | mido.MetaMessage]] = [
        (beat, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(at(beat, TEMPO))))
        for beat in range(int(END) + 1)
    ]
    for name, channel in channels.items():
        program = PARTS[name].program
        events.append((0, mido.Message("program_change", channel=channel, program=program)))
        for beat, control, value in controls(PARTS[name]):
            what = {"channel": channel, "control": control, "value": value}
            events.append((beat, mido.Message("control_change", **what)))
    for part, start, length, pitch, force in notes:
        early = min(0.03, max(-0.03, rng.gauss(0, 0.009)))  # some 6 ms
        velocity = min(127, max(1, round(force + rng.gauss(0, 3))))
        on = mido.Message("note_on", channel=channels[part], note=pitch, velocity=velocity)
        off = mido.Message("note_off", channel=channels[part], note=pitch)
        # Off before the same key can be struck again, however early that is.
        events += [(max(0, start - early), on), (start + length - 0.04, off)]
    events.append((END, mido.MetaMessage("end_of_track")))
    events.sort(key=lambda event: event[0])  # stable: a channel is set up before it plays

    midi = mido.MidiFile(type=0, ticks_per_beat=TICKS)
    track = midi.add_track("Prelude in C major")
    for (before, _), (now, message) in itertools.pairwise([(0, None), *events]):
        track.append(message.copy(time=round(now * TICKS) - round(before * TICKS)))
    return midi


def render(midi: mido.MidiFile, folder: Path) -> np.ndarray:
    """FluidSynth's rendering of `midi`, shape = (n_samples, 2), float32."""
    midi.save(folder / "prelude.mid")
    command = ["fluidsynth", "-niq", "-r", str(SAMPLE_RATE), "-g", "0.3"]
    for setting in ("room-size=0.7", "damp=0.3", "width=0.8", "level=0.5"):
        command += ["-o", f"synth.reverb.{setting}"]
    command += ["-C", "0", "-T", "wav", "-O", "float", "-F", str(folder / "prelude.wav")]
    subprocess.run([*command, str(SOUNDFONT), str(folder / "prelude.mid")], check=True)
    return soundfile.read(folder / "prelude.wav", dtype="float32")[0]


def master(y: np.ndarray, duration: float) -> np.ndarray:
    """`y` cut to `duration` seconds, faded out and brought to the peak we publish at."""
    y = np.pad(y, ((round(LEAD_IN * SAMPLE_RATE), 0), (0, 0)))[: round(duration * SAMPLE_RATE)]
    fade = np.cos(np.linspace(0, np.pi / 2, round(FADE * SAMPLE_RATE), dtype=np.float32)) ** 2
    y[-len(fade) :] *= fade[:, None]
    return PEAK * y / np.abs(y).max()


def write(y: np.ndarray, path: Path) -> None:
    """Encode as Vorbis, a second at a time: libsndfile crashes on one very large write."""
    options = {"format": "OGG", "subtype": "VORBIS", "compression_level": COMPRESSION}
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, **options) as song:
        song.title = "Prelude in C major, BWV 846 (bars 1-19, arranged)"
        song.artist = "Johann Sebastian Bach, arranged by the authors of deepviz"
        song.license = "CC0 1.0"
        for start in range(0, len(y), SAMPLE_RATE):
            song.write(y[start : start + SAMPLE_RATE])


def main() -> None:
    """Play the score, record it, publish it."""
    if not shutil.which("fluidsynth") or not SOUNDFONT.exists():
        sys.exit("make_prelude needs FluidSynth: apt install fluidsynth fluid-soundfont-gm")
    midi = to_midi(score())
    with tempfile.TemporaryDirectory() as folder:
        write(master(render(midi, Path(folder)), midi.length), Path(folder, SONG.name))
        shutil.move(Path(folder, SONG.name), SONG)
    print(f"{SONG}: {midi.length:.1f} s, {SONG.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
