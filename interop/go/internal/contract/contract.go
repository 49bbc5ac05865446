// Package contract holds what both sides of the net/rpc peers agree on: the types that cross, the
// bytes of test streams and how a value is described.
package contract

import (
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-plugin"
)

// Handshake is that of every net/rpc peer but the animals' own programs and the benchmarks.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "BASIC_PLUGIN",
	MagicCookieValue: "hello",
}

// Pair is what Add takes.
type Pair struct{ A, B int64 }

// Digest is the length of some bytes and their sum, which wraps.
type Digest struct{ Bytes, Sum uint64 }

// Wanted asks for Bytes pattern bytes on the broker stream ID.
type Wanted struct {
	ID    uint32
	Bytes uint64
}

// Words are printed to stdout and stderr.
type Words struct{ Out, Err string }

// Shape is the struct that crosses inside interface values, under the name main.Shape.
type Shape struct {
	Name  string
	Sides int
	Tags  []string
	Inner *Shape
	At    time.Time
	Extra map[string]any
}

// String is what Describe shows: no addresses, and a time that does not depend on the place.
func (s Shape) String() string {
	inner := "<nil>"
	if s.Inner != nil {
		inner = "&" + s.Inner.String()
	}
	return fmt.Sprintf("{%s %d %v %s %s %v}", s.Name, s.Sides, s.Tags, inner, moment(s.At), s.Extra)
}

func moment(t time.Time) string {
	return t.UTC().Format(time.RFC3339Nano)
}

// Register names the types that interface values hold. Both sides call it once.
func Register() {
	gob.RegisterName("main.Shape", Shape{})
	gob.RegisterName("map[string]interface {}", map[string]any{})
	gob.RegisterName("[]interface {}", []any{})
	gob.RegisterName("time.Time", time.Time{})
}

// SpendTypeID uses one gob type up where the environment has OUTRIGGER_GOB_FIRST_ID=65, so that the ids on
// the wire begin there: as in older Go, and as ours do. By itself current Go begins with 64.
func SpendTypeID() (spent bool) {
	if os.Getenv("OUTRIGGER_GOB_FIRST_ID") != "65" {
		return false
	}
	type unused struct{ Field bool }
	return gob.NewEncoder(io.Discard).Encode(unused{}) == nil
}

// Describe gives the registered name of a value's type and the value.
func Describe(value any) string {
	switch value := value.(type) {
	case Shape:
		return "main.Shape " + value.String()
	case time.Time:
		return "time.Time " + moment(value)
	default:
		return fmt.Sprintf("%T %v", value, value)
	}
}

const partSize = 64 << 10

// WritePattern writes count bytes, of which number i is the low byte of i.
func WritePattern(to io.Writer, count uint64) (uint64, error) {
	part := make([]byte, min(count, partSize))
	for i := range part {
		part[i] = byte(i)
	}
	var written uint64
	for written < count {
		n, err := to.Write(part[:min(count-written, partSize)])
		written += uint64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// CheckPattern reads to the end and fails unless exactly count pattern bytes came.
func CheckPattern(from io.Reader, count uint64) error {
	buffer := make([]byte, partSize)
	var got uint64
	for {
		n, err := from.Read(buffer)
		for i, b := range buffer[:n] {
			if b != byte(got+uint64(i)) {
				return fmt.Errorf("byte %d is %d", got+uint64(i), b)
			}
		}
		got += uint64(n)
		switch {
		case err == io.EOF && got == count:
			return nil
		case err == io.EOF:
			return fmt.Errorf("%d bytes came, not %d", got, count)
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", got, err)
		case got > count:
			return fmt.Errorf("more than %d bytes came", count)
		}
	}
}

// DigestOf reads to the end.
func DigestOf(from io.Reader) (Digest, error) {
	buffer := make([]byte, partSize)
	var digest Digest
	for {
		n, err := from.Read(buffer)
		for _, b := range buffer[:n] {
			digest.Sum += uint64(b)
		}
		digest.Bytes += uint64(n)
		if err == io.EOF {
			return digest, nil
		}
		if err != nil {
			return digest, err
		}
	}
}

// PatternDigest is the digest of the first count pattern bytes.
func PatternDigest(count uint64) Digest {
	rest := count % 256
	return Digest{Bytes: count, Sum: count/256*(255*256/2) + rest*(rest-1)/2}
}

// sounds are the animals and what they say.
var sounds = map[string]string{
	"cat":   "Meow!",
	"dog":   "Woof!",
	"pig":   "Oink!",
	"cow":   "Moo!",
	"horse": "Neigh!",
}

// Animals lists the names in a fixed order.
func Animals() []string {
	return []string{"cat", "dog", "pig", "cow", "horse"}
}

// Sound is what an animal says; its name may end in -grpc. It is empty for no animal.
func Sound(name string, loud bool) string {
	sound := sounds[strings.TrimSuffix(name, "-grpc")]
	if loud {
		return strings.ToUpper(sound)
	}
	return sound
}
