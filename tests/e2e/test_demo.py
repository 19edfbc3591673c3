"""``uvtokend demo`` as a person runs it: real processes, and nothing left behind however it ends."""

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where temporary directories are made, and a home beside it; the path is short, since a socket is in it."""
    found = tmp_path_factory.mktemp("d")
    (found / "home").mkdir(0o700)
    (found / "tmp").mkdir()
    return found


def start(folder: Path, seconds: int, **environment: str) -> subprocess.Popen[str]:
    """Start the demo with a user's environment that would spoil it if it came through."""
    spoilers = {
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_PROFILE": "other",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NETRC": str(folder / "none"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/",
        "UV_OFFLINE": "1",
        "UVTOKEND_CONFIG": str(folder / "none"),
        "XDG_RUNTIME_DIR": str(folder / "none"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "uvtokend", "demo", "--seconds", str(seconds)],
        env={**os.environ, **spoilers, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Return what is still there of a demo: files, and processes that know its directory."""
    files = [str(path) for path in (*folder.glob("tmp/*"), *folder.glob("home/*"))]
    return files + [str(process) for process in psutil.process_iter() if _knows(process, str(folder))]


def _knows(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in text for text in process.environ().values())
    except psutil.Error:
        return False


def test_every_install_works_beside_one_that_fails(folder: Path) -> None:
    """Tokens rotate, every install with the daemon works, the control side fails once its token has died; exit 0."""
    for seconds in (12, 40):  # on a busy machine the last install may begin before the exported token has expired
        out, err = start(folder, seconds).communicate(timeout=120)
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
    assert left_behind(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["On loopback", "installed in"])
def test_a_signal_leaves_nothing_behind(folder: Path, number: signal.Signals, moment: str) -> None:
    """Ended while it starts or while it installs, twice by the impatient, it cleans up and says how it went."""
    process = start(folder, 600)
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
    assert left_behind(folder) == []


def test_a_kill_leaves_nothing_behind(folder: Path) -> None:
    """Killed without a chance to clean up, its daemon and its directory go anyway, soon afterwards."""
    process = start(folder, 600)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        next(line for line in process.stdout if "installed in" in line)
        process.kill()
        process.wait(60)
    until(lambda: not left_behind(folder))


def test_a_reader_that_goes_away_leaves_nothing_behind(folder: Path) -> None:
    """``uvtokend demo | head`` ends without a traceback and cleans up."""
    process = start(folder, 600)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert process.wait(60) == 141
    assert said == ""
    assert left_behind(folder) == []


def test_without_uv_it_says_what_to_do(folder: Path) -> None:
    """Without a uv beside Python or on the PATH: a sentence and the fix, exit 1, nothing left behind."""
    (folder / "uv").mkdir()
    (folder / "uv" / "__init__.py").write_text("raise ImportError\n")
    process = start(folder, 600, PATH=str(folder), PYTHONPATH=str(folder))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "uv was not found" in err
    assert "-m pip install uv" in err
    assert left_behind(folder) == []


def test_a_folder_too_deep_for_a_socket_is_named(folder: Path) -> None:
    """A TMPDIR whose path no unix socket can have is refused with the fix, exit 1, nothing left behind."""
    deep = folder / "tmp" / ("x" * 100)
    deep.mkdir()
    process = start(folder, 600, TMPDIR=str(deep))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "TMPDIR=/tmp" in err
    assert list(deep.iterdir()) == []
