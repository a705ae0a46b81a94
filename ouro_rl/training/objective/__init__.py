"""What training optimizes, as pure functions of rewards, depths and log-probs; see docs/method.md, "Objective".

`objective.Objective` is the whole of it: `credit` turns the scored rollouts of an update into advantages of the tokens
and returns of the gate's decisions, `losses` turns those and the replayed log-probs into losses. It knows no model, no
trainer and no batch of padded tensors."""
