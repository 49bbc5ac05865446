// Command hello is a net/rpc plugin that greets whoever is named.
package main

import (
	"errors"
	"net/rpc"

	"github.com/hashicorp/go-plugin"
)

type greeter struct{}

// SayHello is the method that hosts call as Plugin.SayHello.
func (greeter) SayHello(name string, greeting *string) error {
	*greeting = "hello, " + name
	return nil
}

type entry struct{}

func (entry) Server(*plugin.MuxBroker) (any, error) { return greeter{}, nil }

func (entry) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("this program is a plugin")
}

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "HELLO_PLUGIN", MagicCookieValue: "hello"},
		Plugins:         plugin.PluginSet{"greeter": entry{}},
	})
}
