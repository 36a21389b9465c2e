"""How soon a lock is free after kill -9 of its holder: measured from before kill(2) until the next
in the queue runs again with the lock, so two wake-ups are in it. At most 50 ms, for processes and
for containers' inits; a longer one passes only if the machine shows that it was the machine: 95 in
100 are within the limit, and the daemon or the waiter stood ready for a core for the rest of it, or
flock on tmpfs, killed in turn with it, was as late."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

from world import Child, by_flock, holder, is_free, path, wait_until, waiter, waiters

KILLS = 60
LIMIT = 0.050
DAEMON = int(os.environ["LOCKFS_PID"])


def ready_time(pid):
    """Seconds that a process stood ready for a core since it began."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


class Sample:
    def __init__(self, latency, stood_ready):
        self.latency = latency
        self.stood_ready = stood_ready

    def is_noise(self, control):
        return self.latency - self.stood_ready <= LIMIT or control >= LIMIT


def measured(kill, next_one):
    ready = ready_time(DAEMON) + ready_time(next_one.pid)
    began = time.monotonic()
    kill()
    granted = float(next_one.hears())
    ready = ready_time(DAEMON) + ready_time(next_one.pid) - ready
    next_one.end()
    return Sample(granted - began, ready)


def one_process(way):
    victim = holder("l", way)
    next_one = waiter("l", way)
    sample = measured(victim.kill, next_one)
    victim.end()
    wait_until(lambda: is_free("l"), "free for the next round")
    return sample


def one_container():
    """unshare's child is the init of a pid namespace; a grandchild of it holds the lock."""
    inner = 'exec 9<>"$0"; echo EX >&9; sleep 1000 & wait'
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", inner]
    wrapper = subprocess.Popen([*command, path("l")], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: not is_free("l"), "the container holds it")
        with open(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children") as file:
            init = int(file.read())
        next_one = waiter("l", "write")
        return measured(lambda: os.kill(init, signal.SIGKILL), next_one)
    finally:
        wrapper.kill()
        wrapper.wait()
        wait_until(lambda: is_free("l"), "free for the next round")


def on_tmpfs():
    """The same with flock on tmpfs: what this machine does of itself."""
    name = f"/dev/shm/lockfs-latency-{os.getpid()}"

    def hold(say):
        fd = os.open(name, os.O_RDWR | os.O_CREAT)
        by_flock(fd)
        say(time.monotonic())
        signal.pause()
        os.close(fd)

    try:
        victim = Child(hold)
        victim.hears()
        next_one = Child(hold)
        began = time.monotonic()
        victim.kill()
        latency = float(next_one.hears()) - began
        next_one.end()
        victim.end()
        return latency
    finally:
        os.unlink(name)


def ms(seconds):
    return f"{seconds * 1000:.2f} ms"


def measure(what, one):
    samples, controls = [], []
    for _ in range(KILLS):
        samples.append(one())
        controls.append(on_tmpfs())
    latencies = sorted(s.latency for s in samples)
    p95 = latencies[int(0.95 * (KILLS - 1))]
    print(f"{what}: {KILLS} kills, median {ms(statistics.median(latencies))}, 95 % {ms(p95)}, "
          f"max {ms(latencies[-1])}; tmpfs median {ms(statistics.median(controls))}, "
          f"max {ms(max(controls))}", flush=True)
    if latencies[-1] <= LIMIT:
        return True
    for sample, control in zip(samples, controls):
        print(f"  {ms(sample.latency)}, of that ready for a core {ms(sample.stood_ready)}; "
              f"tmpfs {ms(control)}")
    late = [(s, c) for s, c in zip(samples, controls) if s.latency > LIMIT]
    return p95 <= LIMIT and all(s.is_noise(c) for s, c in late)


kinds = {way: lambda way=way: one_process(way) for way in ("flock", "fcntl", "OFD", "write",
                                                          "O_EXCL")}
if shutil.which("unshare"):
    kinds["container's init"] = one_container
else:
    print("SKIP unshare: not installed, no container's init is killed")
    if "unshare" in os.environ.get("LOCKFS_TEST_REQUIRE", "").split():
        sys.exit("FAIL: unshare is required")
slow = [what for what, one in kinds.items() if not measure(what, one)]
if slow:
    sys.exit(f"FAIL: not free within {ms(LIMIT)}: {', '.join(slow)}")
