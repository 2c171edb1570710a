package goclient

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

func TestANamespaceIsAServerOfItsOwn(t *testing.T) {
	ctx, plain, prefix := connect(t)
	client := dial(t)
	client.KV = namespace.NewKV(client.KV, prefix)
	client.Watcher = namespace.NewWatcher(client.Watcher, prefix)
	client.Lease = namespace.NewLease(client.Lease, prefix)
	watch := client.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	receive(t, watch)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	put(t, ctx, client, "k", "v", clientv3.WithLease(lease.ID))
	if event := take(t, watch, 1)[0]; string(event.Kv.Key) != "k" {
		t.Error("inside it is", event)
	}
	if got, err := plain.Get(ctx, prefix+"k"); err != nil || got.Count != 1 {
		t.Error("outside it is", got, err)
	}
	about, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil || fmt.Sprintf("%s", about.Keys) != "[k]" {
		t.Error("attached:", about, err)
	}
	session, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID))
	must(t, err)
	mutex := concurrency.NewMutex(session, "lock")
	must(t, mutex.Lock(ctx))
	must(t, mutex.Unlock(ctx))
	must(t, session.Close())
	if got, err := client.Get(ctx, "", clientv3.WithPrefix()); err != nil || got.Count != 0 {
		t.Error("left:", got, err)
	}
}

func TestReadsNeverGoBack(t *testing.T) {
	ctx, client, prefix := connect(t)
	kv := ordering.NewKV(client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		return fmt.Errorf("a read went back")
	})
	for at := range 100 {
		put(t, ctx, client, prefix, fmt.Sprint(at))
		got, err := kv.Get(ctx, prefix, clientv3.WithSerializable())
		must(t, err)
		if string(got.Kvs[0].Value) != fmt.Sprint(at) {
			t.Fatalf("%s, of %d", got.Kvs[0].Value, at)
		}
	}
}

// Two caches of the same keys, each kept true by leases and watches.
func TestCachedReadsSeeTheWritesOfOthers(t *testing.T) {
	ctx, client, prefix := connect(t)
	one, closeOne, err := leasing.NewKV(client, prefix+"leasing/")
	must(t, err)
	defer closeOne()
	other, closeOther, err := leasing.NewKV(dial(t), prefix+"leasing/")
	must(t, err)
	defer closeOther()
	for at := range 20 {
		put(t, ctx, one, prefix+"k", fmt.Sprint(at))
		for _, kv := range []clientv3.KV{other, one, other} {
			got, err := kv.Get(ctx, prefix+"k")
			must(t, err)
			if string(got.Kvs[0].Value) != fmt.Sprint(at) {
				t.Fatalf("%s, of %d", got.Kvs[0].Value, at)
			}
		}
	}
}
