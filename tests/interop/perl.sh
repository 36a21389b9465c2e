#!/usr/bin/env bash
# Perl: flock, sysopen with O_EXCL, fcntl.
. "$(dirname "$0")/lib.sh"
. "$HERE/exclusion.sh"
need perl
need flock
perl() { exec perl "$@"; }
client=(perl "$HERE/clients/locks.pl")

for method in excl flock fcntl; do shows_exclusion EX "$method" "${client[@]}"; done
shows_exclusion PR flock-shared "${client[@]}"
for method in excl flock-nb fcntl-nb; do shows_busy "$method" "${client[@]}"; done
for method in flock flock-shared fcntl; do shows_waiting "$method" "${client[@]}"; done
