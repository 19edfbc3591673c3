"""The configuration files: which are read, and which are refused."""

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
    """Return a new home directory, with a site directory beside it."""
    directory = tmp_path / "home"
    directory.mkdir()
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("UVTOKEND_CONFIG", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(paths, "site_config_file", lambda: str(tmp_path / "site/config.toml"))
    Path(paths.config_file()).parent.mkdir(parents=True)
    return directory


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
    """A missing configuration is not an error, because the daemon waits for it."""
    settings = configuration.load()
    assert settings.indexes == ()
    assert settings.file == paths.config_file()
    assert settings.netrc == str(home / ".netrc")


def test_the_users_file_overrides_the_sites_file(home: Path, tmp_path: Path) -> None:
    """Both files are read, with paths relative to their own directory. Messages name the user's file."""
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
    """``--config`` or ``UVTOKEND_CONFIG`` names another file, which must exist."""
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
    """As uv does, uvtokend expands ``~`` in ``NETRC`` and resolves a relative path from the current directory."""
    monkeypatch.setenv("NETRC", "~/mine")
    assert configuration.load().netrc == str(home / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", "x/mine")
    assert configuration.load().netrc == str(tmp_path / "x/mine")
    monkeypatch.setenv("NETRC", "")
    assert configuration.load().netrc == str(home / ".netrc")


def test_without_a_home_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home directory, as for an unnamed user id in a container, the error says to set HOME."""

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
    """``ca-bundle = "system"`` is the first existing file of the known locations."""
    bundle = write(tmp_path / "ca.crt", "")
    monkeypatch.setattr(system_ca, "PLACES", (str(tmp_path / "none.crt"), str(bundle)))
    user_file(home, '[daemon]\nca-bundle = "system"')
    assert configuration.load().ca_bundle == str(bundle)


@pytest.mark.parametrize("mode", [0o602, 0o606, 0o622, 0o666, 0o777])
def test_a_file_that_others_may_write_is_refused(home: Path, mode: int) -> None:
    """A file that others may write is refused, because it names programs that uvtokend runs. The fix makes it
    acceptable."""
    path = user_file(home, INDEX.format("a"), mode)
    (problem,) = problems()
    assert problem.file == str(path)
    subprocess.run(shlex.split(problem.hint), check=True)
    assert [index.name for index in configuration.load().indexes] == ["a"]


def test_problems_of_both_files_are_reported(home: Path, tmp_path: Path) -> None:
    """Problems of the site's and the user's file are reported together."""
    site = write(tmp_path / "site/config.toml", "", 0o666)
    mine = user_file(home, "", 0o666)
    assert [problem.file for problem in problems()] == [str(site), str(mine)]


def test_a_fix_can_be_pasted(home: Path, tmp_path: Path) -> None:
    """The path in the fix is quoted for the shell, whatever characters it contains."""
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
    """A private group may write the file, because Debian and Fedora set the umask 002 for users with private groups."""
    gid = user_file(home, INDEX.format("a"), 0o664).stat().st_gid
    me = types.SimpleNamespace(pw_name="me", pw_gid=gid if primary else gid + 1)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(grp, "getgrgid", lambda _: types.SimpleNamespace(gr_name=group, gr_mem=members))
    if trusted:
        assert configuration.load().indexes
    else:
        assert "chmod go-w" in problems()[0].hint


def test_an_unknown_user_has_no_private_group(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without a name, as in a container, has no private group."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    user_file(home, "", 0o664)
    assert "chmod go-w" in problems()[0].hint


@pytest.mark.parametrize(("owner", "accepted"), [("mine", True), (0, True), (65534, True), (ORDINARY + 1, False)])
def test_a_file_of_another_user_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, owner: int | str, accepted: bool
) -> None:
    """Only files of the user and of root are accepted, including root as seen from a user namespace."""
    uid = os.getuid() if owner == "mine" else int(owner)
    path = user_file(home, INDEX.format("a"))
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        info = list(real(fd))
        info[4] = uid
        return os.stat_result(info)

    monkeypatch.setattr(os, "fstat", fstat)
    if accepted:
        assert configuration.load().indexes
    else:
        (problem,) = problems()
        assert (problem.file, problem.hint) == (str(path), f"sudo chown {os.getuid()} {path}")


def load_as(directory: Path, uid: int) -> str:
    """Load the configuration in a process of another user, and return the number of indexes or the fixes."""
    script = """
        import sys
        try:
            print(len(config.load(sys.argv[1]).indexes))
        except ConfigError as error:
            print(*(problem.hint for problem in error.problems), sep=";")
    """
    lines = ["tomllib, platformdirs.unix", "from uvtokend.disk import configuration as config"]
    imports = "\n".join([*lines, "from uvtokend.errors import ConfigError"])
    path = str(directory / "config.toml")
    return as_user(script, path, imports=imports, uid=uid, env={**os.environ, "HOME": str(directory)}).stdout.strip()


def test_files_of_three_users(home: Path, open_directory: Path) -> None:
    """A user can load their own and root's files, but not a third user's file or one that they cannot read."""
    path = write(open_directory / "config.toml", INDEX.format("a"))
    assert load_as(open_directory, os.getuid()) == "1"
    if os.getuid() != 0:
        path.chmod(0)
        assert load_as(open_directory, os.getuid()) == f"ls -l {path}"
        return
    results = {}
    for owner, mode in ((ORDINARY, 0o600), (0, 0o644), (ORDINARY + 1, 0o644), (0, 0o600)):
        os.chown(path, owner, -1)
        path.chmod(mode)
        results[owner, mode] = load_as(open_directory, ORDINARY)
    assert results == {
        (ORDINARY, 0o600): "1",
        (0, 0o644): "1",
        (ORDINARY + 1, 0o644): f"sudo chown {ORDINARY} {path}",
        (0, 0o600): f"ls -l {path}",
    }


def test_a_path_that_is_not_a_regular_file_is_refused(home: Path, tmp_path: Path) -> None:
    """A directory, a broken link and a pipe without a writer are refused without waiting."""
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
    """A link to the configuration is followed, because users keep their configuration in a repository."""
    real = write(tmp_path / "dotfiles.toml", INDEX.format("a"))
    Path(paths.config_file()).symlink_to(real)
    assert configuration.load().indexes
    real.chmod(0o666)
    assert len(problems()) == 1


def test_a_huge_file_is_not_read_whole(home: Path) -> None:
    """A file that is too large for a configuration is reported, not loaded."""
    path = user_file(home)
    os.truncate(path, 1 << 40)
    (problem,) = problems()
    assert "1 MiB" in problem.message
