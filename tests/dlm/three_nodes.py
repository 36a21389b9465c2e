#!/usr/bin/env python3
"""three_nodes.py LOCKFS [SCENARIO...]: the dlm: backend on three nodes, of which two are a quorum. Lockspaces need a
quorum (enable_quorum_lockspace), fencing is off."""

import sys
import time

from lib import check, eventually, run
from two_nodes import storm

UNREACHED = ("EHOSTUNREACH", "EAGAIN")
ENDED = ("ETIMEDOUT", "EHOSTUNREACH")
TOKENS = []  # of the lock "always", over all scenarios


def stamp(world, *mounts):
    """Each mount has the lock `always` once more."""
    for mount in mounts:
        actor = world.actor(mount, "always")
        TOKENS.append((actor.take("EX timeout=20s")["token"], mount.node.number, world.scenario))
        actor.signal("KILL")


def exclusion(world):
    words = storm(world, 2, 150)
    stamp(world, *world.mounts_made())
    return words


def without_quorum(world, mount, actor, other):
    """What a mount without quorum says to new requests; in words."""
    try_error, try_took = actor.fails("write EX try", *UNREACHED)
    other_error, _ = other.fails("write EX try", *UNREACHED)
    wait_error, wait_took = actor.fails("write EX timeout=1s", *ENDED, within=3)
    _, _, took = mount.see("another")
    check(took < 2, f"a reader without quorum gets an answer within 2 s, not {took:.1f}")
    return (f"try says {try_error} in {try_took:.2f} s, of a held lock {other_error}; a wait of 1 s says {wait_error} "
            f"in {wait_took:.2f} s; a reader has an answer in {took:.2f} s")


def minority_cut_off(world):
    """Node 3 loses the network: 1 and 2 go on with what it held, and it knows."""
    mounts = world.mounts()
    stamp(world, *mounts)
    h1, h3 = world.actor(mounts[0], "L1"), world.actor(mounts[2], "L3")
    w2, try2 = world.actor(mounts[1], "L3"), world.actor(mounts[1], "L1")
    new3, held3 = world.actor(mounts[2], "new"), world.actor(mounts[2], "L1")
    h1.take("EX")
    first = h3.take("EX")["token"]
    for actor in (try2, new3, held3):
        actor.ready()
    w2.tell("write EX")
    eventually(lambda: "waiters_total: 1" in mounts[1].see("L3")[1], "node 2 waits for L3")
    world[3].cut()
    lost, granted = world.first_of([h3, w2], 30)
    check(granted and granted[1]["is"] == "granted", f"node 2 gets what node 3 held: {granted}")
    check(granted[1]["token"] > first, "tokens rise")
    eventually(lambda: not world[3].quorate(), "node 3 has no quorum")
    minority = without_quorum(world, mounts[2], new3, held3)
    try2.fails("write EX try", "EAGAIN")
    check("host: node2" in mounts[0].see("L3")[1], "node 1 sees that node 2 has L3")
    stamp(world, mounts[0], mounts[1])
    healed = time.monotonic()
    world[3].heal()
    eventually(lambda: world[3].sh("pidof dlm_controld")[0] != 0,
               "the cluster ends dlm_controld of node 3 when it is back on the network", 30)
    ended = time.monotonic() - healed
    check(h1.hear(1) is None and w2.hear(1) is None, "the majority loses nothing when node 3 is back on the network")
    world[3].restart()
    world.cluster.await_members(1, 2, 3)
    again = world.mount(3)
    back = world.actor(again, "L3")
    back.fails("write EX try", "EAGAIN")
    w2.release()
    check(back.take("EX timeout=10s")["token"] > granted[1]["token"], "tokens rise")
    stamp(world, again, mounts[0])
    # THE ONE ASSERTION that needs the loss of locks on loss of quorum in the binary.
    check(lost and lost[1]["is"] == "lost", f"the holder on node 3 is told that its lock is lost; else: {minority}")
    return (f"node 3's holder is told after {lost[0]:.2f} s, node 2 has its lock after {granted[0]:.2f} s; node 3: "
            f"{minority}; healed, its dlm_controld ends in {ended:.1f} s")


def quorum_lost(world):
    """Nodes 2 and 3 lose power. Node 1 waits for them, and grants again when they are back."""
    mounts = world.mounts()
    stamp(world, *mounts)
    held, new, waits = (world.actor(mounts[0], name) for name in ("held", "new", "waits"))
    again = world.actor(mounts[0], "held")
    before = held.take("EX")["token"]
    for actor in (new, waits, again):
        actor.ready()
    for number in (2, 3):
        world[number].kill()
    eventually(lambda: not world[1].quorate(), "node 1 has no quorum")
    words = without_quorum(world, mounts[0], new, again)
    status, said = world[1].hr(f"mkdir -p /tmp/m-late; timeout 20 {world.binary} dlm: /tmp/m-late")
    check(status == 1 and "no quorum" in said, f"a mount says what is missing: {status} {said}")
    waits.tell("write EX")
    pending = waits.hear(1)
    check(pending is None or pending["is"] == "refused", f"nothing is granted without quorum: {pending}")
    began = time.monotonic()
    for number in (2, 3):
        world[number].start()
    for number in (2, 3):
        world[number].await_ready()
    world.cluster.await_members(1, 2, 3)
    up = time.monotonic() - began
    later = pending or waits.expect("granted", 20)
    new.take("EX timeout=20s")
    took = time.monotonic() - began
    lost = held.hear(0.5)
    if not lost:
        held.release()
    check(again.take("EX timeout=10s")["token"] > before, "tokens rise")
    stamp(world, mounts[0], world.mount(2), world.mount(3))
    return (f"{words}; the holder was told: {lost and lost['is']}; a wait without timeout: {later['is']} "
            f"{later.get('errno', '')}; 2 and 3 are back after {up:.1f} s, node 1 grants after {took:.1f} s")


def tokens(world):
    """Of one lock, over all that happened before."""
    stamp(world, *world.mounts())
    numbers = [token for token, _, _ in TOKENS]
    wrong = [(before, after) for before, after in zip(TOKENS, TOKENS[1:]) if before[0] >= after[0]]
    check(not wrong, f"tokens of one lock rise, but: {wrong}")
    return f"{len(numbers)} grants of one lock on {len({node for _, node, _ in TOKENS})} nodes: rising"


SCENARIOS = (exclusion, minority_cut_off, quorum_lost, tokens)

if __name__ == "__main__":
    sys.exit(run(SCENARIOS, nodes=3, token=1000, fence="quorum"))
