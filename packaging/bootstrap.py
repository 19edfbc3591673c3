"""Set up and run the demo or the tests, with nothing but Python 3.11 and pip.

    python3 packaging/bootstrap.py demo [--seconds N]
    python3 packaging/bootstrap.py test [arguments for pytest]

Everything is installed into virtual environments inside the checkout, from pinned and hashed requirements. No `venv`
package of the distribution is needed (the environment is made without pip, and the outer pip installs into it), nor may
pip write into the system's Python (PEP 668). This file must at least start on any Python 3, to say what is missing,
so newer annotations are quoted.
"""

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USAGE = "usage: python3 packaging/bootstrap.py demo [--seconds N] | test [arguments for pytest]"


def main(arguments: "list[str]") -> int:
    """Run what the first argument names and return its exit status."""
    if not arguments or arguments[0] not in ("demo", "test"):
        return complain(USAGE)
    problem = missing()
    if problem:
        return complain(problem)
    what, rest = arguments[0], arguments[1:]
    environment = os.path.join(ROOT, ".venv-demo" if what == "demo" else ".venv")
    requirements = os.path.join(ROOT, "packaging", "requirements-%s.txt" % ("demo" if what == "demo" else "dev"))
    try:
        python = prepare(environment, requirements)
        return demo(python, rest) if what == "demo" else check(python, rest)
    except subprocess.CalledProcessError as error:
        complain("this failed, for the reason above: %s" % " ".join(error.cmd))
        return 1
    except KeyboardInterrupt:
        return 130


def missing() -> "str | None":
    """Return what is missing on this machine and how to get it, or None."""
    if os.name != "posix":
        return "Linux or macOS is needed: the program uses unix sockets and process groups."
    if sys.version_info < (3, 11):
        return "Python 3.11 or newer is needed, and this is %s: run it as python3.11, say." % sys.version.split()[0]
    try:
        import venv  # noqa: F401, PLC0415 - asked for here, to be told that it is not there
    except ImportError:
        return "Python's own venv module is missing: apt-get install python3-venv, or your system's like."
    version = [sys.executable, "-m", "pip", "--version"]
    pip = subprocess.run(version, capture_output=True, text=True, check=False, env=surroundings())
    if pip.returncode != 0:
        return "pip is missing: apt-get install python3-pip, or %s -m ensurepip --user" % sys.executable
    if tuple(int(part) for part in pip.stdout.split()[1].split(".")[:2]) < (22, 3):
        return "pip 22.3 or newer is needed: %s -m pip install --user --upgrade pip" % sys.executable
    return None


def prepare(environment: str, requirements: str) -> str:
    """Make or renew a virtual environment, and return its Python."""
    python = os.path.join(environment, "bin", "python")
    stamp = os.path.join(environment, "requirements.sha256")
    digest = hashlib.sha256()
    for name in (requirements, os.path.join(ROOT, "pyproject.toml")):
        with open(name, "rb") as file:
            digest.update(file.read())
    wanted = "%s %s %s" % (digest.hexdigest(), sys.version.split()[0], ROOT)
    if os.path.exists(stamp) and os.path.exists(python):
        with open(stamp) as file:
            if file.read() == wanted:
                return python
    if not os.access(environment if os.path.isdir(environment) else ROOT, os.W_OK):
        sys.exit(complain("%s is not yours to write: run this in a checkout of your own (git clone)." % environment))
    say("setting up %s" % os.path.relpath(environment, ROOT))
    run([sys.executable, "-m", "venv", "--without-pip", "--clear", environment])
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "--requirement", requirements])
    run([*pip, "--no-index", "--no-deps", "--no-build-isolation", "--editable", ROOT])
    with open(stamp, "w") as file:
        file.write(wanted)
    return python


def demo(python: str, arguments: "list[str]") -> int:
    """Run the demo."""
    return subprocess.run([python, "-m", "uvtokend", "demo", *arguments], check=False).returncode


def check(python: str, arguments: "list[str]") -> int:
    """The one strict command: style, types, tests, and every branch of the core."""
    mypy_darwin = [python, "-m", "mypy", "--platform", "darwin", "--python-version", "3.14"]
    together(
        [
            [python, "-m", "ruff", "check", "."],
            [python, "-m", "ruff", "format", "--check", "--quiet", "."],
            # Both, wherever this runs; each with a cache of its own, since another platform makes the other's useless.
            # The second is checked for the newest Python, whose library has what the oldest is missing.
            [python, "-m", "mypy", "--platform", "linux"],
            [*mypy_darwin, "--cache-dir", ".mypy_cache/darwin"],
            # pytest compiles the tests in its own way, and keeps the result: once, not in each of its processes.
            [python, "-m", "pytest", "--collect-only", "--quiet", "--quiet", *arguments],
        ]
    )
    say("pytest")
    run([python, "-m", "pytest", *(arguments or ["-n", "auto", "--dist", "worksteal", "--cov"])])
    return 0


def together(commands: "list[list[str]]") -> None:
    """Run commands in the checkout side by side, and show what each says; raise if one fails."""
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in commands
    ]
    said = [process.communicate()[0].decode(errors="replace") for process in processes]
    for command, text in zip(commands, said, strict=True):
        say(" ".join(command[2:]))
        print(text, end="", flush=True)
    for command, process in zip(commands, processes, strict=True):
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)


def run(command: "list[str]") -> None:
    """Run a command in the checkout; raise if it fails."""
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, env=surroundings())


def surroundings() -> "dict[str, str]":
    """This process's environment without what would send pip elsewhere than into the virtual environment.

    Mirrors, proxies and certificates of pip's own configuration still apply. Python keeps what it compiles: without
    that, each of some thousand processes would compile the program again.
    """
    elsewhere = ("PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in (*elsewhere, "PYTHONDONTWRITEBYTECODE")}
    return dict(kept, PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0")


def say(text: str) -> None:
    """Tell what is going on."""
    print("== %s" % text, flush=True)


def complain(text: str) -> int:
    """Say what is wrong, and return the exit status of wrong usage."""
    print("bootstrap: %s" % text, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
