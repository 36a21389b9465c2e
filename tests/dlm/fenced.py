#!/usr/bin/env python3
"""fenced.py LOCKFS [SCENARIO...]: two nodes with fencing, and no agent that could do it: an operator has to say that a
node is off before the other one may have what it held."""

import sys
import time

from lib import check, eventually, run

A, B = 1, 2


def nothing_is_granted_before_the_fence(world):
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "fenced"), world.actor(on_b, "fenced")
    tries = world.actor(on_b, "other")
    first = a.take("EX")["token"]
    b.tell("write EX")
    tries.ready()
    eventually(lambda: "waiters_total: 1" in on_b.see("fenced")[1], "B waits")
    world[A].kill()
    eventually(lambda: world[B].members() == {B}, "B sees that A is gone")
    said = b.hear(5)
    check(said is None, f"A may still be running somewhere, but B was told: {said}")
    late = tries.fails("write EX try", "EHOSTUNREACH", "EAGAIN", within=3.0)
    began = time.monotonic()
    check(world[B].sh(f"dlm_tool fence_ack {A}")[0] == 0, "fence_ack")
    second = b.expect("granted", 30)["token"]
    took = time.monotonic() - began
    check(second > first, f"tokens rise: {first} {second}")
    return f"nothing for 5 s, try says {late[0]} after {late[1]:.1f} s; granted {took:.1f} s after fence_ack"


if __name__ == "__main__":
    sys.exit(run((nothing_is_granted_before_the_fence,), nodes=2, token=1000, fence="none"))
