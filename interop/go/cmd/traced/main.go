// Command traced is a file lister whose calls OpenTelemetry watches, with otelgrpc as it is: it
// continues the trace of its host, and its calls to the host are a part of it. Each span that ends
// is logged.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/filelisterpb"
	"outrigger.dev/interop/gen/hostservepb"
)

func main() {
	logger := hclog.New(&hclog.LoggerOptions{
		Name:       "traced",
		Level:      hclog.Debug,
		Output:     os.Stderr,
		JSONFormat: true,
	})
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(logged{logger})))
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "TEST_KEY",
			MagicCookieValue: "TEST_VALUE",
		},
		Plugins: plugin.PluginSet{"file-lister": &listerPlugin{}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.StatsHandler(otelgrpc.NewServerHandler()))...)
		},
		Logger: logger,
	})
}

// logged writes spans to the log. The sampler of the host decides which of them come here.
type logged struct{ logger hclog.Logger }

func (l logged) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	for _, span := range spans {
		l.logger.Info("span",
			"name", span.Name(),
			"kind", span.SpanKind().String(),
			"trace", span.SpanContext().TraceID().String(),
			"span", span.SpanContext().SpanID().String(),
			"parent", span.Parent().SpanID().String(),
			"state", span.SpanContext().TraceState().String(),
		)
	}
	return nil
}

func (logged) Shutdown(context.Context) error { return nil }

type listerPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (*listerPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	filelisterpb.RegisterFileListerServer(server, &lister{broker: broker})
	return nil
}

func (*listerPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type lister struct {
	filelisterpb.UnimplementedFileListerServer
	broker *plugin.GRPCBroker

	mu   sync.Mutex
	conn *grpc.ClientConn
}

// EstablishHostServices dials the broker id on which the host serves.
func (l *lister) EstablishHostServices(_ context.Context, request *filelisterpb.HostServiceRequest) (*filelisterpb.HostServiceResponse, error) {
	watched := grpc.WithStatsHandler(otelgrpc.NewClientHandler())
	conn, err := l.broker.DialWithOptions(request.GetHostService(), watched)
	if err != nil {
		return nil, fmt.Errorf("dialling host services: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	return &filelisterpb.HostServiceResponse{ClientId: "traced"}, nil
}

// List reads a folder through the host and gives the name of each entry.
func (l *lister) List(ctx context.Context, request *filelisterpb.FileListRequest) (*filelisterpb.FileListResponse, error) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn == nil {
		return nil, status.Error(codes.FailedPrecondition, "EstablishHostServices was not called")
	}
	reply, err := hostservepb.NewHostServiceClient(conn).ReadDir(ctx, &hostservepb.ReadDirRequest{
		RootDir: request.GetRootDir(),
		Path:    request.GetPath(),
	})
	if err != nil {
		return nil, err
	}
	if reply.Error != nil {
		return &filelisterpb.FileListResponse{Error: reply.Error}, nil
	}
	listed := &filelisterpb.FileListResponse{}
	for _, entry := range reply.GetEntries() {
		listed.Entry = append(listed.Entry, entry.GetName())
	}
	return listed, nil
}
