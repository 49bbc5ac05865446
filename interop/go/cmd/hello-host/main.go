// Command hello-host starts the plugin named first and prints its greeting of the name that follows.
package main

import (
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
)

type entry struct{}

func (entry) Server(*plugin.MuxBroker) (any, error) {
	return nil, errors.New("this program is a host")
}

func (entry) Client(_ *plugin.MuxBroker, client *rpc.Client) (any, error) { return client, nil }

func greeting(program, name string) (string, error) {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "HELLO_PLUGIN", MagicCookieValue: "hello"},
		Plugins:         plugin.PluginSet{"greeter": entry{}},
		Cmd:             exec.Command(program),
		Logger:          hclog.NewNullLogger(),
	})
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		return "", err
	}
	object, err := protocol.Dispense("greeter")
	if err != nil {
		return "", err
	}
	var text string
	err = object.(*rpc.Client).Call("Plugin.SayHello", name, &text)
	return text, err
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "hello-host PROGRAM NAME")
		os.Exit(2)
	}
	text, err := greeting(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(text)
}
