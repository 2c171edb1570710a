// A lock between programs, and the fencing token without which it protects nothing but etcd's keys.
//
// Who holds a lock cannot know that he still does: he may have been stopped for longer than his lease
// lasts, and somebody else holds it by now. So each holder gets a number that is larger than that of
// all holders before, and sends it with all he writes; what is written to refuses a number smaller
// than the largest it has seen. That number is the revision in the header of Lock's reply.
package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"ringleader/examples"
)

// disk is anything outside of etcd that only the holder may write to. It looks at the token, and at
// nothing else.
type disk struct{ largest int64 }

func (disk *disk) write(token int64) string {
	if token < disk.largest {
		return "refused"
	}
	disk.largest = token
	return "written"
}

// lock waits until it holds the lock. The lock ends with its session: a lease of so many seconds that
// the client renews in the background.
func lock(ctx context.Context, client *clientv3.Client, seconds int) (*concurrency.Session, *concurrency.Mutex) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(seconds))
	examples.Check(err)
	mutex := concurrency.NewMutex(session, "locks/report")
	examples.Check(mutex.Lock(ctx))
	return session, mutex
}

func main() {
	ctx, client := context.Background(), examples.Connect()
	defer client.Close()
	var disk disk

	session, stopped := lock(ctx, client, 2)
	old := stopped.Header().Revision
	fmt.Println("the first holds the lock:", disk.write(old))
	// It is stopped, as by a long garbage collection: nobody renews its lease.
	session.Orphan()
	_, holder := lock(ctx, client, 60)
	token := holder.Header().Revision
	fmt.Println("the second holds it, with a larger token:", token > old)
	fmt.Println("it writes:", disk.write(token))
	fmt.Println("the first goes on and writes:", disk.write(old))

	// To etcd's own keys no token need be sent: the transaction asks whether the lock is still held.
	for name, mutex := range map[string]*concurrency.Mutex{"second": holder, "first": stopped} {
		done, err := client.Txn(ctx).If(mutex.IsOwner()).Then(clientv3.OpPut("report", name)).Commit()
		examples.Check(err)
		if done.Succeeded {
			fmt.Println("in etcd itself wrote only the", name)
		}
	}
	examples.Check(holder.Unlock(ctx))
}
