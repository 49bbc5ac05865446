// Package filestore keeps small values in files of the working directory, one per key, so that a
// value outlives the plugin process that stored it.
package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// ErrBadKey reports a key that cannot be a part of a file name.
var ErrBadKey = errors.New("key is empty, longer than 200 bytes or holds a separator")

// Store is a set of files named by a prefix and a key.
type Store struct {
	mu     sync.Mutex
	prefix string
}

// New returns a store whose files are called prefix + key.
func New(prefix string) *Store {
	return &Store{prefix: prefix}
}

// Get returns the value of key; an absent key gives an error that is fs.ErrNotExist.
func (s *Store) Get(key string) ([]byte, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.ReadFile(path)
}

// Put replaces the value of key.
func (s *Store) Put(key string, value []byte) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.WriteFile(path, value, 0o644)
}

// Update replaces the value of key by what change makes of the old one, nil when absent. Updates
// of one store happen one at a time.
func (s *Store) Update(key string, change func(old []byte) ([]byte, error)) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	value, err := change(old)
	if err != nil {
		return err
	}
	return os.WriteFile(path, value, 0o644)
}

func (s *Store) path(key string) (string, error) {
	if key == "" || len(key) > 200 || strings.ContainsAny(key, "/\\\x00") {
		return "", ErrBadKey
	}
	return filepath.Join(".", s.prefix+key), nil
}
