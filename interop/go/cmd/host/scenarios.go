package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/filelisterpb"
	"outrigger.dev/interop/gen/grpctestpb"
	"outrigger.dev/interop/gen/hostcounterpb"
	"outrigger.dev/interop/gen/hostservepb"
	"outrigger.dev/interop/gen/kvpb"
	"outrigger.dev/interop/gen/streamingpb"
	"outrigger.dev/interop/internal/contract"
	"outrigger.dev/interop/internal/testsvc"
)

const (
	basicCookie  = "BASIC_PLUGIN=hello"
	testCookie   = "TEST_MAGIC_COOKIE=test"
	listerCookie = "TEST_KEY=TEST_VALUE"
	// logWait bounds waiting for a log line or printed bytes that a finished call has caused.
	logWait = 5 * time.Second
)

type serviceInfo struct {
	name     string
	cookie   string
	scenario string
	// check is one call that shows the service at work, for scenarios about something else.
	check func(*session) error
}

var services = map[string]serviceInfo{
	"kv":         {"kv", basicCookie, "kv", nil},
	"counter":    {"counter", basicCookie, "counter", nil},
	"streamer":   {"streamer", basicCookie, "streaming", nil},
	"grpctest":   {"test", testCookie, "grpctest", nil},
	"filelister": {"file-lister", listerCookie, "list", nil},
	"greeter":    {"greeter", basicCookie, "greeter", (*session).greetOnce},
	"callbacks":  {"callbacks", basicCookie, "callbacks", (*session).callHostOnce},
	"streams":    {"streams", basicCookie, "streams", func(s *session) error { return s.echoOnce(1000) }},
	"types":      {"types", basicCookie, "types", func(s *session) error { return s.sleepOnce(1) }},
	"stdio":      {"stdio", basicCookie, "stdio", nil},
	"none":       {"none", basicCookie, "ping", nil},
}

// serviceNamed also knows animal:NAME.
func serviceNamed(text string) (serviceInfo, bool) {
	name, isAnimal := strings.CutPrefix(text, "animal:")
	if !isAnimal {
		info, known := services[text]
		return info, known
	}
	check := func(s *session) error { return s.speak(true) }
	return serviceInfo{name, basicCookie, "animal", check}, contract.Sound(name, false) != ""
}

// scenarioTable is filled at start because some scenarios read it.
var scenarioTable map[string]func(*session)

func init() {
	scenarioTable = map[string]func(*session){
		"none":               func(*session) {},
		"ping":               (*session).ping,
		"kv":                 (*session).kv,
		"kv-large":           (*session).kvLarge,
		"negotiated":         (*session).kv,
		"counter":            (*session).counter,
		"counter-callers":    (*session).counterCallers,
		"streaming":          (*session).streaming,
		"double":             (*session).double,
		"large":              (*session).large,
		"compressed":         (*session).compressed,
		"stream":             (*session).bidiStream,
		"bidirectional":      (*session).bidirectional,
		"bidirectional-many": (*session).bidirectionalMany,
		"stdio":              (*session).stdio,
		"printkv":            (*session).printKV,
		"log-levels":         (*session).logLevels,
		"log-facade":         (*session).logFacade,
		"panic":              (*session).panics,
		"grpctest":           (*session).grpctest,
		"list":               (*session).list,
		"reflection":         (*session).reflection,
		"greeter":            (*session).greeter,
		"dispense-again":     (*session).dispenseAgain,
		"animal":             (*session).animal,
		"callbacks":          (*session).callbacks,
		"callbacks-many":     (*session).callbacksMany,
		"callbacks-callers":  (*session).callbacksCallers,
		"streams":            (*session).streams,
		"streams-parallel":   (*session).streamsParallel,
		"types":              (*session).types,
		"calls64":            (*session).calls64,
		"print":              (*session).printWords,
		"stdin":              (*session).readStdin,
		"unknown-plugin":     (*session).unknownPlugin,
		"unclaimed":          (*session).unclaimed,
		"crash-pending":      (*session).crashPending,
		"reattach":           (*session).reattach,
		"checksum-right":     (*session).ping,
		"checksum-wrong":     func(*session) {},
		"kill":               (*session).killTimes,
		"kill-before-client": func(*session) {},
		"wait-exit":          (*session).waitExit,
		"crash":              (*session).crash,
		"sigint":             (*session).sigint,
	}
}

func scenarioNames() []string {
	names := make([]string, 0, len(scenarioTable))
	for name := range scenarioTable {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (s *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.opts.callTimeout)
}

// callRPC makes a net/rpc call, which knows no deadline of its own.
func (s *session) callRPC(method string, argument, reply any) error {
	return s.callName("Plugin."+method, argument, reply)
}

func (s *session) callName(name string, argument, reply any) error {
	call := s.handle.rpc.Go(name, argument, reply, nil)
	timeout := time.NewTimer(s.opts.callTimeout)
	defer timeout.Stop()
	select {
	case <-call.Done:
		return call.Error
	case <-timeout.C:
		return fmt.Errorf("%s: no reply within %s", name, s.opts.callTimeout)
	}
}

func (s *session) ping() {
	s.step("ping", func() (string, error) { return "", s.proto.Ping() })
	if s.handle == nil || s.handle.conn == nil {
		return
	}
	s.step("health", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		health := healthpb.NewHealthClient(s.handle.conn)
		reply, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: "plugin"})
		if err != nil {
			return "", err
		}
		if reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return "", fmt.Errorf("the service plugin is %s", reply.GetStatus())
		}
		_, err = health.Check(ctx, &healthpb.HealthCheckRequest{Service: "no-such-service"})
		if status.Code(err) != codes.NotFound {
			return "", fmt.Errorf("an unknown service gives %s, not NotFound", status.Code(err))
		}
		return "", nil
	})
}

// kvPut and kvGet take whichever protocol the plugin speaks.
func (s *session) kvPut(key string, value []byte) error {
	if s.handle.rpc != nil {
		return s.callRPC("Put", map[string]any{"key": key, "value": value}, new(any))
	}
	ctx, cancel := s.context()
	defer cancel()
	_, err := kvpb.NewKVClient(s.handle.conn).Put(ctx, &kvpb.PutRequest{Key: key, Value: value})
	return err
}

func (s *session) kvGet(key string) ([]byte, error) {
	if s.handle.rpc != nil {
		var value []byte
		err := s.callRPC("Get", key, &value)
		return value, err
	}
	ctx, cancel := s.context()
	defer cancel()
	reply, err := kvpb.NewKVClient(s.handle.conn).Get(ctx, &kvpb.GetRequest{Key: key})
	return reply.GetValue(), err
}

// kvExpect accepts a suffix, because published plugins append who wrote the value.
func (s *session) kvExpect(key string, expected []byte) (string, error) {
	value, err := s.kvGet(key)
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(value, expected) {
		return "", fmt.Errorf("key %q holds %d bytes %s", key, len(value), excerpt(string(value)))
	}
	return fmt.Sprintf("%d bytes", len(value)), nil
}

func (s *session) kv() {
	s.step("put", func() (string, error) { return "", s.kvPut("greeting", []byte("hello")) })
	s.step("get", func() (string, error) { return s.kvExpect("greeting", []byte("hello")) })
	s.step("replace", func() (string, error) { return "", s.kvPut("greeting", []byte{0, 255, '\n'}) })
	s.step("get-replaced", func() (string, error) { return s.kvExpect("greeting", []byte{0, 255, '\n'}) })
	s.step("get-absent", func() (string, error) {
		value, err := s.kvGet("absent")
		if err == nil {
			return "", fmt.Errorf("an absent key gave %d bytes", len(value))
		}
		return err.Error(), nil
	})
	s.ping()
}

// kvLarge wants more than 4 MiB back. The value is laid where a plugin keeps its values, the file
// kv_KEY of its working directory, because a request of that size is refused by design.
func (s *session) kvLarge() {
	large := bytes.Repeat([]byte("0123456789abcdef"), 5<<16)
	s.step("put-3-mib", func() (string, error) { return "", s.kvPut("three", large[:3<<20]) })
	s.step("get-3-mib", func() (string, error) { return s.kvExpect("three", large[:3<<20]) })
	s.step("get-5-mib", func() (string, error) {
		if err := os.WriteFile(filepath.Join(s.opts.workDir, "kv_large"), large, 0o644); err != nil {
			return "", err
		}
		return s.kvExpect("large", large)
	})
}

func (s *session) counterGet(key string) (int64, error) {
	ctx, cancel := s.context()
	defer cancel()
	reply := &hostcounterpb.GetResponse{}
	err := s.handle.conn.Invoke(ctx, "/proto.Counter/Get", &hostcounterpb.GetRequest{Key: key}, reply)
	return reply.GetValue(), err
}

// counterAdd offers the sum helper on a new broker id for the time of one call.
func (s *session) counterAdd(key string, value int64) error {
	id := s.handle.broker.NextId()
	helper := &addHelper{}
	served := make(chan *grpc.Server, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.handle.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
			server := grpc.NewServer(options...)
			server.RegisterService(&addHelperService, helper)
			served <- server
			return server
		})
	}()
	ctx, cancel := s.context()
	defer cancel()
	request := &hostcounterpb.PutRequest{AddServer: id, Key: key, Value: value}
	err := s.handle.conn.Invoke(ctx, "/proto.Counter/Put", request, &hostcounterpb.Empty{})
	select {
	case server := <-served:
		server.Stop()
		<-ended
	case <-time.After(s.opts.callTimeout):
		return errors.Join(err, errors.New("the helper was never served"))
	}
	return err
}

func (s *session) counter() {
	s.step("get-absent", func() (string, error) { return s.counterExpect("apples", 0) })
	s.step("put", func() (string, error) { return "", s.counterAdd("apples", 3) })
	s.step("get", func() (string, error) { return s.counterExpect("apples", 3) })
	s.step("put-again", func() (string, error) { return "", s.counterAdd("apples", -5) })
	s.step("get-again", func() (string, error) { return s.counterExpect("apples", -2) })
	s.ping()
}

func (s *session) counterExpect(key string, expected int64) (string, error) {
	value, err := s.counterGet(key)
	if err != nil {
		// Some plugins report an absent counter as an error.
		if expected == 0 {
			return "error for an absent counter: " + err.Error(), nil
		}
		return "", err
	}
	if value != expected {
		return "", fmt.Errorf("counter %q is %d, not %d", key, value, expected)
	}
	return "", nil
}

// counterCallers has 16 callers add 8 times each, every caller to a counter of its own.
func (s *session) counterCallers() {
	const callers, rounds = 16, 8
	s.step("16-callers", func() (string, error) {
		// Multiplexed brokered connections must be established one at a time.
		var establishing sync.Mutex
		errs := make([]error, callers)
		var group sync.WaitGroup
		for i := range callers {
			group.Add(1)
			go func() {
				defer group.Done()
				key := fmt.Sprintf("caller-%d", i)
				for range rounds {
					if s.opts.mux {
						establishing.Lock()
					}
					err := s.counterAdd(key, int64(i+1))
					if s.opts.mux {
						establishing.Unlock()
					}
					if err != nil {
						errs[i] = fmt.Errorf("%s: %w", key, err)
						return
					}
				}
				_, errs[i] = s.counterExpect(key, int64(i+1)*rounds)
			}()
		}
		group.Wait()
		return fmt.Sprintf("%d calls", callers*rounds), errors.Join(errs...)
	})
}

type addHelper struct{}

// addHelperService is proto.AddHelper, by hand: see the generator on why.
var addHelperService = grpc.ServiceDesc{
	ServiceName: "proto.AddHelper",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Sum",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := &hostcounterpb.SumRequest{}
			if err := decode(request); err != nil {
				return nil, err
			}
			return &hostcounterpb.SumResponse{R: request.GetA() + request.GetB()}, nil
		},
	}},
}

func (s *session) streaming() {
	client := streamingpb.NewStreamerServiceClient(s.handle.conn)
	size := s.opts.bytes
	if size == 0 {
		size = 1 << 20
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 31 >> 3)
	}
	chunk := 512
	if s.opts.maxMessage > 0 && s.opts.maxMessage < 2*chunk {
		chunk = s.opts.maxMessage / 2
	}
	s.step("configure", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		_, err := client.Configure(ctx, &streamingpb.Configure_Request{
			Path: filepath.Join(s.opts.workDir, "stream-data"), ChunkSize: int64(chunk),
		})
		return "", err
	})
	s.step("write", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		stream, err := client.Write(ctx)
		if err != nil {
			return "", err
		}
		for rest := data; len(rest) > 0; {
			part := rest[:min(chunk, len(rest))]
			rest = rest[len(part):]
			if err := stream.Send(&streamingpb.Write_RequestChunk{BytesToWrite: part}); err != nil {
				return "", err
			}
		}
		_, err = stream.CloseAndRecv()
		// A published plugin ends the call with status OK and no message, which this library calls internal.
		if errors.Is(err, io.EOF) || status.Code(err) == codes.Internal && strings.Contains(err.Error(), "cardinality") {
			return "no response message: " + err.Error(), nil
		}
		return "", err
	})
	s.step("read", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		stream, err := client.Read(ctx, &streamingpb.Read_Request{})
		if err != nil {
			return "", err
		}
		var got []byte
		chunks := 0
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return "", err
			}
			chunks++
			if got = append(got, part.GetReadBytes()...); len(got) > len(data) {
				return "", fmt.Errorf("more than the %d bytes written came back", len(data))
			}
		}
		if !bytes.Equal(got, data) {
			return "", fmt.Errorf("%d bytes came back, not the %d written", len(got), len(data))
		}
		return fmt.Sprintf("%d bytes in %d chunks", len(got), chunks), nil
	})
	s.ping()
}

func (s *session) test() grpctestpb.TestClient {
	return grpctestpb.NewTestClient(s.handle.conn)
}

func (s *session) double() {
	s.step("double", func() (string, error) {
		if s.handle.rpc != nil {
			var reply int
			if err := s.callRPC("Double", 21, &reply); err != nil || reply != 42 {
				return "", errors.Join(err, fmt.Errorf("twice 21 is %d", reply))
			}
			return "", nil
		}
		ctx, cancel := s.context()
		defer cancel()
		reply, err := s.test().Double(ctx, &grpctestpb.TestRequest{Input: 21})
		if err != nil {
			return "", err
		}
		if reply.GetOutput() != 42 {
			return "", fmt.Errorf("twice 21 is %d", reply.GetOutput())
		}
		return "", nil
	})
}

func (s *session) bidiStream() {
	s.step("stream", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		stream, err := s.test().Stream(ctx)
		if err != nil {
			return "", err
		}
		for input := int32(21); input <= 26; input++ {
			if err := stream.Send(&grpctestpb.TestRequest{Input: input}); err != nil {
				return "", err
			}
			reply, err := stream.Recv()
			if err != nil {
				return "", err
			}
			if reply.GetOutput() != input {
				return "", fmt.Errorf("sent %d, got %d", input, reply.GetOutput())
			}
		}
		if err := stream.CloseSend(); err != nil {
			return "", err
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("the stream did not end: %v", err)
		}
		return "", nil
	})
}

// bidirectionalOnce has the plugin call the host, then calls the plugin's own brokered server.
func (s *session) bidirectionalOnce() error {
	id := s.handle.broker.NextId()
	served := make(chan *grpc.Server, 1)
	go s.handle.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
		server := testsvc.ServePingPong(options)
		served <- server
		return server
	})
	ctx, cancel := s.context()
	defer cancel()
	reply, err := s.test().Bidirectional(ctx, &grpctestpb.BidirectionalRequest{Id: id})
	select {
	case server := <-served:
		server.Stop()
	case <-time.After(s.opts.callTimeout):
	}
	if err != nil {
		return fmt.Errorf("the plugin calling the host: %w", err)
	}
	conn, err := s.handle.broker.Dial(reply.GetId())
	if err != nil {
		return fmt.Errorf("dialling the plugin's id %d: %w", reply.GetId(), err)
	}
	defer func() { _ = conn.Close() }()
	pong, err := grpctestpb.NewPingPongClient(conn).Ping(ctx, &grpctestpb.PingRequest{})
	if err != nil {
		return fmt.Errorf("calling the plugin's id %d: %w", reply.GetId(), err)
	}
	if pong.GetMsg() != "pong" {
		return fmt.Errorf("the plugin answered %q", pong.GetMsg())
	}
	return nil
}

func (s *session) bidirectional() {
	s.step("bidirectional", func() (string, error) { return "", s.bidirectionalOnce() })
}

func (s *session) bidirectionalMany() {
	s.step("bidirectional-50", func() (string, error) {
		for i := range 50 {
			if err := s.bidirectionalOnce(); err != nil {
				return "", fmt.Errorf("round %d: %w", i, err)
			}
		}
		return "", nil
	})
}

func (s *session) stdio() {
	if s.handle.rpc != nil {
		s.printWords()
		s.readStdin()
		s.ping()
		return
	}
	s.step("stdio", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		stdout := "printed \x00\xff on stdout\n" + strings.Repeat("o", 3000) + "\n"
		stderr := "printed on stderr\n" + strings.Repeat("e", 3000) + "\n"
		_, err := s.test().PrintStdio(ctx, &grpctestpb.PrintStdioRequest{Stdout: []byte(stdout), Stderr: []byte(stderr)})
		if err != nil {
			return "", err
		}
		if err := s.stdout.await(stdout, logWait); err != nil {
			return "", fmt.Errorf("stdout: %w", err)
		}
		if err := s.stderr.await(stderr, logWait); err != nil {
			return "", fmt.Errorf("stderr: %w", err)
		}
		return "", nil
	})
}

func (s *session) printKVOnce(request *grpctestpb.PrintKVRequest, value any) error {
	if s.handle.rpc != nil {
		return s.callRPC("PrintKV", map[string]any{"key": request.GetKey(), "value": value}, &struct{}{})
	}
	ctx, cancel := s.context()
	defer cancel()
	_, err := s.test().PrintKV(ctx, request)
	return err
}

func (s *session) printKV() {
	s.step("printkv", func() (string, error) {
		text := &grpctestpb.PrintKVRequest{Key: "foo", Value: &grpctestpb.PrintKVRequest_ValueString{ValueString: "bar"}}
		if err := s.printKVOnce(text, "bar"); err != nil {
			return "", err
		}
		number := &grpctestpb.PrintKVRequest{Key: "foo", Value: &grpctestpb.PrintKVRequest_ValueInt{ValueInt: 12}}
		if err := s.printKVOnce(number, 12); err != nil {
			return "", err
		}
		for _, expected := range []any{"bar", float64(12)} {
			found := s.logs.await(1, logWait, func(e entry) bool {
				return e.text("@message") == "PrintKV called" && e["foo"] == expected
			})
			if len(found) == 0 {
				return "", fmt.Errorf("no log line with foo=%v", expected)
			}
			if level := found[0].text("@level"); level != "info" {
				return "", fmt.Errorf("foo=%v was logged at %s", expected, level)
			}
		}
		return "", nil
	})
}

// logLevels wants a structured plugin line in the host's log: only those carry the plugin's own time.
func (s *session) logLevels() {
	s.step("log-levels", func() (string, error) {
		found := s.logs.await(1, logWait, func(e entry) bool { return e["timestamp"] != nil })
		if len(found) == 0 {
			return "", errors.New("no structured line of the plugin in the log")
		}
		return fmt.Sprintf("%s: %s", found[0].text("@level"), found[0].text("@message")), nil
	})
}

// logFacade wants what the plugin logs through its language's common logging interface.
func (s *session) logFacade() {
	s.step("log-facade", func() (string, error) {
		const message = "logged by a library"
		text := &grpctestpb.PrintKVRequest{Key: "log", Value: &grpctestpb.PrintKVRequest_ValueString{ValueString: message}}
		if err := s.printKVOnce(text, message); err != nil {
			return "", err
		}
		found := s.logs.await(1, logWait, func(e entry) bool { return e.text("@message") == message })
		if len(found) == 0 {
			return "", errors.New("no record of the library")
		}
		e := found[0]
		if e.text("@level") != "warn" || e["count"] != float64(3) || e.text("by") != "log" {
			return "", fmt.Errorf("the record is %v", e)
		}
		return "", nil
	})
}

func (s *session) panics() {
	const message = "interop panic message"
	s.step("panic", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		_, err := s.test().Panic(ctx, &grpctestpb.PanicRequest{Message: message})
		if err == nil {
			return "", errors.New("the call succeeded")
		}
		first := s.logs.await(1, logWait, func(e entry) bool {
			return e.text("@level") == "error" && strings.HasPrefix(e.text("@message"), "panic: ") &&
				strings.Contains(e.text("@message"), message)
		})
		if len(first) == 0 {
			return "", errors.New("no error line starts with \"panic: \" and holds the message")
		}
		module := first[0].text("@module")
		lines := s.logs.await(s.opts.minPanicLines, logWait, func(e entry) bool {
			return e.text("@level") == "error" && e.text("@module") == module
		})
		if len(lines) < s.opts.minPanicLines {
			return "", fmt.Errorf("only %d error lines", len(lines))
		}
		return fmt.Sprintf("%d error lines; the call failed with %s", len(lines), status.Code(err)), nil
	})
}

// grpctest is everything the test service offers short of the panic.
func (s *session) grpctest() {
	s.double()
	s.printKV()
	if s.handle != nil && s.handle.conn != nil {
		s.bidiStream()
		s.bidirectional()
		s.stdio()
	}
	s.ping()
}

func (s *session) list() {
	s.step("list", func() (string, error) {
		dir := s.opts.listDir
		if dir == "" {
			dir = filepath.Join(s.private, "l")
			if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o755); err != nil {
				return "", err
			}
			if err := os.WriteFile(filepath.Join(dir, "file.txt"), []byte("text"), 0o644); err != nil {
				return "", err
			}
		}
		id := s.handle.broker.NextId()
		service := &hostService{root: dir}
		go s.handle.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
			server := grpc.NewServer(options...)
			hostservepb.RegisterHostServiceServer(server, service)
			return server
		})
		client := filelisterpb.NewFileListerClient(s.handle.conn)
		ctx, cancel := s.context()
		defer cancel()
		established, err := client.EstablishHostServices(ctx, &filelisterpb.HostServiceRequest{HostService: id})
		if err != nil {
			return "", err
		}
		if established.Error != nil {
			return "", errors.New(established.GetError())
		}
		listed, err := client.List(ctx, &filelisterpb.FileListRequest{RootDir: dir, Path: ".", HostService: id})
		if err != nil {
			return "", err
		}
		if listed.Error != nil {
			return "", errors.New(listed.GetError())
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}
		if len(listed.GetEntry()) < len(names) {
			return "", fmt.Errorf("%d of %d entries: %q", len(listed.GetEntry()), len(names), listed.GetEntry())
		}
		if len(service.missing) > 0 {
			return "", fmt.Errorf("calls without metadata: %q", service.missing)
		}
		shown := listed.GetEntry()
		return fmt.Sprintf("client %q; %d entries: %q", established.GetClientId(), len(shown), shown[:min(10, len(shown))]), nil
	})
	s.step("list-absent", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		listed, err := filelisterpb.NewFileListerClient(s.handle.conn).List(ctx, &filelisterpb.FileListRequest{Path: "no-such-folder"})
		if err != nil {
			return "", err
		}
		if listed.Error == nil {
			return "", errors.New("no error for an absent folder")
		}
		return listed.GetError(), nil
	})
}

func (s *session) reflection() {
	s.step("reflection", func() (string, error) {
		ctx, cancel := s.context()
		defer cancel()
		stream, err := reflectionpb.NewServerReflectionClient(s.handle.conn).ServerReflectionInfo(ctx)
		if err != nil {
			return "", err
		}
		names, err := listServices(stream)
		if err != nil {
			return "", err
		}
		// The v1alpha service has the same messages.
		alpha, err := s.handle.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
		if err != nil {
			return "", err
		}
		alphaNames, err := listServices(&grpc.GenericClientStream[reflectionpb.ServerReflectionRequest, reflectionpb.ServerReflectionResponse]{ClientStream: alpha})
		if err != nil {
			return "", fmt.Errorf("v1alpha: %w", err)
		}
		for _, expected := range []string{
			"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
			"plugin.GRPCBroker", "plugin.GRPCController", "plugin.GRPCStdio",
		} {
			if !contains(names, expected) || !contains(alphaNames, expected) {
				return "", fmt.Errorf("%s is not listed: v1 %q, v1alpha %q", expected, names, alphaNames)
			}
		}
		return strings.Join(names, " "), nil
	})
}

type reflectionStream interface {
	Send(*reflectionpb.ServerReflectionRequest) error
	Recv() (*reflectionpb.ServerReflectionResponse, error)
	CloseSend() error
}

func listServices(stream reflectionStream) ([]string, error) {
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"},
	}); err != nil {
		return nil, err
	}
	reply, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, service := range reply.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	sort.Strings(names)
	return names, stream.CloseSend()
}

// reattach makes a second client for the running process, which then also ends it.
func (s *session) reattach() {
	if s.opts.autoMTLS || s.opts.mux {
		s.step("reattach", func() (string, error) { return "", errors.New("not possible with -auto-mtls or -mux") })
		return
	}
	var second *plugin.Client
	if s.opts.service == "kv" {
		s.step("put", func() (string, error) { return "", s.kvPut("kept", []byte("value")) })
	}
	s.step("reattach", func() (string, error) {
		at := s.client.ReattachConfig()
		if at == nil {
			return "", errors.New("no reattach configuration")
		}
		config := s.config()
		config.Cmd, config.RunnerFunc, config.SecureConfig, config.UnixSocketConfig = nil, nil, nil, nil
		config.Reattach = at
		config.Plugins, config.VersionedPlugins = plugin.PluginSet{s.opts.dispense: hostPlugin{}}, nil
		second = plugin.NewClient(config)
		proto, err := second.Client()
		if err != nil {
			return "", err
		}
		if err := proto.Ping(); err != nil {
			return "", err
		}
		if s.opts.service != "kv" && s.info.check == nil {
			return "", nil
		}
		raw, err := proto.Dispense(s.opts.dispense)
		if err != nil {
			return "", err
		}
		first := s.handle
		s.handle = raw.(*handle)
		defer func() { s.handle = first }()
		if s.info.check != nil {
			return "", s.check()
		}
		return s.kvExpect("kept", []byte("value"))
	})
	s.step("first-still-works", func() (string, error) { return "", errors.Join(s.check(), s.proto.Ping()) })
	if second == nil {
		return
	}
	s.step("kill-reattached", func() (string, error) {
		begun := time.Now()
		second.Kill()
		if !second.Exited() {
			return "", errors.New("the reattached client does not see the exit")
		}
		return fmt.Sprintf("%.0f ms", millis(begun)), s.awaitExit()
	})
}

func (s *session) awaitExit() error {
	deadline := time.Now().Add(logWait)
	for !s.client.Exited() {
		if time.Now().After(deadline) {
			return errors.New("the first client does not see the exit")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// killTimes starts and kills the same program five more times.
func (s *session) killTimes() {
	for i := range 5 {
		s.step(fmt.Sprintf("kill-%d", i+1), func() (string, error) {
			client := plugin.NewClient(s.config())
			defer client.Kill()
			proto, err := client.Client()
			if err != nil {
				return "", err
			}
			if err := proto.Ping(); err != nil {
				return "", err
			}
			warned := len(s.logs.find(unpolite))
			begun := time.Now()
			client.Kill()
			took := time.Since(begun)
			forced, quitError := forcedBy(s.logs.find(unpolite)[warned:])
			if !client.Exited() {
				return "", errors.New("not exited after Kill")
			}
			if took >= 2*time.Second {
				return "", fmt.Errorf("took %s: the plugin had to be forced", took)
			}
			client.Kill()
			if forced && s.opts.forbidForced {
				return "", fmt.Errorf("the plugin had to be forced: %s", quitError)
			}
			how := "graceful"
			if forced {
				how = "forced: " + quitError
			}
			return fmt.Sprintf("%.1f ms, %s", float64(took.Microseconds())/1000, how), nil
		})
	}
}

// waitExit is for plugins that end by themselves.
func (s *session) waitExit() {
	s.step("wait-exit", func() (string, error) {
		if err := s.awaitExit(); err != nil {
			return "", err
		}
		unclean := s.logs.find(func(e entry) bool {
			return e.text("@level") == "error" && e.text("@message") == "plugin process exited"
		})
		if len(unclean) > 0 {
			return "", fmt.Errorf("the plugin ended with %v", unclean[0]["error"])
		}
		return excerpt(s.rawStderr.String()), nil
	})
}

// crash kills the process and wants the exit context cancelled in time.
func (s *session) crash() {
	s.step("crash", func() (string, error) {
		if err := s.killNow(); err != nil {
			return "", err
		}
		begun := time.Now()
		if err := s.exitSeen(2 * time.Second); err != nil {
			return "", err
		}
		detail := fmt.Sprintf("noticed after %.1f ms", millis(begun))
		if err := s.proto.Ping(); err == nil {
			return "", errors.New("a ping still works")
		}
		return detail, s.awaitExit()
	})
}

func (s *session) killNow() error {
	return syscall.Kill(s.result.PID, syscall.SIGKILL)
}

func (s *session) sigint() {
	s.step("sigint", func() (string, error) {
		for range 3 {
			if err := syscall.Kill(s.result.PID, syscall.SIGINT); err != nil {
				return "", err
			}
			// Signals of one kind merge while pending; a ping in between lets each arrive.
			if err := s.proto.Ping(); err != nil {
				return "", err
			}
		}
		return "", nil
	})
}
