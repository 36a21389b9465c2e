// SPDX-License-Identifier: MIT
// What etcd's own Go client does itself. ENDPOINT; then, for each line of input, one figure:
//
//	cycle N     microseconds to lock and unlock a mutex of a new name, of N
//	turns N     microseconds of a hand-over between two sessions, of N
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func session(endpoint string) *concurrency.Session {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	check(err)
	s, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	check(err)
	return s
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var names int

func cycle(s *concurrency.Session) {
	names++
	m := concurrency.NewMutex(s, fmt.Sprintf("go/fresh%d-%d", os.Getpid(), names))
	check(m.Lock(context.Background()))
	check(m.Unlock(context.Background()))
}

// Each lets go when the other is in the queue.
func turns(a, b *concurrency.Session, n int) time.Duration {
	ms := []*concurrency.Mutex{concurrency.NewMutex(a, "go/turns"), concurrency.NewMutex(b, "go/turns")}
	check(ms[0].Lock(context.Background()))
	var all time.Duration
	for i := 0; i < n; i++ {
		next := ms[(i+1)%2]
		got := make(chan time.Time)
		go func() {
			check(next.Lock(context.Background()))
			got <- time.Now()
		}()
		for {
			r, err := a.Client().Get(context.Background(), "go/turns/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			check(err)
			if r.Count == 2 {
				break
			}
		}
		begin := time.Now()
		check(ms[i%2].Unlock(context.Background()))
		all += (<-got).Sub(begin)
	}
	check(ms[n%2].Unlock(context.Background()))
	return all
}

func main() {
	a, b := session(os.Args[1]), session(os.Args[1])
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var what string
		var n int
		fmt.Sscan(in.Text(), &what, &n)
		begin := time.Now()
		var all time.Duration
		if what == "turns" {
			all = turns(a, b, n)
		} else {
			for i := 0; i < n; i++ {
				cycle(a)
			}
			all = time.Since(begin)
		}
		fmt.Printf("%.3f\n", float64(all.Nanoseconds())/1000/float64(n))
	}
}
