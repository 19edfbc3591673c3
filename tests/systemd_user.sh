#!/usr/bin/env bash
# systemd_user.sh HOME COMMAND...: run a command beside a real `systemd --user`, in namespaces of its own.
#
# No systemd as PID 1 is needed, but root, cgroup v2 and util-linux are. The manager gets a fresh /run and a cgroup that it
# owns; systemd.exec(5) wants /run/systemd/{unit-root,mount-rootfs}, sd_booted(3) wants /run/systemd/system.
set -euo pipefail

if [ "$1" != --inside ]; then
  tree=$(mktemp -d)
  mount -t cgroup2 none "$tree"
  group=$tree/uvtokend-test-$$
  mkdir "$group"
  clean_up() {
    set +e
    for _ in $(seq 50); do
      [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
      [ -d "$group" ] || break
      sleep 0.1
    done
    umount "$tree"
    rmdir "$tree"
  }
  trap clean_up EXIT
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc --mount-proc \
      "$0" --inside "$@"
  )
  exit
fi

shift
home=$1
shift
uid=$(id -u)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "/run/user/$uid" /run/systemd/system /run/lock
mkdir -m 700 /run/systemd/unit-root /run/systemd/mount-rootfs
chmod 700 "/run/user/$uid"
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/manager/init.scope /sys/fs/cgroup/rest
echo $$ >/sys/fs/cgroup/rest/cgroup.procs

inside=(env -i "HOME=$home" "PATH=$PATH" LANG=C.UTF-8 "XDG_RUNTIME_DIR=/run/user/$uid"
  "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus")
systemd=/usr/lib/systemd/systemd
[ -x "$systemd" ] || systemd=/lib/systemd/systemd
(
  echo "$BASHPID" >/sys/fs/cgroup/manager/init.scope/cgroup.procs
  cd "$home"
  exec "${inside[@]}" SYSTEMD_LOG_TARGET=console "$systemd" --user --unit=basic.target 2>"$home/manager.log"
) &
manager=$!
for _ in $(seq 200); do
  case $("${inside[@]}" systemctl --user is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
  kill -0 "$manager" 2>/dev/null || { cat "$home/manager.log" >&2; exit 125; }
  sleep 0.05
done
result=0
(cd "$home" && exec "${inside[@]}" "$@") || result=$?
kill -RTMIN+24 "$manager" 2>/dev/null || true # SIGRTMIN+24: a user manager ends at once, see systemd(1)
wait "$manager" 2>/dev/null || true
exit "$result"
