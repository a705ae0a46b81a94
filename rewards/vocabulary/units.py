"""Units and nouns after a number: a closed vocabulary, with exact factors.

What stands after a number is read as multipliers ("million"), a unit ("km/h"), and the nouns that are counted
("people"). Text that is none of these is kept as it is: it is no unit, and makes no answer right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rewards.vocabulary.number_words import factor_of, is_number_word

_PREFIXES: dict[str, int | Fraction] = {
    "T": 10**12, "G": 10**9, "M": 10**6, "k": 10**3, "h": 100, "d": Fraction(1, 10), "c": Fraction(1, 100),
    "m": Fraction(1, 10**3), "\u03bc": Fraction(1, 10**6), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9),
    "p": Fraction(1, 10**12),
}  # fmt: skip
_PREFIX_WORDS: dict[str, int | Fraction] = {
    "tera": 10**12, "giga": 10**9, "mega": 10**6, "kilo": 10**3, "hecto": 100, "deci": Fraction(1, 10),
    "centi": Fraction(1, 100), "milli": Fraction(1, 10**3), "micro": Fraction(1, 10**6), "nano": Fraction(1, 10**9),
    "pico": Fraction(1, 10**12),
}  # fmt: skip
_DEFINITIONS = """
length* 1 m | meter metre
length 0.0254 in | inch inches
length 0.3048 ft | foot feet
length 0.9144 yd yds | yard
length 1609.344 mi | mile
length 1852 nmi |
length 9460730472580800 ly | lightyear
length 1e-10 \u00c5 | angstrom
mass* 0.001 g | gram gramme
mass 1000 t | ton tonne
mass 0.45359237 lb lbs | pound
mass 0.028349523125 oz | ounce
time* 1 s sec secs | second
time 60 min mins | minute
time 3600 h hr hrs | hour
time 86400 d | day
time 604800 wk wks | week
month 1 mo mos | month
month 12 yr yrs | year
month 120 | decade
month 1200 | century centuries
area 100 | are
area 10000 ha | hectare
area 4046.8564224 ac | acre
volume* 0.001 L l | liter litre
volume 0.003785411784 gal | gallon
volume 0.000946352946 qt | quart
volume 0.000473176473 pt | pint
volume 0.0002365882365 | cup
volume 0.00001478676478125 tbsp | tablespoon
volume 0.00000492892159375 tsp | teaspoon
volume 0.0000295735295625 floz |
force* 1 N | newton
force 4.4482216152605 lbf |
pressure* 1 Pa | pascal
pressure 101325 atm atms | atmosphere
pressure 100000 bar | bars
pressure 6894.757293168 psi |
pressure 133.322387415 mmHg torr |
energy* 1 J | joule
energy* 1.602176634e-19 eV | electronvolt
energy* 4.184 cal | calorie
energy* 3600 Wh | watthour
power* 1 W | watt
power 745.69987158227022 hp | horsepower
potential* 1 V | volt
current* 1 A | amp ampere
charge* 1 C | coulomb
resistance* 1 \u03a9 | ohm
capacitance* 1 F | farad
inductance* 1 H | henry henries
flux* 1 Wb | weber
field* 1 | tesla
frequency* 1 Hz | hertz
amount* 1 mol mols | mole
kelvin 1 | kelvin
celsius 1 \u00b0C | celsius centigrade
fahrenheit 1 \u00b0F | fahrenheit
degree 1 deg | degree
radian 1 rad rads | radian
revolution 1 rev revs | revolution
speed 0.44704 mph |
speed 5/18 kph kmh kmph |
speed 463/900 kn kt kts knot |
rotation 1 rpm |
info* 1 | bit
info* 8 | byte
dB 1 dB | decibel
unit 1 | unit
dollar 1 USD $ | dollar buck
dollar 0.01 \u00a2 | cent
euro 1 EUR \u20ac | euro
pound 1 GBP \u00a3 | quid
yen 1 JPY | yen
yuan 1 RMB CNY | yuan
rupee 1 INR Rs \u20b9 | rupee
ruble 1 RUB | ruble rouble
peso 1 | peso
"""
"""dimension (a star: with metric prefixes), factor, symbols | words. Words have plurals."""
_DERIVED = {
    "area": {"length": 2}, "volume": {"length": 3}, "speed": {"length": 1, "time": -1},
    "force": {"mass": 1, "length": 1, "time": -2}, "pressure": {"mass": 1, "length": -1, "time": -2},
    "energy": {"mass": 1, "length": 2, "time": -2}, "power": {"mass": 1, "length": 2, "time": -3},
    "charge": {"current": 1, "time": 1}, "potential": {"mass": 1, "length": 2, "time": -3, "current": -1},
    "resistance": {"mass": 1, "length": 2, "time": -3, "current": -2}, "frequency": {"time": -1},
    "rotation": {"revolution": 1, "time": -1},
}  # fmt: skip
_ROTATION = {"rotation": Fraction(1, 60)}
_OPERATIONS = set(
    "plus minus times multiplied divided over squared cubed square cube factorial root power inverse reciprocal "
    "negative positive opposite percent percentage log exponent mod modulo base pi infinity zillion more less "
    "fewer greater bigger larger smaller higher lower above below under before after not no never none wrong "
    "incorrect false or either if unless except maybe perhaps possibly probably otherwise nor neither but than is "
    "are was were be equals equal approximately about nearly almost always sometimes besides versus yes increase "
    "decrease increased decreased rise drop gain loss profit north south east west left right up down ago clockwise "
    "counterclockwise anticlockwise basis even odd isn aren doesn don must instead wait actually rather missing short "
    "extra additional difference sum product quotient ratio".split()
)
"""Words that change a value, deny it, or point in a direction. They are no nouns that are counted."""
_OBJECTS = set("roots squares cubes products sums differences powers ratios quotients zeros zeroes drops".split())
"""Plurals that are counted, although their singulars are operations."""
_HARMLESS = set("tall long wide deep old each total altogether overall in of the a an per and for all".split())
_PLURALS = set("people children men women persons sheep fish deer mice geese dice teeth cattle data pence".split())
_WORD = re.compile(r"\^\s*\{?\s*-?\d\s*\}?|[A-Za-z\u03bc\u03a9\u00b0\u00a2\u20ac\u00a3\u20b9\u00c5$]+|\d+|\S")
_POWER = re.compile(r"\^\s*\{?\s*(-?\d)\s*\}?")
_MOST_WORDS = 8
_SEPARATORS = str.maketrans(".,", "  ")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measurement."""

    factor: Fraction
    """How many base units it is."""
    dimensions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Suffix:
    """What stands after a number."""

    factor: Fraction = Fraction(1)
    """Product of the multipliers."""
    unit: Unit | None = None
    nouns: tuple[str, ...] = ()
    """What is counted, in the singular."""
    rest: tuple[str, ...] = ()
    """Text that is not understood."""

    @property
    def words(self) -> bool:
        return bool(self.unit or self.nouns or self.rest)


def _tables() -> tuple[dict[str, Unit], dict[str, Unit]]:
    """Units by symbol, which keeps its case, and by word."""
    marks: dict[str, Unit] = {}
    words: dict[str, Unit] = {}
    for line in _DEFINITIONS.strip().splitlines():
        head, _, named = line.partition("|")
        kind, factor, *symbols = head.split()
        dimension = kind.rstrip("*")
        powers = _DERIVED.get(dimension, {dimension: 1})
        unit = Unit(Fraction(factor) * _ROTATION.get(dimension, 1), tuple(sorted(powers.items())))
        spellings = [spelling for name in named.split() for spelling in (name, name + "s")]
        metric = kind.endswith("*")
        for table, names, prefixes in ((marks, symbols, _PREFIXES), (words, spellings, _PREFIX_WORDS)):
            for name in names:
                table[name] = unit
                if metric:
                    table.update({p + name: Unit(unit.factor * size, unit.dimensions) for p, size in prefixes.items()})
    del marks["pm"]  # an afternoon, and no picometer
    words.update({"kilo": words["kilogram"], "kilos": words["kilogram"]})
    return marks, words


_MARKS, _WORDS = _tables()
_POUNDS, _SCALES = {_WORDS["pound"], _WORDS["quid"]}, {_WORDS["celsius"], _WORDS["fahrenheit"]}


def unit_named(word: str, *, single: bool = True) -> Unit | None:
    """The unit of a word or symbol. single: symbols of one letter count too."""
    if word in _MARKS:
        return _MARKS[word] if single or len(word) > 1 or not word.isalpha() else None
    lower = word.lower()
    return _WORDS.get(lower) or (_MARKS.get(lower) if len(word) > 1 else None)


def read_suffix(text: str, *, single: bool = True) -> Suffix:
    """Read what stands after a number: plain text with `/`, powers and `\u00b7`. single: symbols of one letter, such as
    m, can be units."""
    tokens = _WORD.findall(re.sub(r"^\s*\((.*)\)\s*$", r"\1", text).translate(_SEPARATORS).replace("\\cdot", "\u00b7"))
    if not tokens:
        return Suffix()
    factor, place = Fraction(1), 0
    while place < len(tokens) and (size := factor_of(tokens[place])) is not None and _unit_at(tokens, place) is None:
        factor, place = factor * size, place + 1
    if factor != 1 and place < len(tokens) and tokens[place] in ("of", "a"):
        place += 1
    unit, place = _read_unit(tokens, place, single=single)
    rest = tokens[place:]
    if not rest:
        return Suffix(factor=factor, unit=unit)
    words = [word.lower() for word in rest]
    if len(words) > _MOST_WORDS or not all(word.isalpha() for word in words):
        return Suffix(factor=factor, unit=unit, rest=tuple(words))
    if unit is not None and all(word in _HARMLESS for word in words):
        return Suffix(factor=factor, unit=unit)
    if not changes_value(words) and (any(map(is_plural, words)) or words[0] == "of"):
        return Suffix(factor=factor, unit=unit, nouns=tuple(map(singular, words)))
    return Suffix(factor=factor, unit=unit, rest=tuple(words))


def leading_unit(text: str) -> str | None:
    """The unit with which a text begins, such as `km/h`, as it is written there; None if it begins with none."""
    tokens = list(_WORD.finditer(text.translate(_SEPARATORS)))
    unit, end = _read_unit([token.group() for token in tokens], 0, single=True)
    return text[: tokens[end - 1].end()].strip() if unit is not None else None


def same_unit(gold: Unit, answer: Unit) -> bool:
    """Whether two units are the same or share a name; "units" may be any. 350 cents are not 3.50 dollars."""
    alike = {gold, answer} == _POUNDS or (gold in _SCALES and answer == _WORDS["degree"])
    return gold == answer or alike or any("unit" in dict(side.dimensions) for side in (gold, answer))


def changes_value(words: Iterable[str]) -> bool:
    """Whether text that is not understood could change the number before it."""
    return any(map(_changes, words))


def _changes(word: str) -> bool:
    if word in _OBJECTS:
        return False
    operation = word in _OPERATIONS or singular(word) in _OPERATIONS or word.endswith("wards")
    return operation or is_number_word(word) or not word.isalpha()


def is_plural(word: str) -> bool:
    return word in _PLURALS or (len(word) >= 4 and word.endswith("s") and not word.endswith(("ss", "us", "is")))


def singular(word: str) -> str:
    """One form for a noun and its plural."""
    for ending, other in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + other
    irregular = {"people": "person", "children": "child", "men": "man", "women": "woman"}
    return irregular.get(word) or (word[:-1] if word.endswith("s") and not word.endswith("ss") else word)


def _unit_at(tokens: Sequence[str], place: int) -> Unit | None:
    """The unit that consists of this word and no other meaning; "second" is a fraction and a unit."""
    return unit_named(tokens[place]) if place < len(tokens) else None


def _read_unit(tokens: Sequence[str], place: int, *, single: bool) -> tuple[Unit | None, int]:
    """A product of units from `place` on, and where it ends."""
    factor, powers, start = Fraction(1), Counter[str](), place
    sign, end = 1, place
    while place < len(tokens):
        token = tokens[place]
        if token in ("/", "per", "\u00b7", "-", "(", ")", "\\"):
            sign = -1 if token in ("/", "per") else sign
            place += 1
            continue
        power = 1
        if token.lower() in ("square", "sq", "cubic", "cu"):
            power = 2 if token.lower() in ("square", "sq") else 3
            place += 1
            token = tokens[place] if place < len(tokens) else ""
        named = _longest_name(tokens, place)
        unit, used = named if named else (unit_named(token, single=single), 1)
        if unit is None or (token == "in" and place + 1 < len(tokens) and tokens[place + 1].isalpha()):
            break
        place += used
        if place < len(tokens):
            raised = _POWER.fullmatch(tokens[place])
            spelled = {"squared": 2, "cubed": 3}.get(tokens[place].lower())
            digit = re.fullmatch("[23]", tokens[place])
            if raised or spelled or digit:
                power *= int(raised.group(1)) if raised else spelled or int(tokens[place])
                place += 1
        factor *= unit.factor ** (sign * power)
        for name, count in unit.dimensions:
            powers[name] += sign * power * count
        end, sign = place, sign if sign < 0 and tokens[place - 1] != "per" else 1
    if end == start:
        return None, start
    return Unit(factor, tuple(sorted((name, count) for name, count in powers.items() if count))), end


_PHRASES = {
    ("degrees", "celsius"): "celsius", ("degree", "celsius"): "celsius", ("degrees", "fahrenheit"): "fahrenheit",
    ("degree", "fahrenheit"): "fahrenheit", ("degrees", "c"): "celsius", ("degrees", "f"): "fahrenheit",
    ("\u00b0", "c"): "celsius", ("\u00b0", "f"): "fahrenheit", ("light", "years"): "lightyear",
    ("light", "year"): "lightyear", ("us", "dollars"): "dollar", ("us", "dollar"): "dollar", ("\u00b0",): "degree",
    ("nautical", "miles"): "nmi", ("nautical", "mile"): "nmi", ("fluid", "ounces"): "floz", ("fl", "oz"): "floz",
    ("pounds", "sterling"): "quid", ("british", "pounds"): "quid",
}  # fmt: skip


def _longest_name(tokens: Sequence[str], place: int) -> tuple[Unit, int] | None:
    """A unit of two words, such as "degrees Celsius"."""
    for length in (2, 1):
        name = _PHRASES.get(tuple(token.lower() for token in tokens[place : place + length]))
        if name:
            return _WORDS.get(name) or _MARKS[name], length
    return None
