package goclient

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func TestKeepAliveKeepsAKeyForAsLongAsItGoesOn(t *testing.T) {
	t.Parallel()
	ctx, client, prefix := connect(t)
	lease, err := client.Grant(ctx, ttl)
	must(t, err)
	revision := put(t, ctx, client, prefix, "", clientv3.WithLease(lease.ID))
	watch := client.Watch(ctx, prefix, clientv3.WithRev(revision+1))
	alive, err := client.KeepAlive(ctx, lease.ID)
	must(t, err)
	for end := time.After(3 * ttl * time.Second); end != nil; {
		select {
		case renewed, open := <-alive:
			if !open || renewed.ID != lease.ID || renewed.TTL != ttl {
				t.Fatal("renewed:", renewed, open)
			}
		case events := <-watch:
			t.Fatal("gone while it is kept alive:", events)
		case <-end:
			end = nil
		}
	}
	_, err = client.Revoke(ctx, lease.ID)
	must(t, err)
	events := receive(t, watch).Events
	if len(events) != 1 || events[0].Type != mvccpb.Event_DELETE {
		t.Error("revoked:", events)
	}
	closed(t, alive)
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	ctx, client, prefix := connect(t)
	session := func() (*concurrency.Session, string) {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
		must(t, err)
		key := fmt.Sprint(prefix, session.Lease())
		put(t, ctx, client, key, "", clientv3.WithLease(session.Lease()))
		return session, key
	}
	begun := time.Now()
	orphan, orphaned := session()
	revoked, _ := session()
	ended, key := session()
	watch := client.Watch(ctx, orphaned)
	orphan.Orphan()
	_, err := client.Revoke(ctx, revoked.Lease())
	must(t, err)
	closed(t, revoked.Done())
	must(t, ended.Close())
	got, err := client.Get(ctx, key)
	must(t, err)
	if got.Count != 0 {
		t.Error("a closed session leaves a key")
	}
	event := receive(t, watch).Events[0]
	if event.Type != mvccpb.Event_DELETE || time.Since(begun) < ttl*time.Second {
		t.Error("an orphan:", event, "after", time.Since(begun))
	}
	_, err = client.KeepAliveOnce(ctx, orphan.Lease())
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Error("an expired lease is renewed:", err)
	}
}

// One stream renews all leases of a client.
func TestManyLeasesOnOneStream(t *testing.T) {
	t.Parallel()
	const leases = 300
	ctx, client, prefix := connect(t)
	for at := range leases {
		lease, err := client.Grant(ctx, ttl)
		must(t, err)
		_, err = client.KeepAlive(ctx, lease.ID)
		must(t, err)
		put(t, ctx, client, fmt.Sprint(prefix, at), "", clientv3.WithLease(lease.ID))
	}
	time.Sleep(2 * ttl * time.Second)
	all, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(t, err)
	if all.Count != leases {
		t.Errorf("%d keys, of %d", all.Count, leases)
	}
}

func TestLeasesTellOfThemselves(t *testing.T) {
	ctx, client, prefix := connect(t)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	for _, key := range []string{"b", "a", "c"} {
		put(t, ctx, client, prefix+key, "", clientv3.WithLease(lease.ID))
	}
	// Another lease takes it, none leaves it.
	put(t, ctx, client, prefix+"c", "")
	about, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(t, err)
	var keys []string
	for _, key := range about.Keys {
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	if about.GrantedTTL != 600 || about.TTL > 600 || about.TTL < 500 {
		t.Error("of 600 s:", about.GrantedTTL, about.TTL)
	}
	if !slices.Equal(keys, []string{prefix + "a", prefix + "b"}) {
		t.Error("attached:", keys)
	}
	all, err := client.Leases(ctx)
	must(t, err)
	if !slices.Contains(all.Leases, clientv3.LeaseStatus{ID: lease.ID}) {
		t.Error("not listed:", all.Leases)
	}
	_, err = client.Revoke(ctx, lease.ID)
	must(t, err)
	gone, err := client.TimeToLive(ctx, lease.ID)
	if err != nil || gone.TTL != -1 {
		t.Error("a revoked lease:", gone, err)
	}
}

func TestTransactionsCompareLeases(t *testing.T) {
	ctx, client, prefix := connect(t)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	put(t, ctx, client, prefix+"k", "", clientv3.WithLease(lease.ID))
	holds := func(result string, id clientv3.LeaseID) bool {
		done, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.LeaseValue(prefix+"k"), result, id)).
			Then(clientv3.OpPut(prefix+"n", "", clientv3.WithLease(lease.ID))).
			Commit()
		must(t, err)
		return done.Succeeded
	}
	if !holds("=", lease.ID) || holds("=", 0) || !holds("!=", 0) || !holds(">", lease.ID-1) || holds("<", lease.ID) {
		t.Error("the lease is not the one that was given")
	}
	done, err := client.Revoke(ctx, lease.ID)
	must(t, err)
	got, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil || got.Count != 0 || got.Header.Revision < done.Header.Revision {
		t.Error("left:", got, err)
	}
}

func TestLeasesThatAreRefused(t *testing.T) {
	ctx, client, prefix := connect(t)
	_, err := client.Grant(ctx, 9_000_000_001)
	if !errors.Is(err, rpctypes.ErrLeaseTTLTooLarge) {
		t.Error("too long:", err)
	}
	if _, err := client.Revoke(ctx, 4711); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Error("revoked:", err)
	}
	_, err = client.Put(ctx, prefix, "", clientv3.WithLease(4711))
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Error("attached:", err)
	}
	alive, err := client.KeepAlive(ctx, 4711)
	must(t, err)
	closed(t, alive)
	for _, short := range []int64{-1, 0, 1} {
		lease, err := client.Grant(ctx, short)
		if err != nil || lease.TTL != ttl {
			t.Error(short, "s become:", lease, err)
		}
	}
}
