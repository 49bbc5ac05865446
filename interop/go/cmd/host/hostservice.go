package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/metadata"

	"outrigger.dev/interop/gen/hostservepb"
)

// hostService offers one folder for listing, and notes calls that lack the usual metadata.
type hostService struct {
	hostservepb.UnimplementedHostServiceServer
	root string

	mu      sync.Mutex
	missing []string
}

func (h *hostService) ReadDir(ctx context.Context, request *hostservepb.ReadDirRequest) (*hostservepb.ReadDirResponse, error) {
	h.note(ctx, "ReadDir")
	entries, err := os.ReadDir(filepath.Join(h.root, filepath.Join("/", request.GetPath())))
	if err != nil {
		text := err.Error()
		return &hostservepb.ReadDirResponse{Error: &text}, nil
	}
	reply := &hostservepb.ReadDirResponse{}
	for _, e := range entries {
		reply.Entries = append(reply.Entries, &hostservepb.DirEntry{Name: e.Name(), IsDir: e.IsDir()})
	}
	return reply, nil
}

func (h *hostService) note(ctx context.Context, call string) {
	received, _ := metadata.FromIncomingContext(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range []string{"client", "request"} {
		if len(received.Get(key)) == 0 {
			h.missing = append(h.missing, call+" "+key)
		}
	}
}
