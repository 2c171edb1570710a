// A program follows its configuration while it runs; who changes it does not undo a change that he
// has not seen.
package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"ringleader/examples"
)

const config = "config/web/"

// follow calls apply with each setting as it is, and again with each that changes. All that one
// transaction changed comes together.
func follow(ctx context.Context, client *clientv3.Client, apply func(map[string]string)) {
	all, err := client.Get(ctx, config, clientv3.WithPrefix())
	examples.Check(err)
	settings := map[string]string{}
	for _, kv := range all.Kvs {
		settings[string(kv.Key[len(config):])] = string(kv.Value)
	}
	apply(settings)
	from := all.Header.Revision + 1
	for response := range client.Watch(ctx, config, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		// Compacted: it was away for so long that what it missed is forgotten. Then it begins anew.
		examples.Check(response.Err())
		for _, event := range response.Events {
			name := string(event.Kv.Key[len(config):])
			if event.Type == clientv3.EventTypeDelete {
				delete(settings, name)
			} else {
				settings[name] = string(event.Kv.Value)
			}
		}
		apply(settings)
	}
}

// change writes a setting only where it still is what was read.
func change(ctx context.Context, client *clientv3.Client, name, value string, seen int64) bool {
	done, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(config+name), "=", seen)).
		Then(clientv3.OpPut(config+name, value)).
		Commit()
	examples.Check(err)
	return done.Succeeded
}

func main() {
	ctx, client := context.Background(), examples.Connect()
	defer client.Close()
	_, err := client.Put(ctx, config+"log", "warn")
	examples.Check(err)

	applied := make(chan string)
	go follow(ctx, client, func(settings map[string]string) { applied <- fmt.Sprint(settings) })
	fmt.Println("starts with", <-applied)

	// Two settings that belong together change together.
	_, err = client.Txn(ctx).Then(
		clientv3.OpPut(config+"log", "info"),
		clientv3.OpPut(config+"workers", "8"),
	).Commit()
	examples.Check(err)
	fmt.Println("goes on with", <-applied)

	// Two operators read the same; the second to write is told to look again.
	read, err := client.Get(ctx, config+"workers")
	examples.Check(err)
	seen := read.Kvs[0].ModRevision
	fmt.Println("first operator:", change(ctx, client, "workers", "16", seen))
	fmt.Println("goes on with", <-applied)
	fmt.Println("second operator:", change(ctx, client, "workers", "4", seen))

	// And back to what it was, from history.
	before, err := client.Get(ctx, config+"log", clientv3.WithRev(read.Kvs[0].ModRevision-1))
	examples.Check(err)
	_, err = client.Put(ctx, config+"log", string(before.Kvs[0].Value))
	examples.Check(err)
	fmt.Println("goes on with", <-applied)
}
