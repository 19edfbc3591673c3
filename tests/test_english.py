"""Plain English: unclear words and old-fashioned forms stay out of everything that a person reads."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
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
    r"\b(somebody|someone) else": "another program, another user",
    r", nor (is|are|does|do|may|can|must|has)\b": "and … not",
    r"\bh(a|u)ngs? up\b": "disconnects",
    r"\bin vain\b|\bcomes? to pass\b": "without success, happens",
    r"(?-i:(^|[.;] )Who (has|have|had|wants|signs|knows|looks|gets|reads|writes)\b)": "A user who, A program that",
    r"\b(gives?|gave|given) out\b": "issues, issued",
    r"\bheld against\b": "compared with",
    r"\b(is|are|was|were) put off\b": "waits, is delayed",
}
#: As above, for docstrings and comments of the tests.
LAWS = {
    r"\b(is|are|was|were) told\b(?! to\b)": "is reported, prints",
    r"^Tell (whether|what)\b": "Return whether",
    r"\bsomebody\b": "a user, another program",
    r"\bfor ever\b": "forever, always",
}
TEXTS = [ROOT / "README.md", *sorted((SRC / "help").glob("*.md"))]


def spoken(file: Path, messages: bool) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a module, and its messages if wanted."""
    source = file.read_text()
    for node in ast.walk(ast.parse(source)):
        text = node if messages else node.value if isinstance(node, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and " " in text.value.strip():
            yield text.lineno, text.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def placed(files: Iterable[Path], messages: bool) -> list[tuple[str, str]]:
    """Return the sentences of some modules, each with its place."""
    return [(f"{file.relative_to(ROOT)}:{line}", text) for file in files for line, text in spoken(file, messages)]


@cache
def laws() -> list[tuple[str, str]]:
    """Return the docstrings and comments of the tests, each with its place."""
    return placed(sorted(Path(__file__).parent.rglob("*.py")), messages=False)


@cache
def sentences() -> list[tuple[str, str]]:
    """Return everything that a person reads, each text with its place."""
    said = placed(sorted(SRC.rglob("*.py")), messages=True)
    for file in TEXTS:
        said += [(f"{file.relative_to(ROOT)}:{n}", line) for n, line in enumerate(file.read_text().splitlines(), 1)]
    return said + laws()


def test_the_sentences_are_seen() -> None:
    """The list of sentences has messages, help and docstrings of tests; otherwise the tests below prove nothing."""
    texts = [text for _, text in sentences()]
    assert any("uvtokend is not running" in text for text in texts)
    assert any(place.startswith("README.md") for place, _ in sentences())
    assert any(text.startswith("The list of sentences has messages") for text in texts)


def matches(pattern: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    """Return each match of a pattern, with its place and the words around it."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return [
        f"{place}: {text[max(0, match.start() - 50) : match.end() + 50]}"
        for place, text in texts
        if (match := wanted.search(text))
    ]


@pytest.mark.parametrize("pattern", WORDS)
def test_plain_words(pattern: str) -> None:
    """Messages, help, README, source and the docstrings of tests use words that everyone understands."""
    assert matches(pattern, sentences()) == [], f"write instead: {WORDS[pattern]}"


@pytest.mark.parametrize("pattern", LAWS)
def test_plain_laws(pattern: str) -> None:
    """The docstrings and comments of tests name the actor and say what happens."""
    assert matches(pattern, laws()) == [], f"write instead: {LAWS[pattern]}"
