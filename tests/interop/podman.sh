#!/usr/bin/env bash
# podman with runc: a container whose name is known, the mount as a volume; its stop, its kill.
# Its store, state and locks are in $T: nothing of this host's podman is touched.
. "$(dirname "$0")/lib.sh"
. "$HERE/containers.sh"
need podman
need runc
need flock
make_rootfs
export CONTAINERS_CONF=$T/containers.conf
printf '[engine]\nlock_type = "file"\n' >"$CONTAINERS_CONF"
podman() {
  command podman --root "$T/store" --runroot "$T/runroot" --tmpdir "$T/tmp" \
    --storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime runc "$@"
}
at_exit+=('podman rm -f -a -t 0 >/dev/null 2>&1')
run=(run --rm --network=none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000
  -v "$MNT:/locks")
contain() { podman "${run[@]}" --rootfs "$T/rootfs" "$@"; }
# The first 12 digits of its id, as podman shows it.
container_name() {
  podman ps --format '{{.ID}} {{.Pid}}' --no-trunc | while read -r id pid; do
    if [ "$pid" = "$1" ]; then echo "${id:0:12}"; fi
  done
}
(contain true) >"$T/out" 2>"$T/err" || skip podman "does not run here: $(cat "$T/err")"
shows_container

echo "# podman's own verbs"
lock_and_stay='exec 9<>/locks/default/v; echo EX >&9; exec sleep 1000'
contain_in_background() {
  podman "${run[@]}" -d --name "$1" --rootfs "$T/rootfs" sh -c "$lock_and_stay" >"$T/id"
  await "$1 holds it" mode_is v EX
}
contain_in_background killed
check "podman kill" podman kill killed
await "frees it" is_free v
contain_in_background paused
if podman pause paused >/dev/null 2>"$T/err"; then
  check_status 1 "a paused container keeps its lock" flock -n "$D/v" true
  check "podman unpause" podman unpause paused
  check_status 1 "and after it" flock -n "$D/v" true
else
  echo "podman pause does not work here: $(cat "$T/err")"
fi
check "podman stop" podman stop -t 0 paused
await "frees it" is_free v

echo "# the parent of a mountpoint, rslave"
mkdir -p "$T/parent/locks" && mount --bind "$T/parent" "$T/parent" && mount --make-shared "$T/parent"
at_exit+=('umount -l "$T/parent/locks" "$T/parent" 2>/dev/null')
podman run --rm --network=none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 -d --name parent \
  -v "$T/parent:/locks:rslave" --rootfs "$T/rootfs" sleep 1000 >"$T/id"
for turn in "made later" "made anew"; do
  "$LOCKFS_BINARY" -f memory: "$T/parent/locks" 2>"$T/log" &
  await "a mount is $turn" test -e "$T/parent/locks/.lockfs/version"
  exec 9<>"$T/parent/locks/default/p" && flock 9
  check_status 1 "the container sees its lock" podman exec parent flock -n /locks/locks/default/p true
  exec 9>&-
  check "umount" umount "$T/parent/locks"
done
check "podman stop" podman stop -t 0 parent
