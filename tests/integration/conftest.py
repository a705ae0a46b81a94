"""The checkpoint that training starts from."""

import pytest

from ouro_rl.model.tiny_tokenizer import make_tokenizer
from tests.references.tiny_models import random_model
from tests.references.tiny_training import REWARD


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "rewards.py").write_text(REWARD)
    return folder
