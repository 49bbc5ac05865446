// Package oneconn speaks HTTP over a connection that is already there, such as a brokered stream.
package oneconn

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers the requests of one connection until it ends, and closes it.
func Serve(conn net.Conn, handler http.Handler) {
	once := &listener{conn: make(chan net.Conn, 1), done: make(chan struct{}), address: conn.LocalAddr()}
	once.conn <- conn
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 20 * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				_ = once.Close()
			}
		},
	}
	// The end of the only connection is the end of serving.
	_ = server.Serve(once)
}

// Client sends one request over conn, which the server is asked to close afterwards.
func Client(conn net.Conn) *http.Client {
	taken := make(chan net.Conn, 1)
	taken <- conn
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				select {
				case only := <-taken:
					return only, nil
				default:
					return nil, errors.New("the only connection is used up")
				}
			},
		},
	}
}

type listener struct {
	conn    chan net.Conn
	done    chan struct{}
	once    sync.Once
	address net.Addr
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.address }
