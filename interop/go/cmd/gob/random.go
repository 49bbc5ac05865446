package main

import (
	"encoding/gob"
	"fmt"
	"math"
	"math/rand"
	"reflect"
	"strings"
	"time"
)

const (
	// randomTypes is how many types are made up. Go's gob copies a table of all types it knows for
	// each new one, so that many more would take most of the time.
	randomTypes = 1500
	// registeredTypes is how many of them interfaces may hold.
	registeredTypes = 60
	// deepest is how deep values nest before they become small.
	deepest = 4
)

var (
	anyType  = reflect.TypeFor[any]()
	timeType = reflect.TypeFor[time.Time]()

	plain = []reflect.Type{
		reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](),
		reflect.TypeFor[int32](), reflect.TypeFor[int64](), reflect.TypeFor[uint](), reflect.TypeFor[uint8](),
		reflect.TypeFor[uint16](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](), reflect.TypeFor[uintptr](),
		reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[complex64](), reflect.TypeFor[complex128](),
		reflect.TypeFor[string](), reflect.TypeFor[label](),
	}
	named = []reflect.Type{
		reflect.TypeFor[[]byte](), reflect.TypeFor[octets](), reflect.TypeFor[numbers](), reflect.TypeFor[table](),
		reflect.TypeFor[triple](), reflect.TypeFor[inner](), reflect.TypeFor[nested](), reflect.TypeFor[node](),
		reflect.TypeFor[list](), reflect.TypeFor[tree](), reflect.TypeFor[even](), reflect.TypeFor[odd](),
		reflect.TypeFor[coded](), reflect.TypeFor[marshaled](), timeType, anyType, anyType, anyType,
	}
	// held is what interfaces hold, besides the registered random types.
	held = []reflect.Type{
		reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](),
		reflect.TypeFor[int32](), reflect.TypeFor[int64](), reflect.TypeFor[uint](), reflect.TypeFor[uint8](),
		reflect.TypeFor[uint16](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](), reflect.TypeFor[uintptr](),
		reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[complex64](), reflect.TypeFor[complex128](),
		reflect.TypeFor[string](), reflect.TypeFor[[]byte](), reflect.TypeFor[[]int](), reflect.TypeFor[[]string](),
		reflect.TypeFor[[]float64](), reflect.TypeFor[[]bool](), reflect.TypeFor[[]uint16](),
		reflect.TypeFor[inner](), reflect.TypeFor[nested](), reflect.TypeFor[nested](), reflect.TypeFor[*node](),
		reflect.TypeFor[list](), reflect.TypeFor[tree](), reflect.TypeFor[even](), reflect.TypeFor[table](),
		reflect.TypeFor[octets](), reflect.TypeFor[triple](), reflect.TypeFor[coded](), reflect.TypeFor[marshaled](),
		reflect.TypeFor[label](), timeType, reflect.TypeFor[map[string]any](), reflect.TypeFor[[]any](),
	}
)

// pool holds the types that are used.
type pool struct {
	types []reflect.Type
	held  []reflect.Type
}

func newPool(random *rand.Rand) *pool {
	register()
	p := &pool{held: held}
	seen := map[reflect.Type]bool{}
	for _, known := range append(plain, held...) {
		seen[known] = true
	}
	for len(p.types) < randomTypes {
		made := randomType(random, 0)
		p.types = append(p.types, made)
		if len(p.held) < len(held)+registeredTypes && canBeRegistered(made) && !seen[made] {
			seen[made] = true
			gob.RegisterName(fmt.Sprintf("random%d", len(p.held)), reflect.Zero(made).Interface())
			p.held = append(p.held, made)
		}
	}
	return p
}

// canBeRegistered is whether a type has no name in Go and, as slices of basic types do, in gob.
func canBeRegistered(made reflect.Type) bool {
	switch made.Kind() {
	case reflect.Array, reflect.Map, reflect.Struct:
		return made.Name() == ""
	case reflect.Slice:
		return made.Name() == "" && made.Elem().Name() == ""
	default:
		return false
	}
}

// some returns the types of one stream.
func (p *pool) some(random *rand.Rand) []reflect.Type {
	some := make([]reflect.Type, 1+random.Intn(3))
	for at := range some {
		some[at] = p.types[random.Intn(len(p.types))]
	}
	return some
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.Intn(len(from))] }

func randomType(random *rand.Rand, depth int) reflect.Type {
	choice := random.Intn(12)
	if depth >= 3 {
		choice = random.Intn(4)
	}
	switch choice {
	case 0, 1:
		return pick(random, plain)
	case 2, 3:
		return pick(random, named)
	case 4:
		return reflect.SliceOf(element(random, depth))
	case 5:
		return reflect.ArrayOf(random.Intn(4), element(random, depth))
	case 6:
		return reflect.MapOf(keyType(random), element(random, depth))
	default:
		return structType(random, depth)
	}
}

// element is a type or, now and then, a pointer to one.
func element(random *rand.Rand, depth int) reflect.Type {
	made := randomType(random, depth+1)
	for made != anyType && !encodesItself(made) && random.Intn(6) == 0 {
		made = reflect.PointerTo(made)
	}
	return made
}

// encodesItself is whether a type has its own encoding. Go's definition of a type that is first met as
// a pointer to such a type has two different ids, which the other side does not repeat.
func encodesItself(kind reflect.Type) bool {
	return kind == timeType || kind == reflect.TypeFor[coded]() || kind == reflect.TypeFor[marshaled]()
}

func keyType(random *rand.Rand) reflect.Type {
	switch random.Intn(8) {
	case 0:
		return reflect.ArrayOf(2, reflect.TypeFor[int16]())
	case 1:
		return reflect.TypeFor[inner]()
	default:
		return pick(random, plain)
	}
}

func structType(random *rand.Rand, depth int) reflect.Type {
	fields := make([]reflect.StructField, random.Intn(7))
	for at := range fields {
		fields[at] = reflect.StructField{
			Name: fmt.Sprintf("%s%d", pick(random, []string{"F", "Name", "Ünicode", "ID", "X_y"}), at),
			Type: element(random, depth),
		}
	}
	return reflect.StructOf(fields)
}

// value makes a value of a type; zero and empty ones are frequent.
func (p *pool) value(random *rand.Rand, kind reflect.Type, depth int) reflect.Value {
	value := reflect.New(kind).Elem()
	p.fill(random, value, depth)
	return value
}

func (p *pool) fill(random *rand.Rand, value reflect.Value, depth int) {
	kind := value.Type()
	switch kind {
	case timeType:
		value.Set(reflect.ValueOf(randomTime(random)))
		return
	case reflect.TypeFor[coded]():
		if random.Intn(4) > 0 {
			value.Set(reflect.ValueOf(coded{text(random)}))
		}
		return
	case reflect.TypeFor[marshaled]():
		if random.Intn(4) > 0 {
			value.Set(reflect.ValueOf(marshaled{byte(random.Intn(256))}))
		}
		return
	}
	switch kind.Kind() {
	case reflect.Pointer:
		value.Set(reflect.New(kind.Elem()))
		p.fill(random, value.Elem(), depth)
	case reflect.Array:
		for at := range value.Len() {
			p.fill(random, value.Index(at), depth+1)
		}
	case reflect.Struct:
		for at := range value.NumField() {
			p.fillField(random, kind.Field(at), value.Field(at), depth)
		}
	case reflect.Slice:
		count := length(random, depth)
		if count == 0 && random.Intn(2) == 0 {
			return
		}
		value.Set(reflect.MakeSlice(kind, count, count))
		for at := range count {
			p.fill(random, value.Index(at), depth+1)
		}
	case reflect.Map:
		if random.Intn(4) == 0 {
			return
		}
		value.Set(reflect.MakeMap(kind))
		for range length(random, depth) {
			key, elem := p.value(random, kind.Key(), depth+1), p.value(random, kind.Elem(), depth+1)
			value.SetMapIndex(key, elem)
		}
	case reflect.Interface:
		if depth <= deepest && random.Intn(4) > 0 {
			value.Set(p.value(random, pick(random, p.held), depth+1))
		}
	default:
		fillPlain(random, value)
	}
}

func (p *pool) fillField(random *rand.Rand, field reflect.StructField, value reflect.Value, depth int) {
	switch {
	case !field.IsExported(), field.Type.Kind() == reflect.Chan, field.Type.Kind() == reflect.Func:
	case field.Type.Kind() == reflect.Array, field.Type.Kind() == reflect.Struct:
		// There may be pointers in it that gob does not allow to be nil.
		p.fill(random, value, depth+1)
	case random.Intn(4) == 0:
	case field.Type.Kind() == reflect.Pointer && (depth >= deepest || random.Intn(3) == 0):
	default:
		p.fill(random, value, depth+1)
	}
}

func length(random *rand.Rand, depth int) int {
	switch {
	case depth > deepest:
		return 0
	case depth == 0 && random.Intn(60) == 0:
		return 100 + random.Intn(200)
	default:
		return random.Intn(4)
	}
}

func fillPlain(random *rand.Rand, value reflect.Value) {
	if random.Intn(4) == 0 {
		return
	}
	switch kind := value.Kind(); {
	case kind == reflect.Bool:
		value.SetBool(random.Intn(2) == 0)
	case value.CanInt():
		value.SetInt(int64(random.Uint64()) >> random.Intn(64) << (64 - value.Type().Bits()) >> (64 - value.Type().Bits()))
	case value.CanUint():
		value.SetUint(random.Uint64() >> random.Intn(64) << (64 - value.Type().Bits()) >> (64 - value.Type().Bits()))
	case kind == reflect.Float32:
		value.SetFloat(float64(float32(float(random))))
	case kind == reflect.Float64:
		value.SetFloat(float(random))
	case kind == reflect.Complex64:
		value.SetComplex(complex128(complex64(complex(float(random), float(random)))))
	case kind == reflect.Complex128:
		value.SetComplex(complex(float(random), float(random)))
	case kind == reflect.String:
		value.SetString(text(random))
	}
}

// float makes anything but NaN, which equals nothing.
func float(random *rand.Rand) float64 {
	switch random.Intn(6) {
	case 0:
		return float64(random.Intn(1000))
	case 1:
		return pick(random, []float64{math.Inf(1), math.Inf(-1), math.MaxFloat32, math.SmallestNonzeroFloat64, 0})
	default:
		return random.NormFloat64()
	}
}

// text makes strings that are mostly short, and not always UTF-8.
func text(random *rand.Rand) string {
	switch random.Intn(12) {
	case 0:
		return strings.Repeat("long ", random.Intn(30))
	case 1:
		return "\xff\x00\xfe"
	default:
		return pick(random, []string{"", "a", "héllo", "Plugin.Put", "世界", "x y z", "\u0000"})
	}
}

func randomTime(random *rand.Rand) time.Time {
	made := time.Unix(int64(random.Uint64()>>random.Intn(30))>>28, int64(random.Intn(1_000_000_000)))
	switch random.Intn(4) {
	case 0:
		return time.Time{}
	case 1:
		return made.UTC()
	case 2:
		return made.In(time.FixedZone("", (random.Intn(48)-24)*1800))
	default:
		return made.In(time.FixedZone("", random.Intn(50000)))
	}
}
