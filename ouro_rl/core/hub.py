"""Checks that a Hub id exists and is accessible, with one request, before anything heavy is imported or started."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Literal

from ouro_rl.core.errors import UserError

logger = logging.getLogger(__name__)

PATIENCE_S = 10
"""Longest wait for the Hub's response, in seconds."""
COMMIT = re.compile(r"[0-9a-f]{40}")
Kind = Literal["model", "data set"]


def check_on_hub(name: str, kind: Kind, key: str, revision: str | None = None) -> None:
    """Raise a two-line UserError unless the Hub has the model or data set `name` at `revision`, or it was already
    downloaded (then no request is made). `key` is the config key or option that named it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if was_downloaded(name, kind) if revision is None else downloaded_commit(name, kind, revision):
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
        ask(name, revision=revision, timeout=PATIENCE_S)
    except RevisionNotFoundError as error:
        raise UserError(
            f"{where}: the hub has no revision {revision} of this {kind};\n"
            "  give a branch, a tag or a whole commit hash"
        ) from error
    except GatedRepoError as error:
        raise UserError(f"{where}: is gated;\n  request access at {api.endpoint}, then run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{where}: the hub has no such {kind}, or it is private;\n"
            f"  correct the id, run `hf auth login`, or {_instead(kind)}"
        ) from error
    except Exception as error:  # the class of a failed connection depends on the version of huggingface_hub
        raise UserError(
            f"{where}: {api.endpoint} does not answer ({_one_line(error)});\n"
            f"  check the network, HTTPS_PROXY and HF_ENDPOINT, or {_instead(kind)}"
        ) from error


def commit_of(name: str, kind: Kind, revision: str | None) -> str | None:
    """The commit that a branch, tag or commit (None: the newest) of a Hub id names now; without the Hub, the one that
    was downloaded, or None if none was.

    A Hub that cannot be reached is asked nothing more: every file that is not in the cache would cost half a minute of
    retries, and most of the files that transformers looks for are optional."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if not constants.HF_HUB_OFFLINE:
        api = HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        try:
            return ask(name, revision=revision, timeout=PATIENCE_S).sha
        except HfHubHTTPError as error:
            logger.warning("%s: the hub does not say which commit is the newest (%s)", name, _one_line(error))
        except Exception as error:  # the class of a failed connection depends on the version of huggingface_hub
            logger.warning(
                "%s: %s cannot be reached (%s); going on with what was downloaded", name, api.endpoint, _one_line(error)
            )
            stay_offline()
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    return downloaded_commit(name, kind, revision)


def stay_offline() -> None:
    """Make no further request to the Hub, in this process and in those that it starts."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # what it read from the environment when it was imported
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by `datasets` when it is imported, and by other processes


def downloaded_commit(name: str, kind: Kind, revision: str | None) -> str | None:
    """The commit that `revision` (None: the main branch) had when it was downloaded; None if it was not."""
    folder = _cache_folder(name, kind)
    if revision is not None and (folder / "snapshots" / revision).is_dir():
        return revision
    ref = folder / "refs" / (revision or "main")
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def was_downloaded(name: str, kind: Kind) -> bool:
    """Whether a local cache holds some of it; it is then loaded from there, without the Hub if need be."""
    from huggingface_hub import constants

    places = [_cache_folder(name, kind) / "snapshots"]
    if kind == "data set":
        places.append(
            Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets") / name.replace("/", "___")
        )
    return any(place.is_dir() for place in places)


def _cache_folder(name: str, kind: Kind) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind.replace(' ', '')}s--{name.replace('/', '--')}"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _instead(kind: Kind) -> str:
    return "give a checkpoint folder" if kind == "model" else "give a data file"
