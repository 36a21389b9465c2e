package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"syscall"
)

// world is what a check has: the manager of this process, and one as another process has it, on
// another mount where the backend can have one.
type world struct {
	here, there *lockspace
	children    []*child
}

// start is another process, at work there.
func (w *world) start(command string, arguments ...string) *child {
	c := startChild(append([]string{command, w.there.dir}, arguments...)...)
	w.children = append(w.children, c)
	return c
}

// locks starts a process that takes a lock; held when it is, else it is seen to wait.
func (w *world) locks(id uint32, held bool) *child {
	c := w.start("lock", strconv.FormatUint(uint64(id), 10))
	if held {
		expect(c.hears() == "held", "another process does not get lock %d", id)
		return c
	}
	eventually("another process waits", func() bool {
		return w.there.picture(id, "waiters_total") == "1"
	})
	return c
}

// afterUs unlocks, and the waiting process must have it then, and not before.
func (c *child) afterUs(l Locker) {
	said := make(chan string, 1)
	go func() { said <- c.hears() }()
	select {
	case word := <-said:
		expect(false, "another process says %q while we hold lock %d", word, l.ID())
	default:
	}
	l.Unlock()
	word := <-said
	expect(word == "held", "after us another process says %q", word)
}

func (w *world) end() {
	for _, c := range w.children {
		c.kill()
	}
	w.here.close()
	w.there.close()
	must(w.here.FreeAllLocks())
}

func allocate(m Manager) Locker {
	l, err := m.AllocateLock()
	must(err)
	return l
}

func allocateGiven(m Manager, id uint32) Locker {
	l, err := m.AllocateAndRetrieveLock(id)
	must(err)
	expect(l.ID() == id, "asked for %d, got %d", id, l.ID())
	return l
}

func retrieve(m Manager, id uint32) Locker {
	l, err := m.RetrieveLock(id)
	must(err)
	return l
}

func allocatesInOrder(m Manager, ids ...uint32) {
	for _, id := range ids {
		l := allocate(m)
		expect(l.ID() == id, "allocated %d, not %d", l.ID(), id)
	}
}

func refuses(err error, why syscall.Errno) {
	expect(errors.Is(err, why), "%v, not: %v", err, why)
}

func holds(m Manager, ids ...uint32) {
	held, err := m.LocksHeld()
	must(err)
	expect(reflect.DeepEqual(held, append([]uint32{}, ids...)), "held: %v, not %v", held, ids)
}

func hasAvailable(m Manager, wanted uint32) {
	available, err := m.AvailableLocks()
	must(err)
	expect(*available == wanted, "%d are available, not %d", *available, wanted)
}

func panics(what string, run func()) {
	defer func() { expect(recover() != nil, "%s does not panic", what) }()
	run()
}

var checks = []struct {
	name string
	run  func(*world)
}{
	{"no lockspace has a capacity of 0", func(w *world) {
		_, err := createLockspace(w.here.dir, 0)
		refuses(err, syscall.EINVAL)
	}},
	{"to open one with another capacity is an error", func(w *world) {
		_, err := openLockspace(w.here.dir, capacity+1)
		refuses(err, syscall.ERANGE)
		_, err = openLockspace(w.here.dir, capacity)
		must(err)
	}},
	{"allocate gives the lowest free number", func(w *world) {
		allocatesInOrder(w.here, 0, 1, 2)
		must(retrieve(w.here, 1).Free())
		allocatesInOrder(w.here, 1, 3)
	}},
	{"each manager hands out what the other freed", func(w *world) {
		allocatesInOrder(w.here, 0, 1)
		allocatesInOrder(w.there, 2)
		must(retrieve(w.there, 0).Free())
		allocatesInOrder(w.here, 0, 3)
		must(retrieve(w.here, 2).Free())
		allocatesInOrder(w.there, 2)
	}},
	{"all numbers are handed out, then no space is left", func(w *world) {
		for id := uint32(0); id < capacity; id++ {
			allocatesInOrder(w.here, id)
		}
		for _, m := range []Manager{w.here, w.there} {
			_, err := m.AllocateLock()
			refuses(err, syscall.ENOSPC)
		}
	}},
	{"of a full lockspace each freed number comes again", func(w *world) {
		for id := uint32(0); id < capacity; id++ {
			allocate(w.here)
		}
		for id := uint32(0); id < capacity; id++ {
			must(retrieve(w.here, id).Free())
			allocatesInOrder(w.here, id)
		}
	}},
	{"processes that allocate at once get numbers of their own", func(w *world) {
		const each = capacity / 4
		for i := 0; i < 4; i++ {
			w.start("allocate", strconv.Itoa(each))
		}
		got := map[string]bool{}
		for _, c := range w.children {
			for i := 0; i < each; i++ {
				got[c.hears()] = true
			}
		}
		expect(len(got) == capacity, "%d numbers, not %d", len(got), capacity)
	}},
	{"a given number is allocated if it is free", func(w *world) {
		allocateGiven(w.here, 3)
		for _, m := range []Manager{w.here, w.there} {
			_, err := m.AllocateAndRetrieveLock(3)
			refuses(err, syscall.EEXIST)
			_, err = m.AllocateAndRetrieveLock(capacity)
			refuses(err, syscall.EINVAL)
		}
		allocatesInOrder(w.here, 0, 1, 2, 4)
		must(retrieve(w.there, 3).Free())
		allocateGiven(w.here, 3)
	}},
	{"retrieve does not ask whether a number is allocated", func(w *world) {
		l := retrieve(w.here, 7)
		l.Lock()
		holds(w.here, 7)
		l.Unlock()
		hasAvailable(w.here, capacity)
		allocateGiven(w.here, 7)
		_, err := w.here.RetrieveLock(capacity)
		refuses(err, syscall.EINVAL)
	}},
	{"free of a number that is not allocated is an error", func(w *world) {
		refuses(retrieve(w.here, 0).Free(), syscall.ENOENT)
		l := allocate(w.here)
		must(l.Free())
		refuses(l.Free(), syscall.ENOENT)
		l.Lock()
		refuses(l.Free(), syscall.ENOENT)
	}},
	{"unlock of what is not locked is an error", func(w *world) {
		l := allocate(w.here)
		panics("the first unlock", l.Unlock)
		l.Lock()
		l.Unlock()
		panics("a second unlock", l.Unlock)
	}},
	{"another goroutine and another Locker can unlock", func(w *world) {
		l := allocate(w.here)
		for i := 0; i < 100; i++ {
			l.Lock()
			done := make(chan bool)
			go func() {
				retrieve(w.here, l.ID()).Unlock()
				close(done)
			}()
			<-done
		}
		holds(w.here)
	}},
	{"two locks are held at once and let go one by one", func(w *world) {
		five, six := retrieve(w.here, 5), retrieve(w.here, 6)
		five.Lock()
		six.Lock()
		holds(w.here, 5, 6)
		five.Unlock()
		runtime.Gosched()
		holds(w.there, 6)
		six.Unlock()
		holds(w.there)
	}},
	{"another process waits for a lock that we hold", func(w *world) {
		l := allocate(w.here)
		l.Lock()
		w.locks(l.ID(), false).afterUs(l)
	}},
	{"we wait for a lock that another process holds", func(w *world) {
		l := allocate(w.here)
		c := w.locks(l.ID(), true)
		locked := make(chan bool)
		go func() {
			l.Lock()
			close(locked)
		}()
		eventually("we wait", func() bool { return w.here.picture(0, "waiters_total") == "1" })
		select {
		case <-locked:
			expect(false, "two hold it")
		default:
		}
		c.says()
		<-locked
		expect(c.hears() == "released", "another process did not release it")
	}},
	{"a killed process holds no lock", func(w *world) {
		l := allocate(w.here)
		w.locks(l.ID(), true).kill()
		l.Lock()
		holds(w.here, l.ID())
	}},
	{"goroutines and processes exclude each other", func(w *world) {
		folder, err := os.MkdirTemp("", "lockfs-libpod-")
		must(err)
		defer os.RemoveAll(folder)
		path := filepath.Join(folder, "counter")
		must(os.WriteFile(path, []byte("0"), 0o600))
		done := make(chan error)
		for i := 0; i < 4; i++ {
			w.start("count", "9", "50", path)
			go func() { done <- count(w.here, 9, 50, path) }()
		}
		for _, c := range w.children {
			expect(c.hears() == "done", "a process does not count")
			must(<-done)
		}
		sum, err := os.ReadFile(path)
		must(err)
		expect(string(sum) == "400", "8 times 50 are %s", sum)
	}},
	{"a lock that is freed while held stays its holder's", func(w *world) {
		l := allocate(w.here)
		l.Lock()
		must(l.Free())
		holds(w.there, l.ID())
		c := w.locks(l.ID(), false)
		c.afterUs(l)
		c.says()
		expect(c.hears() == "released", "another process cannot release it")
		allocatesInOrder(w.here, l.ID())
	}},
	{"who gets the number of a lock still held waits for its old holder", func(w *world) {
		l := allocate(w.here)
		l.Lock()
		must(l.Free())
		allocateGiven(w.there, l.ID())
		w.locks(l.ID(), false).afterUs(l)
	}},
	{"free-all frees each number and lets nobody's lock go", func(w *world) {
		l := allocate(w.here)
		allocate(w.there)
		allocateGiven(w.here, capacity-1)
		l.Lock()
		must(w.there.FreeAllLocks())
		hasAvailable(w.there, capacity)
		holds(w.there, l.ID())
		w.locks(l.ID(), false).afterUs(l)
		allocateGiven(w.here, capacity-1)
		allocateGiven(w.here, 1)
	}},
	{"LocksHeld lists what anybody holds, and nothing else", func(w *world) {
		holds(w.here)
		for i := 0; i < 12; i++ {
			allocate(w.here)
		}
		retrieve(w.here, 10).Lock()
		retrieve(w.there, 2).Lock()
		c := w.locks(100, true)
		holds(w.here, 2, 10, 100)
		holds(w.there, 2, 10, 100)
		c.says()
		expect(c.hears() == "released", "another process cannot release it")
		retrieve(w.here, 10).Unlock()
		holds(w.here, 2)
	}},
	{"AvailableLocks counts what this manager allocates and frees", func(w *world) {
		hasAvailable(w.here, capacity)
		l := allocate(w.here)
		allocateGiven(w.here, 70)
		hasAvailable(w.here, capacity-2)
		l.Lock()
		hasAvailable(w.here, capacity-2)
		must(l.Free())
		hasAvailable(w.here, capacity-1)
	}},
	{"AvailableLocks counts what another allocates and frees", func(w *world) {
		allocate(w.there)
		allocate(w.there)
		hasAvailable(w.here, capacity-2)
		must(retrieve(w.there, 0).Free())
		hasAvailable(w.here, capacity-1)
	}},
}

// check runs each check with managers of its own.
func check(dir, other string) bool {
	passed := true
	for _, c := range checks {
		c := c
		passed = passes(c.name, func() {
			w := &world{}
			var err error
			w.here, err = createLockspace(dir, capacity)
			must(err)
			w.there, err = createLockspace(other, capacity)
			must(err)
			defer w.end()
			c.run(w)
		}) && passed
	}
	return passed
}
