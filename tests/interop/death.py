"""Processes die in every way: their locks are free, their places in queues are gone, and what
others share with them stays. with-mount runs it."""

import array
import os
import signal
import socket
import subprocess
import threading

from world import (WAYS, Child, check, eventually, holder, is_free, open_lock, path, take, try_ex,
                   value, waiter, waiters)


def holders_die():
    for way in [*WAYS, "O_EXCL"]:
        victim = holder("h", way)
        next_one = waiter("h", "write")
        check(value("h", "mode") == "EX", f"{way}: it is held and somebody waits")
        victim.end()
        check(next_one.hears() != "", f"{way}: kill -9 of the holder, the next has it")
        next_one.end()
        eventually(lambda: is_free("h"), f"{way}: and its death frees it")


def waiters_die():
    for way in WAYS:
        first = holder("w")
        victim, next_one = waiter("w", way), waiter("w", way)
        victim.end()
        eventually(lambda: waiters("w") == 1, f"{way}: a killed waiter leaves the queue")
        check(value("w", "mode") == "EX", f"{way}: the holder keeps it")
        first.end()
        check(next_one.hears() != "", f"{way}: the next in the queue has its turn")
        next_one.end()
        eventually(lambda: is_free("w"), f"{way}: nobody holds it for the dead")


def a_crowd_of_waiters_dies():
    first = holder("crowd")
    crowd = [waiter("crowd", way) for way in list(WAYS) * 5]
    for victim in crowd[:-1]:
        victim.kill()
    for victim in crowd[:-1]:
        victim.wait()
    eventually(lambda: waiters("crowd") == 1, "19 of 20 waiters are killed at once")
    first.end()
    check(crowd[-1].hears() != "", "the last one has it")
    crowd[-1].end()
    eventually(lambda: is_free("crowd"), "free")


def threads_die():
    """A process of many threads: one holds, others wait, one kill ends all."""

    def body(say):
        held = take("t", "flock")
        for way in WAYS:
            threading.Thread(target=take, args=("t", way), daemon=True).start()
        say("held")
        signal.pause()
        os.close(held)

    victim = Child(body)
    victim.hears()
    eventually(lambda: waiters("t") == len(WAYS), "four threads wait for what a fifth holds")
    victim.end()
    eventually(lambda: is_free("t"), "kill -9 of them all frees it")


def a_shell_dies_before_its_child():
    shell = subprocess.Popen(
        ["bash", "-c", 'exec 9<>"$0"; echo EX >&9; sleep 1000 & echo $!; wait', path("s")],
        stdout=subprocess.PIPE, text=True)
    child = int(shell.stdout.readline())
    try:
        shell.kill()
        shell.wait()
        check(not try_ex("s"), "the shell is dead; its child has the descriptor and the lock")
        with open(path("s")) as picture:
            check("exited: true" in picture.read(), "the picture says that the holder has exited")
    finally:
        os.kill(child, signal.SIGKILL)
    eventually(lambda: is_free("s"), "the child's death frees it")


def a_descriptor_is_passed():
    """SCM_RIGHTS: the lock belongs to the description, whoever has a descriptor of it."""
    for way in ("write", "flock", "OFD", "O_EXCL"):
        left, right = socket.socketpair()

        def send(say, way=way, left=left):
            fd = take("p", way)
            left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            say("sent")
            signal.pause()

        def receive(say, right=right, left=left):
            left.close()
            _, ancillary, _, _ = right.recvmsg(1, socket.CMSG_SPACE(4))
            fd = array.array("i", ancillary[0][2])[0]
            say("received")
            while fd >= 0:
                signal.pause()

        sender = Child(send)
        sender.hears()
        sender.end()
        check(not try_ex("p"), f"{way}: the sender is dead, the descriptor is under way")
        receiver = Child(receive)
        left.close()
        right.close()
        check(receiver.hears() == "received" and not try_ex("p"), f"{way}: the receiver has it")
        receiver.end()
        eventually(lambda: is_free("p"), f"{way}: and frees it by its death")


def a_descriptor_nobody_received():
    left, right = socket.socketpair()
    fd = take("q", "write")
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)
    check(not try_ex("q"), "in the socket's queue a descriptor keeps its lock")
    left.close()
    right.close()
    eventually(lambda: is_free("q"), "the socket's end frees it")


def fork_exec_dup():
    def body(say):
        fd = take("f", "flock")
        os.set_inheritable(fd, True)
        say("held")
        os.execvp("sleep", ["sleep", "1000"])

    program = Child(body)
    program.hears()
    eventually(lambda: open(f"/proc/{program.pid}/comm").read() == "sleep\n", "exec")
    check(not try_ex("f"), "an inherited descriptor keeps the lock over exec")
    program.end()
    eventually(lambda: is_free("f"), "its death frees it")

    def closing(say, name):
        fd = take(name, "flock")
        say(fd)
        os.execvp("sleep", ["sleep", "1000"])

    # Many, for the mount once hung when it looked at a process in exec (core/processes.h).
    programs = []
    for number in range(100):
        name = f"exec-{number}"
        programs.append((name, Child(lambda say, name=name: closing(say, name))))
    for name, program in programs:
        check(program.hears() != "", f"{name} is taken")
    for name, program in programs:
        eventually(lambda name=name: is_free(name), f"{name}: exec closes what is close-on-exec")
        program.end()

    fd = take("f", "write")
    copy, third = os.dup(fd), os.dup2(fd, 99)
    os.close(fd)
    os.close(copy)
    check(not try_ex("f"), "dup: the last of three keeps it")
    os.close(third)
    check(is_free("f"), "and frees it")

    fd = open_lock("f")

    def share(say):
        os.write(fd, b"EX")
        say("held")

    child = Child(share)
    child.hears()
    child.wait()
    check(value("f", "mode") == "EX", "taken by a forked child that ended: the parent holds it")
    os.close(fd)
    check(is_free("f"), "until it closes")


holders_die()
waiters_die()
a_crowd_of_waiters_dies()
threads_die()
a_shell_dies_before_its_child()
a_descriptor_is_passed()
a_descriptor_nobody_received()
fork_exec_dup()
