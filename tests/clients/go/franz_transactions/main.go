// Transactions with franz-go: aborts, consume-process-produce, and a producer that has been replaced.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"barnabas/tests/clients/go/story"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	input  = "franz-in"
	output = "franz-out"
	group  = "franz-transactions"
)

func client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(os.Args[1]))...)
}

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

func number(i int) *kgo.Record {
	return &kgo.Record{Topic: output, Value: []byte(strconv.Itoa(i))}
}

// read gives all values of the output up to the end as the isolation level has it.
func read(level kgo.IsolationLevel) ([]int, error) {
	ctx, cancel := patience()
	defer cancel()
	consumer, err := client(kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{output: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	admin := kadm.NewClient(consumer)
	ends, err := admin.ListEndOffsets(ctx, output)
	if level == kgo.ReadCommitted() {
		ends, err = admin.ListCommittedOffsets(ctx, output)
	}
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup(output, 0)
	found := []int{}
	for next := int64(0); next < end.Offset; {
		short, cancel := context.WithTimeout(ctx, time.Second)
		fetches := consumer.PollFetches(short)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fetches.EachRecord(func(record *kgo.Record) {
			next = record.Offset + 1
			if !record.Attrs.IsControl() {
				value, _ := strconv.Atoi(string(record.Value))
				found = append(found, value)
			}
		})
	}
	return found, nil
}

func numbers(from int, to int) []int {
	all := []int{}
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func reads(level kgo.IsolationLevel, wanted []int) error {
	found, err := read(level)
	return story.First(err, story.Equal(found, wanted))
}

func abort() error {
	ctx, cancel := patience()
	defer cancel()
	producer, err := client(kgo.TransactionalID("franz-a"))
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.BeginTransaction(); err != nil {
		return err
	}
	for i := range 10 {
		if err := producer.ProduceSync(ctx, number(i)).FirstErr(); err != nil {
			return err
		}
	}
	return story.First(reads(kgo.ReadUncommitted(), numbers(0, 10)), reads(kgo.ReadCommitted(), []int{}),
		producer.EndTransaction(ctx, kgo.TryAbort),
		reads(kgo.ReadUncommitted(), numbers(0, 10)), reads(kgo.ReadCommitted(), []int{}))
}

func consumeProcessProduce() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	plain, err := client()
	if err != nil {
		return err
	}
	defer plain.Close()
	for i := range 30 {
		record := &kgo.Record{Topic: input, Value: []byte(strconv.Itoa(i))}
		if err := plain.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(os.Args[1]), kgo.TransactionalID("franz-b"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumerGroup(group), kgo.ConsumeTopics(input),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets())
	if err != nil {
		return err
	}
	defer session.Close()
	for rounds, done := 0, 0; done < 30; {
		fetches := session.Client().PollRecords(ctx, 5)
		if err := fetches.Err(); err != nil {
			return err
		}
		if err := session.Begin(); err != nil {
			return err
		}
		count := 0
		fetches.EachRecord(func(record *kgo.Record) {
			value, _ := strconv.Atoi(string(record.Value))
			session.Produce(ctx, number(1000+value), nil)
			count++
		})
		rounds++
		committed, err := session.End(ctx, kgo.TransactionEndTry(rounds%3 != 0))
		if err != nil {
			return err
		}
		if committed {
			done += count
		}
	}
	// The transaction is committed before its offsets are seen.
	err = story.Until(func() (bool, error) {
		offsets, err := kadm.NewClient(plain).FetchOffsets(ctx, group)
		offset, _ := offsets.Lookup(input, 0)
		return offset.At == 30, err
	})
	return story.First(err, reads(kgo.ReadCommitted(), numbers(1000, 1030)))
}

func fence() error {
	ctx, cancel := patience()
	defer cancel()
	producing := func(i int) (*kgo.Client, error) {
		producer, err := client(kgo.TransactionalID("franz-c"))
		if err != nil {
			return nil, err
		}
		return producer, story.First(producer.BeginTransaction(), producer.ProduceSync(ctx, number(i)).FirstErr())
	}
	zombie, err := producing(2000)
	if err != nil {
		return err
	}
	defer zombie.Close()
	// The library gives up while the broker still ends the transaction of the zombie.
	var producer *kgo.Client
	err = story.Until(func() (bool, error) {
		var err error
		if producer, err = producing(2001); errors.Is(err, kerr.ConcurrentTransactions) {
			producer.Close()
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return err
	}
	defer producer.Close()
	if zombie.EndTransaction(ctx, kgo.TryCommit) == nil {
		return errors.New("the zombie has committed")
	}
	if err := producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	return reads(kgo.ReadCommitted(), append(numbers(1000, 1030), 2001))
}

func main() {
	ctx, cancel := patience()
	defer cancel()
	story.Check("abort", func() error {
		administrator, err := client()
		if err != nil {
			return err
		}
		defer administrator.Close()
		_, err = kadm.NewClient(administrator).CreateTopics(ctx, 1, 1, nil, input, output)
		return story.First(err, abort())
	})
	story.Check("consume process produce", consumeProcessProduce)
	story.Check("fence", fence)
	story.End()
}
