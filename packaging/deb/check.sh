#!/usr/bin/env bash
# The life of the Debian package on this machine: build, lint, install, use, upgrade under a running daemon, remove.
#
# Needs root, lintian, go-md2man and the environment that packaging/bootstrap.py test makes. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(mktemp -d)
export HOME=$home XDG_RUNTIME_DIR=$home
unset NETRC UVTOKEND_CONFIG UVTOKEND_SOCKET XDG_CONFIG_HOME XDG_STATE_HOME XDG_DATA_HOME
clean_up() {
  uvtokend stop 2>/dev/null || true
  dpkg --purge uvtokend >/dev/null 2>&1 || true
  rm -rf "$home"
}
trap clean_up EXIT
say() { printf '== %s\n' "$*"; }

package=$(packaging/deb/build.sh "$home" | tail -n 1)
say "lint"
said=$(lintian --allow-root --fail-on error,warning "$package") || { printf '%s\n' "$said"; exit 1; }
say "install"
dpkg --install "$package" >/dev/null
uvtokend --version
man -w uvtokend uvtokend.toml >/dev/null
mkdir -p "$home/.config/uvtokend"
cat >"$home/.config/uvtokend/config.toml" <<'CONFIG'
[[index]]
name = "corp"
url = "https://corp.example/simple/"
provider = "command"
command = ["echo", '{"username": "me", "password": "t0ken", "expires_in": 3600}']
CONFIG
chmod 600 "$home/.config/uvtokend/config.toml"
say "use"
uvtokend start
uvtokend status >/dev/null
grep -q 'machine corp.example login me password t0ken' "$home/.netrc"
say "upgrade under a running daemon"
dpkg --install "$package" >/dev/null
uvtokend status >/dev/null
uvtokend restart
say "remove under a running daemon"
pid=$(uvtokend status --json | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
dpkg --purge uvtokend >/dev/null
[ ! -e /usr/lib/uvtokend ] && [ ! -e /usr/bin/uvtokend ]
for _ in $(seq 450); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$pid" 2>/dev/null; then
  echo "the daemon still runs although its installation is gone"
  kill "$pid"
  exit 1
fi
say "the package installs, works, upgrades and leaves nothing"
