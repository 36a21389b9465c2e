"""SIGSTOP and SIGCONT of holders and waiters: a stopped holder keeps its lock, a stopped waiter
gets it once it runs again, and in its old place if that is soon."""

import os
import signal

from world import (WAYS, Child, check, errno_of, eventually, holder, is_free, libc, open_lock,
                   path, state, try_ex, value, wait_until, waiter, waiters)


def stop(child):
    child.kill(signal.SIGSTOP)
    wait_until(lambda: state(child.pid) == "T", "it is stopped")


def a_stopped_holder_keeps_it():
    for way in [*WAYS, "O_EXCL"]:
        first = holder("h", way)
        stop(first)
        check(not any(try_ex("h") for _ in range(100)), f"{way}: a stopped holder keeps it")
        check(value("h", "mode") == "EX", f"{way}: the picture says so")
        first.kill(signal.SIGCONT)
        wait_until(lambda: state(first.pid) == "S", "it runs again")
        check(not try_ex("h"), f"{way}: after SIGCONT too")
        stop(first)
        first.end()
        eventually(lambda: is_free("h"), f"{way}: kill -9 of the stopped holder frees it")


def a_stopped_waiter_gets_it_later():
    for way in WAYS:
        first = holder("w")
        stopped = waiter("w", way)
        stop(stopped)
        first.end()
        eventually(lambda: try_ex("w"), f"{way}: others get it past a stopped waiter")
        stopped.kill(signal.SIGCONT)
        check(stopped.hears() != "", f"{way}: after SIGCONT it gets it")
        check(value("w", "mode") == "EX", f"{way}: and holds it")
        stopped.end()
        eventually(lambda: is_free("w"), f"{way}: free")


def its_place_is_kept():
    for way in WAYS:
        first = holder("p")
        stopped, behind = waiter("p", way), waiter("p", way)
        stop(stopped)
        stopped.kill(signal.SIGCONT)
        wait_until(lambda: state(stopped.pid) != "T" and waiters("p") == 2, "it waits again")
        first.end()
        check(stopped.hears() != "", f"{way}: stopped and continued, it is still the first")
        check(waiters("p") == 1, f"{way}: the one behind it waits on")
        stopped.end()
        check(behind.hears() != "", f"{way}: and has its turn")
        behind.end()
        eventually(lambda: is_free("p"), f"{way}: free")


def a_stopped_waiter_dies():
    for way in WAYS:
        first = holder("d")
        stopped = waiter("d", way)
        stop(stopped)
        stopped.end()
        eventually(lambda: waiters("d") == 0, f"{way}: a stopped waiter that is killed is gone")
        first.end()
        eventually(lambda: is_free("d"), f"{way}: free")


def a_plain_write_is_told():
    """Python's os.write starts anew after EINTR; write(2) itself says it."""

    def body(say):
        fd = open_lock("e")
        say("open")
        result = libc.write(fd, b"EX", 2)
        say(f"{result} {libc_errno()}")

    first = holder("e")
    waiting = Child(body)
    waiting.hears()
    wait_until(lambda: waiters("e") == 1, "it waits")
    stop(waiting)
    waiting.kill(signal.SIGCONT)
    check(waiting.hears() == "-1 4", "write(2) says EINTR after SIGCONT")
    waiting.wait()
    first.end()
    eventually(lambda: is_free("e"), "free")


def libc_errno():
    import ctypes

    return ctypes.get_errno()


a_stopped_holder_keeps_it()
a_stopped_waiter_gets_it_later()
its_place_is_kept()
a_stopped_waiter_dies()
a_plain_write_is_told()
