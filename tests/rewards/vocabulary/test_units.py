"""What stands after a number: numbers in words, units with exact factors, nouns, and what is none of these."""

from fractions import Fraction

import pytest

from rewards.vocabulary.number_words import cardinal, factor_of, is_number_word
from rewards.vocabulary.units import changes_value, read_suffix, unit_named


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("zero", 0),
        ("seventeen", 17),
        ("twenty-three", 23),
        ("one hundred and five", 105),
        ("a hundred", 100),
        ("two thousand six hundred twelve", 2612),
        ("three million", 3_000_000),
        ("five dozen", 60),
        ("one one", None),
        ("hundred", None),
        ("twenty twelve", None),
        ("million five", None),
        ("and", None),
        ("five apples", None),
    ],
)
def test_cardinals(words, value):
    assert cardinal(words) == value


def test_factors():
    assert [factor_of(word) for word in ("million", "dozen", "thirds", "half")] == [
        10**6,
        12,
        Fraction(1, 3),
        Fraction(1, 2),
    ]
    assert factor_of("apples") is None
    assert all(map(is_number_word, ("Dozens", "twenty-one", "halves", "pairs", "gross")))
    assert not any(map(is_number_word, ("apples", "often", "tent")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kHz", "MHz"), ("mW", "MW"), ("nm", "mm"), ("Pa", "kPa"), ("eV", "J"), ("mph", "km/h"), ("m^2", "m^3"),
        ("m/s", "m s"), ("degrees Celsius", "degrees Fahrenheit"), ("dollars", "euros"), ("hours", "minutes"),
        ("ounces", "pounds"), ("cents", "dollars"), ("months", "years"), ("\u00b0", "radians"),
    ],
)  # fmt: skip
def test_units_that_differ(one, other):
    units = read_suffix(one).unit, read_suffix(other).unit
    assert units[0] is not None and units[1] is not None
    assert units[0] != units[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cm^2", "square centimeters"), ("m/s", "meters per second"), ("m s^{-1}", "m/s"), ("mph", "miles per hour"),
        ("N", "kg\u00b7m/s^2"), ("\u03a9", "ohms"), ("sq ft", "square feet"), ("hr", "hours"), ("J", "N\u00b7m"),
        ("\u00b0 C", "degrees Celsius"), ("kph", "km/h"), ("Hz", "1/s".replace("1", "")), ("L", "liters"),
    ],
)  # fmt: skip
def test_spellings_of_one_unit(one, other):
    units = read_suffix(one).unit, read_suffix(other).unit
    assert units[0] is not None and units[0] == units[1]


def test_nouns_and_text():
    assert read_suffix("million people").factor == 10**6
    assert read_suffix("million people").nouns == ("person",)
    assert read_suffix("boys and girls").nouns == ("boy", "and", "girl")
    for text in ("squared", "inverse", "or more", "minus one", "times", "north", "a m", "reciprocals", "upwards"):
        suffix = read_suffix(text)
        assert suffix.rest and not suffix.nouns and suffix.unit is None, text
    assert changes_value(["less"]) and changes_value(["tenths"]) and not changes_value(["red", "balls"])


def test_the_vocabulary_is_closed():
    assert all(unit_named(word) is None for word in ("cats", "hats", "dozen", "pi", "e", "x", "K", "T", "teams"))
    assert unit_named("m", single=False) is None
    assert unit_named("KILOGRAMS") == unit_named("kg")
