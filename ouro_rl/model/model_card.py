"""The README of a checkpoint: what it is, how to load it, how it was trained, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ouro_rl.core.paths import is_local

HOW_TO_LOAD = """\
With transformers 5 and ouro-rl:

```python
import ouro_rl  # registers the model type `ouro`
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

"""
WITH_CODE = """\
With transformers 4.57, by the published code in this folder:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
```
"""
WITHOUT_CODE = """\
With transformers 4.57, put `configuration_ouro.py` and `modeling_ouro.py` of a published checkpoint, such as
`ByteDance/Ouro-1.4B`, into this folder (`ouro-rl export --code ByteDance/Ouro-1.4B` does), then:

```python
from transformers import AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module

model = get_class_from_dynamic_module("modeling_ouro.OuroForCausalLM", folder).from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```
"""
MIXED_DTYPES = """
Weights are in {dtype}, those of the exit gate in float32: a gate in bfloat16 would change which token leaves after
which loop.
"""


def model_card(
    title: str,
    about: Sequence[str],
    *,
    has_code: bool,
    dtype: str = "float32",
    base_model: str | None = None,
    dataset: str | None = None,
    settings: Mapping[str, object] | None = None,
    results: Mapping[str, object] | None = None,
) -> str:
    """Markdown with the front matter of the Hub. `about`: paragraphs. `settings` and `results` become tables. Base
    model and data set are named in the front matter if they are hub ids."""
    matter = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [ouro, looped, ouro-rl]"]
    matter += [f"base_model: {base_model}"] if base_model and not is_local(base_model) else []
    matter += [f"datasets: [{dataset}]"] if dataset else []
    loading = HOW_TO_LOAD + (WITH_CODE if has_code else WITHOUT_CODE)
    loading += "" if dtype == "float32" else MIXED_DTYPES.format(dtype=dtype)
    parts = ["---", *matter, "---", "", f"# {title}", ""]
    parts += [f"{paragraph}\n" for paragraph in about]
    parts += ["## Loading", "", "`folder` is this folder, or its id on the Hub.", "", loading]
    parts += _table("Training", settings or {}) + _table("Results", results or {})
    return "\n".join(parts).rstrip() + "\n"


def _table(title: str, values: Mapping[str, object]) -> list[str]:
    if not values:
        return []
    return [f"## {title}", "", "| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in values.items()), ""]
