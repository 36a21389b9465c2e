# Sourced after lib.sh: what a container with a bind mount of the mount must show. The script gives
#   contain COMMAND...   replaces this process by COMMAND in a container, the mount at /locks
#   container_name PID   what the picture must say of the container whose init is PID

# make_rootfs: a tree at $T/rootfs with busybox in all its names, and flock(1).
make_rootfs() {
  need busybox
  local dir file
  for dir in bin proc dev sys tmp etc run locks; do mkdir -p "$T/rootfs/$dir"; done
  cp "$(command -v busybox)" "$T/rootfs/bin/busybox"
  chroot "$T/rootfs" /bin/busybox --install -s /bin 2>"$T/err" ||
    skip busybox "no static busybox: $(cat "$T/err")"
  for file in $(command -v flock) $(ldd "$(command -v flock)" | grep -o '/[^ ]*'); do
    cp --parents -L "$file" "$T/rootfs"
  done
  cp "$(command -v flock)" "$T/rootfs/bin/flock"
}

# The init of the pid namespace that PID lives in: pid 1 there, a number of ours here.
init_of() {
  local pid=$1
  until [ "$(sed -n 's/^NSpid:.*\t//p' "/proc/$pid/status")" = 1 ]; do
    pid=$(sed -n 's/^PPid:\t//p' "/proc/$pid/status")
    [ "${pid:-0}" -gt 1 ] || fail "no init above $1"
  done
  echo "$pid"
}
pid_namespace() { readlink "/proc/$1/ns/pid"; }
holder_of() { sed -n 's/^    pid: //p' "$D/$1" | head -n 1; }
inside() { (contain "$@"); }

# check_name PID WHAT: the last container in the picture is that of PID.
check_name() {
  local pid=$1 what=$2 line
  line=$(sed -n 's/^    container: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$D/c" | tail -n 1)
  [ "$line" = "$(container_name "$(init_of "$pid")")" ] || fail "$what: '$line'"
  echo "ok: $what: $line"
}

shows_container() {
  local holder pid init
  echo "# held outside"
  hold c
  holder=$!
  check_is held "the container sees it" inside sh -c 'test -e /locks/default/c && echo held'
  check_is EX "and reads its picture" inside sed -n 's/^mode: //p' /locks/default/c
  check_status 1 "noclobber inside is refused" \
    inside sh -c '(set -C; : >/locks/default/c) 2>/dev/null || exit 1'
  check_status 1 "flock -n inside is refused" inside flock -n /locks/default/c true
  inside sh -c 'exec 9<>/locks/default/c; echo EX >&9; echo got; exec sleep 1000' >"$T/said" &
  await "somebody inside waits" waiters_are c 1
  pid=$(sed -n '/^waiters:/,$ s/^    pid: //p' "$D/c")
  check_name "$pid" "the queue names the container"
  end "$holder"
  await "it is granted" test -s "$T/said"

  echo "# held inside"
  check_is "$pid" "the picture names the holder by its pid out here" holder_of c
  check_name "$pid" "and the container"
  check_status 1 "flock -n outside is refused" flock -n "$D/c" true
  check_status 1 "so is noclobber" bash -c "(set -C; : >'$D/c') 2>/dev/null"
  check_status 1 "so is another container" inside flock -n /locks/default/c true
  init=$(init_of "$pid")
  check "kill -9 of the container's init" kill -9 "$init"
  await "frees it" is_free c
  await "the process inside is gone" ended "$pid"

  echo "# each other's turn, often"
  local turn
  for turn in 1 2 3 4 5; do
    check "a container, turn $turn" inside flock /locks/default/c true
    check "then the host" flock -n "$D/c" true
  done

  echo "# a waiter inside dies with its container"
  hold c
  holder=$!
  inside flock /locks/default/c echo never >"$T/never" &
  await "it waits" waiters_are c 1
  pid=$(sed -n '/^waiters:/,$ s/^    pid: //p' "$D/c")
  check "kill -9 of its init" kill -9 "$(init_of "$pid")"
  await "it leaves the queue" waiters_are c 0
  end "$holder"
  await "the lock is free" is_free c
  check "and it was never granted" test ! -s "$T/never"
}
