package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
)

// execRunner starts a plain process. It exists so that the runner path of the library, with its
// socket directory, can be driven.
type execRunner struct {
	command *exec.Cmd
	stdout  io.ReadCloser
	stderr  io.ReadCloser
}

// newExecRunner returns a runner function for program; directory is its working directory.
func newExecRunner(program string, args []string, directory string) func(hclog.Logger, *exec.Cmd, string) (runner.Runner, error) {
	return func(_ hclog.Logger, command *exec.Cmd, _ string) (runner.Runner, error) {
		command.Path = program
		command.Args = append([]string{program}, args...)
		command.Dir = directory
		stdout, err := command.StdoutPipe()
		if err != nil {
			return nil, err
		}
		stderr, err := command.StderrPipe()
		if err != nil {
			return nil, err
		}
		return &execRunner{command: command, stdout: stdout, stderr: stderr}, nil
	}
}

func (r *execRunner) Start(context.Context) error { return r.command.Start() }
func (r *execRunner) Wait(context.Context) error  { return r.command.Wait() }
func (r *execRunner) Stdout() io.ReadCloser       { return r.stdout }
func (r *execRunner) Stderr() io.ReadCloser       { return r.stderr }
func (r *execRunner) Name() string                { return r.command.Path }

func (r *execRunner) Kill(context.Context) error {
	if r.command.Process == nil {
		return nil
	}
	// An already finished process is no failure.
	_ = r.command.Process.Kill()
	return nil
}

func (r *execRunner) ID() string {
	if r.command.Process == nil {
		return ""
	}
	return strconv.Itoa(r.command.Process.Pid)
}

func (r *execRunner) Diagnose(context.Context) string {
	return fmt.Sprintf("program: %s", r.command.Path)
}

func (*execRunner) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

func (*execRunner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
