"""The benchmark of how work is given out, with real Ray actors that sleep."""

from ouro_rl.bench import dispatch, sleeping_actor
from ouro_rl.bench.run import run_bench
from ouro_rl.core.rollout import Prompt, RolloutRequest


def test_a_sleeping_generation_gives_answers_of_the_length_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(sleeping_actor, "ROW_S", 0.0)
    requests = [RolloutRequest(prompt=Prompt(index=i, token_ids=(n,)), seeds=(0, 1)) for i, n in enumerate((3, 1))]
    generation = sleeping_actor.SleepingGeneration(requests, 5)
    generation.queue((0, 2))
    ended = []
    while not generation.done:
        ended.append(generation.advance())
    assert ended == [1, 0, 1] and (generation.tokens, generation.finished) == (4, 2)
    assert [one and len(one.completion_ids) for one in generation.rollouts] == [3, None, 1, None]


def test_both_ways_do_the_same_work(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "LONG", 16)
    results = run_bench("dispatch", quick=True)
    assert 0 < results["utilization_dealt"] < 1 and 0 < results["utilization"] <= 1
    assert results["dispatch"]["lengths"] == [16] * 12 + [8] * 12
    assert "work given to whoever is free" in capsys.readouterr().out
