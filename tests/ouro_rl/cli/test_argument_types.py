"""Which values an option accepts, and its errors for the others."""

from __future__ import annotations

import argparse

import pytest

from ouro_rl.cli.argument_types import count, list_of, number, share, user_function, whole


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(0), "0", 0),
        (whole(0), " 12 ", 12),
        (count, "1", 1),
        (number(0.0), "0", 0.0),
        (number(0.0, above=True), "1e-9", 1e-9),
        (number(0.0, 0.999), "0.999", 0.999),
        (share, "1", 1.0),
        (list_of(count), "1,2,4", (1, 2, 4)),
        (list_of(share), "0.5", (0.5,)),
        (user_function, "a.b:f", "a.b:f"),
    ],
)
def test_accepted_values(kind, text, value) -> None:
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (whole(0), "-1", "'-1' is not a whole number from 0"),
        (whole(0), "1.0", "'1.0' is not a whole number from 0"),
        (whole(0), "", "'' is not a whole number from 0"),
        (count, "0", "'0' is not a whole number from 1"),
        (number(0.0), "-0.1", "'-0.1' is not a number of at least 0"),
        (number(0.0), "inf", "'inf' is not a number of at least 0"),
        (number(0.0), "nan", "'nan' is not a number of at least 0"),
        (number(0.0), "warm", "'warm' is not a number of at least 0"),
        (number(0.0, above=True), "0", "'0' is not a number greater than 0"),
        (number(0.0, 0.999), "1", "'1' is not a number of at least 0 and at most 0.999"),
        (share, "0", "'0' is not a number greater than 0 and at most 1"),
        (share, "1.01", "'1.01' is not a number greater than 0 and at most 1"),
        (list_of(count), "1,0", "'0' is not a whole number from 1"),
        (list_of(count), "1,", "'' is not a whole number from 1"),
        (user_function, "mine", "'mine' does not name a function"),
    ],
)
def test_rejected_values(kind, text, message) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(text)
    assert str(error.value).startswith(message)
