"""Loads YAML files and overrides into a validated config, and dumps it back. Does not import torch, so a wrong key is
reported in well under a second.

Files are merged left to right: mappings merge key by key, everything else (including lists) is replaced. The overrides
follow: `section.key=value` with the value in YAML.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ouro_rl.config.aliases import meaning
from ouro_rl.config.packaged_configs import find_config, packaged_configs
from ouro_rl.config.section import Conflict, Section
from ouro_rl.config.sizes import derived_sizes
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.config.yaml12 import parse_yaml, to_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import Key, Kind, kind_of, locate, put, texts_in
from ouro_rl.core.shell_text import line_breaks

Config = TypeVar("Config", bound=Section)
SHELL_TEXTS = ("data.prompt_suffix", "data.system_prompt")
"""Overrides in which `\\n` is a line break; in a file it may be LaTeX (`\\neq`), and YAML has its own line breaks."""


def load_config(
    cls: type[Config],
    paths: Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    must_exist: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Merge `defaults`, `paths` and `overrides` into a `cls`. Relative input paths become absolute where they are
    found: next to the file that set them, then in the working directory. With `must_exist`, a path that a file set and
    that is in neither place is an error.

    Raises a UserError of at most three lines that names the file or override, the dotted key and the fix: for a file
    that is missing or not YAML, an unknown key, a wrong type, a value out of range, a missing key, or values that do
    not fit together.
    """
    values: dict[str, Any] = {}
    sources: dict[Key, str] = {}
    found = [find_config(path) for path in paths]
    _merge(values, defaults or {}, "default", sources)
    for path in found:
        _merge(values, _read(path), str(path), sources)
    values.pop("about", None)  # a run's own config.yaml ends with versions and commit, which are not settings
    for override in overrides:
        _merge(values, _parse_override(override), f"override {override}", sources)
    files = " + ".join(str(path) for path in found)
    _find_files(values, sources, {str(path): path.parent for path in found}, must_exist)
    try:
        # JSON mode accepts a list for a tuple and a string for a Path, but converts nothing else.
        config = cls.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(_explain(cls, error.errors(include_url=False), sources, files)) from None
    if isinstance(config, TrainConfig):
        try:
            derived_sizes(config)
        except Conflict as conflict:
            raise UserError(f"{_sources(conflict, (), sources, files)}: {conflict}") from None
    return config


def dump_config(config: Section) -> str:
    """The resolved config as YAML; `load_config` reads it back as an equal config."""
    return to_yaml(config.model_dump(mode="json"))


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_suggestions(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give a YAML file from it{_suggestions(path / 'x')}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; give a YAML file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    return _mapping(text, str(path))


def _suggestions(path: Path) -> str:
    """The existing config file with the closest name, in the same folder or packaged; else the files in that folder."""
    names = sorted(file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    meant = path.name.removesuffix(path.suffix if path.suffix in (".yaml", ".yml") else "")
    packaged = difflib.get_close_matches(meant, packaged_configs(), n=1)
    if packaged and (not near or meant in packaged):
        return f"; there is the packaged {packaged[0]}"
    there = ", ".join(str(path.parent / name) for name in near or names[:5])
    return f"; there is {there}" if there else "; `ouro-rl configs` lists those that come with ouro-rl"


def _parse_override(override: str) -> dict[str, Any]:
    key, _, text = override.partition("=")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override}: the value is not YAML ({_yaml_problem(error)})") from None
    if key in SHELL_TEXTS and isinstance(value, str):
        value = line_breaks(value)
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {_yaml_problem(error)}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: must hold sections such as `trainer:` with keys under them, not a {_kind(value)}")
    return value


def _yaml_problem(error: yaml.YAMLError) -> str:
    """The problem and its line number, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _merge(into: dict[str, Any], new: Mapping[str, Any], source: str, sources: dict[Key, str], at: Key = ()) -> None:
    """Deep-merge `new` into `into`, and record in `sources` which source set each key last."""
    for name, value in new.items():
        key = (*at, name)
        sources[key] = source
        if isinstance(value, Mapping):
            if not isinstance(into.get(name), dict):
                into[name] = {}
            _merge(into[name], value, source, sources, key)
        else:
            into[name] = value


def _find_files(values: dict[str, Any], sources: dict[Key, str], folders: Mapping[str, Path], must_exist: bool) -> None:
    """Resolve every input path in `values`, in place. `folders`: the folder of each config file."""
    for key, text in list(texts_in(values)):
        kind, source = kind_of(key), _source(key, sources, "")
        if kind is None:
            continue
        beside = [folders[source]] if source in folders else []
        try:
            found, missing = locate(kind, text, [*beside, Path()])
        except UserError as error:
            raise UserError(f"{source}: {_dotted(key)}: {error}") from None
        put(values, key, found)
        if missing and beside and must_exist:
            hub = (
                ";\n  give its path, or a hub id such as ByteDance/Ouro-1.4B"
                if kind is Kind.MODEL
                else ";\n  correct the path"
            )
            places = " and no ".join(map(str, missing))
            raise UserError(f"{source}: {_dotted(key)} {text}: there is no {places}{hub}")


# --- explaining -------------------------------------------------------------------------------------------------------


def _explain(cls: type[Section], errors: Sequence[ErrorDetails], sources: dict[Key, str], files: str) -> str:
    """The first mistake in plain words. Unknown keys come first, because a misspelled key also leaves the right one
    missing."""
    order = {"extra_forbidden": 0, "missing": 2}
    error = min(errors, key=lambda error: order.get(error["type"], 1))
    key, kind = error["loc"], error["type"]
    name = _dotted(key)
    if kind == "extra_forbidden":
        text = f"{_source(key, sources, files)}: unknown key {name}{_nearest(cls, key, _deepest(key, sources))}"
    elif kind == "missing":
        text = f"{files or 'config'}: {name} is missing; {_how_to_set(cls, key)}"
    elif kind == "value_error":  # raised by one of our validators, whose message already names the fix
        problem = error["ctx"]["error"]
        text = f"{_sources(problem, key, sources, files)}: {name and name + ': '}{problem}"
    else:
        text = f"{_source(key, sources, files)}: {name} {_must(error)}, but is {_shown(error['input'])}"
    about = "" if kind in {"extra_forbidden", "value_error"} else _about(cls, key)
    return f"{text}\n  {about}" if about else text


def _must(error: ErrorDetails) -> str:
    """Rephrase pydantic's `Input should be X` as `must be X`."""
    if error["type"] == "too_short":
        return f"must have at least {error['ctx']['min_length']} item"
    words = {
        "an object": "a section with keys under it",
        "a valid array": "a list",
        "a valid string": "a string",
        "a valid integer": "a whole number",
        "a valid number": "a number",
        "a valid boolean": "true or false",
    }
    text = error["msg"].removeprefix("Input should be ")
    return f"must be {words.get(text, text)}" if text != error["msg"] else f"is wrong: {text[:1].lower()}{text[1:]}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"{text if len(text) <= 60 else text[:60] + '...'} ({_kind(value)})"


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "whole number", float: "number", str: "string", list: "list", dict: "section"}
    return names.get(type(value), "nothing")


def _source(key: Key, sources: dict[Key, str], files: str) -> str:
    """The file or override that set this key, or the section that contains it."""
    for length in range(len(key), 0, -1):
        if key[:length] in sources:
            return sources[key[:length]]
    return files or "config"


def _sources(problem: ValueError, section: Key, sources: dict[Key, str], files: str) -> str:
    """Every file and override that set one of the values which do not fit together; `section` raised the problem."""
    keys = [(*section, *key.split(".")) for key in problem.keys] if isinstance(problem, Conflict) else []
    setters = [source for key in keys for other, source in sources.items() if other[: len(key)] == key]
    return " + ".join(dict.fromkeys(setters)) or _source(section, sources, files)


def _deepest(key: Key, sources: dict[Key, str]) -> Key:
    """The deepest key under an unknown one: what the user meant to set if the section itself is unknown."""
    return max((other for other in sources if other[: len(key)] == key), key=len, default=key)


def _nearest(cls: type[Section], key: Key, deepest: Key) -> str:
    """What an unknown key may mean: a name from another system, the right name in the wrong section, or a
    misspelling."""
    known = known_keys(cls)
    name = _dotted(part for part in key if isinstance(part, str))
    asked = _dotted(deepest)
    same_end = [path for path in known if path.rpartition(".")[2] == asked.rpartition(".")[2] and "." in asked]
    if close := difflib.get_close_matches(asked, same_end, n=1, cutoff=0.75):  # a misspelled section
        return f"; did you mean {close[0]}?"
    if cls is TrainConfig and (here := meaning(_dotted(deepest))):
        return f"; here it is {here}" if here.split(" ")[0] in known else f"; {here}"
    other, command = (WarmstartConfig, "warmstart") if cls is TrainConfig else (TrainConfig, "train")
    if "." in (meant := _dotted(deepest)) and meant in known_keys(other):
        return f"; it is a key of configs for `ouro-rl {command}`"
    near = [path for path in known if path.rpartition(".")[2] == key[-1]]
    if not near:
        others = [path for path in known if not name.startswith(f"{path}.")]
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    siblings = [path for path in known if path.rpartition(".")[0] == name.rpartition(".")[0]]
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def known_keys(cls: type[Section]) -> list[str]:
    """Every dotted key of `cls`."""
    return [path for path, _ in _known_keys(cls)]


def _known_keys(cls: type[Section], at: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key of `cls` with its documentation."""
    for name, field in cls.model_fields.items():
        path = f"{at}{name}"
        yield path, field.description or ""
        if section := section_of(field.annotation):
            yield from _known_keys(section, f"{path}.")


def section_of(annotation: Any) -> type[Section] | None:
    """The section class of a field, which holds one section or a tuple of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((section for part in get_args(annotation) if (section := section_of(part))), None)


def _about(cls: type[Section], key: Key) -> str:
    """`key: its documentation`, or an empty string."""
    name = _dotted(part for part in key if isinstance(part, str))
    text = " ".join(dict(_known_keys(cls)).get(name, "").split())
    return text and f"{name}: {text}"


def _how_to_set(cls: type[Section], key: Key) -> str:
    """What to write for a missing key, or for the required keys of a missing section."""
    section: Any = cls
    for part in key:
        section = section and isinstance(part, str) and section_of(section.model_fields[part].annotation)
    needed = [name for name, field in section.model_fields.items() if field.is_required()] if section else []
    names = [f"{_dotted(key)}.{name}" for name in needed] or [_dotted(key)]
    return f"set {' and '.join(names)} in the file, or as {names[0]}=... on the command line"


def _dotted(key: Any) -> str:
    return ".".join(str(part) for part in key)
