"""The reward `code`: scripts find what a Python interpreter would give them."""

import pytest

TWO_LINES = [{"stdin": "4\n10 20 30 40\n", "stdout": "100\n"}]
SCRIPTS = {
    "size of stdin": "import os\nd = os.read(0, os.fstat(0).st_size).split()\nprint(sum(map(int, d[1:])))",
    "stdin by its name": "d = open('/dev/stdin').read().split()\nprint(sum(map(int, d[1:])))",
    "stdin by its number": "d = open('/dev/fd/0').read().split()\nprint(sum(map(int, d[1:])))",
    "a path": "import pathlib\nd = pathlib.Path('/dev/stdin').read_text()\nprint(sum(map(int, d.split()[1:])))",
    "seek": "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\ninput()\nprint(sum(map(int, input().split())))",
    "map": "import mmap\nd = mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].split()\nprint(sum(map(int, d[1:])))",
    "fileinput": "import fileinput\nfor line in fileinput.input(): last = line\nprint(sum(map(int, last.split())))",
    "exit": "input()\nprint(sum(map(int, input().split())))\nexit()\nprint('not reached')",
    "exit 0": "import builtins\ninput()\nprint(sum(map(int, input().split())))\nbuiltins.quit(0)",
    "a quick exit": "import os\nprint(100, flush=True)\nos._exit(0)",
    "stdout given to another": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())\nprint(100)",
    "a stack as large as the memory": "import threading\nthreading.stack_size(512 << 20)\n"
    "thread = threading.Thread(target=print, args=(100,))\nthread.start()\nthread.join()",
    "time zones": "from datetime import *\nfrom zoneinfo import ZoneInfo\n"
    "print(100 + (datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Paris')).utcoffset() != timedelta(hours=2)))",
    "arguments": "import sys\ninput()\nprint(sum(map(int, input().split())) if sys.argv[1:] == [] else sys.argv)",
    "its file": "import os\nassert os.path.basename(__file__) == 'solution.py'\nprint(100)",
    "its source": "import inspect\ndef f(): return 100\nassert 'return 100' in inspect.getsource(f)\nprint(f())",
    "closed stdout": "import sys\nprint(100)\nsys.stdout.flush()\nsys.stdout.close()",
    "closed descriptor": "import os\nprint(100, flush=True)\nos.close(1)",
    "a stdout of its own": "import io, sys\nreal, sys.stdout = sys.stdout, io.StringIO()\nprint(100)\n"
    "real.write(sys.stdout.getvalue())",
    "an unflushed stdout of its own": "import sys\nsys.stdout = open(1, 'w', closefd=False)\nprint(100)",
    "stdout by its name": "print(100, file=open('/dev/stdout', 'w'))",
    "stderr by its name": "print('x', file=open('/dev/stderr', 'w'))\nprint(100)",
    "large integers": "print(len(str(10 ** 9999)) // 100)",
    "built-in functions": "__builtins__.print(100)",
    "main": "import __main__\nvalue = 100\nprint(__main__.value)",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_what_an_interpreter_gives(verdict, name):
    result = verdict(SCRIPTS[name], TWO_LINES)
    assert result.value == 1.0, result


def test_large_integers_in_and_out(verdict):
    digits = "7" * 6000
    assert verdict("print(int(input()) + 1)", [{"stdin": digits, "stdout": digits[:-1] + "8"}]).value == 1.0
    program = "def grow(n):\n    int('9' * 5000)\n    return 2 ** n"
    assert verdict(program, ["assert len(str(grow(30000))) == 9031"]).value == 1.0


@pytest.mark.parametrize("end", ["exit(1)", "quit('no')", "raise SystemExit(2)"])
def test_a_script_that_reports_a_failure_fails(verdict, end):
    assert verdict(f"print(100)\n{end}", TWO_LINES).value == 0.0


def test_the_input_cannot_be_changed(verdict):
    """It is a file, but not the program's: nothing of what one run does to it reaches another."""
    program = "import os\nfor change in (lambda: os.write(0, b'x'), lambda: os.ftruncate(0, 0)):\n"
    program += "    try:\n        change(); print('changed')\n    except OSError: pass\nprint(input())"
    assert verdict(program, [{"stdin": "7", "stdout": "7"}]).value == 1.0
