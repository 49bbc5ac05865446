// Command counter is the bidirectional plugin: to add a value it calls the sum helper that the
// host serves on a broker id. Each counter lives in the file counter_KEY of the working directory.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/counterpb"
	"outrigger.dev/interop/internal/filestore"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "BASIC_PLUGIN",
			MagicCookieValue: "hello",
		},
		Plugins:    plugin.PluginSet{"counter": &counterPlugin{}},
		GRPCServer: plugin.DefaultGRPCServer,
	})
}

type counterPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (*counterPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	counterpb.RegisterCounterServer(server, &counterServer{
		broker: broker,
		store:  filestore.New("counter_"),
	})
	return nil
}

func (*counterPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type counterServer struct {
	counterpb.UnimplementedCounterServer
	broker *plugin.GRPCBroker
	store  *filestore.Store
}

func (s *counterServer) Get(_ context.Context, request *counterpb.GetRequest) (*counterpb.GetResponse, error) {
	value, err := s.store.Get(request.GetKey())
	if errors.Is(err, fs.ErrNotExist) {
		return &counterpb.GetResponse{}, nil
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &counterpb.GetResponse{Value: decode(value)}, nil
}

func (s *counterServer) Put(ctx context.Context, request *counterpb.PutRequest) (*counterpb.Empty, error) {
	conn, err := s.broker.Dial(request.GetAddServer())
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "dialling the sum helper: %v", err)
	}
	defer func() { _ = conn.Close() }()
	helper := counterpb.NewAddHelperClient(conn)

	err = s.store.Update(request.GetKey(), func(old []byte) ([]byte, error) {
		sum, err := helper.Sum(ctx, &counterpb.SumRequest{A: decode(old), B: request.GetValue()})
		if err != nil {
			return nil, err
		}
		return encode(sum.GetR()), nil
	})
	if err != nil {
		return nil, status.Convert(err).Err()
	}
	return &counterpb.Empty{}, nil
}

func decode(stored []byte) int64 {
	if len(stored) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(stored))
}

func encode(value int64) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(value))
}
