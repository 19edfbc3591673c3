"""Where uvtokend's files are: the directories that platformdirs names, and none that other users could access."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
import types
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from support import places
from support.unprivileged import as_user
from uvtokend import paths
from uvtokend.errors import UsageError, UvtokendError

NAMES = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "UVTOKEND_SOCKET", "UVTOKEND_CONFIG")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def private(path: Path) -> Path:
    """Make a directory that only we can enter."""
    path.mkdir(0o700)
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("xdg", [None, "", "relative", "/somewhere/else", "/somewhere/else/", "/"])
@pytest.mark.parametrize("home", ["/home/me", "/home/me/", "/", None])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_state_directory_is_the_one_of_platformdirs(
    monkeypatch: pytest.MonkeyPatch, xdg: str | None, home: str | None, platform: str
) -> None:
    """The hot path computes the same state directory as platformdirs; without HOME it uses the passwd entry."""
    monkeypatch.setattr(pwd, "getpwuid", lambda _: types.SimpleNamespace(pw_dir="/home/entry"))
    for name, value in (("XDG_STATE_HOME", xdg), ("HOME", home)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    expected = (MacOS if platform == "darwin" else Unix)("uvtokend", False).user_state_dir
    assert os.path.normpath(paths.state_directory()) == os.path.normpath(expected)
    assert paths.state_file() == os.path.join(paths.state_directory(), "state.json")
    if home == "/home/me" and not xdg:
        assert str(places.state_directory(Path(home), platform)) == paths.state_directory()
    assert paths.events_file() == os.path.join(paths.state_directory(), "events.jsonl")


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_paths_below_an_unknown_home_are_refused(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """Without an absolute home directory, a path below it raises an error with a fix; XDG variables still work."""

    def no_entry(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    for path in (paths.home_directory, paths.config_file, paths.state_directory):
        with pytest.raises(UsageError) as caught:
            path()
        assert caught.value.hint == "set HOME to an absolute path"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert (paths.config_file(), paths.state_directory()) == ("/config/uvtokend/config.toml", "/state/uvtokend")


HOMELESS = (2, "Cannot determine your home directory")
CLOSED = (1, "set HOME to a directory that you can write")
NOTHING = {"status": (0, "uvtokend init"), "init": (1, "nothing to add")}


@pytest.mark.parametrize(
    ("home", "expected"),
    [
        (None, dict.fromkeys(("status", "run", "init", "once"), HOMELESS)),
        ("/", {**NOTHING, "run": CLOSED, "once": CLOSED}),
        ("/nonexistent", {**NOTHING, "run": CLOSED, "once": CLOSED}),
    ],
)
def test_verbs_of_a_user_without_an_entry(
    open_directory: Path, home: str | None, expected: dict[str, tuple[int, str]]
) -> None:
    """A uid without a passwd entry, as in containers: each verb says what is missing, without a traceback."""
    if home is None and os.geteuid() != 0:
        home = ""  # we cannot become such a user, but an empty HOME has the same effect
    env = {"XDG_CONFIG_DIRS": str(open_directory)} | ({} if home is None else {"HOME": home})
    imports = "sys, encodings.ascii, platformdirs.unix, uvtokend.daemon.main\n"
    imports += "from uvtokend.cli import disk, init, once, parser, status, stopped"
    script = "from uvtokend.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    for verb, (exit_status, said) in expected.items():
        arguments = ("--yes", str(open_directory)) if verb == "init" else ()
        done = as_user(script, verb, *arguments, imports=f"{imports}, main", env=env)
        assert (done.returncode, said in done.stdout + done.stderr) == (exit_status, True), (verb, done)
        assert "Traceback" not in done.stderr
        assert "Internal error" not in done.stderr


def test_the_socket_is_in_the_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the runtime directory meets the XDG specification, the socket is where platformdirs would put it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private(tmp_path / "run")))
    assert paths.socket_file() == os.path.join(platformdirs.user_runtime_dir("uvtokend", False), "control.sock")


@pytest.mark.parametrize("kind", ["missing", "open", "file", "symlink", "relative"])
def test_without_a_usable_runtime_directory_the_socket_is_in_the_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """A runtime directory that is missing, open to others, or another user's (after `su`, for example) is not used."""
    directory = tmp_path / "run"
    if kind == "open":
        private(directory).chmod(0o777)
    elif kind == "file":
        directory.touch()
    elif kind == "symlink":
        directory.symlink_to(private(tmp_path / "real"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run" if kind == "relative" else str(directory))
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)  # a uid without /run/user
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert paths.socket_file() == str(tmp_path / "uvtokend" / "control.sock")


def test_variables_name_other_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """UVTOKEND_SOCKET and UVTOKEND_CONFIG set the paths, --config overrides the latter,
    and every path becomes absolute.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("UVTOKEND_SOCKET", "here/c.sock")
    monkeypatch.setenv("UVTOKEND_CONFIG", "~/c.toml")
    assert paths.socket_file() == str(tmp_path / "here" / "c.sock")
    assert paths.config_file() == "/home/me/c.toml"
    assert paths.config_file("d.toml") == str(tmp_path / "d.toml")
    monkeypatch.delenv("UVTOKEND_CONFIG")
    assert paths.config_file() == str(platformdirs.user_config_path("uvtokend", False) / "config.toml")
    assert paths.site_config_file() == str(platformdirs.site_config_path("uvtokend", False) / "config.toml")


def test_a_path_too_long_for_a_socket_is_refused_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest possible socket path works; one byte more raises an error whose fix names UVTOKEND_SOCKET."""
    longest = "/" + "ä" * ((paths.SUN_PATH_MAX - 1) // 2)
    monkeypatch.setenv("UVTOKEND_SOCKET", longest)
    assert paths.socket_file() == longest
    monkeypatch.setenv("UVTOKEND_SOCKET", longest + "x")
    with pytest.raises(UvtokendError, match=r"longer than the 10\d bytes") as caught:
        paths.socket_file()
    assert "UVTOKEND_SOCKET" in str(caught.value.hint)


def test_a_private_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    """New directories get mode 0700 whatever the umask, and making an existing one again succeeds."""
    before = os.umask(0)
    try:
        paths.private_directory(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    paths.private_directory(str(tmp_path / "a" / "b"))
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("a", "a/b")] == ["0o700", "0o700"]
    paths.check_private(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("open", "Other users can access"),
        ("symlink", "symbolic link"),
        ("dangling", "symbolic link"),
        ("file", "not a directory"),
        ("foreign", "but uvtokend runs as uid 4000000"),
    ],
)
def test_a_directory_that_is_not_private_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, message: str
) -> None:
    """A directory that other users can enter, or a symlink instead of one,
    raises an error with a fix and is not changed.
    """
    directory = tmp_path / "x"
    if kind == "symlink":
        directory.symlink_to(private(tmp_path / "real"))
    elif kind == "dangling":
        directory.symlink_to(tmp_path / "nowhere")
    elif kind == "file":
        directory.touch()
    else:
        private(directory).chmod(0o755 if kind == "open" else 0o700)
    if kind == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    for check in (paths.private_directory, paths.check_private):
        with pytest.raises(UvtokendError, match=message) as caught:
            check(str(directory))
        assert caught.value.hint


def test_a_fix_can_be_pasted(tmp_path: Path) -> None:
    """The command that repairs a directory quotes paths with a space, which are usual on macOS."""
    directory = private(tmp_path / "Application Support")
    directory.chmod(0o755)
    with pytest.raises(UvtokendError) as caught:
        paths.check_private(str(directory))
    subprocess.run(["/bin/sh", "-c", str(caught.value.hint)], check=True)
    paths.check_private(str(directory))


def test_a_directory_that_cannot_be_made_raises_our_error(tmp_path: Path) -> None:
    """If a parent directory is a file, the error is ours with a full sentence, not a bare OSError."""
    (tmp_path / "file").touch()
    with pytest.raises(UvtokendError, match="cannot be created"):
        paths.private_directory(str(tmp_path / "file" / "a"))
    with pytest.raises(UvtokendError, match="cannot be read"):
        paths.check_private(str(tmp_path / "file" / "a"))


def test_the_hot_path_imports_no_platformdirs() -> None:
    """Socket and state directory are computed without platformdirs, whose import takes as long as Python's start."""
    code = "import sys; from uvtokend import paths; paths.socket_file(); paths.state_file(); print(*sys.modules)"
    command, env = [sys.executable, "-c", code], {"HOME": "/home/me"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "uvtokend.paths" in done.stdout.split()
    assert not {"platformdirs", "pathlib", "typing", "dataclasses"} & set(done.stdout.split())


def test_paths_on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the site configuration is the same for every Python,
    and uv's old credentials directory wins if it exists.
    """
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_DIRS", "XDG_DATA_HOME", "UV_CREDENTIALS_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert paths.site_config_file() == "/Library/Application Support/uvtokend/config.toml"
    assert paths.uv_credentials_file() == f"{tmp_path}/.local/share/uv/credentials/credentials.toml"
    (tmp_path / "Library" / "Application Support" / "uv").mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert paths.uv_credentials_file() == f"{tmp_path}/Library/Application Support/uv/credentials/credentials.toml"


@pytest.mark.parametrize(
    ("owner", "me", "closed", "inside", "refused"),
    [
        (1000, 1000, False, True, False),
        (1000, 0, False, True, True),
        (1000, 0, False, False, False),
        (0, 1000, False, True, False),
        (0, 1000, True, True, True),
        (paths.NOBODY, 1000, False, True, False),
    ],
    ids=["one's own", "sudo", "nothing inside", "a container", "a closed container", "a user namespace"],
)
def test_who_owns_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    owner: int,
    me: int,
    closed: bool,
    inside: bool,
    refused: bool,
) -> None:
    """Another user's home is refused if uvtokend would write into it; root's is accepted where we can write."""
    home = tmp_path / "home"
    home.mkdir()
    real = os.stat

    def stat_of(path: str, **options: bool) -> os.stat_result:
        status = real(path, **options)
        return os.stat_result([*status[:4], owner, *status[5:]]) if str(path) == str(home) else status

    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(os, "stat", stat_of)
    monkeypatch.setattr(os, "geteuid", lambda: me)
    monkeypatch.setattr(os, "access", lambda *_: not closed)
    used = str((home if inside else tmp_path) / "a" / "state")
    if refused:
        with pytest.raises(UvtokendError, match=f"The home directory {home} belongs to ") as caught:
            paths.check_home(used)
        assert ("without sudo" in str(caught.value.hint)) == (me == 0)
        assert "set HOME to a directory that you can write" in str(caught.value.hint)
    else:
        paths.check_home(used)


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("XDG_STATE_HOME", "/state", "/state/uvtokend"),
        ("UVTOKEND_SOCKET", "/run/x/control.sock", "/run/x"),
        ("HOME", "/home/me", "/home/me/.local/state/uvtokend"),
    ],
)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_the_fix_for_a_directory_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, path: str, code: int
) -> None:
    """The fix names the variable that sets the directory; on a full disk, the command that shows its usage."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv(variable, value)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UvtokendError, match=f"The directory {path} cannot be created") as caught:
        paths.private_directory(path)
    if code in (errno.ENOSPC, errno.EDQUOT):
        assert "no space left" in caught.value.message
        assert str(caught.value.hint).startswith("df -h /")
    elif code == errno.EIO:
        assert str(caught.value.hint).startswith("ls -ld /")
    else:
        assert caught.value.hint == f"set {variable} to a directory that you can write"
