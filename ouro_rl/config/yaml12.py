"""YAML with the core schema of version 1.2, because PyYAML's version 1.1 has pitfalls that a config must not have.

In PyYAML `1e-6` is a string, `off` and `no` are booleans, `1:30` is ninety, dates are objects, and the second of two
equal keys silently wins. Here `1e-6` is a number, only `true` and `false` are booleans, and a repeated key is an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

_PLAIN = {
    "tag:yaml.org,2002:null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        re.compile(
            r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
            r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
        ),
        list("-+0123456789."),
    ),
    "tag:yaml.org,2002:merge": (re.compile(r"^<<$"), ["<"]),
}


_CORE = (*_PLAIN, "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", None)
"""Tags of the schema; None stands for any other, which is an error."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}
    yaml_constructors = {tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in _CORE}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:merge":
                if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.endswith(":str"):
                    raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key_node.start_mark)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key!r} is set twice; remove one", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))  # 1.1 would read a leading 0 as octal


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would read as something else."""

    yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)

    def represent_items(self, items: list) -> yaml.SequenceNode:
        flow = not any(isinstance(item, list | dict) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(list, _Dumper.represent_items)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def parse_yaml(text: str) -> Any:
    """Parse the single document in `text`; None if empty. Raises yaml.YAMLError, also for a key that is set twice, and
    for what JSON cannot hold: a value that contains itself, half of a surrogate pair, tags of other types."""
    try:
        value = yaml.load(text, Loader=_Loader)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise yaml.YAMLError("a value is nested too deeply") from None
    except (ValueError, LookupError) as error:  # of an alias, of `!!int x`, of a number of thousands of digits
        raise yaml.YAMLError(f"a value cannot be read: {str(error).split(';')[0]}") from None
    return value


def to_yaml(value: Any) -> str:
    """Dump plain values (dict, list, str, number, bool, None) as block-style YAML, keeping the order of keys."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)
