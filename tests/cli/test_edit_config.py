"""``uvtokend add``, ``remove`` and ``list``: real processes and files, with a daemon and without one."""

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
    """A home with a netrc, and without a configuration."""
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
    """Run a command to its end, without a traceback and with this exit status."""
    done = machine.uvtokend(*arguments)
    assert "Traceback" not in done.stderr
    assert "Internal error" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    return done


def configure(machine: Machine, text: str) -> None:
    """Write the configuration byte for byte."""
    machine.config.parent.mkdir(parents=True, exist_ok=True)
    machine.config.write_bytes(text.encode())
    machine.config.chmod(0o600)


def add(machine: Machine, name: str, *settings: str) -> subprocess.CompletedProcess[str]:
    """Add an index whose tokens come from a command."""
    words = [word for each in settings for word in ("--set", each)]
    command = f"command={json.dumps(['cat', str(machine.home / 'answer')])}"
    url = f"https://{name}.example/simple/"
    return run(machine, "add", url, "--name", name, "--set", "provider=command", "--set", command, *words)


def remembered(machine: Machine) -> list[str]:
    """Return the places that the state file knows."""
    records = json.loads((machine.state / "state.json").read_text())["tokens"]
    return sorted({place for record in records for place in record["targets"]})


def store(machine: Machine) -> str:
    path = machine.home / ".local/share/uv/credentials/credentials.toml"
    return path.read_text() if path.exists() else ""


# ------------------------------------------------------------------------------------------- with and without a daemon


def test_add_makes_the_file_and_remove_leaves_what_was_there(machine: Machine) -> None:
    """The first index makes a file of one's own, 0600; with the last one gone, its head stays for the next."""
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
def test_remove_takes_entry_and_record_out_at_once(machine: Machine, running: bool) -> None:
    """When the command ends, both are removed, and everything foreign is unchanged."""
    run(machine, "start")
    for name in ("a", "b"):
        assert "The running daemon has loaded it." in add(machine, name).stderr
    run(machine, "refresh")
    if not running:
        run(machine, "stop")
    assert remembered(machine) == ["a.example", "b.example"]
    run(machine, "remove", "a")
    netrc = machine.netrc.read_text()
    assert ("a.example" in netrc, "b.example" in netrc, FOREIGN in netrc) == (False, True, True)
    assert remembered(machine) == ["b.example"]
    if running:
        (index,) = json.loads(run(machine, "status", "--json").stdout)["indexes"]
        assert (index["name"], index["delivered"]) == ("b", True)
    run(machine, "remove", "b")
    assert machine.netrc.read_text() == FOREIGN
    assert remembered(machine) == []


@pytest.mark.parametrize("running", [True, False], ids=["with a daemon", "without one"])
def test_remove_takes_the_record_out_of_uvs_store_at_once(machine: Machine, running: bool) -> None:
    """What others have put there stays."""
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
    assert remembered(machine) == ["https://b.example/"]
    run(machine, "remove", "b")
    assert [f"https://{name}.example/" in store(machine) for name in "abf"] == [False, False, True]
    assert not os.path.exists(f"{path}.uvtokend")


def test_a_second_index_on_the_host_keeps_the_entry(machine: Machine) -> None:
    """A host's entry is removed together with the last index on that host."""
    add(machine, "a")
    text = machine.config.read_text()
    machine.config.write_text(text + text[text.index("[[index]]") :].replace('"a"', '"a2"').replace("simple", "two"))
    run(machine, "once")
    assert "Its token stays, because another index needs it." in run(machine, "remove", "a").stderr
    assert "a.example" in machine.netrc.read_text()
    assert "Its token is removed." in run(machine, "remove", "a2").stderr
    assert machine.netrc.read_text() == FOREIGN


def test_a_daemon_of_another_configuration_is_told_apart(machine: Machine) -> None:
    """It does not take up what it does not read, and keeps the entry that its own configuration asks for."""
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
    """Comments and line ends stay; only a missing last line end is added."""
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
    """The target of a symbolic link, such as a file in a directory of dotfiles, is edited in place."""
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
def test_a_file_that_is_wrong_is_told_and_not_touched(machine: Machine, text: str) -> None:
    """Nothing is added to it; each problem is told with its fix."""
    configure(machine, text)
    said = run(machine, "add", "https://europe-west3-python.pkg.dev/a/b/simple/", status=2).stderr
    assert str(machine.config) in said
    assert machine.config.read_text() == text
    assert run(machine, "list", status=2).stderr == said


def test_an_index_that_is_wrong_can_be_taken_out(machine: Machine) -> None:
    """Removing the invalid index repairs the file; its entry is removed, too."""
    add(machine, "a")
    run(machine, "once")
    good = machine.config.read_text()
    machine.config.write_text(f"{good}colour = 1\n")
    run(machine, "remove", "a")
    assert machine.config.read_text() == config_editor.HEADER
    assert machine.netrc.read_text() == FOREIGN


def test_what_cannot_be_edited_safely_names_an_editor(machine: Machine) -> None:
    """A list in one value with a comment in it, say; not a byte changes."""
    text = (
        'index = [\n  { name = "a", url = "https://a.example/", provider = "command", command = ["x"] }, # mine\n'
        '  { name = "b", url = "https://b.example/", provider = "command", command = ["x"] },\n]\n'
    )
    configure(machine, text)
    done = run(machine, "remove", "a", status=1)
    assert f"fix: edit it by hand: ${{EDITOR:-vi}} {machine.config}" in done.stderr
    assert machine.config.read_text() == text


def test_a_folder_that_may_not_be_written(open_directory: Path) -> None:
    """The file is as it was, and the sentence says so."""
    home = open_directory / "home"
    folder = home / "conf"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(MINE)
    for path in (folder / "config.toml", folder, home):
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
    (folder / "config.toml").chmod(0o600)
    folder.chmod(0o500)
    env = {"HOME": str(home), "UVTOKEND_CONFIG": str(folder / "config.toml"), "PATH": os.environ["PATH"]}
    script = """\
        import sys
        from uvtokend.cli import main
        sys.exit(main.main(["add", "https://europe-west3-python.pkg.dev/a/b/simple/"]))
    """
    imports = "gettext, locale, platformdirs.unix, uvtokend.cli.add, uvtokend.cli.parser, uvtokend.cli.main"
    done = as_user(script, imports=imports, env=env)
    assert done.returncode == 1, done.stderr
    assert f"{folder}/config.toml could not be written and is unchanged: Permission denied." in done.stderr
    assert f"ls -ld {folder}" in done.stderr
    assert (folder / "config.toml").read_text() == MINE


def test_another_users_home_is_refused(open_directory: Path) -> None:
    """With sudo and a HOME that was kept, the file would belong to root."""
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


# ------------------------------------------------------------------------------------------------------------ rivals


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that this process itself edits."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "config.toml"
    monkeypatch.setenv("UVTOKEND_CONFIG", str(path))
    return path


def appending(name: str) -> Callable[[str], str]:
    table: edit.Table = {"name": name, "url": f"https://{name}.example/", "provider": "command", "command": ["x"]}
    return lambda text: edit.append(text, [table])


def test_many_at_once_lose_nothing(config: Path) -> None:
    """Also where none of them finds a file."""
    names = [f"i{number}" for number in range(6)]
    threads = [threading.Thread(target=config_editor.edit, args=(None, appending(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(table["name"] for table in tomllib.loads(config.read_text())["index"]) == names
    assert list(config.parent.glob(".config.toml*")) == []


@pytest.mark.parametrize("at", ["before the edit", "before the exchange", "where there was no file"])
def test_an_edit_of_somebody_else_is_kept(config: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Whenever another program's edit comes, our edit is repeated on top of it."""
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
    """The command waits for the other process, and then names it with its pid."""
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


def test_somebody_who_never_rests_is_told_of(config: Path) -> None:
    """After some tries; what is there is theirs."""
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
def test_a_file_system_that_can_do_less(
    config: Path, monkeypatch: pytest.MonkeyPatch, code: int, missing: bool
) -> None:
    """Without exchange or link the file is replaced, a mount of a single file is written in place; else it is told."""

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


def test_a_mounted_file_that_somebody_changes_is_read_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never written over."""
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


def test_what_would_not_be_accepted_is_not_written(config: Path) -> None:
    """The problems are those of the whole configuration."""
    with pytest.raises(ConfigError, match="No provider is known"):
        config_editor.edit(None, lambda text: edit.append(text, [{"url": "https://x.example/"}]))
    assert not config.exists()


# --------------------------------------------------------------------------------------------------- the command line

GOOGLE = "https://europe-west3-python.pkg.dev/a/b/simple/"


def test_settings_are_what_they_look_like(machine: Machine) -> None:
    """Numbers, texts that look like numbers, lists, tables and dotted keys; a bare word is a text."""
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
def test_what_cannot_be_added_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """In a sentence, with exit status 2; nothing is written, and what may be a secret is not repeated."""
    assert main.main(["add", *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "hunter2" not in shown.out + shown.err
    assert not config.exists()


def test_a_name_that_is_taken(machine: Machine) -> None:
    """By an index of one's own, or of the site: another name is proposed, and that command does it."""
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


def test_the_proposed_name_keeps_the_settings(machine: Machine) -> None:
    """The command to paste does what was asked for; only a text that may be a secret is not repeated."""
    run(machine, "add", GOOGLE, "--set", "lifetime=30m")
    options = ["--set", "lifetime=30m", "--set", "env.A_TOKEN=hunter2"]
    done = run(machine, "add", GOOGLE, "--name", "b", *options, status=2)
    assert done.stderr.splitlines()[1].endswith(" --name b-2 --set lifetime=30m --set 'env.A_TOKEN=…'")
    reference = ["--set", "provider=static", "--set", "username=me", "--set", 'password={ env = "P" }']
    done = run(machine, "add", GOOGLE, "--name", "b", *reference, status=2)
    words = shlex.split(done.stderr.splitlines()[1].split("fix: uvtokend ")[1])
    assert words[4:] == reference


def test_a_second_index_on_a_host_needs_no_more_words(machine: Machine) -> None:
    """A second index on a host gets the options and sink of the first; with settings of its own, only those."""
    add(machine, "a", "sink=uv-store")
    done = run(machine, "add", "https://a.example/two/")
    assert "It shares the token of 'a'." in done.stderr
    first, second = tomllib.loads(machine.config.read_text())["index"]
    assert second == {**first, "name": "two", "url": "https://a.example/two/"}
    run(machine, "add", "https://b.example/two/", "--name", "b", status=2)
    words = ("--set", "provider=command", "--set", "command=['x']")
    done = run(machine, "add", "https://a.example/three/", *words, status=2)
    assert "the new index: url: 'a' on a.example has sink = 'uv-store'" in done.stderr


def test_an_index_of_the_site(machine: Machine) -> None:
    """It is not one's own to remove, but can be switched off; what one has written over it can be taken away."""
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


def test_a_name_that_nobody_has(machine: Machine) -> None:
    """Those that there are are named."""
    assert "No index is configured" in run(machine, "remove", "x", status=2).stderr
    add(machine, "a")
    assert "Configured: a." in run(machine, "remove", "x", status=2).stderr


def test_a_token_that_cannot_be_taken_out_is_told(machine: Machine) -> None:
    """The index is out of the configuration; the next start takes the entry out."""
    folder = machine.home / "n"
    folder.mkdir(0o700)
    netrc = folder / "netrc"
    machine.environment["NETRC"] = str(netrc)
    add(machine, "a")
    run(machine, "once")
    folder.chmod(0o777)
    done = run(machine, "remove", "a", status=1)
    assert f"fix: chmod go-w {folder}" in done.stderr
    assert machine.config.read_text() == config_editor.HEADER
    assert "a.example" in netrc.read_text()
    folder.chmod(0o700)
    run(machine, "start")
    until(lambda: "a.example" not in netrc.read_text())


def test_a_daemon_that_cannot_take_it_out_is_not_waited_for_in_vain(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its way is told."""
    folder = machine.home / "n"
    folder.mkdir(0o700)
    machine.environment["NETRC"] = str(folder / "netrc")
    add(machine, "a")
    run(machine, "start")
    run(machine, "refresh")
    folder.chmod(0o777)
    for name, text in machine.environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.delenv("UVTOKEND_CONFIG", raising=False)
    monkeypatch.setattr(remove, "_PATIENCE", 0.1)
    with pytest.raises(UvtokendError, match=r"its entry is still there\. .*may write to the directory") as caught:
        remove.remove("a", None)
    assert caught.value.hint == "uvtokend status"


def test_a_state_that_cannot_be_written_is_told(machine: Machine) -> None:
    """The entry is gone anyway."""
    add(machine, "a")
    run(machine, "once")
    (machine.state / "state.json.new").mkdir()
    done = run(machine, "remove", "a", status=1)
    assert "The entry is removed, but the state file could not be written: Is a directory." in done.stderr
    assert machine.netrc.read_text() == FOREIGN


def test_a_store_that_uv_cannot_read_is_told(machine: Machine) -> None:
    """The store is left unchanged, byte for byte, and the ledger still knows our record."""
    path = machine.home / ".local/share/uv/credentials/credentials.toml"
    add(machine, "a", "sink=uv-store")
    run(machine, "once")
    text = path.read_text() + "[broken"
    path.write_text(text)
    done = run(machine, "remove", "a", status=1)
    assert "uv cannot read its credential store" in done.stderr
    assert path.read_text() == text
    assert "a.example" in Path(f"{path}.uvtokend").read_text()
