"""Where uv finds its indexes, with uv itself as the judge, and files that somebody has prepared for us."""

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
from uvtokend.disk import uv_files
from uvtokend.errors import UsageError
from uvtokend.sandbox.machine import find_uv
from uvtokend.sandbox.web import Answer, Server


@dataclass
class Place:
    """A home, system directories, and a server that hears which indexes uv asks."""

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

    def found(self, *places: str, **environ: str) -> list[str]:
        """Return the names of the indexes that we find, in a directory or in those that are given."""
        here = [str(self.root / place) for place in places]
        return [
            one.url.text.split("/")[3]
            for one in uv_files.candidates(here, {**self.environment, **environ}, console.say)
        ]

    def asked(self, folder: str, **environ: str) -> set[str]:
        """Return the names of the indexes that uv asks there."""
        self.server.calls.clear()
        words = [find_uv(), "pip", "compile", "-", "--no-cache", "--python", sys.executable]
        words += ["--default-index", f"{self.server.url}/public/simple"]
        environment = {**self.environment, "PATH": os.environ["PATH"], "UV_PYTHON_DOWNLOADS": "never", **environ}
        subprocess.run(
            words, cwd=self.root / folder, env=environment, input="x", text=True, capture_output=True, check=False
        )
        return {call.path.split("/")[1] for call in self.server.calls} - {"public"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A project in a home; the process itself lives there, too."""
    for folder in ("home/work/src", "sys1", "sys2"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with Server(lambda _: Answer(404)) as server:
        yield Place(tmp_path, server)


PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\n'


def test_uv_asks_what_we_find(place: Place) -> None:
    """The nearest file of the project, the user's and the first of the system's; and its variables."""
    place.write("home/work/pyproject.toml", "project", more=PROJECT)
    place.write("home/pyproject.toml", "outer")
    place.write("home/.config/uv/uv.toml", "user")
    place.write("sys1/uv/uv.toml", "first")
    place.write("sys2/uv/uv.toml", "second")
    expected = ["project", "user", "first"]
    assert place.found("home/work") == expected
    assert place.found("home/work/src") == expected
    assert place.asked("home/work/src") == {*expected}
    extra = place.url("variable")
    assert place.found("home/work", UV_EXTRA_INDEX_URL=extra) == [*expected, "variable"]
    assert place.asked("home/work", UV_EXTRA_INDEX_URL=extra) == {*expected, "variable"}
    place.write("home/work/uv.toml", "better")
    assert place.asked("home/work") == {"better", "user", "first"}
    # The indexes of the project's own table still count for its sources.
    assert place.found("home/work") == ["project", "better", "user", "first"]
    (place.root / "sys1/uv/uv.toml").unlink()
    assert place.found("home/work")[-1] == "second"
    assert place.asked("home/work") == {"better", "user", "second"}


def test_what_turns_uvs_files_off_does_so_for_us(place: Place) -> None:
    """``UV_NO_CONFIG`` and ``UV_CONFIG_FILE``, which is read instead of all; an index for the sources still counts."""
    place.write("home/work/pyproject.toml", "project", more=PROJECT)
    place.write("home/.config/uv/uv.toml", "user")
    place.write("other.toml", "other")
    other = str(place.root / "other.toml")
    assert place.asked("home/work", UV_NO_CONFIG="1") == set()
    assert place.found("home/work", UV_NO_CONFIG="1") == ["project"]
    assert place.asked("home/work", UV_CONFIG_FILE=other) == {"other"}
    assert place.found("home/work", UV_CONFIG_FILE=other) == ["project", "other"]
    elsewhere = str(place.root / "xdg")
    place.write("xdg/uv/uv.toml", "moved")
    assert place.asked("home/work", XDG_CONFIG_HOME=elsewhere) == {"project", "moved"}
    assert place.found("home/work", XDG_CONFIG_HOME=elsewhere) == ["project", "moved"]
    assert place.found("home/work", XDG_CONFIG_HOME="xdg") == ["project", "user"]


def test_a_workspace(place: Place) -> None:
    """The root's indexes are its members'; a directory that is excluded, or a project of its own, has none of them."""
    root = f'{PROJECT}[tool.uv.workspace]\nmembers = ["libs/*"]\nexclude = ["libs/b"]\n'
    place.write("home/work/pyproject.toml", "root", more=root)
    for name in ("a", "b"):
        place.write(f"home/work/libs/{name}/pyproject.toml", name, more=PROJECT.replace('"p"', f'"{name}"'))
    place.write("home/work/lonely/pyproject.toml", "lonely", more=PROJECT.replace('"p"', '"lonely"'))
    assert place.asked("home/work/libs/a") == {"root"}
    assert place.found("home/work/libs/a") == ["a", "root"]
    assert place.asked("home/work/libs/b") == {"b"}
    assert place.found("home/work/libs/b") == ["b"]
    assert place.found("home/work/lonely") == ["lonely"]
    assert place.found("home/work") == ["root"]
    bare = place.root / "home/bare/in/here"
    bare.mkdir(parents=True)
    (bare.parent / "pyproject.toml").write_text(PROJECT)
    place.write("home/bare/uv.toml", "above")
    assert place.asked("home/bare/in/here") == {"above"}
    assert place.found("home/bare/in/here") == ["above"]


def test_where_uv_would_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the current directory or that of uv's variables; files may be named; a wrong path is reported."""
    place.write("home/work/pyproject.toml", "project", more=PROJECT)
    place.write("other.toml", "other")
    monkeypatch.chdir(place.root / "home/work")
    assert place.found() == ["project"]
    monkeypatch.chdir(place.root)
    assert place.found() == []
    assert place.found(UV_PROJECT="home/work") == ["project"]
    assert place.found(UV_WORKING_DIR="home", UV_PROJECT="work") == ["project"]
    assert place.found("other.toml", "home/work") == ["other", "project"]
    with pytest.raises(UsageError) as caught:
        place.found("nowhere")
    assert "a project's directory" in (caught.value.hint or "")


def inline(toml: str) -> str:
    """Return a script with inline metadata."""
    lines = "".join(f"# {line}\n" if line else "#\n" for line in toml.splitlines())
    return f"# /// script\n{lines}# ///\nimport theta\n"


#: A command line of uv -> the index that it asks for, of those that `arrange` puts everywhere.
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


def arrange(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an index into every place that a command line of uv may lead to; here is ``home/work``."""
    monkeypatch.chdir(place.root / "home/work")
    needs = f'{PROJECT}dependencies = ["theta"]\n'
    pinned = f'{needs}[tool.uv.sources]\ntheta = {{ index = "%s" }}\n'
    for name, folder in (("here", "."), ("sub", "sub"), ("around", "other")):
        place.write(f"home/work/{folder}/pyproject.toml", name, more=pinned % name)
    place.write("home/work/plain/own.toml", "own")
    Path("plain/pyproject.toml").write_text(needs)
    index = f'dependencies = ["theta"]\n\n[[tool.uv.index]]\nname = "%s"\nurl = "{place.url("%s")}"\ndefault = true\n'
    Path("script.py").write_text(f"x = 1\n{inline(index % ('script', 'script'))}")
    Path("crlf").write_text(inline(index % ("crlf", "crlf")), newline="\r\n")
    Path("other/plain.py").write_text("import theta\n")
    place.write("home/work/space/members/one/pyproject.toml", "member", more=pinned % "member")
    space = '[tool.uv.workspace]\nmembers = ["members/*"]\n'
    Path("space/pyproject.toml").write_text(f"{PROJECT.replace('p', 'root', 1)}{space}".replace('"p"', '"root"'))
    source = 'dependencies = ["library"]\n[tool.uv.sources]\nlibrary = { path = "../library" }\n'
    Path("path").mkdir()
    Path("path/pyproject.toml").write_text(f"{PROJECT}{source}")
    Path("url").mkdir()
    Path("url/pyproject.toml").write_text(
        f'{PROJECT}dependencies = ["library @ file://${{PROJECT_ROOT}}/../library"]\n'
    )
    place.write("home/work/linked/uv.toml", "above")
    Path("linked/project").mkdir()
    for folder in ("linked", "linked/project"):
        Path(folder, "pyproject.toml").write_text(needs)
    Path("link").symlink_to("linked/project")
    Path("requirements.txt").write_text("-e ./library\n")
    Path("more.txt").write_text("--requirement=requirements.txt\n")
    Path("path.py").write_text(inline(source.replace("../", "")))
    Path("url.py").write_text(inline(f'dependencies = ["library @ {Path("library").absolute().as_uri()}"]'))
    library = (pinned % "library").replace('"p"', '"library"')
    place.write("home/work/library/pyproject.toml", "library", more=library)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_uv_asks_where_its_command_line_says(
    place: Place, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever index a command of uv asks is among those that we find for the command, by its name."""
    arrange(place, monkeypatch)
    asked = COMMANDS[words]
    command = ["uv", *(word.replace("URL", place.url("option")) for word in words)]
    environment = {**place.environment, "PATH": os.environ["PATH"], "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([find_uv(), *command[1:]], env=environment, capture_output=True, check=False)
    assert asked in {call.path.split("/")[1] for call in place.server.calls}
    complaints: list[str] = []
    indexes = uv_files.named(place.environment, complaints.append, command)
    assert (asked, place.url(asked)) in {(name, url) for name, url, _ in indexes}
    assert complaints == []


def test_other_commands_are_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only uv's own options count, and without ``run`` only where they lead to."""
    arrange(place, monkeypatch)

    def names(*command: str) -> set[str]:
        return {name for name, _, _ in uv_files.named(place.environment, console.say, command)}

    assert names("make", "--directory", "sub", "script.py") == {"here"}
    assert names("uv", "--directory", "sub", "lock") == {"sub"}
    assert names("uv", "run", "tool", "--directory", "sub") == {"here", "sub"}
    assert names("/usr/bin/uvx", "tool", "script.py") == {"here", "script"}


def test_what_cannot_be_read_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script from a pipe or a URL, metadata that is not TOML, and too many members: the command gets no token."""
    arrange(place, monkeypatch)
    monkeypatch.setattr(uv_files, "MOST_PROJECTS", 2)
    os.mkfifo("pipe")
    Path("broken.py").write_text(inline("a ="))
    Path("large.py").write_text("#" * (uv_files.LIMIT + 1))
    Path("data").write_text("#" * (uv_files.LIMIT + 1))
    for name in "abc":
        place.write(f"home/work/space/members/{name}/pyproject.toml", more=PROJECT)
    Path("outside").mkdir()
    Path("outside/pyproject.toml").write_text(f'{PROJECT}[tool.uv.workspace]\nmembers = ["/*"]\n')
    for words, said in (
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
        uv_files.named(place.environment, complaints.append, ["uv", *words])
        assert [said in complaint for complaint in complaints] == [True], (words, complaints)
    complaints = []
    uv_files.named(place.environment, complaints.append, ["uv", "run", "tool", "data", "pipe", "-", "https://x"])
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
def test_a_hostile_file_is_left_out_in_time(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    """A pipe, a device, a huge file, a key that takes hours to read, what is no text: each is told in a line."""
    if words.startswith("too long"):  # the others end by themselves, however busy the machine is
        monkeypatch.setattr(uv_files, "PATIENCE", 0.2)
    else:
        monkeypatch.setattr(uv_files, "PATIENCE", 60.0)
    place.write("home/.config/uv/uv.toml", "user")
    HOSTILE[words](place.root / "home/work/uv.toml")
    assert place.found("home/work") == ["user"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "home/work/uv.toml" in line
    assert "so it is left out" in line
    assert re.search(words, line)


def test_very_many_indexes_are_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the first are looked at."""
    place.write("home/work/uv.toml", *(f"i{number}" for number in range(discovery.MOST + 1)))
    assert len(place.found("home/work")) == discovery.MOST
    assert "very many" in capsys.readouterr().err


def test_a_pyproject_without_a_table_of_uv_says_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does a missing one, or one beneath a file."""
    (place.root / "home/work/pyproject.toml").write_text(PROJECT)
    assert place.found("home/work", "home/work/pyproject.toml") == []
    (place.root / "home/.config").write_text("")
    assert place.found("home/work") == []
    assert capsys.readouterr().err == ""
