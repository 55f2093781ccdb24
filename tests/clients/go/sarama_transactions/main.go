// Transactions with Sarama: aborts, consume-process-produce, and a producer that has been replaced.
package main

import (
	"errors"
	"os"
	"strconv"
	"time"

	"barnabas/tests/clients/go/story"

	"github.com/IBM/sarama"
)

const (
	input  = "sarama-in"
	output = "sarama-out"
	group  = "sarama-transactions"
)

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_9_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	return config
}

func transactional(id string) (sarama.SyncProducer, error) {
	config := settings()
	config.Producer.Idempotent = true
	config.Producer.Transaction.ID = id
	config.Net.MaxOpenRequests = 1
	return sarama.NewSyncProducer([]string{os.Args[1]}, config)
}

func send(producer sarama.SyncProducer, topic string, i int) error {
	message := &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(strconv.Itoa(i))}
	_, _, err := producer.SendMessage(message)
	return err
}

// read gives the first values of a topic, and what comes within a short time behind them.
func read(level sarama.IsolationLevel, count int) ([]int, error) {
	config := settings()
	config.Consumer.IsolationLevel = level
	consumer, err := sarama.NewConsumer([]string{os.Args[1]}, config)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(output, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	found := []int{}
	patience := 30 * time.Second
	for {
		if len(found) >= count {
			patience = 500 * time.Millisecond
		}
		select {
		case message := <-partition.Messages():
			value, _ := strconv.Atoi(string(message.Value))
			found = append(found, value)
		case <-time.After(patience):
			return found, nil
		}
	}
}

func numbers(from int, to int) []int {
	all := []int{}
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func reads(level sarama.IsolationLevel, wanted []int) error {
	found, err := read(level, len(wanted))
	return story.First(err, story.Equal(found, wanted))
}

func abort() error {
	producer, err := transactional("sarama-a")
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.BeginTxn(); err != nil {
		return err
	}
	for i := range 10 {
		if err := send(producer, output, i); err != nil {
			return err
		}
	}
	return story.First(reads(sarama.ReadUncommitted, numbers(0, 10)), reads(sarama.ReadCommitted, []int{}),
		producer.AbortTxn(),
		reads(sarama.ReadUncommitted, numbers(0, 10)), reads(sarama.ReadCommitted, []int{}))
}

func consumeProcessProduce() error {
	plain, err := sarama.NewSyncProducer([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer plain.Close()
	for i := range 30 {
		if err := send(plain, input, i); err != nil {
			return err
		}
	}
	consumer, err := sarama.NewConsumer([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(input, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer partition.Close()
	var messages []*sarama.ConsumerMessage
	for len(messages) < 30 {
		select {
		case message := <-partition.Messages():
			messages = append(messages, message)
		case <-time.After(30 * time.Second):
			return errors.New("the input does not come")
		}
	}
	producer, err := transactional("sarama-b")
	if err != nil {
		return err
	}
	defer producer.Close()
	for rounds, done := 0, 0; done < 30; {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		for _, message := range messages[done : done+5] {
			value, _ := strconv.Atoi(string(message.Value))
			if err := send(producer, output, 1000+value); err != nil {
				return err
			}
		}
		if err := producer.AddMessageToTxn(messages[done+4], group, nil); err != nil {
			return err
		}
		rounds++
		if rounds%3 == 0 {
			err = producer.AbortTxn()
		} else {
			err = producer.CommitTxn()
			done += 5
		}
		if err != nil {
			return err
		}
	}
	admin, err := sarama.NewClusterAdmin([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer admin.Close()
	// The transaction is committed before its offsets are seen.
	err = story.Until(func() (bool, error) {
		offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{input: {0}})
		return err == nil && offsets.GetBlock(input, 0).Offset == 30, err
	})
	return story.First(err, reads(sarama.ReadCommitted, numbers(1000, 1030)))
}

func fence() error {
	zombie, err := transactional("sarama-c")
	if err != nil {
		return err
	}
	defer zombie.Close()
	if err := story.First(zombie.BeginTxn(), send(zombie, output, 2000)); err != nil {
		return err
	}
	// The library gives up while the broker still ends the transaction of the zombie.
	var producer sarama.SyncProducer
	err = story.Until(func() (bool, error) {
		var err error
		producer, err = transactional("sarama-c")
		if errors.Is(err, sarama.ErrConcurrentTransactions) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return err
	}
	defer producer.Close()
	if zombie.CommitTxn() == nil {
		return errors.New("the zombie has committed")
	}
	return story.First(producer.BeginTxn(), send(producer, output, 2001), producer.CommitTxn(),
		reads(sarama.ReadCommitted, append(numbers(1000, 1030), 2001)))
}

func main() {
	story.Check("abort", func() error {
		admin, err := sarama.NewClusterAdmin([]string{os.Args[1]}, settings())
		if err != nil {
			return err
		}
		defer admin.Close()
		topic := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
		return story.First(admin.CreateTopic(input, topic, false), admin.CreateTopic(output, topic, false), abort())
	})
	story.Check("consume process produce", consumeProcessProduce)
	story.Check("fence", fence)
	story.End()
}
