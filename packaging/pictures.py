"""Draw the pictures of the README from what the program really prints: python packaging/pictures.py

A terminal of 96 columns runs `uvtokend status` and `uvtokend demo` on a machine in a temporary directory. Rich turns
their output, colors and all, into SVG.
"""

import io
import os
import pty
import re
import subprocess
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine, Machine

PICTURES = Path(__file__).resolve().parent / "pictures"
COLUMNS = 96
PRIVATE = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"
OTHERS = """
[[index]]
name = "wheels"
url = "https://wheels.example.com/simple/"
provider = "command"
command = ["echo", '{"username": "me", "password": "a-token", "expires_in": 3600}']

[[index]]
name = "models"
url = "https://europe-west3-python.pkg.dev/acme-ml/models/simple/"
env = { NO_GCE_CHECK = "true" }
"""


def seen(machine: Machine, *arguments: str) -> str:
    """Return what a command prints on a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, COLUMNS))
    environment = {**machine.environment, "TERM": "xterm-256color"}
    with subprocess.Popen(machine.ourselves(*arguments), env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux answers EIO when the other end is closed
                break
            if not piece:
                break
            said += piece
        process.wait()
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def draw(name: str, command: str, said: str) -> None:
    """Write one picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(said))
    picture = console.export_svg(title=command, unique_id=name)
    picture = re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # nothing is loaded from elsewhere
    (PICTURES / f"{name}.svg").write_text(re.sub(r"\n\s*\n+", "\n", picture))


def main() -> None:
    """Draw all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="uvtokend-") as folder, CodeArtifact() as cloud:
        machine = AwsMachine(Path(folder), cloud)
        machine.configure(**{"private-registry": PRIVATE})
        machine.config.write_text(machine.config.read_text() + OTHERS)
        try:
            machine.uvtokend("start", "--wait", "60")
            draw("status", "uvtokend status", seen(machine, "status"))
        finally:
            machine.uvtokend("stop")
        draw("demo", "uvtokend demo --seconds 20", seen(machine, "demo", "--seconds", "20"))


if __name__ == "__main__":
    main()
