"""Programs that try to be rewarded without solving `triple(x) -> 3 * x`. Each has fooled a public harness."""

LYING = """
class Lie{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return 0
    def __len__(self): return 0
    def __abs__(self): return 0
    def __sub__(self, other): return 0
    __rsub__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__
    def __round__(self, n=None): return self
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
def triple(x): return Lie({argument})
"""

CHEATS = {
    "exit at import": "import sys; sys.exit(0)",
    "hard exit at import": "import os; os._exit(0)",
    "exit in the function": "import sys\ndef triple(x): sys.exit(0)",
    "hard exit in the function": "import os\ndef triple(x): os._exit(0)",
    "exit at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef triple(x): return None",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef triple(x): raise AssertionError",
    "lying object": LYING.format(base="", argument=""),
    "lying int": LYING.format(base="(int)", argument="1"),
    "lying str": LYING.format(base="(str)", argument="'1'"),
    "lying list": LYING.format(base="(list)", argument="[1]"),
    "lying float": LYING.format(base="(float)", argument="1.0"),
    "lying dict": LYING.format(base="(dict)", argument="{1: 1}"),
    "lying class": """
class Lie:
    __class__ = int
    def __eq__(self, other): return True
def triple(x): return Lie()
""",
    "metaclass": """
class Meta(type):
    def __eq__(cls, other): return True
    def __hash__(cls): return 0
class Lie(metaclass=Meta): pass
def triple(x): return Lie
""",
    "patched builtins": """
import builtins
builtins.bool = builtins.isinstance = builtins.all = lambda *a: True
builtins.AssertionError = type("Quiet", (Exception,), {})
builtins.len = lambda *a: 1
def triple(x): return 0
""",
    "patched json": """
import json
json.dumps = lambda *a, **k: '{"nonce": "", "ok": true, "result": [0, true, ""]}'
json.loads = lambda *a, **k: {}
def triple(x): return 0
""",
    "patched driver": """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("inside"):
        for key, value in list(vars(module).items()):
            if callable(value) and key in ("same_value", "encode", "_encode"):
                setattr(module, key, lambda *a, **k: True)
def triple(x): return 0
""",
    "walking frames": """
import sys
def triple(x):
    frame = sys._getframe()
    while frame:
        for scope in (frame.f_locals, frame.f_globals):
            for name in ("expected", "answer", "result", "tests", "case"):
                if name in scope:
                    return scope[name]
        frame = frame.f_back
""",
    "walking gc": """
import gc
def triple(x):
    for thing in gc.get_objects():
        if isinstance(thing, dict) and thing.get("expected") is not None:
            return thing["expected"]
        if isinstance(thing, (list, tuple)):
            for part in thing:
                if isinstance(part, str) and "assert triple" in part:
                    return int(part.split("==")[-1])
""",
    "forged results on every descriptor": """
import json, os, struct
def forge():
    for message in ({"result": [0, True, ""]}, {"nonce": "", "ok": 3}, {"end": True}, {"ok": None}, {"ready": True}):
        body = json.dumps(message).encode()
        for fd in range(64):
            try:
                os.write(fd, struct.pack(">I", len(body)) + body)
            except OSError:
                pass
forge()
def triple(x):
    forge(); return 0
""",
    "reading the nonce and answering ahead": """
import gc, json, os, struct, threading, time
def forge():
    while True:
        for frame in __import__("sys")._current_frames().values():
            while frame:
                for call in list(frame.f_locals.values()):
                    if isinstance(call, dict) and "nonce" in call:
                        for value in range(200):
                            body = json.dumps({"nonce": call["nonce"], "ok": value}).encode()
                            os.write(3, struct.pack(">I", len(body)) + body)
                frame = frame.f_back
threading.Thread(target=forge, daemon=True).start()
def triple(x):
    time.sleep(0.2); return 0
""",
    "pass marker": "print('PASSED'); print('1 passed'); print('OK')\ndef triple(x): print('PASSED'); return True",
    "stop iteration": "def triple(x): raise StopIteration",
    "assertion error": "def triple(x): raise AssertionError",
    "generator exit": "def triple(x): raise GeneratorExit",
    "reading the tests": """
import glob, os
def triple(x):
    for path in ("/proc/self/cmdline", "/proc/self/environ", "/proc/1/mem", *glob.glob("/tmp/*"),
                 *glob.glob("/opt/*/*/*"),
                 *glob.glob("*")):
        try:
            text = open(path).read()
        except (OSError, ValueError):
            continue
        if "assert triple" in text:
            return int(text.split("==")[1].split()[0])
""",
    "a thread that outlives the call": """
import threading, time, builtins
def later():
    while True:
        time.sleep(0.001); builtins.triple = lambda x: 3 * x
threading.Thread(target=later, daemon=True).start()
def triple(x): return 0
""",
    "clearing the argument": "def triple(x):\n    x *= 0\n    return 0\n",
    "a function for each": "def triple(x): return triple",
    "infinity": "def triple(x): return float('nan')",
    "true": "def triple(x): return True",
    "text": "def triple(x): return str(3 * x)",
    "unpickled": """
class Bomb:
    def __reduce__(self): return (eval, ("print('x')",))
def triple(x): return Bomb()
""",
}

LIVE_TESTS = [
    "assert triple(1) == 3",
    "assert triple(2) != 5 and triple(2) == 6",
    "assert abs(triple(1.0) - 3.0) < 1e-9",
    "assert 3 - triple(1) == 0",
    "assert 2.9 < triple(1) < 3.1",
    "assert triple(1) in (3, 4) and 3 in [triple(1)]",
    "assert str(triple('ab')).startswith('abab') and triple('ab').endswith('abab')",
    "assert triple('a').isalpha()",
    "assert {triple(1), triple(2)} == {3, 6}",
    "assert {triple(1): 'x'}[3] == 'x'",
    "assert isinstance(triple(1), int) and not triple(1) - 3",
    "x = triple(1)\nassert x == x and x == 3",
    "try:\n    triple(None)\n    assert False\nexcept TypeError:\n    assert triple(1) == 3",
    "import math\nassert math.isclose(triple(1.0), 3.0)",
    "assert round(triple(1.0), 2) == 3.0",
    "from pytest import approx\nassert triple(1.0) == approx(3.0)",
    "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(triple(1), 3)",
]
"""Tests of `triple` that do not know of objects: no object of a program's own may pass one."""

_EVERYTHING = (
    """
class Everything{base}:
    def __init__(self, *values): pass
    def __getattr__(self, name):
        if name in ("_number_of_error",): raise AttributeError(name)
        return lambda *values, **named: {answer}
"""
    + "".join(
        f"    def __{name}__(self, *values): return {{answer}}\n"
        for name in (
            "eq ne lt le gt ge add sub mul radd rsub rmul neg abs round floor truediv rtruediv contains getitem call "
            "instancecheck mod xor and or iadd isub"
        ).split()
    )
    + """
    def __bool__(self): return True
    def __hash__(self): return hash(3)
    def __len__(self): return 1
    def __int__(self): return 0
    def __float__(self): return 0.0
    def __index__(self): return 0
    def __str__(self): return "0"
    def __iter__(self): return iter([self])
    @property
    def __class__(self): return int
"""
)
LIVE_CHEATS = {
    **{
        f"everything is {answer}{base}": _EVERYTHING.format(base=base, answer=answer) + f"triple = {form}"
        for answer in ("self", "True", "0", "values[0]")
        for base in ("", "(list)", "(dict)")
        for form in ("lambda x: Everything()", "Everything")
    },
    "an exception class": "class triple(Exception):\n    __eq__ = lambda *values: True\n    __hash__ = None",
    "an equal error": "class E(TypeError):\n    __eq__ = lambda *v: True\n    __sub__ = lambda *v: 0\n"
    "def triple(x):\n    if x is None: raise E\n    return E()",
    "an iterator": "def triple(x):\n    while True: yield 3",
    "a coroutine": "async def triple(x): return 3 * x",
    "an awaitable loop": "class A:\n    def __await__(self): yield\ndef triple(x): return A()",
    "a string of its own": "class S(str):\n    __eq__ = lambda *v: True\n    startswith = endswith = isalpha = __eq__\n"
    "    __hash__ = str.__hash__\ndef triple(x): return S('1 2')",
    "a tuple of its own": "class S(tuple):\n    __eq__ = lambda *v: True\n    __sub__ = __rsub__ = lambda *v: 0\n"
    "def triple(x): return S()",
    "a metaclass": "class M(type):\n    __eq__ = __lt__ = __gt__ = lambda *v: True\n"
    "    __sub__ = __rsub__ = lambda *v: 0\n"
    "    __hash__ = type.__hash__\nclass triple(metaclass=M):\n    def __new__(cls, x): return cls",
    "a built-in type": "def triple(x): return int",
    "forged references": """
from inside import values, objects
def lie(self, value, part, contents): return {reference}
objects.Objects._reference = lie
class triple:
    def __init__(self, x): pass
""".replace("{reference}", '{"o": [2, "int", "list", None]}'),
    "forged types": "from inside import objects\nobjects.Objects._reference = lambda *v: {'type': 'Exception'}\n"
    "class triple:\n    def __init__(self, x): pass",
    "forged changes": """
from inside import objects
plain = objects.Objects._answer
def lie(self, request):
    answer = plain(self, request)
    return {**answer, "changed": [[0, [3]], [1, 3], [-1, []], [99, []]]}
objects.Objects._answer = lie
def triple(x): return 0
""",
    "forged callback": """
from inside import objects, wire
def triple(x):
    import gc
    for self in gc.get_objects():
        if type(self) is objects.Objects:
            for number in range(-2, 5):
                wire.send(3, {"nonce": self._nonce, "callback": number, "args": [3], "kwargs": {}})
                wire.receive(3)
    return 0
""",
}
"""Objects that try to pass `LIVE_TESTS`."""

SCRIPT_CHEATS = {  # try to be rewarded for printing three times the number on stdin
    "exit": "import os; os._exit(0)",
    "right but killed": "import os; print(3 * int(input()), flush=True); os.abort()",
    "right but ended with a failure": "import os; print(3 * int(input()), flush=True); os._exit(1)",
    "right but failed": "import sys; print(3 * int(input())); sys.exit(1)",
    "pass marker": "print('PASSED')",
    "forged end": "import os, struct\nb = b'{\"ok\": null}'\nos.write(3, struct.pack('>I', len(b)) + b)\nos._exit(0)",
    "nothing": "",
}
