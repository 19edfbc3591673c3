#!/usr/bin/env bash
# Build the image with podman and run it as engines do: packaging/container/check.sh [BASE.tar]
#
# BASE.tar holds the root file system of a minimal Debian with Python, pip and venv, which stands for the base image;
# without it, mmdebstrap makes one. The index and the certificate that pip is configured with here count in the build.
# Needs root, podman and the network. All happens in namespaces of its own and in memory: nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1-}" != --inside ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$work" "$@"
  exit
fi
work=$2
shift 2
say() { printf '== %s\n' "$*"; }
fail() { printf 'it does not hold: %s\n' "$*"; exit 1; }

mount -t tmpfs -o mode=755 tmpfs "$work"
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
# crun refuses a mix of both versions of cgroups.
[ ! -d /sys/fs/cgroup/unified ] || { umount --recursive /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; }
podman() {
  DISABLE_HC_SYSTEMD=true command podman --root "$work/storage" --runroot "$work/run" --tmpdir "$work/tmp" --storage-driver overlay \
    --cgroup-manager cgroupfs --events-backend none --log-level error "$@"
}

base=${1-}
if [ -z "$base" ]; then
  say "make a base image"
  base=$work/base.tar
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,python-is-python3,ca-certificates \
    trixie "$base"
fi
podman import --quiet "$base" localhost/base:1 >/dev/null

say "build"
mkdir "$work/etc" "$work/config"
python3 -m pip config list |
  sed -n "s/^\(global\|:env:\)\.\(index-url\|cert\|proxy\|timeout\)='\(.*\)'$/\2 = \3/p" |
  { echo '[global]'; sort -u; } >"$work/etc/pip.conf"
mounts=(--volume "$work/etc/pip.conf:/etc/pip.conf:ro")
cert=$(sed -n 's/^cert = //p' "$work/etc/pip.conf")
[ -z "$cert" ] || mounts+=(--volume "$cert:$cert:ro")
podman build --quiet --format docker --network host --pull=never --build-arg BASE=localhost/base:1 "${mounts[@]}" \
  --isolation chroot --tag localhost/uvtokend:1 -f packaging/container/Containerfile . >/dev/null
say "take away the shell"
podman build --quiet --format docker --isolation chroot --pull=never --tag localhost/shell-less:1 - >/dev/null <<'FILE'
FROM localhost/uvtokend:1
USER 0
RUN ["/usr/bin/rm", "/usr/bin/sh", "/usr/bin/dash", "/usr/bin/bash"]
USER 65532:65532
FILE

image() { podman image inspect --format "$1" localhost/shell-less:1; }
[ "$(image '{{.User}}')" = 65532:65532 ] || fail "another user"
[ "$(image '{{.HealthCheck.Test}}')" = '[CMD uvtokend status]' ] || fail "another health check: $(image '{{.HealthCheck}}')"

index() {
  printf '[[index]]\nname = "%s"\nurl = "https://%s.example/simple/"\nprovider = "command"\ncommand = [%s]\n' "$1" "$1" "$2"
}
answer='{\"username\": \"me\", \"password\": \"t0ken\", \"expires_in\": 3600}'
good() { index "${1-corp}" "\"/usr/bin/echo\", \"$answer\""; }
configure() { cat >"$work/config/config.toml"; }
# run [OPTIONS...] -- [ARGUMENTS...]: run the image on a read-only root, without a capability and a network.
run() {
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  podman run --read-only --cap-drop all --security-opt no-new-privileges --network none --cgroups disabled --pull=never \
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --volume "$work/config:/etc/xdg/uvtokend:ro" "${options[@]}" \
    localhost/shell-less:1 "$@"
}
# daemon NAME [OPTIONS...]: start one, and wait until the engine calls it healthy.
daemon() {
  local name=$1
  shift
  run --detach --name "$name" "$@" -- >/dev/null
  for _ in $(seq 200); do
    ! podman healthcheck run "$name" >/dev/null 2>&1 || return 0
    sleep 0.2
  done
  podman logs "$name"
  fail "$name is never healthy"
}
# stop NAME: end it as engines do; it must take less than 5 s, and end with 0.
stop() {
  local began=$SECONDS
  podman stop --time 20 "$1" >/dev/null
  [ $((SECONDS - began)) -le 5 ] || fail "SIGTERM took $((SECONDS - began)) s"
  [ "$(podman inspect --format '{{.State.ExitCode}}' "$1")" = 0 ] || { podman logs "$1"; fail "SIGTERM did not end it with 0"; }
  podman rm --volumes "$1" >/dev/null
}
process() { podman inspect --format '{{.State.Pid}}' "$1"; }

say "once, in a new volume of the image's own user"
good | configure
run --rm -- once
say "run, uvtokend status as health check, and SIGTERM to process 1"
daemon plain
pid=$(process plain)
[ "$(sed -n 's/^NSpid:.*\t//p' "/proc/$pid/status")" = 1 ] || fail "it is not process 1"
grep -q '^CapEff:.*0000000000000000$' "/proc/$pid/status" || fail "it has capabilities"
[ "$(stat -c '%a %u' "/proc/$pid/root/home/uvtokend/.netrc")" = '600 65532' ] || fail "the netrc is open to others"
grep -q 'machine corp.example login me password t0ken' "/proc/$pid/root/home/uvtokend/.netrc" || fail "no netrc"
stop plain
say "a uid without a passwd entry, and a memory volume of root's that everybody may write, as in a pod"
elsewhere='[daemon]\nnetrc = "/run/uvtokend/private/netrc"\n'
{ printf "$elsewhere" && good; } | configure
memory=(--tmpfs /run/uvtokend:mode=0777 --env HOME=/run/uvtokend/private)
daemon pod "${memory[@]}" --user 1000650000:0
private=/proc/$(process pod)/root/run/uvtokend/private
[ "$(stat -c '%a %u' "$private")" = '700 1000650000' ] || fail "the netrc is open to others"
say "unhealthy while a token is missing, and SIGTERM while a fetch is in flight"
{ printf "$elsewhere" && good && index slow '"/usr/bin/sleep", "600"'; } | configure
podman exec pod uvtokend reload
fetching() { { podman exec pod uvtokend status slow --json || true; } | grep -q '"state": "fetching"'; }
for _ in $(seq 100); do ! fetching || break; sleep 0.2; done
fetching || fail "the slow fetch is not in flight"
result=0
podman healthcheck run pod >/dev/null 2>&1 || result=$?
[ "$result" = 1 ] || fail "the health check ended with $result"
stop pod
say "what helper programs leave behind is reaped"
python='import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1)\nelse:\n    print(sys.argv[1])'
index leaving "\"/opt/uvtokend/bin/python\", \"-c\", \"$python\", \"$answer\"" | configure
daemon reaping
pid=$(process reaping)
zombies() { ps -o stat= --ppid "$pid" | grep -c Z || true; }
for _ in $(seq 100); do [ "$(zombies)" = 0 ] || break; sleep 0.1; done
[ "$(zombies)" = 1 ] || fail "the helper left $(zombies) processes behind"
for _ in $(seq 100); do [ "$(zombies)" != 0 ] || break; sleep 1; done
[ "$(zombies)" = 0 ] || fail "process 1 does not reap"
stop reaping
say "a home directory of root's that this user cannot write"
good | configure
result=0
run --rm --user 1000650000:0 -- once >"$work/said" 2>&1 || result=$?
cat "$work/said"
[ "$result" = 1 ] || [ "$result" = 2 ] || fail "it ended with $result"
grep -q 'fix:' "$work/said" && ! grep -q Traceback "$work/said" || fail "nobody is told what to do"
say "the image runs unprivileged, on a read-only root, without a shell"
