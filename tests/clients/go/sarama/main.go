// Sarama.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/tests/clients/go/story"

	"github.com/IBM/sarama"
)

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_9_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Metadata.AllowAutoTopicCreation = true
	return config
}

func consume(topic string, offset int64) ([]story.Record, error) {
	consumer, err := sarama.NewConsumer([]string{os.Args[1]}, settings())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, offset)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	patience := time.After(20 * time.Second)
	var found []story.Record
	for len(found) == 0 || found[len(found)-1].Offset < story.Count-1 {
		select {
		case message := <-partition.Messages():
			found = append(found, story.Record{
				Offset: message.Offset, Timestamp: message.Timestamp, Key: message.Key, Value: message.Value,
				Header: string(message.Headers[0].Value),
			})
		case <-patience:
			return nil, fmt.Errorf("nothing more after %d records", len(found))
		}
	}
	return found, nil
}

func produceAndConsume(topic string, config *sarama.Config) error {
	producer, err := sarama.NewSyncProducer([]string{os.Args[1]}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, record := range story.Records() {
		message := &sarama.ProducerMessage{
			Topic: topic, Partition: 0, Timestamp: record.Timestamp,
			Headers: []sarama.RecordHeader{{Key: []byte("header"), Value: []byte(record.Header)}},
		}
		if record.Key != nil {
			message.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			message.Value = sarama.ByteEncoder(record.Value)
		}
		messages = append(messages, message)
	}
	if err := producer.SendMessages(messages); err != nil {
		return err
	}
	for i, message := range messages {
		if err := story.Equal(message.Offset, int64(i)); err != nil {
			return err
		}
	}

	client, err := sarama.NewClient([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer client.Close()
	expected := story.Records()
	atTime, err := client.GetOffset(topic, 0, expected[story.Split].Timestamp.UnixMilli())
	if err := story.First(err, story.Equal(atTime, int64(story.Split))); err != nil {
		return err
	}
	for _, offset := range []int64{sarama.OffsetOldest, story.Split, atTime} {
		found, err := consume(topic, offset)
		if err := story.First(err, story.EqualRecords(found, expected[max(offset, 0):])); err != nil {
			return err
		}
	}
	return nil
}

func administrate() error {
	const topic = "sarama-admin"
	client, err := sarama.NewClient([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return err
	}
	defer admin.Close()

	retention := "7200000"
	err = admin.CreateTopic(topic, &sarama.TopicDetail{
		NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention},
	}, false)
	if err != nil {
		return err
	}
	partitions := func(wanted int) func() (bool, error) {
		return func() (bool, error) {
			topics, err := admin.ListTopics()
			return int(topics[topic].NumPartitions) == wanted, err
		}
	}
	retentionIs := func(wanted string) func() (bool, error) {
		return func() (bool, error) {
			entries, err := admin.DescribeConfig(sarama.ConfigResource{
				Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"},
			})
			return err == nil && len(entries) == 1 && entries[0].Value == wanted, err
		}
	}
	if err := story.First(story.Until(partitions(2)), story.Until(retentionIs(retention))); err != nil {
		return err
	}
	shorter := "3600000"
	err = admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &shorter},
	}, false)
	if err := story.First(err, story.Until(retentionIs(shorter))); err != nil {
		return err
	}
	if err := story.First(admin.CreatePartitions(topic, 4, nil, false), story.Until(partitions(4))); err != nil {
		return err
	}

	producer, err := sarama.NewSyncProducer([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer producer.Close()
	for range 10 {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Partition: 3, Value: sarama.StringEncoder("value"),
		})
		if err != nil {
			return err
		}
	}
	if err := admin.DeleteRecords(topic, map[int32]int64{3: 7}); err != nil {
		return err
	}
	start, startErr := client.GetOffset(topic, 3, sarama.OffsetOldest)
	end, endErr := client.GetOffset(topic, 3, sarama.OffsetNewest)
	if err := story.First(startErr, endErr, story.Equal([]int64{start, end}, []int64{7, 10})); err != nil {
		return err
	}

	return story.First(admin.DeleteTopic(topic), story.Until(partitions(0)))
}

// A member of a group: what it was given and what it has found.
type member struct {
	topic  string
	claims atomic.Int32
	lock   sync.Mutex
	found  map[string]bool
	cancel context.CancelFunc
	group  sarama.ConsumerGroup
	ended  chan struct{}
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.claims.Store(int32(len(session.Claims()[m.topic])))
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, isOpen := <-claim.Messages():
			if !isOpen {
				return nil
			}
			m.lock.Lock()
			m.found[string(message.Value)] = true
			m.lock.Unlock()
			session.MarkMessage(message, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) has(claims int32, found int) func() (bool, error) {
	return func() (bool, error) {
		m.lock.Lock()
		defer m.lock.Unlock()
		return m.claims.Load() == claims && len(m.found) >= found, nil
	}
}

func (m *member) leave() error {
	m.cancel()
	<-m.ended
	return m.group.Close()
}

func join(topic string, group string) (*member, error) {
	config := settings()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	consumers, err := sarama.NewConsumerGroup([]string{os.Args[1]}, group, config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{topic: topic, found: map[string]bool{}, cancel: cancel, group: consumers, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for ctx.Err() == nil {
			if err := consumers.Consume(ctx, []string{topic}, m); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	return m, nil
}

func shareInGroup() error {
	const topic, group = "sarama-group", "sarama"
	admin, err := sarama.NewClusterAdmin([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer admin.Close()
	detail := &sarama.TopicDetail{NumPartitions: 4, ReplicationFactor: 1}
	if err := admin.CreateTopic(topic, detail, false); err != nil {
		return err
	}
	producer, err := sarama.NewSyncProducer([]string{os.Args[1]}, settings())
	if err != nil {
		return err
	}
	defer producer.Close()
	produce := func(from int, to int) error {
		var messages []*sarama.ProducerMessage
		for i := from; i < to; i++ {
			value := sarama.StringEncoder(strconv.Itoa(i))
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Partition: int32(i % 4), Value: value})
		}
		return producer.SendMessages(messages)
	}
	if err := produce(0, 40); err != nil {
		return err
	}
	first, err := join(topic, group)
	if err != nil {
		return err
	}
	if err := story.Until(first.has(4, 0)); err != nil {
		return err
	}
	other := exec.Command(os.Args[0], os.Args[1], topic, group)
	if err := other.Start(); err != nil {
		return err
	}
	both := story.Until(first.has(2, 0))
	killed := other.Process.Kill()
	_ = other.Wait()
	if err := story.First(both, killed, story.Until(first.has(4, 40)), first.leave()); err != nil {
		return err
	}

	if err := produce(40, 44); err != nil {
		return err
	}
	second, err := join(topic, group)
	if err != nil {
		return err
	}
	if err := story.First(story.Until(second.has(4, 4)), second.leave()); err != nil {
		return err
	}
	if err := story.Equal(len(second.found), 4); err != nil {
		return err
	}
	committed, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	if err != nil {
		return err
	}
	if err := story.Equal(committed.GetBlock(topic, 0).Offset, int64(11)); err != nil {
		return err
	}
	return admin.DeleteConsumerGroup(group)
}

func main() {
	if len(os.Args) > 2 {
		_, err := join(os.Args[2], os.Args[3])
		if err == nil {
			select {}
		}
		os.Exit(1)
	}
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		story.Check(name, func() error {
			config := settings()
			config.Producer.Compression = codecs[name]
			return produceAndConsume("sarama-"+name, config)
		})
	}
	story.Check("idempotent", func() error {
		config := settings()
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
		return produceAndConsume("sarama-idempotent", config)
	})
	story.Check("admin", administrate)
	story.Check("group", shareInGroup)
	story.End()
}
