"""Rollout workers in processes of their own: how work reaches them, and what happens when one of them fails.

`units` cuts a call into small units, `ledger` knows where each of them is, `dispatch` gives them to whoever is free,
and `call` collects what comes back.
`liveness` and `restarts` decide when a worker has failed and when it is started again. `session` and `actor` run in the
workers' processes; `crew` starts and watches them with Ray, on the cluster that `cluster` connects to.
"""
