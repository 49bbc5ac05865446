package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const maxLogLines = 20000

// entry is one line of the host's log, which is where plugin logs end up.
type entry map[string]any

func (e entry) text(key string) string {
	text, _ := e[key].(string)
	return text
}

// logStore collects the JSON lines that the library's logger writes.
type logStore struct {
	mu      sync.Mutex
	partial []byte
	entries []entry
	copy    *os.File
}

func (s *logStore) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copy != nil {
		_, _ = s.copy.Write(data)
	}
	s.partial = append(s.partial, data...)
	for {
		end := bytes.IndexByte(s.partial, '\n')
		if end < 0 {
			return len(data), nil
		}
		var parsed entry
		if err := json.Unmarshal(s.partial[:end], &parsed); err == nil && len(s.entries) < maxLogLines {
			s.entries = append(s.entries, parsed)
		}
		s.partial = s.partial[end+1:]
	}
}

func (s *logStore) find(matches func(entry) bool) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []entry
	for _, e := range s.entries {
		if matches(e) {
			found = append(found, e)
		}
	}
	return found
}

// await polls until at least count entries match, because log lines cross a pipe of their own.
func (s *logStore) await(count int, limit time.Duration, matches func(entry) bool) []entry {
	deadline := time.Now().Add(limit)
	for {
		found := s.find(matches)
		if len(found) >= count || time.Now().After(deadline) {
			return found
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// problems lists the messages of warn and error entries, at most 20.
func (s *logStore) problems() []string {
	messages := []string{}
	for _, e := range s.find(func(e entry) bool { return e.text("@level") == "error" || e.text("@level") == "warn" }) {
		if len(messages) == 20 {
			break
		}
		message := e.text("@level") + ": " + e.text("@message")
		for _, key := range []string{"error", "err"} {
			if cause, ok := e[key]; ok {
				message += fmt.Sprintf(": %v", cause)
			}
		}
		messages = append(messages, message)
	}
	return messages
}

func (s *logStore) levels() map[string]int {
	counts := map[string]int{}
	for _, e := range s.find(func(entry) bool { return true }) {
		counts[e.text("@level")]++
	}
	return counts
}

// buffer is a growing writer that several goroutines may use.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data.Len()+len(data) > 64<<20 {
		return len(data), nil
	}
	return b.data.Write(data)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func (b *buffer) await(text string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		have := b.String()
		if strings.Contains(have, text) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("expected %d bytes, have %d: %s", len(text), len(have), excerpt(have))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func excerpt(text string) string {
	if len(text) > 120 {
		return fmt.Sprintf("%q… (+%d bytes)", text[:120], len(text)-120)
	}
	return fmt.Sprintf("%q", text)
}
