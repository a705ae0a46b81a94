"""Credit over depth by enumeration: every (depth, token) outcome of a two-loop model with four tokens."""

import pytest
import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.training.objective.depth_credit import depth_posterior, loop_weights, spread, spread_loss
from ouro_rl.training.objective.losses import gate_loss, token_loss
from tests.references.enumeration import LOOPS, VOCAB, advantages, enumeration_model, gradient, replay_outcomes

EXACT = 1e-6


def score_function(outcomes, earned):
    """Losses of the score function, the gate's and the head's, [O, n] each."""
    count, length = outcomes.depths.shape
    earned = earned.unsqueeze(1).expand(count, length)
    head = token_loss(outcomes.token_logprobs, outcomes.token_logprobs.detach(), earned, 0.2, 0.2)
    decisions = outcomes.decisions.flatten(1).T
    recorded = decisions.detach().sum(1)
    returns = earned.flatten().unsqueeze(1).expand_as(decisions)
    return gate_loss(decisions, recorded, returns, 0.2, 0.2).view(count, length), head


def rao_blackwell(outcomes, earned):
    """The same in the Rao-Blackwell form."""
    earned = earned.unsqueeze(1).expand(outcomes.depths.shape)
    posterior, ones = depth_posterior(outcomes.log_pdf, outcomes.loop_logprobs), torch.ones_like(earned)
    return (
        spread_loss(posterior, outcomes.log_pdf, earned, ones),
        spread_loss(posterior, outcomes.loop_logprobs, earned, ones),
    )


def mean_gradient(model, outcomes, losses):
    return gradient(model, (outcomes.probabilities.unsqueeze(1) * losses).sum(), retain_graph=True)


def one_token_objective(model, earned, part):
    """-E[A] of a one-token answer from plain forwards of one and two loops; only `part` has a gradient."""
    outcomes = replay_outcomes(model, 1)
    plain = model(torch.tensor([[3, 1, 2]]))
    leave = torch.sigmoid(plain.gate_logits[0, 0, -1].double())
    depth = torch.stack([leave, 1 - leave])
    token = torch.stack([model.lm_head(state[0, -1]).softmax(0) for state in plain.loop_states])
    depth, token = (depth.detach() if part == "head" else depth), (token.detach() if part == "gate" else token)
    table = earned.view(LOOPS, VOCAB)
    assert torch.equal(outcomes.tokens.view(LOOPS, VOCAB)[0], torch.arange(VOCAB))
    return -(depth.unsqueeze(1) * token * table).sum()


@pytest.mark.parametrize("part", ["gate", "head", "both"])
@pytest.mark.parametrize("estimator", [score_function, rao_blackwell])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_for_a_token_that_ends_the_answer_the_mean_is_the_exact_gradient(estimator, part, eta):
    model = enumeration_model()
    outcomes = replay_outcomes(model, 1)
    earned = advantages(outcomes)
    exact = gradient(model, one_token_objective(model, earned, part))
    (gate, head), (score_gate, score_head) = estimator(outcomes, earned), score_function(outcomes, earned)
    gate, head = torch.lerp(gate, score_gate, eta), torch.lerp(head, score_head, eta)
    losses = {"gate": gate, "head": head, "both": gate + head}[part]
    assert exact.abs().max() > 0.01
    assert (mean_gradient(model, outcomes, losses) - exact).abs().max() <= EXACT


def objectives(model, outcomes, earned):
    """The gradients for two-token answers of -E[A], and of the objective that Rao-Blackwell states: the first token's
    is -sum_y m(y) V(y), its marginal m = sum_t p_t pi_t against a fixed value V(y) = E[A | y]; the second token's is
    exact, since nothing reads its keys and values."""
    whole = gradient(model, -(outcomes.logprobs.sum(1).exp() * earned).sum(), retain_graph=True)
    first, second = outcomes.logprobs[:, 0], outcomes.logprobs[:, 1]
    same_token = (outcomes.tokens[:, :1] == outcomes.tokens[:, 0]).double()  # [O, O]
    probabilities = outcomes.probabilities
    value = (same_token @ (probabilities * earned)) / (same_token @ probabilities)
    of_first = -(first.exp() * second.exp().detach() * value).sum()
    of_second = -(first.exp().detach() * second.exp() * earned).sum()
    return whole, gradient(model, of_first + of_second, retain_graph=True)


@pytest.mark.parametrize("rule", list(KVRule))
@pytest.mark.parametrize("eta", [0.0, 0.25, 1.0])
def test_for_longer_answers_the_bias_is_the_one_that_is_stated(rule, eta):
    model = enumeration_model()
    outcomes = replay_outcomes(model, 2, rule)
    assert abs(outcomes.probabilities.sum().item() - 1) <= EXACT
    earned = advantages(outcomes)
    losses = torch.lerp(sum(rao_blackwell(outcomes, earned)), sum(score_function(outcomes, earned)), eta)
    exact, stated = objectives(model, outcomes, earned)
    got = mean_gradient(model, outcomes, losses)
    assert (got - torch.lerp(stated, exact, eta)).abs().max() <= EXACT
    bias = (stated - exact).abs().max().item()
    assert bias <= EXACT if rule is KVRule.FULL else bias > 1e-3  # later tokens read every loop's own keys and values


@pytest.mark.parametrize("length", [1, 2])
def test_rao_blackwell_has_less_variance(length):
    model = enumeration_model()
    outcomes = replay_outcomes(model, length)
    earned = advantages(outcomes)
    variances = {}
    for name, estimator in (("score function", score_function), ("Rao-Blackwell", rao_blackwell)):
        for part, losses in zip(("gate", "head"), estimator(outcomes, earned), strict=True):
            rows = torch.stack([gradient(model, loss, retain_graph=True) for loss in losses.sum(1)])
            mean = outcomes.probabilities @ rows
            variances[name, part] = (outcomes.probabilities @ (rows - mean).square().sum(1)).item()
    print(length, {key: round(value, 5) for key, value in variances.items()})
    for part in ("gate", "head"):
        assert variances["Rao-Blackwell", part] < 0.9 * variances["score function", part]


def test_the_posterior_by_hand_and_impossible_loops():
    log_pdf = torch.tensor([[0.5], [0.5], [0.0]]).log()
    logprobs = torch.tensor([[0.1], [0.3], [0.9]]).log().requires_grad_()
    posterior = depth_posterior(log_pdf, logprobs)
    torch.testing.assert_close(posterior, torch.tensor([[0.25], [0.75], [0.0]]))
    assert not posterior.requires_grad
    spread(posterior, logprobs).sum().backward()
    torch.testing.assert_close(logprobs.grad, posterior)
    outside = torch.tensor([[0.2], [0.0], [0.4]]).log()  # the second loop's filters drop the token
    assert depth_posterior(log_pdf, outside).flatten().tolist() == [1, 0, 0]
    assert spread(depth_posterior(log_pdf, outside), outside).isfinite().all()


def test_ratios_scale_and_have_no_gradient():
    ratios = torch.tensor([2.0], requires_grad=True)
    logprobs = torch.tensor([[-1.0], [-3.0]], requires_grad=True)
    loss = spread_loss(torch.tensor([[0.5], [0.5]]), logprobs, torch.tensor([3.0]), ratios)
    loss.sum().backward()
    assert loss.item() == 12.0 and ratios.grad is None and logprobs.grad.flatten().tolist() == [-3, -3]


@pytest.mark.parametrize(
    "credit,expected",
    [("rltt_uniform", [1 / 3] * 3), ("rltt_progressive", [1 / 6, 1 / 3, 1 / 2]), ("rltt_exit", [0.2, 0.3, 0.5])],
)
def test_weights_of_the_loops(credit, expected):
    log_pdf = torch.tensor([[0.2], [0.3], [0.5]]).log().requires_grad_()
    weights = loop_weights(credit, log_pdf)
    assert weights.flatten().tolist() == pytest.approx(expected) and not weights.requires_grad
