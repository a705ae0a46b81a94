"""Checks that a Hub id exists and is accessible, with one request, before anything heavy is imported or started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ouro_rl.core.errors import UserError

MATH500 = "HuggingFaceH4/MATH-500"
"""Hub id of the data set behind the benchmark `math500`."""
PATIENCE_S = 10
"""Longest wait for the Hub's response, in seconds."""
Kind = Literal["model", "data set"]


def check_on_hub(name: str, kind: Kind, key: str) -> None:
    """Raise a two-line UserError unless the Hub has the model or data set `name`, or it was already downloaded (then no
    request is made). `key` is the config key or option that named it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if was_downloaded(name, kind):
        return
    where = f"{key} {name}"
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{where}: HF_HUB_OFFLINE is set, and this {kind} was not downloaded before "
            f"(looked in {constants.HF_HUB_CACHE});\n"
            f"  unset HF_HUB_OFFLINE, set HF_HOME to where it is, or {_instead(kind)}"
        )
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        ask(name, timeout=PATIENCE_S)
    except GatedRepoError as error:
        raise UserError(f"{where}: is gated;\n  request access at {api.endpoint}, then run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{where}: the hub has no such {kind}, or it is private;\n"
            f"  correct the id, run `hf auth login`, or {_instead(kind)}"
        ) from error
    except Exception as error:  # the class of a failed connection depends on the version of huggingface_hub
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{where}: {api.endpoint} does not answer ({problem});\n"
            f"  check the network, HTTPS_PROXY and HF_ENDPOINT, or {_instead(kind)}"
        ) from error


def was_downloaded(name: str, kind: Kind) -> bool:
    """Whether a local cache holds some of it; it is then loaded from there, without the Hub if need be."""
    from huggingface_hub import constants

    folder = name.replace("/", "--")
    places = [Path(constants.HF_HUB_CACHE) / f"{kind.replace(' ', '')}s--{folder}" / "snapshots"]
    if kind == "data set":
        places.append(
            Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets") / name.replace("/", "___")
        )
    return any(place.is_dir() for place in places)


def _instead(kind: Kind) -> str:
    return "give a checkpoint folder" if kind == "model" else "give a .jsonl file"
