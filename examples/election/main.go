// One of several equal programs leads; when it ends or dies, another does. All know who.
package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"ringleader/examples"
)

const election = "elections/scheduler"

// candidate leads as soon as it can, and says so.
type candidate struct {
	name     string
	session  *concurrency.Session
	election *concurrency.Election
	leads    chan struct{}
}

func stand(ctx context.Context, client *clientv3.Client, name string) candidate {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(2))
	examples.Check(err)
	it := candidate{name, session, concurrency.NewElection(session, election), make(chan struct{})}
	go func() {
		// Its place in the queue is its key's create revision, which is also its fencing token while
		// it leads: see the lock.
		examples.Check(it.election.Campaign(ctx, name))
		close(it.leads)
	}()
	return it
}

func main() {
	ctx, client := context.Background(), examples.Connect()
	defer client.Close()
	observer, err := concurrency.NewSession(client)
	examples.Check(err)
	leaders := concurrency.NewElection(observer, election).Observe(ctx)
	show := func() {
		leader := <-leaders
		fmt.Printf("the leader says: %s\n", leader.Kvs[0].Value)
	}

	a := stand(ctx, client, "a")
	<-a.leads
	show()
	b := stand(ctx, client, "b")
	examples.Check(a.election.Proclaim(ctx, "a, at 10.0.0.1"))
	show()
	// In order: it resigns.
	examples.Check(a.election.Resign(ctx))
	<-b.leads
	show()
	// It dies: its lease runs out.
	c := stand(ctx, client, "c")
	b.session.Orphan()
	<-c.leads
	show()
	if err := b.election.Proclaim(ctx, "b, still"); err != nil {
		fmt.Println("b is told:", err)
	}
	examples.Check(c.election.Resign(ctx))
}
