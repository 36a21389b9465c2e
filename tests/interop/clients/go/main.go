// A client of exclusion.sh: O_EXCL, syscall.Flock, fcntl with POSIX and OFD locks, mode strings.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"
)

const (
	ofdSetlk  = 37
	ofdSetlkw = 38
)

func take(method, path string) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE
	if method == "excl" {
		flags |= os.O_EXCL
	}
	file, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return nil, err
	}
	whole := syscall.Flock_t{Type: syscall.F_WRLCK}
	fd := int(file.Fd())
	switch method {
	case "excl":
	case "flock":
		err = syscall.Flock(fd, syscall.LOCK_EX)
	case "flock-nb":
		err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	case "flock-shared":
		err = syscall.Flock(fd, syscall.LOCK_SH)
	case "fcntl":
		err = syscall.FcntlFlock(file.Fd(), syscall.F_SETLKW, &whole)
	case "fcntl-nb":
		err = syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &whole)
	case "ofd":
		err = syscall.FcntlFlock(file.Fd(), ofdSetlkw, &whole)
	case "ofd-nb":
		err = syscall.FcntlFlock(file.Fd(), ofdSetlk, &whole)
	case "mode":
		_, err = file.WriteString("EX")
	default:
		err = fmt.Errorf("no method %q", method)
	}
	return file, err
}

func main() {
	file, err := take(os.Args[1], os.Args[2])
	if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.EAGAIN) {
		fmt.Println("busy")
		return
	}
	if err != nil {
		fmt.Println("error", err)
		return
	}
	input := bufio.NewReader(os.Stdin)
	fmt.Println("held")
	input.ReadString('\n')
	file.Close()
	fmt.Println("released")
	input.ReadString('\n')
}
