#!/usr/bin/env bash
# touch, rm, ls, stat, cat, tail -f, dd, tee, cp, mv, ln and mkdir on locks: what pins, shows, takes
# and releases, and what is refused.
. "$(dirname "$0")/lib.sh"

echo "# touch pins, rm unpins"
check "touch" touch "$D/pinned"
check_is free "the name stays, free" value pinned mode
check_is true "and pinned" value pinned pinned
check "touch -d of an existing one" touch -d '2001-02-03 04:05' "$D/pinned"
check_is pinned "ls" ls "$D"
check_error "File exists" "dd conv=excl: a pinned name is there" \
  dd if=/dev/null of="$D/pinned" conv=excl status=none
check "rm" rm "$D/pinned"
check_is "" "it is gone" ls "$D"
check_error "No such file or directory" "rm of nothing" rm "$D/pinned"
check "rm -f of nothing" rm -f "$D/pinned"

echo "# ls, stat, cat"
hold held
holder=$!
check_is held "ls shows what is held" ls "$D"
check_is "-rw-rw-rw- 1 root root 0" "ls -l shows the lockspace's bits" \
  sh -c "ls -l '$D/held' | cut -d ' ' -f 1-5"
check_is "regular empty file 666 0" "stat" stat -c '%F %a %u' "$D/held"
since=$(date -d "$(sed -n 's/^    since: "\(.*\)"/\1/p' "$D/held")" +%s)
check_is "$since" "its mtime is when it was taken" stat -c %Y "$D/held"
inode=$(stat -c %i "$D/held")
check_is "$inode" "its inode number stays" stat -c %i "$D/held"
check_is "$inode held" "ls -i shows the same" ls -i "$D" -I .ctl
check_is "lock: held" "cat shows the picture" sh -c "cat '$D/held' | head -n 1"
check_is 2 "cat of two files" sh -c "cat '$D/held' '$D/held' | grep -c '^lock: held'"
check "cp of a picture" cp "$D/held" "$T/copy"
check "is a whole picture" grep -q '^stats:' "$T/copy"
check_is "lock: held" "dd bs=1 reads one picture, not many" \
  sh -c "dd if='$D/held' bs=1 status=none | head -n 1"
check_is 1 "which ends" sh -c "dd if='$D/held' bs=16 status=none | grep -c '^stats:'"
check_is "EX" "none of them took the lock" value held mode
check_is 1 "or joined it" value held holders_total
check_is "" "find -newer and du walk it" find "$D" -name 'x*'
check_error "Device or resource busy" "rm of a held lock" rm -f "$D/held"

echo "# refused"
check_error "Operation not permitted" "mv" mv "$D/held" "$D/other"
check_error "Operation not permitted" "ln" ln "$D/held" "$D/other"
check_error "Operation not permitted" "ln -s" ln -s held "$D/other"
check_error "Operation not permitted" "mkdir in a lockspace" mkdir "$D/directory"
check_error "Operation not permitted" "mkfifo" mkfifo "$D/fifo"
check_error "Operation not permitted" "chown of a lock" chown 1 "$D/held"
check_error "Operation not permitted" "chmod of a name that is not pinned" chmod 600 "$D/held"
check_error "Invalid argument" "cp of a file that is no command into a lock" \
  cp "$HERE/lib.sh" "$D/other"
check_is held "nothing was left by all that" ls "$D"

echo "# tee and dd speak mode strings"
check_error "Resource temporarily unavailable" "tee of a try" \
  sh -c "echo EX try | tee '$D/held' >/dev/null"
(echo EX timeout=60s | tee "$D/held" >"$T/tee") &
await "tee waits" waiters_are held 1
check_is tee "the picture names it" sed -n '/^waiters:/,$ s/^    comm: //p' "$D/held"
end "$holder"
await "and is granted" test -s "$T/tee"
await "tee's end frees it" is_free held
mkfifo "$T/words"
tee -p "$D/t" <"$T/words" >"$T/tee2" &
exec 7>"$T/words"
echo EX >&7
await "tee stays open and holds it" mode_is t EX
exec 7>&-
await "until its end" is_free t
check "echo PR | dd" sh -c "echo PR | dd of='$D/u' status=none"
check "is free after dd" is_free u
hold u
check_error "Resource temporarily unavailable" "dd oflag=nonblock is a try" \
  sh -c "echo PR | dd of='$D/u' oflag=nonblock status=none"
check_error "File exists" "dd conv=excl is O_EXCL" \
  dd if=/dev/null of="$D/u" conv=excl status=none

echo "# tail -f"
touch "$D/watched"
tail -n +1 -f -s 0.05 "$D/watched" >"$T/tail" &
tail=$!
await "it shows the picture" grep -q '^mode: free' "$T/tail"
check_is 1 "once" grep -c '^lock: watched' "$T/tail"
hold watched
holder=$!
await "and the change" grep -q '^mode: EX' "$T/tail"
check_is 1 "without joining" value watched holders_total
end "$holder"
free_again() { [ "$(grep -c '^mode: free' "$T/tail")" = 2 ]; }
await "and the next" free_again
check "tail lives on" kill -0 "$tail"
end "$tail"
await "it ends by a kill" ended "$tail"

echo "# lockspaces"
check "mkdir makes one" mkdir -m 750 "$MNT/batch"
check_is "directory 750" "with its mode" stat -c '%F %a' "$MNT/batch"
check "and a lock in it" flock -n "$MNT/batch/a" true
touch "$MNT/batch/a"
check_error "Device or resource busy" "rmdir of one in use" rmdir "$MNT/batch"
check_error "Operation not permitted" "rm of .ctl" rm -f "$MNT/batch/.ctl"
check "rm of its names" rm "$MNT/batch/a"
check "and rmdir leave it" rmdir "$MNT/batch"
check_error "No such file or directory" "it is gone" stat "$MNT/batch"
