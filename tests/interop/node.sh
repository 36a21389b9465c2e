#!/usr/bin/env bash
# Node: fs.openSync(path, "wx"), and mode strings by fs.writeSync.
. "$(dirname "$0")/lib.sh"
. "$HERE/exclusion.sh"
need node
need flock
node() { exec node "$@"; }
client=(node "$HERE/clients/locks.mjs")

for method in excl mode mode-try; do shows_exclusion EX "$method" "${client[@]}"; done
for method in excl mode-try; do shows_busy "$method" "${client[@]}"; done
shows_waiting mode "${client[@]}"
