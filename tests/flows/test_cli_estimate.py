"""``mulan estimate``: the command's figures are the plan's, and its mistakes are one sentence."""

import json

from flow_fixtures import mulan


def test_a_plan_as_json_with_other_numbers_of_gpus_beside_it(tmp_path):
    done = mulan("estimate", "--tracks", "1e6", "--gpus", "16", "--simulate", "--json", home=tmp_path)
    asked, *others = json.loads(done.stdout)
    assert (done.returncode, asked["workers"], asked["steps"]) == (0, 16, 2_279)
    assert [one["workers"] for one in others] == [8, 16, 32, 64, 128, 256, 512]
    assert others[1] == asked
    shares = [one["communication_share"] for one in others]
    assert shares == sorted(shares) and shares[3] < 0.1


def test_a_wrong_gpu_or_number_is_one_sentence(tmp_path):
    wrong = mulan("estimate", "--tracks", "1e6", "--gpu", "h900", home=tmp_path)
    assert wrong.returncode == 2 and "known: h100, a100, l4" in wrong.stderr
    wrong = mulan("estimate", "--tracks", "1e6", "--gpus", "50", home=tmp_path)
    assert wrong.returncode == 2 and "take 48 or 64" in wrong.stderr
