"""The model card: its figures are the report's, its length is what MLflow takes, and silence is named."""

import re
from dataclasses import replace

from report_fixtures import make_report

from mulan_core.config import Config
from mulan_core.evaluation.card import LONGEST, UNSAID, model_card
from mulan_core.gate import Decision

REFUSED = Decision(promote=False, reasons=("floor: retrieval/text/auc is 0.4, below 0.6",))


def test_a_card_shows_the_reports_figures_the_gates_word_and_what_it_came_from():
    report = make_report()
    config = replace(Config(), about="For the jazz desk. CC-BY audio.")
    card = model_card(report, config, REFUSED, made_by={"data": "abc123"})
    for name in ("tagging/genre/roc_auc", "retrieval/title/map", "triplets/playlist/accuracy"):
        assert f"{report['metrics'][name]:.3f} ({report['intervals'][name][0]:.3f}-" in card, name
    assert "was refused by the gate" in card and REFUSED.reasons[0] in card
    assert "`abc123`" in card and "For the jazz desk." in card and UNSAID not in card
    weakest = min(report["per_class"], key=lambda one: one["roc_auc"])
    assert re.search(rf"{weakest['label']}: ROC-AUC {weakest['roc_auc']:.3f} of 9 tracks", card)
    assert f"{config.train.steps:,} steps of {config.train.batch_size:,} pairs" in card


def test_what_nobody_said_is_named_and_a_long_card_is_cut_at_a_line():
    card = model_card(make_report(), Config(), REFUSED, made_by={})
    assert UNSAID in card
    report = make_report() | {"notes": [f"note {i} {'x' * 80}" for i in range(100)]}
    long = model_card(report, Config(), REFUSED, made_by={})
    assert len(long) <= LONGEST and long.endswith("the run's report has all)\n") and UNSAID in long
