#!/usr/bin/env bash
# Lay out the files of a self-contained system package: packaging/stage.sh ROOT [WHEEL]
#
# Below ROOT: uvtokend and everything that it imports in /usr/lib/uvtokend, for the machine's own Python, the program in
# /usr/bin, the user unit, man pages and completions. The libraries are those of requirements-demo.txt, verified by their
# hashes. Needs go-md2man, strip and the environment that packaging/bootstrap.py test makes.
set -euo pipefail
cd "$(dirname "$0")/.."
install -d "$1"
root=$(realpath "$1")
python=/usr/bin/python3
abi=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheel=${2-}
if [ -z "$wheel" ]; then
  .venv/bin/python -m hatchling build -t wheel -d "$work" >/dev/null
  wheel=$(echo "$work"/*.whl)
fi
# A virtual environment, so that the daemon's workers, which are the same interpreter, find what they import.
lib=$root/usr/lib/uvtokend/lib/python$abi/site-packages
install -d "$lib" "$root/usr/bin" "$root/usr/lib/uvtokend/bin" "$root/usr/lib/systemd/user" "$root/usr/share/doc/uvtokend"
.venv/bin/uv pip install --quiet --python $python --target "$lib" --link-mode copy --no-compile \
  --constraints packaging/requirements-demo.txt "$wheel"
rm -rf "$lib/bin" "$lib"/*.dist-info/RECORD "$lib"/*.dist-info/direct_url.json "$lib/.lock"
find "$lib" -name '*.so' -exec strip --strip-unneeded {} +
find "$lib" \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$lib" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete
find "$lib" -type d -empty -delete
find "$lib" -type f -exec chmod 644 {} +
find "$lib" -type f -name '*.py' -exec sed -i '1{/^#!/d}' {} +

ln -s ../../../bin/python3 "$root/usr/lib/uvtokend/bin/python"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$abi" >"$root/usr/lib/uvtokend/pyvenv.cfg"
# -P: nothing in the current directory stands in for a module.
cat >"$root/usr/bin/uvtokend" <<PROGRAM
#!/usr/lib/uvtokend/bin/python -P
import sys

from uvtokend.cli.main import main

sys.exit(main())
PROGRAM
chmod 755 "$root/usr/bin/uvtokend"
# Every user's manager learns of the unit; nobody's daemon is started, since each user has to configure it first.
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
find "$root" -type d -exec chmod 755 {} +
