package goclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// take reads a watch until it has so many events. Revisions never go back and are never split
// between responses.
func take(t *testing.T, watch clientv3.WatchChan, count int) []*clientv3.Event {
	t.Helper()
	var events []*clientv3.Event
	for len(events) < count {
		response := receive(t, watch)
		must(t, response.Err())
		last := int64(0)
		if len(events) > 0 {
			last = events[len(events)-1].Kv.ModRevision
		}
		for at, event := range response.Events {
			if event.Kv.ModRevision < last || at == 0 && event.Kv.ModRevision == last {
				t.Fatalf("revision %d after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
		}
		if response.Header.Revision < last {
			t.Fatalf("an event of revision %d in a response of %d", last, response.Header.Revision)
		}
		events = append(events, response.Events...)
	}
	if len(events) != count {
		t.Fatalf("%d events, of %d", len(events), count)
	}
	return events
}

func TestWatchersOfOneStreamSeeWhatTheyAskedFor(t *testing.T) {
	const watchers, rounds = 100, 20
	ctx, client, prefix := connect(t)
	ctx = clientv3.WithRequireLeader(ctx)
	key := func(at int) string { return fmt.Sprintf("%s%03d", prefix, at) }
	start := put(t, ctx, client, prefix, "")
	all := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(start+1), clientv3.WithPrevKV())
	deletes := client.Watch(ctx, key(0), clientv3.WithRange(key(10)), clientv3.WithRev(start+1), clientv3.WithFilterPut())
	puts := client.Watch(ctx, key(90), clientv3.WithFromKey(), clientv3.WithRev(start+1), clientv3.WithFilterDelete())
	var points []clientv3.WatchChan
	for at := range watchers {
		points = append(points, client.Watch(ctx, key(at), clientv3.WithCreatedNotify()))
	}
	for _, point := range points {
		if !receive(t, point).Created {
			t.Fatal("the first is not that it was created")
		}
	}
	for round := range rounds {
		for at := range watchers {
			put(t, ctx, client, key(at), fmt.Sprint(round))
		}
	}
	gone, err := client.Delete(ctx, prefix+"0", clientv3.WithPrefix())
	must(t, err)
	if gone.Deleted != watchers {
		t.Fatal("deleted:", gone.Deleted)
	}
	for at, event := range take(t, all, (rounds+1)*watchers) {
		round := at / watchers
		if string(event.Kv.Key) != key(at%watchers) || (event.Type == mvccpb.Event_DELETE) != (round == rounds) {
			t.Fatal("at", at, "came", event)
		}
		if round > 0 && string(event.PrevKv.Value) != fmt.Sprint(round-1) || round == 0 && event.PrevKv != nil {
			t.Fatal("at", at, "before it was", event.PrevKv)
		}
	}
	for at, point := range points {
		events := take(t, point, rounds+1)
		if last := events[rounds]; last.Type != mvccpb.Event_DELETE || string(last.Kv.Key) != key(at) {
			t.Fatal("watcher", at, "saw at last", last)
		}
	}
	for _, event := range take(t, deletes, 10) {
		if event.Type != mvccpb.Event_DELETE {
			t.Fatal("filtered, and came:", event)
		}
	}
	for _, event := range take(t, puts, 10*rounds) {
		if event.Type != mvccpb.Event_PUT {
			t.Fatal("filtered, and came:", event)
		}
	}
}

func TestProgressIsToldWhereNothingHappens(t *testing.T) {
	ctx, client, prefix := connect(t)
	revision := put(t, ctx, client, prefix, "")
	watch := client.Watch(ctx, prefix, clientv3.WithProgressNotify(), clientv3.WithRev(revision))
	take(t, watch, 1)
	for range 3 {
		response := receive(t, watch)
		if !response.IsProgressNotify() || response.Header.Revision < revision {
			t.Fatal("neither event nor progress:", response)
		}
	}
}

// Progress at a revision means that everything up to it was delivered.
func TestRequestedProgressComesAfterTheEvents(t *testing.T) {
	ctx, client, prefix := connect(t)
	watch := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	receive(t, watch)
	for round := range 50 {
		revision := put(t, ctx, client, prefix, fmt.Sprint(round))
		must(t, client.RequestProgress(ctx))
		seen := int64(0)
		for told := int64(0); told < revision; {
			response := receive(t, watch)
			must(t, response.Err())
			for _, event := range response.Events {
				if event.Kv.ModRevision <= told {
					t.Fatalf("revision %d after progress at %d", event.Kv.ModRevision, told)
				}
				seen = event.Kv.ModRevision
			}
			if !response.IsProgressNotify() {
				must(t, client.RequestProgress(ctx))
				continue
			}
			told = response.Header.Revision
			if told >= revision && seen < revision {
				t.Fatalf("progress at %d, and revision %d was not seen", told, revision)
			}
		}
		// Answers to those asked for along the way come before the next event.
	}
}

func TestHistoryLargerThanAMessage(t *testing.T) {
	const keys, bytesEach = 20, 700_000
	ctx, client, prefix := connect(t)
	value := func(at int) string { return strings.Repeat(string(rune('a'+at)), bytesEach) }
	first := put(t, ctx, client, prefix, "")
	for at := range keys {
		put(t, ctx, client, fmt.Sprintf("%s%02d", prefix, at), value(at))
	}
	gone, err := client.Delete(ctx, prefix, clientv3.WithPrefix())
	must(t, err)
	for _, opts := range [][]clientv3.OpOption{{}, {clientv3.WithFragment()}, {clientv3.WithFragment(), clientv3.WithPrevKV()}} {
		opts = append(opts, clientv3.WithPrefix(), clientv3.WithRev(first))
		events := take(t, client.Watch(ctx, prefix, opts...), 2*(keys+1))
		for at, event := range events[1 : keys+1] {
			if !bytes.Equal(event.Kv.Value, []byte(value(at))) {
				t.Fatalf("%s has another value", event.Kv.Key)
			}
		}
		for at, event := range events[keys+1:] {
			if event.Type != mvccpb.Event_DELETE || event.Kv.ModRevision != gone.Header.Revision {
				t.Fatalf("at %d came %v of revision %d", at, event.Type, event.Kv.ModRevision)
			}
		}
	}
}

func TestWatchOfACompactedRevision(t *testing.T) {
	ctx, client, prefix := connect(t)
	first := put(t, ctx, client, prefix, "1")
	second := put(t, ctx, client, prefix, "2")
	_, err := client.Compact(ctx, second)
	must(t, err)
	watch := client.Watch(ctx, prefix, clientv3.WithRev(first))
	response := receive(t, watch)
	if !errors.Is(response.Err(), rpctypes.ErrCompacted) || response.CompactRevision != second || !response.Canceled {
		t.Error("the compacted:", response, response.Err())
	}
	closed(t, watch)
	if event := take(t, client.Watch(ctx, prefix, clientv3.WithRev(second)), 1)[0]; event.Kv.ModRevision != second {
		t.Error("the last that is kept:", event)
	}
}

func TestAWatchOfTheFutureWaitsForIt(t *testing.T) {
	ctx, client, prefix := connect(t)
	now := put(t, ctx, client, prefix, "now")
	watch := client.Watch(ctx, prefix, clientv3.WithRev(now+3))
	for at := range 5 {
		put(t, ctx, client, prefix, fmt.Sprint(at+1))
	}
	// Other tests write too, so the third revision from now may be any of these.
	for {
		events := receive(t, watch).Events
		for _, event := range events {
			if event.Kv.ModRevision < now+3 {
				t.Fatal("too early:", event)
			}
			if string(event.Kv.Value) == "5" {
				return
			}
		}
	}
}

func TestACanceledWatchEndsAlone(t *testing.T) {
	ctx, client, prefix := connect(t)
	one, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	canceled := client.Watch(one, prefix, clientv3.WithCreatedNotify())
	other := client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithCreatedNotify())
	receive(t, canceled)
	receive(t, other)
	cancel()
	closed(t, canceled)
	put(t, ctx, client, prefix, "")
	take(t, other, 1)
}
