// Command dog-grpc is the playground's dog over gRPC.
package main

import (
	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/animalgrpc"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "DOG_PLUGIN",
			MagicCookieValue: "2ggRd5S9bhHottawB6eXwghiOAhekGORmOfIczh5b1D3AYlmrRWIXdbqwDHDJmjq",
		},
		Plugins:    plugin.PluginSet{"dog-grpc": &animalgrpc.Plugin{Name: "dog-grpc"}},
		GRPCServer: plugin.DefaultGRPCServer,
	})
}
