package main

import (
	"context"
	"errors"
	"net/rpc"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// handle is what dispensing gives: the raw means to call a plugin, over either protocol.
type handle struct {
	exited context.Context
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
	rpc    *rpc.Client
	mux    *plugin.MuxBroker
}

// hostPlugin dispenses a handle whatever the plugin serves.
type hostPlugin struct{}

func (hostPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this program is a host")
}

func (hostPlugin) GRPCClient(exited context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &handle{exited: exited, broker: broker, conn: conn}, nil
}

func (hostPlugin) Server(*plugin.MuxBroker) (any, error) {
	return nil, errors.New("this program is a host")
}

func (hostPlugin) Client(broker *plugin.MuxBroker, client *rpc.Client) (any, error) {
	return &handle{rpc: client, mux: broker}, nil
}
