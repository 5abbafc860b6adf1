"""Configurations with random slips: each is refused in one sentence that names file and place, or works."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from config_fixtures import random_yaml
from typer.testing import CliRunner

from mulan_core import sizing
from mulan_core.audio.frontend import LogMel
from mulan_core.config import Config, from_mapping, load_config, to_mapping
from mulan_core.errors import UserError
from mulan_core.towers.audio import audio_config, build_audio_tower
from mulan_core.training import learning_rate
from mulan_core.yaml_file import format_yaml, parse_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = [to_mapping(load_config(path)) for path in (ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml")))]
FIRST = int(os.environ.get("MULAN_TEST_FIRST_SEED", "0"))
"""The default run takes the same files each time; another number tries others."""


@pytest.mark.parametrize("count", [120, pytest.param(500, marks=pytest.mark.drill)])
def test_random_configurations_give_no_traceback(tmp_path, count):
    accepted = 0
    for seed in range(FIRST, FIRST + count):
        rng = random.Random(seed)
        path = tmp_path / "params.yaml"
        path.write_text(random_yaml(rng.choice(SHIPPED), rng), encoding="utf-8")
        try:
            config = load_config(path)
        except UserError as error:
            sentence = str(error)
            assert sentence.startswith(str(path)), sentence
            assert "\n" not in sentence
            assert len(sentence) < 700, sentence
            continue
        accepted += 1
        use(config)
    assert count / 10 < accepted < count


def use(config: Config) -> None:
    """Take it where it goes, as far as that costs little."""
    plain = to_mapping(config)
    assert from_mapping(Config, parse_yaml(format_yaml(plain), "written")) == config
    train, frontend = config.train, config.model.frontend
    for step in {0, train.warmup_steps - 1, train.warmup_steps, train.steps // 2, train.steps - 1} - {-1}:
        assert 0 < learning_rate(step, peak=train.audio_lr, warmup_steps=train.warmup_steps, steps=train.steps) <= 1
    if frontend.fft_size * frontend.num_mels <= 2**22:
        features = LogMel(frontend)(torch.zeros(1, 20 * frontend.hop_samples))
        assert features.shape == (1, frontend.num_mels, 20)
        assert torch.isfinite(features).all()
    audio = config.model.audio
    if frontend.num_frames <= 2_000 and sum(audio.depths) <= 16 and audio.num_layers <= 2:
        with torch.device("meta"):
            tower = build_audio_tower(audio_config(config.model), config.model.embedding_dim, pooling=audio.pooling)
            out = tower.eval()(torch.zeros(1, frontend.num_mels, frontend.num_frames))
        assert out.shape == (1, config.model.embedding_dim)


def test_the_commands_too_refuse_in_one_sentence_or_work(tmp_path, monkeypatch):
    """`mulan estimate` and `mulan data check` read such files by the command line's own way."""
    from flows.cli.app import app

    monkeypatch.setattr(sizing, "count", lambda config: (10**6, 1e9, 1e9))  # its seconds are not what is tried
    (tmp_path / "tracks.csv").write_text("uri,text\n")
    runner = CliRunner()
    for seed in range(FIRST, FIRST + 20):
        rng = random.Random(seed)
        path = tmp_path / "params.yaml"
        path.write_text(random_yaml(rng.choice(SHIPPED), rng), encoding="utf-8")
        commands = (["estimate", "--tracks", "1e6", "--gpus", "1", "--model", str(path)],)
        commands += (["data", "check", str(tmp_path / "tracks.csv"), "--params", str(path)],)
        for command in commands:
            done = runner.invoke(app, command)
            error = done.exception
            assert error is None or isinstance(error, (UserError, SystemExit)), (seed, command, error)
            assert "Traceback" not in done.output
            assert "\n" not in str(error)


@pytest.mark.drill
def test_what_is_accepted_can_be_planned():
    rng, path = random.Random(FIRST), Path("params.yaml")
    planned = 0
    while planned < 10:
        try:
            config = from_mapping(Config, parse_yaml(random_yaml(rng.choice(SHIPPED), rng), str(path)))
        except UserError:
            continue
        planned += 1
        try:
            plan = sizing.plan(config, tracks=10**6, workers=1, accelerator=sizing.ACCELERATORS["h100"])
            assert 0 < plan.hours < float("inf")
        except UserError as error:
            assert "\n" not in str(error)
