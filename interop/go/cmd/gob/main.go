// Command gob is the peer of the tests of our gob: over stdin and stdout it sends streams of random
// values, takes back what the other side made of them, and says where that differs.
//
// A request is one byte, `R` for values of random types or `E` for values of the type everything,
// then a seed (8 bytes) and a number of streams (4 bytes), big-endian as all numbers here. The answer
// is, for each stream, its length (4 bytes) and its bytes. The other side sends as many streams
// back, in the same form, with the same values. The answer to that is the number of streams that differ
// (4 bytes) and a text about the first of them (length in 4 bytes).
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"reflect"
	"runtime/debug"
)

func main() {
	// Little memory is in use at any time; collecting it rarely saves a third of the time.
	debug.SetGCPercent(800)
	if err := serve(bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)); err != nil {
		fmt.Fprintln(os.Stderr, "gob:", err)
		os.Exit(1)
	}
}

type request struct {
	Kind    byte
	Seed    int64
	Streams uint32
}

func serve(in *bufio.Reader, out *bufio.Writer) error {
	pool := newPool(rand.New(rand.NewSource(1)))
	var expected request
	var ready chan batch
	for {
		var asked request
		switch err := binary.Read(in, binary.BigEndian, &asked); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if asked != expected || ready == nil {
			ready = pool.batch(asked)
		}
		made := <-ready
		if made.err != nil {
			return made.err
		}
		// The other side mostly asks for the next seed, after it has dealt with this one.
		expected = request{asked.Kind, asked.Seed + 1, asked.Streams}
		ready = pool.batch(expected)
		for _, stream := range made.streams {
			if err := writeFrame(out, stream.bytes); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := judge(in, out, made.streams); err != nil {
			return err
		}
	}
}

type batch struct {
	streams []*stream
	err     error
}

// batch begins to make the streams of a request.
func (p *pool) batch(asked request) chan batch {
	ready := make(chan batch, 1)
	go func() {
		random := rand.New(rand.NewSource(asked.Seed))
		made := batch{streams: make([]*stream, asked.Streams)}
		for at := range made.streams {
			types := []reflect.Type{reflect.TypeFor[everything]()}
			if asked.Kind != 'E' {
				types = p.some(random)
			}
			made.streams[at], made.err = encode(random, types, p)
			if made.err != nil {
				break
			}
		}
		ready <- made
	}()
	return ready
}

// judge compares what comes back with what was sent.
func judge(in *bufio.Reader, out *bufio.Writer, streams []*stream) error {
	differing, first := uint32(0), ""
	for at, sent := range streams {
		frame, err := readFrame(in)
		if err != nil {
			return err
		}
		if problem := sent.compare(frame); problem != "" {
			differing++
			if first == "" {
				first = fmt.Sprintf("stream %d: %s\nsent     %x\nreceived %x", at, problem, sent.bytes, frame)
			}
		}
	}
	if err := binary.Write(out, binary.BigEndian, differing); err != nil {
		return err
	}
	if err := writeFrame(out, []byte(first)); err != nil {
		return err
	}
	return out.Flush()
}

// stream is a stream of values with what Go reads from it.
type stream struct {
	bytes  []byte
	values []reflect.Value
}

// encode makes a stream of a few values of the types.
func encode(random *rand.Rand, types []reflect.Type, pool *pool) (*stream, error) {
	var buffer bytes.Buffer
	encoder := gob.NewEncoder(&buffer)
	count := 5 + random.Intn(15)
	kinds := make([]reflect.Type, count)
	for at := range kinds {
		kinds[at] = types[random.Intn(len(types))]
		value := pool.value(random, kinds[at], 0)
		if err := encoder.EncodeValue(value); err != nil {
			return nil, fmt.Errorf("encode %v: %w", kinds[at], err)
		}
	}
	values, err := decode(buffer.Bytes(), kinds)
	if err != nil {
		return nil, fmt.Errorf("decode what was encoded: %w", err)
	}
	return &stream{buffer.Bytes(), values}, nil
}

func decode(encoded []byte, types []reflect.Type) ([]reflect.Value, error) {
	decoder := gob.NewDecoder(bytes.NewReader(encoded))
	var values []reflect.Value
	for at, kind := range types {
		value := reflect.New(kind)
		if err := decoder.DecodeValue(value); err != nil {
			return nil, fmt.Errorf("value %d of type %v: %w", at, kind, err)
		}
		values = append(values, value.Elem())
	}
	if err := decoder.DecodeValue(reflect.Value{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than %d values: %v", len(types), err)
	}
	return values, nil
}

func (s *stream) compare(encoded []byte) string {
	types := make([]reflect.Type, len(s.values))
	for at, value := range s.values {
		types[at] = value.Type()
	}
	values, err := decode(encoded, types)
	if err != nil {
		return err.Error()
	}
	for at, value := range values {
		if !reflect.DeepEqual(value.Interface(), s.values[at].Interface()) {
			return fmt.Sprintf("value %d of type %v: sent %#v, received %#v", at, types[at], s.values[at], value)
		}
	}
	return ""
}

func writeFrame(out io.Writer, frame []byte) error {
	if err := binary.Write(out, binary.BigEndian, uint32(len(frame))); err != nil {
		return err
	}
	_, err := out.Write(frame)
	return err
}

func readFrame(in io.Reader) ([]byte, error) {
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	frame := make([]byte, length)
	_, err := io.ReadFull(in, frame)
	return frame, err
}
