import fcntl, subprocess

with open("/mnt/locks/default/backup", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    subprocess.run("./backup.sh", check=True)
