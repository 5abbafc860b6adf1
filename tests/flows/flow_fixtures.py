"""What the flows' tests share beside fixtures: a catalogue, the real command, and who of a home still runs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
import soundfile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))

from prepared_fixtures import PITCHES, SHAPES, tone  # noqa: E402

from flows.runtime.settings import QUIET  # noqa: E402
from serving.ports import free_port  # noqa: E402

MULAN = Path(sys.executable).parent / "mulan"
CATALOGUE = ("--manifest", "tones.jsonl", "--params", "params.yaml")


def environment(home):
    """That of a person who works in this home; what libraries have set in the tests' own process is not handed on."""
    own = ("PREFECT_HOME", "MLFLOW_TRACKING_URI")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return inherited | {"MULAN_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def mulan(*arguments, home, cwd=None, **env):
    """The finished command, run in the home unless another folder is given.

    It is a process of its own; what it would import for seconds before it does anything is there (forked.py).
    """
    command = [str(MULAN), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        said = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        asked = {"command": command, "cwd": str(cwd or home), "env": environment(home) | env, "said": said}
        code = _run_forked(asked)
        return subprocess.CompletedProcess(command, code, *(Path(name).read_text("utf-8") for name in said))


def _run_forked(asked):
    """Have the process that forks run it; its exit code."""
    forker, pid = _forker(), None
    try:
        forker.stdin.write(json.dumps(asked) + "\n")
        forker.stdin.flush()
        pid = int(forker.stdout.readline())
        return int(forker.stdout.readline())
    except BaseException:  # a test that has run out of time
        if pid:
            os.kill(pid, signal.SIGKILL)
        forker.kill()
        _forker.cache_clear()
        raise


@cache
def _forker():
    """Started with the first command; it ends with these tests, whose end of the pipe it reads."""
    env = os.environ | QUIET | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    script = Path(__file__).with_name("forked.py")
    return subprocess.Popen([sys.executable, script], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def mulan_started(*arguments, home, cwd=None, **env):
    """The same, started anew as people start it."""
    env = environment(home) | env
    return subprocess.run([MULAN, *arguments], cwd=cwd or home, env=env, capture_output=True, text=True, timeout=900)


@contextmanager
def serving(*arguments, home, cwd=None, **env):
    """`mulan serve` until the block ends; yields its process and the endpoint's address."""
    command = [MULAN, "serve", *arguments]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=cwd or home, env=environment(home) | env, **said) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C stops it" in line:
                break
        urls = [word.rstrip("/.") for line in lines for word in line.split() if word.startswith("http://127.")]
        assert urls, lines
        try:
            yield process, urls[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def result_of(done):
    """What a command with ``--json`` printed."""
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def processes_of(home):
    """Processes that have this home in their environment or on their command line; a zombie has ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(home) in " ".join(process.cmdline()) or process.environ().get("MULAN_HOME") == str(home):
                found.append(process)
    return found


def left_of(home, *, within_s=0.0):
    """Command lines of what runs, after at most this long."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(process.cmdline())[:160] for process in left]


def promote(registry, number):
    """Have the registry name a champion that the gate has passed; nothing else goes along."""
    registry.name_champions(registry.champions_with(number))


def prepared_of(home):
    return next((home / "workspaces").glob("tones-*")) / ".mulan" / "data" / "prepared"


PARAMS = """
prepare: {clip_s: 2.5, min_s: 1.0, shard_mb: 1}
model:
  frontend: {window_s: 2.0, num_mels: 32}
  audio: {kind: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}
  text: {pretrained: demo-minilm, max_tokens: 32, trainable_layers: 0, pooling: mean}
train: {steps: 40, batch_size: 16, num_workers: 2, audio_lr: 0.003, warmup_steps: 4, checkpoint_every: 10, log_every: 5,
        spec_time_mask: 0, spec_freq_mask: 0}
evaluate: {bootstrap: 20, sets: {}}
gate: {floors: {tagging/pitch/roc_auc: 0.6, retrieval/text/auc: 0.5}, compare: [tagging/pitch/roc_auc], min_items: 5,
       slice_margin: 0.1, min_slice_items: 5, max_intrusion: 1, max_encode_ms: {text: 60000, clip: 60000}}
index: {windows: true}
serve: {port: PORT}
ablate: {steps: 10, rows: {aset: null, tags unfiltered: {sources: [sf, lf], filtered: false}}}
tune: {steps: 10, trials: 3, rounds: 2, metric: tagging/pitch/roc_auc,
       space: {train.audio_lr: {low: 0.001, high: 0.01, log: true}}}
"""


def write_catalogue(folder):
    """60 tones in 4 formats with their texts, 5 files that cannot be used, and params to train 40 and 120 steps."""
    rows = []
    for i in range(60):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        wave, ending = tone(pitch, shape, seed=i), ("wav", "flac", "ogg", "mp3")[i % 4]
        soundfile.write(folder / f"{i}.{ending}", wave, 16_000)
        split = "test" if i % 5 == 0 else "valid" if i % 5 == 1 else "train"
        texts = [{"source": "sf", "text": f"{pitch} {shape}"}, {"source": "aset", "text": shape}]
        texts += [
            {"source": "lf", "text": f"A {shape} synth melody at a {pitch} pitch."},
            {"source": "lf", "text": "first!!"},
        ]
        rows.append(
            {
                "track_id": f"t{i}",
                "uri": f"{i}.{ending}",
                "split": split,
                "title": f"Tone {i}",
                "texts": texts,
                "labels": [f"pitch:{pitch}", f"shape:{shape}"],
            }
        )
    (folder / "empty.wav").write_bytes(b"")
    (folder / "junk.mp3").write_bytes(b"no audio at all" * 100)
    soundfile.write(folder / "short.wav", tone("low", "smooth", 1)[:1000], 16_000)
    soundfile.write(folder / "silent.wav", 0 * tone("low", "smooth", 1), 16_000)
    rows += [{"uri": name, "text": "x"} for name in ("gone.wav", "empty.wav", "junk.mp3", "short.wav", "silent.wav")]
    (folder / "tones.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    params = PARAMS.replace("PORT", str(free_port()))
    (folder / "params.yaml").write_text(params)
    (folder / "longer.yaml").write_text(params.replace("steps: 40", "steps: 120"))
    return folder
