"""``uvtokend add``, ``remove`` and ``list`` with real processes and files, with and without a daemon."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import places
from support.unprivileged import as_user
from support.waiting import until
from uvtokend.cli import main, remove
from uvtokend.core import fixes
from uvtokend.core.config import edit
from uvtokend.disk import config_editor, exchange
from uvtokend.errors import ConfigError, UvtokendError
from uvtokend.sandbox.machine import Machine

FOREIGN = "# mine\nmachine ftp.example login me password mine\n"
SITE = (
    '[[index]]\nname = "company"\nurl = "https://company.example/simple/"\nprovider = "command"\ncommand = ["false"]\n'
)


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Make a machine with a netrc and without a configuration."""
    made = Machine(tmp_path_factory.mktemp("m"))
    made.environment["XDG_CONFIG_HOME"] = str(made.home / ".config")
    del made.environment["UVTOKEND_CONFIG"]
    made.config = places.config_file(made.home)
    made.netrc.write_text(FOREIGN)
    made.netrc.chmod(0o600)
    answer = {"username": "me", "password": "tok-1f3a", "expires_in": 3600}
    (made.home / "answer").write_text(json.dumps(answer))
    yield made
    made.uvtokend("stop")


def run(machine: Machine, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command, and check that it exits with this status and without a traceback."""
    done = machine.uvtokend(*arguments)
    assert "Traceback" not in done.stderr
    assert "Internal error" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    return done


def configure(machine: Machine, text: str) -> None:
    """Write the configuration exactly as given."""
    machine.config.parent.mkdir(parents=True, exist_ok=True)
    machine.config.write_bytes(text.encode())
    machine.config.chmod(0o600)


def add(machine: Machine, name: str, *settings: str) -> subprocess.CompletedProcess[str]:
    """Add an index whose tokens come from a command."""
    words = [word for each in settings for word in ("--set", each)]
    command = f"command={json.dumps(['cat', str(machine.home / 'answer')])}"
    url = f"https://{name}.example/simple/"
    return run(machine, "add", url, "--name", name, "--set", "provider=command", "--set", command, *words)


def recorded_targets(machine: Machine) -> list[str]:
    """Return the targets in the state file."""
    records = json.loads((machine.state / "state.json").read_text())["tokens"]
    return sorted({target for record in records for target in record["targets"]})


def store(machine: Machine) -> str:
    path = machine.home / ".local/share/uv/credentials/credentials.toml"
    return path.read_text() if path.exists() else ""


# ------------------------------------------------------------------------------------------- with and without a daemon


def test_add_creates_the_file_and_remove_keeps_its_header(machine: Machine) -> None:
    """`add` creates config.toml with mode 0600; after the last `remove`, only the file's header remains."""
    done = add(machine, "a")
    assert done.stdout.startswith('[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "command"\n')
    assert done.stderr == f"Added to {machine.config}.\nNo daemon is running. Start it with: uvtokend start\n"
    assert machine.config.stat().st_mode & 0o777 == 0o600
    header, row = run(machine, "list").stdout.splitlines()
    assert header.split() == ["INDEX", "ENABLED", "PROVIDER", "SINK", "URL", "FILE"]
    assert row.split() == ["a", "yes", "command", "netrc", "https://a.example/simple/", str(machine.config)]
    assert run(machine, "remove", "a").stdout == done.stdout
    assert machine.config.read_text() == config_editor.HEADER
    assert run(machine, "list").stdout == "No index is configured yet. Set one up with: uvtokend init\n"
    assert machine.netrc.read_text() == FOREIGN


@pytest.mark.parametrize("running", [True, False], ids=["with a daemon", "without one"])
def test_remove_deletes_entry_and_state_at_once(machine: Machine, running: bool) -> None:
    """When `remove` ends, the netrc entry and the state of that index are gone, and foreign entries are unchanged."""
    run(machine, "start")
    for name in ("a", "b"):
        assert "The running daemon has loaded it." in add(machine, name).stderr
    run(machine, "refresh")
    if not running:
        run(machine, "stop")
    assert recorded_targets(machine) == ["a.example", "b.example"]
    run(machine, "remove", "a")
    netrc = machine.netrc.read_text()
    assert ("a.example" in netrc, "b.example" in netrc, FOREIGN in netrc) == (False, True, True)
    assert recorded_targets(machine) == ["b.example"]
    if running:
        (index,) = json.loads(run(machine, "status", "--json").stdout)["indexes"]
        assert (index["name"], index["delivered"]) == ("b", True)
    run(machine, "remove", "b")
    assert machine.netrc.read_text() == FOREIGN
    assert recorded_targets(machine) == []


@pytest.mark.parametrize("running", [True, False], ids=["with a daemon", "without one"])
def test_remove_deletes_the_record_in_uvs_store_at_once(machine: Machine, running: bool) -> None:
    """When `remove` ends, the record in uv's store is gone, and other programs' records are unchanged."""
    path = machine.home / ".local/share/uv/credentials/credentials.toml"
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o700)
    path.write_text('[[credential]]\nservice = "https://f.example/"\nusername = "f"\npassword = "theirs"\n')
    run(machine, "start")
    for name in ("a", "b"):
        add(machine, name, "sink=uv-store")
    run(machine, "refresh")
    assert "https://a.example/" in store(machine)
    if not running:
        run(machine, "stop")
    run(machine, "remove", "a")
    assert [f"https://{name}.example/" in store(machine) for name in "abf"] == [False, True, True]
    assert recorded_targets(machine) == ["https://b.example/"]
    run(machine, "remove", "b")
    assert [f"https://{name}.example/" in store(machine) for name in "abf"] == [False, False, True]
    assert not os.path.exists(f"{path}.uvtokend")


def test_the_entry_stays_while_another_index_needs_it(machine: Machine) -> None:
    """`remove` deletes a host's entry only with the last index on that host, and says which of the two happened."""
    add(machine, "a")
    text = machine.config.read_text()
    machine.config.write_text(text + text[text.index("[[index]]") :].replace('"a"', '"a2"').replace("simple", "two"))
    run(machine, "once")
    assert "Its token stays, because another index needs it." in run(machine, "remove", "a").stderr
    assert "a.example" in machine.netrc.read_text()
    assert "Its token is removed." in run(machine, "remove", "a2").stderr
    assert machine.netrc.read_text() == FOREIGN


def test_a_daemon_with_another_configuration_is_named(machine: Machine) -> None:
    """If the daemon runs with another configuration, `remove` says so, and the daemon keeps its own entry."""
    add(machine, "a")
    run(machine, "start")
    run(machine, "refresh")
    other = machine.home / "other.toml"
    other.write_text(machine.config.read_text())
    other.chmod(0o600)
    done = run(machine, "--config", str(other), "remove", "a")
    assert f"uses another configuration: {machine.config}" in done.stderr
    assert "a.example" in machine.netrc.read_text()


# -------------------------------------------------------------------------------------------------------- the file

MINE = "# mine\n\n[daemon] # all of it\nmax-workers = 2\n\n# the end"


@pytest.mark.parametrize("text", [MINE, MINE.replace("\n", "\r\n"), f"{MINE}\n", "\n", ""])
def test_a_file_comes_back_as_it_was(machine: Machine, text: str) -> None:
    """`add` and then `remove` preserve comments, line endings and mode; at most a final line ending is added."""
    configure(machine, text)
    machine.config.chmod(0o640)
    before = machine.config.stat().st_mode
    add(machine, "a")
    assert machine.config.read_bytes().startswith(text.encode())
    run(machine, "remove", "a")
    ending = "\r\n" if "\r\n" in text else "\n"
    assert machine.config.read_bytes().decode() in {text, text + ending}
    assert machine.config.stat().st_mode == before
    assert [path.name for path in machine.config.parent.iterdir()] == ["config.toml"]


def test_a_symlink_stays_one(machine: Machine) -> None:
    """If config.toml is a symlink, as with dotfiles, its target is edited and the symlink stays."""
    real = machine.home / "dotfiles" / "uvtokend.toml"
    real.parent.mkdir()
    real.write_text(MINE)
    real.chmod(0o600)
    machine.config.parent.mkdir(parents=True)
    machine.config.symlink_to("../../dotfiles/uvtokend.toml")
    add(machine, "a")
    assert machine.config.is_symlink()
    assert "a.example" in real.read_text()
    assert [path.name for path in real.parent.iterdir()] == [real.name]


@pytest.mark.parametrize("text", ['[[index]]\nname = "x"\n', "[daemon\n", "colour = 1\n"])
def test_an_invalid_file_is_reported_and_not_changed(machine: Machine, text: str) -> None:
    """`add` and `list` report the problems of an invalid configuration, and leave the file unchanged."""
    configure(machine, text)
    said = run(machine, "add", "https://europe-west3-python.pkg.dev/a/b/simple/", status=2).stderr
    assert str(machine.config) in said
    assert machine.config.read_text() == text
    assert run(machine, "list", status=2).stderr == said


def test_an_invalid_index_can_be_removed(machine: Machine) -> None:
    """`remove` can remove an invalid index together with its entry, which repairs the configuration."""
    add(machine, "a")
    run(machine, "once")
    good = machine.config.read_text()
    machine.config.write_text(f"{good}colour = 1\n")
    run(machine, "remove", "a")
    assert machine.config.read_text() == config_editor.HEADER
    assert machine.netrc.read_text() == FOREIGN


def test_a_file_that_cannot_be_edited_safely(machine: Machine) -> None:
    """A file that cannot be edited safely, such as an array with a comment,
    is unchanged; the fix is to edit it by hand.
    """
    text = (
        'index = [\n  { name = "a", url = "https://a.example/", provider = "command", command = ["x"] }, # mine\n'
        '  { name = "b", url = "https://b.example/", provider = "command", command = ["x"] },\n]\n'
    )
    configure(machine, text)
    done = run(machine, "remove", "a", status=1)
    assert f"fix: edit it by hand: ${{EDITOR:-vi}} {machine.config}" in done.stderr
    assert machine.config.read_text() == text


def test_a_directory_that_cannot_be_written(open_directory: Path) -> None:
    """If the directory is not writable, the configuration is unchanged, and the message says so."""
    home = open_directory / "home"
    directory = home / "conf"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text(MINE)
    for path in (directory / "config.toml", directory, home):
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
    (directory / "config.toml").chmod(0o600)
    directory.chmod(0o500)
    env = {"HOME": str(home), "UVTOKEND_CONFIG": str(directory / "config.toml"), "PATH": os.environ["PATH"]}
    script = """\
        import sys
        from uvtokend.cli import main
        sys.exit(main.main(["add", "https://europe-west3-python.pkg.dev/a/b/simple/"]))
    """
    imports = "gettext, locale, platformdirs.unix, uvtokend.cli.add, uvtokend.cli.parser, uvtokend.cli.main"
    done = as_user(script, imports=imports, env=env)
    assert done.returncode == 1, done.stderr
    assert f"{directory}/config.toml could not be written and is unchanged: Permission denied." in done.stderr
    assert f"ls -ld {directory}" in done.stderr
    assert (directory / "config.toml").read_text() == MINE


def test_another_users_home_is_refused(open_directory: Path) -> None:
    """With another user's HOME, as under sudo, `add` is refused, because root would own the file."""
    script = """\
        import sys
        from uvtokend.cli import main
        sys.exit(main.main(["add", "https://europe-west3-python.pkg.dev/a/b/simple/"]))
    """
    env = {"HOME": "/", "UVTOKEND_CONFIG": str(open_directory / "c.toml"), "PATH": os.environ["PATH"]}
    imports = "gettext, locale, platformdirs.unix, uvtokend.cli.add, uvtokend.cli.parser, uvtokend.cli.main"
    done = as_user(script, imports=imports, env=env)
    assert (done.returncode, "set HOME to a directory that you can write" in done.stderr) == (1, True), done.stderr
    assert not (open_directory / "c.toml").exists()


# ---------------------------------------------------------------------------------------------- concurrent edits


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a configuration that this process edits itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "config.toml"
    monkeypatch.setenv("UVTOKEND_CONFIG", str(path))
    return path


def appending(name: str) -> Callable[[str], str]:
    table: edit.Table = {"name": name, "url": f"https://{name}.example/", "provider": "command", "command": ["x"]}
    return lambda text: edit.append(text, [table])


def test_concurrent_edits_are_all_kept(config: Path) -> None:
    """Concurrent edits are all kept, even if the file does not exist yet."""
    names = [f"i{number}" for number in range(6)]
    threads = [threading.Thread(target=config_editor.edit, args=(None, appending(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(table["name"] for table in tomllib.loads(config.read_text())["index"]) == names
    assert list(config.parent.glob(".config.toml*")) == []


@pytest.mark.parametrize("at", ["before the edit", "before the exchange", "where there was no file"])
def test_another_programs_edit_is_kept(config: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """If another program changes the file during our edit, our edit is repeated on top of that change."""
    rivals = iter(["# theirs\n"])

    def rival() -> None:
        for text in rivals:
            config.write_text(text)
            config.chmod(0o600)

    def change(text: str) -> str:
        if at != "before the exchange":
            rival()
        return appending("a")(text)

    def swap(one: str, other: str) -> None:
        rival()
        real(one, other)

    real = exchange.swap
    if at != "where there was no file":
        config.write_text("# old\n")
        config.chmod(0o600)
    if at == "before the exchange":
        monkeypatch.setattr(exchange, "swap", swap)
    config_editor.edit(None, change)
    assert config.read_text().startswith('# theirs\n\n[[index]]\nname = "a"\n')
    assert list(config.parent.glob(".config.toml*")) == []


def test_another_uvtokend_that_hangs_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another uvtokend holds the lock for too long, the error names its pid."""
    monkeypatch.setattr(config_editor, "PATIENCE", 0.05)
    held: list[UvtokendError] = []

    def change(text: str) -> str:
        with pytest.raises(UvtokendError, match=f"already has an owner: pid {os.getpid()}") as caught:
            config_editor.edit(None, appending("b"))
        held.append(caught.value)
        return appending("a")(text)

    config_editor.edit(None, change)
    assert len(held) == 1
    assert '"b"' not in config.read_text()


def test_a_program_that_keeps_changing_the_file(config: Path) -> None:
    """If another program changes the file at every try, the edit fails with that reason and keeps the other's text."""
    config.write_text("# 0\n")
    config.chmod(0o600)

    def change(text: str) -> str:
        config.write_text(f"# {int(text.split()[1]) + 1}\n")
        return f"{text}# ours\n"

    with pytest.raises(UvtokendError, match="keeps changing") as caught:
        config_editor.edit(None, change)
    assert (caught.value.hint, config.read_text()) == (fixes.users_of(str(config)), f"# {config_editor.TRIES}\n")


@pytest.mark.parametrize("missing", [True, False], ids=["a new file", "an old one"])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EBUSY, errno.EACCES])
def test_a_file_system_without_exchange_or_link(
    config: Path, monkeypatch: pytest.MonkeyPatch, code: int, missing: bool
) -> None:
    """Without exchange or link, the file is replaced; a mounted file is written in place; otherwise it is unchanged."""

    def refuse(one: str, other: str) -> None:
        raise OSError(code, os.strerror(code), one, None, other)

    monkeypatch.setattr(exchange, "swap", refuse)
    if missing:
        monkeypatch.setattr(os, "link", refuse)
    else:
        config.write_text("# old\n")
        config.chmod(0o600)
    inode = None if missing else config.stat().st_ino
    if code == errno.EACCES or (missing and code == errno.EBUSY):
        with pytest.raises(UvtokendError, match="is unchanged"):
            config_editor.edit(None, appending("a"))
        assert (config.read_text() if config.exists() else None) == (None if missing else "# old\n")
    else:
        config_editor.edit(None, appending("a"))
        assert 'name = "a"' in config.read_text()
        assert (config.stat().st_ino == inode) == (code == errno.EBUSY)
    assert list(config.parent.glob(".config.toml*")) == []


def test_a_mounted_file_that_changes_is_read_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a mounted file changes during the edit, it is read again, so the other program's text is not overwritten."""
    config.write_text("# old\n")
    config.chmod(0o600)
    rivals = iter(["# theirs\n"])

    def busy(one: str, other: str) -> None:
        for text in rivals:
            config.write_text(text)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(exchange, "swap", busy)
    config_editor.edit(None, appending("a"))
    assert config.read_text().startswith("# theirs\n\n[[index]]\n")


def test_an_edit_that_would_be_invalid_is_not_written(config: Path) -> None:
    """An edit that would make the configuration invalid raises its problems, and nothing is written."""
    with pytest.raises(ConfigError, match="No provider is known"):
        config_editor.edit(None, lambda text: edit.append(text, [{"url": "https://x.example/"}]))
    assert not config.exists()


# --------------------------------------------------------------------------------------------------- the command line

GOOGLE = "https://europe-west3-python.pkg.dev/a/b/simple/"


def test_values_of_set_get_the_type_of_their_option(machine: Machine) -> None:
    """`--set` accepts numbers, strings, lists, tables and dotted keys, each with the type that the option needs."""
    url = "https://self.example/pypi/d/simple/"
    words = [
        "provider=aws-codeartifact",
        "domain=123",
        "domain-owner=000123456789",
        "region=eu-west-1",
        "duration=3600",
        "profile='dev'",
        "env.AWS_CONFIG_FILE=~/.aws/x",
        "env.AWS_RETRIES=3",
        "enabled=false",
    ]
    run(machine, "add", url, *(part for word in words for part in ("--set", word)))
    assert tomllib.loads(machine.config.read_text())["index"] == [
        {
            "name": "self.example",
            "url": url,
            "provider": "aws-codeartifact",
            "domain": "123",
            "domain-owner": "000123456789",
            "region": "eu-west-1",
            "duration": 3600,
            "profile": "dev",
            "env": {"AWS_CONFIG_FILE": "~/.aws/x", "AWS_RETRIES": "3"},
            "enabled": False,
        }
    ]
    assert "no  aws-codeartifact" in run(machine, "list").stdout
    secret = "password={ command = ['pass', 'x'] }"
    run(machine, "add", "https://b.example/", "--set", "provider=static", "--set", "username=7", "--set", secret)
    table = tomllib.loads(machine.config.read_text())["index"][1]
    assert (table["username"], table["password"]) == ("7", {"command": ["pass", "x"]})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["https://u:hunter2@x.example/simple/"], "revoke it: it is in your shell's history"),
        (["https://x.example/simple/"], "so name one: aws-codeartifact, "),
        (["https://["], "This is not a URL."),
        (["foo"], "This is not a URL."),
        ([GOOGLE, "--set", "hunter2"], "--set wants KEY=VALUE"),
        ([GOOGLE, "--set", "a b=hunter2"], "--set wants KEY=VALUE"),
        ([GOOGLE, "--set", "[x]\nb=hunter2"], "--set wants KEY=VALUE"),
        ([GOOGLE, "--set", "url=x"], "--set url is given twice"),
        ([GOOGLE, "--set", "source=adc", "--set", "source=gcloud"], "--set source is given twice"),
        ([GOOGLE, "--set", "env.A=1", "--set", "env=2"], "--set env is given twice"),
        ([GOOGLE, "--set", "env=2", "--set", "env.A=1"], "--set env is given twice"),
        (
            [GOOGLE, "--set", "sorce=adc"],
            "the new index: sorce: Unknown key for google-artifact-registry.\n  fix: did you mean",
        ),
        ([GOOGLE, "--set", "lifetime=nan"], "Expected a duration within its range."),
        ([GOOGLE, "--set", "lifetime=1\nb = 2"], "Expected a duration within its range."),
        (["https://x.example/", "--set", "provider=static", "--set", "username=u", "--set", "password=hunter2"], "VAR"),
        (
            ["https://a.jfrog.io/artifactory/api/pypi/b/simple/"],
            "the new index: its table: The provider jfrog-artifactory needs exactly one way to sign in.",
        ),
        (
            ["http://a.example/", "--set", "provider=command", "--set", "command=['x']"],
            "the new index: url: With http://",
        ),
        ([GOOGLE, "--name", "-x"], "expected one argument"),
        ([GOOGLE, "--name", "a b"], "the new index: name: This cannot be the name of an index."),
        ([f"{GOOGLE}\udcff"], "not UTF-8 text"),
        (["https://acme-ACCOUNT.d.codeartifact.eu-central-1.amazonaws.com/pypi/r/simple/"], "placeholder 'ACCOUNT'"),
        (["https://pypi.corp.example/simple/"], "--set provider=static --set username=YOU --set 'password = {file"),
    ],
)
def test_an_index_that_cannot_be_added_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """A wrong `add` exits with 2, explains why, writes nothing, and does not repeat a possible secret."""
    assert main.main(["add", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "hunter2" not in shown.out + shown.err
    assert not config.exists()


def test_a_name_that_is_already_used(machine: Machine) -> None:
    """If another index already has the name, the fix is a complete command with a new name, and that command works."""
    site = machine.home / "etc" / "uvtokend" / "config.toml"
    site.parent.mkdir(parents=True)
    site.write_text(SITE)
    run(machine, "add", GOOGLE)
    for name in ("b", "company"):
        done = run(machine, "add", GOOGLE, "--name", name, status=2)
        hint = done.stderr.splitlines()[1].split("fix: uvtokend ")[1].split()
        assert f"an index called {name!r}" in done.stderr.lower()
        assert hint[-2:] == ["--name", f"{name}-2"]
        run(machine, *hint)


def test_the_command_with_a_new_name_keeps_the_settings(machine: Machine) -> None:
    """The proposed command repeats the given settings, except for a value that may be a secret."""
    run(machine, "add", GOOGLE, "--set", "lifetime=30m")
    options = ["--set", "lifetime=30m", "--set", "env.A_TOKEN=hunter2"]
    done = run(machine, "add", GOOGLE, "--name", "b", *options, status=2)
    assert done.stderr.splitlines()[1].endswith(" --name b-2 --set lifetime=30m --set 'env.A_TOKEN=…'")
    reference = ["--set", "provider=static", "--set", "username=me", "--set", 'password={ env = "P" }']
    done = run(machine, "add", GOOGLE, "--name", "b", *reference, status=2)
    words = shlex.split(done.stderr.splitlines()[1].split("fix: uvtokend ")[1])
    assert words[4:] == reference


def test_a_second_index_on_a_host_gets_the_settings_of_the_first(machine: Machine) -> None:
    """A second index on a host gets the settings and the sink of the first, unless it is given settings itself."""
    add(machine, "a", "sink=uv-store")
    done = run(machine, "add", "https://a.example/two/")
    assert "It shares the token of 'a'." in done.stderr
    first, second = tomllib.loads(machine.config.read_text())["index"]
    assert second == {**first, "name": "two", "url": "https://a.example/two/"}
    run(machine, "add", "https://b.example/two/", "--name", "b", status=2)
    words = ("--set", "provider=command", "--set", "command=['x']")
    done = run(machine, "add", "https://a.example/three/", *words, status=2)
    assert "the new index: url: 'a' on a.example has sink = 'uv-store'" in done.stderr


def test_an_index_of_the_site_configuration(machine: Machine) -> None:
    """`remove` does not remove an index of the site's configuration: it says how to disable it, and can undo that."""
    site = machine.home / "etc" / "uvtokend" / "config.toml"
    site.parent.mkdir(parents=True)
    site.write_text(SITE)
    done = run(machine, "remove", "company", status=2)
    assert f"comes from the site's configuration, {site}" in done.stderr
    assert not machine.config.exists()
    lines = done.stderr.split(f"{machine.config}:\n")[1]
    configure(machine, lines)
    (_, row) = run(machine, "list").stdout.splitlines()
    assert row.split()[:5] == ["company", "no", "command", "netrc", "https://company.example/simple/"]
    assert {*row.split()[5:]} == {str(site), "and", str(machine.config)}
    done = run(machine, "remove", "company")
    assert "and applies now" in done.stderr
    assert machine.config.read_text().strip() == ""


def test_an_unknown_name_lists_the_configured_ones(machine: Machine) -> None:
    """`remove` with an unknown name lists the configured names."""
    assert "No index is configured" in run(machine, "remove", "x", status=2).stderr
    add(machine, "a")
    assert "Configured: a." in run(machine, "remove", "x", status=2).stderr


def test_an_entry_that_cannot_be_removed_is_reported(machine: Machine) -> None:
    """If the entry cannot be removed, `remove` exits with 1 and a fix; the next start of the daemon removes it."""
    directory = machine.home / "n"
    directory.mkdir(0o700)
    netrc = directory / "netrc"
    machine.environment["NETRC"] = str(netrc)
    add(machine, "a")
    run(machine, "once")
    directory.chmod(0o777)
    done = run(machine, "remove", "a", status=1)
    assert f"fix: chmod go-w {directory}" in done.stderr
    assert machine.config.read_text() == config_editor.HEADER
    assert "a.example" in netrc.read_text()
    directory.chmod(0o700)
    run(machine, "start")
    until(lambda: "a.example" not in netrc.read_text())


def test_remove_gives_up_on_a_daemon_that_cannot_remove_the_entry(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the daemon cannot remove the entry, `remove` stops waiting and reports the daemon's reason."""
    directory = machine.home / "n"
    directory.mkdir(0o700)
    machine.environment["NETRC"] = str(directory / "netrc")
    add(machine, "a")
    run(machine, "start")
    run(machine, "refresh")
    directory.chmod(0o777)
    for name, text in machine.environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.delenv("UVTOKEND_CONFIG", raising=False)
    monkeypatch.setattr(remove, "_PATIENCE", 0.1)
    with pytest.raises(UvtokendError, match=r"its entry is still there\. .*may write to the directory") as caught:
        remove.remove("a", None)
    assert caught.value.hint == "uvtokend status"


def test_a_state_file_that_cannot_be_written_is_reported(machine: Machine) -> None:
    """If the state file cannot be written, `remove` exits with 1 and says so, but the entry is removed."""
    add(machine, "a")
    run(machine, "once")
    (machine.state / "state.json.new").mkdir()
    done = run(machine, "remove", "a", status=1)
    assert "The entry is removed, but the state file could not be written: Is a directory." in done.stderr
    assert machine.netrc.read_text() == FOREIGN


def test_a_store_that_uv_cannot_read_is_reported(machine: Machine) -> None:
    """If uv's store is invalid, `remove` says so, leaves it unchanged, and keeps our record in the ledger."""
    path = machine.home / ".local/share/uv/credentials/credentials.toml"
    add(machine, "a", "sink=uv-store")
    run(machine, "once")
    text = path.read_text() + "[broken"
    path.write_text(text)
    done = run(machine, "remove", "a", status=1)
    assert "uv cannot read its credential store" in done.stderr
    assert path.read_text() == text
    assert "a.example" in Path(f"{path}.uvtokend").read_text()
