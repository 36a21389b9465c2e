#!/usr/bin/env bash
# Go: os.OpenFile with O_EXCL, syscall.Flock, syscall.FcntlFlock (POSIX and OFD), mode strings. Go
# interrupts its own threads by signals and restarts calls: a wait must survive that.
. "$(dirname "$0")/lib.sh"
. "$HERE/exclusion.sh"
. "$HERE/go_build.sh"
need flock
build_go go
client=("$T/go.bin")

for method in excl flock fcntl ofd mode; do shows_exclusion EX "$method" "${client[@]}"; done
shows_exclusion PR flock-shared "${client[@]}"
for method in excl flock-nb fcntl-nb ofd-nb; do shows_busy "$method" "${client[@]}"; done
for method in flock flock-shared fcntl ofd mode; do shows_waiting "$method" "${client[@]}"; done
