// Package testsvc is the plugin side of the test service: grpctest.Test over gRPC, and its
// net/rpc twin.
package testsvc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"outrigger.dev/interop/gen/grpctestpb"
)

// Handshake is the one of the library's own test helper.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "TEST_MAGIC_COOKIE",
	MagicCookieValue: "test",
}

// RPCPlugin serves the test object over net/rpc only.
type RPCPlugin struct {
	Logger hclog.Logger
}

// Server returns the object whose methods are served.
func (p *RPCPlugin) Server(*plugin.MuxBroker) (any, error) {
	return &rpcServer{logger: p.Logger}, nil
}

// Client is not offered: these types are for plugins.
func (*RPCPlugin) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("this program is a plugin")
}

// GRPCPlugin serves grpctest.Test only.
type GRPCPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	Logger hclog.Logger
}

// GRPCServer registers grpctest.Test.
func (p *GRPCPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	grpctestpb.RegisterTestServer(server, &grpcServer{broker: broker, logger: p.Logger})
	return nil
}

// GRPCClient is not offered: these types are for plugins.
func (*GRPCPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

// PingPong answers pong. Both sides serve it.
type PingPong struct {
	grpctestpb.UnimplementedPingPongServer
}

// Ping answers pong.
func (PingPong) Ping(context.Context, *grpctestpb.PingRequest) (*grpctestpb.PongResponse, error) {
	return &grpctestpb.PongResponse{Msg: "pong"}, nil
}

// ServePingPong is a server factory for a broker.
func ServePingPong(options []grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(options...)
	grpctestpb.RegisterPingPongServer(server, PingPong{})
	return server
}

type grpcServer struct {
	grpctestpb.UnimplementedTestServer
	broker *plugin.GRPCBroker
	logger hclog.Logger
}

func (s *grpcServer) Double(ctx context.Context, request *grpctestpb.TestRequest) (*grpctestpb.TestResponse, error) {
	if err := answerAsAsked(ctx); err != nil {
		return nil, err
	}
	return &grpctestpb.TestResponse{Output: 2 * request.GetInput()}, nil
}

func (s *grpcServer) PrintKV(_ context.Context, request *grpctestpb.PrintKVRequest) (*grpctestpb.PrintKVResponse, error) {
	var value any
	switch v := request.GetValue().(type) {
	case *grpctestpb.PrintKVRequest_ValueString:
		value = v.ValueString
	case *grpctestpb.PrintKVRequest_ValueInt:
		value = v.ValueInt
	}
	s.logger.Info("PrintKV called", request.GetKey(), value)
	return &grpctestpb.PrintKVResponse{}, nil
}

func (s *grpcServer) Bidirectional(ctx context.Context, request *grpctestpb.BidirectionalRequest) (*grpctestpb.BidirectionalResponse, error) {
	conn, err := s.broker.Dial(request.GetId())
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "dialling the host: %v", err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pong, err := grpctestpb.NewPingPongClient(conn).Ping(ctx, &grpctestpb.PingRequest{})
	if err != nil {
		return nil, err
	}
	if pong.GetMsg() != "pong" {
		return nil, status.Errorf(codes.Internal, "the host answered %q", pong.GetMsg())
	}
	id := s.broker.NextId()
	go s.broker.AcceptAndServe(id, ServePingPong)
	return &grpctestpb.BidirectionalResponse{Id: id}, nil
}

func (s *grpcServer) Stream(stream grpc.BidiStreamingServer[grpctestpb.TestRequest, grpctestpb.TestResponse]) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpctestpb.TestResponse{Output: request.GetInput()}); err != nil {
			return err
		}
	}
}

func (s *grpcServer) PrintStdio(_ context.Context, request *grpctestpb.PrintStdioRequest) (*emptypb.Empty, error) {
	if _, err := os.Stdout.Write(request.GetStdout()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if _, err := os.Stderr.Write(request.GetStderr()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &emptypb.Empty{}, nil
}

func (s *grpcServer) Panic(_ context.Context, request *grpctestpb.PanicRequest) (*emptypb.Empty, error) {
	panic(request.GetMessage())
}

type rpcServer struct {
	logger hclog.Logger
}

// Double replies with twice the input.
func (s *rpcServer) Double(input int, reply *int) error {
	*reply = 2 * input
	return nil
}

// PrintKV logs args["key"] and args["value"] as a pair.
func (s *rpcServer) PrintKV(args map[string]any, _ *struct{}) error {
	key, ok := args["key"].(string)
	if !ok {
		return fmt.Errorf("argument key is a %T, not a string", args["key"])
	}
	s.logger.Info("PrintKV called", key, args["value"])
	return nil
}
