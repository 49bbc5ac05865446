// Command hostclient is a file lister on the upstream Go library that lists through
// outrigger.host.v1: it knows the published proto and nothing else of the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"outrigger.dev/examples/hostclient/gen/filelisterpb"
	"outrigger.dev/examples/hostclient/gen/hostpb"
)

const (
	// hostServices is where the host says on which broker id it serves.
	hostServices = "OUTRIGGER_HOST_SERVICES"
	// callTimeout bounds each call to the host.
	callTimeout = 10 * time.Second
	// preview is how much of a file a line shows, in bytes.
	preview = 16
)

func main() {
	logger := hclog.New(&hclog.LoggerOptions{
		Name:       "hostclient",
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
		Plugins:    plugin.PluginSet{"hostclient": &listerPlugin{}},
		GRPCServer: plugin.DefaultGRPCServer,
		Logger:     logger,
	})
}

type listerPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (*listerPlugin) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	filelisterpb.RegisterFileListerServer(server, &lister{host: find(broker)})
	return nil
}

func (*listerPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

// found is the connection to the host's services, or why there is none.
type found struct {
	ready chan struct{}
	conn  *grpc.ClientConn
	err   error
}

// find dials at once: the library keeps an announcement for five seconds only.
func find(broker *plugin.GRPCBroker) *found {
	host := &found{ready: make(chan struct{})}
	go func() {
		defer close(host.ready)
		id, err := strconv.ParseUint(os.Getenv(hostServices), 10, 32)
		if err != nil {
			host.err = fmt.Errorf("this host offers no services: it sets no %s", hostServices)
			return
		}
		host.conn, host.err = broker.Dial(uint32(id))
	}()
	return host
}

func (f *found) get(ctx context.Context) (*grpc.ClientConn, error) {
	select {
	case <-f.ready:
		return f.conn, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type lister struct {
	filelisterpb.UnimplementedFileListerServer
	host *found
}

// List reads a folder through the host; a file's line shows how it begins.
func (l *lister) List(ctx context.Context, request *filelisterpb.FileListRequest) (*filelisterpb.FileListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	lines, err := l.list(ctx, request.GetPath())
	if err != nil {
		text := status.Convert(err).Message()
		return &filelisterpb.FileListResponse{Error: &text}, nil
	}
	return &filelisterpb.FileListResponse{Entry: lines}, nil
}

func (l *lister) list(ctx context.Context, folder string) ([]string, error) {
	conn, err := l.host.get(ctx)
	if err != nil {
		return nil, err
	}
	files := hostpb.NewFilesystemClient(conn)
	lines, cookie := []string{}, ""
	for {
		page, err := files.List(ctx, &hostpb.ListRequest{Path: folder, Cookie: cookie})
		if err != nil {
			return nil, err
		}
		for _, entry := range page.GetEntries() {
			if entry.GetKind() != hostpb.FileKind_FILE_KIND_FILE {
				lines = append(lines, "d "+entry.GetName()+"/")
				continue
			}
			start, err := begin(ctx, files, folder+"/"+entry.GetName())
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("- %s %q", entry.GetName(), start))
		}
		cookie = page.GetNext()
		if cookie == "" {
			return lines, nil
		}
	}
}

// begin reads the start of a file and gives its lease back.
func begin(ctx context.Context, files hostpb.FilesystemClient, path string) ([]byte, error) {
	opened, err := files.Open(ctx, &hostpb.OpenRequest{Path: path})
	if err != nil {
		return nil, err
	}
	defer func() {
		_, _ = files.Close(ctx, &hostpb.CloseRequest{Lease: opened.GetLease()})
	}()
	data, err := files.Read(ctx, &hostpb.ReadRequest{Lease: opened.GetLease(), Length: preview})
	return data.GetData(), err
}
