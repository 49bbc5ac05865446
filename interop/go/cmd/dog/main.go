// Command dog is the playground's animal of that name, over net/rpc.
package main

import (
	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/rpcsvc"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "DOG_PLUGIN",
			MagicCookieValue: "outrigger-dog-netrpc",
		},
		Plugins: plugin.PluginSet{"dog": rpcsvc.Animal("dog")},
	})
}
