# Sourced by the scripts of this folder, which run under tests/support/with-mount: the mount is at
# $MNT. Gives them a place for files ($T), names for locks, checks with a limit, and an end that
# leaves no process and no mount behind.
set -u
export LC_ALL=C
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
D=$MNT/default
T=$(mktemp -d "${TMPDIR:-/tmp}/lockfs-interop-XXXXXX")
LIMIT=20  # Seconds that await gives a condition; none should need one.

at_exit=()  # Commands, run in the order of their making.
finish() {
  local status=$? running command
  for command in ${at_exit[@]+"${at_exit[@]}"}; do eval "$command"; done
  running=$(jobs -p)
  [ -z "$running" ] || kill -9 $running 2>/dev/null
  wait 2>/dev/null
  rm -rf --one-file-system "$T"
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# skip PART REASON: this host lacks PART. A failure where $LOCKFS_TEST_REQUIRE names it.
skip() {
  case " ${LOCKFS_TEST_REQUIRE:-} " in
    *" $1 "*) fail "$1 is required, but: $2" ;;
  esac
  echo "SKIP $1: $2"
  exit 77
}

# need PART: the program PART, or skip.
need() { command -v "$1" >/dev/null || skip "$1" "not installed"; }

# check WHAT COMMAND...: COMMAND succeeds.
check() {
  local what=$1
  shift
  "$@" || fail "$what: status $? of: $*"
  echo "ok: $what"
}

# check_status STATUS WHAT COMMAND...: COMMAND ends with that status. Its stderr goes to $T/err.
check_status() {
  local wanted=$1 what=$2 status=0
  shift 2
  "$@" 2>"$T/err" || status=$?
  [ "$status" = "$wanted" ] || fail "$what: status $status, not $wanted, of: $* ($(cat "$T/err"))"
  echo "ok: $what"
}

# check_error TEXT WHAT COMMAND...: COMMAND fails and says TEXT.
check_error() {
  local text=$1 what=$2
  shift 2
  if "$@" 2>"$T/err"; then fail "$what: succeeded: $*"; fi
  grep -qF "$text" "$T/err" || fail "$what: says '$(cat "$T/err")', not '$text'"
  echo "ok: $what"
}

# check_is WANTED WHAT COMMAND...: COMMAND prints WANTED.
check_is() {
  local wanted=$1 what=$2 got
  shift 2
  got=$("$@") || fail "$what: status $? of: $*"
  [ "$got" = "$wanted" ] || fail "$what: '$got', not '$wanted'"
  echo "ok: $what"
}

# await WHAT COMMAND...: COMMAND succeeds before the limit. For what nothing announces.
await() {
  local what=$1 end=$((SECONDS + LIMIT))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "$what: not within $LIMIT s: $*"
    sleep 0.005
  done
  echo "ok: $what"
}

# value NAME KEY: a top-level value of a lock's picture; "absent" if the name is not there.
value() {
  local text
  text=$(cat "$D/$1" 2>/dev/null) || { echo absent; return; }
  sed -n "s/^$2: //p" <<<"$text"
}
mode_is() { [ "$(value "$1" mode)" = "$2" ]; }
waiters_are() { [ "$(value "$1" waiters_total)" = "$2" ]; }
is_free() { ! [ -e "$D/$1" ]; }
is_held() { [ -e "$D/$1" ]; }
ended() { ! kill -0 "$1" 2>/dev/null; }

# hold NAME [MODE]: a process ($!) that holds the lock until it is ended.
hold() {
  (
    exec 9<>"$D/$1" && echo "${2:-EX}" >&9 && exec sleep 1000
  ) &
  await "$1 is held in ${2:-EX}" mode_is "$1" "${2:-EX}"
}

# end PID: a child of ours is killed and gone.
end() {
  kill -9 "$1" 2>/dev/null
  wait "$1" 2>/dev/null
}
