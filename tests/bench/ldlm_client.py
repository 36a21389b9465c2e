"""What LDLM's own Python client does itself. HOST:PORT; then, for each line "cycle N" of input, the
microseconds to lock and unlock a lock of a new name, of N."""
import os
import sys
import time

import ldlm

client = ldlm.Client(sys.argv[1])
names = 0
for line in sys.stdin:
    count = int(line.split()[1])
    begin = time.monotonic()
    for _ in range(count):
        names += 1
        lock = client.try_lock(f"py{os.getpid()}-{names}")
        lock.unlock()
    print((time.monotonic() - begin) / count * 1e6, flush=True)
