// Package rpcsvc is the plugin side of the net/rpc peers: one object per dispensed name.
package rpcsvc

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/rpc"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/contract"
	"outrigger.dev/interop/internal/filestore"
	"outrigger.dev/interop/internal/kv"
	"outrigger.dev/interop/internal/oneconn"
)

const (
	maxSleep = time.Minute
	maxBody  = 16 << 20
	maxStdin = 1 << 20
)

// Object is a plugin whose methods are those of what it returns for a broker.
type Object func(*plugin.MuxBroker) any

// Server returns the object whose methods are served.
func (o Object) Server(broker *plugin.MuxBroker) (any, error) { return o(broker), nil }

// Client is not offered: these types are for plugins.
func (Object) Client(*plugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("this program is a plugin")
}

// Set has every name of the contract except bench.
func Set() plugin.PluginSet {
	set := plugin.PluginSet{
		"greeter":   Object(func(*plugin.MuxBroker) any { return greeter{} }),
		"kv":        &kv.RPCPlugin{Store: filestore.New("kv_")},
		"callbacks": Object(func(broker *plugin.MuxBroker) any { return &callbacks{broker} }),
		"streams":   Object(func(broker *plugin.MuxBroker) any { return &streams{Bytes{broker}} }),
		"types":     Object(func(*plugin.MuxBroker) any { return types{} }),
		"stdio":     Object(func(*plugin.MuxBroker) any { return stdio{} }),
	}
	for _, name := range contract.Animals() {
		set[name] = Animal(name)
	}
	return set
}

// Animal is the plugin of one animal.
func Animal(name string) plugin.Plugin {
	return Object(func(*plugin.MuxBroker) any { return animal{name} })
}

// Bench is the plugin of the benchmarks.
func Bench() plugin.Plugin {
	return Object(func(broker *plugin.MuxBroker) any { return &bench{Bytes{broker}} })
}

type greeter struct{}

func (greeter) Greet(_ any, reply *string) error {
	*reply = "Hello!"
	return nil
}

type animal struct{ name string }

func (a animal) Speak(args map[string]any, reply *string) error {
	loud, ok := args["isLoud"].(bool)
	if !ok && args["isLoud"] != nil {
		return fmt.Errorf("argument isLoud is a %T, not a bool", args["isLoud"])
	}
	*reply = contract.Sound(a.name, loud)
	return nil
}

type callbacks struct{ broker *plugin.MuxBroker }

// CallHost has the host add 20 and 22.
func (c *callbacks) CallHost(id uint32, reply *string) error {
	conn, err := c.broker.Dial(id)
	if err != nil {
		return fmt.Errorf("dialling the host's id %d: %w", id, err)
	}
	host := rpc.NewClient(conn)
	defer func() { _ = host.Close() }()
	var sum int64
	if err := host.Call("Plugin.Add", contract.Pair{A: 20, B: 22}, &sum); err != nil {
		return fmt.Errorf("calling the host: %w", err)
	}
	*reply = strconv.FormatInt(sum, 10)
	return nil
}

// OfferHelper serves an Adder on the id it replies with.
func (c *callbacks) OfferHelper(_ any, reply *uint32) error {
	*reply = c.broker.NextId()
	go c.broker.AcceptAndServe(*reply, Adder{})
	return nil
}

// Adder is what either side calls back for.
type Adder struct{}

// Add replies with the sum.
func (Adder) Add(pair contract.Pair, reply *int64) error {
	*reply = pair.A + pair.B
	return nil
}

// Bytes are the two raw streams that the tests and the benchmarks share.
type Bytes struct{ broker *plugin.MuxBroker }

// Sum reads the host's stream to its end.
func (b Bytes) Sum(id uint32, reply *contract.Digest) error {
	conn, err := b.broker.Dial(id)
	if err != nil {
		return fmt.Errorf("dialling the host's id %d: %w", id, err)
	}
	defer func() { _ = conn.Close() }()
	*reply, err = contract.DigestOf(conn)
	return err
}

// Produce writes pattern bytes to the host's stream.
func (b Bytes) Produce(wanted contract.Wanted, reply *uint64) error {
	conn, err := b.broker.Dial(wanted.ID)
	if err != nil {
		return fmt.Errorf("dialling the host's id %d: %w", wanted.ID, err)
	}
	defer func() { _ = conn.Close() }()
	*reply, err = contract.WritePattern(conn, wanted.Bytes)
	return err
}

type streams struct{ Bytes }

// Echo gives every byte back on the id it replies with.
func (s *streams) Echo(_ any, reply *uint32) error {
	id := s.broker.NextId()
	*reply = id
	go func() {
		conn, err := s.broker.Accept(id)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		// What fails here, the host sees as a stream that ends too early.
		_, _ = io.Copy(conn, conn)
	}()
	return nil
}

// FetchFromHost makes a GET request on the host's stream.
func (s *streams) FetchFromHost(id uint32, reply *string) error {
	conn, err := s.broker.Dial(id)
	if err != nil {
		return fmt.Errorf("dialling the host's id %d: %w", id, err)
	}
	defer func() { _ = conn.Close() }()
	response, err := oneconn.Client(conn).Get("http://host/")
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the host answered %s", response.Status)
	}
	*reply = string(body)
	return nil
}

// OfferHTTP serves HTTP on the id it replies with: GET greets, POST gives its body back.
func (s *streams) OfferHTTP(_ any, reply *uint32) error {
	id := s.broker.NextId()
	*reply = id
	go func() {
		conn, err := s.broker.Accept(id)
		if err != nil {
			return
		}
		oneconn.Serve(conn, http.HandlerFunc(answer))
	}()
	return nil
}

func answer(w http.ResponseWriter, request *http.Request) {
	switch request.Method {
	case http.MethodGet:
		_, _ = io.WriteString(w, "hello from the plugin\n")
	case http.MethodPost:
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	default:
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}

type types struct{}

// Describe tells what arrived.
func (types) Describe(value any, reply *string) error {
	*reply = contract.Describe(value)
	return nil
}

// Echo replies with the same value.
func (types) Echo(value any, reply *any) error {
	*reply = value
	return nil
}

// Fail always fails.
func (types) Fail(text string, _ *any) error {
	return errors.New(text)
}

// Sleep takes its time, in milliseconds.
func (types) Sleep(millis int64, reply *int64) error {
	if millis < 0 || millis > maxSleep.Milliseconds() {
		return fmt.Errorf("%d ms is not between 0 and %d", millis, maxSleep.Milliseconds())
	}
	time.Sleep(time.Duration(millis) * time.Millisecond)
	*reply = millis
	return nil
}

type stdio struct{}

// Print writes to the plugin's own streams, which the library carries to the host.
func (stdio) Print(words contract.Words, _ *any) error {
	_, outErr := io.WriteString(os.Stdout, words.Out)
	_, errErr := io.WriteString(os.Stderr, words.Err)
	return errors.Join(outErr, errErr)
}

// ReadStdin reads to the end.
func (stdio) ReadStdin(_ any, reply *string) error {
	text, err := io.ReadAll(io.LimitReader(os.Stdin, maxStdin))
	*reply = string(text)
	return err
}

type bench struct{ Bytes }

// Echo replies with the same bytes.
func (*bench) Echo(payload []byte, reply *[]byte) error {
	*reply = payload
	return nil
}
