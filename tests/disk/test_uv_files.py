"""Which indexes uv's files name, compared with the real uv, and how hostile files are handled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from uvtokend.cli import console
from uvtokend.core.config import discovery
from uvtokend.disk import uv_commands, uv_files, uv_projects
from uvtokend.errors import UsageError
from uvtokend.sandbox.machine import find_uv
from uvtokend.sandbox.web import Answer, Server


@dataclass
class Machine:
    """A home directory, system directories, and a server that records which indexes uv asks."""

    root: Path
    server: Server

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.root / "home"), "XDG_CONFIG_DIRS": f"{self.root}/sys1:{self.root}/sys2"}

    def write(self, file: str, *indexes: str, more: str = "") -> None:
        """Write one file of uv's that names these indexes."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        table = "tool.uv." if path.name == "pyproject.toml" else ""
        urls = [f'[[{table}index]]\nname = "{name}"\nurl = "{self.url(name)}"\n' for name in indexes]
        path.write_text(more + "".join(urls))

    def url(self, name: str) -> str:
        return f"{self.server.url}/{name}/simple"

    def names(self, *paths: str, **environ: str) -> list[str]:
        """Return the names of the indexes that we read, for the current directory or for these paths."""
        here = [str(self.root / path) for path in paths]
        return [
            one.url.text.split("/")[3]
            for one in uv_projects.candidates(here, {**self.environment, **environ}, console.say)
        ]

    def asked(self, directory: str, **environ: str) -> set[str]:
        """Return the names of the indexes that uv asks in a directory."""
        self.server.calls.clear()
        words = [find_uv(), "pip", "compile", "-", "--no-cache", "--python", sys.executable]
        words += ["--default-index", f"{self.server.url}/public/simple"]
        environment = {**self.environment, "PATH": os.environ["PATH"], "UV_PYTHON_DOWNLOADS": "never", **environ}
        subprocess.run(
            words, cwd=self.root / directory, env=environment, input="x", text=True, capture_output=True, check=False
        )
        return {call.path.split("/")[1] for call in self.server.calls} - {"public"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a machine with a project, whose home directory is also that of this process."""
    for directory in ("home/work/src", "sys1", "sys2"):
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with Server(lambda _: Answer(404)) as server:
        yield Machine(tmp_path, server)


PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n'


def test_uv_asks_the_indexes_that_we_read(machine: Machine) -> None:
    """We read the project's nearest file, the user's, the first system file and the variables, as uv does."""
    machine.write("home/work/pyproject.toml", "project", more=PROJECT)
    machine.write("home/pyproject.toml", "outer")
    machine.write("home/.config/uv/uv.toml", "user")
    machine.write("sys1/uv/uv.toml", "first")
    machine.write("sys2/uv/uv.toml", "second")
    expected = ["project", "user", "first"]
    assert machine.names("home/work") == expected
    assert machine.names("home/work/src") == expected
    assert machine.asked("home/work/src") == {*expected}
    extra = machine.url("variable")
    assert machine.names("home/work", UV_EXTRA_INDEX_URL=extra) == [*expected, "variable"]
    assert machine.asked("home/work", UV_EXTRA_INDEX_URL=extra) == {*expected, "variable"}
    machine.write("home/work/uv.toml", "better")
    assert machine.asked("home/work") == {"better", "user", "first"}
    # The indexes of [tool.uv] in pyproject.toml still count for the project's sources.
    assert machine.names("home/work") == ["project", "better", "user", "first"]
    (machine.root / "sys1/uv/uv.toml").unlink()
    assert machine.names("home/work")[-1] == "second"
    assert machine.asked("home/work") == {"better", "user", "second"}


def test_variables_that_replace_uvs_files(machine: Machine) -> None:
    """``UV_NO_CONFIG`` and ``UV_CONFIG_FILE`` replace uv's files for us too, except for the indexes of the project's
    sources."""
    machine.write("home/work/pyproject.toml", "project", more=PROJECT)
    machine.write("home/.config/uv/uv.toml", "user")
    machine.write("other.toml", "other")
    other = str(machine.root / "other.toml")
    assert machine.asked("home/work", UV_NO_CONFIG="1") == set()
    assert machine.names("home/work", UV_NO_CONFIG="1") == ["project"]
    assert machine.asked("home/work", UV_CONFIG_FILE=other) == {"other"}
    assert machine.names("home/work", UV_CONFIG_FILE=other) == ["project", "other"]
    elsewhere = str(machine.root / "xdg")
    machine.write("xdg/uv/uv.toml", "moved")
    assert machine.asked("home/work", XDG_CONFIG_HOME=elsewhere) == {"project", "moved"}
    assert machine.names("home/work", XDG_CONFIG_HOME=elsewhere) == ["project", "moved"]
    assert machine.names("home/work", XDG_CONFIG_HOME="xdg") == ["project", "user"]


def test_a_workspace(machine: Machine) -> None:
    """Members have the indexes of the workspace root. An excluded directory, or a project of its own, does not."""
    root = f'{PROJECT}[tool.uv.workspace]\nmembers = ["libs/*"]\nexclude = ["libs/b"]\n'
    machine.write("home/work/pyproject.toml", "root", more=root)
    for name in ("a", "b"):
        machine.write(f"home/work/libs/{name}/pyproject.toml", name, more=PROJECT.replace('"p"', f'"{name}"'))
    machine.write("home/work/lonely/pyproject.toml", "lonely", more=PROJECT.replace('"p"', '"lonely"'))
    assert machine.asked("home/work/libs/a") == {"root"}
    assert machine.names("home/work/libs/a") == ["a", "root"]
    assert machine.asked("home/work/libs/b") == {"b"}
    assert machine.names("home/work/libs/b") == ["b"]
    assert machine.names("home/work/lonely") == ["lonely"]
    assert machine.names("home/work") == ["root"]
    bare = machine.root / "home/bare/in/here"
    bare.mkdir(parents=True)
    (bare.parent / "pyproject.toml").write_text(PROJECT)
    machine.write("home/bare/uv.toml", "above")
    assert machine.asked("home/bare/in/here") == {"above"}
    assert machine.names("home/bare/in/here") == ["above"]


def test_where_uv_would_work(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the current directory or the one in uv's variables. Files may be named, and a wrong path is
    reported."""
    machine.write("home/work/pyproject.toml", "project", more=PROJECT)
    machine.write("other.toml", "other")
    monkeypatch.chdir(machine.root / "home/work")
    assert machine.names() == ["project"]
    monkeypatch.chdir(machine.root)
    assert machine.names() == []
    assert machine.names(UV_PROJECT="home/work") == ["project"]
    assert machine.names(UV_WORKING_DIR="home", UV_PROJECT="work") == ["project"]
    assert machine.names("other.toml", "home/work") == ["other", "project"]
    with pytest.raises(UsageError) as caught:
        machine.names("nowhere")
    assert "a project's directory" in (caught.value.hint or "")


def inline(toml: str) -> str:
    """Return a script with inline metadata."""
    lines = "".join(f"# {line}\n" if line else "#\n" for line in toml.splitlines())
    return f"# /// script\n{lines}# ///\nimport theta\n"


#: A command line of uv -> the index that it asks, of those that `arrange` defines.
COMMANDS: dict[tuple[str, ...], str] = {
    ("lock",): "here",
    ("--directory", "sub", "lock"): "sub",
    ("lock", "--project=sub"): "sub",
    ("--directory", "plain", "--config-file", "own.toml", "lock"): "own",
    ("run", "--with", "x", "script.py"): "script",
    ("run", "-q", "--python", sys.executable, "--script", "crlf"): "crlf",
    ("run", "other/plain.py"): "around",
    ("run", "--default-index", "option=URL", "--with", "theta", "--no-project", "true"): "option",
    ("lock", "--directory", "space"): "member",
    ("lock", "--directory", "path"): "library",
    ("lock", "--directory", "url"): "library",
    ("lock", "--directory", "link"): "above",
    ("lock", "--directory", "link/.."): "above",
    ("--directory", "plain", "--config-file", "../link/../uv.toml", "lock"): "above",
    ("pip", "compile", "library/pyproject.toml"): "library",
    ("pip", "compile", "requirements.txt"): "library",
    ("pip", "compile", "more.txt"): "library",
    ("tool", "install", "--index-url=URL", "library @ ./library"): "library",
    ("run", "path.py"): "library",
    ("run", "url.py"): "library",
    ("tool", "uvx", "--config-file", "plain/own.toml", "theta", "--config-file", "none.toml"): "own",
}


def arrange(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Define an index everywhere that a command line of uv may lead to; the current directory is ``home/work``."""
    monkeypatch.chdir(machine.root / "home/work")
    needs = f'{PROJECT}dependencies = ["theta"]\n'
    pinned = f'{needs}[tool.uv.sources]\ntheta = {{ index = "%s" }}\n'
    for name, directory in (("here", "."), ("sub", "sub"), ("around", "other")):
        machine.write(f"home/work/{directory}/pyproject.toml", name, more=pinned % name)
    machine.write("home/work/plain/own.toml", "own")
    Path("plain/pyproject.toml").write_text(needs)
    index = f'dependencies = ["theta"]\n\n[[tool.uv.index]]\nname = "%s"\nurl = "{machine.url("%s")}"\ndefault = true\n'
    Path("script.py").write_text(f"x = 1\n{inline(index % ('script', 'script'))}")
    Path("crlf").write_text(inline(index % ("crlf", "crlf")), newline="\r\n")
    Path("other/plain.py").write_text("import theta\n")
    machine.write("home/work/space/members/one/pyproject.toml", "member", more=pinned % "member")
    space = '[tool.uv.workspace]\nmembers = ["members/*"]\n'
    Path("space/pyproject.toml").write_text(f"{PROJECT.replace('p', 'root', 1)}{space}".replace('"p"', '"root"'))
    source = 'dependencies = ["library"]\n[tool.uv.sources]\nlibrary = { path = "../library" }\n'
    Path("path").mkdir()
    Path("path/pyproject.toml").write_text(f"{PROJECT}{source}")
    Path("url").mkdir()
    Path("url/pyproject.toml").write_text(
        f'{PROJECT}dependencies = ["library @ file://${{PROJECT_ROOT}}/../library"]\n'
    )
    machine.write("home/work/linked/uv.toml", "above")
    Path("linked/project").mkdir()
    for directory in ("linked", "linked/project"):
        Path(directory, "pyproject.toml").write_text(needs)
    Path("link").symlink_to("linked/project")
    Path("requirements.txt").write_text("-e ./library\n")
    Path("more.txt").write_text("--requirement=requirements.txt\n")
    Path("path.py").write_text(inline(source.replace("../", "")))
    Path("url.py").write_text(inline(f'dependencies = ["library @ {Path("library").absolute().as_uri()}"]'))
    library = (pinned % "library").replace('"p"', '"library"')
    machine.write("home/work/library/pyproject.toml", "library", more=library)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_uv_asks_an_index_that_we_read_for_its_command_line(
    machine: Machine, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every index that a command of uv asks is among those that we read for this command."""
    arrange(machine, monkeypatch)
    asked = COMMANDS[words]
    command = ["uv", *(word.replace("URL", machine.url("option")) for word in words)]
    environment = {**machine.environment, "PATH": os.environ["PATH"], "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([find_uv(), *command[1:]], env=environment, capture_output=True, check=False)
    assert asked in {call.path.split("/")[1] for call in machine.server.calls}
    complaints: list[str] = []
    indexes = uv_commands.named(machine.environment, complaints.append, command)
    assert (asked, machine.url(asked)) in {(name, url) for name, url, _ in indexes}
    assert complaints == []


def test_other_commands_are_not_parsed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only uv's own options count, and those after ``run`` may or may not be uv's."""
    arrange(machine, monkeypatch)

    def names(*command: str) -> set[str]:
        return {name for name, _, _ in uv_commands.named(machine.environment, console.say, command)}

    assert names("make", "--directory", "sub", "script.py") == {"here"}
    assert names("uv", "--directory", "sub", "lock") == {"sub"}
    assert names("uv", "run", "tool", "--directory", "sub") == {"here", "sub"}
    assert names("/usr/bin/uvx", "tool", "script.py") == {"here", "script"}


def test_unreadable_sources_are_reported(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script from a pipe or a URL, invalid metadata, and too many workspace members are reported, so that the
    command gets no token."""
    arrange(machine, monkeypatch)
    monkeypatch.setattr(uv_commands, "MOST_PROJECTS", 2)
    monkeypatch.setattr(uv_projects, "MOST_PROJECTS", 2)
    os.mkfifo("pipe")
    Path("broken.py").write_text(inline("a ="))
    Path("large.py").write_text("#" * (uv_files.LIMIT + 1))
    Path("data").write_text("#" * (uv_files.LIMIT + 1))
    for name in "abc":
        machine.write(f"home/work/space/members/{name}/pyproject.toml", more=PROJECT)
    Path("outside").mkdir()
    Path("outside/pyproject.toml").write_text(f'{PROJECT}[tool.uv.workspace]\nmembers = ["/*"]\n')
    for words, words_in_message in (
        (["run", "-p", "3.12", "-"], "only read when it runs"),
        (["run", "-q", "https://h.example/x.py"], "only read when it runs"),
        (["run", "pipe"], "only read when it runs"),
        (["run", "broken.py"], "broken.py cannot be read"),
        (["add", "--script=broken.py", "x"], "broken.py cannot be read"),
        (["run", "large.py"], "large.py cannot be read"),
        (["lock", "--directory", "space"], "more than 2 projects"),
        (["lock", "--directory", "outside"], "cannot be listed"),
    ):
        complaints: list[str] = []
        uv_commands.named(machine.environment, complaints.append, ["uv", *words])
        assert [words_in_message in complaint for complaint in complaints] == [True], (words, complaints)
    complaints = []
    uv_commands.named(machine.environment, complaints.append, ["uv", "run", "tool", "data", "pipe", "-", "https://x"])
    assert complaints == []


HOSTILE: dict[str, Callable[[Path], object]] = {
    "not a regular file": os.mkfifo,
    "it is not a regular file": lambda file: file.symlink_to("/dev/zero"),
    "a regular file.": lambda file: file.mkdir(),
    "larger than 1 MiB": lambda file: file.write_bytes(b"#" * (1 << 21)),
    # Python's tomllib refuses such a key since 3.14.
    "too long to read|not valid TOML": lambda file: file.write_text("a." * 400_000 + "a = 1"),
    "not valid TOML": lambda file: file.write_text("a = " + "[" * 100_000),
    "not valid TOML,": lambda file: file.write_bytes(b"a = '\xff'"),
    "symbolic links": lambda file: file.symlink_to(file),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_a_hostile_file_is_skipped_in_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    """A pipe, a device, a huge file, a key that takes hours to parse and invalid text are each reported in one line."""
    if words.startswith("too long"):  # the others end soon, even on a busy machine
        monkeypatch.setattr(uv_files, "PATIENCE", 0.2)
    else:
        monkeypatch.setattr(uv_files, "PATIENCE", 60.0)
    machine.write("home/.config/uv/uv.toml", "user")
    HOSTILE[words](machine.root / "home/work/uv.toml")
    assert machine.names("home/work") == ["user"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "home/work/uv.toml" in line
    assert "so it is left out" in line
    assert re.search(words, line)


def test_too_many_indexes_are_reported(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the first indexes of a file are read, up to the limit, and a message says so."""
    machine.write("home/work/uv.toml", *(f"i{number}" for number in range(discovery.MOST + 1)))
    assert len(machine.names("home/work")) == discovery.MOST
    assert "very many" in capsys.readouterr().err


def test_a_pyproject_without_a_table_of_uv(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A pyproject.toml without [tool.uv], or a path that cannot exist, yields no index and no message."""
    (machine.root / "home/work/pyproject.toml").write_text(PROJECT)
    assert machine.names("home/work", "home/work/pyproject.toml") == []
    (machine.root / "home/.config").write_text("")
    assert machine.names("home/work") == []
    assert capsys.readouterr().err == ""
