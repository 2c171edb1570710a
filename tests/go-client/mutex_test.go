package goclient

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func TestMutexLosesNoIncrement(t *testing.T) {
	const contenders, increments = 10, 20
	ctx, _, prefix := connect(t)
	var inside atomic.Int32
	var token int64
	var group sync.WaitGroup
	for range contenders {
		client := dial(t)
		group.Go(func() {
			session, err := concurrency.NewSession(client)
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, prefix+"lock")
			for range increments {
				if err := mutex.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				// What a holder learned later is higher, so that a store can refuse the earlier one.
				if revision := mutex.Header().Revision; revision <= token {
					t.Errorf("token %d after %d", revision, token)
				} else {
					token = revision
				}
				was, err := number(ctx, client, prefix+"counter")
				if err != nil {
					t.Error(err)
				}
				write := clientv3.OpPut(prefix+"counter", strconv.Itoa(was+1))
				done, err := client.Txn(ctx).If(mutex.IsOwner()).Then(write).Commit()
				if err != nil || !done.Succeeded {
					t.Error("the holder may not write:", err)
				}
				inside.Add(-1)
				if err := mutex.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	count, err := number(ctx, dial(t), prefix+"counter")
	must(t, err)
	if count != contenders*increments {
		t.Errorf("%d increments, of %d", count, contenders*increments)
	}
}

func TestTryLockDoesNotWait(t *testing.T) {
	ctx, client, prefix := connect(t)
	first, err := concurrency.NewSession(client)
	must(t, err)
	second, err := concurrency.NewSession(client)
	must(t, err)
	holder := concurrency.NewMutex(first, prefix)
	must(t, holder.TryLock(ctx))
	other := concurrency.NewMutex(second, prefix)
	if err := other.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Error("a second holder:", err)
	}
	must(t, holder.TryLock(ctx))
	must(t, holder.Unlock(ctx))
	must(t, other.TryLock(ctx))
	if err := holder.Unlock(ctx); !errors.Is(err, concurrency.ErrLockReleased) {
		t.Error("unlocked twice:", err)
	}
}

func TestLockOfAHolderThatDiesIsFreeAfterItsTTL(t *testing.T) {
	t.Parallel()
	ctx, client, prefix := connect(t)
	before := time.Now()
	dying, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	must(t, err)
	must(t, concurrency.NewMutex(dying, prefix).Lock(ctx))
	dying.Orphan()
	living, err := concurrency.NewSession(client)
	must(t, err)
	mutex := concurrency.NewMutex(living, prefix)
	must(t, mutex.Lock(ctx))
	if waited := time.Since(before); waited < ttl*time.Second {
		t.Errorf("taken from its holder after %v", waited)
	}
	must(t, mutex.Unlock(ctx))
}

func TestLockOfASessionThatEndsWhileItWaits(t *testing.T) {
	ctx, client, prefix := connect(t)
	holding, err := concurrency.NewSession(client)
	must(t, err)
	holder := concurrency.NewMutex(holding, prefix)
	must(t, holder.Lock(ctx))
	waiting, err := concurrency.NewSession(client)
	must(t, err)
	result := make(chan error)
	go func() { result <- concurrency.NewMutex(waiting, prefix).Lock(ctx) }()
	// It waits once its key is there.
	watch := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(holder.Header().Revision+1))
	receive(t, watch)
	_, err = client.Revoke(ctx, waiting.Lease())
	must(t, err)
	must(t, holder.Unlock(ctx))
	if err := receive(t, result); !errors.Is(err, concurrency.ErrSessionExpired) {
		t.Error("a lock without a lease:", err)
	}
}
