#!/usr/bin/env bash
# Build a self-contained Debian package: packaging/deb/build.sh DIRECTORY [WHEEL]
#
# packaging/stage.sh says what it holds and needs; dpkg-dev is needed besides.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
packaging/stage.sh "$root" "${@:2}"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root"/usr/lib/uvtokend/lib/python*/site-packages/uvtokend/__init__.py)
abi=$(sed -n 's/^version = //p' "$root/usr/lib/uvtokend/pyvenv.cfg")
arch=$(dpkg --print-architecture)

install -d "$root/DEBIAN" "$root/usr/share/lintian/overrides"
printf 'uvtokend (%s) unstable; urgency=medium\n\n  * See .github/CHANGELOG.md in the sources.\n\n -- uvtokend contributors <uvtokend@example.com>  %s\n' \
  "$version" "$(date -R)" | gzip -9n >"$root/usr/share/doc/uvtokend/changelog.gz"
echo 'uvtokend: unusual-interpreter /usr/lib/uvtokend/bin/python *' >"$root/usr/share/lintian/overrides/uvtokend"
cat >"$root/DEBIAN/control" <<CONTROL
Package: uvtokend
Version: $version
Section: net
Priority: optional
Architecture: $arch
Maintainer: uvtokend contributors <uvtokend@example.com>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: python3 (>= $abi), python3 (<< ${abi%.*}.$((${abi#*.} + 1))), libc6 (>= 2.34)
Suggests: awscli
Description: fresh tokens for private Python indexes
 uvtokend keeps the tokens of private Python indexes (AWS CodeArtifact, Google
 Artifact Registry, Azure Artifacts and others) fresh in the netrc that uv, pip
 and other tools read by themselves.
CONTROL
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --build --root-owner-group "$root" "$out" >/dev/null
echo "$out/uvtokend_${version}_$arch.deb"
