// Package animalgrpc is the service animal.v1.Animal. Its two messages have one field each, which
// crosses exactly as in the standard wrappers BoolValue and StringValue; so those stand in for them.
package animalgrpc

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"outrigger.dev/interop/internal/contract"
)

const (
	file   = "animal/v1/animal.proto"
	method = "/animal.v1.Animal/Speak"
)

// Speak calls the plugin.
func Speak(ctx context.Context, conn grpc.ClientConnInterface, loud bool) (string, error) {
	reply := &wrapperspb.StringValue{}
	err := conn.Invoke(ctx, method, wrapperspb.Bool(loud), reply)
	return reply.GetValue(), err
}

// Plugin serves the animal of that name over gRPC only.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Name string
}

// GRPCServer registers the service.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	if err := describe(); err != nil {
		return err
	}
	server.RegisterService(&service, p)
	return nil
}

// GRPCClient is not offered: these types are for plugins.
func (*Plugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

var service = grpc.ServiceDesc{
	ServiceName: "animal.v1.Animal",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Speak",
		Handler: func(server any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := &wrapperspb.BoolValue{}
			if err := decode(request); err != nil {
				return nil, err
			}
			return wrapperspb.String(contract.Sound(server.(*Plugin).Name, request.GetValue())), nil
		},
	}},
	Metadata: file,
}

// describe lets the reflection service of the library answer with the true schema.
func describe() error {
	field := func(name string, kind descriptorpb.FieldDescriptorProto_Type) []*descriptorpb.FieldDescriptorProto {
		return []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String(name), Number: proto.Int32(1), Type: kind.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}
	}
	described, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(file), Package: proto.String("animal.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("SpeakRequest"), Field: field("isLoud", descriptorpb.FieldDescriptorProto_TYPE_BOOL)},
			{Name: proto.String("SpeakResponse"), Field: field("resp", descriptorpb.FieldDescriptorProto_TYPE_STRING)},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Animal"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name:       proto.String("Speak"),
				InputType:  proto.String(".animal.v1.SpeakRequest"),
				OutputType: proto.String(".animal.v1.SpeakResponse"),
			}},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	return protoregistry.GlobalFiles.RegisterFile(described)
}
