"""What `status` says of real daemons, of one that is gone, and of a configuration that changed under it."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta

import psutil

from support.daemons import ask
from support.desk import Desk, desk, gone, on_terminal

__all__ = ["desk"]


def test_a_broken_configuration_changes_nothing_about_a_running_daemon(desk: Desk) -> None:
    """The tokens are still valid, so the status is 0; the problem is named, and reported again when it changes."""
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
    """An index that was added by hand is not silently ignored: `status` names the command that loads it."""
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
    # A file that was only touched, or that says the same in other words, needs nothing.
    desk.config.write_text(desk.config.read_text() + "\n# a remark\n")
    assert desk.document("status")["config_stale"] is None


def test_without_a_daemon_a_broken_configuration_is_still_a_document(desk: Desk) -> None:
    """A script reads on standard output that nothing runs; a person reads on standard error what is wrong."""
    desk.configure(("a", "a.example"))
    desk.config.write_text('[daemon]\nmax-wrkers = 1\n\n[[index]]\nurl = "ftp://x.example/"\nname = "x"\n')
    done = desk.run("status", "--json", status=3)
    document = json.loads(done.stdout)
    assert (document["pid"], document["indexes"], document["delivery"]["ok"]) == (None, [], False)
    assert "2 problems" in document["config_stale"]
    assert "max-workers" in done.stderr
    assert "not running" in desk.run("status", status=3).stdout


def test_a_stopped_daemon_is_not_said_to_do_anything(desk: Desk) -> None:
    """The document has the same keys as that of a running one; nothing in it claims that somebody acts."""
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
    """A shell with another UVTOKEND_SOCKET looks in the wrong place: the daemon that runs is named with its own."""
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
    """Whoever watches on continues watching when the daemon is restarted: the new one is shown."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    watch = desk.popen("status", "--watch", "--json")
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    desk.run("restart")
    for line in watch.stdout:
        if json.loads(line)["pid"] != first["pid"]:
            break
    desk.run("stop")
    watch.communicate(timeout=30)
    assert watch.returncode == 3


def test_force_color_and_no_color(desk: Desk) -> None:
    """FORCE_COLOR turns color on without a terminal; NO_COLOR overrides it, and a terminal."""
    desk.configure(("a", "a.example"))
    desk.run("once")
    assert "\x1b" not in desk.run("status", status=3).stdout
    desk.extra["FORCE_COLOR"] = "1"
    assert "\x1b[31m" in desk.run("status", status=3).stdout
    desk.extra["NO_COLOR"] = "1"
    assert "\x1b" not in desk.run("status", status=3).stdout
    text, _ = on_terminal(desk, ["status"])
    assert "\x1b" not in text


def test_once_promises_nothing(desk: Desk) -> None:
    """Nobody continues refreshing after `once`: it names no process and no next refresh."""
    desk.configure(("a", "a.example"))
    text = desk.run("once").stdout
    assert text.startswith("The index is ready.\n")
    assert "refresh" not in text
    assert "pid" not in text


def test_a_disabled_index_is_shown_and_does_not_count(desk: Desk) -> None:
    """Also an incomplete one: it is in the table and in the document, blocks nothing, and is not fetched."""
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


def test_stop_without_a_daemon_proposes_no_start(desk: Desk) -> None:
    """Who wants nothing to run has what they want: status 3 says so, without a fix that does the opposite."""
    desk.configure(("a", "a.example"))
    assert desk.run("stop", status=3).stderr == "uvtokend: uvtokend is not running, so there is nothing to stop.\n"


def test_keyring_install_says_its_fix_on_a_line_of_its_own(desk: Desk) -> None:
    """A directory that is not first on PATH: the command to paste is alone, and quoted."""
    directory = desk.home / "my bin"
    directory.mkdir()
    said = desk.run("keyring", "install", str(directory)).stderr.splitlines()
    assert said[-1] == f"  fix: export PATH='{directory}':$PATH"


def test_a_disabled_index_is_not_called_unknown(desk: Desk) -> None:
    """Without a daemon, too, a command that needs its token says that it is disabled, and how to enable it."""
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text() + '\n[[index]]\nname = "off"\nenabled = false\n')
    for command in (["once", "off"], ["adopt", "off"], ["token", "off"]):
        said = desk.run(*command, status=1).stderr
        assert "The index 'off' is disabled in config.toml." in said
        assert "fix: set enabled = true" in said


def test_an_unknown_index_is_wrong_usage_whether_a_daemon_runs_or_not(desk: Desk) -> None:
    """The exit status is 2 in each command that takes a NAME; a disabled index is 1 in each that needs its token."""
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


def test_an_unknown_index_where_none_is_configured(desk: Desk) -> None:
    """The name is wrong usage, and the fix is to configure an index first."""
    said = desk.run("token", "a", status=2).stderr
    more = "If init recognizes no provider for it, see: uvtokend add --help"
    assert said == f"uvtokend: Unknown index 'a'. No index is configured. {more}\n  fix: uvtokend init\n"


def test_list_fits_the_terminal(desk: Desk) -> None:
    """On a narrow terminal nothing is lost or wrapped by it; on a pipe there is one unpadded line for each index."""
    desk.configure(("a", "a.example"), ("bbbbbbbbbb", "b.example"))
    text, status = on_terminal(desk, ["list"])
    lines = text.replace("\r", "").splitlines()
    assert status == 0
    assert lines[:2] == ["INDEX       ENABLED  PROVIDER  SINK", "a           yes      command   netrc"]
    assert lines[2:4] == ["  https://a.example/simple/", f"  {desk.config}"]
    piped = desk.run("list").stdout.splitlines()
    assert piped[1] == f"a  yes  command  netrc  https://a.example/simple/  {desk.config}"


def test_watch_without_a_daemon_waits_for_nobody(desk: Desk) -> None:
    """In a script it says at once that no daemon runs, and how to start one; an unknown name is wrong usage."""
    desk.configure(("a", "a.example"))
    done = desk.run("status", "--watch", "--json", status=3)
    assert (done.stdout, done.stderr) == ("", "uvtokend: uvtokend is not running.\n  fix: uvtokend start\n")
    desk.run("status", "--watch", "nobody", status=2)


def test_watch_keeps_its_top_on_a_small_terminal(desk: Desk) -> None:
    """A terminal of 24 lines would scroll the headline and the problems away; what does not fit is counted."""
    desk.configure(*((f"i{number}", f"h{number}.example") for number in range(30)))
    desk.config.write_text(re.sub(r"answer-i\d+", "answer-i0", desk.config.read_text()))  # one request for all
    desk.run("start")
    text, status = on_terminal(desk, ["status", "--watch"], until=lambda seen: "more lines" in seen)
    assert status == 130
    picture = text.split("\x1b[H")[1]
    assert "All 30 indexes are ready." in picture.splitlines()[0]
    assert picture.count("\n") < 24
    assert re.search(r"… \d+ more lines", picture)


def test_watch_on_a_terminal_survives_a_restart(desk: Desk) -> None:
    """While nothing runs it says so, with the command that starts it; then it shows the new daemon."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    pids: list[str] = []

    def enough(seen: str) -> bool:
        running = re.findall(r"pid (\d+)", seen)
        if running and not pids:
            pids.append(running[-1])
            desk.run("stop")
        if pids and len(pids) == 1 and "fix: " in seen.rpartition("\x1b[H")[2] and "not running" in seen:
            pids.append("")
            desk.run("start")
        return len(pids) == 2 and bool(running) and running[-1] != pids[0]

    text, status = on_terminal(desk, ["status", "--watch"], until=enough)
    assert status == 130
    assert "uvtokend is not running" in text
    assert "Traceback" not in text


def test_the_log_is_local_for_people_and_utc_in_the_file(desk: Desk) -> None:
    """A person reads their own time; a file that travels has one for everybody."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    desk.run("stop")
    first = json.loads((desk.state / "events.jsonl").read_text().splitlines()[0])
    assert first["at"].endswith("Z")
    desk.extra["TZ"] = "Pacific/Kiritimati"  # 14 hours ahead, without summer time
    shown = desk.run("log").stdout.splitlines()[0]
    at = datetime.fromisoformat(first["at"]) + timedelta(hours=14)
    assert shown.startswith(f"{at:%Y-%m-%d %H:%M:%S}  info ")


def test_a_daemon_that_crashed_is_not_just_not_running(desk: Desk) -> None:
    """Without a daemon status says whether the last one was killed; after a stop that was asked for it says nothing."""
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
