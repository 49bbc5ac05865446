// Command streamer is the streaming plugin: it writes a stream of chunks to the configured file
// and reads the file back in chunks.
//
// With the argument omit-write-response the Write call ends with status OK and without its
// response message, as some published plugins do.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/streamingpb"
)

const maxChunk = 1 << 20

func main() {
	omit := len(os.Args) > 1 && os.Args[1] == "omit-write-response"
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "BASIC_PLUGIN",
			MagicCookieValue: "hello",
		},
		Plugins:    plugin.PluginSet{"streamer": &streamerPlugin{omitWriteResponse: omit}},
		GRPCServer: plugin.DefaultGRPCServer,
	})
}

type streamerPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	omitWriteResponse bool
}

func (p *streamerPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	streamingpb.RegisterStreamerServiceServer(server, &streamer{omitWriteResponse: p.omitWriteResponse})
	return nil
}

func (*streamerPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type streamer struct {
	streamingpb.UnimplementedStreamerServiceServer
	omitWriteResponse bool

	mu    sync.Mutex
	path  string
	chunk int
}

func (s *streamer) Configure(_ context.Context, request *streamingpb.Configure_Request) (*streamingpb.Configure_Response, error) {
	if request.GetChunkSize() < 1 || request.GetChunkSize() > maxChunk {
		return nil, status.Errorf(codes.InvalidArgument, "chunk size %d is not between 1 and %d", request.GetChunkSize(), maxChunk)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path, s.chunk = request.GetPath(), int(request.GetChunkSize())
	return &streamingpb.Configure_Response{}, nil
}

func (s *streamer) configured() (string, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" {
		return "", 0, status.Error(codes.FailedPrecondition, "Configure was not called")
	}
	return s.path, s.chunk, nil
}

func (s *streamer) Read(_ *streamingpb.Read_Request, stream grpc.ServerStreamingServer[streamingpb.Read_ResponseChunk]) error {
	path, chunk, err := s.configured()
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return status.Error(codes.NotFound, err.Error())
	}
	defer func() { _ = file.Close() }()
	buffer := make([]byte, chunk)
	for {
		n, err := io.ReadFull(file, buffer)
		if n > 0 {
			if err := stream.Send(&streamingpb.Read_ResponseChunk{ReadBytes: buffer[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return status.Error(codes.Internal, err.Error())
		}
	}
}

func (s *streamer) Write(stream grpc.ClientStreamingServer[streamingpb.Write_RequestChunk, streamingpb.Write_Response]) error {
	path, _, err := s.configured()
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	defer func() { _ = file.Close() }()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := file.Write(chunk.GetBytesToWrite()); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
	if err := file.Close(); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if s.omitWriteResponse {
		return nil
	}
	return stream.SendAndClose(&streamingpb.Write_Response{})
}
