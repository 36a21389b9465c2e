// Measures podman's own lock managers, from podman's sources: libpod_bench DIR [CYCLES]
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/containers/podman/v4/libpod/lock/file"
	"github.com/containers/podman/v4/libpod/lock/shm"
)

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "libpod_bench:", err)
		os.Exit(1)
	}
}

// Microseconds that a lock and its unlock take.
func cycle(cycles int, lock, unlock func(uint32) error, id uint32) float64 {
	begin := time.Now()
	for i := 0; i < cycles; i++ {
		die(lock(id))
		die(unlock(id))
	}
	return float64(time.Since(begin).Nanoseconds()) / 1000 / float64(cycles)
}

func main() {
	cycles := 20000
	if len(os.Args) > 2 {
		cycles, _ = strconv.Atoi(os.Args[2])
	}
	name := "/lockfs-bench-libpod-" + strconv.Itoa(os.Getpid())
	segment, err := shm.CreateSHMLock(name, 64)
	die(err)
	defer syscall.Unlink("/dev/shm" + name)
	one, err := segment.AllocateSemaphore()
	die(err)
	files, err := file.CreateFileLock(os.Args[1] + "/libpod")
	die(err)
	two, err := files.AllocateLock()
	die(err)
	fmt.Printf("podman's managers, from Go: shm %.3f, file %.3f\n",
		cycle(cycles, segment.LockSemaphore, segment.UnlockSemaphore, one),
		cycle(cycles, files.LockFileLock, files.UnlockFileLock, two))
}
