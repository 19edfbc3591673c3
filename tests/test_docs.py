"""The examples in README and help topics work: configurations parse, commands exist, links lead to a file."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from uvtokend.cli import parser
from uvtokend.cli.verbs import VERBS
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOPICS = {file.stem: file.read_text() for file in sorted((ROOT / "src/uvtokend/help").glob("*.md"))}
PAGES = {"README": README, **TOPICS}
GITHUB = {file.name: file.read_text() for file in (ROOT / ".github").glob("*.md")}
SOURCE = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))


def blocks(language: str) -> list[tuple[str, str]]:
    """Return (page, text) of every example in a language."""
    pattern = rf"```{language}\n(.*?)```"
    return [(page, block) for page, text in PAGES.items() for block in re.findall(pattern, text, re.DOTALL)]


TOML = blocks("toml")
OURS = [(page, text) for page, text in TOML if re.search(r"^\[(\[index\]|daemon)\]", text, re.MULTILINE)]
COMMANDS = [
    (page, line)
    for page, text in blocks("sh")
    for whole in text.replace("\\\n", "").splitlines()
    for line in re.split(r"\s*(?:&&|\|\||[|;>])\s*", whole.split("  #")[0].strip())
    if line.startswith("uvtokend ") and "…" not in line
]


def uncommented(block: str) -> str:
    """Return an example with its commented-out options switched on."""
    return re.sub(r"^# (?=[a-z-]+ = )", "", block, flags=re.MULTILINE)


def without_files(block: str) -> str:
    """Return an example without the option that names a file that must exist."""
    return re.sub(r'^ca-bundle = "/.*$', "", block, flags=re.MULTILINE)


@pytest.mark.parametrize(("page", "block"), OURS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(OURS)])
def test_every_configuration_is_valid(page: str, block: str) -> None:
    """Every example configuration is valid, both as shown and with its commented-out options switched on."""
    for text in (block, uncommented(block)):
        settings = parse([Source(page, without_files(text).encode(), "/")], "/home/me", {}, lambda: "/ca.pem")
        assert len(settings.indexes) + len(settings.disabled) == text.count("[[index]]")


def test_every_other_example_is_toml() -> None:
    """Examples that are not for uvtokend (for uv, or for a plug-in's pyproject.toml) are valid TOML."""
    assert all(tomllib.loads(text) for page, text in TOML if (page, text) not in OURS)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_every_command_is_accepted(page: str, line: str) -> None:
    """Every command shown uses an existing verb and arguments that its parser accepts."""
    assert page
    words = shlex.split(line, comments=True)[1:]
    verb = words[0]
    assert verb in VERBS
    before = words[1 : words.index("--")] if "--" in words else words[1:]
    if "NAME" not in line and "PATH" not in line:
        parser.build(verb).parse_args(before)


@pytest.mark.parametrize("provider", CLOUDS)
def test_every_provider_has_a_page(provider: str) -> None:
    """Each provider's help topic names all of its options and the permissions that it needs."""
    (page,) = (text for name, text in TOPICS.items() if name.startswith("provider-") and f"`{provider}`" in text[:200])
    missing = [name for name in CLOUDS[provider].options if f"`{name}`" not in page and f"{name} = " not in page]
    assert missing == []
    assert re.search(r"^(## |\*\*)Permissions", page, re.MULTILINE) or provider in {"static", "command"}


def test_every_listed_reason_exists() -> None:
    """Every reason word that a help topic lists occurs in the source."""
    for page, text in TOPICS.items():
        listed = " ".join(re.findall(r"\(((?:`[a-z]+(?:-[a-z]+)+`(?:, )?)+)\)", text))
        words = set(re.findall(r"`([a-z-]+)`", listed))
        assert [word for word in sorted(words) if f'"{word}"' not in SOURCE] == [], page


def test_every_link_leads_somewhere() -> None:
    """Every relative link in the README and in the contributors' pages names a file of this repository."""
    for directory, pages in ((ROOT, {"README.md": README}), (ROOT / ".github", GITHUB)):
        for page, text in pages.items():
            for link in re.findall(r"\]\(([^)#]+)\)", text):
                assert link.startswith("https://") or (directory / link).is_file(), f"{page}: {link}"


def test_the_readme_is_short() -> None:
    """The README has at most 250 lines, which a newcomer skims in two minutes."""
    assert len(README.splitlines()) <= 250


def test_every_topic_has_a_title() -> None:
    """Every help topic starts with a title, which ``uvtokend help`` lists."""
    assert TOPICS
    assert all(text.startswith("# ") and text.endswith("\n") for text in TOPICS.values())
