"""What can be measured: each kind of model opens through one door, small random models of the real classes."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from mulan_core.classifier import AudioClassifier
from mulan_core.embedding import embed_texts, embed_tracks
from mulan_core.errors import UserError
from mulan_core.evaluation.encoders import kind_of, open_encoder, weights_hash
from mulan_core.evaluation.evidence import Evidence
from tests.core.model_fixtures import model_config, processor, tiny_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sad", "piano", "techno", "for", "a", "rainy", "night"]
TEXTS = ["sad piano for a rainy night", "techno", "a techno night"]
BERT = BertConfig(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
RATE = 16_000


def waves(*seconds, seed=0):
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.standard_normal(round(RATE * s))).astype(np.float32) for s in seconds]


def tokenizer(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=64)


@pytest.fixture
def bert(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "bert"
    BertModel(BERT).save_pretrained(folder)
    tokenizer(folder).save_pretrained(folder)
    return folder


@pytest.fixture
def clap(tmp_path):
    torch.manual_seed(1)
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    audio |= {"hidden_size": 64, "projection_dim": 24, "enable_fusion": False, "spec_size": 256}
    config = ClapConfig(
        text_config=text | {"intermediate_size": 32, "projection_dim": 24, "pad_token_id": 0},
        audio_config=audio,
        projection_dim=24,
    )
    folder = tmp_path / "clap"
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(truncation="rand_trunc")
    ClapProcessor(extractor, tokenizer(folder)).save_pretrained(folder)
    return folder


def hidden(folder, text):
    model, words = BertModel.from_pretrained(folder).eval(), tokenizer(folder)
    with torch.inference_mode():
        return model(**words(text, return_tensors="pt"))


def unit(vector):
    vector = np.asarray(vector, dtype=np.float64).ravel()
    return vector / np.linalg.norm(vector)


class TestMuLan:
    @pytest.fixture
    def folder(self, tmp_path):
        tiny_model().save_pretrained(tmp_path)
        processor().save_pretrained(tmp_path)
        return tmp_path

    def test_is_the_model_itself(self, folder):
        encoder, tracks = open_encoder(folder, device="cpu"), waves(1.0, 5.5)
        assert (encoder.kind, encoder.has_audio, encoder.has_text, encoder.embedding_dim) == ("MuLan", True, True, 128)
        model = tiny_model()
        expected = embed_tracks(model, processor(), tracks, batch_size=32)
        assert np.array_equal(encoder.embed_tracks(["a", "b"], tracks, sampling_rate=RATE), expected)
        assert np.array_equal(encoder.embed_texts(TEXTS), embed_texts(model, processor(), TEXTS, batch_size=32))
        assert encoder.unknown_texts(TEXTS) == []

    def test_other_rates_are_resampled(self, folder):
        (wave,) = waves(2.0)
        import soxr

        encoder = open_encoder(folder, device="cpu")
        high = encoder.embed_tracks(["a"], [soxr.resample(wave, RATE, 48_000)], sampling_rate=48_000)
        assert high[0] @ encoder.embed_tracks(["a"], [wave], sampling_rate=RATE)[0] > 0.99

    def test_hash_is_that_of_three_files(self, folder):
        import hashlib

        names = ("config.json", "processor_config.json", "model.safetensors")
        whole = b"".join((folder / name).read_bytes() for name in names)
        assert open_encoder(folder, device="cpu").weights_hash == hashlib.sha256(whole).hexdigest()[:12]

    def test_pooling_does_not_apply(self, folder):
        with pytest.raises(UserError, match="pooling 'cls' applies to a text or audio model"):
            open_encoder(folder, pooling="cls")


class TestText:
    @pytest.mark.parametrize("text", TEXTS)
    def test_poolings(self, bert, text):
        output = hidden(bert, text)
        states = output.last_hidden_state[0]
        expected = {
            "cls": states[0],
            "mean": states.mean(0),
            "max": states.amax(0),
            "pooler": output.pooler_output,
        }
        for pooling, vector in expected.items():
            encoder = open_encoder(bert, pooling=pooling, device="cpu", batch_size=2)
            row = encoder.embed_texts(TEXTS)[TEXTS.index(text)]  # beside others: padding changes nothing
            assert np.allclose(row, unit(vector), atol=1e-6), pooling
            assert encoder.describe()["pooling"] == pooling
        assert np.array_equal(
            open_encoder(bert).embed_texts(TEXTS), open_encoder(bert, pooling="mean").embed_texts(TEXTS)
        )

    def test_has_no_audio(self, bert):
        encoder = open_encoder(bert)
        assert encoder.has_text and not encoder.has_audio
        with pytest.raises(UserError, match="has no audio side"):
            encoder.embed_tracks(["a"], waves(1.0), sampling_rate=RATE)

    def test_pooling_is_part_of_the_identity(self, bert):
        hashes = {weights_hash(bert, pooling=pooling) for pooling in (None, "cls", "mean")}
        assert len(hashes) == 3 and weights_hash(bert, pooling="cls") in hashes

    def test_masked_language_model(self, bert, tmp_path):
        torch.manual_seed(0)
        BertForMaskedLM(BERT).save_pretrained(tmp_path / "mlm")
        tokenizer(tmp_path / "mlm").save_pretrained(tmp_path / "mlm")
        assert open_encoder(tmp_path / "mlm", pooling="cls").embed_texts(TEXTS).shape == (3, 16)
        with pytest.raises(UserError, match=r"lack pooler\.dense"):
            open_encoder(tmp_path / "mlm", pooling="pooler")

    def test_demo_weights(self):
        encoder = open_encoder("demo-minilm", device="cpu")
        assert encoder.describe() | {"pooling": "mean", "max_tokens": 256, "name": "demo-minilm"} == encoder.describe()
        vectors = encoder.embed_texts(["a sad piano piece", "melancholic piano", "hard techno"])
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]

    def test_unknown_pooling(self, bert):
        with pytest.raises(UserError, match="pooling is 'first'; it must be one of cls, mean, max, pooler"):
            open_encoder(bert, pooling="first")

    def test_nothing_of_that_name(self, tmp_path):
        with pytest.raises(UserError, match="there is no such folder"):
            open_encoder(tmp_path / "nowhere")
        with pytest.raises(UserError, match=r"the folder has no config\.json"):
            open_encoder(tmp_path)

    def test_missing_tokenizer(self, bert):
        for file in bert.glob("*token*"):
            file.unlink()
        (bert / "vocab.txt").unlink()
        with pytest.raises(UserError, match="has no vocabulary"):
            open_encoder(bert)


class TestSentenceTransformers:
    @pytest.fixture
    def folder(self, bert):
        """A BERT with max pooling and a dense layer, as that package saves it."""
        types = ["Transformer", "Pooling", "Dense", "Normalize"]
        paths = ["", "1_Pooling", "2_Dense", "3_Normalize"]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(zip(types, paths, strict=True))
        ]
        (bert / "modules.json").write_text(json.dumps(modules))
        (bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5, "do_lower_case": False}))
        for path in paths[1:]:
            (bert / path).mkdir()
        modes = {"cls_token": False, "mean_tokens": False, "max_tokens": True, "mean_sqrt_len_tokens": False}
        pooling = {"word_embedding_dimension": 16} | {f"pooling_mode_{key}": value for key, value in modes.items()}
        (bert / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        activation = "torch.nn.modules.activation.Tanh"
        dense = {"in_features": 16, "out_features": 6, "bias": True, "activation_function": activation}
        (bert / "2_Dense" / "config.json").write_text(json.dumps(dense))
        generator = torch.Generator().manual_seed(3)
        weight, bias = torch.randn(6, 16, generator=generator), torch.randn(6, generator=generator)
        save_file({"linear.weight": weight, "linear.bias": bias}, bert / "2_Dense" / "model.safetensors")
        return bert, weight, bias

    def test_modules_are_followed(self, folder):
        bert, weight, bias = folder
        encoder = open_encoder(bert, device="cpu")
        assert (encoder.pooling, encoder.embedding_dim) == ("max", 6)
        words = tokenizer(bert)
        inputs = words(TEXTS[0], truncation=True, max_length=5, return_tensors="pt")
        with torch.inference_mode():
            states = BertModel.from_pretrained(bert).eval()(**inputs).last_hidden_state[0]
            expected = torch.tanh(states.amax(0) @ weight.T + bias)
        assert np.allclose(encoder.embed_texts([TEXTS[0]])[0], unit(expected), atol=1e-6)

    def test_newer_pooling_file(self, folder):
        (folder[0] / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
        assert open_encoder(folder[0]).pooling == "cls"

    def test_chosen_pooling_wins(self, folder):
        assert open_encoder(folder[0], pooling="cls").pooling == "cls"

    def test_unknown_module(self, folder):
        file = folder[0] / "modules.json"
        file.write_text(file.read_text().replace("models.Dense", "models.CNN"))
        with pytest.raises(UserError, match="module 'CNN', which is not known here"):
            open_encoder(folder[0])

    def test_unknown_pooling(self, folder):
        (folder[0] / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
        with pytest.raises(UserError, match="asks for pooling_mode_weightedmean_tokens"):
            open_encoder(folder[0])

    def test_damaged_dense_layer(self, folder):
        save_file({"linear.weight": torch.zeros(6, 15)}, folder[0] / "2_Dense" / "model.safetensors")
        with pytest.raises(UserError, match="cannot open the dense layer"):
            open_encoder(folder[0])


class TestAudioText:
    def test_is_the_model_itself(self, clap):
        encoder, (wave,) = open_encoder(clap, device="cpu"), waves(3.0)
        assert (encoder.kind, encoder.sample_rate_hz, encoder.window_s) == ("audio-text model", 48_000, 10.0)
        model, extractor = ClapModel.from_pretrained(clap).eval(), ClapFeatureExtractor.from_pretrained(clap)
        with torch.inference_mode():
            inputs = extractor(wave, sampling_rate=48_000, return_tensors="pt")
            audio = model.get_audio_features(**inputs).pooler_output[0]
            text = model.get_text_features(
                **tokenizer(clap)(TEXTS[:1], return_tensors="pt", return_token_type_ids=False)
            )
        assert np.allclose(encoder.embed_tracks(["a"], [wave], sampling_rate=48_000)[0], unit(audio), atol=1e-5)
        assert np.allclose(encoder.embed_texts(TEXTS)[0], unit(text.pooler_output), atol=1e-5)
        assert encoder.embedding_dim == 24

    def test_windows_cover_and_average(self, clap):
        """25 s at 48 kHz are three windows of 10 s; the track is the re-normalised mean of their unit vectors."""
        encoder = open_encoder(clap, device="cpu", batch_size=2)
        rng = np.random.default_rng(5)
        wave = (0.1 * rng.standard_normal(25 * 48_000)).astype(np.float32)
        starts = [0, 360_000, 720_000]
        parts = [encoder.embed_tracks(["w"], [wave[s : s + 480_000]], sampling_rate=48_000)[0] for s in starts]
        whole = encoder.embed_tracks(["a"], [wave], sampling_rate=48_000)[0]
        assert np.allclose(whole, unit(np.mean(parts, axis=0)), atol=1e-5)

    def test_batch_mates_change_nothing(self, clap):
        encoder, tracks = open_encoder(clap, device="cpu", batch_size=4), waves(2.0, 12.0, 1.0)
        together = encoder.embed_tracks(["a", "b", "c"], tracks, sampling_rate=RATE)
        for row, wave in zip(together, tracks, strict=True):
            assert np.allclose(row, encoder.embed_tracks(["x"], [wave], sampling_rate=RATE)[0], atol=1e-5)

    def test_missing_feature_extractor(self, clap):
        for name in ("preprocessor_config.json", "processor_config.json"):
            (clap / name).unlink(missing_ok=True)
        with pytest.raises(UserError, match="has no feature extractor for audio"):
            open_encoder(clap)

    def test_missing_weights(self, clap):
        (clap / "model.safetensors").unlink()
        with pytest.raises(UserError, match="cannot open"):
            open_encoder(clap)


class TestAudio:
    def test_spectrogram_transformer(self, tmp_path):
        torch.manual_seed(2)
        config = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        ASTModel(config).save_pretrained(tmp_path)
        ASTFeatureExtractor().save_pretrained(tmp_path)
        encoder, tracks = open_encoder(tmp_path, device="cpu"), waves(10.0, 4.0)
        vectors = encoder.embed_tracks(["a", "b"], tracks, sampling_rate=RATE)
        assert encoder.describe()["pooling"] == "pooler" and vectors.shape == (2, 16)
        with torch.inference_mode():
            inputs = ASTFeatureExtractor.from_pretrained(tmp_path)(tracks[1], sampling_rate=RATE, return_tensors="pt")
            expected = ASTModel.from_pretrained(tmp_path).eval()(**inputs).pooler_output[0]
        assert np.allclose(vectors[1], unit(expected), atol=1e-5)
        assert encoder.unknown_texts(TEXTS) == TEXTS
        with pytest.raises(UserError, match="has no text side"):
            encoder.embed_texts(TEXTS)

    def test_waveform_model(self, tmp_path):
        torch.manual_seed(2)
        config = Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7
        )
        Wav2Vec2Model(config).save_pretrained(tmp_path)
        Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
        encoder, tracks = open_encoder(tmp_path, device="cpu"), waves(3.0)
        with torch.inference_mode():
            inputs = Wav2Vec2FeatureExtractor()(tracks[0], sampling_rate=RATE, return_tensors="pt")
            expected = Wav2Vec2Model.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state[0].mean(0)
        assert np.allclose(encoder.embed_tracks(["a"], tracks, sampling_rate=RATE)[0], unit(expected), atol=1e-5)
        assert encoder.pooling == "mean"
        with pytest.raises(UserError, match="has no pooler of its own"):
            open_encoder(tmp_path, pooling="pooler")


class TestClassifier:
    @pytest.fixture
    def folder(self, tmp_path):
        model = AudioClassifier.from_config(model_config(window_s=2.0), ["genre:Rock", "mood:Sad", "tag:Sad"])
        model.eval().save_pretrained(tmp_path)
        return tmp_path

    def test_product_is_the_class_score(self, folder):
        encoder, tracks = open_encoder(folder, device="cpu"), waves(2.0, 3.0)
        model = AudioClassifier.from_pretrained(folder)
        with torch.inference_mode():
            first = torch.sigmoid(model(torch.from_numpy(tracks[0])[None]))[0]
            windows = torch.from_numpy(np.stack([tracks[1][:32_000], tracks[1][16_000:48_000]]))
            second = torch.sigmoid(model(windows)).mean(0)
        vectors = encoder.embed_tracks(["a", "b"], tracks, sampling_rate=RATE)
        scores = vectors @ encoder.embed_texts(["Rock", "mood:Sad"]).T
        assert np.allclose(scores, torch.stack([first, second])[:, :2], atol=1e-6)

    def test_knows_its_classes_only(self, folder):
        encoder = open_encoder(folder, device="cpu")
        assert encoder.unknown_texts(["Rock", "genre:Rock", "Sad", "techno"]) == ["Sad", "techno"]  # two are called Sad
        assert encoder.class_prompts("genre:Rock", ("the sound of Rock",)) == ("genre:Rock",)
        assert encoder.class_prompts("genre:Jazz", ("Jazz",)) == ("Jazz",)
        with pytest.raises(UserError, match="without a class 'techno'"):
            encoder.embed_texts(["techno"])


class TestTable:
    def test_npz(self, tmp_path):
        rng = np.random.default_rng(0)
        tracks_ND, texts_TD = 3 * rng.standard_normal((4, 8)), rng.standard_normal((2, 8)).astype(np.float32)
        path = tmp_path / "use.npz"
        np.savez(path, track_ids=list("abcd"), tracks_ND=tracks_ND, texts=TEXTS[:2], texts_TD=texts_TD)
        encoder = open_encoder(path)
        assert encoder.has_audio and encoder.has_text and encoder.embedding_dim == 8
        assert np.allclose(encoder.embed_tracks(["c", "a"], (), sampling_rate=0)[0], unit(tracks_ND[2]), atol=1e-6)
        assert np.allclose(encoder.embed_texts(TEXTS[1:2])[0], unit(texts_TD[1]), atol=1e-6)
        assert encoder.unknown_texts(TEXTS) == TEXTS[2:]
        with pytest.raises(UserError, match="no vector for 1 of 2 tracks, first 'z'"):
            encoder.embed_tracks(["a", "z"], (), sampling_rate=0)

    def test_evidence_is_measured_again(self, tmp_path):
        evidence = Evidence(
            track_ids=("a", "b"),
            tracks_ND=np.eye(2, dtype=np.float32),
            positives_NC=np.zeros((2, 0), bool),
            held_out_N=np.zeros(2, bool),
            probe_NC=np.zeros((2, 0), np.float32),
            texts=("sad", "café"),
            texts_TD=np.array([[3.0, 4.0], [0.0, 1.0]], np.float32),
        )
        evidence.save(tmp_path / "evidence.npz")
        encoder = open_encoder(tmp_path / "evidence.npz")
        assert encoder.embed_texts(["café", "sad"]).tolist() == [[0, 1], [np.float32(0.6), np.float32(0.8)]]
        assert encoder.embed_tracks(["b"], (), sampling_rate=0).tolist() == [[0, 1]]

    def test_npy(self, tmp_path):
        np.save(tmp_path / "v.npy", np.eye(3))
        with pytest.raises(UserError, match=r"exactly one of v\.tracks\.txt or v\.texts\.txt"):
            open_encoder(tmp_path / "v.npy")
        (tmp_path / "v.texts.txt").write_text("\n".join(TEXTS) + "\n")
        encoder = open_encoder(tmp_path / "v.npy")
        assert not encoder.has_audio and np.array_equal(encoder.embed_texts(TEXTS), np.eye(3))
        before = encoder.weights_hash
        (tmp_path / "v.texts.txt").write_text("\n".join(reversed(TEXTS)) + "\n")
        assert weights_hash(tmp_path / "v.npy") != before

    @pytest.mark.parametrize(
        ("arrays", "sentence"),
        [
            ({"track_ids": ["a"]}, "one of track_ids and tracks_ND without the other"),
            (
                {"track_ids": ["a", "b"], "tracks_ND": np.ones((3, 2))},
                r"\(3, 2\); it must be floats, one row for each of 2",
            ),
            ({"track_ids": ["a", "a"], "tracks_ND": np.ones((2, 2))}, "lists one of them twice"),
            ({"track_ids": ["a"], "tracks_ND": np.full((1, 2), np.nan)}, "row 0 of tracks_ND is zero or not finite"),
            ({"track_ids": ["a"], "tracks_ND": np.zeros((1, 2))}, "row 0 of tracks_ND is zero or not finite"),
            ({"other": np.ones(2)}, "holds no vectors"),
            ({"texts": np.array(["a"], dtype=object), "texts_TD": np.ones((1, 2))}, "save names as"),
            (
                {"track_ids": ["a"], "tracks_ND": np.ones((1, 2)), "texts": ["a"], "texts_TD": np.ones((1, 3))},
                "differ in length, 2 and 3",
            ),
        ],
    )
    def test_bad_files(self, tmp_path, arrays, sentence):
        np.savez(tmp_path / "v.npz", **arrays)
        with pytest.raises(UserError, match=sentence):
            open_encoder(tmp_path / "v.npz")

    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match="there is no file of vectors"):
            open_encoder(tmp_path / "v.npz")
        (tmp_path / "v.npz").write_bytes(b"not an archive")
        with pytest.raises(UserError, match="cannot read the vectors"):
            open_encoder(tmp_path / "v.npz")


def test_kinds(bert, clap, tmp_path):
    assert (kind_of(bert), kind_of(clap), kind_of("demo-minilm"), kind_of("x.npz")) == (
        "text",
        "audio-text",
        "text",
        "vectors",
    )
