#!/usr/bin/env python3
"""two_nodes.py LOCKFS [SCENARIO...]: the dlm: backend on two nodes, A (node 1) and B (node 2), in each way that one
of them can leave the other alone. Fencing is off: what a frozen node may do is shown, not prevented."""

import statistics
import sys
import time

from cluster import in_host_root
from lib import check, eventually, mount_dlmfs, run

MODES = ("NL", "CR", "CW", "PR", "PW", "EX")
# A row is what is held, a column what is wanted; from the manual of the DLM.
COMPATIBLE = {
    "NL": "NL CR CW PR PW EX",
    "CR": "NL CR CW PR PW",
    "CW": "NL CR CW",
    "PR": "NL CR PR",
    "PW": "NL CR",
    "EX": "NL",
}
A, B = 1, 2
STAMP = "00112233445566778899aabbccddeeff" * 2


def storm(world, actors_each, rounds):
    """All nodes count in the value block of one lock; also three_nodes.py."""
    mounts = world.mounts()
    keeper = world.actor(mounts[0], "storm")  # a value block lives as long as somebody has the lock, if only in NL
    actors = [world.actor(mount, "storm") for mount in mounts for _ in range(actors_each)]
    keeper.take("NL")
    for actor in actors:
        actor.ready()
    began = time.monotonic()
    for actor in actors:
        actor.tell(f"storm {rounds}")
    grants = []
    for actor in actors:
        node = actor.node.number
        grants += [(*grant, node) for grant in actor.expect("stormed", 240)["grants"]]
    took = time.monotonic() - began
    grants.sort()
    counters, tokens, nodes = zip(*grants)
    total = len(actors) * rounds
    wrong = [counter for at, counter in enumerate(counters, 1) if counter != at]
    check(not wrong, f"{total} grants, each counts on from the one before: {len(set(counters))} counters, first wrong "
                     f"{wrong[:3]}, last {counters[-1]}")
    check(all(before < after for before, after in zip(tokens, tokens[1:])), "tokens rise with the counter")
    check(int.from_bytes(bytes.fromhex(value_of(keeper, "EX")), "little") == total, "the keeper reads the last counter")
    moves = sum(before != after for before, after in zip(nodes, nodes[1:]))
    return f"{total} grants by {len(actors)} processes in {took:.1f} s, {moves} of them to another node; tokens rise"


def value_of(actor, mode):
    actor.take(mode)
    said = actor.ask("value")
    check(said["is"] == "value", f"node {actor.node.number}: the value block can be read: {said}")
    return said["value"]


def exclusion(world):
    return storm(world, 2, 200)


def modes(world):
    a, b = (world.actor(mount, "modes") for mount in world.mounts())
    for held in MODES:
        a.take(held)
        results = b.ask("tries " + " ".join(MODES))["results"]
        for wanted in MODES:
            right = "granted" if wanted in COMPATIBLE[held].split() else "EAGAIN"
            check(results[wanted] == right, f"{wanted} while A holds {held}: {results[wanted]}, not {right}")
        a.release()
    return "36 pairs answer as the DLM's table says"


def hand_over(world):
    a, b = (world.actor(mount, "over") for mount in world.mounts())
    a.tell("serve 7000")
    a.expect("serving")
    b.tell(f"measure 50 10.77.0.{A} 7000")
    said = b.expect("measured", 120)
    micros = sorted(said["micros"])
    return (f"p50 {statistics.median(micros) / 1000:.1f} ms, p90 {micros[44] / 1000:.1f}, max {micros[-1] / 1000:.1f}; "
            f"a round trip of UDP {said['trip'] / 1000:.1f} ms")


def who_holds_it(world):
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "who"), world.actor(on_b, "who")
    a.take('EX note="nightly run"')
    status, text, took = on_b.see("who")
    comm = a.ready()["comm"]  # python3.11 or the like: quoted
    for line in ("host: node1", f"pid: {a.pid}", f'comm: "{comm}"', 'note: "nightly run"', "mode: EX"):
        check(status == 0 and line in text, f"the picture on B has '{line}':\n{text}")
    names = on_b.names()
    check(names == ["who"], f"ls on B lists it: {names}")
    b.tell("write EX")

    began = time.monotonic()
    eventually(lambda: "waiters_total: 1" in on_a.see("who")[1], "the waiter on B is counted on A", 10)
    waited = time.monotonic() - began
    waiter = on_a.see("who")[1].partition("\nwaiters:")[2]
    check("host: node2" in waiter, f"A sees that it is of node 2:\n{waiter}")
    process = "with its pid" if f"pid: {b.pid}\n" in waiter else "but no word of its process"
    a.release()
    b.expect("granted")
    b.release()
    eventually(lambda: on_a.see("who")[0] != 0 and on_b.see("who")[0] != 0, "a free lock has no picture", 15)
    return f"picture on the other node in {took:.2f} s, a waiter of the other node within {waited:.2f} s, {process}"


def waits_end(world):
    on_a, on_b = world.mounts()
    a, timed, killed, interrupted = (world.actor(mount, "waits") for mount in (on_a, on_b, on_b, on_b))
    first = a.take("EX")["token"]
    for mode in ("EX", "PR"):
        _, late = timed.fails(f"write {mode} timeout=300ms", "ETIMEDOUT")
    check(late >= 0.3, "a timeout is no less than it was told")
    for actor in (killed, interrupted):
        actor.tell("write EX")

    def waiting(number):
        return lambda: f"waiters_total: {number}\n" in on_b.see("waits")[1]

    eventually(waiting(2), "two wait on B")
    killed.signal("KILL")
    eventually(waiting(1), "a killed waiter is gone")
    interrupted.signal("INT")
    said = interrupted.expect("refused", 5)
    check(said["errno"] == "EINTR", f"SIGINT ends a wait: {said}")
    eventually(waiting(0), "nobody waits on B")
    a.release()
    began = time.monotonic()
    second = timed.take("EX timeout=5s")["token"]
    took = time.monotonic() - began
    timed.release()
    check(a.take("EX timeout=5s")["token"] > second > first, "tokens rise")
    return f"300ms ended after {late * 1000:.0f} ms; after kill and SIGINT B has it in {took:.2f} s"


def daemon_killed(world):
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "daemon"), world.actor(on_b, "daemon")
    first = a.take("EX")["token"]
    b.tell("write EX")
    eventually(lambda: "waiters_total: 1" in on_b.see("daemon")[1], "B waits")
    began = time.monotonic()
    world[A].sh(f"kill -9 {on_a.daemon()}")
    second = b.expect("granted")["token"]
    took = time.monotonic() - began
    check(took < 2, f"B has it within 2 s, not {took:.1f}")
    on_a.unmount(lazily=True)
    on_a.mount()
    again = world.actor(on_a, "daemon")
    again.fails("write EX try", "EAGAIN")
    b.release()
    third = again.take("EX timeout=10s")["token"]
    check(first < second < third, f"tokens rise: {first} {second} {third}")
    return f"B has it after {took:.2f} s; A mounts and locks again"


def holder_killed(world):
    on_a, on_b = world.mounts()
    b, times = world.actor(on_b, "holder"), []
    for _ in range(3):
        a = world.actor(on_a, "holder")
        a.take("EX")
        b.tell("write EX")
        eventually(lambda: "waiters_total: 1" in on_b.see("holder")[1], "B waits")
        began = time.monotonic()
        a.signal("KILL")
        b.expect("granted")
        times.append(time.monotonic() - began)
        b.release()
    check(max(times) < 1, f"B has it within 1 s: {times}")
    return f"B has it after {max(times):.2f} s at most"


def daemon_stopped(world):
    """A mount that is stopped gives nothing back; what it has not used for ten seconds it has given back before."""
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "idle1"), world.actor(on_b, "idle1")
    b.ready()

    def late(mount, name, count, patience):
        """Takes name1 ... and gives each back: those that could not be had in time."""
        lock = mount.lock(name)
        command = f"for i in $(seq {count}); do flock -w {patience} {lock}$i true || echo {name}$i; done"
        return mount.node.hr(command, 120)[1].split()

    def stop(signal):
        world[A].sh(f"kill -{signal} {on_a.daemon()}")

    first = a.take("EX")["token"]
    a.release()
    check(not late(on_a, "idle", 30, 1), "A has them all")
    eventually(lambda: "gr EX" not in world[A].sh("dlm_tool lockdump lockfs_default")[1], "A gives back all", 30)
    stop("STOP")
    slow = late(on_b, "idle", 30, 1)
    second = b.take("EX timeout=5s")["token"]
    b.release()
    stop("CONT")
    check(not slow, f"B has each within 1 s: {slow}")
    third = a.take("EX timeout=10s")["token"]
    a.release()
    check(first < second < third, f"tokens rise: {first} {second} {third}")

    # Stopped at once it keeps the counter: B's grant waits for its token, and ends in time.
    other = next(f"other{i}" for i in range(10000) if counter_of(f"other{i}") == counter_of("idle1"))
    b = world.actor(on_b, other)
    b.ready()
    a.take("EX")
    stop("STOP")
    b.fails("write EX timeout=500ms", "ETIMEDOUT")
    tried = world[B].hr(f"build/release/bin/plain_dlm lockfs_default {other} EX try </dev/null")
    stop("CONT")
    check(tried[0] == 0, f"what has timed out is not held: {other}: {tried}")
    check(b.take("EX timeout=10s")["token"] > third, "once A runs again B has it, and tokens rise")
    return "30 names, all within 1 s; one whose counter is not given back times out, and is free; tokens rise"


def counter_of(name):
    """Which of the lockspace's counters gives the tokens of a name."""
    hash_ = 14695981039346656037
    for byte in name.encode():
        hash_ = (hash_ ^ byte) * 1099511628211 % 2**64
    return (hash_ ^ hash_ >> 32) % 256


def machine_killed(world):
    """A dies with what it wrote: B is told that the value block is not to be trusted. Then A comes back."""
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "machine"), world.actor(on_b, "machine")
    b.take("EX")
    check(b.ask("set " + "11" * 32)["is"] == "set", "the first value is written")
    b.take("NL")
    first = a.take("EX")["token"]
    check(a.ask("set " + STAMP)["is"] == "set", "the value that gets lost is written")
    b.tell("write EX")
    eventually(lambda: "waiters_total: 1" in on_b.see("machine")[1], "B waits")
    began = time.monotonic()
    world[A].kill()
    second = b.expect("granted")["token"]
    took = time.monotonic() - began
    check(second > first, f"tokens rise: {first} {second}")
    b.fails("value", "ENODATA")
    picture = on_b.see("machine")[1]
    check("value_block: invalid" in picture, f"the picture says that the value block is invalid:\n{picture}")
    check(b.ask("set " + STAMP)["is"] == "set", "it is written anew")
    check(b.ask("value").get("value") == STAMP, "and reads back")
    check("value_block" not in on_b.see("machine")[1], "and is valid")
    rejoined(world, on_b, b, "machine", second)
    return f"B has it {took:.1f} s after the power cut, ENODATA until it writes; A comes back and locks"


def rejoined(world, mount, b, name, token, back=A):
    """Node `back` is started anew, sees what b holds by the other's mount, and takes it in its turn."""
    world[back].restart()
    world.cluster.await_members(A, B)
    fresh = world.mount(back)
    a = world.actor(fresh, name)
    a.fails("write EX try", "EAGAIN")
    check(name in fresh.names(), "the node that came back sees the lock that the other holds")
    check(f"host: node{mount.node.number}" in fresh.see(name)[1], "and who holds it")
    b.release()
    later = a.take("EX timeout=10s")["token"]
    check(later > token, f"tokens rise: {token} {later}")


def machine_killed_before_the_other_read(world):
    """As before, but B had nothing of the lock: what A wrote is lost, and B may not take zeros for it."""
    on_a, on_b = world.mounts()
    a, b = world.actor(on_a, "unread"), world.actor(on_b, "unread")
    first = a.take("EX")["token"]
    check(a.ask("set " + STAMP)["is"] == "set", "the value that gets lost is written")
    b.tell("write EX")
    eventually(lambda: "waiters_total: 1" in on_b.see("unread")[1], "B waits")
    world[A].kill()
    check(b.expect("granted")["token"] > first, "tokens rise")
    said = b.ask("value")
    world[A].restart()
    world.cluster.await_members(A, B)
    check(said.get("errno") == "ENODATA", f"the value is lost, and so it says: {said}")
    return "ENODATA"


def leaves(world, name, first_user):
    """A leaves while B holds a lock. The node that had a lock first is its master: the others' locks are there too."""
    on_a, on_b = world.mounts()
    b = world.actor(on_b, name)
    if first_user == A:
        a = world.actor(on_a, name)
        a.take("EX")
        b.tell("write EX")
        eventually(lambda: "waiters_total: 1" in on_b.see(name)[1], "B waits")
        a.release()
        b.expect("granted")
        a.signal("KILL")
        eventually(lambda: world[A].sh(f"kill -0 {a.pid}")[0] != 0, "A's process ends")
    else:
        b.take("EX")
    check("lockfs_default" in world.lockspaces(A), "A is in the lockspace")
    began = time.monotonic()
    on_a.unmount()
    eventually(lambda: "lockfs_default" not in world.lockspaces(A), "A has left the lockspace", 15)
    took = time.monotonic() - began
    b.release()
    token = b.take("EX timeout=5s")["token"]
    on_a.mount()
    a = world.actor(on_a, name)
    a.fails("write EX try", "EAGAIN")
    b.release()
    check(a.take("EX timeout=10s")["token"] > token, "tokens rise")
    b.fails("write EX try", "EAGAIN")
    return f"A is out {took:.2f} s after umount; B goes on; A comes again"


def node_leaves(world):
    return leaves(world, "leave", B)


def master_leaves(world):
    return leaves(world, "master", A)


def lockspaces(world):
    mounts = on_a, on_b = world.mounts()
    for mount in mounts:
        status, words = mount.node.hr(f"mkdir {mount.point}/extra")
        check(status == 0, f"mkdir on node {mount.node.number}: {words}")
    a, b = world.actor(on_a, "x", "extra"), world.actor(on_b, "x", "extra")
    a.take("EX")
    b.fails("write EX try", "EAGAIN")
    remove = f"rmdir {on_a.point}/extra"
    status, words = world[A].hr(remove)
    check(status != 0 and "busy" in words, f"rmdir with a held lock inside is EBUSY: {status} {words}")
    check("lockfs_extra" in world.lockspaces(A), "the lockspace is there")
    a.release()
    b.take("EX timeout=5s")
    b.release()
    for actor in (a, b):
        actor.signal("KILL")
    for mount in mounts:
        number, removed = mount.node.number, f"rmdir {mount.point}/extra"
        eventually(lambda m=mount, c=removed: m.node.hr(c)[0] == 0, f"node {number} removes it after the release", 10)
        eventually(lambda n=number: "lockfs_extra" not in world.lockspaces(n), f"node {number} has left it", 10)
    return "EBUSY while it is used; gone from dlm_tool ls after rmdir"


def controld_killed(world):
    """A's lockspaces stop, B takes over: A's holder must know first."""
    on_a, on_b = world.mounts()
    a, other = world.actor(on_a, "controld"), world.actor(on_a, "other")
    b, witness = world.actor(on_b, "controld"), world.actor(on_b, "witness")
    other.ready()
    first = a.take("EX")["token"]
    b.tell("write EX")
    eventually(lambda: "waiters_total: 1" in on_b.see("controld")[1], "B waits")
    witness.tell("listen 7001")  # A's word reaches it in 0.2 ms: both times are of B's clock then
    witness.expect("listening")
    a.tell(f"report 10.77.0.{B} 7001")
    a.expect("reporting")
    began = time.monotonic()
    killed = world[A].send("killall -9 dlm_controld")
    granted = b.expect("granted")
    took = time.monotonic() - began
    world[A].result(killed)
    a.expect("lost", 20)
    ahead = granted["at"] - witness.expect("heard", 5)["at"]
    check(granted["token"] > first, "tokens rise")
    a.fails("write EX try", "ESTALE")
    late = max(other.fails(f"write EX {how}", "EHOSTUNREACH")[1] for how in ("try", "timeout=10s"))
    _, _, seen = on_a.see("controld")
    check(seen < 3, f"a reader on A gets an answer, after {seen:.1f} s")
    rejoined(world, on_b, b, "controld", granted["token"])
    # Without fencing nobody can promise that A is told first; with it, B waits until A is off.
    order = f"{ahead * 1000:.0f} ms before" if ahead > 0 else f"{-ahead * 1000:.0f} ms after"
    return (f"B has it after {took:.2f} s, A is told {order}; requests on A fail within {late:.2f} s; after a restart "
            "A locks again")


def frozen(world, cold, other):
    """Nothing can be told to a frozen machine: without fencing two hold until it runs again, and tokens decide. Of two
    halves nobody can say which is right, so all are told; which of them dlm_controld ends is by chance."""
    mounts = dict(zip((A, B), world.mounts()))
    name = f"frozen{cold}"
    a, b = world.actor(mounts[cold], name), world.actor(mounts[other], name)
    first = a.take("EX")["token"]
    b.tell("write EX")
    eventually(lambda: "waiters_total: 1" in mounts[other].see(name)[1], "the other node waits")
    began = time.monotonic()
    world[cold].freeze()
    second = b.expect("granted")["token"]
    took = time.monotonic() - began
    check(second > first, f"tokens rise: {first} {second}")
    world[cold].thaw()
    thawed = time.monotonic()
    said = a.hear(20)
    told = time.monotonic() - thawed
    check(said and said["is"] == "lost", f"the holder that was frozen is told: {said}")
    b.expect("lost", 20)
    for holder in (a, b):
        holder.fails("write EX try", "ESTALE")
    world.reboot()
    # Tokens begin anew here: these machines have no disk to keep corosync's sequence number on.
    world.actor(world.mount(other, "-after"), name).take("EX")
    return f"the other has it {took:.1f} s after the freeze; both are told, {told:.2f} s after the thaw"


def machine_frozen(world):
    return frozen(world, B, A)


def machine_of_the_lower_number_frozen(world):
    """Of two halves that meet again with locks, dlm_controld lets the lower number live."""
    return frozen(world, A, B)


def figures(world):
    """The hand-over beside dlmfs and a plain program of libdlm, in one run; printed, not judged."""
    bench = "build/release/bin/dlm_bench turns"
    mounts = world.mounts()
    for node in A, B:
        mount_dlmfs(world[node])
    words = []
    for way in "raw bench_turns", f"mount {mounts[0].lock('turns')}", "dlmfs /tmp/dlmfs/dom/turns":
        both = [world[node].send(in_host_root(f"timeout 60 {bench} {way} 200")) for node in (A, B)]
        for node, number in zip((A, B), both):
            status, text = world[node].result(number, 90)
            check(status == 0, f"{way}: {status} {text}")
        words.append(text.strip())
    return "; ".join(words)


SCENARIOS = (
    exclusion, modes, hand_over, figures, who_holds_it, waits_end, daemon_killed, daemon_stopped, holder_killed,
    machine_killed, machine_killed_before_the_other_read, node_leaves, master_leaves, lockspaces, controld_killed,
    machine_frozen, machine_of_the_lower_number_frozen,
)

if __name__ == "__main__":
    sys.exit(run(SCENARIOS, nodes=2, token=1000))
