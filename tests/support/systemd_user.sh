#!/usr/bin/env bash
# systemd_user.sh HOME [DIRECTORY...] -- SCRIPT...: run scripts as an ordinary user beside a real `systemd --user`.
#
# Each script of bash has a login session of its own: before the next one starts, the manager ends with all its services,
# and the runtime directory is emptied. Needs root, cgroup v2 and util-linux, but no systemd as PID 1. All happens in
# namespaces of its own and leaves nothing behind: there is a user `tester` whose home directory is HOME, in /home/tester
# or in $TESTER_HOME; each DIRECTORY can be reached even if it lies in a closed one such as /root; a real journald answers `journalctl --user`;
# the manager owns a cgroup, and a fresh /run with what sd_booted(3) and systemd.exec(5) look for: /run/systemd/system,
# /run/systemd/{unit-root,mount-rootfs}.
set -euo pipefail
umask 022 # what is mounted here is for the user
user=tester
place=${TESTER_HOME:-/home/$user}
uid=54321 # journald keeps a journal for each user outside the ranges of system and dynamic users, see UIDS-GIDS

outside() {
  tree=$(mktemp -d)
  mount -t cgroup2 none "$tree"
  group=$tree/uvtokend-test-$$
  mkdir "$group"
  trap clean_up EXIT
  trap 'exit 143' TERM INT HUP
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc --mount-proc \
      "$0" --inside "$@"
  ) &
  wait $! # a shell handles no signal while it waits for a command in the foreground
}

clean_up() {
  set +e
  exec 2>/dev/null # whoever read it may be gone, and a SIGPIPE would end us here
  for _ in $(seq 50); do
    [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$group" ] || break
    sleep 0.1
  done
  umount "$tree"
  rmdir "$tree"
}

# Shadow each closed directory, and /home, by an empty open one, and bind each DIRECTORY in there to its place again.
open_the_way() {
  local number directory above
  local -A closed=([/home]=1) hidden=()
  mkdir -p /home
  for number in "${!directories[@]}"; do
    mkdir "/run/kept/$number"
    mount --bind "${directories[$number]}" "/run/kept/$number"
    above=$(dirname "${directories[$number]}")
    while [ "$above" != / ]; do
      [ $((0$(stat -c %a "$above") & 1)) = 1 ] || closed[$above]=1
      [ -z "${closed[$above]-}" ] || hidden[$number]=1
      above=$(dirname "$above")
    done
  done
  printf '%s\n' "${!closed[@]}" | sort | while read -r directory; do
    [ ! -d "$directory" ] || mount -t tmpfs -o mode=755 tmpfs "$directory"
  done
  for number in "${!hidden[@]}"; do
    mkdir -p "${directories[$number]}"
    mount --bind "/run/kept/$number" "${directories[$number]}"
  done
}

make_the_user() {
  mkdir /run/kept/home
  mount --bind "$1" /run/kept/home
  open_the_way
  mkdir -p "$place"
  mount --bind /run/kept/home "$place"
  chown -R "$uid:$uid" "$place"
  cp /etc/passwd /run/passwd
  echo "$user:x:$uid:$uid::/home/$user:/bin/sh" >>/run/passwd
  mount --bind /run/passwd /etc/passwd
}

start_journald() {
  [ -s /etc/machine-id ] || {
    echo 0123456789abcdef0123456789abcdef >/run/machine-id
    [ -e /etc/machine-id ] || touch /etc/machine-id
    mount --bind /run/machine-id /etc/machine-id
  }
  mkdir -p /var/log/journal /run/systemd/journal
  mount -t tmpfs -o mode=755 tmpfs /var/log/journal
  mkdir "/var/log/journal/$(cat /etc/machine-id)"
  touch /run/systemd/journal/flushed # without it, journald keeps one volatile journal that only root may read
  "$systemd-journald" >/dev/null 2>&1 &
  for _ in $(seq 200); do [ ! -S /run/systemd/journal/stdout ] || break; sleep 0.02; done
}

inside() {
  home=$1
  shift
  directories=()
  while [ "$1" != -- ]; do
    directories+=("$1")
    shift
  done
  shift
  systemd=/usr/lib/systemd/systemd
  [ -x "$systemd" ] || systemd=/lib/systemd/systemd
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "/run/user/$uid" /run/kept /run/systemd/system /run/lock
  mkdir -m 700 /run/systemd/unit-root /run/systemd/mount-rootfs
  chown "$uid:$uid" "/run/user/$uid"
  chmod 700 "/run/user/$uid"
  make_the_user "$home"
  start_journald

  mount -t cgroup2 none /sys/fs/cgroup
  own=/sys/fs/cgroup/user.slice/user-$uid.slice/user@$uid.service
  mkdir -p "$own/init.scope" /sys/fs/cgroup/rest
  echo $$ >/sys/fs/cgroup/rest/cgroup.procs
  chown "$uid:$uid" "$own" "$own/init.scope" "$own"/cgroup.{procs,threads,subtree_control} "$own"/init.scope/cgroup.procs

  as_user=(setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all env -i "HOME=$place" "USER=$user"
    "PATH=$place/.local/bin:/usr/local/bin:/usr/bin:/bin" LANG=C.UTF-8 "XDG_RUNTIME_DIR=/run/user/$uid"
    "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus")
  cd "$place"
  for script in "$@"; do session "$script"; done
}

session() {
  (
    echo "$BASHPID" >"$own/init.scope/cgroup.procs"
    exec "${as_user[@]}" SYSTEMD_LOG_TARGET=console "$systemd" --user --unit=default.target 2>manager.log
  ) &
  manager=$!
  for _ in $(seq 200); do
    case $("${as_user[@]}" systemctl --user is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
    kill -0 "$manager" 2>/dev/null || { cat manager.log >&2; exit 125; }
    sleep 0.05
  done
  result=0
  "${as_user[@]}" bash -c "$1" || result=$?
  kill -RTMIN+24 "$manager" 2>/dev/null || true # SIGRTMIN+24: a user manager ends at once, see systemd(1)
  wait "$manager" 2>/dev/null || true
  find "/run/user/$uid" -mindepth 1 -delete
  [ "$result" = 0 ] || exit "$result"
}

case $1 in
--inside) inside "${@:2}" ;;
*) outside "$@" ;;
esac
