"""The page `docs/configuration.md`, from the config classes: `make docs`, or `python -m ouro_rl.config.reference > docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from ouro_rl.config.loader import section_of
from ouro_rl.config.section import Section
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig

HEAD = """\
# Configuration

Every key of every command, with its default. This page is generated from the classes in `ouro_rl/config/` by `make docs`; the texts
are those under the fields there.

A config is a YAML file. Several compose from left to right: sections merge key by key, everything else (lists too) replaces what was
there. Overrides follow, `section.key=value` with the value in YAML:

```bash
ouro-rl train configs/math_ouro_1.4b_thinking.yaml configs/gpus_8.yaml trainer.lr=2e-6 'rollout.stop_strings=["\\n\\n"]'
ouro-rl train CONFIG... --dry-run    # the resolved config, and the batch sizes that follow from it
```

A relative path is looked for beside the file that names it, then in the working directory; one on the command line, and what is
written (`run.dir`, `output`), in the working directory. `~` is the home folder. YAML is read as version 1.2: `1e-6` is a number, only
`true` and `false` are booleans, and a key that is set twice is an error. Unknown keys are errors that name the nearest key.
"""
COMMANDS = (("ouro-rl train, ouro-rl check", TrainConfig), ("ouro-rl warmstart", WarmstartConfig))
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
TYPES = {"integer": "integer", "number": "number", "boolean": "true, false", "string": "text", "object": "mapping"}
COLUMNS = "| key | values | default | meaning |\n| --- | --- | --- | --- |"


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, *(part for title, config in COMMANDS for part in _command(title, config))])


def _command(title: str, config: type[Section]) -> Iterator[str]:
    yield f"## {title}\n"
    schema = config.model_json_schema()
    top = []
    for name, field in config.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            top.append(_row(name, field, schema["properties"][name], schema["$defs"]))
            continue
        yield f"### {name}\n"
        yield f"{_one_line(field.description)}\n"
        yield "\n".join([COLUMNS, *_rows(section, f"{name}.", schema["$defs"])]) + "\n"
    if top:
        yield "### keys without a section\n"
        yield "\n".join([COLUMNS, *top]) + "\n"


def _rows(section: type[Section], at: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    """A row for each key of a section; those of a section inside it follow it."""
    properties = definitions[section.__name__]["properties"]
    for name, field in section.model_fields.items():
        yield _row(f"{at}{name}", field, properties[name], definitions)
        if inner := section_of(field.annotation):
            many = properties[name].get("type") == "array"
            yield from _rows(inner, f"{at}{name}{'[]' if many else ''}.", definitions)


def _row(key: str, field: FieldInfo, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    cells = (f"`{key}`", _values(schema, definitions), _default(field), _one_line(field.description))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    """A default as YAML's flow style has it; of a section, what differs from its own keys' defaults."""
    if field.is_required():
        return "required"
    plain = TypeAdapter(Any).dump_python(field.default, mode="json", exclude_defaults=True)
    return f"`{json.dumps(plain, ensure_ascii=False)}`"


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a key may be, in words."""
    if reference := schema.get("$ref"):
        schema = definitions[reference.rpartition("/")[2]]
        if "properties" in schema:
            return "section"
    if "anyOf" in schema:
        return " or ".join(_values(part, definitions) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "null":
        return "null"
    if schema["type"] == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"list of {_values(items, definitions)}"
    bounds = [f"{sign} {schema[name]}" for name, sign in BOUNDS.items() if name in schema]
    kind = "path" if schema.get("format") == "path" else TYPES[schema["type"]]
    return " ".join([kind, " and ".join(bounds)]).strip()


def _one_line(text: str | None) -> str:
    assert text, "every key has a text under its field"
    return " ".join(text.split())


if __name__ == "__main__":
    print(page(), end="")
