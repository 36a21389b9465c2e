package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// child is another process of this program. What it says is read by hears.
type child struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
}

func startChild(arguments ...string) *child {
	program, err := os.Executable()
	must(err)
	c := &child{command: exec.Command(program, arguments...)}
	c.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.command.Stderr = os.Stderr
	c.stdin, err = c.command.StdinPipe()
	must(err)
	stdout, err := c.command.StdoutPipe()
	must(err)
	c.stdout = bufio.NewReader(stdout)
	must(c.command.Start())
	return c
}

// hears is the next line, without its end; "" at the end of all.
func (c *child) hears() string {
	line, _ := c.stdout.ReadString('\n')
	if line == "" {
		return ""
	}
	return line[:len(line)-1]
}

// says ends what the child waits for.
func (c *child) says() {
	_, err := io.WriteString(c.stdin, "\n")
	must(err)
}

func (c *child) kill() {
	c.command.Process.Kill()
	c.command.Wait()
}
