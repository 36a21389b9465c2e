#!/usr/bin/env bash
# Python: open(mode "x"), fcntl.flock, fcntl.lockf, OFD locks by fcntl.fcntl, mode strings; then
# what F_GETLK says, ranges and who owns a POSIX lock (clients/posix.py).
. "$(dirname "$0")/lib.sh"
. "$HERE/exclusion.sh"
need python3
need flock
python=$(python3 -c 'import sys; print(sys.executable)')
python() { exec "$python" "$@"; }
client=(python "$HERE/clients/locks.py")

for method in excl flock lockf ofd mode; do shows_exclusion EX "$method" "${client[@]}"; done
for method in flock-shared lockf-shared ofd-shared; do
  shows_exclusion PR "$method" "${client[@]}"
done
shows_exclusion PW mode-try "${client[@]}"
for method in excl flock-nb lockf-nb ofd-nb mode-try; do shows_busy "$method" "${client[@]}"; done
for method in flock flock-shared lockf lockf-shared ofd ofd-shared mode; do
  shows_waiting "$method" "${client[@]}"
done
check "POSIX and OFD locks in detail" "$python" "$HERE/clients/posix.py" "$D"
