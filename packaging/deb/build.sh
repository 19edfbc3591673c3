#!/usr/bin/env bash
# Build a self-contained Debian package: packaging/deb/build.sh DIRECTORY
#
# It holds uvtokend and everything that it imports, for the machine's own Python: /usr/lib/uvtokend, with the program in
# /usr/bin, the user unit, man pages and completions. Needs dpkg-dev, go-md2man and the environment that
# packaging/bootstrap.py test makes.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath "$1")
python=/usr/bin/python3
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/uvtokend/__init__.py)
abi=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$($python -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/uvtokend_${version}_$arch
# A virtual environment, so that the daemon's workers, which are the same interpreter, find what they import.
lib=$root/usr/lib/uvtokend/lib/python$abi/site-packages

install -d -m 755 "$lib" "$root/usr/bin" "$root/DEBIAN" "$root/usr/share/doc/uvtokend" "$root/usr/lib/systemd/user"
.venv/bin/python -m hatchling build -t wheel -d "$work/dist" >/dev/null
.venv/bin/uv pip install --quiet --python $python --target "$lib" --no-compile "$work"/dist/*.whl
rm -rf "$lib/bin" "$lib"/*.dist-info/RECORD "$lib"/*.dist-info/direct_url.json "$lib/.lock"
find "$lib" -name '*.so' -exec strip --strip-unneeded {} +
find "$lib" \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$lib" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete
find "$lib" -type d -empty -delete
find "$lib" -type f -exec chmod 644 {} +
find "$lib" -type f -name '*.py' -exec sed -i '1{/^#!/d}' {} +

install -d "$root/usr/lib/uvtokend/bin"
ln -s $python "$root/usr/lib/uvtokend/bin/python"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$abi" >"$root/usr/lib/uvtokend/pyvenv.cfg"
# -P: nothing in the current directory stands in for a module.
cat >"$root/usr/bin/uvtokend" <<PROGRAM
#!/usr/lib/uvtokend/bin/python -P
import sys

from uvtokend.cli.main import main

sys.exit(main())
PROGRAM
chmod 755 "$root/usr/bin/uvtokend"
sed 's|^ExecStart=.*|ExecStart=/usr/bin/uvtokend run|' systemd/uvtokend.service >"$root/usr/lib/systemd/user/uvtokend.service"

.venv/bin/python packaging/documents.py "$work/documents"
install -d "$root/usr/share/man/man1" "$root/usr/share/man/man5"
gzip -9n <"$work/documents/man/man1/uvtokend.1" >"$root/usr/share/man/man1/uvtokend.1.gz"
gzip -9n <"$work/documents/man/man5/uvtokend.toml.5" >"$root/usr/share/man/man5/uvtokend.toml.5.gz"
install -D -m 644 "$work/documents/completions/uvtokend" "$root/usr/share/bash-completion/completions/uvtokend"
install -D -m 644 "$work/documents/completions/_uvtokend" "$root/usr/share/zsh/vendor-completions/_uvtokend"
install -D -m 644 "$work/documents/completions/uvtokend.fish" "$root/usr/share/fish/vendor_completions.d/uvtokend.fish"

{
  echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
  printf '\nFiles: *\nCopyright: uvtokend contributors\nLicense: MIT\n'
  sed '1,2d; s/^$/./; s/^/ /' LICENSE
  printf '\nFiles: usr/lib/uvtokend/*\nCopyright: the authors of each library\nLicense: various\n'
  echo ' The licenses of the bundled libraries are in their *.dist-info directories.'
} >"$root/usr/share/doc/uvtokend/copyright"
printf 'uvtokend (%s) unstable; urgency=medium\n\n  * See .github/CHANGELOG.md in the sources.\n\n -- uvtokend contributors <uvtokend@example.com>  %s\n' \
  "$version" "$(date -R)" | gzip -9n >"$root/usr/share/doc/uvtokend/changelog.gz"

install -d "$root/usr/share/lintian/overrides"
echo 'uvtokend: unusual-interpreter /usr/lib/uvtokend/bin/python *' >"$root/usr/share/lintian/overrides/uvtokend"
cat >"$root/DEBIAN/control" <<CONTROL
Package: uvtokend
Version: $version
Section: net
Priority: optional
Architecture: $arch
Maintainer: uvtokend contributors <uvtokend@example.com>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: python3 (>= $abi), python3 (<< $next), libc6 (>= 2.34)
Suggests: awscli
Description: fresh tokens for private Python indexes
 uvtokend keeps the tokens of private Python indexes (AWS CodeArtifact, Google
 Artifact Registry, Azure Artifacts and others) fresh in the netrc that uv, pip
 and other tools read by themselves.
CONTROL
# Every user's manager learns of the unit; nobody's daemon is started, since each user has to configure it first.
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --build --root-owner-group "$root" "$out" >/dev/null
echo "$out/uvtokend_${version}_$arch.deb"
