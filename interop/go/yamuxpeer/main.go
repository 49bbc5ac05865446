// Command yamuxpeer is one side of a yamux session, for the tests of the other
// side. It dials a Unix socket, plays one part, and exits with status 0 when
// everything went as that part expects.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

type settings struct {
	count int
	bytes int64
}

// parts maps the value of -mode to what is done.
var parts = map[string]func(*yamux.Session, settings) error{
	"echo":        echo,
	"open-many":   openMany,
	"upload":      upload,
	"slow-reader": slowReader,
	"die":         die,
	"close":       closeSession,
	"idle":        idle,
	"unaccepted":  unaccepted,
	"go-away":     goAway,
	"ping":        ping,
	"half-close":  halfClose,
	"abandon":     abandon,
}

func main() {
	socket := flag.String("socket", "", "path of the Unix socket to dial")
	role := flag.String("role", "client", "client or server: this side's yamux role")
	mode := flag.String("mode", "echo", "the part to play")
	count := flag.Int("count", 1, "number of streams or pings")
	size := flag.Int64("bytes", 1<<20, "number of bytes to send")
	keepAlive := flag.Duration("keep-alive", 30*time.Second, "time between pings, 0 for none")
	openTimeout := flag.Duration("open-timeout", 75*time.Second, "time to wait for an ACK")
	closeTimeout := flag.Duration("close-timeout", 5*time.Minute, "time to wait for a FIN")
	flag.Parse()

	config := yamux.DefaultConfig()
	config.LogOutput = os.Stderr
	config.EnableKeepAlive = *keepAlive > 0
	if config.EnableKeepAlive {
		config.KeepAliveInterval = *keepAlive
	}
	config.StreamOpenTimeout = *openTimeout
	config.StreamCloseTimeout = *closeTimeout

	if err := run(*socket, *role, *mode, config, settings{*count, *size}); err != nil {
		fmt.Fprintln(os.Stderr, "yamuxpeer:", err)
		os.Exit(1)
	}
}

func run(socket, role, mode string, config *yamux.Config, s settings) error {
	part := parts[mode]
	if part == nil {
		return fmt.Errorf("unknown mode %q", mode)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	var session *yamux.Session
	switch role {
	case "client":
		session, err = yamux.Client(conn, config)
	case "server":
		session, err = yamux.Server(conn, config)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		return err
	}
	defer session.Close()
	return part(session, s)
}

// ended tells a session's end from a failure.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrSessionShutdown) {
		return nil
	}
	return err
}

// echo returns what comes on every stream, until the session ends.
func echo(session *yamux.Session, _ settings) error {
	var wait sync.WaitGroup
	failures := make(chan error, 1)
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			wait.Wait()
			select {
			case failure := <-failures:
				return failure
			default:
				return ended(err)
			}
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer stream.Close()
			if _, err := io.Copy(stream, stream); err != nil && !session.IsClosed() {
				select {
				case failures <- err:
				default:
				}
			}
		}()
	}
}

// converse sends size bytes and expects them back.
func converse(session *yamux.Session, seed uint32, size int64) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	return exchange(stream, seed, size)
}

func exchange(stream *yamux.Stream, seed uint32, size int64) error {
	sent := make(chan error, 1)
	expected := crc32.NewIEEE()
	go func() {
		_, err := io.Copy(io.MultiWriter(expected, stream), io.LimitReader(&pattern{seed}, size))
		if err == nil {
			err = stream.Close()
		}
		sent <- err
	}()
	got := crc32.NewIEEE()
	length, err := io.Copy(got, stream)
	if err != nil {
		return fmt.Errorf("stream %d: read: %w", stream.StreamID(), err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("stream %d: write: %w", stream.StreamID(), err)
	}
	if length != size || got.Sum32() != expected.Sum32() {
		return fmt.Errorf("stream %d: %d bytes came back, not the %d that were sent", stream.StreamID(), length, size)
	}
	return nil
}

// pattern is an endless sequence of bytes without short repetitions.
type pattern struct{ value uint32 }

func (p *pattern) Read(into []byte) (int, error) {
	for i := range into {
		p.value = p.value*1664525 + 1013904223
		into[i] = byte(p.value >> 24)
	}
	return len(into), nil
}

// openMany holds many streams open at once, then uses and closes each.
func openMany(session *yamux.Session, s settings) error {
	streams := make([]*yamux.Stream, s.count)
	for i := range streams {
		stream, err := session.OpenStream()
		if err != nil {
			return fmt.Errorf("open %d: %w", i, err)
		}
		streams[i] = stream
	}
	failures := make(chan error, s.count)
	for i, stream := range streams {
		go func() { failures <- exchange(stream, uint32(i), s.bytes) }()
	}
	for range streams {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// upload sends much data on count streams at once.
func upload(session *yamux.Session, s settings) error {
	failures := make(chan error, s.count)
	for i := 0; i < s.count; i++ {
		go func() { failures <- converse(session, uint32(i), s.bytes) }()
	}
	for i := 0; i < s.count; i++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// slowReader reads nothing on the first stream until a line comes on its own
// standard input, and echoes the others meanwhile. It answers the first stream
// with the length and the checksum of what it read.
func slowReader(session *yamux.Session, s settings) error {
	first, err := session.AcceptStream()
	if err != nil {
		return err
	}
	echoed := make(chan error, 1)
	go func() { echoed <- echo(session, s) }()
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	length, err := io.Copy(sum, first)
	if err != nil {
		return err
	}
	var answer bytes.Buffer
	binary.Write(&answer, binary.BigEndian, uint64(length))
	binary.Write(&answer, binary.BigEndian, sum.Sum32())
	if _, err := first.Write(answer.Bytes()); err != nil {
		return err
	}
	if err := first.Close(); err != nil {
		return err
	}
	return <-echoed
}

// die kills its own process as soon as a byte comes.
func die(session *yamux.Session, _ settings) error {
	stream, err := session.AcceptStream()
	if err != nil {
		return err
	}
	if _, err := stream.Read(make([]byte, 1)); err != nil {
		return err
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		return err
	}
	select {}
}

// closeSession answers one byte and closes the session at once.
func closeSession(session *yamux.Session, _ settings) error {
	stream, err := session.AcceptStream()
	if err != nil {
		return err
	}
	if _, err := stream.Read(make([]byte, 1)); err != nil {
		return err
	}
	if _, err := stream.Write([]byte("bye")); err != nil {
		return err
	}
	return session.Close()
}

// idle accepts nothing and waits for the session's end.
func idle(session *yamux.Session, _ settings) error {
	<-session.CloseChan()
	return nil
}

// unaccepted opens a stream that the other side is not to accept, and expects
// its own library to give the session up.
func unaccepted(session *yamux.Session, _ settings) error {
	if _, err := session.OpenStream(); err != nil {
		return err
	}
	select {
	case <-session.CloseChan():
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the session lives on")
	}
}

// goAway refuses new streams and goes on with the old one.
func goAway(session *yamux.Session, _ settings) error {
	stream, err := session.AcceptStream()
	if err != nil {
		return err
	}
	if err := session.GoAway(); err != nil {
		return err
	}
	if _, err := io.Copy(stream, stream); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	<-session.CloseChan()
	return nil
}

// ping asks for count signs of life.
func ping(session *yamux.Session, s settings) error {
	for i := 0; i < s.count; i++ {
		if _, err := session.Ping(); err != nil {
			return fmt.Errorf("ping %d: %w", i, err)
		}
	}
	return nil
}

// halfClose opens a stream, closes its side at once, and reads what still
// comes until the stream ends or is given up.
func halfClose(session *yamux.Session, _ settings) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	text, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if string(text) != "after the close" {
		return fmt.Errorf("read %q", text)
	}
	<-session.CloseChan()
	return nil
}

// abandon opens a stream and closes it at once, and lets the other side never
// close its own.
func abandon(session *yamux.Session, _ settings) error {
	stream, err := session.OpenStream()
	if err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	<-session.CloseChan()
	return nil
}
