// Command bench-plugin is the Go plugin that the benchmarks call: over gRPC, or over net/rpc where
// the environment says OUTRIGGER_BENCH_PROTOCOL=netrpc.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/benchpb"
	"outrigger.dev/interop/internal/rpcsvc"
)

const (
	readSize = 4096
	// readSpan is the part of the host's file that single reads walk through.
	readSpan   = 16 << 20
	maxChunk   = 1 << 20
	maxReads   = 1 << 20
	streamPart = 64 << 10
)

func main() {
	config := &plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "OUTRIGGER_BENCH",
			MagicCookieValue: "bench",
		},
		Plugins:    plugin.PluginSet{"bench": &benchPlugin{}},
		GRPCServer: plugin.DefaultGRPCServer,
	}
	if os.Getenv("OUTRIGGER_BENCH_PROTOCOL") == "netrpc" {
		config.Plugins = plugin.PluginSet{"bench": rpcsvc.Bench()}
		config.GRPCServer = nil
	}
	plugin.Serve(config)
}

type benchPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (*benchPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	benchpb.RegisterBenchServer(server, &bench{broker: broker})
	return nil
}

func (*benchPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type bench struct {
	benchpb.UnimplementedBenchServer
	broker *plugin.GRPCBroker
}

func (*bench) Echo(_ context.Context, payload *benchpb.Payload) (*benchpb.Payload, error) {
	return payload, nil
}

func (*bench) Down(request *benchpb.StreamRequest, stream grpc.ServerStreamingServer[benchpb.Payload]) error {
	if request.GetChunk() < 1 || request.GetChunk() > maxChunk {
		return status.Errorf(codes.InvalidArgument, "chunk %d is not between 1 and %d", request.GetChunk(), maxChunk)
	}
	chunk := make([]byte, request.GetChunk())
	for left := request.GetBytes(); left > 0; {
		part := min(left, uint64(len(chunk)))
		if err := stream.Send(&benchpb.Payload{Data: chunk[:part]}); err != nil {
			return err
		}
		left -= part
	}
	return nil
}

func (*bench) Up(stream grpc.ClientStreamingServer[benchpb.Payload, benchpb.StreamReply]) error {
	var total uint64
	for {
		payload, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&benchpb.StreamReply{Bytes: total})
		}
		if err != nil {
			return err
		}
		total += uint64(len(payload.GetData()))
	}
}

func (b *bench) CallBack(ctx context.Context, request *benchpb.CallbackRequest) (*benchpb.CallbackReply, error) {
	conn, err := b.broker.Dial(request.GetBrokerId())
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "dialling the host: %v", err)
	}
	defer func() { _ = conn.Close() }()
	host := benchpb.NewBenchHostClient(conn)
	switch request.GetKind() {
	case "read4k":
		return readOneByOne(ctx, host, request.GetCount())
	case "stream":
		return readStream(ctx, host, request.GetBytes())
	default:
		return nil, status.Errorf(codes.InvalidArgument, "unknown kind %q", request.GetKind())
	}
}

func readOneByOne(ctx context.Context, host benchpb.BenchHostClient, count uint32) (*benchpb.CallbackReply, error) {
	if count > maxReads {
		return nil, status.Errorf(codes.InvalidArgument, "count %d is above %d", count, maxReads)
	}
	reply := &benchpb.CallbackReply{Nanos: make([]uint64, 0, count)}
	for i := range uint64(count) {
		begun := time.Now()
		payload, err := host.Read(ctx, &benchpb.ReadRequest{Offset: i * readSize % readSpan, Length: readSize})
		if err != nil {
			return nil, err
		}
		reply.Nanos = append(reply.Nanos, uint64(time.Since(begun)))
		reply.Bytes += uint64(len(payload.GetData()))
	}
	return reply, nil
}

func readStream(ctx context.Context, host benchpb.BenchHostClient, length uint64) (*benchpb.CallbackReply, error) {
	begun := time.Now()
	stream, err := host.ReadStream(ctx, &benchpb.ReadRequest{Length: length, Chunk: streamPart})
	if err != nil {
		return nil, err
	}
	reply := &benchpb.CallbackReply{}
	for {
		payload, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			reply.Nanos = []uint64{uint64(time.Since(begun))}
			return reply, nil
		}
		if err != nil {
			return nil, err
		}
		reply.Bytes += uint64(len(payload.GetData()))
	}
}
