"""What ``mulan run`` takes when nothing has changed, and its home on disk, beside another checkout in the same run.

    python benchmarks/idle_run.py --against ../mulan-before [--rounds 5] [--tracks 60] [--seconds 2.5]

The other checkout has a ``.venv`` of its own with a ``mulan`` in it, as ``make test`` there makes it. Each side gets a
home and a catalogue of the same tones, runs it once in full, and then both run it again in turn. Printed are seconds on
the clock, CPU seconds of the command and its servers (not of Ray's processes, which it does not wait for), what the
stages took, the ratio within each round, and the bytes of both workspaces, where a catalogue's data lie; a file of
two names is counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import yaml

from serving.ports import free_port

HERE = Path(__file__).resolve().parents[1]
RATE_HZ = 16_000
NUMBERS: dict[str, Any] = {
    "prepare": {"clip_s": 2.5, "min_s": 1.0, "shard_mb": 1},
    "model": {
        "frontend": {"window_s": 2.0, "num_mels": 32},
        "audio": {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        "text": {"pretrained": "demo-minilm", "max_tokens": 32, "trainable_layers": 0, "pooling": "mean"},
    },
    "train": {"steps": 20, "batch_size": 16, "num_workers": 2, "warmup_steps": 4, "checkpoint_every": 10},
    "evaluate": {"bootstrap": 20},
    # Any model is to pass: what is measured is a run that has nothing to do.
    "gate": {
        **{"floors": {"retrieval/text/auc": 0.0}, "compare": [], "min_items": 1, "min_slice_items": 1000},
        **{"max_intrusion": 1, "max_encode_ms": {"text": 60000, "clip": 60000}},
    },
}


class Side:
    """A checkout with a home and a catalogue."""

    def __init__(self, checkout: Path, folder: Path, num_tracks: int, track_s: float = 2.5) -> None:
        self.checkout, self.folder = checkout, folder
        write_catalogue(folder, num_tracks, track_s)
        prepare = NUMBERS["prepare"] | {"clip_s": track_s}
        numbers = NUMBERS | {"prepare": prepare} | {"serve": {"port": free_port()}}
        (folder / "numbers.yaml").write_text(yaml.safe_dump(numbers))
        self.seconds: list[float] = []
        self.cpu_s: list[float] = []
        self.stages: list[dict[str, float]] = []

    def run(self) -> dict[str, Any]:
        """``mulan run``; notes what it took."""
        command = [str(self.checkout / ".venv" / "bin" / "mulan"), "run", "--manifest", "tones.jsonl"]
        env = os.environ | {"MULAN_HOME": str(self.folder / "home"), "PYTHONPATH": str(self.checkout)}
        before, started = children_cpu_s(), time.perf_counter()
        done = subprocess.run(
            [*command, "--params", "numbers.yaml", "--json"],
            cwd=self.folder, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{self.checkout}: {done.stderr[-2000:]}")
        result = json.loads(done.stdout)
        self.seconds.append(time.perf_counter() - started)
        self.cpu_s.append(children_cpu_s() - before)
        self.stages.append(result["stages"])
        return result

    def show(self, name: str) -> None:
        """Print the medians."""
        stages = {stage: median(of[stage] for of in self.stages if stage in of) for stage in self.stages[0]}
        shown = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
        print(f"{name:8} {median(self.seconds):6.1f} s, {median(self.cpu_s):6.1f} s of CPU ({shown})")


def bytes_of(folder: Path) -> int:
    """Bytes on disk below a folder, a file with several names once."""
    blocks = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found = path.stat()
            blocks[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(blocks.values())


def write_catalogue(folder: Path, num_tracks: int, track_s: float) -> None:
    """Tones of three pitches, each with two texts."""
    folder.mkdir()
    rows = []
    for i in range(num_tracks):
        pitch = ("low", "middle", "high")[i % 3]
        phase = 2 * np.pi * 220 * 4 ** (i % 3) * np.arange(int(track_s * RATE_HZ)) / RATE_HZ
        noise = 0.01 * np.random.default_rng(i).standard_normal(len(phase))
        soundfile.write(folder / f"{i}.flac", 0.3 * np.sin(phase) + noise, RATE_HZ)
        texts = [{"source": "sf", "text": f"{pitch} tone"}, {"source": "lf", "text": f"A tone of a {pitch} pitch."}]
        split = ("test", "valid", "train", "train", "train")[i % 5]
        rows.append({"uri": f"{i}.flac", "split": split, "title": f"Tone {i}", "texts": texts, "labels": [pitch]})
    (folder / "tones.jsonl").write_text("\n".join(map(json.dumps, rows)))


def children_cpu_s() -> float:
    """CPU seconds of all processes that have ended below this one and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tracks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each track, which is kept whole")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sides = {"before": arguments.against.resolve(), "now": HERE}
        both = {
            side: Side(checkout, Path(name, side), arguments.tracks, arguments.seconds)
            for side, checkout in sides.items()
        }
        for side in both.values():
            side.run()
            side.run()  # what is made on a second run alone is made now
            for noted in (side.seconds, side.cpu_s, side.stages):
                noted.clear()
        for _ in range(arguments.rounds):
            for side in both.values():
                side.run()
        for side_name, side in both.items():
            side.show(side_name)
        for what in ("seconds", "cpu_s"):
            then, now = (getattr(both[side], what) for side in ("before", "now"))
            ratios = [ours / theirs for theirs, ours in zip(then, now, strict=True)]
            print(f"{what}: now is {median(ratios):.2f} of before ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
        megabytes = {side: bytes_of(Path(name, side, "home", "workspaces")) / 1e6 for side in sides}
        print(
            f"disk: {megabytes['now']:.1f} MB, before {megabytes['before']:.1f} MB: "
            f"{megabytes['now'] / megabytes['before']:.2f}"
        )


if __name__ == "__main__":
    main()
