// podman's lock manager over a mount, and what it must do there, in the spirit of podman's own tests.
//
//	libpod check DIR OTHER     the semantics; OTHER is DIR as other processes see it
//	libpod prepare DIR         leaves numbers behind for the next two
//	libpod recall DIR          after a restart: the backend remembers
//	libpod refresh DIR         after a restart: the backend forgot; podman allocates its IDs anew
//
// The rest are the other processes of check: they work on stdin, stdout, and end with their stdin.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	capacity = 128
	limit    = 20 * time.Second // That a condition is waited for; none should need one.
)

// failure is what a check panics with.
type failure string

func expect(condition bool, format string, arguments ...any) {
	if !condition {
		panic(failure(fmt.Sprintf(format, arguments...)))
	}
}

func must(err error) {
	if err != nil {
		panic(failure(err.Error()))
	}
}

func eventually(what string, condition func() bool) {
	for end := time.Now().Add(limit); !condition(); time.Sleep(time.Millisecond) {
		expect(time.Now().Before(end), "%s: not within %s", what, limit)
	}
}

// passes runs one check and says how it went.
func passes(name string, run func()) (passed bool) {
	defer func() {
		if wrong := recover(); wrong != nil {
			fmt.Printf("FAIL: %s: %v\n", name, wrong)
			return
		}
		fmt.Println("ok:", name)
		passed = true
	}()
	run()
	return
}

func number(word string) uint32 {
	n, err := strconv.ParseUint(word, 10, 32)
	must(err)
	return uint32(n)
}

// other is the life of another process: it says what it did, a line each.
func other(space *lockspace, command string, arguments []string) {
	stdin := bufio.NewReader(os.Stdin)
	switch command {
	case "lock":
		l, err := space.RetrieveLock(number(arguments[0]))
		must(err)
		l.Lock()
		fmt.Println("held")
		stdin.ReadString('\n')
		l.Unlock()
		fmt.Println("released")
	case "allocate":
		for i := uint32(0); i < number(arguments[0]); i++ {
			l, err := space.AllocateLock()
			must(err)
			fmt.Println(l.ID())
		}
	case "count":
		must(count(space, number(arguments[0]), number(arguments[1]), arguments[2]))
		fmt.Println("done")
	default:
		expect(false, "no command %q", command)
	}
	stdin.ReadString('\n')
}

// count adds n to the number in a file, one by one, which only the lock makes safe.
func count(space *lockspace, id, n uint32, path string) error {
	l, err := space.RetrieveLock(id)
	for i := uint32(0); i < n && err == nil; i++ {
		l.Lock()
		var sum int
		if text, wrong := os.ReadFile(path); wrong == nil {
			sum, err = strconv.Atoi(string(text))
		}
		if err == nil {
			err = os.WriteFile(path, []byte(strconv.Itoa(sum+1)), 0o600)
		}
		l.Unlock()
	}
	return err
}

func main() {
	command, dir := os.Args[1], os.Args[2]
	passed := true
	switch command {
	case "check":
		passed = check(dir, os.Args[3])
	case "prepare":
		passed = passes("numbers are left behind", func() { prepare(dir) })
	case "recall":
		passed = recall(dir)
	case "refresh":
		passed = passes("podman allocates its numbers anew", func() { refresh(dir) })
	default:
		space, err := openLockspace(dir, capacity)
		must(err)
		other(space, command, os.Args[3:])
	}
	if !passed {
		os.Exit(1)
	}
}
