"""Encoding of Python values between host and sandbox."""

import pytest

from rewards.sandbox.inside import wire


def test_values_keep_their_types():
    from collections import Counter, OrderedDict, deque, namedtuple
    from decimal import Decimal
    from fractions import Fraction

    values = [
        None, True, 0, -1, 2**70, 1.0, -0.0, float("inf"), "x", "\ud800", b"\xff", bytearray(b"a"), 1j, (1, (2,)),
        [1, [2]], {1, 2}, frozenset({1}), {1: (2,), (3,): None}, range(1, 9, 2), deque([1]), Decimal("1.10"),
        Fraction(1, 3),
    ]  # fmt: skip
    for value in values:
        back = wire.decode(wire.unpack(wire.pack({"v": wire.encode(value)})[4:])["v"])
        assert back == value and type(back) is type(value) and repr(back) == repr(value)
    downcast = [
        (Counter("aab"), dict),
        (OrderedDict(a=1), dict),
        (namedtuple("P", "x")(1), tuple),
        (type("I", (int,), {})(3), int),
    ]
    for value, kind in downcast:
        assert type(wire.decode(wire.encode(value))) is kind
    assert list(wire.decode(wire.encode(x for x in (1, 2)))) == [1, 2]
    assert list(wire.decode(wire.encode({"a": 1}.items()))) == [("a", 1)]
    assert bool(wire.decode(wire.encode(len))) is True


@pytest.mark.parametrize(
    "data",
    [
        {"x": 1}, {"t": 1}, {"t": [1], "s": [1]}, {}, {"i": "zz"}, {"i": 5}, {"d": [[1]]}, {"d": [[[1], 1]]},
        {"s": [[1]]}, {"f": "1"}, {"D": "x"},
        {"F": [1, 0]}, {"c": ["1", "2"]}, {"r": ["x"]}, {"o": ["x", 1]}, {"ba": "\u1234"}, {"it": None},
        eval("[" * 80 + "]" * 80),
    ],
)  # fmt: skip
def test_invalid_values_are_not_decoded(data):
    with pytest.raises(ValueError):
        wire.decode(data)
