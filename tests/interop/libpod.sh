#!/usr/bin/env bash
# podman's own locks as files, beside the real podman: what it allocates, a container in the midst of
# an operation, and that the mount and podman exclude each other, with each of its lock managers.
# All in a mount namespace with a /dev/shm of its own: nothing of this host's podman is touched.
if [ -z "${LOCKFS_IN_NAMESPACE:-}" ]; then
  command -v unshare >/dev/null || { echo "SKIP unshare: not installed"; exit 77; }
  LOCKFS_IN_NAMESPACE=1 exec unshare -m "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
. "$HERE/containers.sh"
need podman
need runc
mount -t tmpfs none /dev/shm
make_rootfs
export CONTAINERS_CONF=$T/containers.conf
mkdir "$T/hooks" "$T/m"
podman() {
  command podman --root "$T/$manager/store" --runroot "$T/$manager/run" --tmpdir "$T/$manager/tmp" \
    --storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime runc \
    --hooks-dir "$T/hooks" "$@"
}
at_exit+=('umount -l "$T/m" 2>/dev/null')
# Every container stops in its start until $T/go is there, while podman holds its lock.
cat >"$T/hooks/wait.json" <<EOF
{"version": "1.0.0", "stages": ["prestart"], "when": {"always": true},
 "hook": {"path": "/bin/sh",
          "args": ["sh", "-c", "touch $T/started; while [ ! -e $T/go ]; do sleep 0.02; done"]}}
EOF
create() {
  podman create --network=none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --name "$1" \
    --rootfs "$T/rootfs" sleep 1000
}
# The names that were not there before; podman 4.3 does not tell a container's number.
names() { ls "$T/m/default"; }
lock() { echo "$T/m/default/$1"; }
shows() { grep -q "$2" "$(lock "$1")"; }

# both MANAGER URL: the whole, with podman's locks of that kind at URL.
both() {
  manager=$1
  mkdir -p "$T/$manager"
  printf '[engine]\nlock_type = "%s"\n' "$manager" >"$CONTAINERS_CONF"
  rm -f "$T/go" "$T/started"
  create one >"$T/out" 2>"$T/err" || skip podman "does not run here: $(cat "$T/err")"
  echo "# $manager"
  "$LOCKFS_BINARY" "$2" "$T/m" || fail "cannot mount $2"
  local one two
  one=$(names)
  check "the container's number is the one name" test "$one" = 0
  create two >/dev/null
  two=$(names | grep -vx "$one")
  check "another container has another one" test -e "$(lock "$two")"
  check "its lock is free" shows "$two" "mode: free"

  podman start one >"$T/out" 2>&1 &
  local starting=$!
  await "the container is in the midst of its start" test -e "$T/started"
  check "its lock is held" shows "$one" "mode: EX"
  check "by podman" shows "$one" "comm: podman"
  check "locks.json has it too" grep -q '"comm": *"podman"' "$T/m/.lockfs/locks.json"
  exec 9<>"$(lock "$one")"
  check_error "Resource temporarily unavailable" "the mount cannot have it now" \
    bash -c 'echo EX try >&9'
  touch "$T/go"
  check "podman ends its start" wait "$starting"
  check "then the mount can have it" bash -c 'echo EX timeout=20s >&9'
  podman stop -t 0 one >"$T/out" 2>&1 &
  local stopping=$!
  check_status 124 "podman waits for as long as the mount holds it" \
    timeout 1 tail --pid="$stopping" -f /dev/null
  echo UN >&9
  exec 9>&-
  check "then it goes on" wait "$stopping"
  check "podman removes it" podman rm -f one
  await "its number is free again" test ! -e "$(lock "$one")"
  podman rm -f two >/dev/null
  umount "$T/m"
}

both shm "shm:/libpod_lock?layout=libpod,write"
both file "file:$T/file/tmp/locks?layout=libpod,write"
