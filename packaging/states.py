"""Write what `uvtokend status` prints in its five most common states into the README and into `help/status.md`.

    python packaging/states.py

Each picture is the program's own report of a status document, for a terminal of 80 columns. A test renders them again.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uvtokend.core import report
from uvtokend.core.document import STOPPED

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", ROOT / "src" / "uvtokend" / "help" / "status.md")
HEADING = "## The five most common states\n"
NOW = datetime(2026, 1, 30, 9, 12, tzinfo=UTC)
WIDTH = 80
COMMAND = "$ uvtokend status\n"


def index(name: str, host: str, **changes: Any) -> dict[str, Any]:
    """Return an index whose token is fresh and delivered, but for the changes."""
    return {
        "name": name,
        "host": host,
        "provider": "aws-codeartifact",
        "sink": "netrc",
        "enabled": True,
        "username": "aws",
        "identity": None,
        "health": "fresh",
        "state": "waiting",
        "expires_at": "2026-01-30T20:50:00Z",
        "refresh_at": "2026-01-30T16:40:00Z",
        "retry_at": None,
        "delivered": True,
        "failures": 0,
        "last_error": None,
        **changes,
    }


def acme(**changes: Any) -> dict[str, Any]:
    """Return an index of CodeArtifact."""
    return index("acme", "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com", **changes)


def models(**changes: Any) -> dict[str, Any]:
    """Return an index of Artifact Registry, whose tokens live for an hour."""
    short = {"expires_at": "2026-01-30T10:05:00Z", "refresh_at": "2026-01-30T09:35:00Z"}
    google = {"provider": "google-artifact-registry", "username": "oauth2accesstoken"}
    return index("models", "europe-west3-python.pkg.dev", **{**short, **google, **changes})


def document(*indexes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the document of a running daemon."""
    return {
        "version": "1.0.0",
        "pid": 4711,
        "started_at": "2026-01-30T07:58:00Z",
        "config": "~/.config/uvtokend/config.toml",
        "config_stale": None,
        "netrc": "~/.netrc",
        "delivery": {"ok": True, "problem": None},
        "indexes": list(indexes),
        **changes,
    }


def error(kind: str, message: str, hint: str | None) -> dict[str, Any]:
    """Return what went wrong last."""
    return {"kind": kind, "reason": "", "message": message, "hint": hint, "at": "2026-01-30T09:10:00Z"}


_SSO = error("login-required", "The SSO session of the AWS profile 'dev' has expired.", "aws sso login --profile dev")
_AWAY = error("transient", "Google cannot be reached: no route to host.", None)
_FOREIGN = error(
    "delivery",
    "The netrc already holds an entry for europe-west3-python.pkg.dev that is not ours; it is left alone.",
    "uvtokend adopt models",
)
_NONE = {"health": "none", "delivered": False, "expires_at": None, "refresh_at": None, "username": None}
_STOPPED = {"pid": None, "started_at": None, "delivery": {"ok": False, "problem": STOPPED}}
#: What a person should know, and the document in which it shows.
STATES = (
    ("All is well:", document(acme(), models())),
    (
        "A sign-in has expired. uv works until the token expires:",
        document(acme(state="blocked", last_error=_SSO, failures=2), models()),
    ),
    (
        "There is no network. You need not act; uvtokend keeps trying:",
        document(
            acme(),
            models(state="retrying", last_error=_AWAY, failures=3, retry_at="2026-01-30T09:12:12Z"),
        ),
    ),
    (
        "Your netrc already has an entry for the host:",
        document(acme(), models(**{**_NONE, "state": "blocked", "last_error": _FOREIGN})),
    ),
    ("The daemon is not running:", document(acme(state=None), models(state=None), **_STOPPED)),
)


def pictures(brief: bool = False) -> str:
    """Return the section: each state with what the program prints.

    Args:
        brief: Leave the table out of all but the first: the problem and its fix stand above it.
    """
    parts = [HEADING]
    for number, (what, shown) in enumerate(STATES):
        text = report.status(shown, NOW, WIDTH, zone=UTC)
        if brief and number:
            text = text.partition("\n\n")[0] + "\n…\n"
        parts.append(f"{what}\n\n```text\n{COMMAND}{text}```\n")
    return "\n".join(parts)


def replaced(file: Path) -> str:
    """Return a document with the section as it is now.

    Raises:
        ValueError: It has no such section.
    """
    text = file.read_text(encoding="utf-8")
    before, heading, rest = text.partition(HEADING)
    if not heading:
        raise ValueError(f"{file} has no section {HEADING.strip()!r}")
    _, following, after = rest.partition("\n## ")
    return f"{before}{pictures(file.name == 'README.md')}{following}{after}"


if __name__ == "__main__":
    for file in FILES:
        file.write_text(replaced(file), encoding="utf-8")
