// Package goclient uses a server as most of etcd's users do: by way of its Go client, and of what
// that client builds out of watches and leases. $ENDPOINT is a fresh server; see run.sh.
package goclient

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// However busy the machine: what takes longer is stuck.
const stuck = time.Minute

// The smallest lease there is with the server's default clock.
const ttl = 2

// connect returns a client of its own for a test, a context that ends with it, and a prefix for its
// keys that no other test has.
func connect(t *testing.T) (context.Context, *clientv3.Client, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stuck)
	t.Cleanup(cancel)
	return ctx, dial(t), t.Name() + "/"
}

func dial(t *testing.T) *clientv3.Client {
	t.Helper()
	endpoint := os.Getenv("ENDPOINT")
	if endpoint == "" {
		t.Fatal("$ENDPOINT names no server")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: stuck})
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes a key and returns the revision that this made.
func put(t *testing.T, ctx context.Context, kv clientv3.KV, key, value string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	done, err := kv.Put(ctx, key, value, opts...)
	must(t, err)
	return done.Header.Revision
}

// number reads a key that holds one; 0 where there is no such key.
func number(ctx context.Context, kv clientv3.KV, key string) (int, error) {
	got, err := kv.Get(ctx, key)
	if err != nil || len(got.Kvs) == 0 {
		return 0, err
	}
	return strconv.Atoi(string(got.Kvs[0].Value))
}

// receive takes one from a channel; it fails the test where none comes.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got, open := <-from:
		if !open {
			t.Fatal("the channel is closed")
		}
		return got
	case <-time.After(stuck):
		t.Fatal("nothing comes")
	}
	panic("not reached")
}

// closed waits until a channel is closed, whatever comes before.
func closed[T any](t *testing.T, channel <-chan T) {
	t.Helper()
	for deadline := time.After(stuck); ; {
		select {
		case _, open := <-channel:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("it stays open")
		}
	}
}
