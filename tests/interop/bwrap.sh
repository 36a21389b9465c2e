#!/usr/bin/env bash
# bubblewrap: a container of its own root and pid namespace, the mount bound into it.
. "$(dirname "$0")/lib.sh"
. "$HERE/containers.sh"
need bwrap
need flock
make_rootfs
contain() {
  exec bwrap --bind "$T/rootfs" / --proc /proc --dev /dev --bind "$MNT" /locks --unshare-pid \
    --die-with-parent "$@"
}
container_name() { pid_namespace "$1"; }
(contain true) 2>"$T/err" || skip bwrap "does not run here: $(cat "$T/err")"
shows_container
