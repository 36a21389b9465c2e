#!/usr/bin/env bash
# The shell alone: noclobber takes a lock, exec 9<> with mode strings, the errors it shows, and the
# picture that the descriptor reads.
. "$(dirname "$0")/lib.sh"

# In a shell of its own: the shell's own words, and the descriptor closed at its end.
shell() { bash --norc -c "cd '$D'; $1" ; }

echo "# noclobber is O_EXCL"
check "set -C; : 9>once takes it" shell 'set -C; : 9>once'
check "and close frees it" is_free once
(
  set -C
  exec 9>"$D/once" && exec sleep 1000
) &
holder=$!
await "once is held" mode_is once EX
check_error "cannot overwrite existing file" "a second noclobber is refused" \
  shell 'set -C; : 9>once'
check_status 1 "the idiom of scripts: it goes to the else branch" \
  shell '(set -C; : 9>once) 2>/dev/null && echo mine'
end "$holder"
await "kill -9 frees it" is_free once
for _ in $(seq 20); do
  (
    until [ -e "$T/go" ]; do :; done
    set -C
    { exec 9>"$D/race"; } 2>/dev/null || { echo lost >>"$T/race"; exit; }
    echo won >>"$T/race"
    exec sleep 1000
  ) &
done
touch "$T/go"
all_raced() { [ -e "$T/race" ] && [ "$(wc -l <"$T/race")" = 20 ]; }
await "20 try at the same moment" all_raced
check_is 1 "one wins" grep -c won "$T/race"

echo "# exec 9<> and mode strings"
exec 9<>"$D/m"
check "open alone does not lock" is_free m
for mode in NL CR CW PR PW EX; do
  check "echo $mode" eval "echo $mode >&9"
  check_is "  mode: $mode" "this: says so" sed -n '/^this:/,$ { /  mode:/p }' <&9
done
check "a name is there" is_held m
check "lower case, and words" eval 'echo shared >&9'
check_is PR "shared is PR" value m mode
check "exclusive" eval 'echo "Exclusive note=\"nightly run\"" >&9'
check_is EX "exclusive is EX" value m mode
check_is '    note: "nightly run"' "the note is shown" grep note: "$D/m"
check_is "$$" "so is the holder" sed -n 's/^    pid: //p' "$D/m"
check "UN" eval 'echo UN >&9'
check "frees the name" is_free m
check "a second UN is no error" eval 'echo UN >&9'
exec 9>&-

echo "# errors, as echo shows them"
exec 9<>"$D/e"
check_error "Invalid argument" "a mode that is none" shell 'exec 9<>e; echo FOO >&9'
echo FOO >&9 2>/dev/null
check "the reason is in this.error" grep -q "unknown mode 'FOO'" <&9
hold e
holder=$!
check_error "Resource temporarily unavailable" "try" shell 'exec 9<>e; echo "EX try" >&9'
check_error "Connection timed out" "timeout=" shell 'exec 9<>e; echo "EX timeout=50ms" >&9'
echo "PR try" >&9 2>/dev/null
check "this.error names who holds it" grep -q "held in EX by pid $holder" <&9
check_error "No such file or directory" "cat of a free lock" cat "$D/free"
check_error "Device or resource busy" "rm of a held lock" rm "$D/e"

echo "# a waiting echo"
(echo "PR timeout=60s" >&9 && echo got >"$T/got") &
await "it waits" waiters_are e 1
end "$holder"
await "and is granted" test -s "$T/got"
await "the shell's descriptor holds it" mode_is e PR
exec 9>&-
await "close frees it" is_free e

echo "# conversions that block each other"
exec 7<>"$D/dead" 8<>"$D/dead"
echo PR >&7
echo PR >&8
(exec 8>&-; echo EX >&7; echo converted >"$T/converted") &
await "one converts and waits" waiters_are dead 1
check_error "deadlock" "the other is told of the deadlock" bash --norc -c 'echo EX >&8'
echo UN >&8
await "then the first is granted" test -s "$T/converted"
check_is EX "its mode" value dead mode
exec 7>&- 8>&-
await "all is free" is_free dead
