package main

import (
	"log"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	lock, err := os.OpenFile("/mnt/locks/default/backup", os.O_RDWR|os.O_CREATE, 0666)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err == nil {
		err = exec.Command("./backup.sh").Run()
	}
	if err != nil {
		log.Fatal(err)
	}
	lock.Close()
}
