"""The configuration on disk: which files are read, and which are not believed."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import subprocess
import types
from pathlib import Path

import pytest

from support.unprivileged import ORDINARY, as_user
from uvtokend import paths
from uvtokend.core.model import Problem
from uvtokend.disk import configuration, system_ca
from uvtokend.errors import ConfigError, UsageError

INDEX = '[[index]]\nname = "{}"\nurl = "https://eu-python.pkg.dev/acme/models/simple/"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home of its own, with a site directory beside it."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("UVTOKEND_CONFIG", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(paths, "site_config_file", lambda: str(tmp_path / "site/config.toml"))
    Path(paths.config_file()).parent.mkdir(parents=True)
    return folder


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def user_file(home: Path, text: str = "", mode: int = 0o600) -> Path:
    return write(Path(paths.config_file()), text, mode)


def problems(explicit: str | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        configuration.load(explicit)
    return caught.value.problems


def test_without_a_file_there_are_no_indexes(home: Path) -> None:
    """Nothing configured is no error: the daemon waits for it."""
    settings = configuration.load()
    assert settings.indexes == ()
    assert settings.file == paths.config_file()
    assert settings.netrc == str(home / ".netrc")


def test_the_sites_file_lies_beneath(home: Path, tmp_path: Path) -> None:
    """Both are read, each path relative to its own; the file that is named is the user's."""
    write(tmp_path / "site/config.toml", f'[daemon]\nmax-workers = 2\nca-bundle = "ca.pem"\n{INDEX.format("a")}', 0o644)
    assert [problem.where for problem in problems()] == ["daemon.ca-bundle"]
    write(tmp_path / "site/ca.pem", "", 0o644)
    assert [index.name for index in configuration.load().indexes] == ["a"]
    mine = user_file(home, f"[daemon]\nmax-workers = 8\n{INDEX.format('b')}")
    settings = configuration.load()
    assert [index.name for index in settings.indexes] == ["a", "b"]
    assert (settings.max_workers, settings.ca_bundle) == (8, str(tmp_path / "site/ca.pem"))
    assert settings.file == str(mine)
    mine.unlink()
    assert configuration.load().file == str(mine)


def test_another_file_can_be_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``--config`` or ``UVTOKEND_CONFIG``; then it must be there."""
    user_file(home, INDEX.format("usual"))
    other = write(tmp_path / "other.toml", INDEX.format("other"))
    assert [index.name for index in configuration.load(str(other)).indexes] == ["other"]
    monkeypatch.setenv("UVTOKEND_CONFIG", str(other))
    assert configuration.load().file == str(other)
    monkeypatch.setenv("UVTOKEND_CONFIG", str(tmp_path / "missing.toml"))
    assert "does not exist" in problems()[0].message
    monkeypatch.delenv("UVTOKEND_CONFIG")
    assert "does not exist" in problems(str(tmp_path / "missing.toml"))[0].message


def test_netrc_is_the_one_uv_would_read(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv expands a ``~`` in ``NETRC`` and takes the rest relative to where it was started."""
    monkeypatch.setenv("NETRC", "~/mine")
    assert configuration.load().netrc == str(home / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", "x/mine")
    assert configuration.load().netrc == str(tmp_path / "x/mine")
    monkeypatch.setenv("NETRC", "")
    assert configuration.load().netrc == str(home / ".netrc")


def test_no_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a home, such as a number without a name in a container, is told what is missing."""

    def nowhere(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nowhere)
    for setting in ("relative", "", None):
        if setting is None:
            monkeypatch.delenv("HOME")
        else:
            monkeypatch.setenv("HOME", setting)
        with pytest.raises(UsageError) as caught:
            configuration.load()
        assert caught.value.hint == "set HOME to an absolute path"


def test_the_platforms_bundle(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ca-bundle = "system"`` is the first of the known places where there is a file."""
    bundle = write(tmp_path / "ca.crt", "")
    monkeypatch.setattr(system_ca, "PLACES", (str(tmp_path / "none.crt"), str(bundle)))
    user_file(home, '[daemon]\nca-bundle = "system"')
    assert configuration.load().ca_bundle == str(bundle)


@pytest.mark.parametrize("mode", [0o602, 0o606, 0o622, 0o666, 0o777])
def test_a_file_that_others_may_write_is_refused(home: Path, mode: int) -> None:
    """It names programs that we run: whoever writes it is us. The fix makes it good."""
    path = user_file(home, INDEX.format("a"), mode)
    (problem,) = problems()
    assert problem.file == str(path)
    subprocess.run(shlex.split(problem.hint), check=True)
    assert [index.name for index in configuration.load().indexes] == ["a"]


def test_both_files_are_told_at_once(home: Path, tmp_path: Path) -> None:
    """The site's and the user's."""
    site = write(tmp_path / "site/config.toml", "", 0o666)
    mine = user_file(home, "", 0o666)
    assert [problem.file for problem in problems()] == [str(site), str(mine)]


def test_a_mend_can_be_pasted(home: Path, tmp_path: Path) -> None:
    """Whatever the path is called, the command in the message means that path."""
    path = write(tmp_path / "it's $HOME; here.toml", INDEX.format("a"), 0o666)
    (problem,) = problems(str(path))
    subprocess.run(["/bin/sh", "-c", problem.hint], check=True)
    assert configuration.load(str(path)).indexes


@pytest.mark.parametrize(
    ("group", "members", "primary", "trusted"),
    [
        ("me", [], True, True),
        ("me", ["me"], True, True),
        ("me", ["me", "other"], True, False),
        ("staff", [], True, False),
        ("me", [], False, False),
    ],
)
def test_a_private_group_may_write(
    home: Path, monkeypatch: pytest.MonkeyPatch, group: str, members: list[str], primary: bool, trusted: bool
) -> None:
    """With a umask of 002, as Debian and Fedora set it for private groups, every file is group-writable."""
    gid = user_file(home, INDEX.format("a"), 0o664).stat().st_gid
    me = types.SimpleNamespace(pw_name="me", pw_gid=gid if primary else gid + 1)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(grp, "getgrgid", lambda _: types.SimpleNamespace(gr_name=group, gr_mem=members))
    if trusted:
        assert configuration.load().indexes
    else:
        assert "chmod go-w" in problems()[0].hint


def test_a_user_that_nobody_knows_has_no_private_group(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as numbers without a name."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    user_file(home, "", 0o664)
    assert "chmod go-w" in problems()[0].hint


@pytest.mark.parametrize(("owner", "believed"), [("mine", True), (0, True), (65534, True), (ORDINARY + 1, False)])
def test_a_file_of_somebody_else_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, owner: int | str, believed: bool
) -> None:
    """Ours and root's are believed, also root's as it looks from a user namespace."""
    uid = os.getuid() if owner == "mine" else int(owner)
    path = user_file(home, INDEX.format("a"))
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        info = list(real(fd))
        info[4] = uid
        return os.stat_result(info)

    monkeypatch.setattr(os, "fstat", fstat)
    if believed:
        assert configuration.load().indexes
    else:
        (problem,) = problems()
        assert (problem.file, problem.hint) == (str(path), f"sudo chown {os.getuid()} {path}")


def load_as(folder: Path, uid: int) -> str:
    """Load the configuration in a process of another user, and return what it says."""
    script = """
        import sys
        try:
            print(len(config.load(sys.argv[1]).indexes))
        except ConfigError as error:
            print(*(problem.hint for problem in error.problems), sep=";")
    """
    lines = ["tomllib, platformdirs.unix", "from uvtokend.disk import configuration as config"]
    imports = "\n".join([*lines, "from uvtokend.errors import ConfigError"])
    path = str(folder / "config.toml")
    return as_user(script, path, imports=imports, uid=uid, env={**os.environ, "HOME": str(folder)}).stdout.strip()


def test_files_of_three_users(home: Path, open_directory: Path) -> None:
    """As an ordinary user: one's own and root's are read, a third one's and one that cannot be read are not."""
    path = write(open_directory / "config.toml", INDEX.format("a"))
    assert load_as(open_directory, os.getuid()) == "1"
    if os.getuid() != 0:
        path.chmod(0)
        assert load_as(open_directory, os.getuid()) == f"ls -l {path}"
        return
    found = {}
    for owner, mode in ((ORDINARY, 0o600), (0, 0o644), (ORDINARY + 1, 0o644), (0, 0o600)):
        os.chown(path, owner, -1)
        path.chmod(mode)
        found[owner, mode] = load_as(open_directory, ORDINARY)
    assert found == {
        (ORDINARY, 0o600): "1",
        (0, 0o644): "1",
        (ORDINARY + 1, 0o644): f"sudo chown {ORDINARY} {path}",
        (0, 0o600): f"ls -l {path}",
    }


def test_what_is_no_file_is_refused_at_once(home: Path, tmp_path: Path) -> None:
    """A directory, a link to nothing, and a pipe that nobody writes into, which must not be waited for."""
    path = Path(paths.config_file())
    path.symlink_to(tmp_path / "nothing")
    assert "link to nothing" in problems()[0].message
    path.unlink()
    path.mkdir()
    assert len(problems()) == 1
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in problems()[0].message


def test_a_link_is_followed(home: Path, tmp_path: Path) -> None:
    """People keep their configuration in a repository and link to it."""
    real = write(tmp_path / "dotfiles.toml", INDEX.format("a"))
    Path(paths.config_file()).symlink_to(real)
    assert configuration.load().indexes
    real.chmod(0o666)
    assert len(problems()) == 1


def test_a_huge_file_is_not_read_whole(home: Path) -> None:
    """What is larger than a configuration can be is named, not loaded."""
    path = user_file(home)
    os.truncate(path, 1 << 40)
    (problem,) = problems()
    assert "1 MiB" in problem.message
