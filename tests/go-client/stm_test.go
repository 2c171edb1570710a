package goclient

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const accounts, wealth = 8, 100

// Transfers between accounts by optimistic transactions: no money appears, none is lost, and nobody
// sees it on its way.
func TestBankKeepsItsSum(t *testing.T) {
	levels := map[string]concurrency.Isolation{
		"serializable snapshot": concurrency.SerializableSnapshot,
		"serializable":          concurrency.Serializable,
	}
	for name, level := range levels {
		t.Run(name, func(t *testing.T) { bank(t, level) })
	}
}

func bank(t *testing.T, level concurrency.Isolation) {
	const clerks, transfers = 6, 30
	ctx, client, prefix := connect(t)
	account := func(at int) string { return fmt.Sprint(prefix, at) }
	for at := range accounts {
		put(t, ctx, client, account(at), strconv.Itoa(wealth))
	}
	closing, closed := context.WithCancel(ctx)
	var auditor, group sync.WaitGroup
	auditor.Go(func() {
		for closing.Err() == nil {
			audit(ctx, t, client, prefix)
		}
	})
	for clerk := range uint64(clerks) {
		client := dial(t)
		dice := rand.New(rand.NewPCG(clerk, 0))
		group.Go(func() {
			for range transfers {
				from, to, amount := account(dice.IntN(accounts)), account(dice.IntN(accounts)), dice.IntN(60)
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					return transfer(stm, from, to, amount)
				}, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	closed()
	auditor.Wait()
	audit(ctx, t, client, prefix)
}

func transfer(stm concurrency.STM, from, to string, amount int) error {
	if from == to {
		return nil
	}
	has, err := strconv.Atoi(stm.Get(from))
	if err != nil {
		return err
	}
	gets, err := strconv.Atoi(stm.Get(to))
	if err != nil || has < amount {
		return err
	}
	stm.Put(from, strconv.Itoa(has-amount))
	stm.Put(to, strconv.Itoa(gets+amount))
	return nil
}

func audit(ctx context.Context, t *testing.T, client *clientv3.Client, prefix string) {
	all, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		t.Error(err)
		return
	}
	sum := 0
	for _, kv := range all.Kvs {
		money, err := strconv.Atoi(string(kv.Value))
		if err != nil || money < 0 {
			t.Errorf("%s holds %q", kv.Key, kv.Value)
		}
		sum += money
	}
	if len(all.Kvs) != accounts || sum != accounts*wealth {
		t.Errorf("%d accounts hold %d", len(all.Kvs), sum)
	}
}
