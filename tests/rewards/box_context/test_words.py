"""The closed classes of words: every word of a class has the effect of its class, in a sentence that differs by it."""

import pytest

from rewards.box_context import words
from rewards.extraction import final_answer

REFUSED, PAID, BOTH = None, "17", "17, 40"

CARRIERS = {
    "NEGATORS": ("$17$ is WORD correct.", REFUSED),
    "FALSITY": ("$17$ is WORD.", REFUSED),
    "DOUBTFUL": ("$17$ is WORD.", REFUSED),
    "TRAPS": ("$17$ is a WORD.", REFUSED),
    "ESTIMATES": ("$17$ is a rough WORD.", REFUSED),
    "DISCARDED": ("$17$ (WORD)", REFUSED),
    "REFUSALS": ("$17$: WORD.", REFUSED),
    "AWAY": ("$17$ is WORD.", REFUSED),
    "MISTAKENLY": ("We WORD answered $17$.", REFUSED),
    "FAILURES": ("$17$ WORD the condition.", REFUSED),
    "DENIALS": ("We WORD out that it is $17$.", REFUSED),
    "OPINIONS": ("I do not WORD that the answer is $17$.", REFUSED),
    "TRUTHS": ("$17$. But it is not WORD.", REFUSED),
    "NEUTRAL": ("$17$ is not WORD.", PAID),
    "DIFFERS": ("$17$ WORD the answer.", REFUSED),
    "TRUE": ("$17$. The WORD number is 18.", REFUSED),
    "ANSWERS": ("$17$ is twice the WORD.", REFUSED),
    "NAMES": ("We discard the WORD $17$.", REFUSED),
    "SUBJECTS": ("$17$, WORD is wrong.", REFUSED),
    "BOUNDS": ("The answer is WORD than $17$.", REFUSED),
    "COMPARATIVES": ("The answer is WORD $17$.", REFUSED),
    "MULTIPLES": ("The answer is WORD $17$.", REFUSED),
    "FUNCTIONS": ("The answer is the WORD of $17$.", REFUSED),
    "UNARY": ("$17$ WORD.", REFUSED),
    "BINARY": ("$17$ WORD $3$.", REFUSED),
    "AUXILIARIES": ("$3, 5$ WORD wrong.", REFUSED),
    "COPULAS": ("$3, 5$ WORD wrong.", REFUSED),
    "VERBS": ("$3, 5$ WORD wrong.", REFUSED),
    "PLURALS": ("$17$ WORD wrong.", PAID),
    "HYPOTHETICAL": ("$17$. Now the answer WORD be 18.", PAID),
    "DOUBTS": ("$17$, WORD, 18.", REFUSED),
    "INTERJECTIONS": ("$17$. WORD no, 18.", REFUSED),
    "WITHDRAWALS": ("$17$. WORD that, 18.", REFUSED),
    "CORRECTIONS": ("$17$. WORD that to 18.", REFUSED),
    "REVISIONS": ("$17$. WORD: 18.", REFUSED),
    "HEDGES": ("$17$, WORD $40$.", REFUSED),
    "OFFERS": ("$17$ WORD \\boxed{40}", BOTH),
    "CONTRASTS": ("$17$, WORD this is wrong.", REFUSED),
    "CONDITIONS": ("$17$ WORD $n$ even and $40$ WORD $n$ odd.", REFUSED),
    "ASSUMPTIONS": ("$17$. WORD that it were $n$. But this is wrong.", PAID),
    "UNCERTAIN": ("$17$. But WORD, this is wrong.", PAID),
    "APPROXIMATE": ("$17$ or WORD.", PAID),
    "CONCLUSIONS": ("$17$ is not even, WORD it is odd.", PAID),
    "CONSEQUENCES": ("It is not even WORD $17$.", PAID),
    "CONNECTIVES": ("They do not meet WORD $17$.", PAID),
    "PRONOUNS": ("It is not long before WORD $17$.", PAID),
}


def classes() -> set[str]:
    return {name for name, value in vars(words).items() if isinstance(value, frozenset) and name[0] != "_"}


def test_every_class_has_a_carrier() -> None:
    assert classes() == set(CARRIERS)


STAND_INS = {"HYPOTHETICAL": "must", "APPROXIMATE": "more", "PLURALS": "is"}
"""Words of another class, for carriers in which a word of no class would have the effect, too."""


def has_effect(word: str, carrier: str, effect: str | None) -> bool:
    text = carrier.replace("WORD", word)
    for box in ("17", "3, 5"):
        text = text.replace(f"${box}$", f"$\\boxed{{{box}}}$")
    answer = final_answer(text)
    return answer not in ("17", "3, 5") if effect is REFUSED else answer == effect


@pytest.mark.parametrize("name", CARRIERS)
def test_every_word_has_the_effect_of_its_class_and_no_other_word(name: str) -> None:
    carrier, effect = CARRIERS[name]
    assert [word for word in sorted(getattr(words, name)) if not has_effect(word, carrier, effect)] == []
    assert not has_effect(STAND_INS.get(name, "paper"), carrier, effect)
