// Command cat is the playground's animal of that name, over net/rpc.
package main

import (
	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/rpcsvc"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "CAT_PLUGIN",
			MagicCookieValue: "lFLmoCE3ckw6erJxYxcRd6keedUodVMctD3XOGj9bLMYsFZi1Qh0vKEJftppo5ek",
		},
		Plugins: plugin.PluginSet{"cat": rpcsvc.Animal("cat")},
	})
}
