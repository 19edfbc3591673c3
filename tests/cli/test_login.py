"""`login` runs only the sign-in commands that are needed; `status --prompt` reads a file that the daemon writes."""

from __future__ import annotations

import json
import os

import pytest

from support.desk import Desk, desk
from support.waiting import until

__all__ = ["desk"]

AWS = """#!/bin/sh
echo "$*" >> "$HOME/calls"
test ! -e "$HOME/refuse" || exit 3
"""


@pytest.fixture
def needing(desk: Desk) -> Desk:
    """Return a desk with an expired SSO session: botocore finds an SSO profile without a cached session."""
    programs = desk.home / "bin"
    programs.mkdir()
    (programs / "aws").write_text(AWS)
    (programs / "aws").chmod(0o755)
    (desk.home / ".aws").mkdir()
    (desk.home / ".aws" / "config").write_text(
        "[profile dev]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\nregion = eu-central-1\n"
        "[sso-session corp]\nsso_start_url = https://corp.example/start\nsso_region = eu-central-1\n"
    )
    desk.extra |= {"PATH": f"{programs}:{os.environ['PATH']}"}
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        desk.extra[name] = ""
    desk.configure()
    desk.config.write_text(
        '[[index]]\nname = "a"\nprofile = "dev"\n'
        'url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"\n'
    )
    return desk


def test_login_runs_the_command_that_status_names(needing: Desk) -> None:
    """`login` runs the exact command that `status` names, once, fetches again, and exits with the outcome."""
    needing.run("start")
    error = needing.document("status", status=1)["indexes"][0]["last_error"]
    assert error["kind"] == "login-required", error
    done = needing.run("login", status=1)
    assert (needing.home / "calls").read_text() == f"{error['hint'].removeprefix('aws ')}\n"
    assert error["hint"] in done.stderr
    # The command did not create a session, so login reports the problem and its fix again.
    assert f"  fix: {error['hint']}" in done.stderr.splitlines()
    (needing.home / "refuse").touch()
    assert "failed with status 3" in needing.run("login", "a", status=1).stderr


def test_a_program_that_is_missing_is_named(needing: Desk) -> None:
    """If the `aws` program is missing, `login` says so and links to its installation page."""
    needing.run("start")
    needing.extra["PATH"] = "/nonexistent"
    done = needing.run("login", status=1)
    assert "aws is not installed, or not on PATH" in done.stderr
    assert "fix: install it: https://docs.aws.amazon.com/" in done.stderr


def test_login_works_without_a_daemon(needing: Desk) -> None:
    """Without a daemon, `login` fetches as `once` does, to find out which sign-ins are needed."""
    needing.run("login", status=1)
    assert (needing.home / "calls").read_text().startswith("sso login")


def test_login_without_anything_to_do(desk: Desk) -> None:
    """If no sign-in is needed, `login` exits with 0, or with 1 if an index fails otherwise; an unknown name is 2."""
    desk.configure(("a", "a.example"))
    desk.run("start")
    assert "No index needs a sign-in." in desk.run("login").stderr
    desk.run("login", "nobody", status=2)
    desk.answer("a", "garbage")
    desk.netrc.unlink()
    desk.run("stop")
    (desk.state / "state.json").unlink()
    desk.run("start")
    assert "not all are ready" in desk.run("login", status=1).stderr


def test_the_daemon_keeps_the_prompt_file_up_to_date(desk: Desk) -> None:
    """`status --prompt` prints a short line from a file that the daemon keeps up to date, and deletes when it stops."""
    assert desk.run("status", "--prompt", status=3).stdout == "not running\n"
    desk.configure(("a", "a.example"))
    desk.run("start")
    file = desk.state / "prompt"
    while not file.exists() or not file.read_text().startswith("1 ready\n"):
        desk.run("status")
    assert desk.run("status", "--prompt").stdout == "1 ready\n"
    assert desk.run("status", "--prompt", "a").stdout == "1 ready\n"
    desk.run("status", "--prompt", "nobody", status=2)
    desk.run("stop")
    assert desk.run("status", "--prompt", "a", status=3).stdout == "not running\n"
    desk.run("status", "--prompt", "nobody", status=2)
    assert not file.exists()
    desk.state.mkdir(exist_ok=True)
    file.write_text("1 ready\n1700000000\n0\n")  # left by a daemon that was killed long ago
    assert desk.run("status", "--prompt", status=3).stdout == "not running\n"


def test_the_daemon_writes_the_metrics_file(desk: Desk) -> None:
    """The daemon writes each index's state and expiry to `metrics-file`, and deletes the file when it stops."""
    metrics = desk.home / "m.prom"
    desk.configure(("a", "a.example"), daemon=f"[daemon]\nmetrics-file = {json.dumps(str(metrics))}\n")
    desk.run("start")
    ready = 'uvtokend_index_ready{index="a",provider="command",host="a.example"} 1'
    until(lambda: metrics.exists() and ready in metrics.read_text())
    assert "expiry_timestamp" in metrics.read_text()
    desk.run("stop")
    assert not metrics.exists()
