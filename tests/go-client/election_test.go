package goclient

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

func TestElectionsHaveOneLeaderAtATime(t *testing.T) {
	const candidates = 6
	ctx, watcher, prefix := connect(t)
	session, err := concurrency.NewSession(watcher)
	must(t, err)
	observed := concurrency.NewElection(session, prefix).Observe(ctx)
	var leaders atomic.Int32
	var group sync.WaitGroup
	for at := range candidates {
		client := dial(t)
		group.Go(func() {
			session, err := concurrency.NewSession(client)
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			election := concurrency.NewElection(session, prefix)
			name := fmt.Sprintf("candidate %d", at)
			if err := election.Campaign(ctx, name); err != nil {
				t.Error(err)
				return
			}
			if leaders.Add(1) != 1 {
				t.Error("two leaders")
			}
			// An observer may come late to a short reign, so a reign lasts until it was seen.
			for value := range observed {
				if string(value.Kvs[0].Value) == name {
					break
				}
				t.Errorf("%q is observed while %q leads", value.Kvs[0].Value, name)
			}
			if err := election.Proclaim(ctx, name+" again"); err != nil {
				t.Error(err)
			}
			if value := string((<-observed).Kvs[0].Value); value != name+" again" {
				t.Errorf("%q is observed after a proclamation", value)
			}
			leaders.Add(-1)
			if err := election.Resign(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	election := concurrency.NewElection(session, prefix)
	if _, err := election.Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Error("all resigned:", err)
	}
}

func TestALeaderThatDiesIsFollowedByTheNext(t *testing.T) {
	t.Parallel()
	ctx, client, prefix := connect(t)
	before := time.Now()
	dying, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	must(t, err)
	first := concurrency.NewElection(dying, prefix)
	must(t, first.Campaign(ctx, "first"))
	dying.Orphan()
	living, err := concurrency.NewSession(client)
	must(t, err)
	second := concurrency.NewElection(living, prefix)
	must(t, second.Campaign(ctx, "second"))
	if waited := time.Since(before); waited < ttl*time.Second {
		t.Errorf("deposed after %v", waited)
	}
	if err := first.Proclaim(ctx, "still I"); !errors.Is(err, concurrency.ErrElectionNotLeader) {
		t.Error("the first still proclaims:", err)
	}
	leader, err := first.Leader(ctx)
	must(t, err)
	if value := string(leader.Kvs[0].Value); value != "second" {
		t.Error("the leader is", value)
	}
	resumed := concurrency.ResumeElection(living, prefix, second.Key(), second.Rev())
	must(t, resumed.Proclaim(ctx, "resumed"))
	must(t, resumed.Resign(ctx))
	if err := second.Proclaim(ctx, "again"); !errors.Is(err, concurrency.ErrElectionNotLeader) {
		t.Error("it resigned:", err)
	}
}
