"""The classifier of LF text: it learns, is the same again, is calibrated, and judges in the rule's place."""

import json
import random

import numpy as np
import pytest
import torch
from model_fixtures import TINY_TEXT
from text_fixtures import JUNK, LABELS, MUSIC, config_of, tiny_bert, tiny_classifier
from transformers import BertModel

from mulan_core.config import TextConfig
from mulan_core.errors import UserError
from mulan_core.text import fingerprint
from mulan_core.text.classifier import TextClassifier
from mulan_core.text.classifier_training import (
    choose_threshold,
    fit_temperature,
    log_loss,
    precision_recall,
    train_classifier,
)
from mulan_core.text.judging import judge_tracks

RULES = TextConfig()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifier")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("start"), folder)


def test_it_learns_the_labels_and_says_how_well(trained, folder):
    classifier, report = trained
    assert classifier.describes(MUSIC + JUNK) == [True] * len(MUSIC) + [False] * len(JUNK)
    held_out = report["held_out"]
    assert held_out["lines"] == 20 and held_out["descriptions"] == 10
    assert held_out["precision"] >= 0.95 and held_out["recall"] == 1.0
    assert report["lines"] == len(LABELS)
    written = json.loads((folder / "classifier.json").read_text())
    assert written["threshold"] == classifier.threshold and written["curve"] == report["curve"]


def test_a_saved_folder_opens_to_the_same_probabilities(trained, folder):
    assert {"config.json", "model.safetensors", "classifier.json"} <= {path.name for path in folder.iterdir()}
    opened = TextClassifier.from_pretrained(folder)
    assert opened.network.config.id2label == {0: "other", 1: "description"}
    np.testing.assert_array_equal(opened.predict(MUSIC + JUNK), trained[0].predict(MUSIC + JUNK))


def test_a_probability_does_not_depend_on_batch_mates(trained):
    texts = ["slow piano", "a car " * 20, *MUSIC[:5], "shoes", *JUNK[:5]]
    alone = np.concatenate([trained[0].predict([text]) for text in texts])
    np.testing.assert_allclose(trained[0].predict(texts), alone, atol=1e-6)
    np.testing.assert_allclose(trained[0].predict(texts[::-1], batch_size=3)[::-1], alone, atol=1e-6)
    assert trained[0].predict([]).shape == (0,)


def test_the_seed_decides_the_weights(bert):
    def weights(seed):
        torch.rand(random.Random().randrange(5))  # what was drawn before must not matter
        network = train_classifier(LABELS, config_of(bert, epochs=1, seed=seed, precision=0.1))[0].network
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_training_stops_when_the_held_out_loss_rises_and_keeps_the_best_pass(bert):
    draw = random.Random(0)
    noise = {line: draw.random() < 0.5 for line in LABELS}  # nothing but memorising lowers the training loss
    classifier, report = train_classifier(noise, config_of(bert, epochs=40, precision=0.1))
    losses = [one["held_out_loss"] for one in report["passes"]]
    assert len(losses) < 40
    assert losses[-1] > min(losses)
    assert report["held_out"]["loss"] == pytest.approx(min(losses), abs=1e-6)
    assert not classifier.network.training


def test_lines_that_differ_in_dress_only_count_once(bert):
    doubled = LABELS | {f"  {line.upper()}!": label for line, label in LABELS.items()}
    assert train_classifier(doubled, config_of(bert, epochs=1, precision=0.1))[1]["lines"] == len(LABELS)


def test_the_threshold_has_the_highest_recall_that_is_precise_enough():
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    wanted = np.array([True, False, True, True, True, False, False])
    curve = precision_recall(probabilities, wanted)
    assert [round(point["precision"], 2) for point in curve] == [1.0, 0.5, 0.67, 0.75, 0.8, 0.67, 0.57]
    chosen = choose_threshold(curve, 0.75)  # 0.9 is precise enough as well, but loses three of four
    assert chosen == {"threshold": 0.45, "precision": 0.8, "recall": 1.0}
    assert choose_threshold(curve, 0.9) == {"threshold": pytest.approx(0.85), "precision": 1.0, "recall": 0.25}
    ties = precision_recall(np.array([0.5, 0.5, 0.2]), np.array([True, False, True]))
    assert [(point["threshold"], point["precision"]) for point in ties] == [(0.5, 0.5), (0.2, 2 / 3)]
    apart = precision_recall(np.array([0.9, 0.8, 0.3, 0.2, 0.1]), np.array([True, True, False, False, False]))
    assert choose_threshold(apart, 0.5) == {"threshold": pytest.approx(0.55), "precision": 1.0, "recall": 1.0}
    with pytest.raises(UserError, match=r"no threshold reaches precision 0.95 .* label more lines"):
        choose_threshold(ties, 0.95)


def test_the_temperature_undoes_false_confidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 4000)
    wanted = rng.random(4000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(3 * logits, wanted) == pytest.approx(3, rel=0.1)
    assert log_loss(logits, wanted) < log_loss(3 * logits, wanted)
    assert log_loss(np.zeros(4), wanted[:4]) == pytest.approx(np.log(2))


def test_a_part_without_a_mistake_makes_no_probability_certain():
    logits, wanted = np.r_[np.full(20, 3.0), np.full(20, -3.0)], np.r_[np.ones(20), np.zeros(20)].astype(bool)
    temperature = fit_temperature(logits, wanted)
    assert 1 / (1 + np.exp(-3 / temperature)) == pytest.approx(21 / 22, abs=0.01)


def test_too_few_lines_are_refused(bert):
    few = dict.fromkeys(MUSIC, True) | dict.fromkeys(JUNK[:3], False)
    with pytest.raises(UserError, match="48 lines labelled as descriptions and 3 as others; label at least 20 of each"):
        train_classifier(few, config_of(bert))


def test_folders_that_hold_no_classifier_are_told(trained, folder, tmp_path):
    with pytest.raises(UserError, match="holds no text classifier"):
        TextClassifier.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        train_classifier(LABELS, config_of("/no/such/folder"))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in folder.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes()[: 2000 if path.suffix == ".safetensors" else None])
    with pytest.raises(UserError, match="cannot open"):
        TextClassifier.from_pretrained(damaged)


def test_only_the_head_may_be_new(bert, tmp_path):
    folder = tiny_bert(tmp_path)
    shallow = BertModel(TINY_TEXT)
    del shallow.encoder.layer[1:]
    shallow.save_pretrained(folder)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lack bert\.encoder\.layer"):
        train_classifier(LABELS, config_of(folder))


def track(*texts, **names):
    return {"texts": [{"source": source, "text": text} for source, text in texts], **names}


def test_it_judges_in_the_rules_place_after_the_rules_of_form(trained):
    texts = [
        ("lf", MUSIC[0]),
        ("lf", JUNK[0]),
        ("lf", f"{MUSIC[1]} https://x.com"),
        ("lf", f"{MUSIC[1]}, subscribe"),
        ("lf", "piano"),
        ("lf", MUSIC[0].upper()),
        ("sf", JUNK[0]),
    ]
    judged = judge_tracks([track(*texts)], RULES, trained[0])[0]
    reasons = [None, "not_about_music", "url", "boilerplate", "too_short", "duplicate", None]
    assert [text["drop"] for text in judged] == reasons
    strict = judge_tracks([track(*texts)], TextConfig(lf_threshold=1.0), trained[0])[0]
    assert strict[0]["drop"] == "not_about_music"


def test_what_becomes_of_a_track_does_not_depend_on_the_others(trained):
    tracks = [track(("lf", text), ("sf", "Low Tide"), title="Low Tide") for text in (*MUSIC[:6], *JUNK[:6])]
    together = judge_tracks(tracks, RULES, trained[0])
    assert together == [judge_tracks([one], RULES, trained[0])[0] for one in tracks]
    assert [texts[1]["drop"] for texts in together] == ["name"] * 12
    assert judge_tracks([track()], RULES, trained[0]) == [[]]


def test_names_are_title_artist_and_album_where_they_are_text():
    texts = [("sf", "Low Tide"), ("sf", "The Foxes"), ("sf", "Harbour Tapes")]
    judged = judge_tracks([track(*texts, title=None, artist="The Foxes", album=["Harbour Tapes"])], RULES)[0]
    assert [text["drop"] for text in judged] == [None, "name", None]


def test_the_fingerprint_changes_with_rules_and_weights(folder, tmp_path, trained, monkeypatch):
    before = fingerprint.fingerprint(folder)
    assert fingerprint.fingerprint(None) == {"rules": before["rules"], "classifier": None}
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint.fingerprint(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint.fingerprint(copy)["classifier"] != before["classifier"]
    monkeypatch.setattr(fingerprint, "RULES", ("filters.py",))
    assert fingerprint.fingerprint(None)["rules"] != before["rules"]
    with pytest.raises(UserError, match="holds no text classifier"):
        fingerprint.fingerprint(tmp_path)
