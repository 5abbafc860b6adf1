"""The sentence that a flow which ended badly leaves."""

from prefect.states import Crashed, Failed

from flows.runtime.notifications import describe
from mulan_core.errors import UserError


def test_it_names_flow_stage_reason_and_run():
    error = UserError("training failed: no room")
    error.add_note("in stage train")
    said = describe("end_to_end", Failed(data=error), name="blue-fox", url="http://here/1")
    assert said == "MuLan: end_to_end failed in stage train: training failed: no room (run blue-fox, http://here/1)"


def test_a_crash_is_told_in_prefects_words():
    said = describe(
        "train", Crashed(message="Execution was aborted\nby a signal", data=SystemExit(1)), name="x", url=None
    )
    assert said == "MuLan: train crashed: Execution was aborted (run x)"
