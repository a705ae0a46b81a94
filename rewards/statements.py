"""Reads answers that are stated in prose: "The answer is $42$.", `#### 42`, an answer under its own heading.

The last statement counts. It is read up to the end of its sentence, so that `$42$ or $43$` is not 42."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.box_context.sentence import is_conditional, is_denied, is_hedged, opens_another, tail_of
from rewards.vocabulary.units import changes_value

_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]+)")
_ASIDE = r"(?:\s+(?:to|for|of)\s+[^.\n:=]{1,80}?)?"
_VERB = (
    r"(?:is|are|should\s+be|must\s+be|would\s+be|will\s+be|equals|becomes|evaluates\s+to|"
    r"(?:comes|works|turns)\s+out\s+(?:to\s+be|to|as|at))\b"
)
_PHRASE = re.compile(
    rf"(?:\b(?:answers?|result\s+is\s+therefore){_ASIDE}[\s*_}}]*(?:{_VERB}|[=:\uff1a])|答案\s*(?:是|为|[:\uff1a]))[\s*_}}:]*"
    r"(?:(?:therefore|thus|then|hence|simply|just|indeed|clearly|obviously|certainly|definitely|surely|exactly|precisely|now|also|given\s+by|equal\s+to)\b[\s,:*_]*)*",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[#*_> \t-]*(?:the\s+|my\s+)?(?:final\s+)?answer(?:[*_:#. \t\r]*+\n)++[\s*_]*+(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED = re.compile(r"\d+[.)]\s+\S*[A-Za-z]")
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z ,:'*-]*")
_DISPLAY = re.compile(
    r"\$\$(?P<dollars>.+?)\$\$|\\\[(?P<brackets>.+?)\\\]"
    r"|\\begin\{(?P<kind>(?:align|equation|gather)\*?|displaymath)\}(?P<lines>.+?)\\end\{(?P=kind)\}",
    re.DOTALL,
)
_INLINE = re.compile(r"(?<!\\)\$((?:[^$\\\n]|\\.)+)\$|\\\((.+?)\\\)", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)\$")
_NUMBER = re.compile(r"-?\d")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf)\s*\{[^{}]*\}")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_SENTENCE_END = re.compile(r"(?<![\d\\])[.!?](?=\s|$)|(?<=\d)[.!?](?=\s|$)")
_ABBREVIATIONS = re.compile(r"\b(?:a\.m|p\.m|Rs|sq|cu|approx|e\.g|i\.e|vs|no|ft|in)$", re.IGNORECASE)
_CLAUSE = re.compile(
    r"(?:\s*[,;:]\s*|\s+[-\u2013\u2014]+\s+|\s+)(?:which|instead|because|since|as\s+(?:required|desired|requested|shown|expected|we|it|the|this|there)|as\s+(?=[\d$\\(])|"
    r"so\s+(?:we|the|this|it|that)|where\s|therefore|hence|thus|given\s+that|(?:obtained|found|computed|calculated|derived)\s+(?:by|from|as|using)|obtained|i\.e|that\s+is|"
    r"and\s+(?:it|this|that|we|they|so)\b|when\s+rounded|rounded|to\s+the\s+nearest)\b.*$"
    r"|\s*[,(]\s*not\s+.*$",
    re.IGNORECASE | re.DOTALL,
)
_APART = re.compile(
    r"\s*\(\s*(?P<said>(?=(?:in|about|roughly|approximately|approx|since|because|nearest|rounded|to\s+the|as)\b"
    r"|[^()]*\b[A-Za-z]{3,}\b[^()]*\b[A-Za-z]{3,}\b)[^()]*)\)\s*$",
    re.IGNORECASE,
)
"""Matches `(the other root is rejected)`, what is said in parentheses after a value: a sentence of its own."""
_ROUNDED = re.compile(r"\bnearest\s+[a-z]+|\b(?:about|roughly|approximately|approx)(?=[.\s$\\]*\d)")
"""Matches what only says how an answer is rounded."""
_SOURCE = re.compile(
    r"[\s,;]*(?:obtained|found|computed|calculated|derived)\s+(?:by|from|as|using)\s+"
    r"(?:[^A-Za-z\\]|\\[A-Za-z]+|\b(?:and|times|plus|minus|multiplying|adding)\b)++",
    re.IGNORECASE,
)
"""Matches from which numbers an answer comes: they are no other answers."""
_LONGEST = 1000
"""Characters of a line that are read."""
_CORRECTED = re.compile(
    r"\b(?:(?:it|this|that)\s+(?:should|must)\s+(?:\w+\s+)?be|the\s+(?:real|actual|correct|true|right|proper)\s+(?:\w+\s+){1,3}?"
    r"(?:is|are|should\s+be|must\s+be|equals)|I\s+meant)[\s*_:]+(?=[$\\(\[{]|-?[\d.])",
    re.IGNORECASE,
)
"""Matches what states an answer where the text takes one back: "it should be", "the real probability is"."""
_INSTEAD = re.compile(
    r"\bthe\s+(?:total|(?:\w+\s+){1,4}?(?:that\s+)?we\s+(?:want|need|seek|wanted|needed))\s+(?:is|equals)[\s*_:]+(?=[$\\(\[{]|-?[\d.])"
    r"|(?<=[.!?;:]\s)it\s+is\s+(?=\$?-?[\d\\.][^\s]*?\$?\s*(?:[.!]?$|[.!]\s))",
    re.IGNORECASE,
)
"""Matches what states an answer where the text has taken one back: "the total is", "It is 4." as a sentence."""
_DESCRIBED = re.compile(
    r"(?:that\s+)?(?:the|its|his|her|their|our|my)\s+(?P<what>(?:(?!\b(?:that|which|whose|if|when|than|is|are|where|with)\b)"
    r"[A-Za-z ,'-]|\$[a-zA-Z]\$){1,60}?)\s+(?:is|are|equals|was)\s+(?=\\?\$|-?[\d.]|\\|\(-?\d)",
    re.IGNORECASE,
)
"""Matches `the largest $n$ is`, before the value of an answer."""
_COUNTED = re.compile(
    r"(?:(?:there|he|she|it|they|we|you|[A-Z][a-z]+)\s+(?:is|are|was|were|has|have|had)\s+)?"
    r"(?P<count>\\?\$?-?\d[\d,./]*(?P<nouns>(?:\s+(?!(?:is|are|was|were|at|in|on|left|remaining|and|or|the|than)\b)[A-Za-z-]{2,}){1,3}?))"
    r"(?P<verb>\s+(?:is|are|was|were|at|in|on)(?:\s+left\b)?(?P<said>\b\D*)|\s+(?:left|remaining))?"
)
"""Matches `there are 9 apples left`: a value with what is counted, and what is said of it."""
_WORD = re.compile(r"[a-z]+")
_QUANTITIES = frozenset("sum product difference quotient ratio percentage extra additional".split())
_NUMBER_OR_COMMAND = re.compile(r"\d|\\[A-Za-z]")
_DENIED = re.compile(r"not\s+(?:\$[^$\n]{1,40}\$|[^\s$]{1,40}),?\s+but\s+(?:rather\s+|instead\s+)?", re.IGNORECASE)
"""`not 15 but`, before the answer."""
_VALUE = re.compile(r"\$|\\[(\[a-z]|-?\.?\d")
"""Matches the beginning of the value in a clause that puts another one right."""
_MARKUP = " \t\n*_`"


def stated_answer(text: str) -> str | None:
    """The last stated answer; None if there is none, or if the text after it takes it back. Questions and conditions
    state nothing."""
    return _last_stated(text)


def tagged_answer(content: str) -> str | None:
    """The answer between tags: a statement, or one that is read as under a heading; None if it takes itself back.
    Several lines without a statement are one answer."""
    stated = stated_answer(content)
    if stated or "\n" in content:
        return stated or content
    return _checked(*_read(content, 0, 0, corrects=False))


def unless_taken_back(before: str, answer: str, after: str) -> str | None:
    """An answer, or the one that the text after it gives instead; None if the text takes it back."""
    tail = tail_of(before, answer, after)
    instead = _replacement(tail.doubt, answer, taken_back=tail.taken_back) if tail.doubt else None
    if instead is None and tail.repair is not None:
        value = _VALUE.search(tail.repair)
        instead = _read(tail.repair, value.start(), value.start(), corrects=True)[0] if value else None
    return instead or (None if tail.taken_back else answer)


def _replacement(doubt: str, answer: str, *, taken_back: bool) -> str | None:
    """The answer that is stated in a text that doubts another one; None without a value. It may be the same answer.
    taken_back: the text takes the other one back, so that "the total is 61" is an answer, too."""
    stated = _last_stated(doubt, (_CORRECTED, _INSTEAD) if taken_back else (_CORRECTED,))
    if stated is None or not _NUMBER_OR_COMMAND.search(stated):
        return None
    return answer if re.match(rf"\$?{re.escape(answer)}(?![\w/^]|\.\d)", stated) else stated


def _last_stated(text: str, correcting: tuple[re.Pattern[str], ...] = ()) -> str | None:
    """The last stated answer. correcting: phrases of a text that corrects one; they state nothing elsewhere."""
    for start, end in sorted(_places(text, correcting), reverse=True):
        answer, rest = _read(text, start, end, corrects=bool(correcting))
        if answer:
            return _checked(answer, rest)
    return None


def _checked(answer: str | None, rest: str) -> str | None:
    """A statement's answer, or the one that the text after it gives instead; None if it takes the answer back."""
    return unless_taken_back("", answer, rest) if answer and not is_denied("", answer, rest) else None


def last_hashes(text: str) -> str | None:
    """The text after the last `####`."""
    found = list(_HASHES.finditer(text))
    return found[-1].group(1).strip() if found else None


def _places(text: str, correcting: tuple[re.Pattern[str], ...]) -> Iterator[tuple[int, int]]:
    """Where statements begin, and where their answers begin."""
    for pattern in (_PHRASE, _HEADING, *correcting):
        for found in pattern.finditer(text):
            yield found.start(), found.end()
    for found in _HASHES.finditer(text):
        content = found.group(1).strip()
        more = text[found.end() :].strip()
        heading = _NUMBERED.match(content) or (more and _WORDS_ONLY.fullmatch(content)) or "answer" in content.lower()
        if not heading:
            yield found.start(), found.start(1)


def _read(text: str, start: int, end: int, *, corrects: bool) -> tuple[str | None, str]:
    """The answer that begins at `end`, of a statement that begins at `start`, and the text after it."""
    content = text[end:].lstrip(_MARKUP + ":")
    denied = _DENIED.match(content)
    content = content[denied.end() :] if denied else content
    if content.startswith(("</", "<|")):
        return None, ""
    display = _DISPLAY.match(content)
    if display:
        after = content[display.end() :]
        rest = after.split("\n\n")[0].strip()
        formula = (display["dollars"] or display["brackets"] or display["lines"]).strip()
        return (formula, after) if not opens_another(rest) else (f"{formula} {_as_formula(rest)}", "")
    line = content.split("\n", 1)[0].split("</answer>")[0][:_LONGEST]
    sentence, mark, rest = _sentence(line)
    before = re.split(r"[.!?]\s|\n", text[:start])[-1]
    following = rest + content[len(line) :]
    if mark == "?" or (is_conditional(before) and (corrects or opens_another(following))):
        return None, ""
    prices, cut_off = _prices_as_text(sentence), ""
    cut, apart = _CLAUSE.search(prices), _APART.search(prices)
    if apart and apart.start() and not changes_value(_WORD.findall(_ROUNDED.sub("", apart["said"].lower()))):
        prices, cut_off = prices[: apart.start()], f". {apart['said']}"
    elif cut and cut.start() and not is_hedged(cut.group().split(",")[0]):
        prices, cut_off = prices[: cut.start()], "" if _SOURCE.fullmatch(cut.group()) else cut.group()
    described = _DESCRIBED.match(prices)
    if described and not changes_value(set(_WORD.findall(described.group("what").lower())) - _QUANTITIES):
        prices = prices[described.end() :]
    counted = _COUNTED.fullmatch(prices)
    if counted and not changes_value(_WORD.findall(f"{counted['nouns']} {counted['said'] or ''}".lower())):
        prices, cut_off = counted["count"], f"{counted['verb'] or ''}{cut_off}"
    answer = _as_formula(prices).rstrip(_MARKUP + ".,;").lstrip(_MARKUP)
    return answer or None, f"{cut_off}{mark or '.'} {following}"


def _sentence(line: str) -> tuple[str, str, str]:
    """The first sentence of a line, the mark at its end, and what follows it."""
    formulas = [found.span() for found in _INLINE.finditer(line)]
    for found in _SENTENCE_END.finditer(line):
        inside = any(low <= found.start() < high for low, high in formulas)
        if not inside and not _ABBREVIATIONS.search(line[: found.start()]) and not _opens_list(line, found.start()):
            return line[: found.start()], found.group(), line[found.end() :]
    return line, "", ""


def _opens_list(line: str, place: int) -> bool:
    """Whether a full stop belongs to an option letter: `B. Paris`."""
    return bool(re.fullmatch(r"\W*[A-J]", line[:place])) and bool(line[place + 1 :].strip())


def _prices_as_text(sentence: str) -> str:
    """Dollar signs before prices as `\\$`, so that they do not look like formulas."""
    parts: list[str] = []
    place = 0
    for found in _DOLLAR.finditer(sentence):
        if found.start() < place:
            continue
        closing = _DOLLAR.search(sentence, found.end())
        inner = sentence[found.end() : closing.start()] if closing else ""
        if inner.strip() and not _PROSE.search(_TEXT.sub("", inner)):
            end = closing.end() if closing else found.end()
            parts.append(sentence[place:end])
        elif _NUMBER.match(sentence, found.end()):
            end = found.end()
            parts.append(sentence[place : found.start()] + "\\$")
        else:
            continue
        place = end
    return "".join((*parts, sentence[place:]))


def _as_formula(sentence: str) -> str:
    """A sentence with formulas as one formula."""
    text = _DISPLAY.sub(lambda found: f" {next(group for group in found.groups() if group is not None)} ", sentence)
    text = _INLINE.sub(lambda found: next(group for group in found.groups() if group is not None), text)
    return text.replace("**", "").replace("__", "").strip(_MARKUP)
