"""Rollout workers: the engine that samples (no Ray in it), and the pool of processes that run it.

`engine` runs passes over the rows that `scheduler` admits and `prefill` brings along; `kv_cache` holds keys and values by (token, loop),
`attention` reads them, `sampler` decides exits and tokens. `worker` puts an engine behind weights that change (`weight_sync`);
`actor` and `pool` spread workers with Ray.
"""
