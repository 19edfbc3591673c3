"""``uvtokend demo`` as a user runs it: real processes, and nothing left behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.waiting import until

TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+\.[\w-]{100,}")


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a home and a directory for temporary files; its path is short enough for a socket."""
    directory = tmp_path_factory.mktemp("d")
    (directory / "home").mkdir(0o700)
    (directory / "tmp").mkdir()
    return directory


def start(directory: Path, seconds: int, **environment: str) -> subprocess.Popen[str]:
    """Start the demo in an environment that would break it if it were inherited."""
    spoilers = {
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_PROFILE": "other",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NETRC": str(directory / "none"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/",
        "UV_OFFLINE": "1",
        "UVTOKEND_CONFIG": str(directory / "none"),
        "XDG_RUNTIME_DIR": str(directory / "none"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "uvtokend", "demo", "--seconds", str(seconds)],
        env={
            **os.environ,
            **spoilers,
            "HOME": str(directory / "home"),
            "TMPDIR": str(directory / "tmp"),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(directory: Path) -> list[str]:
    """Return what remains of a demo: files, and processes whose environment names its directory."""
    files = [str(path) for path in (*directory.glob("tmp/*"), *directory.glob("home/*"))]
    return files + [str(process) for process in psutil.process_iter() if _knows(process, str(directory))]


def _knows(process: psutil.Process, directory: str) -> bool:
    try:
        return any(directory in text for text in process.environ().values())
    except psutil.Error:
        return False


def test_installs_with_the_daemon_work_and_those_without_fail(directory: Path) -> None:
    """Tokens rotate; every install with the daemon works,
    and installs with an exported token fail once it has expired.
    """
    for seconds in (12, 40):  # on a busy machine the last install may begin before the exported token has expired
        out, err = start(directory, seconds).communicate(timeout=120)
        summary = re.search(
            r"rotated (\d+) times\.\n +with uvtokend: +(\d+) installs, 0 failed.*\n"
            r" +with a token exported: +(\d+) installs, (\d+) failed",
            out,
        )
        assert summary, (out, err)
        rotations, installs, control, failed = map(int, summary.groups())
        if failed:
            break
    assert rotations >= 1
    assert installs == control > failed > 0
    assert out.count("FAILED: 401 Unauthorized") == failed
    assert "Traceback" not in out + err
    assert not TOKEN.search(out + err)
    assert left_behind(directory) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["On loopback", "installed in"])
def test_a_signal_leaves_nothing_behind(directory: Path, number: signal.Signals, moment: str) -> None:
    """After a signal, even a repeated one, while it starts or installs, the demo cleans up and prints its summary."""
    process = start(directory, 600)
    assert process.stdout is not None
    assert process.stderr is not None
    next(line for line in process.stdout if moment in line)
    process.send_signal(number)
    process.send_signal(number)
    with process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
    process.wait(60)
    assert process.returncode == 128 + number, (out, err)
    assert "0 failed" in out
    assert "Traceback" not in err
    assert left_behind(directory) == []


def test_a_kill_leaves_nothing_behind(directory: Path) -> None:
    """If the demo is killed with SIGKILL, its daemon and its directory still disappear soon afterwards."""
    process = start(directory, 600)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        next(line for line in process.stdout if "installed in" in line)
        process.kill()
        process.wait(60)
    until(lambda: not left_behind(directory))


def test_a_closed_pipe_leaves_nothing_behind(directory: Path) -> None:
    """``uvtokend demo | head`` ends without a traceback and cleans up."""
    process = start(directory, 600)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait(60) == 141
    assert errors == ""
    assert left_behind(directory) == []


def test_without_uv_the_demo_names_the_fix(directory: Path) -> None:
    """If uv is not installed, the demo says so, names the fix, exits with 1, and leaves nothing behind."""
    (directory / "uv").mkdir()
    (directory / "uv" / "__init__.py").write_text("raise ImportError\n")
    process = start(directory, 600, PATH=str(directory), PYTHONPATH=str(directory))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "uv was not found" in err
    assert "-m pip install uv" in err
    assert left_behind(directory) == []


def test_a_tmpdir_too_deep_for_a_socket(directory: Path) -> None:
    """If TMPDIR is too deep for a socket's path, the demo names the fix, exits with 1, and leaves nothing behind."""
    deep = directory / "tmp" / ("x" * 100)
    deep.mkdir()
    process = start(directory, 600, TMPDIR=str(deep))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "TMPDIR=/tmp" in err
    assert list(deep.iterdir()) == []
