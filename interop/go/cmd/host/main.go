// Command host drives any plugin through the upstream library and reports what happened as one
// JSON object on stdout.
//
//	host [flags] -- PROGRAM [ARG…]
//
// It runs the named scenarios one after another in one plugin process, stops the plugin, and exits
// with 0 when every step succeeded and 1 otherwise (2 for wrong usage). The plugin's temporary
// files go to a private folder; what is left there at the end is reported.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"outrigger.dev/interop/internal/contract"
	"outrigger.dev/interop/internal/testtls"
)

type options struct {
	cookieKey, cookieValue string
	autoMTLS               bool
	mux                    bool
	versions               []int
	legacyVersion          uint
	allowed                []plugin.Protocol
	startTimeout           time.Duration
	callTimeout            time.Duration
	deadline               time.Duration
	service                string
	info                   serviceInfo
	scenarios              []string
	dispense               string
	socketDir              string
	socketGroup            string
	runner                 bool
	tlsDir                 string
	logLevel               string
	logsFile               string
	logBuffer              int
	workDir                string
	tmpDir                 string
	listDir                string
	bytes                  int
	stdin                  string
	hasStdin               bool
	maxMessage             int
	minPort, maxPort       uint
	skipHostEnv            bool
	hold                   bool
	attach                 string
	expectStartError       string
	expectVersion          int
	minPanicLines          int
	forbidLeftovers        bool
	forbidForced           bool
	program                string
	args                   []string
}

type step struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Millis float64 `json:"ms"`
	Detail string  `json:"detail"`
}

type result struct {
	OK                bool           `json:"ok"`
	Steps             []step         `json:"steps"`
	NegotiatedVersion int            `json:"negotiated_version"`
	Protocol          string         `json:"protocol"`
	AddressNetwork    string         `json:"address_network"`
	Address           string         `json:"address"`
	Error             string         `json:"error"`
	StartMillis       float64        `json:"start_ms"`
	KillMillis        float64        `json:"kill_ms"`
	Exited            bool           `json:"exited"`
	Forced            bool           `json:"forced"`
	QuitError         string         `json:"quit_error"` // why the polite end of the kill failed
	PID               int            `json:"pid"`
	Leftovers         []string       `json:"leftovers"`
	LogLevels         map[string]int `json:"log_levels"`
	Problems          []string       `json:"problems"`
	Stderr            string         `json:"stderr,omitempty"` // end of the plugin's stderr, after a failure
}

func main() {
	opts, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "host:", err)
		}
		os.Exit(2)
	}
	contract.Register()
	run := &session{opts: opts, info: opts.info, logs: &logStore{}, stdout: &buffer{}, stderr: &buffer{}, rawStderr: &buffer{}}
	watchdog := time.AfterFunc(opts.deadline, func() {
		run.abandon(fmt.Sprintf("not finished within %s (-deadline)", opts.deadline))
	})
	ok := run.run()
	watchdog.Stop()
	run.print()
	if !ok {
		os.Exit(1)
	}
}

func parse(arguments []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("host", flag.ContinueOnError)
	var cookie, versions, allowed, scenarios string
	flags.StringVar(&cookie, "cookie", "", "magic cookie `KEY=VALUE` (default by service: BASIC_PLUGIN=hello, TEST_MAGIC_COOKIE=test, TEST_KEY=TEST_VALUE)")
	flags.BoolVar(&o.autoMTLS, "auto-mtls", false, "use AutoMTLS")
	flags.BoolVar(&o.mux, "mux", false, "ask for broker multiplexing")
	flags.StringVar(&versions, "versions", "", "offered application versions, as in 2,3 (default: only -legacy-version)")
	flags.UintVar(&o.legacyVersion, "legacy-version", 1, "the unversioned application version")
	flags.StringVar(&allowed, "allowed", "grpc,netrpc", "allowed protocols; empty means the library's default")
	flags.DurationVar(&o.startTimeout, "start-timeout", 20*time.Second, "time for the plugin to print its handshake")
	flags.DurationVar(&o.callTimeout, "call-timeout", 20*time.Second, "time for each call")
	flags.DurationVar(&o.deadline, "deadline", 2*time.Minute, "time for everything")
	flags.StringVar(&o.service, "service", "none", "kv, counter, streamer, grpctest, filelister, greeter, animal:NAME, callbacks, streams, types, stdio or none")
	flags.StringVar(&scenarios, "scenario", "", "comma-separated scenarios (default by service): "+strings.Join(scenarioNames(), " "))
	flags.StringVar(&o.dispense, "dispense", "", "dispense name (default by service)")
	flags.StringVar(&o.socketDir, "socket-dir", "", "folder for the socket directory of the plugin; implies -runner")
	flags.StringVar(&o.socketGroup, "socket-group", "", "group of every socket")
	flags.BoolVar(&o.runner, "runner", false, "start through a RunnerFunc, which gives the plugin a socket directory")
	flags.StringVar(&o.tlsDir, "tls-dir", "", "folder with the files of static TLS; also passed on as OUTRIGGER_TLS_DIR")
	flags.StringVar(&o.logLevel, "log-level", "trace", "level of the host's logger")
	flags.StringVar(&o.logsFile, "logs", "", "also append the host's log to this file, as JSON lines")
	flags.IntVar(&o.logBuffer, "log-buffer", 0, "size of the log line buffer in bytes, 0 for the library's default")
	flags.StringVar(&o.workDir, "dir", "", "working directory of the plugin (default: a private folder)")
	flags.StringVar(&o.tmpDir, "tmp", "", "TMPDIR of host and plugin, kept afterwards (default: a private folder)")
	flags.StringVar(&o.listDir, "list-dir", "", "folder that the list scenario offers (default: a small private one)")
	flags.IntVar(&o.bytes, "bytes", 0, "size of a stream's data, 0 for 1 MiB with -service streamer and 10 MiB with -service streams")
	flags.StringVar(&o.stdin, "stdin", "", "what the plugin finds on its stdin (default: the host's own stdin; nothing with -service stdio)")
	flags.IntVar(&o.maxMessage, "max-message", 0, "receive and send limit of the host in bytes, 0 for the library's default")
	flags.UintVar(&o.minPort, "min-port", 0, "lowest port offered to the plugin")
	flags.UintVar(&o.maxPort, "max-port", 0, "highest port offered to the plugin")
	flags.BoolVar(&o.skipHostEnv, "skip-host-env", false, "do not pass the host's environment on")
	flags.BoolVar(&o.hold, "hold", false, "after the scenarios print `ready PID` and wait for the end of stdin")
	flags.StringVar(&o.attach, "attach", "", "instead of starting PROGRAM, join the plugin that this JSON describes (protocol, version, network, address, pid, test)")
	flags.StringVar(&o.expectStartError, "expect-start-error", "", "succeed only if starting fails with this text in the error")
	flags.IntVar(&o.expectVersion, "expect-version", -1, "fail unless this version was negotiated")
	flags.IntVar(&o.minPanicLines, "min-panic-lines", 1, "error lines that a panic must leave in the log")
	flags.BoolVar(&o.forbidLeftovers, "forbid-leftovers", false, "fail when temporary files are left behind")
	flags.BoolVar(&o.forbidForced, "forbid-forced", false, "fail when the plugin had to be forced to end")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if o.attach == "" {
		if flags.NArg() == 0 {
			return nil, errors.New("no program: host [flags] -- PROGRAM [ARG…]")
		}
		program, err := exec.LookPath(flags.Arg(0))
		if err != nil {
			return nil, err
		}
		if o.program, err = filepath.Abs(program); err != nil {
			return nil, err
		}
		o.args = flags.Args()[1:]
	}

	flags.Visit(func(given *flag.Flag) { o.hasStdin = o.hasStdin || given.Name == "stdin" })
	service, known := serviceNamed(o.service)
	if !known {
		return nil, fmt.Errorf("unknown service %q", o.service)
	}
	o.info = service
	o.hasStdin = o.hasStdin || o.service == "stdio"
	if cookie == "" {
		cookie = service.cookie
	}
	var found bool
	if o.cookieKey, o.cookieValue, found = strings.Cut(cookie, "="); !found {
		return nil, fmt.Errorf("cookie %q is not KEY=VALUE", cookie)
	}
	if o.dispense == "" {
		o.dispense = service.name
	}
	if scenarios == "" {
		scenarios = service.scenario
	}
	for _, name := range strings.Split(scenarios, ",") {
		if _, known := scenarioTable[name]; !known {
			return nil, fmt.Errorf("unknown scenario %q", name)
		}
		o.scenarios = append(o.scenarios, name)
	}
	for _, text := range split(versions) {
		number, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("version %q: %w", text, err)
		}
		o.versions = append(o.versions, number)
	}
	for _, text := range split(allowed) {
		o.allowed = append(o.allowed, plugin.Protocol(text))
	}
	if o.socketDir != "" {
		o.runner = true
	}
	return o, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// session is one run: one plugin process, its log and what was found out.
type session struct {
	opts      *options
	info      serviceInfo
	logs      *logStore
	stdout    *buffer // what the plugin printed, through the stdio service
	stderr    *buffer
	rawStderr *buffer // the plugin's stderr descriptor

	client *plugin.Client
	handle *handle
	proto  plugin.ClientProtocol

	mu       sync.Mutex
	result   result
	private  string
	tmp      string
	failed   bool
	printed  bool
	hasStart bool
}

func (s *session) run() bool {
	s.result.Steps, s.result.Leftovers = []step{}, []string{}
	holding := os.Stdin
	if err := s.prepare(); err != nil {
		s.fail(err.Error())
		return false
	}
	defer func() {
		if s.private != "" {
			_ = os.RemoveAll(s.private)
		}
	}()
	s.client = plugin.NewClient(s.config())
	s.step("start", s.start)
	if !s.failed && s.hasStart {
		for _, name := range s.opts.scenarios {
			scenarioTable[name](s)
			if s.failed {
				break
			}
		}
		if s.opts.hold && !s.failed {
			fmt.Printf("ready %d\n", s.result.PID)
			_, _ = io.Copy(io.Discard, holding)
		}
	}
	s.stop()
	return !s.failed
}

func (s *session) prepare() error {
	if s.opts.logsFile != "" {
		file, err := os.OpenFile(s.opts.logsFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		s.logs.copy = file
	}
	private, err := os.MkdirTemp("", "oh")
	if err != nil {
		return err
	}
	s.private = private
	s.tmp = s.opts.tmpDir
	if s.tmp == "" {
		s.tmp = filepath.Join(private, "t")
		if err := os.Mkdir(s.tmp, 0o700); err != nil {
			return err
		}
	}
	if s.opts.workDir == "" {
		s.opts.workDir = filepath.Join(private, "w")
		if err := os.Mkdir(s.opts.workDir, 0o700); err != nil {
			return err
		}
	}
	if s.opts.workDir, err = filepath.Abs(s.opts.workDir); err != nil {
		return err
	}
	if s.opts.tlsDir != "" {
		if s.opts.tlsDir, err = filepath.Abs(s.opts.tlsDir); err != nil {
			return err
		}
		if err := os.Setenv("OUTRIGGER_TLS_DIR", s.opts.tlsDir); err != nil {
			return err
		}
	}
	if s.opts.hasStdin {
		if err := s.giveStdin(); err != nil {
			return err
		}
	}
	return os.Setenv("TMPDIR", s.tmp)
}

func (s *session) config() *plugin.ClientConfig {
	o := s.opts
	set := plugin.PluginSet{o.dispense: hostPlugin{}, absentPlugin: hostPlugin{}}
	config := &plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  o.legacyVersion,
			MagicCookieKey:   o.cookieKey,
			MagicCookieValue: o.cookieValue,
		},
		StartTimeout:        o.startTimeout,
		AllowedProtocols:    o.allowed,
		AutoMTLS:            o.autoMTLS,
		GRPCBrokerMultiplex: o.mux,
		SkipHostEnv:         o.skipHostEnv,
		MinPort:             o.minPort,
		MaxPort:             o.maxPort,
		SyncStdout:          s.stdout,
		SyncStderr:          s.stderr,
		Stderr:              s.rawStderr,
		PluginLogBufferSize: o.logBuffer,
		Logger: hclog.New(&hclog.LoggerOptions{
			Name:       "host",
			Level:      hclog.LevelFromString(o.logLevel),
			Output:     s.logs,
			JSONFormat: true,
		}),
	}
	if len(o.versions) == 0 {
		config.Plugins = set
	} else {
		config.VersionedPlugins = map[int]plugin.PluginSet{}
		for _, version := range o.versions {
			config.VersionedPlugins[version] = set
		}
	}
	if o.maxMessage > 0 {
		config.GRPCDialOptions = []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(o.maxMessage), grpc.MaxCallSendMsgSize(o.maxMessage))}
	}
	if o.attach != "" {
		at, err := reattachConfig(o.attach)
		if err != nil {
			s.fail(err.Error())
		}
		config.Reattach = at
	} else if o.runner {
		config.RunnerFunc = newExecRunner(o.program, o.args, o.workDir)
		config.UnixSocketConfig = &plugin.UnixSocketConfig{TempDir: o.socketDir, Group: o.socketGroup}
	} else {
		config.Cmd = exec.Command(o.program, o.args...)
		config.Cmd.Dir = o.workDir
		if o.socketGroup != "" {
			config.UnixSocketConfig = &plugin.UnixSocketConfig{Group: o.socketGroup}
		}
	}
	if o.tlsDir != "" {
		if tlsConfig, err := testtls.Load(o.tlsDir); err == nil {
			config.TLSConfig = tlsConfig
		} else {
			s.fail(err.Error())
		}
	}
	for _, name := range o.scenarios {
		switch name {
		case "checksum-right", "checksum-wrong":
			config.SecureConfig = s.checksum(name == "checksum-right")
		}
	}
	return config
}

func reattachConfig(text string) (*plugin.ReattachConfig, error) {
	var at struct {
		Protocol, Network, Address string
		Version, Pid               int
		Test                       bool
	}
	if err := json.Unmarshal([]byte(text), &at); err != nil {
		return nil, fmt.Errorf("-attach %q: %w", text, err)
	}
	var address net.Addr
	var err error
	switch at.Network {
	case "unix":
		address, err = net.ResolveUnixAddr("unix", at.Address)
	case "tcp":
		address, err = net.ResolveTCPAddr("tcp", at.Address)
	default:
		err = fmt.Errorf("unknown network %q", at.Network)
	}
	if err != nil {
		return nil, err
	}
	return &plugin.ReattachConfig{
		Protocol:        plugin.Protocol(at.Protocol),
		ProtocolVersion: at.Version,
		Addr:            address,
		Pid:             at.Pid,
		Test:            at.Test,
	}, nil
}

func (s *session) checksum(right bool) *plugin.SecureConfig {
	content, err := os.ReadFile(s.opts.program)
	if err != nil {
		s.fail(err.Error())
	}
	sum := sha256.Sum256(content)
	if !right {
		sum[0] ^= 1
	}
	return &plugin.SecureConfig{Checksum: sum[:], Hash: sha256.New()}
}

// start starts the plugin and dispenses the handle, unless a failure is what is expected.
func (s *session) start() (string, error) {
	begun := time.Now()
	address, err := s.client.Start()
	s.result.StartMillis = millis(begun)
	expected := s.opts.expectStartError
	if expected == "" && contains(s.opts.scenarios, "checksum-wrong") {
		expected = plugin.ErrChecksumsDoNotMatch.Error()
	}
	if expected != "" {
		switch {
		case err == nil:
			return "", fmt.Errorf("started, though an error with %q was expected", expected)
		case !strings.Contains(err.Error(), expected):
			return "", fmt.Errorf("expected an error with %q: %w", expected, err)
		default:
			return "failed as expected: " + firstLine(err.Error()), nil
		}
	}
	if err != nil {
		return "", err
	}
	s.hasStart = true
	s.mu.Lock()
	s.result.NegotiatedVersion = s.client.NegotiatedVersion()
	s.result.Protocol = string(s.client.Protocol())
	s.result.AddressNetwork, s.result.Address = address.Network(), address.String()
	s.result.PID, _ = strconv.Atoi(s.client.ID())
	s.mu.Unlock()
	if s.opts.expectVersion >= 0 && s.result.NegotiatedVersion != s.opts.expectVersion {
		return "", fmt.Errorf("negotiated version %d, not %d", s.result.NegotiatedVersion, s.opts.expectVersion)
	}
	if contains(s.opts.scenarios, "kill-before-client") || contains(s.opts.scenarios, "wait-exit") {
		return "no client was created", nil
	}
	if s.proto, err = s.client.Client(); err != nil {
		return "", fmt.Errorf("creating the client: %w", err)
	}
	if s.opts.service == "none" && s.client.Protocol() == plugin.ProtocolNetRPC {
		return "", nil
	}
	raw, err := s.proto.Dispense(s.opts.dispense)
	if err != nil {
		return "", fmt.Errorf("dispensing %q: %w", s.opts.dispense, err)
	}
	s.handle = raw.(*handle)
	return "", nil
}

func (s *session) stop() {
	s.step("kill", func() (string, error) {
		wasOver := s.client.Exited()
		warned := s.logs.find(unpolite)
		begun := time.Now()
		s.client.Kill()
		s.result.KillMillis = millis(begun)
		s.result.Exited = s.client.Exited()
		// Of a process that was gone already nothing could be asked.
		if !wasOver {
			s.result.Forced, s.result.QuitError = forcedBy(s.logs.find(unpolite)[len(warned):])
			if s.opts.forbidForced && s.result.Forced {
				return "", fmt.Errorf("the plugin had to be forced: %s", s.result.QuitError)
			}
		}
		if s.hasStart && s.client.ReattachConfig() != nil && s.client.ReattachConfig().Test {
			return s.stillServing()
		}
		if s.hasStart && !s.result.Exited {
			return "", errors.New("the plugin did not exit")
		}
		if s.proto != nil && s.proto.Ping() == nil {
			return "", errors.New("a ping after the kill succeeded")
		}
		return "", nil
	})
	s.mu.Lock()
	s.result.Leftovers = s.leftovers()
	s.mu.Unlock()
	if s.opts.forbidLeftovers && len(s.result.Leftovers) > 0 {
		s.fail(fmt.Sprintf("%d temporary files were left behind", len(s.result.Leftovers)))
	}
}

// unpolite finds the warnings of the library about a kill.
func unpolite(e entry) bool {
	return e.text("@message") == "plugin failed to exit gracefully" || e.text("@message") == "error closing client during Kill"
}

func forcedBy(warnings []entry) (forced bool, quitError string) {
	for _, e := range warnings {
		if e.text("@message") == "plugin failed to exit gracefully" {
			forced = true
		} else {
			quitError = fmt.Sprint(e["err"])
		}
	}
	return forced, quitError
}

// stillServing is for plugins in test mode, which a host must leave running.
func (s *session) stillServing() (string, error) {
	again := plugin.NewClient(s.config())
	defer again.Kill()
	proto, err := again.Client()
	if err != nil {
		return "", fmt.Errorf("joining again after the kill: %w", err)
	}
	return "still serving, as it must in test mode", proto.Ping()
}

// leftovers names what is still in the temporary folders.
func (s *session) leftovers() []string {
	names := []string{}
	for _, dir := range []string{s.tmp, s.opts.socketDir} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names
}

// step runs one named piece of work, keeps its outcome and reports whether it succeeded. Once a step failed only
// the kill still runs.
func (s *session) step(name string, work func() (string, error)) bool {
	if s.failed && name != "kill" {
		return false
	}
	begun := time.Now()
	detail, err := work()
	done := step{Name: name, OK: err == nil, Millis: millis(begun), Detail: detail}
	if err != nil {
		done.Detail = err.Error()
	}
	s.mu.Lock()
	s.result.Steps = append(s.result.Steps, done)
	s.mu.Unlock()
	if err != nil {
		s.fail(name + ": " + err.Error())
	}
	return err == nil
}

// fail keeps the first error.
func (s *session) fail(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	if s.result.Error == "" {
		s.result.Error = text
	}
}

// abandon is the way out when a step hangs: the plugin is killed by its pid.
func (s *session) abandon(reason string) {
	s.fail(reason)
	s.mu.Lock()
	pid := s.result.PID
	s.mu.Unlock()
	if pid == 0 && s.client != nil {
		pid, _ = strconv.Atoi(s.client.ID())
	}
	if pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.print()
	if s.private != "" {
		_ = os.RemoveAll(s.private)
	}
	os.Exit(1)
}

func (s *session) print() {
	problems, levels := s.logs.problems(), s.logs.levels()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.printed {
		return
	}
	s.printed = true
	s.result.OK = !s.failed
	s.result.Problems, s.result.LogLevels = problems, levels
	if s.failed {
		raw := s.rawStderr.String()
		s.result.Stderr = raw[max(0, len(raw)-2000):]
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s.result)
}

func millis(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}

func contains(list []string, text string) bool {
	for _, each := range list {
		if each == text {
			return true
		}
	}
	return false
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
