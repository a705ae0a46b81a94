"""Rollout workers: the engine that samples (no Ray in it), and the pool of processes that run it.

`engine` runs passes over the rows that `scheduler` picks, `kv_cache` holds keys and values by (token, loop), `attention` reads them,
`sampler` decides exits and tokens. `worker` puts an engine behind weights that change; `actor` and `pool` spread workers with Ray.
"""
