"""A small model for tests: the demo's shape, a tiny random text encoder unless the demo's weights are wanted."""

import functools

import torch
import torch.multiprocessing as mp
from transformers import BertConfig

from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig, TextTowerConfig
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor

TINY_TEXT = BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
SMALL_RESNET = AudioTowerConfig(layer_type="basic", embedding_size=16, hidden_sizes=(16, 32, 64, 128), depths=(1,) * 4)
SMALL_AST = AudioTowerConfig(kind="ast", hidden_size=32, num_layers=2, num_heads=2, pooling="cls")


def model_config(audio=SMALL_RESNET, *, window_s=2.0, **text):
    return ModelConfig(
        frontend=FrontendConfig(window_s=window_s),
        audio=audio,
        text=TextTowerConfig(**({"pretrained": "demo-minilm", "max_tokens": 32} | text)),
    )


def tiny_model(audio=SMALL_RESNET, seed=0, **options):
    return MuLanModel.from_config(model_config(audio, **options), seed=seed, text_config=TINY_TEXT)


@functools.cache
def processor(window_s=2.0):
    return MuLanProcessor.from_config(model_config(window_s=window_s))


def inputs(batch=3, seed=0, window_s=2.0):
    generator = torch.Generator().manual_seed(seed)
    waves = 0.1 * torch.randn(batch, round(16_000 * window_s), generator=generator)
    tokens = processor(window_s)(text=["sad piano", "a rainy night in the city", "techno"][:batch])
    return {"waveforms": waves, **tokens}


def run_workers(worker, world, folder):
    """``worker(rank, world, folder)`` in as many processes, forked from one that has imported torch and the model."""
    mp.set_forkserver_preload(["mulan_core.model", "mulan_core.tasks", "transformers.models.bert.modeling_bert"])
    mp.start_processes(worker, args=(world, str(folder)), nprocs=world, start_method="forkserver")
