"""The evaluation suite on a made-up catalogue whose texts and tracks share a space."""

import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulan_core.config import EvaluateConfig, GateConfig
from mulan_core.errors import UserError
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metrics import LOWER_IS_BETTER
from mulan_core.evaluation.report import write_report
from mulan_core.evaluation.sets.content import Content, playlist_content, text_queries
from mulan_core.evaluation.suite import evaluate as evaluate_content
from mulan_core.gate import decide_promotion

GENRES = tuple(f"genre:Style{i}" for i in range(10))
INSTRUMENTS = tuple(f"instrument:Tool{i}" for i in range(22))
MOODS = tuple(f"mood:Mood{i}" for i in range(6))
RANKED = ("auc", "map", "recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
CONFIG = EvaluateConfig(bootstrap=50, probe_c=(0.1,))


def word_vector(word: str) -> np.ndarray:
    seed = int(hashlib.md5(word.lower().encode(), usedforsecurity=False).hexdigest()[:8], 16)
    return np.random.default_rng(seed).standard_normal(128)


def embed_texts(texts: list[str]) -> np.ndarray:
    vectors = np.stack([sum((word_vector(word) for word in text.split()), np.zeros(128)) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def catalogue(noise: float = 4.0, tracks: int = 600) -> dict[str, Any]:
    """Arguments of ``evaluate``: tracks are the sum of their labels' vectors and noise."""
    rng = np.random.default_rng(0)
    labels: dict[str, list[str]] = {}
    splits: dict[str, tuple[list[str], list[np.ndarray]]] = {"train": ([], []), "valid": ([], []), "test": ([], [])}
    for i in range(tracks):
        track_id = f"t{i:03d}"
        chosen = [GENRES[rng.integers(10)], MOODS[rng.integers(6)], *rng.choice(INSTRUMENTS, 3, replace=False)]
        labels[track_id] = [str(label) for label in chosen]
        vector = sum((word_vector(label.split(":")[1]) for label in labels[track_id]), np.zeros(128))
        ids, vectors = splits["train" if i % 10 < 6 else "valid" if i % 10 < 7 else "test"]
        ids.append(track_id)
        vectors.append(vector + noise * rng.standard_normal(128))
    audio = {}
    for split, (ids, vectors) in splits.items():
        stacked = np.stack(vectors)
        audio[split] = (ids, (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32))
    test_ids = audio["test"][0]
    playlists = []
    for p in range(25):
        genre, mood = GENRES[p % 10], MOODS[p % 6]
        playlists.append(
            {
                "playlist_id": f"p{p}",
                "title": f"{mood[5:]} {genre[6:]}",
                "description": f"the best {genre[6:]} when you are {mood[5:]}",
                "track_ids": [t for t in test_ids if genre in labels[t] or mood in labels[t]][:12],
                "split": "test",
            }
        )
    return {"audio": audio, "labels": labels, "playlists": playlists, "embed_texts": embed_texts}


def content_of(
    *,
    audio: dict[str, Any],
    labels: dict[str, list[str]],
    playlists: list[dict[str, Any]],
    own_texts: dict[str, str] | None = None,
    held_out: Any = (),
    classes: Any = None,
) -> Content:
    test_ids = audio.get("test", ([],))[0]
    queries, pairs, notes = playlist_content(playlists, test_ids)
    if own_texts:
        queries["text"] = text_queries({track_id: [text] for track_id, text in own_texts.items()})
    return Content(
        tracks={split: ids for split, (ids, _) in audio.items()} or {"train": ["t"]},
        labels=labels,
        classes=classes,
        queries=queries,
        pairs={"playlist": pairs},
        held_out=held_out,
        notes=notes,
        counts={"playlists": len({query.id for of in queries.values() for query in of})},
    )


def evaluate_both(*, embed_texts: Any, config: EvaluateConfig, **arguments: Any) -> tuple[dict[str, Any], Evidence]:
    passed_on = {name: arguments.pop(name) for name in ("set_info", "suites", "unknown_texts") if name in arguments}
    content = content_of(**arguments)
    return evaluate_content(content, arguments["audio"], embed_texts=embed_texts, config=config, **passed_on)


def evaluate(**arguments: Any) -> dict[str, Any]:
    return evaluate_both(**arguments)[0]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    arguments = catalogue()
    held_out = set(arguments["audio"]["test"][0][::4])
    return evaluate(**arguments, held_out=held_out, config=CONFIG, set_info={"name": "made up"})


def test_the_report_has_the_agreed_shape_and_every_metric(report: dict[str, Any]) -> None:
    assert list(report) == ["set", "metrics", "intervals", "chance", "per_class", "per_query", "notes", "slices"]
    expected = {
        f"{part}/{facet}/{metric}"
        for part in ("tagging", "tagging/held_out", "probe")
        for facet in ("genre", "instrument", "mood")
        for metric in ("roc_auc", "pr_auc")
    } | {f"retrieval/{by}/{metric}" for by in ("title", "description") for metric in RANKED}
    assert set(report["metrics"]) == expected | {"triplets/playlist/accuracy"}
    assert set(report["chance"]) == set(report["intervals"]) == set(report["metrics"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for name, (low, high) in report["intervals"].items():
        assert low <= report["metrics"][name] <= high, name


def test_a_good_model_beats_chance_and_a_random_one_does_not(report: dict[str, Any]) -> None:
    for name, value in report["metrics"].items():
        better = value < report["chance"][name] if name.endswith(LOWER_IS_BETTER) else value > report["chance"][name]
        assert better, name
    arguments = catalogue()
    rng = np.random.default_rng(3)
    arguments["audio"] = {s: (ids, rng.standard_normal(v.shape)) for s, (ids, v) in arguments["audio"].items()}
    random = evaluate(**arguments, config=CONFIG)
    for name in ("tagging/genre/roc_auc", "probe/instrument/roc_auc", "retrieval/title/auc"):
        assert abs(random["metrics"][name] - 0.5) < 0.08


def test_counts_and_tables(report: dict[str, Any]) -> None:
    counts = report["set"]["counts"]
    assert counts["test_tracks"] == 180
    assert counts["held_out_tracks"] == 45
    assert counts["classes"] == 38
    assert counts["title_queries"] == 25
    assert counts["triplets"] == 25 * 24
    assert {row["tracks"] for row in report["per_class"]} == {"test", "held_out"}
    mean = np.mean([r["roc_auc"] for r in report["per_class"] if r["facet"] == "genre" and r["tracks"] == "test"])
    assert report["metrics"]["tagging/genre/roc_auc"] == pytest.approx(mean)
    query = report["per_query"][0]
    assert query["query_set"] == "title"
    assert len(query["top"]) == 5
    titles = [row["ap"] for row in report["per_query"] if row["query_set"] == "title"]
    assert report["metrics"]["retrieval/title/map"] == pytest.approx(np.mean(titles))


def test_it_repeats_and_is_quick() -> None:
    arguments = catalogue()
    started = time.process_time()
    first = evaluate(**arguments, config=EvaluateConfig())
    assert time.process_time() - started < 10
    assert "probe/genre/roc_auc" in first["metrics"]
    assert evaluate(**arguments, config=CONFIG) == evaluate(**arguments, config=CONFIG)


def test_the_set_hash_follows_what_makes_reports_comparable(report: dict[str, Any]) -> None:
    arguments = catalogue()
    audio = {"test": arguments["audio"]["test"]}

    def digest(**changes: Any) -> str:
        merged = arguments | {"audio": audio, "config": EvaluateConfig(bootstrap=0)} | changes
        return str(evaluate(**merged)["set"]["hash"])

    base = digest()
    assert digest(set_info={"model": "another"}) == base
    assert digest(audio=arguments["audio"], config=CONFIG) == base  # training data may grow
    reversed_test = (audio["test"][0][::-1], audio["test"][1][::-1])
    assert digest(audio=audio | {"test": reversed_test}) == base
    fewer = (audio["test"][0][1:], audio["test"][1][1:])
    assert digest(audio=audio | {"test": fewer}) != base
    assert digest(playlists=arguments["playlists"][1:]) != base
    assert digest(held_out={audio["test"][0][0]}) != base
    assert digest(config=EvaluateConfig(bootstrap=0, templates=("music: {}",))) != base
    relabelled = arguments["labels"] | {audio["test"][0][0]: ["genre:Style1"]}
    assert digest(labels=relabelled) != base


def test_without_playlists_labels_or_training_tracks_the_rest_is_measured() -> None:
    arguments = catalogue()
    bare = evaluate(**arguments | {"playlists": []}, config=CONFIG)
    assert not any(name.startswith(("retrieval", "triplets")) for name in bare["metrics"])
    assert sum("not measured" in note for note in bare["notes"]) == 3
    unlabelled = evaluate(**arguments | {"labels": {}}, config=CONFIG)
    assert all(name.startswith(("retrieval", "triplets")) for name in unlabelled["metrics"])
    test_only = evaluate(**arguments | {"audio": {"test": arguments["audio"]["test"]}}, config=CONFIG)
    assert not any(name.startswith("probe") for name in test_only["metrics"])
    assert any("probe" in note for note in test_only["notes"])
    no_valid = {split: part for split, part in arguments["audio"].items() if split != "valid"}
    assert any(
        "No validation labels" in note for note in evaluate(**arguments | {"audio": no_valid}, config=CONFIG)["notes"]
    )
    for partial in (bare, unlabelled, test_only):
        assert all(math.isfinite(value) for value in partial["metrics"].values())
        assert set(partial["chance"]) == set(partial["metrics"])


def test_playlists_are_cut_to_the_test_split_and_texts_may_be_missing() -> None:
    arguments = catalogue()
    playlists = [dict(row) for row in arguments["playlists"]]
    playlists[0]["split"] = "train"
    playlists[1]["track_ids"] = ["elsewhere"]
    playlists[2]["description"] = None
    playlists[3]["track_ids"] = [*playlists[3]["track_ids"], "elsewhere", playlists[3]["track_ids"][0]]
    changed = evaluate(**arguments | {"playlists": playlists}, config=CONFIG)
    assert changed["set"]["counts"]["playlists"] == 23
    assert changed["set"]["counts"]["description_queries"] == 22
    assert any("1 playlists left out" in note for note in changed["notes"])
    row = next(row for row in changed["per_query"] if row["playlist_id"] == "p3")
    assert row["relevant"] == len(arguments["playlists"][3]["track_ids"])


def test_texts_are_embedded_once_and_distinct() -> None:
    arguments = catalogue()
    calls: list[list[str]] = []

    def counting(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        return embed_texts(texts)

    evaluate(
        **arguments | {"embed_texts": counting},
        config=EvaluateConfig(bootstrap=0, probe_c=(0.1,), templates=("{} music",)),
    )
    assert len(calls) == 1
    assert len(calls[0]) == len(set(calls[0]))
    assert "Style1 music" in calls[0]


def test_unusable_vectors_are_refused() -> None:
    arguments = catalogue()
    ids, vectors = arguments["audio"]["test"]
    broken = vectors.copy()
    broken[4, 7] = np.nan
    with pytest.raises(UserError, match=f"1 test tracks, first {ids[4]}"):
        evaluate(**arguments | {"audio": arguments["audio"] | {"test": (ids, broken)}}, config=CONFIG)
    with pytest.raises(UserError, match="no tracks"):
        evaluate(**arguments | {"audio": {}}, config=CONFIG)
    with pytest.raises(UserError, match="text vectors"):
        evaluate(**arguments | {"embed_texts": lambda texts: np.full((len(texts), 128), np.nan)}, config=CONFIG)
    with pytest.raises(UserError, match="5 vectors"):
        evaluate(**arguments | {"audio": {"test": (ids, vectors[:5])}}, config=CONFIG)


def test_the_gate_reads_the_suite_s_reports(report: dict[str, Any]) -> None:
    floors = {name: 120.0 if name.endswith(LOWER_IS_BETTER) else 0.0 for name in report["metrics"]}
    rules = GateConfig(floors=floors, compare=tuple(floors), paired=False, min_items=20, slice_margin=0.0)
    assert decide_promotion(report, report, rules).promote
    assert decide_promotion(report, None, rules).promote
    decision = decide_promotion(report, None, GateConfig(floors=rules.floors, min_items=26))
    assert {reason.split(" ")[1] for reason in decision.reasons} == {
        name for name in report["metrics"] if name.startswith(("retrieval", "triplets"))
    }


def test_a_track_is_found_by_its_own_text_where_there_is_nothing_else():
    arguments = catalogue(noise=1.0)
    bare = {"audio": arguments["audio"], "embed_texts": embed_texts, "labels": {}, "playlists": []}
    own_texts = {
        t: " ".join(label.split(":")[1] for label in arguments["labels"][t]) for t in arguments["audio"]["test"][0]
    }
    report = evaluate(**bare, own_texts=own_texts, config=CONFIG)
    assert report["metrics"].keys() == {f"retrieval/text/{name}" for name in RANKED}
    assert report["metrics"]["retrieval/text/auc"] > 0.9
    assert report["set"]["counts"]["text_queries"] == len(set(own_texts.values()))
    rules = GateConfig(floors={"retrieval/text/auc": 0.9})
    assert decide_promotion(report, None, rules).promote
    with pytest.raises(UserError, match="nothing can be measured on this set"):
        evaluate(**bare, config=CONFIG)


def test_a_model_without_one_side_is_measured_on_the_other(tmp_path: Path) -> None:
    arguments = catalogue()
    content = content_of(**{name: arguments[name] for name in ("audio", "labels", "playlists")})
    texts_alone, evidence = evaluate_content(content, {}, embed_texts=embed_texts, config=CONFIG)
    assert list(texts_alone["metrics"]) == ["triplets/playlist/accuracy"]
    assert "The model has no audio side: tagging, probe, retrieval not measured." in texts_alone["notes"]
    assert evidence.tracks_ND.shape == (0, 128) and len(evidence.pairs_of("playlist")[0]) == 25
    audio_alone, evidence = evaluate_content(content, arguments["audio"], embed_texts=None, config=CONFIG)
    assert {name.split("/")[0] for name in audio_alone["metrics"]} == {"probe"}
    assert "The model has no text side: tagging, retrieval, triplets not measured." in audio_alone["notes"]
    full = evaluate(**arguments, config=CONFIG)
    assert audio_alone["metrics"].items() <= full["metrics"].items()
    assert {row["probe_roc_auc"] for row in audio_alone["per_class"]} == {
        row["probe_roc_auc"] for row in full["per_class"]
    }
    assert not any("roc_auc" in row for row in audio_alone["per_class"])
    assert np.isnan(evidence.class_scores()).all() and evidence.class_scores().shape == (180, 38)
    assert json.loads(json.dumps(audio_alone, allow_nan=False)) == audio_alone
    named = audio_alone | {"set": {"name": "x", "title": "X"} | audio_alone["set"]}
    assert tmp_path / "report.html" in write_report(named, evidence, tmp_path)
    assert "| genre | Style0 | " in (tmp_path / "report.md").read_text()
    with pytest.raises(UserError, match=r"no audio side.*no text side"):
        evaluate_content(content, {}, embed_texts=None, config=CONFIG)


def test_the_suites_that_are_asked_for_are_measured_and_no_other_text_is_embedded() -> None:
    arguments = catalogue()
    full = evaluate(**arguments, config=CONFIG)
    embedded: list[str] = []

    def noting(texts: list[str]) -> np.ndarray:
        embedded.extend(texts)
        return embed_texts(texts)

    for suite, number in {"tagging": 38, "probe": 0, "retrieval": 50, "triplets": 50}.items():
        embedded.clear()
        part = evaluate(**arguments | {"embed_texts": noting}, config=CONFIG, suites=[suite])
        assert part["metrics"] == {name: v for name, v in full["metrics"].items() if name.startswith(suite)}
        assert part["set"]["suites"] == [suite] and part["set"]["hash"] == full["set"]["hash"]
        assert len(embedded) == number
    with pytest.raises(UserError, match="there is no suite 'probes'"):
        evaluate(**arguments, config=CONFIG, suites=["probes"])


def test_a_class_list_decides_what_is_tagged_and_which_classes_are_named_as_skipped() -> None:
    arguments = catalogue()
    classes = ("genre:Style3", "genre:Nowhere", "mood:Mood1")
    report = evaluate(**arguments, classes=classes, config=CONFIG)
    assert [row["label"] for row in report["per_class"]] == ["genre:Style3", "mood:Mood1"]
    assert report["set"]["skipped_classes"] == {"genre:Nowhere": "no track has it"}
    assert report["set"]["counts"]["skipped_classes"] == 1
    assert "Classes skipped, no track has it: genre:Nowhere." in report["notes"]
    for suite in ("tagging", "probe"):  # one task, though of two facets
        means = [report["metrics"][f"{suite}/{facet}/roc_auc"] for facet in ("genre", "mood")]
        assert report["metrics"][f"{suite}/all/roc_auc"] == pytest.approx(np.mean(means))
    full = {row["label"]: row for row in evaluate(**arguments, config=CONFIG)["per_class"]}
    assert report["per_class"][0]["roc_auc"] == full["genre:Style3"]["roc_auc"]


def test_texts_that_a_table_of_vectors_lacks_are_left_out_and_counted() -> None:
    arguments = catalogue()
    lacking = {"Style1", "Tool2", arguments["playlists"][0]["title"]}

    def known_alone(texts: list[str]) -> np.ndarray:
        assert lacking.isdisjoint(texts)
        return embed_texts(texts)

    report, evidence = evaluate_both(
        **arguments | {"embed_texts": known_alone},
        config=CONFIG,
        unknown_texts=lambda texts: [text for text in texts if text in lacking],
    )
    assert report["set"]["counts"]["classes"] == 36
    assert report["set"]["counts"]["title_queries"] == 24
    assert report["set"]["counts"]["triplets"] == 24 * 23
    assert "3 texts have no vector; the classes, queries and pairs that need them are left out." in report["notes"]
    unmeasured = [evidence.classes.index(label) for label in ("genre:Style1", "instrument:Tool2")]
    assert np.isnan(evidence.class_scores()[:, unmeasured]).all() and evidence.class_text_C[unmeasured[0]] == -1
    assert any(row["label"] == "genre:Style1" and "probe_roc_auc" in row for row in report["per_class"])


def test_vectors_that_do_not_belong_together_are_refused() -> None:
    arguments = catalogue()
    with pytest.raises(UserError, match="the text vectors have 64 dimensions, those of the 360 tracks 128"):
        evaluate(**arguments | {"embed_texts": lambda texts: embed_texts(texts)[:, :64]}, config=CONFIG)
    content = content_of(**{name: arguments[name] for name in ("audio", "labels", "playlists")})
    ids, vectors = arguments["audio"]["test"]
    with pytest.raises(UserError, match=f"split test: 1 of 180 tracks have no vector, first {ids[0]}"):
        less = arguments["audio"] | {"test": (ids[1:], vectors[1:])}
        evaluate_content(content, less, embed_texts=embed_texts, config=CONFIG)
