package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Manager is podman's, of libpod/lock.
type Manager interface {
	AllocateLock() (Locker, error)
	// RetrieveLock does not ask whether the lock is allocated.
	RetrieveLock(id uint32) (Locker, error)
	AllocateAndRetrieveLock(id uint32) (Locker, error)
	FreeAllLocks() error
	AvailableLocks() (*uint32, error)
	LocksHeld() ([]uint32, error)
}

// Locker is podman's: all of one ID are the same lock, in all processes.
type Locker interface {
	ID() uint32
	Lock()
	// Unlock panics if this process does not hold the lock.
	Unlock()
	// Free leaves the lock usable: some may still have a Locker of it, or hold it.
	Free() error
}

// lockspace is a Manager: the numbered locks of one lockspace of a mount.
type lockspace struct {
	dir      string
	capacity uint32
	mutex    sync.Mutex
	held     map[uint32]*os.File // By this process.
}

// lock is a Locker.
type lock struct {
	space *lockspace
	id    uint32
}

// createLockspace is podman's NewSHMLockManager; one that is there is joined.
func createLockspace(dir string, capacity uint32) (*lockspace, error) {
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	s := &lockspace{dir: dir, capacity: capacity, held: map[uint32]*os.File{}}
	_, err := s.command(fmt.Sprintf("capacity %d", capacity))
	return s, err
}

// openLockspace is podman's OpenSHMLockManager: ERANGE if the capacity is another.
func openLockspace(dir string, capacity uint32) (*lockspace, error) {
	s := &lockspace{dir: dir, capacity: capacity, held: map[uint32]*os.File{}}
	answer, err := s.command("capacity")
	if err == nil && answer != strconv.FormatUint(uint64(capacity), 10) {
		err = fmt.Errorf("%s has %s locks, not %d: %w", dir, answer, capacity, syscall.ERANGE)
	}
	return s, err
}

// command is one exchange with .ctl; an error carries what lockfs says of it.
func (s *lockspace) command(words string) (string, error) {
	ctl, err := os.OpenFile(filepath.Join(s.dir, ".ctl"), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer ctl.Close()
	_, refused := ctl.WriteString(words)
	buffer := make([]byte, 4096)
	n, err := ctl.Read(buffer)
	answer := strings.TrimSpace(string(buffer[:n]))
	if refused != nil {
		return "", fmt.Errorf("%w (%s)", refused, answer)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return answer, err
}

func (s *lockspace) path(id uint32) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(id), 10))
}

func (s *lockspace) allocated(answer string, err error) (Locker, error) {
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(answer, 10, 32)
	return &lock{s, uint32(id)}, err
}

func (s *lockspace) AllocateLock() (Locker, error) {
	return s.allocated(s.command("allocate"))
}

func (s *lockspace) AllocateAndRetrieveLock(id uint32) (Locker, error) {
	return s.allocated(s.command(fmt.Sprintf("allocate %d", id)))
}

func (s *lockspace) RetrieveLock(id uint32) (Locker, error) {
	if id >= s.capacity {
		return nil, fmt.Errorf("lock %d of %d: %w", id, s.capacity, syscall.EINVAL)
	}
	return &lock{s, id}, nil
}

func (s *lockspace) FreeAllLocks() error {
	_, err := s.command("free-all")
	return err
}

func (s *lockspace) AvailableLocks() (*uint32, error) {
	stats, err := s.command("stats")
	if err != nil {
		return nil, err
	}
	allocated, err := strconv.ParseUint(value(stats, "allocated"), 10, 32)
	available := s.capacity - uint32(allocated)
	return &available, err
}

func (s *lockspace) LocksHeld() ([]uint32, error) {
	entries, err := os.ReadDir(s.dir)
	held := []uint32{}
	for _, entry := range entries {
		id, wrong := strconv.ParseUint(entry.Name(), 10, 32)
		if wrong != nil {
			continue
		}
		mode := s.picture(uint32(id), "mode")
		if mode != "" && mode != "free" {
			held = append(held, uint32(id))
		}
	}
	sort.Slice(held, func(i, j int) bool { return held[i] < held[j] })
	return held, err
}

// picture is one value of a lock's picture; "" if the name is not there.
func (s *lockspace) picture(id uint32, key string) string {
	text, err := os.ReadFile(s.path(id))
	if err != nil {
		return ""
	}
	return value(string(text), key)
}

func value(text, key string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, key+": ") {
			return strings.TrimPrefix(line, key+": ")
		}
	}
	return ""
}

// close lets go of all that this process holds.
func (s *lockspace) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for id, file := range s.held {
		file.Close()
		delete(s.held, id)
	}
}

func (l *lock) ID() uint32 { return l.id }

// Each Lock opens a description of its own, so that goroutines exclude each other too. It is
// flock(2) and no mode string because Go opens files with O_NONBLOCK, which makes that a try.
func (l *lock) Lock() {
	file, err := os.OpenFile(l.space.path(l.id), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		panic(err)
	}
	err = syscall.EINTR
	for err == syscall.EINTR {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		panic(err)
	}
	l.space.mutex.Lock()
	defer l.space.mutex.Unlock()
	l.space.held[l.id] = file
}

// Any Locker of the process lets go, from any goroutine.
func (l *lock) Unlock() {
	l.space.mutex.Lock()
	file := l.space.held[l.id]
	delete(l.space.held, l.id)
	l.space.mutex.Unlock()
	if file == nil {
		panic(fmt.Sprintf("lock %d is not locked", l.id))
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_UN); err != nil {
		panic(err)
	}
	file.Close()
}

func (l *lock) Free() error {
	_, err := l.space.command(fmt.Sprintf("free %d", l.id))
	return err
}
