"""Plain English: the worst words stay out of everything that a person reads."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "uvtokend"
#: A pattern -> what to write instead.
WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bshall\b": "must, will, should",
    r"\black(s|ed|ing)?\b": "is missing",
    r"\blet go\b": "is disconnected, is released",
    r"(?<![$\"'/])\bfolders?\b(?!=)": "directory",
    r"\bodd\b": "invalid, unusual",
    r"(?<!there )(?<!\bit )\b(is|are) no (?!longer\b|more\b|token\b)": "is not a",
    r"(?<!there )\b(is|are) (?-i:none)\b": "is not one",
    r"\bnone of ours\b": "not ours",
    r"\bnobody (knows|listens|reads)\b": "name the actor",
    r"\bthere is no such\b": "unknown",
    r"\b(dies|died|dead)\b": "expires, expired, stops",
    r"\btak(es?|en) (it |them |this )?up\b": "loads, loaded",
    r"\btaken out of\b": "removed from",
    r"\bwhoever\b": "you, a program that",
    r"\bwhat came (as|out)\b": "the response",
    r"\b(stands?|stood) (in|there|at|for|under|beside|below|behind)\b": "is in, is there",
    r"\bl(ies?|ay) (in|on|below|beside|there)\b": "is in, is below",
    r"\b(speaks?|tells?|told) of\b": "is about, reports",
    r"\bhand(s|ed|ing)? out\b": "issues, returns",
    r"\b(is|are) worth\b": "the state of",
    r"\banew\b": "again",
    r"\bliving\b": "valid, running",
    r"\bin force\b": "loaded",
    r"\btakes? note\b": "note",
    r"\b(thereof|therein|hither|thither|whither|wherefore)\b": "here, there",
    r"\b(colour|behaviour|honour|favour|neighbour|centre|licence)(s|ed|ing)?\b": "US spelling",
    r"\b\w+(recognis|initialis|organis|normalis|summaris)\w*\b": "US spelling",
    r"\brights?:\*": "permissions",
}
TEXTS = [ROOT / "README.md", *sorted((SRC / "help").glob("*.md"))]


def spoken(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the sentences of a module: messages, docstrings and comments."""
    source = file.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@cache
def sentences() -> list[tuple[str, str]]:
    """Return everything that a person reads, each text with its place."""
    said = [
        (f"{file.relative_to(ROOT)}:{line}", text) for file in sorted(SRC.rglob("*.py")) for line, text in spoken(file)
    ]
    for file in TEXTS:
        said += [(f"{file.relative_to(ROOT)}:{n}", line) for n, line in enumerate(file.read_text().splitlines(), 1)]
    return said


def test_the_sentences_are_seen() -> None:
    """What follows would hold for an empty list, too."""
    texts = [text for _, text in sentences()]
    assert any("uvtokend is not running" in text for text in texts)
    assert any(place.startswith("README.md") for place, _ in sentences())


@pytest.mark.parametrize("pattern", WORDS)
def test_nobody_has_to_translate(pattern: str) -> None:
    """A person who reads a message, the help, the README or the source understands it at once."""
    wrong = [(place, match) for place, text in sentences() if (match := re.search(pattern, text, re.IGNORECASE))]
    told = [f"{place}: {match.string[max(0, match.start() - 50) : match.end() + 50]}" for place, match in wrong]
    assert told == [], f"write instead: {WORDS[pattern]}"
