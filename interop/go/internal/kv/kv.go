// Package kv is the key-value plugin, over gRPC (proto.KV) and over net/rpc.
package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/rpc"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/kvpb"
	"outrigger.dev/interop/internal/filestore"
)

// Handshake is the one of the upstream key-value example.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "BASIC_PLUGIN",
	MagicCookieValue: "hello",
}

// RPCPlugin serves the store over net/rpc only.
type RPCPlugin struct {
	Store *filestore.Store
}

// Server returns the object whose methods are served.
func (p *RPCPlugin) Server(*plugin.MuxBroker) (any, error) {
	return &rpcServer{store: p.Store}, nil
}

// Client is not offered: these types are for plugins.
func (*RPCPlugin) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("this program is a plugin")
}

// GRPCPlugin serves the store over gRPC only.
type GRPCPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	Store *filestore.Store
}

// GRPCServer registers proto.KV.
func (p *GRPCPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	kvpb.RegisterKVServer(server, &grpcServer{store: p.Store})
	return nil
}

// GRPCClient is not offered: these types are for plugins.
func (*GRPCPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type grpcServer struct {
	kvpb.UnimplementedKVServer
	store *filestore.Store
}

func (s *grpcServer) Get(_ context.Context, request *kvpb.GetRequest) (*kvpb.GetResponse, error) {
	value, err := s.store.Get(request.GetKey())
	if err != nil {
		return nil, storeStatus(request.GetKey(), err)
	}
	return &kvpb.GetResponse{Value: value}, nil
}

func (s *grpcServer) Put(_ context.Context, request *kvpb.PutRequest) (*kvpb.Empty, error) {
	if err := s.store.Put(request.GetKey(), request.GetValue()); err != nil {
		return nil, storeStatus(request.GetKey(), err)
	}
	return &kvpb.Empty{}, nil
}

func storeStatus(key string, err error) error {
	switch {
	case errors.Is(err, filestore.ErrBadKey):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, fs.ErrNotExist):
		return status.Errorf(codes.NotFound, "no value for key %q", key)
	default:
		return status.Error(codes.Internal, err.Error())
	}
}

type rpcServer struct {
	store *filestore.Store
}

// Put stores args["value"] under args["key"].
func (s *rpcServer) Put(args map[string]any, _ *any) error {
	key, ok := args["key"].(string)
	if !ok {
		return fmt.Errorf("argument key is a %T, not a string", args["key"])
	}
	value, ok := args["value"].([]byte)
	if !ok {
		return fmt.Errorf("argument value is a %T, not bytes", args["value"])
	}
	return s.store.Put(key, value)
}

// Get replies with the value of key.
func (s *rpcServer) Get(key string, reply *[]byte) error {
	value, err := s.store.Get(key)
	if err != nil {
		return err
	}
	*reply = value
	return nil
}
