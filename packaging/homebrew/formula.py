"""Write the Homebrew formula of a release: python packaging/homebrew/formula.py --index URL --sdist FILE --url URL …

The libraries are those of requirements-demo.txt. Where each is downloaded from is asked of a package index (the JSON of
the simple repository API), and its hash must be one of those that are pinned. The formula is printed.
"""

import argparse
import hashlib
import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urljoin

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
#: Homebrew has formulas of its own for what takes a compiler or a list of authorities.
FORMULAS = ("certifi", "cryptography")
#: These formulas, and what only they need.
BROUGHT_ALONG = {*FORMULAS, "cffi", "pycparser"}
SIMPLE = "application/vnd.pypi.simple.v1+json"
FORMULA = """\
class Uvtokend < Formula
  include Language::Python::Virtualenv

  desc "Fresh tokens for private Python indexes"
  homepage "{homepage}"
  url "{url}"
  sha256 "{sha256}"
  license "MIT"

{depends}
{resources}
  def install
    virtualenv_install_with_resources
  end

  service do
    run [opt_bin/"uvtokend", "run", "--quiet"]
    run_type :immediate
    keep_alive successful_exit: false
    environment_variables PATH: std_service_path_env
    error_log_path var/"log/uvtokend.log"
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/uvtokend --version")
  end
end
"""


@dataclass(frozen=True)
class Pin:
    """One library.

    Args:
        name: Its canonical name.
        version: Its version.
        hashes: SHA-256 of every file that may be taken.
    """

    name: str
    version: str
    hashes: frozenset[str]


def pins() -> dict[str, Pin]:
    """Return everything that is pinned, by name."""
    text = (ROOT / "packaging" / "requirements-demo.txt").read_text().replace("\\\n", " ")
    found = (re.match(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", line) for line in text.splitlines())
    return {
        match[1]: Pin(match[1], match[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", match.string)))
        for match in found
        if match
    }


def needed(name: str = "uvtokend", seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the names of what is imported on macOS and Linux, and of what that needs in turn."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        other = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate(
                {"extra": extra, "sys_platform": system, "platform_system": system.capitalize()}
            )
            for extra in ("", *(("crypto",) if name == "pyjwt" else ()))
            for system in ("linux", "darwin")
        )
        if wanted and other not in seen:
            seen = needed(other, seen | {other})
    return seen


def source(pin: Pin, index: str) -> tuple[str, str]:
    """Return the URL and the hash of a library's source distribution.

    Args:
        pin: The library.
        index: The URL of a package index, with a slash at its end.

    Raises:
        SystemExit: The index has no such file with a hash that is pinned.
    """
    page = urljoin(index, f"{pin.name}/")
    request = urllib.request.Request(page, headers={"Accept": SIMPLE})  # noqa: S310 - a person gave the index
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        files = json.load(answer)["files"]
    for file in files:
        stem = file["filename"].removesuffix(".tar.gz")
        named = canonicalize_name(stem.removesuffix(f"-{pin.version}"))
        if stem != file["filename"] and stem.endswith(f"-{pin.version}") and named == pin.name:
            if file["hashes"]["sha256"] not in pin.hashes:
                raise SystemExit(f"{file['filename']} of {page} has another hash than requirements-demo.txt")
            return urljoin(page, file["url"]), file["hashes"]["sha256"]
    raise SystemExit(f"{page} has no source distribution of version {pin.version}")


def resources(index: str) -> Iterator[str]:
    """Yield the block of each library that has no formula of its own."""
    pinned = pins()
    for name in sorted(needed() - BROUGHT_ALONG):
        url, sha256 = source(pinned[name], index)
        yield f'  resource "{name}" do\n    url "{url}"\n    sha256 "{sha256}"\n  end\n'


def formula(index: str, sdist: Path, url: str, homepage: str, python: str) -> str:
    """Return the formula.

    Args:
        index: The URL of a package index.
        sdist: Our own source distribution.
        url: Where it can be downloaded.
        homepage: The project's page.
        python: The version of Homebrew's Python, such as ``3.13``.
    """
    depends = "".join(f'  depends_on "{name}"\n' for name in (*FORMULAS, f"python@{python}"))
    sha256 = hashlib.sha256(sdist.read_bytes()).hexdigest()
    blocks = "\n".join(resources(index.rstrip("/") + "/"))
    return FORMULA.format(homepage=homepage, url=url, sha256=sha256, depends=depends, resources=blocks)


def main() -> None:
    """Print the formula."""
    parser = argparse.ArgumentParser(description="Write the Homebrew formula of a release.")
    parser.add_argument("--index", required=True, metavar="URL", help="a package index that has every library")
    parser.add_argument("--sdist", required=True, type=Path, metavar="FILE", help="our source distribution")
    parser.add_argument("--url", required=True, help="where it can be downloaded")
    parser.add_argument("--homepage", required=True, metavar="URL", help="the project's page")
    parser.add_argument("--python", default="3.13", metavar="VERSION", help="of Homebrew's Python (default: 3.13)")
    args = parser.parse_args()
    print(formula(args.index, args.sdist, args.url, args.homepage, args.python), end="")


if __name__ == "__main__":
    main()
