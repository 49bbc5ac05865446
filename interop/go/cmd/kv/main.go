// Command kv is the key-value plugin; it keeps each value in the file kv_KEY of its working directory.
//
//	kv              version 1 over gRPC
//	kv netrpc       version 1 over net/rpc
//	kv negotiated   versions 2 (net/rpc) and 3 (gRPC)
//
// The environment variable OUTRIGGER_KV_MODE stands for a missing argument.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/filestore"
	"outrigger.dev/interop/internal/kv"
)

func main() {
	mode := os.Getenv("OUTRIGGER_KV_MODE")
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	store := filestore.New("kv_")
	overRPC := plugin.PluginSet{"kv": &kv.RPCPlugin{Store: store}}
	overGRPC := plugin.PluginSet{"kv": &kv.GRPCPlugin{Store: store}}
	config := &plugin.ServeConfig{HandshakeConfig: kv.Handshake, GRPCServer: plugin.DefaultGRPCServer}
	switch mode {
	case "", "grpc":
		config.Plugins = overGRPC
	case "netrpc":
		config.Plugins = overRPC
		config.GRPCServer = nil
	case "negotiated":
		config.VersionedPlugins = map[int]plugin.PluginSet{2: overRPC, 3: overGRPC}
	default:
		fmt.Fprintf(os.Stderr, "kv: unknown mode %q\n", mode)
		os.Exit(2)
	}
	plugin.Serve(config)
}
