// Command bench-host measures a bench plugin through the upstream library.
//
//	bench-host -plugin PATH [-measures a,b] [-rounds N] [sizes…] [-- ARG…]
//
// With -measures it takes each measure in turn, -rounds times, and ends. Without, it reads one JSON
// object per line from stdin, {"measure":"grpc.unary.p50"}, so that another program can interleave
// its own measurements; sizes given in the object override the flags for this command. Either
// way it answers one line per measurement on stdout:
//
//	{"measure":"grpc.unary.p50","value":71.3,"unit":"us","also":{"grpc.unary.p99":98.0}}
//
// or {"measure":…,"error":…}. For the netrpc measures the plugin is started with
// OUTRIGGER_BENCH_PROTOCOL=netrpc in its environment. Plugins stay up between commands where the measure is not about
// starting; they are stopped at the end of stdin.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-plugin"
)

// sizes says how much work a measurement does.
type sizes struct {
	Calls    int    `json:"calls"`
	Warmup   int    `json:"warmup"`
	Payload  int    `json:"payload"`
	Callers  int    `json:"callers"`
	Bytes    uint64 `json:"bytes"`
	Chunk    uint32 `json:"chunk"`
	Starts   int    `json:"starts"`
	Reads    uint32 `json:"reads"`
	FileSize int64  `json:"file_size"`
	Plugins  int    `json:"plugins"`
}

type command struct {
	Measure string `json:"measure"`
	*sizes
}

type answer struct {
	Measure string             `json:"measure"`
	Value   float64            `json:"value"`
	Unit    string             `json:"unit"`
	Also    map[string]float64 `json:"also,omitempty"`
	Error   string             `json:"error,omitempty"`
}

func main() {
	os.Exit(run())
}

func run() int {
	var measures string
	var rounds int
	var inChild bool
	var defaults sizes
	b := &bench{}
	flag.StringVar(&b.program, "plugin", "", "the bench plugin")
	flag.BoolVar(&b.autoMTLS, "auto-mtls", false, "use AutoMTLS for every measure, not only the mtls ones")
	flag.BoolVar(&b.mux, "mux", false, "multiplex the broker")
	flag.StringVar(&measures, "measures", "", "comma-separated measures, or all")
	flag.IntVar(&rounds, "rounds", 1, "how often to take each measure")
	flag.IntVar(&defaults.Calls, "calls", 5000, "calls of a unary measure; four times as many with several callers")
	flag.IntVar(&defaults.Warmup, "warmup", 1000, "calls before measuring")
	flag.IntVar(&defaults.Payload, "payload", 128, "bytes of an echo")
	flag.IntVar(&defaults.Callers, "callers", 64, "concurrent callers")
	flag.Uint64Var(&defaults.Bytes, "bytes", 1<<30, "bytes of a stream")
	var chunk uint
	flag.UintVar(&chunk, "chunk", 64<<10, "bytes of a message in a stream")
	flag.IntVar(&defaults.Starts, "starts", 20, "starts of which the median counts")
	var reads uint
	flag.UintVar(&reads, "reads", 5000, "reads of a callback measure")
	flag.Int64Var(&defaults.FileSize, "file-size", 64<<20, "bytes of the file that callbacks read")
	flag.IntVar(&defaults.Plugins, "plugins", 10, "further plugins of rss.host.per_plugin")
	flag.BoolVar(&inChild, "child", false, "measure memory in this process (internal)")
	flag.Parse()
	defaults.Chunk, defaults.Reads = uint32(chunk), uint32(reads)
	b.args, b.inChild = flag.Args(), inChild
	if b.program == "" {
		fmt.Fprintln(os.Stderr, "bench-host: -plugin is required")
		return 2
	}
	defer plugin.CleanupClients()
	defer b.close()

	if measures != "" {
		names := strings.Split(measures, ",")
		if measures == "all" {
			names = measureNames
		}
		failed := false
		for range rounds {
			for _, name := range names {
				failed = !b.answer(name, &defaults) || failed
			}
		}
		if failed {
			return 1
		}
		return 0
	}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		if strings.TrimSpace(input.Text()) == "" {
			continue
		}
		work := defaults
		asked := command{sizes: &work}
		if err := json.Unmarshal(input.Bytes(), &asked); err != nil {
			emit(answer{Error: "the command is not a JSON object: " + err.Error()})
			continue
		}
		b.answer(asked.Measure, &work)
	}
	return 0
}

func (b *bench) answer(name string, work *sizes) bool {
	result, err := b.measure(name, work)
	result.Measure = name
	if err != nil {
		result.Error = err.Error()
	}
	emit(result)
	return err == nil
}

func emit(line answer) {
	// A reader that went away shows as the end of stdin.
	_ = json.NewEncoder(os.Stdout).Encode(line)
}
