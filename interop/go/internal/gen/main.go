// Command gen writes the Go code of the project's protobuf files.
//
// It needs no protoc: the files are compiled with protocompile and handed to the two standard
// generators, which go.mod pins as tools. Run it from anywhere inside the module:
//
//	go run ./internal/gen          # rewrite the generated packages
//	go run ./internal/gen -check   # fail if a generated file differs from what is on disk
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// target is one generated Go package.
type target struct {
	proto  string // file below proto/
	module string // folder of the Go module, relative to the project
	dir    string // folder of the package, relative to the module
	path   string // import path of the package
	// rename moves the messages to another protobuf package and leaves the service stubs out.
	rename string
}

var targets = []target{
	{proto: "kv.proto", module: "interop/go", dir: "gen/kvpb", path: "outrigger.dev/interop/gen/kvpb"},
	{proto: "counter.proto", module: "interop/go", dir: "gen/counterpb", path: "outrigger.dev/interop/gen/counterpb"},
	{proto: "streaming.proto", module: "interop/go", dir: "gen/streamingpb", path: "outrigger.dev/interop/gen/streamingpb"},
	{proto: "grpctest.proto", module: "interop/go", dir: "gen/grpctestpb", path: "outrigger.dev/interop/gen/grpctestpb"},
	{proto: "bench.proto", module: "interop/go", dir: "gen/benchpb", path: "outrigger.dev/interop/gen/benchpb"},
	// kv.proto and counter.proto both declare proto.GetRequest, so one program can register only
	// one of them. The host speaks both: it takes the counter's messages under another name, which
	// never crosses the wire, and writes the few stubs by hand.
	{
		proto: "counter.proto", module: "interop/go", dir: "gen/hostcounterpb", path: "outrigger.dev/interop/gen/hostcounterpb",
		rename: "outrigger.interop.hostcounter",
	},
	{proto: "filelister.proto", module: "interop/go", dir: "gen/filelisterpb", path: "outrigger.dev/interop/gen/filelisterpb"},
	{proto: "hostserve.proto", module: "interop/go", dir: "gen/hostservepb", path: "outrigger.dev/interop/gen/hostservepb"},
	{proto: "filelister.proto", module: "examples/go/lister", dir: "gen/filelisterpb", path: "outrigger.dev/examples/lister/gen/filelisterpb"},
	{proto: "hostserve.proto", module: "examples/go/lister", dir: "gen/hostservepb", path: "outrigger.dev/examples/lister/gen/hostservepb"},
	{proto: "filelister.proto", module: "examples/go/hostclient", dir: "gen/filelisterpb", path: "outrigger.dev/examples/hostclient/gen/filelisterpb"},
	{proto: "animal.proto", module: "examples/go/parrot", dir: "gen/animalpb", path: "outrigger.dev/examples/parrot/gen/animalpb"},
	{proto: "kv.proto", module: "examples/go/parrot", dir: "gen/kvpb", path: "outrigger.dev/examples/parrot/gen/kvpb"},
	hostTarget("clock"),
	hostTarget("descriptors"),
	hostTarget("environment"),
	hostTarget("failure"),
	hostTarget("filesystem"),
	hostTarget("log"),
	hostTarget("network"),
	hostTarget("process"),
	hostTarget("session"),
}

// hostTarget is one file of outrigger.host.v1, all of which make one package.
func hostTarget(name string) target {
	return target{
		proto: hostPackage + name + ".proto", module: "examples/go/hostclient",
		dir: "gen/hostpb", path: "outrigger.dev/examples/hostclient/gen/hostpb",
	}
}

const hostPackage = "outrigger/host/v1/"

func main() {
	check := flag.Bool("check", false, "compare with the files on disk instead of writing them")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	root, err := projectRoot()
	if err != nil {
		return err
	}
	tools, err := os.MkdirTemp("", "outrigger-gen")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tools) }()
	goPlugin := filepath.Join(tools, "protoc-gen-go")
	grpcPlugin := filepath.Join(tools, "protoc-gen-go-grpc")
	for path, pkg := range map[string]string{
		goPlugin:   "google.golang.org/protobuf/cmd/protoc-gen-go",
		grpcPlugin: "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
	} {
		build := exec.Command("go", "build", "-o", path, pkg)
		build.Dir = filepath.Join(root, "interop", "go")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building %s: %w", pkg, err)
		}
	}

	var stale []string
	for _, t := range targets {
		files, err := generate(root, t, goPlugin, grpcPlugin)
		if err != nil {
			return fmt.Errorf("%s: %w", t.proto, err)
		}
		for name, content := range files {
			path := filepath.Join(root, t.module, t.dir, filepath.Base(name))
			if check {
				if current, err := os.ReadFile(path); err != nil || !bytes.Equal(current, content) {
					stale = append(stale, path)
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				return err
			}
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("generated files are out of date: %s", strings.Join(stale, ", "))
	}
	return nil
}

// projectRoot finds the folder that holds both proto/ and interop/go.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "interop", "go", "go.mod")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "proto")); err == nil {
				return dir, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run this inside the project: no proto/ beside interop/go was found")
		}
		dir = parent
	}
}

func generate(root string, t target, goPlugin, grpcPlugin string) (map[string][]byte, error) {
	request, err := compile(root, t)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	plugins := []string{goPlugin, grpcPlugin}
	if t.rename != "" {
		plugins = plugins[:1]
	}
	for _, plugin := range plugins {
		if err := runPlugin(plugin, request, files); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func compile(root string, t target) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{filepath.Join(root, "proto")},
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	linked, err := compiler.Compile(context.Background(), t.proto)
	if err != nil {
		return nil, err
	}
	file := protodesc.ToFileDescriptorProto(linked[0])
	if t.rename != "" {
		renamePackage(file, t.rename)
	}
	parameter := "paths=source_relative,M" + file.GetName() + "=" + t.path
	imports := imported(linked[0], nil)
	for _, dependency := range imports {
		if strings.HasPrefix(dependency.Path(), hostPackage) {
			parameter += ",M" + dependency.Path() + "=" + t.path
		}
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file.GetName()},
		Parameter:      proto.String(parameter),
		CompilerVersion: &pluginpb.Version{
			Major: proto.Int32(0), Minor: proto.Int32(0), Patch: proto.Int32(0),
		},
	}
	for _, dependency := range imports {
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(dependency))
	}
	request.ProtoFile = append(request.ProtoFile, file)
	return request, nil
}

// imported adds what a file imports to found, each file once and behind what it imports itself.
func imported(file protoreflect.FileDescriptor, found []protoreflect.FileDescriptor) []protoreflect.FileDescriptor {
	imports := file.Imports()
	for i := range imports.Len() {
		next := imports.Get(i).FileDescriptor
		known := slices.ContainsFunc(found, func(f protoreflect.FileDescriptor) bool { return f.Path() == next.Path() })
		if !known {
			found = append(imported(next, found), next)
		}
	}
	return found
}

func renamePackage(file *descriptorpb.FileDescriptorProto, to string) {
	prefix := "." + file.GetPackage() + "."
	var visit func(*descriptorpb.DescriptorProto)
	visit = func(message *descriptorpb.DescriptorProto) {
		for _, field := range message.Field {
			if name, ok := strings.CutPrefix(field.GetTypeName(), prefix); ok {
				field.TypeName = proto.String("." + to + "." + name)
			}
		}
		for _, nested := range message.NestedType {
			visit(nested)
		}
	}
	for _, message := range file.MessageType {
		visit(message)
	}
	file.Name = proto.String("host" + file.GetName())
	file.Package = proto.String(to)
	file.Service = nil
	file.SourceCodeInfo = nil
}

func runPlugin(plugin string, request *pluginpb.CodeGeneratorRequest, files map[string][]byte) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command(plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(plugin), err)
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return errors.New(response.GetError())
	}
	for _, file := range response.File {
		files[file.GetName()] = []byte(file.GetContent())
	}
	return nil
}
