package main

import "syscall"

// What prepare allocates; another number was freed again.
var left = []uint32{0, 2, 5}

func prepare(dir string) {
	space, err := createLockspace(dir, capacity)
	must(err)
	allocatesInOrder(space, 0, 1, 2)
	allocateGiven(space, 5)
	must(retrieve(space, 1).Free())
}

func recall(dir string) bool {
	space, err := createLockspace(dir, capacity)
	must(err)
	passed := passes("AvailableLocks counts what was allocated before", func() {
		hasAvailable(space, capacity-uint32(len(left)))
	})
	return passes("the numbers are still allocated", func() {
		for _, id := range left {
			_, err := space.AllocateAndRetrieveLock(id)
			refuses(err, syscall.EEXIST)
		}
		allocatesInOrder(space, 1, 3, 4, 6)
	}) && passes("what was held is free", func() {
		holds(space)
		for _, id := range left {
			l := retrieve(space, id)
			l.Lock()
			l.Unlock()
			must(l.Free())
		}
		allocatesInOrder(space, left...)
		must(space.FreeAllLocks())
	}) && passed
}

func refresh(dir string) {
	space, err := createLockspace(dir, capacity)
	must(err)
	hasAvailable(space, capacity)
	for _, id := range left {
		allocateGiven(space, id)
	}
	allocatesInOrder(space, 1, 3, 4, 6)
	must(space.FreeAllLocks())
}
