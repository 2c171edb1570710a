// Services say where they are for as long as they are there; a client always knows which those are.
//
// An instance's key hangs on a lease that the instance keeps alive. If it ends, it takes the key
// away; if it dies, the lease runs out and the server does. The client reads all keys once and then
// watches from the next revision on, so it misses nothing and sees nothing twice.
package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"ringleader/examples"
)

const service = "services/web/"

// How long a dead instance stays known, in seconds. Shorter costs more renewals.
const ttl = 2

// register makes an instance known until the context ends or leave is called.
func register(ctx context.Context, client *clientv3.Client, name, address string) (leave func()) {
	lease, err := client.Grant(ctx, ttl)
	examples.Check(err)
	_, err = client.Put(ctx, service+name, address, clientv3.WithLease(lease.ID))
	examples.Check(err)
	alive, err := client.KeepAlive(ctx, lease.ID)
	examples.Check(err)
	go func() {
		for range alive {
		}
		// Here a real service that still lives would register anew.
	}()
	return func() {
		_, err := client.Revoke(ctx, lease.ID)
		examples.Check(err)
	}
}

// discover prints who is there, and then each change.
func discover(ctx context.Context, client *clientv3.Client, changes chan<- string) {
	all, err := client.Get(ctx, service, clientv3.WithPrefix())
	examples.Check(err)
	for _, kv := range all.Kvs {
		changes <- fmt.Sprintf("there is %s at %s", kv.Key, kv.Value)
	}
	from := all.Header.Revision + 1
	for response := range client.Watch(ctx, service, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		examples.Check(response.Err())
		for _, event := range response.Events {
			if event.IsCreate() {
				changes <- fmt.Sprintf("%s came, at %s", event.Kv.Key, event.Kv.Value)
			} else if event.Type == clientv3.EventTypeDelete {
				changes <- fmt.Sprintf("%s is gone", event.Kv.Key)
			}
		}
	}
}

func main() {
	ctx, client := context.Background(), examples.Connect()
	defer client.Close()
	changes := make(chan string)
	show := func() { fmt.Println(<-changes) }

	first := register(ctx, client, "1", "10.0.0.1:80")
	go discover(ctx, client, changes)
	show()
	life, die := context.WithCancel(ctx)
	register(life, client, "2", "10.0.0.2:80")
	show()
	first()
	show()
	die()
	show()
}
