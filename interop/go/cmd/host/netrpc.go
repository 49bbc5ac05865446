package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"outrigger.dev/interop/internal/animalgrpc"
	"outrigger.dev/interop/internal/contract"
	"outrigger.dev/interop/internal/oneconn"
	"outrigger.dev/interop/internal/rpcsvc"
)

// absentPlugin is in the host's set and in no plugin's.
const absentPlugin = "no-such-plugin"

// rpcStep is a step that only net/rpc knows.
func (s *session) rpcStep(name string, work func() (string, error)) {
	s.step(name, func() (string, error) {
		if s.handle == nil || s.handle.rpc == nil {
			return "", fmt.Errorf("needs net/rpc, and the plugin speaks %s", s.result.Protocol)
		}
		return work()
	})
}

func expectEqual[T comparable](got, expected T) error {
	if got != expected {
		return fmt.Errorf("got %v, not %v", got, expected)
	}
	return nil
}

func (s *session) greetOnce() error {
	var reply string
	if err := s.callRPC("Greet", new(any), &reply); err != nil {
		return err
	}
	return expectEqual(reply, "Hello!")
}

func (s *session) greeter() {
	s.rpcStep("greet", func() (string, error) { return "", s.greetOnce() })
	s.dispenseAgain()
	s.ping()
}

// dispenseAgain wants a second object beside the first.
func (s *session) dispenseAgain() {
	s.rpcStep("dispense-again", func() (string, error) {
		raw, err := s.proto.Dispense(s.opts.dispense)
		if err != nil {
			return "", err
		}
		first := s.handle
		defer func() { s.handle = first }()
		s.handle = raw.(*handle)
		if err := s.check(); err != nil {
			return "", err
		}
		if err := s.handle.rpc.Close(); err != nil {
			return "", err
		}
		s.handle = first
		return "", s.check()
	})
}

// check makes one call of the service, if it has one for that.
func (s *session) check() error {
	if s.info.check == nil {
		return nil
	}
	return s.info.check(s)
}

func (s *session) speak(loud bool) error {
	var reply string
	if s.handle.rpc != nil {
		if err := s.callRPC("Speak", map[string]any{"isLoud": loud}, &reply); err != nil {
			return err
		}
	} else {
		ctx, cancel := s.context()
		defer cancel()
		var err error
		if reply, err = animalgrpc.Speak(ctx, s.handle.conn, loud); err != nil {
			return err
		}
	}
	return expectEqual(reply, contract.Sound(s.info.name, loud))
}

func (s *session) animal() {
	s.step("speak", func() (string, error) { return "", s.speak(false) })
	s.step("speak-loud", func() (string, error) { return "", s.speak(true) })
	s.ping()
}

// callHostOnce has the plugin call an adder that this side serves.
func (s *session) callHostOnce() error {
	id := s.handle.mux.NextId()
	go s.handle.mux.AcceptAndServe(id, rpcsvc.Adder{})
	var reply string
	if err := s.callRPC("CallHost", id, &reply); err != nil {
		return err
	}
	return expectEqual(reply, "42")
}

func (s *session) offerHelperOnce() error {
	conn, err := s.dialOffer("OfferHelper")
	if err != nil {
		return err
	}
	helper := rpc.NewClient(conn)
	var sum int64
	call := helper.Go("Plugin.Add", contract.Pair{A: math.MaxInt32, B: -5}, &sum, nil)
	select {
	case <-call.Done:
		err = call.Error
	case <-time.After(s.opts.callTimeout):
		err = errors.New("the helper does not answer")
	}
	if err == nil {
		err = expectEqual(sum, math.MaxInt32-5)
	}
	return errors.Join(err, helper.Close())
}

func (s *session) callbacks() {
	s.rpcStep("call-host", func() (string, error) { return "", s.callHostOnce() })
	s.rpcStep("offer-helper", func() (string, error) { return "", s.offerHelperOnce() })
	s.ping()
}

func (s *session) callbacksMany() {
	s.rpcStep("callbacks-50", func() (string, error) {
		for round := range 50 {
			if err := errors.Join(s.callHostOnce(), s.offerHelperOnce()); err != nil {
				return "", fmt.Errorf("round %d: %w", round, err)
			}
		}
		return "", nil
	})
	s.ping()
}

func (s *session) callbacksCallers() {
	s.rpcStep("16-callers", func() (string, error) {
		return "16 callers, 8 rounds each", atOnce(16, func(int) error {
			for range 8 {
				if err := errors.Join(s.callHostOnce(), s.offerHelperOnce()); err != nil {
					return err
				}
			}
			return nil
		})
	})
	s.ping()
}

func atOnce(count int, work func(int) error) error {
	errs := make([]error, count)
	var group sync.WaitGroup
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := work(i); err != nil {
				errs[i] = fmt.Errorf("number %d: %w", i, err)
			}
		}()
	}
	group.Wait()
	return errors.Join(errs...)
}

// dialOffer calls a method that replies with a broker id, and dials that.
func (s *session) dialOffer(method string) (net.Conn, error) {
	var id uint32
	if err := s.callRPC(method, new(any), &id); err != nil {
		return nil, err
	}
	conn, err := s.handle.mux.Dial(id)
	if err != nil {
		return nil, fmt.Errorf("dialling the plugin's id %d: %w", id, err)
	}
	return conn, conn.SetDeadline(time.Now().Add(s.opts.callTimeout))
}

// accepted runs work on the stream that comes in under a new id while call is under way.
func (s *session) accepted(work func(net.Conn) error, call func(id uint32) error) error {
	id := s.handle.mux.NextId()
	done := make(chan error, 1)
	go func() {
		conn, err := s.handle.mux.Accept(id)
		if err != nil {
			done <- fmt.Errorf("accepting id %d: %w", id, err)
			return
		}
		if err = conn.SetDeadline(time.Now().Add(s.opts.callTimeout)); err == nil {
			err = work(conn)
		}
		done <- errors.Join(err, conn.Close())
	}()
	err := call(id)
	return errors.Join(err, <-done)
}

func (s *session) streamBytes() uint64 {
	if s.opts.bytes > 0 {
		return uint64(s.opts.bytes)
	}
	return 10 << 20
}

func (s *session) sumOnce(count uint64) error {
	var digest contract.Digest
	err := s.accepted(
		func(conn net.Conn) error {
			if _, err := contract.WritePattern(conn, count); err != nil {
				return err
			}
			return conn.Close()
		},
		func(id uint32) error { return s.callRPC("Sum", id, &digest) },
	)
	if err != nil {
		return err
	}
	return expectEqual(digest, contract.PatternDigest(count))
}

func (s *session) produceOnce(count uint64) error {
	var written uint64
	err := s.accepted(
		func(conn net.Conn) error { return contract.CheckPattern(conn, count) },
		func(id uint32) error {
			return s.callRPC("Produce", contract.Wanted{ID: id, Bytes: count}, &written)
		},
	)
	if err != nil {
		return err
	}
	return expectEqual(written, count)
}

// echoOnce writes and reads at once, and closes its own direction while bytes are still to come.
func (s *session) echoOnce(count uint64) error {
	conn, err := s.dialOffer("Echo")
	if err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := contract.WritePattern(conn, count)
		wrote <- errors.Join(err, conn.Close())
	}()
	err = contract.CheckPattern(conn, count)
	if err != nil {
		_ = conn.Close()
	}
	return errors.Join(err, <-wrote)
}

func (s *session) streams() {
	count := s.streamBytes()
	bytesMoved := fmt.Sprintf("%d bytes", count)
	s.rpcStep("sum", func() (string, error) { return bytesMoved, s.sumOnce(count) })
	s.rpcStep("produce", func() (string, error) { return bytesMoved, s.produceOnce(count) })
	s.rpcStep("echo", func() (string, error) { return bytesMoved, s.echoOnce(count) })
	s.rpcStep("empty", func() (string, error) {
		return "", errors.Join(s.sumOnce(0), s.produceOnce(0), s.echoOnce(0))
	})
	s.rpcStep("fetch-from-host", func() (string, error) {
		return s.fetchFromHost(strings.Repeat("hello from the host\n", 15_000))
	})
	s.rpcStep("get-from-plugin", func() (string, error) {
		return s.overHTTP(http.MethodGet, nil, []byte("hello from the plugin\n"))
	})
	s.rpcStep("post-to-plugin", func() (string, error) {
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		return s.overHTTP(http.MethodPost, body, body)
	})
	s.ping()
}

// streamsParallel lets streams share the connection with each other and with calls.
func (s *session) streamsParallel() {
	s.rpcStep("8-streams", func() (string, error) {
		return fmt.Sprintf("24 streams of %d bytes", s.streamBytes()/4), atOnce(8, func(int) error {
			each := s.streamBytes() / 4
			return errors.Join(s.echoOnce(each), s.sumOnce(each), s.produceOnce(each))
		})
	})
	s.rpcStep("32-http", func() (string, error) {
		text := strings.Repeat("x", int(min(s.streamBytes(), 8<<20)))
		body := []byte(text)
		return fmt.Sprintf("32 bodies of %d bytes each way", len(body)), atOnce(32, func(int) error {
			_, posted := s.overHTTP(http.MethodPost, body, body)
			_, fetched := s.fetchFromHost(text)
			return errors.Join(posted, fetched)
		})
	})
	s.ping()
}

func (s *session) fetchFromHost(body string) (string, error) {
	asked := ""
	var got string
	err := s.accepted(
		func(conn net.Conn) error {
			oneconn.Serve(conn, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				asked = request.Method + " " + request.URL.Path
				_, _ = io.WriteString(w, body)
			}))
			return nil
		},
		func(id uint32) error { return s.callRPC("FetchFromHost", id, &got) },
	)
	if err != nil {
		return "", err
	}
	if got != body {
		return "", fmt.Errorf("%d bytes were served, and the plugin got %s", len(body), excerpt(got))
	}
	return fmt.Sprintf("%d bytes", len(got)), expectEqual(asked, "GET /")
}

func (s *session) overHTTP(method string, body, expected []byte) (string, error) {
	conn, err := s.dialOffer("OfferHTTP")
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := s.context()
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://plugin/", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := oneconn.Client(conn).Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(got, expected) {
		return "", fmt.Errorf("%s with %d bytes: %s", response.Status, len(got), excerpt(string(got)))
	}
	return fmt.Sprintf("%d bytes", len(got)), nil
}

func someShape() contract.Shape {
	return contract.Shape{
		Name: "square", Sides: 4, Tags: []string{"flat", "even"},
		Inner: &contract.Shape{Name: "dot", At: time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)},
		At:    time.Date(2026, 2, 3, 4, 5, 6, 789_000_000, time.UTC),
		Extra: map[string]any{"area": 2.25, "count": 7, "on": true},
	}
}

var described = []struct {
	value any
	text  string
}{
	{nil, "<nil> <nil>"},
	{true, "bool true"},
	{7, "int 7"},
	{int64(math.MinInt64), "int64 -9223372036854775808"},
	{uint8(200), "uint8 200"},
	{1.5, "float64 1.5"},
	{"hi there", "string hi there"},
	{[]byte{1, 2, 255}, "[]uint8 [1 2 255]"},
	{[]string{"a", "b"}, "[]string [a b]"},
	{map[string]any{"b": true, "a": 1, "c": nil}, "map[string]interface {} map[a:1 b:true c:<nil>]"},
	{[]any{"x", 1, []string{"y"}}, "[]interface {} [x 1 [y]]"},
	{time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), "time.Time 2026-02-03T04:05:06Z"},
	{contract.Shape{}, "main.Shape { 0 [] <nil> 0001-01-01T00:00:00Z map[]}"},
	{someShape(), "main.Shape {square 4 [flat even] &{dot 0 [] <nil> 1969-12-31T23:59:59Z map[]} 2026-02-03T04:05:06.789Z map[area:2.25 count:7 on:true]}"},
}

var echoed = []any{
	nil, false, 0, int8(-8), int16(-300), int32(1 << 20), int64(math.MaxInt64), uint(1), uint8(0), uint16(65535),
	uint32(math.MaxUint32), uint64(math.MaxUint64), float32(0.5), -1.25e300, math.Inf(1), complex(1, -2), "", "snow ☃",
	[]byte{0}, bytes.Repeat([]byte{0xA5}, 1<<20), []int{-1, 0, 1}, []float64{1.5, 0}, []string{"", "x"}, []bool{true, false},
	map[string]any{}, map[string]any{"deep": map[string]any{"er": []any{1, "two", someShape()}}},
	[]any{nil, []any{[]any{"three"}}}, time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC), contract.Shape{}, someShape(),
	contract.Shape{Extra: map[string]any{"inner": someShape(), "list": []any{contract.Shape{Sides: 3}}}},
}

func (s *session) types() {
	s.rpcStep("describe", func() (string, error) {
		for _, d := range described {
			var text string
			if err := s.callRPC("Describe", &d.value, &text); err != nil {
				return "", fmt.Errorf("%s: %w", d.text, err)
			}
			if text != d.text {
				return "", fmt.Errorf("described as %q, not %q", text, d.text)
			}
		}
		return fmt.Sprintf("%d values", len(described)), nil
	})
	s.rpcStep("echo", func() (string, error) {
		for _, value := range echoed {
			var back any
			if err := s.callRPC("Echo", &value, &back); err != nil {
				return "", fmt.Errorf("%s: %w", excerpt(contract.Describe(value)), err)
			}
			if !reflect.DeepEqual(back, value) {
				return "", fmt.Errorf("%s came back as %s", excerpt(contract.Describe(value)), excerpt(contract.Describe(back)))
			}
		}
		return fmt.Sprintf("%d values", len(echoed)), nil
	})
	s.rpcStep("fail", func() (string, error) {
		const text = "deliberate \"failure\"\twith ☃ and\na second line"
		err := s.serverError(s.callRPC("Fail", text, new(any)))
		if err == nil {
			return "", errors.New("the call succeeded")
		}
		return "", expectEqual(err.Error(), text)
	})
	s.rpcStep("wrong-argument", func() (string, error) {
		err := s.serverError(s.callRPC("Sleep", "no number", new(int64)))
		if err == nil {
			return "", errors.New("the call succeeded")
		}
		return err.Error(), s.sleepOnce(1)
	})
	s.rpcStep("unknown-names", func() (string, error) {
		for name, expected := range map[string]string{
			"Plugin.NoSuchMethod": "rpc: can't find method Plugin.NoSuchMethod",
			"NoSuchService.Echo":  "rpc: can't find service NoSuchService.Echo",
			"without a dot":       "rpc: service/method request ill-formed: without a dot",
		} {
			// Go cannot skip a nil interface value: with one as the argument it would wait for more.
			err := s.serverError(s.callName(name, "skipped", new(any)))
			if err == nil || err.Error() != expected {
				return "", fmt.Errorf("%s gave %w, not %s", name, err, expected)
			}
		}
		return "", nil
	})
	s.rpcStep("sleep", func() (string, error) { return "", s.sleepOnce(20) })
	s.calls64()
	s.ping()
}

// serverError keeps only errors that the plugin answered with.
func (s *session) serverError(err error) error {
	var answered rpc.ServerError
	if err != nil && !errors.As(err, &answered) {
		return fmt.Errorf("not an answer of the plugin: %w", err)
	}
	return err
}

func (s *session) sleepOnce(millis int64) error {
	var reply int64
	if err := s.callRPC("Sleep", millis, &reply); err != nil {
		return err
	}
	return expectEqual(reply, millis)
}

// calls64 has slow calls and quick ones outstanding at once on one connection.
func (s *session) calls64() {
	s.rpcStep("calls64", func() (string, error) {
		begun := time.Now()
		err := atOnce(64, func(caller int) error {
			// The later ones end first.
			if err := s.sleepOnce(300 - 4*int64(caller)); err != nil {
				return err
			}
			for round := range 20 {
				value := any(fmt.Sprintf("caller %d, round %d", caller, round))
				var back any
				if err := s.callRPC("Echo", &value, &back); err != nil {
					return err
				}
				if back != value {
					return fmt.Errorf("got %v, not %v", back, value)
				}
			}
			return nil
		})
		if took := time.Since(begun); err == nil && took > 5*time.Second {
			return "", fmt.Errorf("took %s: the calls were made one after another", took)
		}
		return "64 callers", err
	})
}

func (s *session) printWords() {
	s.rpcStep("print", func() (string, error) {
		words := contract.Words{
			Out: "printed \x00☃ on stdout\n" + strings.Repeat("o", 300<<10) + "\n",
			Err: "printed on stderr\n" + strings.Repeat("e", 300<<10) + "\n",
		}
		if err := s.callRPC("Print", words, new(any)); err != nil {
			return "", err
		}
		if err := s.stdout.await(words.Out, logWait); err != nil {
			return "", fmt.Errorf("stdout: %w", err)
		}
		if err := s.stderr.await(words.Err, logWait); err != nil {
			return "", fmt.Errorf("stderr: %w", err)
		}
		return fmt.Sprintf("%d bytes", len(words.Out)+len(words.Err)), nil
	})
}

func (s *session) readStdin() {
	s.rpcStep("stdin", func() (string, error) {
		var text string
		if err := s.callRPC("ReadStdin", new(any), &text); err != nil {
			return "", err
		}
		if text != s.opts.stdin {
			return "", fmt.Errorf("the plugin read %s, not %s", excerpt(text), excerpt(s.opts.stdin))
		}
		return fmt.Sprintf("%d bytes", len(text)), nil
	})
}

// giveStdin puts the chosen text in the place that the library passes on to plugins.
func (s *session) giveStdin() error {
	path := filepath.Join(s.private, "stdin")
	if err := os.WriteFile(path, []byte(s.opts.stdin), 0o600); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	os.Stdin = file
	return nil
}

func (s *session) unknownPlugin() {
	s.rpcStep("unknown-plugin", func() (string, error) {
		_, err := s.proto.Dispense(absentPlugin)
		if err == nil {
			return "", errors.New("dispensing it succeeded")
		}
		return "", expectEqual(err.Error(), "unknown plugin type: "+absentPlugin)
	})
	s.rpcStep("still-works", func() (string, error) { return "", errors.Join(s.check(), s.proto.Ping()) })
}

// unclaimed dials an id that nobody accepts, which the plugin gives up after 5 s.
func (s *session) unclaimed() {
	s.rpcStep("unclaimed", func() (string, error) {
		begun := time.Now()
		done := make(chan error, 1)
		go func() {
			conn, err := s.handle.mux.Dial(math.MaxUint32)
			if err == nil {
				_ = conn.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				return "", errors.New("the stream was accepted")
			}
			took := time.Since(begun)
			if took < 4*time.Second {
				return "", fmt.Errorf("given up after %s: %w", took, err)
			}
			return err.Error(), nil
		case <-time.After(9 * time.Second):
			return "", errors.New("still waiting after 9 s")
		}
	})
	s.rpcStep("still-works", func() (string, error) { return "", errors.Join(s.check(), s.proto.Ping()) })
}

// crashPending kills the plugin under calls that it has not answered.
func (s *session) crashPending() {
	s.rpcStep("crash-pending", func() (string, error) {
		const calls = 8
		failed := make(chan error, calls)
		for range calls {
			go func() { failed <- s.callRPC("Sleep", int64(30_000), new(int64)) }()
		}
		// Its answer shows that the calls before it have reached the plugin or are about to.
		if err := s.sleepOnce(50); err != nil {
			return "", err
		}
		if err := s.killNow(); err != nil {
			return "", err
		}
		begun := time.Now()
		var err error
		for range calls {
			select {
			case err = <-failed:
				if err == nil {
					return "", errors.New("a call of the dead plugin succeeded")
				}
			case <-time.After(2 * time.Second):
				return "", errors.New("a call was still pending 2 s after the kill")
			}
		}
		detail := strconv.Itoa(calls) + " calls: " + err.Error() + fmt.Sprintf(", after %.1f ms", millis(begun))
		if s.proto.Ping() == nil {
			return "", errors.New("a ping still works")
		}
		return detail, s.awaitExit()
	})
}

// exitSeen waits until the host knows that the process is gone.
func (s *session) exitSeen(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if s.handle.exited != nil {
		select {
		case <-s.handle.exited.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the exit context was not cancelled within %s", limit)
		}
	}
	// Over net/rpc plugins are given no context.
	for !s.client.Exited() {
		if ctx.Err() != nil {
			return fmt.Errorf("the exit was not noticed within %s", limit)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
