// Command record writes down what a host and a plugin of the upstream library say to each other
// over net/rpc, as fixtures for replaying.
//
//	record kv-get|kv-put|greeter|stream PROGRAM [ARG…] > FILE
//
// A proxy stands between the two. Each line is one yamux frame, which the library writes at once:
// the direction (H>P host to plugin, P>H plugin to host), the header and the body in hex. Lines
// with # tell what the host does next; with … a frame that the end of the connection cut off. The
// two directions are in the order in which the proxy saw them; only within a direction is it exact.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"outrigger.dev/interop/internal/contract"
)

const (
	headerSize = 12
	// maxBody is the receive window of yamux, which no frame exceeds.
	maxBody = 256 << 10
)

type session struct {
	name  string // dispensed
	calls func(*remote) error
}

var sessions = map[string]session{
	"kv-get":  {"kv", func(r *remote) error { var value []byte; return r.call("Get", "a", &value) }},
	"kv-put":  {"kv", kvPut},
	"greeter": {"greeter", func(r *remote) error { var text string; return r.call("Greet", new(any), &text) }},
	"stream":  {"streams", stream},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) < 2 {
		return errors.New("usage: record kv-get|kv-put|greeter|stream PROGRAM [ARG…]")
	}
	chosen, known := sessions[args[0]]
	if !known {
		return fmt.Errorf("unknown session %q", args[0])
	}
	program, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "record")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "kv_a"), []byte("hello"), 0o600); err != nil {
		return err
	}
	written := &recording{out: bufio.NewWriter(os.Stdout)}
	defer func() { err = errors.Join(err, written.out.Flush()) }()
	written.note("%s, recorded with %s", args[0], versions())
	first := 64
	if contract.SpendTypeID() {
		first = 65
	}
	written.note("type ids from %d", first)
	written.note("dispense %s", chosen.name)

	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  contract.Handshake,
		Plugins:          plugin.PluginSet{chosen.name: hostPlugin{written}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolNetRPC},
		Logger:           hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, command *exec.Cmd, _ string) (runner.Runner, error) {
			command.Path, command.Args, command.Dir = program, append([]string{program}, args[2:]...), dir
			command.Stderr = nil
			stdout, err := command.StdoutPipe()
			if err != nil {
				return nil, err
			}
			stderr, err := command.StderrPipe()
			if err != nil {
				return nil, err
			}
			return &proxied{command: command, stdout: stdout, stderr: stderr, dir: dir, written: written}, nil
		},
	})
	defer client.Kill()
	proto, err := client.Client()
	if err != nil {
		return err
	}
	raw, err := proto.Dispense(chosen.name)
	if err != nil {
		return err
	}
	if err := chosen.calls(raw.(*remote)); err != nil {
		return err
	}
	written.note("quit")
	client.Kill()
	written.pumps.Wait()
	return nil
}

func versions() string {
	text := runtime.Version()
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "github.com/hashicorp/go-plugin" {
				text = "go-plugin " + module.Version + ", " + text
			}
		}
	}
	return text
}

func kvPut(r *remote) error {
	return r.call("Put", map[string]any{"key": "a", "value": []byte("hello")}, new(any))
}

// stream has the plugin write to a stream of the host and read from another.
func stream(r *remote) error {
	accepted := func(work func(net.Conn) error, call func(uint32) error) error {
		id := r.broker.NextId()
		done := make(chan error, 1)
		go func() {
			conn, err := r.broker.Accept(id)
			if err == nil {
				err = errors.Join(work(conn), conn.Close())
			}
			done <- err
		}()
		return errors.Join(call(id), <-done)
	}
	err := accepted(
		func(conn net.Conn) error { return contract.CheckPattern(conn, 16) },
		func(id uint32) error {
			var count uint64
			return r.call("Produce", contract.Wanted{ID: id, Bytes: 16}, &count)
		},
	)
	if err != nil {
		return err
	}
	return accepted(
		func(conn net.Conn) error { _, err := contract.WritePattern(conn, 16); return err },
		func(id uint32) error { var digest contract.Digest; return r.call("Sum", id, &digest) },
	)
}

// remote is the dispensed object.
type remote struct {
	broker  *plugin.MuxBroker
	rpc     *rpc.Client
	written *recording
}

func (r *remote) call(method string, argument, reply any) error {
	r.written.note("Plugin.%s", method)
	return r.rpc.Call("Plugin."+method, argument, reply)
}

type hostPlugin struct{ written *recording }

func (hostPlugin) Server(*plugin.MuxBroker) (any, error) {
	return nil, errors.New("this program is a host")
}

func (h hostPlugin) Client(broker *plugin.MuxBroker, client *rpc.Client) (any, error) {
	return &remote{broker, client, h.written}, nil
}

// recording is the text that is written.
type recording struct {
	mu    sync.Mutex
	out   *bufio.Writer
	pumps sync.WaitGroup
}

func (r *recording) note(format string, args ...any) {
	r.line("# " + fmt.Sprintf(format, args...))
}

func (r *recording) line(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A failure shows when the text is flushed.
	_, _ = r.out.WriteString(text + "\n")
}

// pump passes frames on and writes them down first.
func (r *recording) pump(direction string, from, to net.Conn) {
	defer r.pumps.Done()
	for {
		header := make([]byte, headerSize)
		n, err := io.ReadFull(from, header)
		if err != nil {
			if n > 0 {
				r.line(fmt.Sprintf("%s %x…", direction, header[:n]))
				_, _ = to.Write(header[:n])
			}
			break
		}
		// Only data frames, of type 0, have a body.
		var length uint32
		if header[1] == 0 {
			length = binary.BigEndian.Uint32(header[8:])
		}
		if length > maxBody {
			r.note("a frame of %d bytes is none of yamux", length)
			break
		}
		body := make([]byte, length)
		n, err = io.ReadFull(from, body)
		text := fmt.Sprintf("%s %x", direction, header)
		if length > 0 {
			text += fmt.Sprintf(" %x", body[:n])
		}
		if err != nil {
			text += "…"
		}
		r.line(text)
		if _, wrote := to.Write(append(header, body[:n]...)); err != nil || wrote != nil {
			break
		}
	}
	r.note("%s ends", direction)
	_ = to.Close()
}

// proxied runs the plugin, and gives the host the address of the proxy for that of the plugin.
type proxied struct {
	command        *exec.Cmd
	stdout, stderr io.ReadCloser
	dir            string
	written        *recording
}

func (p *proxied) PluginToHost(network, address string) (string, string, error) {
	path := filepath.Join(p.dir, "proxy")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return "", "", err
	}
	p.written.pumps.Add(2)
	go func() {
		defer func() { _ = listener.Close() }()
		host, err := listener.Accept()
		if err != nil {
			p.written.pumps.Add(-2)
			return
		}
		guest, err := net.Dial(network, address)
		if err != nil {
			_ = host.Close()
			p.written.pumps.Add(-2)
			return
		}
		go p.written.pump("P>H", guest, host)
		p.written.pump("H>P", host, guest)
	}()
	return "unix", path, nil
}

func (p *proxied) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

func (p *proxied) Start(context.Context) error     { return p.command.Start() }
func (p *proxied) Wait(context.Context) error      { return p.command.Wait() }
func (p *proxied) Stdout() io.ReadCloser           { return p.stdout }
func (p *proxied) Stderr() io.ReadCloser           { return p.stderr }
func (p *proxied) Name() string                    { return p.command.Path }
func (p *proxied) ID() string                      { return strconv.Itoa(p.command.Process.Pid) }
func (p *proxied) Diagnose(context.Context) string { return p.command.Path }

func (p *proxied) Kill(context.Context) error {
	// It may be gone already.
	_ = p.command.Process.Kill()
	return nil
}
