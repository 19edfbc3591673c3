"""A machine without a configuration, and the secrets that a person keeps on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from uvtokend.sandbox.machine import Machine


@contextmanager
def bare_machine(factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Make a machine, and stop its daemon afterwards."""
    made = Machine(factory.mktemp("m"))  # a short path, because it contains a socket
    yield made
    made.stop()


def keep(machine: Machine, name: str, text: str) -> str:
    """Write a secret to a file, and return its TOML reference."""
    file = machine.home / name
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return f'{{ file = "~/{name}" }}'
