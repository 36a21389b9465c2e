#!/usr/bin/env bash
# Java, its source launched as it is: FileChannel.lock and tryLock, CREATE_NEW; a range is refused.
. "$(dirname "$0")/lib.sh"
. "$HERE/exclusion.sh"
need java
need flock
java() { exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.io.tmpdir="$T" "$@"; }
client=(java "$HERE/clients/Locks.java")

for method in excl lock try-lock; do shows_exclusion EX "$method" "${client[@]}"; done
shows_exclusion PR lock-shared "${client[@]}"
for method in excl try-lock; do shows_busy "$method" "${client[@]}"; done
for method in lock lock-shared; do shows_waiting "$method" "${client[@]}"; done
start_client "${client[@]}" range "$D/x"
says "error Operation not supported" "a range"
end_client
