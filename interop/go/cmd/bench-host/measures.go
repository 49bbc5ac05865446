package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/benchpb"
	"outrigger.dev/interop/internal/contract"
)

var measureNames = []string{
	"grpc.unary.p50", "grpc.unary.p99", "grpc.calls64", "grpc.stream.down", "grpc.stream.up",
	"grpc.mtls.unary.p50", "grpc.start", "grpc.mtls.start", "callback.read4k", "callback.stream",
	"rss.plugin", "rss.host.per_plugin",
	"netrpc.unary.p50", "netrpc.unary.p99", "netrpc.calls64", "netrpc.stream", "netrpc.start", "netrpc.rss.plugin",
}

// way is how the plugin is spoken to.
type way int

const (
	plain way = iota
	mtls
	netRPC
)

const maxFileRead = 1 << 20

// bench keeps one plugin per way for the measures that need no fresh one.
type bench struct {
	program  string
	args     []string
	autoMTLS bool
	mux      bool
	inChild  bool

	peers [netRPC + 1]*peer
	file  *os.File
	size  int64
}

// peer is a running plugin: bench and broker are there over gRPC, rpc and mux over net/rpc.
type peer struct {
	client *plugin.Client
	bench  benchpb.BenchClient
	broker *plugin.GRPCBroker
	rpc    *rpc.Client
	mux    *plugin.MuxBroker
	pid    int
}

func (b *bench) close() {
	for _, p := range b.peers {
		if p != nil {
			p.client.Kill()
		}
	}
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name())
	}
}

type hostPlugin struct{}

func (hostPlugin) Server(*plugin.MuxBroker) (any, error) {
	return nil, errors.New("this program is a host")
}

func (hostPlugin) Client(broker *plugin.MuxBroker, client *rpc.Client) (any, error) {
	return &peer{rpc: client, mux: broker}, nil
}

func (hostPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this program is a host")
}

func (hostPlugin) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &peer{bench: benchpb.NewBenchClient(conn), broker: broker}, nil
}

func (b *bench) launch(how way) (*peer, error) {
	program := exec.Command(b.program, b.args...)
	protocol := plugin.ProtocolGRPC
	if how == netRPC {
		program.Env = []string{"OUTRIGGER_BENCH_PROTOCOL=netrpc"}
		protocol = plugin.ProtocolNetRPC
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "OUTRIGGER_BENCH",
			MagicCookieValue: "bench",
		},
		Plugins:             plugin.PluginSet{"bench": hostPlugin{}},
		Cmd:                 program,
		AllowedProtocols:    []plugin.Protocol{protocol},
		AutoMTLS:            how == mtls || b.autoMTLS,
		GRPCBrokerMultiplex: b.mux,
		Managed:             true,
		Logger:              hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
	proto, err := client.Client()
	if err != nil {
		client.Kill()
		return nil, err
	}
	raw, err := proto.Dispense("bench")
	if err != nil {
		client.Kill()
		return nil, err
	}
	p := raw.(*peer)
	p.client = client
	p.pid, _ = strconv.Atoi(client.ID())
	return p, nil
}

// peer returns the plugin that is kept for a way.
func (b *bench) peer(how way) (*peer, error) {
	if b.peers[how] == nil {
		started, err := b.launch(how)
		if err != nil {
			return nil, err
		}
		b.peers[how] = started
	}
	return b.peers[how], nil
}

func (b *bench) measure(name string, work *sizes) (answer, error) {
	switch name {
	case "grpc.unary.p50", "grpc.unary.p99":
		return b.unary(plain, name, work)
	case "grpc.mtls.unary.p50", "grpc.mtls.unary.p99":
		return b.unary(mtls, name, work)
	case "netrpc.unary.p50", "netrpc.unary.p99":
		return b.unary(netRPC, name, work)
	case "grpc.calls64":
		return b.concurrent(plain, work)
	case "netrpc.calls64":
		return b.concurrent(netRPC, work)
	case "grpc.stream.down":
		return b.stream(plain, work, streamDown)
	case "grpc.stream.up":
		return b.stream(plain, work, streamUp)
	case "netrpc.stream":
		return b.stream(netRPC, work, brokerStream)
	case "grpc.start":
		return b.start(plain, work)
	case "grpc.mtls.start":
		return b.start(mtls, work)
	case "netrpc.start":
		return b.start(netRPC, work)
	case "callback.read4k", "callback.stream":
		return b.callback(strings.TrimPrefix(name, "callback."), work)
	case "rss.plugin":
		return b.pluginMemory(plain, work)
	case "netrpc.rss.plugin":
		return b.pluginMemory(netRPC, work)
	case "rss.host.per_plugin":
		if b.inChild {
			return b.hostMemory(work)
		}
		return b.hostMemoryInChild(work)
	default:
		return answer{}, fmt.Errorf("unknown measure %q, known: %s", name, strings.Join(measureNames, " "))
	}
}

func (p *peer) echo(payload []byte) error {
	if p.rpc != nil {
		var reply []byte
		if err := p.rpc.Call("Plugin.Echo", payload, &reply); err != nil {
			return err
		}
		if len(reply) != len(payload) {
			return fmt.Errorf("sent %d bytes, got %d back", len(payload), len(reply))
		}
		return nil
	}
	reply, err := p.bench.Echo(context.Background(), &benchpb.Payload{Data: payload})
	if err != nil {
		return err
	}
	if len(reply.GetData()) != len(payload) {
		return fmt.Errorf("sent %d bytes, got %d back", len(payload), len(reply.GetData()))
	}
	return nil
}

func (p *peer) echoes(count, size int) error {
	payload := make([]byte, size)
	for range count {
		if err := p.echo(payload); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) unary(how way, name string, work *sizes) (answer, error) {
	p, err := b.peer(how)
	if err != nil {
		return answer{}, err
	}
	if err := p.echoes(work.Warmup, work.Payload); err != nil {
		return answer{}, err
	}
	payload := make([]byte, work.Payload)
	times := make([]time.Duration, 0, work.Calls)
	for range work.Calls {
		begun := time.Now()
		if err := p.echo(payload); err != nil {
			return answer{}, err
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	prefix, asked := name[:len(name)-len("p50")], name[len(name)-len("p50"):]
	values := map[string]float64{"p50": micros(quantile(times, 0.5)), "p99": micros(quantile(times, 0.99))}
	other := map[string]string{"p50": "p99", "p99": "p50"}[asked]
	return answer{Value: values[asked], Unit: "us", Also: map[string]float64{prefix + other: values[other]}}, nil
}

func (b *bench) concurrent(how way, work *sizes) (answer, error) {
	p, err := b.peer(how)
	if err != nil {
		return answer{}, err
	}
	round := func(total int) error {
		var left atomic.Int64
		left.Store(int64(total))
		errs := make([]error, work.Callers)
		var group sync.WaitGroup
		for i := range work.Callers {
			group.Add(1)
			go func() {
				defer group.Done()
				payload := make([]byte, work.Payload)
				for left.Add(-1) >= 0 {
					if errs[i] = p.echo(payload); errs[i] != nil {
						return
					}
				}
			}()
		}
		group.Wait()
		return errors.Join(errs...)
	}
	if err := round(work.Warmup); err != nil {
		return answer{}, err
	}
	total := 4 * work.Calls
	begun := time.Now()
	if err := round(total); err != nil {
		return answer{}, err
	}
	return answer{Value: float64(total) / time.Since(begun).Seconds(), Unit: "calls/s"}, nil
}

func (b *bench) stream(how way, work *sizes, transfer func(*peer, uint64, uint32) (uint64, error)) (answer, error) {
	p, err := b.peer(how)
	if err != nil {
		return answer{}, err
	}
	// The first megabytes open the flow control windows.
	if _, err := transfer(p, min(work.Bytes, 16<<20), work.Chunk); err != nil {
		return answer{}, err
	}
	begun := time.Now()
	moved, err := transfer(p, work.Bytes, work.Chunk)
	if err != nil {
		return answer{}, err
	}
	if moved != work.Bytes {
		return answer{}, fmt.Errorf("%d bytes arrived, not %d", moved, work.Bytes)
	}
	return answer{Value: gigabytes(moved, time.Since(begun)), Unit: "GB/s"}, nil
}

func streamDown(p *peer, size uint64, chunk uint32) (uint64, error) {
	stream, err := p.bench.Down(context.Background(), &benchpb.StreamRequest{Bytes: size, Chunk: chunk})
	if err != nil {
		return 0, err
	}
	var total uint64
	for {
		payload, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		total += uint64(len(payload.GetData()))
	}
}

func streamUp(p *peer, size uint64, chunk uint32) (uint64, error) {
	stream, err := p.bench.Up(context.Background())
	if err != nil {
		return 0, err
	}
	data := make([]byte, chunk)
	for left := size; left > 0; {
		part := min(left, uint64(chunk))
		if err := stream.Send(&benchpb.Payload{Data: data[:part]}); err != nil {
			return 0, err
		}
		left -= part
	}
	reply, err := stream.CloseAndRecv()
	return reply.GetBytes(), err
}

// brokerStream counts the raw bytes that the plugin writes to a brokered stream.
func brokerStream(p *peer, size uint64, chunk uint32) (uint64, error) {
	type end struct {
		moved uint64
		err   error
	}
	id := p.mux.NextId()
	ended := make(chan end, 1)
	go func() {
		conn, err := p.mux.Accept(id)
		if err != nil {
			ended <- end{0, err}
			return
		}
		defer func() { _ = conn.Close() }()
		buffer := make([]byte, chunk)
		var moved uint64
		for {
			n, err := conn.Read(buffer)
			moved += uint64(n)
			if errors.Is(err, io.EOF) {
				ended <- end{moved, nil}
				return
			}
			if err != nil {
				ended <- end{moved, err}
				return
			}
		}
	}()
	var written uint64
	err := p.rpc.Call("Plugin.Produce", contract.Wanted{ID: id, Bytes: size}, &written)
	read := <-ended
	return read.moved, errors.Join(err, read.err)
}

// start measures from launching the process to the first reply. Stopping is not measured.
func (b *bench) start(how way, work *sizes) (answer, error) {
	times := make([]time.Duration, 0, work.Starts)
	payload := make([]byte, work.Payload)
	for range work.Starts {
		begun := time.Now()
		p, err := b.launch(how)
		if err != nil {
			return answer{}, err
		}
		err = p.echo(payload)
		times = append(times, time.Since(begun))
		p.client.Kill()
		if err != nil {
			return answer{}, err
		}
	}
	slices.Sort(times)
	return answer{Value: micros(quantile(times, 0.5)) / 1000, Unit: "ms"}, nil
}

// callback serves a real file to the plugin, which does the measuring.
func (b *bench) callback(kind string, work *sizes) (answer, error) {
	p, err := b.peer(plain)
	if err != nil {
		return answer{}, err
	}
	if err := b.openFile(work.FileSize); err != nil {
		return answer{}, err
	}
	call := func(count uint32, size uint64) (*benchpb.CallbackReply, error) {
		id := p.broker.NextId()
		served := make(chan *grpc.Server, 1)
		go p.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
			server := grpc.NewServer(options...)
			benchpb.RegisterBenchHostServer(server, &fileServer{file: b.file, size: b.size})
			served <- server
			return server
		})
		reply, err := p.bench.CallBack(context.Background(),
			&benchpb.CallbackRequest{BrokerId: id, Kind: kind, Count: count, Bytes: size})
		select {
		case server := <-served:
			server.Stop()
		case <-time.After(5 * time.Second):
		}
		return reply, err
	}
	if _, err := call(uint32(work.Warmup), min(work.Bytes, 16<<20)); err != nil {
		return answer{}, err
	}
	reply, err := call(work.Reads, work.Bytes)
	if err != nil {
		return answer{}, err
	}
	if kind == "stream" {
		if reply.GetBytes() != work.Bytes || len(reply.GetNanos()) != 1 {
			return answer{}, fmt.Errorf("%d bytes arrived, not %d", reply.GetBytes(), work.Bytes)
		}
		return answer{Value: gigabytes(reply.GetBytes(), time.Duration(reply.GetNanos()[0])), Unit: "GB/s"}, nil
	}
	if len(reply.GetNanos()) != int(work.Reads) {
		return answer{}, fmt.Errorf("%d reads were made, not %d", len(reply.GetNanos()), work.Reads)
	}
	times := make([]time.Duration, 0, len(reply.GetNanos()))
	for _, nanos := range reply.GetNanos() {
		times = append(times, time.Duration(nanos))
	}
	slices.Sort(times)
	return answer{Value: micros(quantile(times, 0.5)), Unit: "us",
		Also: map[string]float64{"callback.read4k.p99": micros(quantile(times, 0.99))}}, nil
}

func (b *bench) openFile(size int64) error {
	if b.file != nil && b.size == size {
		return nil
	}
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name())
		b.file = nil
	}
	file, err := os.CreateTemp("", "outrigger-bench")
	if err != nil {
		return err
	}
	b.file, b.size = file, size
	part := bytes.Repeat([]byte("outrigger bench "), 64<<10)
	for written := int64(0); written < size; written += int64(len(part)) {
		if _, err := file.Write(part[:min(int64(len(part)), size-written)]); err != nil {
			return err
		}
	}
	return nil
}

type fileServer struct {
	benchpb.UnimplementedBenchHostServer
	file *os.File
	size int64
}

func (s *fileServer) Read(_ context.Context, request *benchpb.ReadRequest) (*benchpb.Payload, error) {
	if request.GetLength() > maxFileRead {
		return nil, status.Errorf(codes.InvalidArgument, "length %d is above %d", request.GetLength(), maxFileRead)
	}
	data := make([]byte, request.GetLength())
	n, err := s.file.ReadAt(data, int64(request.GetOffset()%uint64(s.size)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &benchpb.Payload{Data: data[:n]}, nil
}

// ReadStream sends length bytes, beginning again where the file ends.
func (s *fileServer) ReadStream(request *benchpb.ReadRequest, stream grpc.ServerStreamingServer[benchpb.Payload]) error {
	if request.GetChunk() < 1 || request.GetChunk() > maxFileRead {
		return status.Errorf(codes.InvalidArgument, "chunk %d is not between 1 and %d", request.GetChunk(), maxFileRead)
	}
	data := make([]byte, request.GetChunk())
	offset := request.GetOffset() % uint64(s.size)
	for left := request.GetLength(); left > 0; {
		n, err := s.file.ReadAt(data[:min(left, uint64(len(data)))], int64(offset))
		if n == 0 && err != nil && !errors.Is(err, io.EOF) {
			return status.Error(codes.Internal, err.Error())
		}
		if offset = offset + uint64(n); offset >= uint64(s.size) {
			offset = 0
		}
		left -= uint64(n)
		if err := stream.Send(&benchpb.Payload{Data: data[:n]}); err != nil {
			return err
		}
	}
	return nil
}

// pluginMemory is the resident size of a fresh plugin after a thousand calls.
func (b *bench) pluginMemory(how way, work *sizes) (answer, error) {
	p, err := b.launch(how)
	if err != nil {
		return answer{}, err
	}
	defer p.client.Kill()
	if err := p.echoes(1000, work.Payload); err != nil {
		return answer{}, err
	}
	kib, err := residentKiB(p.pid)
	return answer{Value: kib / 1024, Unit: "MiB"}, err
}

// hostMemory is how much this process grows per further idle plugin.
func (b *bench) hostMemory(work *sizes) (answer, error) {
	var peers []*peer
	defer func() {
		for _, p := range peers {
			p.client.Kill()
		}
	}()
	another := func() error {
		p, err := b.launch(plain)
		if err != nil {
			return err
		}
		peers = append(peers, p)
		return p.echoes(1, work.Payload)
	}
	// The first two bring in what all plugins share.
	for range 2 {
		if err := another(); err != nil {
			return answer{}, err
		}
	}
	debug.FreeOSMemory()
	before, err := residentKiB(os.Getpid())
	if err != nil {
		return answer{}, err
	}
	for range work.Plugins {
		if err := another(); err != nil {
			return answer{}, err
		}
	}
	debug.FreeOSMemory()
	after, err := residentKiB(os.Getpid())
	return answer{Value: (after - before) / float64(work.Plugins), Unit: "KiB"}, err
}

// hostMemoryInChild measures in a fresh process, whose heap no other measure has grown.
func (b *bench) hostMemoryInChild(work *sizes) (answer, error) {
	self, err := os.Executable()
	if err != nil {
		return answer{}, err
	}
	arguments := []string{
		"-child", "-plugin", b.program, "-measures", "rss.host.per_plugin", "-plugins", strconv.Itoa(work.Plugins),
		"-auto-mtls=" + strconv.FormatBool(b.autoMTLS), "-mux=" + strconv.FormatBool(b.mux), "--",
	}
	child := exec.Command(self, append(arguments, b.args...)...)
	child.Stderr = os.Stderr
	output, err := child.Output()
	if err != nil {
		return answer{}, fmt.Errorf("%w: %s", err, output)
	}
	var result answer
	err = json.Unmarshal(output, &result)
	return result, err
}

func residentKiB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, errors.New("no VmRSS")
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func micros(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1000
}

func gigabytes(count uint64, took time.Duration) float64 {
	return float64(count) / took.Seconds() / 1e9
}
