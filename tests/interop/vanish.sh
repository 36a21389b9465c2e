#!/usr/bin/env bash
# The README's "Why did my lock vanish?" and "Who holds it?", row by row.
. "$(dirname "$0")/lib.sh"
need flock

exec 9>"$D/v"
check "an open without O_EXCL takes nothing" is_free v
exec 9>&-
touch "$D/v" && check "touch pins the name, free" mode_is v free
rm "$D/v"
(set -C && : >"$D/v" && : >"$T/held")
check "noclobber had it" test -e "$T/held"
await "but : closes it" is_free v
exec 9<>"$D/v"
check "/dev/fd/9 opens anew" sh -c 'echo EX >/dev/fd/9'
await "and closes, so nothing is held" is_free v
(exec 8<>"$D/v" && echo EX >&8)
await "a subshell's lock ends with it" is_free v
echo EX >&9
check "echo EX >&9 holds" mode_is v EX
exec 9>&-
await "until it is closed" is_free v

echo "# POSIX locks and collected files"
if command -v python3 >/dev/null; then
  check "any close by the process ends a POSIX lock" python3 - "$D/v" <<'END'
import fcntl, os, sys
path = sys.argv[1]
lock = open(path, "a")
fcntl.lockf(lock, fcntl.LOCK_EX)
assert "mode: EX" in open(path).read()  # This read closes what it opened.
assert not os.path.exists(path)
END
  check "a file that nobody refers to is closed" python3 - "$D/v" <<'END'
import os, sys, time
open(sys.argv[1], "x")
while os.path.exists(sys.argv[1]):
    time.sleep(0.001)
END
fi

echo "# who holds it"
bash -c 'exec 9<>"$0" && echo EX >&9 && cat "$0" >/dev/null && { sleep 1000 & echo $!; }' "$D/v" \
  >"$T/child"
check "a child keeps the lock of a process that is gone" mode_is v EX
check "the picture says so" grep -q 'exited: true' "$D/v"
open_files=$(readlink "/proc/$(cat "$T/child")"/fd/*)
check "/proc names who has it open" grep -q "$D/v" <<<"$open_files"
kill "$(cat "$T/child")"
await "it falls with the child" is_free v
flock -o "$D/v" sh -c 'echo $$ >"$0"; exec sleep 1000' "$T/child" &
await "flock -o holds it" test -s "$T/child"
end $!
await "and keeps it from the child: its death frees it" is_free v
kill "$(cat "$T/child")"
exec 9<>"$D/v" && echo 'EX linger=1h' >&9 && exec 9>&-
await "a closed one with linger= says so" grep -q 'lingering: true' "$D/v"
