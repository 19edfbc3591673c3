#!/usr/bin/env bash
# Build a self-contained RPM package: packaging/rpm/build.sh DIRECTORY [WHEEL]
#
# The same files as in the Debian package; packaging/stage.sh says what it needs, and rpmbuild is needed besides.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/stage
packaging/stage.sh "$root" "${@:2}"
install -d "$root/usr/share/zsh/site-functions"
mv "$root/usr/share/zsh/vendor-completions/_uvtokend" "$root/usr/share/zsh/site-functions/_uvtokend"
rmdir "$root/usr/share/zsh/vendor-completions"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root"/usr/lib/uvtokend/lib/python*/site-packages/uvtokend/__init__.py)
abi=$(sed -n 's/^version = //p' "$root/usr/lib/uvtokend/pyvenv.cfg")
rpmbuild --quiet -bb packaging/rpm/uvtokend.spec --define "_topdir $work/top" --define "_rpmdir $out" \
  --define "stage $root" --define "release_version $version" --define "python_abi $abi" --define "_build_id_links none" \
  ${COMPRESSION:+--define "_binary_payload $COMPRESSION"}
find "$out" -name "uvtokend-$version-*.rpm"
