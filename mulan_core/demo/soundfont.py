"""Reads a SoundFont 2 file: presets, instruments, zones and samples (SoundFont 2.04 specification).

Only what a mono player needs is kept: ranges, tuning, loops, the volume envelope, attenuation and the
low-pass. Pan, effects sends and modulators other than velocity are ignored.
"""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from mulan_core.errors import UserError

DRUM_BANK = 128
"""The bank in which General-MIDI fonts keep drum kits (MIDI channel 10)."""

# Generator numbers of the specification, section 8.1.2.
_START, _END, _START_LOOP, _END_LOOP, _START_COARSE, _END_COARSE = 0, 1, 2, 3, 4, 12
_START_LOOP_COARSE, _END_LOOP_COARSE = 45, 50
_FILTER_CUTOFF, _FILTER_Q, _MOD_ENV_TO_FILTER, _MOD_ENV_SUSTAIN = 8, 9, 11, 29
_DELAY, _ATTACK, _HOLD, _DECAY, _SUSTAIN, _RELEASE = 33, 34, 35, 36, 37, 38
_KEY_TO_HOLD, _KEY_TO_DECAY = 39, 40
_INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _FIXED_KEY, _ATTENUATION = 41, 43, 44, 46, 48
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _SAMPLE_MODES, _SCALE_TUNING, _ROOT_KEY = 51, 52, 53, 54, 56, 58
_DEFAULTS = {
    _FILTER_CUTOFF: 13_500, _DELAY: -12_000, _ATTACK: -12_000, _HOLD: -12_000, _DECAY: -12_000,
    _RELEASE: -12_000, _SCALE_TUNING: 100, _ROOT_KEY: -1, _FIXED_KEY: -1,
}  # fmt: skip
_NOT_ADDITIVE = {_INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _SAMPLE}
_COMPRESSED_SAMPLE = 0x10  # set by .sf3 writers: the sample is a Vorbis stream, not 16-bit numbers


@dataclass(frozen=True)
class Sample:
    """One recorded sample: indices into the font's sample data."""

    name: str
    start: int
    end: int
    loop_start: int
    loop_end: int
    rate_hz: int
    root_key: int
    correction_cents: int


@dataclass(frozen=True)
class Region:
    """What sounds when a key is struck: one sample with its tuning, loop, envelope and filter."""

    index: int
    sample: Sample
    start: int
    end: int
    loop_start: int
    loop_end: int
    is_looped: bool
    stops_loop_at_release: bool
    root_key: int
    fixed_key: int
    tune_cents: float
    cents_per_key: float
    attenuation_db: float
    delay_s: float
    attack_s: float
    hold_s: float
    decay_s: float
    sustain_db: float
    release_s: float
    key_to_hold: float
    key_to_decay: float
    cutoff_hz: float
    resonance_db: float


@dataclass(frozen=True)
class _Zone:
    key_range: tuple[int, int]
    velocity_range: tuple[int, int]
    values: dict[int, int]


@dataclass
class SoundFont:
    """A parsed font; ``regions`` answers what a key strikes."""

    path: Path
    samples_i16: np.ndarray
    sample_headers: list[Sample]
    presets: dict[tuple[int, int], list[_Zone]]
    instruments: list[list[_Zone]]
    _regions: dict[tuple[int, ...], list[Region]] = field(default_factory=dict)
    _unique: dict[tuple[int, ...], Region] = field(default_factory=dict)

    def regions(self, bank: int, program: int, key: int, velocity: int) -> list[Region]:
        """The regions that a key strikes; the piano, or the first drum kit, where the preset is not in the font."""
        request = (bank, program, key, velocity)
        if request not in self._regions:
            preset = (bank, program) if (bank, program) in self.presets else (bank, 0)
            self._regions[request] = list(self._match(preset, key, velocity))
        return self._regions[request]

    def _match(self, preset: tuple[int, int], key: int, velocity: int) -> Iterator[Region]:
        for p, preset_zone in enumerate(self.presets.get(preset, [])):
            if not _covers(preset_zone, key, velocity):
                continue
            number = preset_zone.values[_INSTRUMENT]
            for i, zone in enumerate(self.instruments[number]):
                if not _covers(zone, key, velocity):
                    continue
                where = (*preset, p, i)
                if where not in self._unique:
                    sample = self.sample_headers[zone.values[_SAMPLE]]
                    values = _add_preset(zone.values, preset_zone.values)
                    self._unique[where] = _make_region(len(self._unique), sample, values)
                yield self._unique[where]


def find_soundfont(path: str | None = None) -> Path:
    """The font to play: the one asked for, else $MULAN_SOUNDFONT, else the one inside the pretty_midi package.

    Raises:
        UserError: if the named file is missing, or there is no font at all.
    """
    for named, origin in ((path, "corpus.soundfont"), (os.environ.get("MULAN_SOUNDFONT"), "MULAN_SOUNDFONT")):
        if named:
            font = Path(named).expanduser()
            if not font.is_file():
                raise UserError(f"no SoundFont at {font} ({origin}); give the path of a General-MIDI .sf2 file")
            return font
    package = importlib.util.find_spec("pretty_midi")  # found, not imported: only its data file is wanted
    for folder in (package.submodule_search_locations or []) if package else []:
        font = Path(folder) / "TimGM6mb.sf2"
        if font.is_file():
            return font
    raise UserError(
        "no SoundFont for the demo corpus: run `pip install 'mulan[demo]'`, "
        "or set corpus.soundfont or MULAN_SOUNDFONT to a General-MIDI .sf2 file"
    )


def read_soundfont(path: Path) -> SoundFont:
    """Parse a .sf2 file; sample data stays on disk and is mapped.

    Raises:
        UserError: if the file cannot be read, is not a SoundFont 2, is cut short, or is compressed (.sf3).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the SoundFont {path}: {error.strerror or error}") from error
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise UserError(f"{path} is not a SoundFont 2 file; give a General-MIDI .sf2 file")
    try:
        font = _parse(path, data)
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise UserError(f"the SoundFont {path} is broken or cut short; fetch it again") from error
    if font is None:
        raise UserError(f"{path} is a compressed SoundFont (.sf3), which is not supported; give a .sf2 file")
    return font


def _parse(path: Path, data: bytes) -> SoundFont | None:
    chunks: dict[bytes, tuple[int, int]] = {}
    for name, start, size in _walk(data, 12, len(data)):
        if name == b"LIST":
            chunks.update({inner: (at, length) for inner, at, length in _walk(data, start + 4, start + size)})
    smpl_at, smpl_bytes = chunks[b"smpl"]
    if smpl_at + smpl_bytes > len(data):
        raise ValueError("sample data runs past the end of the file")

    def rows(name: bytes, layout: str) -> list[tuple]:
        at, size = chunks[name]
        return list(struct.iter_unpack(layout, data[at : at + size]))

    headers = rows(b"shdr", "<20s5IBbHH")[:-1]
    if any(row[9] & _COMPRESSED_SAMPLE for row in headers):
        return None
    samples = [Sample(_text(r[0]), r[1], r[2], r[3], r[4], r[5], r[6], r[7]) for r in headers]
    instrument_bags, preset_bags = rows(b"ibag", "<HH"), rows(b"pbag", "<HH")
    instrument_generators, preset_generators = rows(b"igen", "<HH"), rows(b"pgen", "<HH")
    names, presets = rows(b"inst", "<20sH"), rows(b"phdr", "<20sHHHIII")
    instruments = [
        _zones(instrument_bags[here[1] : after[1] + 1], instrument_generators, _SAMPLE)
        for here, after in pairwise(names)
    ]
    zones = {
        (here[2], here[1]): _zones(preset_bags[here[3] : after[3] + 1], preset_generators, _INSTRUMENT)
        for here, after in pairwise(presets)
    }
    if not zones or not samples:
        raise ValueError("no presets")
    mapped = np.memmap(path, dtype="<i2", mode="r", offset=smpl_at, shape=(smpl_bytes // 2,))
    return SoundFont(path, mapped, samples, zones, instruments)


def _walk(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, at + 8, size
        at += 8 + size + (size & 1)


def _zones(bags: list[tuple], generators: list[tuple], target: int) -> list[_Zone]:
    """Zones of one preset or instrument; a first zone without a target is global: defaults for the others."""
    zones: list[_Zone] = []
    common: dict[int, int] = {}
    for number, (bag, following) in enumerate(pairwise(bags)):
        values = {**common, **dict(generators[bag[0] : following[0]])}
        if target in values:
            zones.append(_Zone(_range(values, _KEY_RANGE), _range(values, _VELOCITY_RANGE), _signed(values)))
        elif number == 0:
            common = values
    return zones


def _range(values: dict[int, int], generator: int) -> tuple[int, int]:
    amount = values.get(generator, 127 << 8)
    return amount & 0xFF, amount >> 8


def _signed(values: dict[int, int]) -> dict[int, int]:
    unsigned = _NOT_ADDITIVE
    return {k: v - 65_536 if v > 32_767 and k not in unsigned else v for k, v in values.items()}


def _covers(zone: _Zone, key: int, velocity: int) -> bool:
    (key_low, key_high), (velocity_low, velocity_high) = zone.key_range, zone.velocity_range
    return key_low <= key <= key_high and velocity_low <= velocity <= velocity_high


def _add_preset(instrument: dict[int, int], preset: dict[int, int]) -> dict[int, int]:
    """Instrument generators are absolute, preset generators are added to them (section 9.4)."""
    values = {**_DEFAULTS, **instrument}
    for generator, amount in preset.items():
        if generator not in _NOT_ADDITIVE:
            values[generator] = values.get(generator, 0) + amount
    return values


def _make_region(index: int, sample: Sample, values: dict[int, int]) -> Region:
    def get(generator: int) -> int:
        return values.get(generator, 0)

    def offset(fine: int, coarse: int) -> int:
        return get(fine) + 32_768 * get(coarse)

    start, end = sample.start + offset(_START, _START_COARSE), sample.end + offset(_END, _END_COARSE)
    loop_start = sample.loop_start + offset(_START_LOOP, _START_LOOP_COARSE)
    loop_end = sample.loop_end + offset(_END_LOOP, _END_LOOP_COARSE)
    cutoff_cents = get(_FILTER_CUTOFF) + get(_MOD_ENV_TO_FILTER) * (1 - min(1000, max(0, get(_MOD_ENV_SUSTAIN))) / 1000)
    return Region(
        index=index,
        sample=sample,
        start=start,
        end=end,
        loop_start=loop_start,
        loop_end=loop_end,
        is_looped=get(_SAMPLE_MODES) in (1, 3) and start <= loop_start < loop_end - 1 and loop_end <= end,
        stops_loop_at_release=get(_SAMPLE_MODES) == 3,
        root_key=get(_ROOT_KEY) if 0 <= get(_ROOT_KEY) <= 127 else sample.root_key,
        fixed_key=get(_FIXED_KEY),
        tune_cents=100.0 * get(_COARSE_TUNE) + get(_FINE_TUNE) + sample.correction_cents,
        cents_per_key=float(get(_SCALE_TUNING)),
        # Players agree on 0.4 of the written attenuation: the first hardware did so, and fonts are voiced for it.
        attenuation_db=0.4 * max(0, get(_ATTENUATION)) / 10,
        delay_s=_seconds(get(_DELAY)),
        attack_s=_seconds(get(_ATTACK)),
        hold_s=_seconds(get(_HOLD)),
        decay_s=_seconds(get(_DECAY)),
        sustain_db=min(100.0, max(0, get(_SUSTAIN)) / 10),
        release_s=_seconds(get(_RELEASE)),
        key_to_hold=float(get(_KEY_TO_HOLD)),
        key_to_decay=float(get(_KEY_TO_DECAY)),
        cutoff_hz=8.176 * 2 ** (min(13_500, max(1_500, cutoff_cents)) / 1200),
        resonance_db=min(96.0, max(0, get(_FILTER_Q)) / 10),
    )


def _seconds(timecents: int) -> float:
    return float(2.0 ** (min(timecents, 8_000) / 1200))


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("latin-1")
