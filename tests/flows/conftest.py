"""A small catalogue with bad files, and the whole flow run on it once by the real command."""

import json
import sys

import pytest
import soundfile
from flow_fixtures import CATALOGUE, ROOT, mulan, result_of

sys.path.insert(0, str(ROOT / "tests" / "core"))

from prepared_fixtures import PITCHES, SHAPES, tone

from serving.ports import free_port

PARAMS = """
prepare: {clip_s: 2.5, min_s: 1.0, shard_mb: 1}
model:
  frontend: {window_s: 2.0, num_mels: 32}
  audio: {kind: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}
  text: {pretrained: demo-minilm, max_tokens: 32, trainable_layers: 0, pooling: mean}
train: {steps: 40, batch_size: 16, num_workers: 2, audio_lr: 0.003, warmup_steps: 4, checkpoint_every: 10, log_every: 5,
        spec_time_mask: 0, spec_freq_mask: 0}
evaluate: {bootstrap: 20}
gate: {floors: {tagging/pitch/roc_auc: 0.6, retrieval/text/auc: 0.5}, compare: [tagging/pitch/roc_auc], min_items: 5,
       slice_margin: 0.1, min_slice_items: 5, max_intrusion: 1, max_encode_ms: {text: 60000, clip: 60000}}
index: {windows: true}
serve: {port: PORT}
ablate: {steps: 10, rows: {aset: null, tags unfiltered: {sources: [sf, lf], filtered: false}}}
tune: {steps: 10, trials: 3, rounds: 2, metric: tagging/pitch/roc_auc,
       space: {train.audio_lr: {low: 0.001, high: 0.01, log: true}}}
"""


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A catalogue of 60 tones in 4 formats, with 5 files that cannot be used; numbers to train 40 and 120 steps."""
    home = tmp_path_factory.mktemp("home")
    rows = []
    for i in range(60):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        wave, ending = tone(pitch, shape, seed=i), ("wav", "flac", "ogg", "mp3")[i % 4]
        soundfile.write(home / f"{i}.{ending}", wave, 16_000)
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
    (home / "empty.wav").write_bytes(b"")
    (home / "junk.mp3").write_bytes(b"no audio at all" * 100)
    soundfile.write(home / "short.wav", tone("low", "smooth", 1)[:1000], 16_000)
    soundfile.write(home / "silent.wav", 0 * tone("low", "smooth", 1), 16_000)
    rows += [{"uri": name, "text": "x"} for name in ("gone.wav", "empty.wav", "junk.mp3", "short.wav", "silent.wav")]
    (home / "tones.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    params = PARAMS.replace("PORT", str(free_port()))
    (home / "params.yaml").write_text(params)
    (home / "longer.yaml").write_text(params.replace("steps: 40", "steps: 120"))
    return home


@pytest.fixture(scope="session")
def first(home):
    """What the first run returned; nothing of it is deployed."""
    return result_of(mulan("run", *CATALOGUE, "--no-serve", "--json", home=home))
