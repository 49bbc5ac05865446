// Command helper is a plugin with one mode per behaviour that a host must cope with.
//
//	helper MODE [FILE]
//
// Modes that print a line by hand check no cookie; the others want TEST_MAGIC_COOKIE=test. Modes
// with static TLS read the files of OUTRIGGER_TLS_DIR, which `helper make-tls DIR` writes.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"outrigger.dev/interop/internal/testsvc"
	"outrigger.dev/interop/internal/testtls"
)

// hostEnvironment is the variable that the test-skip-host-env modes look for.
const hostEnvironment = "OUTRIGGER_TEST_HOST_ENV"

var modes = map[string]func(args []string) int{
	"bad-version":                      badVersion,
	"invalid-rpc-address":              printAndExit("this is no address\n"),
	"mock":                             printAndWait("1|1|tcp|:1234\n"),
	"start-timeout":                    silent,
	"stderr":                           stderrThenExit("HELLO\nWORLD\n"),
	"stderr-json":                      stderrThenExit("[\"HELLO\"]\n12345\n{\"a\":1}\n"),
	"level-warn-text":                  stderrThenExit("[WARN] test line 98765\n"),
	"stdin":                            readStdin,
	"stderr-then-serve":                stderrThenServe("HELLO\nWORLD\n"),
	"stderr-json-then-serve":           stderrThenServe("[\"HELLO\"]\n12345\n{\"a\":1}\n"),
	"level-warn-text-then-serve":       stderrThenServe("[WARN] test line 98765\n"),
	"stdin-then-serve":                 thenServe(helloOnStdin),
	"skip-host-env-true-then-serve":    thenServe(hostEnvironmentSet(false)),
	"skip-host-env-false-then-serve":   thenServe(hostEnvironmentSet(true)),
	"print-raw-then-serve":             thenServe(printRawLater),
	"health-only":                      healthOnly,
	"cleanup":                          cleanup(netRPC),
	"cleanup-grpc":                     cleanup(overGRPC),
	"cleanup-late":                     cleanup(overGRPC, lateShutdown),
	"test-interface":                   serve(netRPC),
	"test-interface-daemon":            serve(netRPC),
	"test-interface-logger-netrpc":     serve(netRPC),
	"test-interface-tls":               serve(netRPC, staticTLS),
	"test-interface-mtls":              serve(netRPC, version(0)),
	"test-grpc":                        serve(overGRPC),
	"test-grpc-daemon":                 serve(overGRPC),
	"test-grpc-tls":                    serve(overGRPC, staticTLS),
	"test-interface-logger-grpc":       serve(overGRPC),
	"test-mtls":                        serve(overGRPC, version(2)),
	"test-versioned-plugins":           serve(versioned(false), staticTLS),
	"test-proto-upgraded-plugin":       serve(versioned(true), staticTLS),
	"test-proto-upgraded-client":       serve(overGRPC, version(2), staticTLS),
	"test-skip-host-env-true":          hostEnvironmentIs(false),
	"test-skip-host-env-false":         hostEnvironmentIs(true),
	"mux-grpc-with-old-plugin":         printAndWait("1|1|tcp|:1234|grpc|\n"),
	"mux-grpc-with-unsupported-plugin": printAndWait("1|1|tcp|:1234|grpc||false\n"),
	"test-mode-grpc":                   testMode,
	"make-tls":                         makeTLS,
}

func main() {
	if len(os.Args) < 2 {
		os.Exit(usage())
	}
	mode, ok := modes[os.Args[1]]
	if !ok {
		os.Exit(usage())
	}
	os.Exit(mode(os.Args[2:]))
}

func usage() int {
	names := make([]string, 0, len(modes))
	for name := range modes {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "usage: helper MODE [FILE]\nmodes: %s\n", strings.Join(names, " "))
	return 2
}

// badVersion prints an application version that nobody offers. The file tells how often it ran.
func badVersion(args []string) int {
	if len(args) > 0 {
		if err := os.WriteFile(args[0], []byte("started\n"), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
	}
	return printAndWait("1|11|tcp|:1234\n")(nil)
}

func printAndExit(line string) func([]string) int {
	return func([]string) int {
		_, _ = io.WriteString(os.Stdout, line)
		return 0
	}
}

func printAndWait(line string) func([]string) int {
	return func([]string) int {
		_, _ = io.WriteString(os.Stdout, line)
		waitForSignal()
		return 0
	}
}

func silent([]string) int {
	time.Sleep(time.Minute)
	return 0
}

func stderrThenExit(text string) func([]string) int {
	return func([]string) int {
		_, _ = io.WriteString(os.Stdout, "1|1|tcp|:1234\n")
		_, _ = io.WriteString(os.Stderr, text)
		return 0
	}
}

// thenServe does something first and, if that returns 0, serves over gRPC: for hosts that must not
// meet net/rpc, which the four fields of a line printed by hand mean.
func thenServe(first func() int) func([]string) int {
	return func(args []string) int {
		if status := first(); status != 0 {
			return status
		}
		return serve(overGRPC)(args)
	}
}

func stderrThenServe(text string) func([]string) int {
	return thenServe(func() int {
		_, _ = io.WriteString(os.Stderr, text)
		return 0
	})
}

// printRawLater prints a mebibyte to the descriptor of stdout once the handshake is through.
func printRawLater() int {
	raw, err := syscall.Dup(1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	original := os.Stdout
	go func() {
		// The library exchanges the variable right after it has printed the handshake line.
		for os.Stdout == original {
			time.Sleep(time.Millisecond)
		}
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for range 1024 {
			if _, err := syscall.Write(raw, line); err != nil {
				return
			}
		}
		_, _ = io.WriteString(os.Stdout, "printed")
	}()
	return 0
}

// healthOnly is a plugin without broker, controller and stdio service; it prints five fields.
func healthOnly([]string) int {
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	if dir == "" {
		dir = os.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("health%d", os.Getpid()))
	listener, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := grpc.NewServer()
	status := health.NewServer()
	status.SetServingStatus("plugin", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, status)
	fmt.Printf("1|1|unix|%s|grpc\n", path)
	if err := server.Serve(listener); err != nil {
		return 1
	}
	return 0
}

func readStdin([]string) int {
	_, _ = io.WriteString(os.Stdout, "1|1|tcp|:1234\n")
	return helloOnStdin()
}

func helloOnStdin() int {
	text := make([]byte, 5)
	if _, err := io.ReadFull(os.Stdin, text); err != nil || string(text) != "hello" {
		fmt.Fprintf(os.Stderr, "stdin held %q: %v\n", text, err)
		return 1
	}
	return 0
}

func hostEnvironmentIs(expected bool) func([]string) int {
	return func([]string) int {
		_, _ = io.WriteString(os.Stdout, "1|1|tcp|:1234\n")
		return hostEnvironmentSet(expected)()
	}
}

func hostEnvironmentSet(expected bool) func() int {
	return func() int {
		if _, present := os.LookupEnv(hostEnvironment); present != expected {
			return 1
		}
		return 0
	}
}

func makeTLS(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: helper make-tls DIR")
		return 2
	}
	if err := testtls.Write(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testMode serves in the library's test mode, prints where as one JSON line and ends with stdin.
func testMode([]string) int {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	attached := make(chan *plugin.ReattachConfig)
	closed := make(chan struct{})
	serving := serve(overGRPC, func(config *plugin.ServeConfig) {
		config.Test = &plugin.ServeTestConfig{Context: ctx, ReattachConfigCh: attached, CloseCh: closed}
	})
	go serving(nil)
	select {
	case at := <-attached:
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
			"protocol": string(at.Protocol),
			"version":  at.ProtocolVersion,
			"network":  at.Addr.Network(),
			"address":  at.Addr.String(),
			"pid":      at.Pid,
			"test":     at.Test,
		})
	case <-closed:
		return 1
	}
	<-closed
	return 0
}

// waitForSignal blocks until the process is told to end; an empty select would be taken for a deadlock.
func waitForSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
}

type option func(*plugin.ServeConfig)

func netRPC(config *plugin.ServeConfig) {
	config.Plugins = plugin.PluginSet{"test": &testsvc.RPCPlugin{Logger: config.Logger}}
}

func overGRPC(config *plugin.ServeConfig) {
	config.Plugins = plugin.PluginSet{"test": &testsvc.GRPCPlugin{Logger: config.Logger}}
	config.GRPCServer = plugin.DefaultGRPCServer
}

// versioned serves version 2 over gRPC, and version 1 over net/rpc under another name if asked.
func versioned(withOld bool) option {
	return func(config *plugin.ServeConfig) {
		config.ProtocolVersion = 0
		config.GRPCServer = plugin.DefaultGRPCServer
		config.VersionedPlugins = map[int]plugin.PluginSet{
			2: {"test": &testsvc.GRPCPlugin{Logger: config.Logger}},
		}
		if withOld {
			config.VersionedPlugins[1] = plugin.PluginSet{"old": &testsvc.RPCPlugin{Logger: config.Logger}}
		}
	}
}

func version(number uint) option {
	return func(config *plugin.ServeConfig) { config.ProtocolVersion = number }
}

func staticTLS(config *plugin.ServeConfig) {
	config.TLSProvider = func() (*tls.Config, error) {
		return testtls.Load(os.Getenv("OUTRIGGER_TLS_DIR"))
	}
}

func serve(options ...option) func([]string) int {
	return func([]string) int {
		config := &plugin.ServeConfig{
			HandshakeConfig: testsvc.Handshake,
			Logger: hclog.New(&hclog.LoggerOptions{
				Level:      hclog.Trace,
				Output:     os.Stderr,
				JSONFormat: true,
			}),
		}
		for _, apply := range options {
			apply(config)
		}
		plugin.Serve(config)
		return 0
	}
}

// lateShutdown takes its time before the library's own handler of Shutdown runs: as long as the
// variable OUTRIGGER_TEST_SHUTDOWN_AFTER says.
func lateShutdown(config *plugin.ServeConfig) {
	config.GRPCServer = func(options []grpc.ServerOption) *grpc.Server {
		late := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if info.FullMethod == "/plugin.GRPCController/Shutdown" {
				after, err := time.ParseDuration(os.Getenv("OUTRIGGER_TEST_SHUTDOWN_AFTER"))
				if err != nil {
					return nil, err
				}
				time.Sleep(after)
			}
			return handle(ctx, request)
		}
		return plugin.DefaultGRPCServer(append(options, grpc.UnaryInterceptor(late)))
	}
}

// cleanup serves, and writes the file once serving has ended.
func cleanup(options ...option) func([]string) int {
	return func(args []string) int {
		if len(args) != 1 {
			fmt.Fprintln(os.Stderr, "usage: helper cleanup FILE")
			return 2
		}
		status := serve(options...)(nil)
		if err := os.WriteFile(args[0], []byte("cleaned up\n"), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return status
	}
}
