"""What the README tells a person to write is what the program takes, and what it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config.settings import Source, parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
OURS = [block for block in BLOCKS if "[[index]]" in block.replace("[[tool.uv.index]]", "") or "[daemon]" in block]
SOURCE = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))


def page(title: str) -> str:
    """Return what stands under a heading."""
    found = re.search(rf"^##+ [^\n]*{re.escape(title)}[^\n]*\n(.*?)(?=^##+ |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def uncommented(block: str) -> str:
    """Return an example with each option that it only suggests."""
    return re.sub(r"^# (?=[a-z-]+ = )", "", block, flags=re.MULTILINE)


@pytest.mark.parametrize("block", OURS, ids=range(len(OURS)))
def test_every_configuration_is_taken(block: str) -> None:
    """A person who copies it is not refused, nor one who takes its suggestions up."""
    for text in (block, uncommented(block)):
        settings = parse([Source("README.md", text.encode(), "/")], "/home/me", {})
        assert len(settings.indexes) == text.count("[[index]]")


def test_every_other_example_is_toml() -> None:
    """What is for uv or for a package's author can be read as well."""
    assert [tomllib.loads(block) for block in BLOCKS if block not in OURS]


@pytest.mark.parametrize("provider", CLOUDS)
def test_every_provider_has_a_page(provider: str) -> None:
    """It names each option, and what the login needs."""
    told = page(f"`{provider}`")
    assert [name for name in CLOUDS[provider].options if name not in told] == []
    assert "*Rights:*" in told or provider in {"static", "command"}


def test_every_reason_is_one_that_is_given() -> None:
    """The words that the status is said to show stand in the source."""
    listed = " ".join(re.findall(r"\(((?:`[a-z-]+`(?:, )?)+)\)", README))
    words = {*re.findall(r"`([a-z-]+)`", listed), *re.findall(r"`([a-z]+-[a-z-]+)` (?:asks?|is|names)", README)}
    assert len(words) > 15
    assert [word for word in sorted(words) if f'"{word}"' not in SOURCE] == []
