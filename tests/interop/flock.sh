#!/usr/bin/env bash
# flock(1) of util-linux, unchanged: -s -x -n -w -u -o -E -F -c, descriptors that are inherited, and
# its exit statuses.
. "$(dirname "$0")/lib.sh"
need flock

check_is hello "flock FILE -c COMMAND runs it" flock "$D/a" -c 'echo hello'
check "and leaves the lock free" is_free a
check_is EX "-x holds EX while the command runs" \
  flock -x "$D/a" sh -c "sed -n 's/^mode: //p' $D/a"
check_is PR "-s holds PR" flock -s "$D/a" sh -c "sed -n 's/^mode: //p' $D/a"
check_status 7 "the command's status is flock's" flock "$D/a" -c 'exit 7'

echo "# exclusive against exclusive and shared"
flock -F -x "$D/b" sleep 1000 &
holder=$!
await "b is held" mode_is b EX
check_status 1 "-n refuses with 1" flock -n "$D/b" true
check_status 1 "-n -s too" flock -n -s "$D/b" true
check_status 99 "-E 99 changes that" flock -n -E 99 "$D/b" true
check_status 98 "-w 0.2 gives up, with the status of -E" flock -w 0.2 -E 98 "$D/b" true
check "a waiter that gave up is gone" waiters_are b 0
(exec flock -w 60 "$D/b" -c "echo got >$T/turn") &
await "a waiter with -w is in the queue" waiters_are b 1
end "$holder"
await "it gets its turn" test -s "$T/turn"
await "and releases" is_free b

echo "# shared with shared"
flock -F -s "$D/c" sleep 1000 &
first=$!
await "c is shared" mode_is c PR
check "-s -n beside it" flock -s -n "$D/c" true
check_status 1 "-x -n is refused" flock -x -n "$D/c" true
(exec flock -x "$D/c" -c "echo writer >>$T/order") &
await "a writer waits" waiters_are c 1
(exec flock -s "$D/c" -c "echo reader >>$T/order") &
await "a new reader waits behind it" waiters_are c 2
check_status 1 "-s -n does not overtake the writer" flock -s -n "$D/c" true
end "$first"
await "both had their turn" is_free c
check_is "writer reader" "in order" xargs -n 9 <"$T/order"

echo "# descriptors that are inherited"
exec 9<>"$D/d"
check "flock 9" flock 9
check_is EX "the shell holds it, though flock(1) has ended" value d mode
check_status 1 "nobody else gets it" flock -n "$D/d" true
check "flock -s 9 converts" flock -s 9
check_is PR "to PR" value d mode
check "now another reader gets it" flock -s -n "$D/d" true
check_status 1 "beside a reader flock -x -n 9 cannot convert" flock -s "$D/d" flock -x -n 9
check "beside nobody it can" flock -x -n 9
check_is EX "to EX" value d mode
check "flock -u 9" flock -u 9
check "frees the name" is_free d
check "flock 9 again" flock -n 9
exec 8>&9 9>&-
check_is EX "a duplicate keeps it" value d mode
exec 8>&-
check "the last close frees it" is_free d
(flock -n 9 || exit 1; [ "$(value e mode)" = EX ]) 9>"$D/e"
check "( flock 9; ... ) 9>FILE, the form of the manual" test $? = 0
check "and it is free after the subshell" is_free e

echo "# -o: the command's children do not inherit the lock"
flock "$D/f" sh -c "sleep 1000 >/dev/null 2>&1 & echo \$! >$T/child"
child=$(cat "$T/child")
at_exit+=("kill -9 $child 2>/dev/null")
check_is EX "without -o a child in the background keeps it" value f mode
kill -9 "$child"
await "until it ends" is_free f
flock -o "$D/g" sh -c "sed -n 's/^mode: //p' $D/g >$T/mode
  sleep 1000 >/dev/null 2>&1 & echo \$! >$T/child"
child2=$(cat "$T/child")
at_exit+=("kill -9 $child2 2>/dev/null")
check_is EX "with -o flock(1) holds it while the command runs" cat "$T/mode"
check "and no longer, whatever the child does" is_free g
check "the child lives" kill -0 "$child2"
kill -9 "$child2"

echo "# a crowd: a counter that only the lock protects"
echo 0 >"$T/counter"
crowd=()
for _ in 1 2 3 4 5 6 7 8; do
  (
    for _ in $(seq 25); do
      flock "$D/h" sh -c "read -r n <'$T/counter'; echo \$((n + 1)) >'$T/counter'"
    done
  ) &
  crowd+=($!)
done
for pid in "${crowd[@]}"; do wait "$pid" || fail "one of the crowd failed"; done
check_is 200 "8 times 25 increments" cat "$T/counter"
