// What a distributed store has to know of itself: which nodes there are, and which of them has which
// shard. It changes rarely, is read often, and must never contradict itself.
package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"ringleader/examples"
)

// move gives a shard to another node, where that node exists and the shard is still where the caller
// believes it to be.
func move(ctx context.Context, client *clientv3.Client, shard, from, to string) bool {
	done, err := client.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision("nodes/"+to), ">", 0),
		clientv3.Compare(clientv3.Value("shards/"+shard), "=", from),
	).Then(
		clientv3.OpPut("shards/"+shard, to),
		clientv3.OpPut("log/"+shard, from+" to "+to),
	).Commit()
	examples.Check(err)
	return done.Succeeded
}

// shards reads all of the map as it was at one revision, two at a time: as many as fit, however many
// there are, while others go on changing it. 0 is the newest.
func shards(ctx context.Context, client *clientv3.Client, revision int64) (owners string, at int64) {
	key, end := "shards/", clientv3.GetPrefixRangeEnd("shards/")
	for more := true; more; {
		page, err := client.Get(ctx, key, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(2))
		examples.Check(err)
		for _, kv := range page.Kvs {
			owners += fmt.Sprintf(" %s:%s", kv.Key[len("shards/"):], kv.Value)
			key = string(kv.Key) + "\x00"
		}
		// The later pages are of the first one's revision.
		if revision == 0 {
			revision = page.Header.Revision
		}
		more = page.More
	}
	return owners, revision
}

func main() {
	ctx, client := context.Background(), examples.Connect()
	defer client.Close()
	setup := []clientv3.Op{clientv3.OpPut("nodes/a", "10.0.0.1"), clientv3.OpPut("nodes/b", "10.0.0.2")}
	for shard := range 5 {
		setup = append(setup, clientv3.OpPut(fmt.Sprint("shards/", shard), "a"))
	}
	// Once, however many nodes start at the same time.
	first := clientv3.Compare(clientv3.CreateRevision("nodes/"), "=", 0).WithPrefix()
	for range 2 {
		done, err := client.Txn(ctx).If(first).Then(setup...).Commit()
		examples.Check(err)
		fmt.Println("set up here:", done.Succeeded)
	}

	before, revision := shards(ctx, client, 0)
	fmt.Println("shards:" + before)
	fmt.Println("0 from a to b:", move(ctx, client, "0", "a", "b"))
	fmt.Println("1 from a to c, which is no node:", move(ctx, client, "1", "a", "c"))
	fmt.Println("0 from a, where it is no more:", move(ctx, client, "0", "a", "b"))
	now, _ := shards(ctx, client, 0)
	fmt.Println("shards:" + now)
	then, _ := shards(ctx, client, revision)
	fmt.Println("before:" + then)
}
