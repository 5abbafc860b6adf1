"""Labelling: hard lines first, nothing asked twice, nothing lost."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.config import TextConfig
from mulan_core.data.shards import PREPARED_TEXT
from mulan_core.errors import UserError
from mulan_core.text.labelling import Labelling, in_order, read_labels, read_lines

CLEAR_YES = ["slow sad piano with warm strings", "fast techno with a pounding kick drum"]
CLEAR_NO = ["first!! who else came here lol", "my brother cried at 2:31 lol wow"]
HARD = ["a bright little tune", "this piece is about winter", "a song about the harbour"]


def test_hard_lines_come_first_with_clear_ones_among_them():
    ordered = in_order(CLEAR_NO + CLEAR_YES + HARD, TextConfig())
    assert set(ordered[:2]) < set(HARD)
    assert ordered[2] in CLEAR_YES and ordered[3] in CLEAR_NO and ordered[4] in HARD
    assert sorted(ordered) == sorted(CLEAR_NO + CLEAR_YES + HARD)
    assert in_order((HARD + CLEAR_YES + CLEAR_NO)[::-1], TextConfig()) == ordered


def test_what_is_labelled_is_not_asked_again(tmp_path):
    path = tmp_path / "labels.jsonl"
    first = Labelling(
        [*HARD, "subscribe to my channel now", "https://x.com is nice", HARD[0].upper()], path, TextConfig()
    )
    assert sorted(line.lower() for line in first.queue) == sorted(HARD)
    asked = first.current
    first.answer(True)
    assert read_labels(path) == {asked: True}  # at once
    first.answer(None)
    first.answer(False)
    assert first.current is None
    again = Labelling(HARD, path, TextConfig())
    assert [line.lower() for line in again.queue] == [first.queue[1].lower()]  # the skipped one


def test_an_answer_can_be_taken_back(tmp_path):
    path = tmp_path / "labels.jsonl"
    sitting = Labelling(HARD, path, TextConfig())
    sitting.undo()  # nothing yet
    line = sitting.current
    sitting.answer(True)
    sitting.undo()
    assert sitting.current == line and read_labels(path) == {} == sitting.labels
    sitting.answer(False)
    sitting.answer(None)
    sitting.undo()
    sitting.undo()
    assert sitting.current == line and read_labels(path) == {}


def test_a_line_torn_by_a_kill_costs_that_answer_alone(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "describes": true}\n{"text": "b", "desc')
    assert read_labels(path) == {"a": True}
    sitting = Labelling(HARD, path, TextConfig())
    line = sitting.current
    sitting.answer(False)
    assert read_labels(path) == {"a": True, line: False}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "describes": "yes"}\n')
    with pytest.raises(UserError, match=r'labels.jsonl, line 1: expected \{"text": ..., "describes": true or false\}'):
        read_labels(path)
    with pytest.raises(UserError, match="cannot read the labels"):
        read_labels(tmp_path / "no.jsonl")
    with pytest.raises(UserError, match="cannot read"):
        read_lines(tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match="holds no line of text"):
        read_lines(tmp_path / "empty.txt")
    (tmp_path / "no.parquet").write_text("x")
    with pytest.raises(UserError, match="as parquet"):
        read_lines(tmp_path / "no.parquet")


def test_lines_come_from_text_and_from_tables(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_lines(tmp_path / "a.txt") == ["one", "two"]
    texts = [[{"source": "lf", "text": "one", "drop": None}, {"source": "sf", "text": "tag", "drop": None}], []]
    table = pa.table({"track_id": ["a", "b"], "texts": pa.array(texts, pa.list_(PREPARED_TEXT))})
    pq.write_table(table, tmp_path / "texts.parquet")
    assert read_lines(tmp_path / "texts.parquet") == ["one"]
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n{"texts": [{"source": "lf", "text": "three"}]}\n')
    assert read_lines(tmp_path / "b.jsonl") == ["two", "three"]
