#!/usr/bin/env bash
# Run the image as far as that goes without a container engine: packaging/container/check.sh [ROOTFS]
#
# ROOTFS is a directory with a minimal Debian and Python; without it, mmdebstrap makes one. As the Containerfile says,
# uvtokend is installed to /opt/uvtokend, and the file system holds no shell afterwards. Then its USER, ENV, ENTRYPOINT, CMD
# and HEALTHCHECK are run as process 1 of namespaces of its own, on a read-only root with no capability. Needs root, and the
# environment that packaging/bootstrap.py test makes. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
file=packaging/container/Containerfile
work=$(mktemp -d)
clean_up() {
  umount --recursive "$work/merged" 2>/dev/null || true
  umount "$work" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
say() { printf '== %s\n' "$*"; }
fail() { printf 'it does not hold: %s\n' "$*"; exit 1; }
mount -t tmpfs tmpfs "$work"

rootfs=${1-}
if [ -z "$rootfs" ]; then
  say "build a root file system"
  rootfs=$work/rootfs
  mmdebstrap --quiet --variant=minbase --include=python3,ca-certificates trixie "$rootfs"
fi
mkdir "$work/upper" "$work/work" "$work/merged"
mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$work/upper,workdir=$work/work" "$work/merged"
root=$work/merged

say "install"
abi=$(basename "$root"/usr/lib/python3.[0-9]*)
lib=$root/opt/uvtokend/lib/$abi/site-packages
mkdir -p "$lib" "$root/opt/uvtokend/bin" "$root/etc/xdg/uvtokend" "$root/home/uvtokend" "$root/run/uvtokend"
.venv/bin/python -m hatchling build -t wheel -d "$work" >/dev/null
.venv/bin/uv pip install --quiet --target "$lib" --python-version "${abi#python}" --only-binary :all: --link-mode copy \
  --constraints packaging/requirements-demo.txt "$work"/*.whl
ln -s /usr/bin/python3 "$root/opt/uvtokend/bin/python"
printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$root/opt/uvtokend/pyvenv.cfg"
printf '#!/opt/uvtokend/bin/python\nimport sys\nfrom uvtokend.cli.main import main\nsys.exit(main())\n' \
  >"$root/opt/uvtokend/bin/uvtokend"
chmod 755 "$root/opt/uvtokend/bin/uvtokend"
rm -f "$root"/usr/bin/{sh,dash,bash}

# What the Containerfile says.
user=$(sed -n 's/^USER //p' "$file")
words() { sed -n "s/^$1 .*\[\(.*\)\]$/\1/p; s/^$1 \[\(.*\)\]$/\1/p" "$file" | tail -n 1 | tr -d '",'; }
read -ra entrypoint <<<"$(words ENTRYPOINT)"
read -ra command <<<"$(words CMD)"
read -ra health <<<"$(sed -n 's/^HEALTHCHECK .*CMD \[\(.*\)\]$/\1/p' "$file" | tr -d '",')"
read -ra environment <<<"$(sed -n '/^ENV /,/[^\\]$/{s/^ENV//; s/\\$//; p}' "$file" | tr '\n' ' ')"

# contained USER MOUNT OPTIONS [NAME=VALUE...] -- COMMAND...: run a command as process 1. A tmpfs is mounted on MOUNT.
contained() {
  local who=$1 mount=$2 options=$3 own=()
  shift 3
  while [ "$1" != -- ]; do own+=("$1"); shift; done
  shift
  exec unshare --mount --pid --ipc --uts --fork --kill-child bash -c '
    set -e
    root=$1 who=$2 mount=$3 options=$4
    shift 4
    mount --bind "$root" "$root"
    mount -t tmpfs -o "$options" tmpfs "$root$mount"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -t proc proc "$root/proc"
    mount --bind /dev/null "$root/dev/null"
    mount -o remount,ro,bind "$root"
    exec chroot "$root" /usr/bin/setpriv --reuid "${who%:*}" --regid "${who#*:}" --clear-groups --bounding-set=-all \
      --no-new-privs "$@"
  ' contained "$root" "$who" "$mount" "$options" /usr/bin/env -i "${environment[@]}" "${own[@]}" "$@"
}
configure() {
  cat >"$root/etc/xdg/uvtokend/config.toml" <<CONFIG
$1
[[index]]
name = "corp"
url = "https://corp.example/simple/"
provider = "command"
command = ["/usr/bin/echo", '{"username": "me", "password": "t0ken", "expires_in": 3600}']
CONFIG
}
# A daemon and its probe share one process: the probe joins its namespaces, as an engine's does.
daemon() {
  contained "$@" -- "${entrypoint[@]}" "${command[@]}" >"$work/said" 2>&1 &
  outer=$!
  for _ in $(seq 300); do
    inner=$(pgrep -P "$outer" || true)
    [ -z "$inner" ] || ! probe "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  cat "$work/said"
  fail "it is never healthy: $(probe "$@" 2>&1)"
}
probe() {
  local who=$1
  shift 3
  nsenter --target "$inner" --mount --pid --ipc --uts --root -- \
    /usr/bin/setpriv --reuid "${who%:*}" --regid "${who#*:}" --clear-groups --bounding-set=-all --no-new-privs \
    /usr/bin/env -i "${environment[@]}" "$@" "${health[@]}"
}
stop() {
  kill -TERM "$inner"
  local result=0
  wait "$outer" || result=$?
  [ "$result" = 0 ] || fail "SIGTERM to process 1 ended it with $result: $(cat "$work/said")"
}

volume=/home/uvtokend
say "once, as $user on a read-only root"
configure ""
(contained "$user" "$volume" "uid=${user%:*},gid=${user#*:},mode=0700" -- "${entrypoint[@]}" once) || fail "once"
say "run, ${health[*]} and SIGTERM as process 1"
daemon "$user" "$volume" "uid=${user%:*},gid=${user#*:},mode=0700"
[ "$(cat "/proc/$inner/status" | sed -n 's/^NSpid:.*\t//p')" = 1 ] || fail "it is not process 1"
grep -q '^CapEff:.*0000000000000000$' "/proc/$inner/status" || fail "it has capabilities"
grep -q 'machine corp.example login me password t0ken' "/proc/$inner/root$volume/.netrc" || fail "no netrc"
stop
say "a uid that nobody knows, a home directory of root's that everybody may write, a memory volume: as in a pod"
configure '[daemon]
netrc = "/run/uvtokend/private/netrc"'
for owner in 1000650000:0 65532:65532; do
  daemon "$owner" /run/uvtokend mode=0777 HOME=/run/uvtokend/private
  [ "$(stat -c '%a %u' "/proc/$inner/root/run/uvtokend/private")" = "700 ${owner%:*}" ] || fail "the netrc is open to others"
  stop
done
say "a home directory of root's that this user cannot write"
configure ""
result=0
(contained 1000650000:0 /run/uvtokend mode=0777 HOME=/home/uvtokend -- "${entrypoint[@]}" once) >"$work/said" 2>&1 || result=$?
cat "$work/said"
[ "$result" = 1 ] || [ "$result" = 2 ] || fail "it ended with $result"
grep -q 'fix:' "$work/said" && ! grep -q Traceback "$work/said" || fail "nobody is told what to do"
say "the image runs unprivileged, on a read-only root, without a shell"
