# Sourced after lib.sh: one protocol for a client program in any language, and what each must show.
#
# A client is called METHOD FILE. It takes the lock in that way and prints one line: "held", "busy"
# or "error WORDS". Holding, it waits for a line, lets go, prints "released", waits for the end of
# its input, and ends. So a release is seen before the process is gone.

# start_client COMMAND...: $client_pid is its process, fd 4 its input, fd 5 its output.
start_client() {
  mkfifo "$T/in" "$T/out"
  "$@" <"$T/in" >"$T/out" &
  client_pid=$!
  exec 4>"$T/in" 5<"$T/out"
  rm "$T/in" "$T/out"
}
end_client() {
  exec 4>&-
  cat <&5 >/dev/null
  exec 5<&-
  wait "$client_pid" 2>/dev/null
}
says() {
  local wanted=$1 line=
  read -r -t 60 line <&5
  [ "$line" = "$wanted" ] || fail "$2: the client says '$line', not '$wanted'"
  echo "ok: $2: $wanted"
}

# shows_exclusion MODE METHOD COMMAND...: the client's METHOD takes MODE, others see and respect it,
# it lets go, and dies without leaving anything.
shows_exclusion() {
  local mode=$1 method=$2
  shift 2
  start_client "$@" "$method" "$D/x"
  says held "$method"
  check_is "$mode" "$method holds $mode" value x mode
  check_is "$client_pid" "the picture names its process" sed -n 's/^    pid: //p' "$D/x"
  check_status 1 "flock -n is refused" flock -n "$D/x" true 4>&-
  if [ "$mode" = PR ]; then check "flock -s -n is not" flock -s -n "$D/x" true 4>&-; fi
  echo >&4
  says released "$method"
  check "the lock is free while the client lives" is_free x
  end_client
  start_client "$@" "$method" "$D/x"
  says held "$method again"
  kill -9 "$client_pid"
  await "kill -9 frees it" is_free x
  end_client
}

# shows_busy METHOD COMMAND...: METHOD does not wait and is refused.
shows_busy() {
  local method=$1 holder
  shift
  hold x 4>&-
  holder=$!
  start_client "$@" "$method" "$D/x"
  says busy "$method of a held lock"
  end_client
  end "$holder"
  await "it is free again" is_free x
}

# shows_waiting METHOD COMMAND...: METHOD waits, is seen to wait, and is granted.
shows_waiting() {
  local method=$1 holder
  shift
  hold x 4>&-
  holder=$!
  start_client "$@" "$method" "$D/x"
  await "$method waits" waiters_are x 1
  check_is "$client_pid" "the queue names its process" \
    sed -n '/^waiters:/,$ s/^    pid: //p' "$D/x"
  end "$holder"
  says held "$method"
  end_client
  await "its end frees it" is_free x
}
