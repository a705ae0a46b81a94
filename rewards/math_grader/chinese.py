"""Chinese units, counters and conjunctions in an answer, as the English ones that the other modules read."""

from __future__ import annotations

import re

from rewards.math_grader.spellings import TEXT

_LENGTHS = {
    "千米": "kilometers", "公里": "kilometers", "分米": "decimeters", "厘米": "centimeters", "毫米": "millimeters",
    "米": "meters",
}  # fmt: skip
_UNITS = {
    **_LENGTHS,
    **{f"平方{name}": f"square {unit}" for name, unit in _LENGTHS.items()},
    **{f"立方{name}": f"cubic {unit}" for name, unit in _LENGTHS.items()},
    "小时": "hours", "时": "hours", "分钟": "minutes", "秒": "seconds", "天": "days", "日": "days", "星期": "weeks",
    "周": "weeks", "个月": "months", "年": "years", "公顷": "hectares", "千克": "kilograms", "公斤": "kilograms",
    "毫克": "milligrams", "克": "grams", "吨": "tonnes", "毫升": "milliliters", "升": "liters", "美元": "dollars",
    "欧元": "euros", "英镑": "quid", "日元": "yen", "元": "yuan", "块钱": "yuan", "摄氏度": "degrees celsius",
    "度": "degrees",
}  # fmt: skip
_COUNTERS = "个人名只本件条张次种块棵辆位支把头岁颗组道页箱瓶套台匹"
"""Words that stand between a number and what is counted, and mean nothing by themselves."""
_CJK = "\u4e00-\u9fff"
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_AFTER_NUMBER = re.compile(
    rf"(?<=[\d)}}])\s*+(?:{TEXT}\s*+\{{)?\s*+(?P<open>\()?\s*+"
    rf"(?:(?P<unit>{_UNIT})(?:\s*+[/每]\s*+(?P<per>{_UNIT}))?|[{_COUNTERS}])(?![{_CJK}])\s*+(?(open)\))\s*+\}}?"
)
_POWERS = {"万": 4, "亿": 8}
_MULTIPLIER = re.compile(rf"(?<=\d)\s*([万亿])(?=\s*(?:\}}|$|(?:{_UNIT})|[{_COUNTERS}]))")
_BEFORE_NUMBER = re.compile(r"^\s*(?:人民币|一?共计?|总共)\s*(?=-?\d)")
"""Matches the name of the currency and "altogether"."""
_CONJUNCTIONS = tuple(
    (re.compile(rf"(?:{TEXT}\s*\{{)?\s*(?<![{_CJK}])(?:{chinese})(?![{_CJK}])\s*\}}?"), rf"\\text{{ {english} }}")
    for chinese, english in (("或者?", "or"), ("和|与|以?及|且", "and"))
)
_NO_SOLUTION = re.compile(rf"(?:{TEXT}\s*\{{)?\s*(?:方程)?(?:无|没有)(?:实数?)?[解根]\s*\}}?")


def translated(text: str) -> str:
    """An answer with its Chinese units and conjunctions in English, and without its counters."""
    if not re.search(f"[{_CJK}]", text):
        return text
    if _NO_SOLUTION.fullmatch(text.strip()):
        return "\\emptyset"
    text = _MULTIPLIER.sub(lambda found: f"\\times 10^{{{_POWERS[found.group(1)]}}}", text)
    text = _AFTER_NUMBER.sub(_unit, _BEFORE_NUMBER.sub("", text))
    for pattern, english in _CONJUNCTIONS:
        text = pattern.sub(english, text)
    return text


def _unit(found: re.Match[str]) -> str:
    if not found["unit"]:
        return ""
    per = f"/{_UNITS[found['per']].removesuffix('s')}" if found["per"] else ""
    return f"\\text{{ {_UNITS[found['unit']]}{per}}}"
