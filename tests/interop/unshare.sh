#!/usr/bin/env bash
# unshare(1) -m -p -f: new mount and pid namespaces, the mount bound into them; as root, and as the
# root of a user namespace.
. "$(dirname "$0")/lib.sh"
. "$HERE/containers.sh"
need unshare
need flock
make_rootfs
user=()
contain() {
  exec unshare ${user[@]+"${user[@]}"} -m -p -f --kill-child sh -c '
    root=$1 mount=$2
    shift 2
    mount --make-rprivate / && mount --bind "$root" "$root" &&
      mount --rbind "$mount" "$root/locks" &&
      exec chroot "$root" /bin/env PATH=/bin "$@"' sh "$T/rootfs" "$MNT" "$@"
}
container_name() { pid_namespace "$1"; }
(contain true) 2>"$T/err" || skip unshare "does not run here: $(cat "$T/err")"
shows_container

user=(-U -r)
(contain true) 2>"$T/err" || skip unshare "no user namespaces here: $(cat "$T/err")"
echo "# in a user namespace"
shows_container
