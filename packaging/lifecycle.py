"""Take packages through their lives on this machine: build, install, use, upgrade and remove under a running daemon.

    .venv/bin/python packaging/lifecycle.py [wheel|sdist|uv|pipx|deb|rpm ...]

Without arguments, all of them. Each lives in a home directory of its own in a temporary directory. A system package is
installed into a copy-on-write view of this machine's file system (Linux, root), so nothing of it is left here. It needs
what packaging/stage.sh names, and pipx, dpkg-dev or rpmbuild for their packages.

What must hold: the package brings its program, its manual and its unit; `uvtokend start` delivers a token; an upgrade
leaves the old daemon running, and the new `uvtokend start` replaces it; after the removal no file of the package is
left and the daemon has ended by itself.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: The upper layer of the copy-on-write view must not lie in the lower one, which is the disk.
MEMORY = "/dev/shm"  # noqa: S108 - the directory in it is private
ROOT = Path(__file__).resolve().parent.parent
VENV = Path(sys.executable).parent
#: Seconds after which a daemon must have ended without its installation: a guard tick, a pause, a busy machine.
NOTICED = 90.0
CONFIGURATION = """\
[[index]]
name = "corp"
url = "https://corp.example/simple/"
provider = "command"
command = ["echo", '{"username": "me", "password": "t0ken", "expires_in": 3600}']
"""
#: Written by no package, but by every Python or manager on the way.
CACHES = ("__pycache__", ".lock", ".gitignore", "CACHEDIR.TAG")
#: One directory on which a copy-on-write view of the machine is mounted: $1 the directory, the rest the command in it.
INSIDE = """\
set -e
mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
shift 2
exec chroot "$PLACE/root" "$@"
"""


class LifeError(Exception):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Package:
    """How one kind of package is built and handled. Each function gets the life and a built file.

    Args:
        build: Makes the file from a wheel or, for the source distribution, from a tree.
        install: Installs it; also over an older one.
        remove: Removes it.
        system: Whether it is installed for the whole machine.
    """

    build: Callable[[Path, Path], Path]
    install: Callable[["Life", Path], None]
    remove: Callable[["Life"], None]
    system: bool = False


class Life:
    """The home directory of one package's life.

    Args:
        name: The kind of package.
        directory: An empty directory with a short path.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.home = directory / "home"
        self.home.mkdir(mode=0o700)
        self.tool = directory / "tool"
        self.tool.mkdir()
        kept = ("LANG", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
        ours = {name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "UV_"))}
        self.environment = ours | {
            "HOME": str(self.home),
            "PATH": f"{self.tool}/bin:/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/sbin:/bin",
            "XDG_RUNTIME_DIR": str(self.home),
            "UV_TOOL_DIR": str(self.tool / "tools"),
            "UV_TOOL_BIN_DIR": str(self.tool / "bin"),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
            "PIPX_HOME": str(self.tool / "pipx"),
            "PIPX_BIN_DIR": str(self.tool / "bin"),
            "DEBIAN_FRONTEND": "noninteractive",
        }

    def run(self, *command: str, statuses: tuple[int, ...] = (0,)) -> str:
        """Run a command and return what it printed.

        Raises:
            LifeError: It ended with another status.
        """
        done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        if done.returncode not in statuses:
            raise LifeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def status(self) -> dict[str, object]:
        """Return the status document; it must be one of fresh tokens."""
        done = subprocess.run(
            ["/usr/bin/env", "uvtokend", "status", "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        document: dict[str, object] = json.loads(done.stdout)
        return document

    def files(self) -> set[str]:
        """Return the files of the package."""
        if self.name == "deb":
            found = self.run("dpkg", "--listfiles", "uvtokend").splitlines()
        elif self.name == "rpm":
            found = self.run("rpm", "--query", "--list", "uvtokend").splitlines()
        else:
            found = [str(file) for file in self.tool.rglob("*")]
        ours = [Path(file) for file in found if "uvtokend" in file.removeprefix(str(self.tool))]
        return {str(file) for file in ours if file.is_file() and not set(file.parts) & set(CACHES)}


def live(name: str, old: Path, new: Path, directory: Path) -> None:
    """Take one package through its life.

    Args:
        name: The kind of package.
        old: The package.
        new: One of a newer version.
        directory: An empty directory.

    Raises:
        LifeError: Something does not hold.
    """
    life, package = Life(name, directory), PACKAGES[name]
    say(f"{name}: install")
    package.install(life, old)
    before = life.run("uvtokend", "--version").split()[-1]
    files = life.files()
    expect(files, "no file of the package is found")
    if package.system:
        for page in ("uvtokend", "uvtokend.toml"):
            expect("uvtokend" in life.run("man", "--where", page), f"no manual page {page}")
        expect("/usr/lib/systemd/user/uvtokend.service" in files, "no unit")
    say(f"{name}: use")
    config = life.home / ".config" / "uvtokend" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIGURATION)
    config.chmod(0o600)
    life.run("uvtokend", "start")
    netrc = (life.home / ".netrc").read_bytes()
    expect(b"machine corp.example login me password t0ken" in netrc, "no token was delivered")
    pid = life.status()["pid"]
    say(f"{name}: upgrade under a running daemon")
    package.install(life, new)
    after = life.run("uvtokend", "--version").split()[-1]
    expect(after != before, f"it is still version {before}")
    expect((life.status()["pid"], life.status()["version"]) == (pid, before), "the upgrade ended the daemon")
    life.run("uvtokend", "start")
    document = life.status()
    expect(document["version"] == after, "`uvtokend start` did not replace the old daemon")
    say(f"{name}: remove under a running daemon")
    files |= life.files()
    package.remove(life)
    left = sorted(file for file in files if os.path.lexists(file))
    expect(not left, f"these files are left: {left}")
    expect(shutil.which("uvtokend", path=life.environment["PATH"]) is None, "the program is left")
    ended = wait_for_end(int(str(document["pid"])))
    expect((life.home / ".netrc").read_bytes() == netrc, "the end of the daemon changed the netrc")
    log = (life.home / ".local/state/uvtokend/events.jsonl").read_text().splitlines()
    expect("its installation is gone" in log[-1], f"the daemon ended for another reason: {log[-1]}")
    say(f"{name}: the package installs, works, upgrades and leaves nothing; the daemon ended {ended:.0f} s later")


def wait_for_end(pid: int) -> float:
    """Wait until a process is gone, and return the seconds it took.

    Raises:
        LifeError: It goes on.
    """
    began = time.monotonic()
    while time.monotonic() - began < NOTICED:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # inside, we are the first process, and so the parent of every daemon
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return time.monotonic() - began
        time.sleep(0.2)
    os.kill(pid, 9)
    raise LifeError("the daemon still runs although its installation is gone")


def expect(condition: object, otherwise: str) -> None:
    """Raise LifeError with this text if a condition is false."""
    if not condition:
        raise LifeError(otherwise)


# ------------------------------------------------------------------------------------------------ the kinds of packages


def build_wheel(tree: Path, out: Path) -> Path:
    """Build the wheel of a source tree."""
    return hatch("wheel", tree, out)


def build_sdist(tree: Path, out: Path) -> Path:
    """Build the source distribution of a source tree."""
    return hatch("sdist", tree, out)


def hatch(target: str, tree: Path, out: Path) -> Path:
    """Build one target with the build backend of this environment."""
    before = set(out.iterdir())
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)], cwd=tree, check=True)
    (built,) = set(out.iterdir()) - before
    return built


def build_system(kind: str) -> Callable[[Path, Path], Path]:
    """Return what builds a package for a whole machine from a source tree."""

    def build(tree: Path, out: Path) -> Path:
        with tempfile.TemporaryDirectory() as wheels:
            wheel = build_wheel(tree, Path(wheels))
            script = str(ROOT / "packaging" / kind / "build.sh")
            quick = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "0", "COMPRESSION": "w1.zstdio"}
            done = subprocess.run(
                [script, str(out), str(wheel)], check=True, stdout=subprocess.PIPE, text=True, env=quick
            )
        return Path(done.stdout.splitlines()[-1])

    return build


def install_with_pip(life: Life, file: Path) -> None:
    """Install into a virtual environment."""
    if not (life.tool / "bin").exists():
        life.run(str(VENV / "uv"), "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(life.tool))
    python = str(life.tool / "bin" / "python")
    life.run(str(VENV / "uv"), "pip", "install", "--quiet", "--python", python, str(file))


def remove_with_pip(life: Life) -> None:
    """Remove the package, and leave the virtual environment."""
    python = str(life.tool / "bin" / "python")
    life.run(str(VENV / "uv"), "pip", "uninstall", "--quiet", "--python", python, "uvtokend")


def machine_wide(*command: str) -> Callable[[Life, Path], None]:
    """Return what installs a file with a command."""

    def install(life: Life, file: Path) -> None:
        life.run(*command, str(file))

    return install


def removed_by(*command: str) -> Callable[[Life], None]:
    """Return what removes the package with a command."""

    def remove(life: Life) -> None:
        life.run(*command)

    return remove


PACKAGES: Mapping[str, Package] = {
    "wheel": Package(build_wheel, install_with_pip, remove_with_pip),
    "sdist": Package(build_sdist, install_with_pip, remove_with_pip),
    "uv": Package(
        build_wheel,
        machine_wide(str(VENV / "uv"), "tool", "install", "--quiet", "--python", sys.executable),
        removed_by(str(VENV / "uv"), "tool", "uninstall", "--quiet", "uvtokend"),
    ),
    "pipx": Package(
        build_wheel,
        machine_wide("pipx", "install", "--force", "--python", sys.executable),
        removed_by("pipx", "uninstall", "uvtokend"),
    ),
    "deb": Package(
        build_system("deb"), machine_wide("dpkg", "--install"), removed_by("dpkg", "--purge", "uvtokend"), system=True
    ),
    # Debian's rpm refuses to install packages beside dpkg's, and knows none of them.
    "rpm": Package(
        build_system("rpm"),
        machine_wide("rpm", "--upgrade", "--nodeps", "--force-debian"),
        removed_by("rpm", "--erase", "--force-debian", "uvtokend"),
        system=True,
    ),
}

# ------------------------------------------------------------------------------------------------------- the command


def newer(directory: Path) -> Path:
    """Return a copy of the source tree with a later version."""
    tree = directory / "newer"
    tree.mkdir()
    for name in ("src", "packaging", "systemd", "launchd", "tests", ".ci"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    module = tree / "src" / "uvtokend" / "__init__.py"
    module.write_text(re.sub(r'(?m)^__version__ = "(.*)"$', r'__version__ = "\1.post1"', module.read_text()))
    return tree


def apart(name: str, old: Path, new: Path, directory: Path) -> None:
    """Live in a copy-on-write view of this machine's file system, with process ids of its own."""
    again = [sys.executable, __file__, "--inside", name, str(old), str(new), str(directory)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="uvtokend-") as place:
        done = subprocess.run(
            [*namespaces, "sh", "-c", INSIDE, "sh", place, "--", *again],
            check=False,
            env={**os.environ, "PLACE": place},
        )
    if done.returncode != 0:
        raise LifeError("it does not hold, for the reason above")


def say(text: str) -> None:
    """Tell what is going on."""
    print(f"== {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Take the named packages through their lives, and return the exit status."""
    if arguments[:1] == ["--inside"]:
        name, *paths = arguments[1:]
        try:
            live(name, *map(Path, paths))
        except LifeError as error:
            say(f"{name}: {error}")
            return 1
        return 0
    unknown = [name for name in arguments if name not in PACKAGES]
    if unknown:
        print(f"Unknown package {unknown[0]!r}. Known: {', '.join(PACKAGES)}.", file=sys.stderr)
        return 2
    failed = []
    for name in arguments or PACKAGES:
        # Not below /tmp by its full name: a control socket has at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="uvt-") as place:
            directory = Path(place)
            built, lived = directory / "built", directory / "l"
            built.mkdir()
            lived.mkdir()
            say(f"{name}: build")
            old, new = (PACKAGES[name].build(tree, built) for tree in (ROOT, newer(directory)))
            try:
                (apart if PACKAGES[name].system else live)(name, old, new, lived)
            except LifeError as error:
                say(f"{name}: {error}")
                failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
