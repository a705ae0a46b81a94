"""Rollout workers: the engine that samples (no Ray in it), and the pool of processes that run it.

`engine` runs passes over the rows of samples that `scheduler` admits and of prompts in `prefill`; `kv_cache` holds keys
and values by (token, loop), `attention` reads them, `sampler` decides exits and tokens. `worker` combines an engine
with changing weights (`weight_sync`); `actor` and `pool` distribute workers with Ray.
"""
