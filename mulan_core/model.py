"""MuLanModel: two towers, one space, one temperature; saved and loaded in transformers' manner.

``config.json`` holds everything needed to rebuild the towers, so a saved folder opens offline, without the
pretrained weights that it once started from.

Shape letters: B examples, N windows, S samples, L tokens, D embedding size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec

from mulan_core.audio.augment import apply_masks
from mulan_core.audio.frontend import LogMel
from mulan_core.config import ModelConfig, from_mapping, to_mapping
from mulan_core.errors import UserError
from mulan_core.towers.audio import audio_config, build_audio_tower, warm_start_audio
from mulan_core.towers.pretrained import load_error
from mulan_core.towers.text import TextTower, warm_start_text
from mulan_core.towers.warm_start import LOAD_ERRORS, load_config, quiet, refuse_incomplete

WINDOWS_AT_ONCE = 32
"""Windows of whole tracks that a tower encodes at once, so that a long track needs no more memory than a short one."""


class MuLanConfig(PreTrainedConfig):
    """What ``config.json`` holds: the ``model`` section of the YAML file and both encoders' configurations."""

    model_type = "mulan"
    sub_configs_defaults = {  # noqa: RUF012
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    settings: dict | None = None
    audio_config: Any = None
    text_config: Any = None

    @property
    def model(self) -> ModelConfig:
        """The ``model`` section, checked."""
        return from_mapping(ModelConfig, self.settings or {}, "settings")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, which would take any model's ``config.json`` with no more than a log line.

        Raises:
            UserError: if it is another model's.
        """
        model_type = config_dict.get("model_type")
        if not config_dict:
            raise OSError("there is no config.json")  # transformers hands out an empty one for a folder without
        if model_type != cls.model_type:
            raise UserError(f"its config.json is that of a {model_type!r} model, not of a {cls.model_type!r} one")
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_model_config(cls, config: ModelConfig, *, text_config: PreTrainedConfig | None = None) -> MuLanConfig:
        """Derive the encoders' configurations; reads the pretrained text encoder's, not its weights.

        Args:
            config: the ``model`` section.
            text_config: the text encoder's configuration, instead of that of ``text.pretrained``. With
                neither, BERT-base.

        Raises:
            UserError: if ``text.pretrained`` does not open or cannot take ``text.max_tokens``.
        """
        if text_config is None:
            text_config = BertConfig() if config.text.pretrained is None else load_config(config.text.pretrained)
        longest = getattr(text_config, "max_position_embeddings", config.text.max_tokens)
        if config.text.max_tokens > longest:
            raise UserError(f"text.max_tokens is {config.text.max_tokens}; the text encoder takes at most {longest}")
        return cls(settings=to_mapping(config), audio_config=audio_config(config), text_config=text_config)


class MuLanModel(PreTrainedModel):
    """Waveforms and texts to unit vectors of one space (Huang et al., 2022, sections 3.1 and 3.2)."""

    config: MuLanConfig
    config_class = MuLanConfig
    base_model_prefix = "mulan"
    main_input_name = "waveforms"
    _supports_sdpa = True

    def __init__(self, config: MuLanConfig) -> None:
        super().__init__(config)
        model = config.model
        self.tau_min, self._tau_init = model.tau_min, model.tau_init
        self.frontend = LogMel(model.frontend)
        self.audio_tower = build_audio_tower(config.audio_config, model.embedding_dim, pooling=model.audio.pooling)
        self.text_tower = TextTower(
            config.text_config,
            model.embedding_dim,
            pooling=model.text.pooling,
            trainable_layers=model.text.trainable_layers,
        )
        self.log_tau = nn.Parameter(torch.tensor(math.log(model.tau_init)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start what is not part of an encoder: projections that keep the variance, the first temperature."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, MuLanModel):
            init.constant_(module.log_tau, math.log(module._tau_init))

    @classmethod
    def from_config(
        cls, config: ModelConfig, *, seed: int = 0, text_config: PreTrainedConfig | None = None
    ) -> MuLanModel:
        """A new model: random where nothing pretrained is named, warm-started elsewhere.

        The global random state is left as it was; the same seed gives the same weights.

        Args:
            config: the ``model`` section of the configuration.
            seed: of the random weights.
            text_config: see ``MuLanConfig.from_model_config``; with it the text encoder starts random.

        Raises:
            UserError: if a ``pretrained`` name does not open or does not fit the architecture.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(MuLanConfig.from_model_config(config, text_config=text_config))
            if config.audio.pretrained is not None:
                warm_start_audio(model.audio_tower, config.audio.pretrained)
            if config.text.pretrained is not None and text_config is None:
                warm_start_text(model.text_tower, config.text.pretrained)
        return model.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Open a saved model, a folder or a name on the hub, in evaluation mode; as in transformers.

        Raises:
            UserError: if it does not open, is another model, or its weights and its ``config.json`` disagree.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        name = str(pretrained_model_name_or_path)
        options = {"output_loading_info": True, "ignore_mismatched_sizes": True} | kwargs
        loaded: Any
        try:
            with quiet():
                loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **options)
        except UserError as error:
            raise UserError(f"cannot open {name!r}: {error}") from error
        except LOAD_ERRORS as error:
            raise load_error(name, error) from error
        model, info = loaded
        refuse_incomplete(name, info)
        if left := sorted(info["unexpected_keys"]):
            raise UserError(
                f"{name!r} holds {len(left)} weights that its config.json has no place for, such as {left[0]}: "
                "they are of another architecture"
            )
        model.text_tower.freeze()
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``; as in transformers."""
        with quiet():
            super().save_pretrained(save_directory, *args, **kwargs)

    @property
    def tau(self) -> Tensor:
        """Temperature, float32 scalar in [tau_min, 1], with gradient."""
        # Clamp the logarithm, not its exponential: exp(log(tau_min)) may round below tau_min, where the
        # gradient of the clamp is 0, and tau could never leave its floor.
        return self.log_tau.float().clamp(math.log(self.tau_min), 0.0).exp()

    @torch.no_grad()
    def clamp_tau_(self) -> None:
        """Bring the parameter back into its range; call it after each optimiser step."""
        self.log_tau.clamp_(math.log(self.tau_min), 0.0)

    def get_audio_features(
        self, waveforms: Tensor, num_windows: Tensor | None = None, *, spec_masks: Tensor | None = None
    ) -> Tensor:
        """Unit vectors of audio, float32 (B, D): of whole items, or of single windows as in training.

        An item's vector is the re-normalised mean of the unit vectors of its windows (section 4.2 averages
        over the segments of a clip).

        Args:
            waveforms: float32 (N, S), mono in [-1, 1] at the front-end's sample rate, S exactly one window;
                the processor makes them.
            num_windows: int64 (B,), how many of the rows belong to each item, in order; None makes each row
                an item of its own, B = N.
            spec_masks: int64 (N, 4) of ``audio.augment.draw_masks``, for training; not with ``num_windows``.

        Raises:
            ValueError: if S is not one window, or ``num_windows`` does not add up to N.
        """
        if num_windows is None:
            return self._encode_windows(waveforms, spec_masks)
        vectors = [self._encode_windows(part, None) for part in waveforms.split(WINDOWS_AT_ONCE)]
        return mean_of_windows(torch.cat(vectors), num_windows)

    def _encode_windows(self, waveforms: Tensor, spec_masks: Tensor | None) -> Tensor:
        if waveforms.ndim != 2 or waveforms.shape[1] != self.frontend.window_samples:
            raise ValueError(
                f"expected waveforms of shape (N, {self.frontend.window_samples}), one window each, "
                f"got {tuple(waveforms.shape)}: the processor cuts and pads them"
            )
        features_BFT = self.frontend(waveforms)
        if spec_masks is not None:
            features_BFT = apply_masks(features_BFT, spec_masks)
        return functional.normalize(self.audio_tower(features_BFT).float(), dim=-1)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors of texts, float32 (B, D); ids and mask int64 (B, L) from the processor."""
        return functional.normalize(self.text_tower(input_ids, attention_mask).float(), dim=-1)

    def forward(
        self,
        waveforms: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        num_windows: Tensor | None = None,
        *,
        spec_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both sides of B pairs: ``get_audio_features`` and ``get_text_features``."""
        audio_BD = self.get_audio_features(waveforms, num_windows, spec_masks=spec_masks)
        return audio_BD, self.get_text_features(input_ids, attention_mask)


def mean_of_windows(vectors_ND: Tensor, num_windows_B: Tensor) -> Tensor:
    """Re-normalised mean over the windows of each item: (N, D) to (B, D), in the order of the rows.

    Raises:
        ValueError: if an item has no window, or the numbers do not add up to N.
    """
    counts = num_windows_B.tolist()
    if sum(counts) != len(vectors_ND) or min(counts, default=1) < 1:
        raise ValueError(f"num_windows {counts} must be at least 1 each and add up to {len(vectors_ND)} windows")
    # Item by item, so that no sum depends on what else is in the batch.
    means = [part.mean(dim=0) for part in vectors_ND.split(counts)]
    return functional.normalize(torch.stack(means), dim=-1)


AutoConfig.register(MuLanConfig.model_type, MuLanConfig)
AutoModel.register(MuLanConfig, MuLanModel)
