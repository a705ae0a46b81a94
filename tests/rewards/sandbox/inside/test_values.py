"""Encoding of Python values between host and sandbox."""

import datetime
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest

from rewards.sandbox.inside import values, wire

DATA = [
    None, True, 0, -1, 2**70, 1.0, -0.0, float("inf"), "x", "\ud800", b"\xff", bytearray(b"a"), 1j, (1, (2,)),
    [1, [2]], {1, 2}, frozenset({1}), {1: (2,), (3,): None}, range(1, 9, 2), deque([1]), Decimal("1.10"),
    Fraction(1, 3), array("i", [1, 2]), datetime.date(2024, 2, 29), datetime.timedelta(1, 2, 3),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC),
]  # fmt: skip


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def refuse(*_):
    raise AssertionError("it is plain data")


def test_values_keep_their_types():
    for value in DATA:
        back = values.decode(wire.unpack(wire.pack({"v": values.encode(value)})[4:])["v"])
        assert back == value and type(back) is type(value) and repr(back) == repr(value)
    downcast = [
        (Counter("aab"), dict),
        (OrderedDict(a=1), dict),
        (namedtuple("P", "x")(1), tuple),
        (type("I", (int,), {})(3), int),
    ]
    for value, kind in downcast:
        assert type(values.decode(values.encode(value))) is kind
    assert list(values.decode(values.encode(x for x in (1, 2)))) == [1, 2]
    assert list(values.decode(values.encode({"a": 1}.items()))) == [("a", 1)]


def test_containers_of_the_library_keep_their_types_between_tests_and_program():
    for value in [*DATA, Counter("aab"), OrderedDict(b=1, a=2), defaultdict(None, {1: [2]})]:
        back = values.Decoder(refuse).decode(values.Encoder(refuse).encode(value))
        assert back == value and type(back) is type(value) and repr(back) == repr(value)


def test_the_same_container_stays_the_same():
    inner = [1]
    loop: list = [inner]
    loop.append(loop)
    encoder = values.Encoder(refuse)
    data = encoder.encode([inner, {"a": inner}, (inner, bytearray(b"x")), loop])
    back = values.Decoder(refuse).decode(data)
    assert back[0] is back[1]["a"] is back[2][0] is back[3][0] and back[3][1] is back[3]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([3, [1], {"k": [2]}], lambda a: (a[1].append(a[2]["k"]), a.reverse())),
        ([{1: []}, set(), deque([1]), bytearray(b"ab"), Counter("a"), defaultdict(None)],
         lambda a: (a[0][1].append(a[1]), a[1].add(5), a[2].appendleft([7]), a[3].pop(), a[4].update("ab"),
                    a[5].update(x=a[0]))),
    ],
)  # fmt: skip
def test_changes_of_arguments_arrive(before, after):
    """As in a call: the reader has the containers, the writer has changed its copies of them."""
    encoder = values.Encoder(refuse)
    program = values.Decoder(refuse)
    changed = program.decode(encoder.encode(before))
    kept = list(encoder.containers)
    after(changed)
    answer = values.Encoder(refuse, program.containers)
    contents = [[number, answer.contents(container)] for number, container in enumerate(program.containers)]
    result = answer.encode([changed, changed[0]])
    reader = values.Decoder(refuse, encoder.containers)
    for number, content in contents:
        reader.refill(number, content)
    back = reader.decode(result)
    assert before == changed and back[0] is before and back[1] is before[0]
    assert all(one is two for one, two in zip(kept, reader.containers, strict=False))


def test_depth_and_size_are_limited():
    back, depth = values.decode(values.encode(nested(values.MAX_DEPTH - 1))), 0
    while back:
        back, depth = back[0], depth + 1
    assert depth == values.MAX_DEPTH - 1
    for value in (nested(values.MAX_DEPTH + 1), [0] * 5_000_000, 1 << (5 * wire.MAX_MESSAGE)):
        with pytest.raises(wire.NotPlain):
            values.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        {"x": 1}, {"t": 1}, {"t": [1], "s": [1]}, {}, {"i": "zz"}, {"i": 5}, {"d": [[1]]}, {"d": [[[1]], [1]]},
        {"d": [[1], []]}, {"s": [[1]]}, {"f": "1"}, {"D": "x"}, {"@": 0}, {"@": "x"}, {"dd": [None]}, {"A": ["x", [1]]},
        {"F": [1, 0]}, {"c": ["1", "2"]}, {"r": ["x"]}, {"o": ["x", 1]}, {"ba": "\u1234"}, {"it": None}, {"when": "no"},
        nested(values.MAX_DEPTH + 10),
    ],
)  # fmt: skip
def test_invalid_values_are_not_decoded(data):
    with pytest.raises(ValueError):
        values.decode(data)
