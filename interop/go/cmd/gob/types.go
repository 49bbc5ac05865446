package main

import (
	"encoding/gob"
	"errors"
	"time"
)

// inner is registered as `main.Inner`, a plain struct.
type inner struct {
	A int
	B string
}

// nested holds anything.
type nested struct {
	I    any
	Name string
}

// node contains itself in three ways and has fields that are not sent.
type node struct {
	Value   int16
	Next    *node
	Kids    []node
	ByName  map[string]*node
	hidden  int
	Channel chan int
	Call    func()
	Extra   any
}

// Types that contain nothing but themselves.
type (
	list []list
	tree map[string]tree
)

// even and odd contain each other.
type even struct {
	Odd *odd
	N   uint8
}

type odd struct {
	Evens []even
	F     float32
}

// Named versions of unnamed types.
type (
	label   string
	octets  []byte
	numbers []int32
	table   map[label]numbers
	triple  [3]float64
)

// coded is a gob.GobEncoder.
type coded struct {
	payload string
}

func (c coded) GobEncode() ([]byte, error) { return []byte("<" + c.payload + ">"), nil }

func (c *coded) GobDecode(data []byte) error {
	if len(data) < 2 || data[0] != '<' || data[len(data)-1] != '>' {
		return errors.New("not what GobEncode returns")
	}
	c.payload = string(data[1 : len(data)-1])
	return nil
}

// marshaled is an encoding.BinaryMarshaler.
type marshaled struct {
	payload byte
}

func (m marshaled) MarshalBinary() ([]byte, error) { return []byte{m.payload, ^m.payload}, nil }

func (m *marshaled) UnmarshalBinary(data []byte) error {
	if len(data) != 2 || data[0] != ^data[1] {
		return errors.New("not what MarshalBinary returns")
	}
	m.payload = data[0]
	return nil
}

// everything is what the other side has a type for too.
type everything struct {
	Bool    bool
	Int     int
	Int8    int8
	Int16   int16
	Int32   int32
	Int64   int64
	Uint    uint
	Uint8   uint8
	Uint16  uint16
	Uint32  uint32
	Uint64  uint64
	Float32 float32
	Float64 float64
	Complex complex128
	String  string
	Bytes   []byte
	Array   [4]uint8
	Strings []string
	Map     map[string]int64
	ByID    map[uint16]inner
	Inner   inner
	Pointer *inner
	List    []inner
	Lists   [][]int32
	Node    *chain
	Any     any
	Anys    []any
	Time    time.Time
	Times   []time.Time
	Later   *time.Time
	Coded   coded
	Empty   struct{}
}

// chain contains itself.
type chain struct {
	Value string
	Next  *chain
	Kids  []chain
}

// register gives names to types that interfaces hold.
func register() {
	gob.RegisterName("main.Inner", inner{})
	gob.RegisterName("main.Nested", nested{})
	gob.RegisterName("*main.Node", &node{})
	gob.RegisterName("main.List", list{})
	gob.RegisterName("main.Tree", tree{})
	gob.RegisterName("main.Even", even{})
	gob.RegisterName("main.Table", table{})
	gob.RegisterName("main.Octets", octets{})
	gob.RegisterName("main.Triple", triple{})
	gob.RegisterName("main.Coded", coded{})
	gob.RegisterName("main.Marshaled", marshaled{})
	gob.RegisterName("main.Label", label(""))
	gob.Register(time.Time{})
	gob.Register(map[string]any{})
	gob.Register([]any{})
}
