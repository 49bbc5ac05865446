// Command lister is a file lister on the upstream Go library. It touches no file itself: it lists
// through the services that the host offers back to it.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"outrigger.dev/examples/lister/gen/filelisterpb"
	"outrigger.dev/examples/lister/gen/hostservepb"
)

// callTimeout bounds each call to the host.
const callTimeout = 10 * time.Second

func main() {
	logger := hclog.New(&hclog.LoggerOptions{
		Name:       "file-lister",
		Level:      hclog.Debug,
		Output:     os.Stderr,
		JSONFormat: true,
	})
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "TEST_KEY",
			MagicCookieValue: "TEST_VALUE",
		},
		Plugins:    plugin.PluginSet{"file-lister": &listerPlugin{logger: logger}},
		GRPCServer: plugin.DefaultGRPCServer,
		Logger:     logger,
	})
}

type listerPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	logger hclog.Logger
}

func (p *listerPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	filelisterpb.RegisterFileListerServer(server, &lister{broker: broker, logger: p.logger})
	return nil
}

func (*listerPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type lister struct {
	filelisterpb.UnimplementedFileListerServer
	broker *plugin.GRPCBroker
	logger hclog.Logger

	mu       sync.Mutex
	conn     *grpc.ClientConn
	clientID string
}

// EstablishHostServices dials the broker id on which the host serves and names this client.
func (l *lister) EstablishHostServices(_ context.Context, request *filelisterpb.HostServiceRequest) (*filelisterpb.HostServiceResponse, error) {
	conn, err := l.broker.Dial(request.GetHostService())
	if err != nil {
		text := fmt.Sprintf("dialling host services on broker id %d: %v", request.GetHostService(), err)
		return &filelisterpb.HostServiceResponse{Error: &text}, nil
	}
	clientID := newID()
	l.mu.Lock()
	previous := l.conn
	l.conn, l.clientID = conn, clientID
	l.mu.Unlock()
	if previous != nil {
		_ = previous.Close()
	}
	l.logger.Debug("host services established", "client", clientID)
	return &filelisterpb.HostServiceResponse{ClientId: clientID}, nil
}

// List reads a folder through the host and gives one readable line per entry.
func (l *lister) List(ctx context.Context, request *filelisterpb.FileListRequest) (*filelisterpb.FileListResponse, error) {
	l.mu.Lock()
	conn, clientID := l.conn, l.clientID
	l.mu.Unlock()
	if conn == nil {
		return nil, status.Error(codes.FailedPrecondition, "EstablishHostServices was not called")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	requestID := newID()
	ctx = metadata.AppendToOutgoingContext(ctx, "client", clientID, "request", requestID)
	reply, err := hostservepb.NewHostServiceClient(conn).ReadDir(ctx, &hostservepb.ReadDirRequest{
		RootDir: request.GetRootDir(),
		Path:    request.GetPath(),
	})
	if err != nil {
		text := fmt.Sprintf("calling the host: %v", err)
		return &filelisterpb.FileListResponse{Error: &text}, nil
	}
	if reply.Error != nil {
		return &filelisterpb.FileListResponse{Error: reply.Error}, nil
	}
	listed := &filelisterpb.FileListResponse{Entry: make([]string, 0, len(reply.GetEntries()))}
	for _, entry := range reply.GetEntries() {
		listed.Entry = append(listed.Entry, line(entry))
	}
	l.logger.Debug("listed", "path", request.GetPath(), "entries", len(listed.GetEntry()), "request", requestID)
	return listed, nil
}

// line shows folders as `d name/` and everything else as `- name`.
func line(entry *hostservepb.DirEntry) string {
	if entry.GetIsDir() {
		return "d " + entry.GetName() + "/"
	}
	return "- " + entry.GetName()
}

// newID is a UUID of version 7: 48 bits of milliseconds, the rest random.
func newID() string {
	var id [16]byte
	// Reading random bytes never fails: the runtime ends the program instead.
	_, _ = rand.Read(id[:])
	now := uint64(time.Now().UnixMilli())
	for i := range 6 {
		id[i] = byte(now >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
