# SPDX-License-Identifier: MIT
"""What lockfs says when it does not start: options, the config file, backends, `lockfs serve`."""

import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys

import page
from mounts import LOCKFS, Mount
from section import Section, places

MODULES = os.path.join(os.path.dirname(os.path.dirname(LOCKFS)), "lib/lockfs")

OPTIONS = [
    [], ["memory:", "/mnt", "more"], ["--bogus", "/mnt"], ["/mnt", "-o"],
    ["-o", "capacity", "/mnt"], ["-o", "capacity=many", "/mnt"], ["-o", "root_mode=999", "/mnt"],
    ["-o", "log_level=loud", "/mnt"], ["-o", "poll=5ms", "/mnt"],
    ["-o", "config=/does/not/exist", "/mnt"], ["-o", "config=", "/mnt"],
    ["--config=", "memory:", "/mnt"], ["/does/not/exist"],
]

CONFIG = [
    "bogus = 1", "capacity = 1.5", "capacity = ", "\n\ncapacity = \"x\"", "lockspace = 1",
    "lockspace.a = 1", "[lockspace.\"a/b\"]", "[lockspace.a]\nbackend = 1",
    "[lockspace.a]\nbackend = \"disk:\"", "[lockspace.a]\nmode = 770",
    "[lockspace.a]\nmode = \"9\"", "[lockspace.a]\ncapacity = \"5\"",
    "[lockspace.a]\ncapacity = 0", "[lockspace.a]\nsize = 5",
]

BUILT_IN = [
    "memory", "disk:", "memory:x", "file:relative", "file:/tmp?write", "file:/tmp?locks=64",
    "shm:", "shm:a/b", "shm:a?locks=100", "shm:a?layout=libpod,locks=64", "shm:a?colour=red",
]

# Of each module: URLs that are wrong.
SERVERS = {
    "redis": ["redis:host", "redis://", "redis://host:port", "redis://[::1", "redis://[::1]6379",
              "redis://host/first", "redis://host?lease=1h", "redis://host?lease=soon",
              "redis://host?db=x", "redis://host?layout=other", "redis://host?colour=red",
              "redis://user@host", "redis://host?password-file=/does/not/exist",
              "rediss://host?verify=maybe", "redis+unix://run/redis.sock"],
    "etcd": ["etcd:host", "etcd://", "etcd://a,b:x", "etcd://host?lease=1s",
             "etcd://host?lease=1500ms", "etcd://host?colour=red", "etcd://user@host",
             "etcds://host?ca=/does/not/exist", "etcd://host?password-file=/does/not/exist"],
    "ldlm": ["ldlm:host", "ldlm://", "ldlm://host/0", "ldlm://user:secret@host",
             "ldlm://host?lease=1h", "ldlm://host?colour=red", "ldlms://host?ca=/does/not/exist",
             "ldlms://host?cert=/dev/null", "ldlm://:%C3%A4@host"],
    "dlm": ["dlm:name", "dlm:?colour=red"],
    "elock": ["elock:host", "elock://host:0", "elock://host?timeout=1s", "elock://host?clients=5"],
}

SERVE = [[], ["redis://host"], ["elock:"], ["elock://:0"], ["elock://?clients=0"],
         ["elock://?line=5"], ["elock://?locks=0"], ["elock://?idle=soon"], ["elock://?timeout=5s"]]


def run(section, arguments, done=None, program=LOCKFS):
    """lockfs is run, and is to end by itself."""
    ran = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=60)
    words = " ".join("''" if not each else each for each in arguments)
    section.entry(done or f"lockfs {words}", f"exit {ran.returncode}", ran.stdout.strip())


def options(scratch):
    section = Section("Options", "The exit code is 2 where a word of the command is wrong, 1 where "
                      "it could not be done.")
    for arguments in OPTIONS:
        run(section, arguments)
    directory = scratch + "/mnt"
    os.mkdir(directory)
    run(section, ["-f", "-o", "colour=red", directory])
    open(scratch + "/plain", "w").close()
    run(section, ["-f", scratch + "/plain"])
    taken_places(section, directory)
    section = Section("The config file", "By `lockfs --config FILE --check-config`.")
    file = scratch + "/lockfs.toml"
    for text in CONFIG:
        with open(file, "w") as config:
            config.write(text)
        run(section, ["--config", file, "--check-config"], text.replace("\n", "\\n"))


def taken_places(section, directory):
    mount = Mount()
    places[mount.path] = "/mnt/locks"
    run(section, ["-f", mount.path])
    mount.end()
    with turn_at(directory):
        run(section, ["-f", directory], f"lockfs -f {directory}, twice at once")


def turn_at(directory):
    """As another lockfs has it that is mounting there (fs/mount_point.cc); until it is closed."""
    os.makedirs("/run/lockfs", 0o700, exist_ok=True)
    turns = open("/run/lockfs/turns", "a+b")
    place = os.stat(directory)
    byte = (place.st_ino ^ place.st_dev << 32) & ((1 << 62) - 1)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(turns, fcntl.F_OFD_SETLK, lock)
    return turns


def urls(scratch):
    section = Section("Backends", "")
    section.prose = "A SOURCE that is none, or is not there."
    for url in BUILT_IN:
        run(section, [url, "/mnt"])
    directory = scratch + "/mnt"
    run(section, ["-f", "file:/does/not/exist", directory])
    run(section, ["-f", f"file:{scratch}/plain", directory])
    run(section, ["-f", "shm:/lockfs-none?layout=libpod", directory])
    run(section, ["-f", "file:/does/not/exist?layout=libpod", directory])
    for module, wrong in SERVERS.items():
        section = Section(f"Backends: {module}:", f"Wrong URLs of `{module}:`.")
        if not os.path.exists(f"{MODULES}/{module}.so"):
            missing(section, module)
            continue
        for url in wrong:
            run(section, ["--check-config", url, "/mnt"], f"lockfs {url} /mnt")


def missing(section, module):
    why = "this build has no such module: its part of the page is taken as it was kept"
    if module in os.environ.get("LOCKFS_TEST_REQUIRE", "").split():
        sys.exit(f"FAIL: {module} is required, but: {why}")
    print(f"SKIP {module}: {why}")
    section.missing = module


def modules(scratch):
    section = Section("Backends: modules", "A lockfs elsewhere, whose modules are not as they "
                      "should be.")
    places[scratch + "/usr"] = "/usr"
    os.makedirs(scratch + "/usr/bin")
    os.makedirs(scratch + "/usr/lib/lockfs")
    program = shutil.copy(LOCKFS, scratch + "/usr/bin/lockfs")
    url = "redis://host"
    run(section, ["--check-config", url, "/mnt"], f"lockfs {url} /mnt", program)
    file = scratch + "/usr/lib/lockfs/redis.so"
    open(file, "w").close()
    run(section, ["--check-config", url, "/mnt"], "the same, redis.so is empty", program)
    libc = next(line.split()[-1] for line in open("/proc/self/maps") if "/libc.so" in line)
    shutil.copy(libc, file)
    run(section, ["--check-config", url, "/mnt"], "the same, redis.so is another library", program)
    os.chmod(file, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    run(section, ["--check-config", url, "/mnt"], "the same, anybody may write redis.so", program)


def serve():
    section = Section("lockfs serve", "")
    section.prose = "The server of `elock://`."
    if not os.path.exists(f"{MODULES}/elock.so"):
        return missing(section, "elock")
    for arguments in SERVE:
        run(section, ["serve", *arguments])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"elock://127.0.0.1:{taken.getsockname()[1]}"
        places[url] = "elock://127.0.0.1:11400"
        places[url[8:]] = "127.0.0.1:11400"
        run(section, ["serve", url])
    return None


def sections(scratch):
    options(scratch)
    urls(scratch)
    modules(scratch)
    serve()
