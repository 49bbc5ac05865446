// Command parrot is an animal on the upstream Go library that says what the application taught it:
// the phrases are in a service of the application's own, which the manifest asks for by its name.
// What its own configuration has for a mood comes before that.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"outrigger.dev/examples/parrot/gen/animalpb"
	"outrigger.dev/examples/parrot/gen/kvpb"
)

// callTimeout bounds each call to the host.
const callTimeout = 10 * time.Second

// dialService is a connection to the application's service of that name. It is made by the first
// call that needs it, and made again where it was lost.
func dialService(name string) (*grpc.ClientConn, error) {
	offered := os.Getenv("OUTRIGGER_SERVICES")
	for _, entry := range strings.Split(offered, "|") {
		if found, address, _ := strings.Cut(entry, "="); found == name && address != "" {
			return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		}
	}
	return nil, fmt.Errorf("the host offers no service %q to this plugin, but %q", name, offered)
}

// config reads the plugin's own configuration, which the host replaces when it changes.
func config() (map[string]string, error) {
	path, found := os.LookupEnv("OUTRIGGER_PLUGIN_CONFIG")
	if !found {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config map[string]string
	return config, json.Unmarshal(text, &config)
}

func main() {
	phrases, err := dialService("phrases")
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "PARROT_PLUGIN",
			MagicCookieValue: "outrigger-parrot-netrpc",
		},
		Plugins:    plugin.PluginSet{"parrot": &parrotPlugin{phrases: phrases, missing: err}},
		GRPCServer: plugin.DefaultGRPCServer,
		Logger: hclog.New(&hclog.LoggerOptions{
			Name: "parrot", Level: hclog.Debug, Output: os.Stderr, JSONFormat: true,
		}),
	})
}

type parrotPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	phrases *grpc.ClientConn
	missing error // why there are no phrases
}

func (p *parrotPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	animalpb.RegisterAnimalServer(server, &parrot{plugin: p})
	return nil
}

func (*parrotPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this program is a plugin")
}

type parrot struct {
	animalpb.UnimplementedAnimalServer
	plugin *parrotPlugin
}

// Speak says what the application taught it for this mood.
func (p *parrot) Speak(ctx context.Context, request *animalpb.SpeakRequest) (*animalpb.SpeakResponse, error) {
	mood := "quiet"
	if request.GetIsLoud() {
		mood = "loud"
	}
	configured, err := config()
	if err != nil {
		return nil, err
	}
	if phrase, found := configured[mood]; found {
		return &animalpb.SpeakResponse{Resp: phrase}, nil
	}
	if p.plugin.missing != nil {
		return nil, p.plugin.missing
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	phrase, err := kvpb.NewKVClient(p.plugin.phrases).Get(ctx, &kvpb.GetRequest{Key: mood})
	if err != nil {
		return nil, err
	}
	return &animalpb.SpeakResponse{Resp: string(phrase.GetValue())}, nil
}
