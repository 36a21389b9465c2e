#!/usr/bin/env bash
# A container that has the parent of the mountpoint, rslave, sees a mount that is made later, or
# made anew; one that has the mountpoint itself stays with the old one. unshare(1) makes both.
. "$(dirname "$0")/lib.sh"
need unshare
need flock
need nsenter
if [ -z "${LOCKFS_PARENT:-}" ]; then
  export LOCKFS_PARENT=$T/run  # Once more, in a mount namespace of its own.
  unshare -m --propagation private true 2>"$T/err" ||
    skip unshare "no mount namespaces here: $(cat "$T/err")"
  unshare -m --propagation private bash "$0"
  exit
fi
parent=$LOCKFS_PARENT
mkdir -p "$parent" "$T/first" "$T/later"
mount -t tmpfs none "$parent" && mount --make-shared "$parent" || fail "no tmpfs"
mkdir "$parent/locks"
at_exit+=('umount -l "$parent/locks" "$parent" 2>/dev/null')

# A mount there, by process $daemon.
served() {
  "$LOCKFS_BINARY" -f memory: "$parent/locks" 2>"$T/log" &
  daemon=$!
  await "it is mounted" test -e "$parent/locks/.lockfs/version"
}
# container NAME COMMAND...: a mount namespace that COMMAND sets up; $! is a process in it.
container() {
  local name=$1
  shift
  unshare -m --propagation slave sh -c '"$@" && : >"$0" && exec sleep 1000' "$T/$name.up" "$@" &
  await "container $name is up" test -e "$T/$name.up"
}
within() { nsenter -t "$1" -m "${@:2}"; }
within_parent() { within "$follower" "$@"; }
within_direct() { within "$direct" "$@"; }

container follower mount --rbind --make-rslave "$parent" "$T/later"
follower=$!
served
check "a mount made later shows in the container with the parent" \
  within_parent test -e "$T/later/locks/.lockfs/version"
container direct mount --bind --make-private "$parent/locks" "$T/first"
direct=$!
exec 9<>"$parent/locks/default/job" && flock 9
check_status 1 "a lock held outside keeps out the one" \
  within_parent flock -n "$T/later/locks/default/job" true
check_status 1 "and the other" within_direct flock -n "$T/first/default/job" true
exec 9>&-

echo "# unmounted, and mounted anew"
check "umount" umount "$parent/locks"
served
exec 9<>"$parent/locks/default/job" && flock 9
check_status 1 "the new mount's lock keeps out who has the parent" \
  within_parent flock -n "$T/later/locks/default/job" true
check "who has the mountpoint itself stays with the old mount: nothing keeps it out" \
  within_direct flock -n "$T/first/default/job" true
exec 9>&-
end "$direct"

echo "# the daemon dies, and it is mounted anew"
end "$daemon"
check "umount -l" umount -l "$parent/locks"
served
exec 9<>"$parent/locks/default/job" && flock 9
check_status 1 "the new mount's lock keeps out who has the parent" \
  within_parent flock -n "$T/later/locks/default/job" true
exec 9>&-
