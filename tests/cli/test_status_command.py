"""What `status` says about running daemons, stopped ones, and a configuration that changed on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from datetime import datetime, timedelta

import psutil

from clouds.jfrog import JFrog
from support.daemons import ask
from support.desk import Desk, desk, gone, on_terminal
from support.terminal import LINES
from support.waiting import PATIENCE

__all__ = ["desk"]

#: The last lines of the status of a running daemon.
FOOTER = r"uvtokend \S+ pid (\d+),"


def test_an_invalid_configuration_does_not_affect_a_running_daemon(desk: Desk) -> None:
    """If config.toml becomes invalid, `status` says so but exits with 0, because the tokens are still valid."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    assert desk.document("status")["config_stale"] is None
    good = desk.config.read_text()
    desk.config.write_text(good + "\nnonsense")
    document = desk.document("status")
    assert "config.toml is invalid" in document["config_stale"]
    assert "previous configuration stays loaded" in document["config_stale"]
    text = desk.run("status").stdout.splitlines()
    assert text[0] == "The index is ready."
    assert text[1].startswith("config.toml is invalid")
    assert text[2] == f"  fix: correct {desk.config}, then run: uvtokend reload"
    desk.config.write_text(good)
    assert desk.document("status")["config_stale"] is None


def test_a_changed_configuration_is_noticed_until_it_is_loaded(desk: Desk) -> None:
    """If config.toml has changed, `status` names `reload` until it is loaded; changes in comments do not count."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    desk.configure(("a", "a.example"), ("b", "b.example"))
    document = desk.document("status")
    assert document["config_stale"].startswith("config.toml changed ")
    assert len(document["indexes"]) == 1
    assert "fix: uvtokend reload" in desk.run("refresh").stdout
    desk.run("reload")
    assert desk.document("refresh")["config_stale"] is None
    # A change that does not affect the settings needs no reload.
    desk.config.write_text(desk.config.read_text() + "\n# a remark\n")
    assert desk.document("status")["config_stale"] is None


def test_without_a_daemon_an_invalid_configuration_is_still_a_document(desk: Desk) -> None:
    """`status --json` prints a document even if the configuration is invalid, and the problems on standard error."""
    desk.configure(("a", "a.example"))
    desk.config.write_text('[daemon]\nmax-wrkers = 1\n\n[[index]]\nurl = "ftp://x.example/"\nname = "x"\n')
    done = desk.run("status", "--json", status=3)
    document = json.loads(done.stdout)
    assert (document["pid"], document["indexes"], document["delivery"]["ok"]) == (None, [], False)
    assert "2 problems" in document["config_stale"]
    assert "max-workers" in done.stderr
    assert "not running" in desk.run("status", status=3).stdout


def test_a_stopped_daemon_has_no_activity(desk: Desk) -> None:
    """Without a daemon, the document has the same keys, but its pid, start time and states are null."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    running = desk.document("status")
    desk.run("stop")
    document = desk.document("status", status=3)
    assert document.keys() == running.keys()
    assert [index.keys() for index in document["indexes"]] == [index.keys() for index in running["indexes"]]
    assert (document["pid"], document["started_at"], document["indexes"][0]["state"]) == (None, None, None)
    assert document["delivery"]["ok"] is False
    text = desk.run("status", status=3).stdout.splitlines()
    assert text[1] == "  fix: uvtokend start"
    assert text[2].startswith("The token on disk is still valid; uv works until ")


def test_a_daemon_on_another_socket_is_named(desk: Desk) -> None:
    """If UVTOKEND_SOCKET names another socket, `status` says where the running daemon listens, and how to reach it."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("refresh")
    pid = desk.document("status")["pid"]
    socket = os.fspath(desk.home / "run" / "other.sock")
    desk.extra["UVTOKEND_SOCKET"] = socket
    text = desk.run("status", status=3).stdout
    del desk.extra["UVTOKEND_SOCKET"]
    usual = desk.home / "run" / "uvtokend" / "control.sock"
    assert text.splitlines()[:2] == [
        f"A daemon (pid {pid}) keeps {desk.netrc} fresh, but it listens on {usual}, not on {socket}.",
        "  fix: unset UVTOKEND_SOCKET",
    ]
    assert desk.run("status").returncode == 0


def test_watch_survives_a_restart(desk: Desk) -> None:
    """`status --watch` continues when the daemon is restarted, and shows the new one."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    watch = desk.popen("status", "--watch", "--json")
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    desk.run("restart")
    assert any(json.loads(line)["pid"] != first["pid"] for line in watch.stdout)
    desk.run("stop")
    watch.communicate(timeout=30)
    assert watch.returncode == 3


def test_force_color_and_no_color(desk: Desk) -> None:
    """FORCE_COLOR turns color on without a terminal; NO_COLOR turns it off everywhere, and wins."""
    desk.configure(("a", "a.example"))
    desk.run("once")
    assert "\x1b" not in desk.run("status", status=3).stdout
    desk.extra["FORCE_COLOR"] = "1"
    assert "\x1b[31m" in desk.run("status", status=3).stdout
    desk.extra["NO_COLOR"] = "1"
    assert "\x1b" not in desk.run("status", status=3).stdout
    text, _ = on_terminal(desk, "status")
    assert "\x1b" not in text


def test_once_names_no_next_refresh(desk: Desk) -> None:
    """The output of `once` names no process and no next refresh, because nothing runs afterwards."""
    desk.configure(("a", "a.example"))
    text = desk.run("once").stdout
    assert text.startswith("The index is ready.\n")
    assert "refresh" not in text
    assert "pid" not in text


def test_a_disabled_index_is_shown_and_does_not_count(desk: Desk) -> None:
    """A disabled index, even an incomplete one, is listed as disabled, is not fetched, and blocks nothing."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    assert desk.run("start").stdout.splitlines()[0] == "The index is ready; 1 is disabled."
    for document in (desk.document("status"), desk.document("status", "off")):
        off = document["indexes"][-1]
        assert (off["name"], off["enabled"], off["state"], off["health"]) == ("off", False, None, "none")
    assert [index["name"] for index in desk.document("refresh")["indexes"]] == ["a"]
    assert "The index 'off' is disabled." in desk.run("refresh", "off", status=1).stderr
    desk.run("stop")
    assert [index["enabled"] for index in desk.document("status", status=3)["indexes"]] == [True, False]


def test_stop_without_a_daemon_does_not_suggest_a_start(desk: Desk) -> None:
    """`stop` without a daemon exits with 3 and does not suggest `uvtokend start`, since the user wants none to run."""
    desk.configure(("a", "a.example"))
    assert desk.run("stop", status=3).stderr == "uvtokend: uvtokend is not running, so there is nothing to stop.\n"


def test_keyring_install_prints_its_fix_on_its_own_line(desk: Desk) -> None:
    """If the directory is not first on PATH, the command to paste is on its own line, quoted for the shell."""
    directory = desk.home / "my bin"
    directory.mkdir()
    said = desk.run("keyring", "install", str(directory)).stderr.splitlines()
    assert said[-1] == f"  fix: export PATH='{directory}':$PATH"


def test_a_disabled_index_is_not_called_unknown(desk: Desk) -> None:
    """For a disabled index, a command that needs its token exits with 1 and says how to enable it,
    even without a daemon.
    """
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    for command in (["once", "off"], ["adopt", "off"], ["token", "off"]):
        said = desk.run(*command, status=1).stderr
        assert "The index 'off' is disabled in config.toml." in said
        assert "fix: set enabled = true" in said


def test_an_unknown_index_is_wrong_usage_whether_a_daemon_runs_or_not(desk: Desk) -> None:
    """An unknown index name exits with 2 and a disabled one with 1, with and without a daemon."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    for command in (["status"], ["status", "--json"], ["refresh"], ["once"], ["token"], ["remove"], ["login"]):
        assert "Unknown index 'nobody'" in desk.run(*command, "nobody", status=2).stderr
    desk.run("refresh", "a", status=3)
    desk.run("start")
    for command in (["status"], ["refresh"], ["refresh", "--json"], ["once"], ["token"], ["ensure"], ["login"]):
        done = desk.run(*command, "nobody", status=2)
        assert (done.stdout, "Unknown index 'nobody'" in done.stderr) == ("", True)
    for command in (["refresh"], ["once"], ["token"], ["ensure"]):
        assert "'off' is disabled" in desk.run(*command, "off", status=1).stderr
    desk.run("once")


def test_an_unknown_index_without_any_configured(desk: Desk) -> None:
    """If no index is configured, a command with an index name exits with 2, and the fix is `uvtokend init`."""
    said = desk.run("token", "a", status=2).stderr
    more = "If init recognizes no provider for it, see: uvtokend add --help"
    assert said == f"uvtokend: Unknown index 'a'. No index is configured. {more}\n  fix: uvtokend init\n"


def test_list_fits_the_terminal(desk: Desk) -> None:
    """`list` puts URL and file on their own lines on a narrow terminal; in a pipe, each index is one unpadded line."""
    desk.configure(("a", "a.example"), ("bbbbbbbbbb", "b.example"))
    text, status = on_terminal(desk, "list")
    lines = text.replace("\r", "").splitlines()
    assert status == 0
    assert lines[:2] == ["INDEX       ENABLED  PROVIDER  SINK", "a           yes      command   netrc"]
    assert lines[2:4] == ["  https://a.example/simple/", f"  {desk.config}"]
    piped = desk.run("list").stdout.splitlines()
    assert piped[1] == f"a  yes  command  netrc  https://a.example/simple/  {desk.config}"


def test_watch_without_a_daemon_ends_in_a_script(desk: Desk) -> None:
    """In a script, `--watch` without a daemon exits with 3 at once and names the fix; an unknown name exits with 2."""
    desk.configure(("a", "a.example"))
    done = desk.run("status", "--watch", "--json", status=3)
    assert (done.stdout, done.stderr) == ("", "uvtokend: uvtokend is not running.\n  fix: uvtokend start\n")
    desk.run("status", "--watch", "nobody", status=2)


def test_watch_fits_a_small_terminal(desk: Desk) -> None:
    """`--watch` shows as many lines as the terminal has, starting with the headline, and counts the rest."""
    desk.configure(*((f"i{number}", f"h{number}.example") for number in range(30)))
    desk.config.write_text(re.sub(r"answer-i\d+", "answer-i0", desk.config.read_text()))  # one request for all
    desk.run("start")
    with desk.terminal("status", "--watch") as terminal:
        picture = terminal.expect(r"\x1b\[H([^…]*)… \d+ more lines")[1]
        assert terminal.interrupt() == 130
    assert "All 30 indexes are ready." in picture.splitlines()[0]
    assert picture.count("\n") < LINES - 1


def test_watch_on_a_terminal_survives_a_restart(desk: Desk) -> None:
    """On a terminal, `--watch` shows the start command while no daemon runs, and then the new daemon."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    with desk.terminal("status", "--watch") as terminal:
        first = terminal.expect(FOOTER)[1]
        desk.run("stop")
        terminal.expect("uvtokend is not running")
        terminal.expect("fix: .*uvtokend start")
        desk.run("start")
        assert terminal.expect(FOOTER)[1] != first
        assert terminal.interrupt() == 130
        assert "Traceback" not in terminal.text


def test_watch_follows_a_daemon_that_ends_slowly(desk: Desk) -> None:
    """A daemon that ends disconnects its clients first, and still owns the netrc; once it has ended, no terminal shows
    it any more.
    """
    used, answers = threading.Event(), threading.Event()

    def stage(name: str) -> None:
        if name == "burnt":
            used.set()
            answers.wait(PATIENCE)

    with JFrog() as platform:
        for name, secret in zip(("access", "refresh"), platform.pair(), strict=True):
            (desk.home / name).write_text(secret)
            (desk.home / name).chmod(0o600)
        platform.stage = stage
        desk.configure()
        desk.config.write_text(
            f'[[index]]\nname = "a"\nurl = "{platform.url}/artifactory/api/pypi/pypi/simple/"\n'
            'provider = "jfrog-artifactory"\n'
            'access-token = { file = "~/access" }\nrefresh-token = { file = "~/refresh" }\n'
        )
        daemon = desk.popen("run", "--quiet")
        assert used.wait(PATIENCE)
        with desk.terminal("status", "--watch") as terminal:
            assert int(terminal.expect(FOOTER)[1]) == daemon.pid
            daemon.terminate()
            terminal.expect(rf"A daemon \(pid {daemon.pid}\) keeps")
            answers.set()
            terminal.expect("uvtokend is not running")
            assert terminal.interrupt() == 130
        assert daemon.communicate(timeout=PATIENCE) == ("", "")


def test_watch_on_a_terminal_waits_for_a_daemon_that_does_not_answer(desk: Desk) -> None:
    """On a terminal, `--watch` shows that the daemon does not answer, and the status as soon as it does again."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    with desk.terminal("status", "--watch") as terminal:
        pid = int(terminal.expect(FOOTER)[1])
        os.kill(pid, signal.SIGSTOP)
        try:
            terminal.expect(r"The daemon has not answered within 5 s\.")
            terminal.expect("fix: .*uvtokend restart")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert int(terminal.expect(FOOTER)[1]) == pid
        assert terminal.interrupt() == 130


def test_log_prints_local_time_and_the_file_has_utc(desk: Desk) -> None:
    """`log` prints times in the local time zone; the file contains UTC."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("stop")
    first = json.loads((desk.state / "events.jsonl").read_text().splitlines()[0])
    assert first["at"].endswith("Z")
    desk.extra["TZ"] = "Pacific/Kiritimati"  # 14 hours ahead, without summer time
    shown = desk.run("log").stdout.splitlines()[0]
    at = datetime.fromisoformat(first["at"]) + timedelta(hours=14)
    assert shown.startswith(f"{at:%Y-%m-%d %H:%M:%S}  info ")


def test_status_says_whether_the_last_daemon_crashed(desk: Desk) -> None:
    """Without a daemon, `status` says if the last one crashed or was killed; after `stop` it does not."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    process = psutil.Process(ask(desk.socket, "version")["pid"])
    process.kill()
    gone(process)
    shown = desk.run("status", status=3).stdout
    assert re.search(
        r"^The daemon that started on \S+ at \S+ crashed or was killed: uvtokend log$", shown, re.MULTILINE
    )
    desk.run("start")
    desk.run("stop")
    assert "daemon that started" not in desk.run("status", status=3).stdout
