"""The temperature of the gate may change with every update: graphs read it from a tensor."""

import pytest

from ouro_rl.core.sampling_params import DepthPolicy, SamplingParams
from tests.references.cuda_graph_stand_ins import RecordedPass
from tests.rollout_workers.engine.graphs.test_static_passes import assert_equal, with_stand_ins
from tests.rollout_workers.engine.test_engine import calm_model, make_requests


@pytest.mark.usefixtures("plain_torch")
def test_graphs_are_kept_while_the_temperature_of_the_gate_changes(monkeypatch):
    """It may change with every update; each call is at its own."""
    monkeypatch.setattr(RecordedPass, "made", 0)
    model, requests = calm_model(12), make_requests([4, 20, 7], group=2)
    engine, depths = with_stand_ins(model, 6), []
    for temperature in (1.0, 0.2, 5.0):
        params = SamplingParams(max_new_tokens=10, depth_policy=DepthPolicy(gate_temperature=temperature))
        got = engine.generate(requests, params)
        assert_equal(got, with_stand_ins(model, 6, static=False).generate(requests, params), model)
        depths.append([rollout.depths for rollout in got])
    assert RecordedPass.made == 1
    assert depths[0] != depths[1] != depths[2] != depths[0], "the temperatures make a difference"
