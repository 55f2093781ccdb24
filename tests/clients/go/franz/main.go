// franz-go.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"barnabas/tests/clients/go/story"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(os.Args[1]), kgo.AllowAutoTopicCreation())...)
}

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

func consume(topic string, offset kgo.Offset) ([]story.Record, error) {
	consumer, err := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: offset}}))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ctx, cancel := patience()
	defer cancel()
	var found []story.Record
	for len(found) == 0 || found[len(found)-1].Offset < story.Count-1 {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d records: %w", len(found), err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			found = append(found, story.Record{
				Offset: record.Offset, Timestamp: record.Timestamp, Key: record.Key, Value: record.Value,
				Header: string(record.Headers[0].Value),
			})
		})
	}
	return found, nil
}

func produceAndConsume(topic string, options ...kgo.Opt) error {
	options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	producer, err := client(options...)
	if err != nil {
		return err
	}
	defer producer.Close()
	var records []*kgo.Record
	for _, record := range story.Records() {
		records = append(records, &kgo.Record{
			Topic: topic, Partition: 0, Key: record.Key, Value: record.Value, Timestamp: record.Timestamp,
			Headers: []kgo.RecordHeader{{Key: "header", Value: []byte(record.Header)}},
		})
	}
	ctx, cancel := patience()
	defer cancel()
	for i, result := range producer.ProduceSync(ctx, records...) {
		if result.Err != nil {
			return result.Err
		}
		if err := story.Equal(result.Record.Offset, int64(i)); err != nil {
			return err
		}
	}

	expected := story.Records()
	for _, step := range []struct {
		offset kgo.Offset
		from   int
	}{
		{kgo.NewOffset().AtStart(), 0},
		{kgo.NewOffset().At(story.Split), story.Split},
		{kgo.NewOffset().AfterMilli(expected[story.Split].Timestamp.UnixMilli()), story.Split},
	} {
		found, err := consume(topic, step.offset)
		if err := story.First(err, story.EqualRecords(found, expected[step.from:])); err != nil {
			return err
		}
	}
	return nil
}

func administrate() error {
	const topic = "franz-admin"
	ctx, cancel := patience()
	defer cancel()
	producer, err := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer producer.Close()
	admin := kadm.NewClient(producer)

	retention := "7200000"
	_, err = admin.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": &retention}, topic)
	if err != nil {
		return err
	}
	partitions := func(wanted int) func() (bool, error) {
		return func() (bool, error) {
			topics, err := admin.ListTopics(ctx)
			return len(topics[topic].Partitions) == wanted, err
		}
	}
	retentionIs := func(wanted string) func() (bool, error) {
		return func() (bool, error) {
			configs, err := admin.DescribeTopicConfigs(ctx, topic)
			if err != nil {
				return false, err
			}
			for _, config := range configs[0].Configs {
				if config.Key == "retention.ms" {
					return config.MaybeValue() == wanted, nil
				}
			}
			return false, nil
		}
	}
	if err := story.First(story.Until(partitions(2)), story.Until(retentionIs(retention))); err != nil {
		return err
	}
	shorter := "3600000"
	changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &shorter}}, topic)
	if err != nil {
		return err
	}
	if err := story.First(changed[0].Err, story.Until(retentionIs(shorter))); err != nil {
		return err
	}
	if _, err := admin.CreatePartitions(ctx, 2, topic); err != nil {
		return err
	}
	if err := story.Until(partitions(4)); err != nil {
		return err
	}

	for range 10 {
		record := &kgo.Record{Topic: topic, Partition: 3, Value: []byte("value")}
		if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 3, At: 7})
	deleted, err := admin.DeleteRecords(ctx, offsets)
	if err := story.First(err, deleted.Error()); err != nil {
		return err
	}
	starts, startsErr := admin.ListStartOffsets(ctx, topic)
	ends, endsErr := admin.ListEndOffsets(ctx, topic)
	if err := story.First(startsErr, endsErr); err != nil {
		return err
	}
	start, _ := starts.Lookup(topic, 3)
	end, _ := ends.Lookup(topic, 3)
	if err := story.Equal([]int64{start.Offset, end.Offset}, []int64{7, 10}); err != nil {
		return err
	}

	if _, err := admin.DeleteTopics(ctx, topic); err != nil {
		return err
	}
	return story.Until(partitions(0))
}

func groupMember(topic string, group string) (*kgo.Client, error) {
	return client(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond))
}

// Belongs to a group until the process is killed.
func beMember(topic string, group string) error {
	member, err := groupMember(topic, group)
	for err == nil {
		err = member.PollFetches(context.Background()).Err()
	}
	return err
}

func shareInGroup() error {
	const topic, group = "franz-group", "franz"
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	producer, err := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	admin := kadm.NewClient(producer)
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, topic); err != nil {
		return err
	}
	produce := func(from int, to int) error {
		var records []*kgo.Record
		for i := from; i < to; i++ {
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 4), Value: []byte(strconv.Itoa(i))})
		}
		return producer.ProduceSync(ctx, records...).FirstErr()
	}
	found := map[string]bool{}
	poll := func(member *kgo.Client) {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		member.PollFetches(short).EachRecord(func(record *kgo.Record) { found[string(record.Value)] = true })
	}
	// How many partitions the group has given to each of its members, and whether all have arrived.
	shares := func(member *kgo.Client, members int) func() (bool, error) {
		return func() (bool, error) {
			poll(member)
			described, err := admin.DescribeGroups(ctx, group)
			return described[group].State == "Stable" && len(described[group].Members) == members, err
		}
	}
	first, err := groupMember(topic, group)
	if err := story.First(err, produce(0, 40)); err != nil {
		return err
	}
	if err := story.Until(shares(first, 1)); err != nil {
		return err
	}
	other := exec.Command(os.Args[0], os.Args[1], topic, group)
	if err := other.Start(); err != nil {
		return err
	}
	both := story.Until(shares(first, 2))
	killed := other.Process.Kill()
	_ = other.Wait()
	if err := story.First(both, killed, story.Until(shares(first, 1))); err != nil {
		return err
	}
	all := func(count int, member *kgo.Client) func() (bool, error) {
		return func() (bool, error) {
			poll(member)
			return len(found) == count, nil
		}
	}
	// What was read before the rebalance is read again: only what comes now shows where the member is.
	if err := story.First(produce(40, 44), story.Until(all(44, first)), first.CommitUncommittedOffsets(ctx)); err != nil {
		return err
	}
	first.Close()

	found = map[string]bool{}
	second, err := groupMember(topic, group)
	if err := story.First(err, produce(44, 48)); err != nil {
		return err
	}
	err = story.Until(all(4, second))
	second.Close()
	if err != nil {
		return err
	}
	if err := story.Equal(found["44"] && found["45"] && found["46"] && found["47"], true); err != nil {
		return err
	}
	committed, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	offset, _ := committed.Lookup(topic, 0)
	return story.Equal(offset.At, int64(11))
}

func main() {
	if len(os.Args) > 2 {
		fmt.Println(beMember(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		story.Check(name, func() error {
			return produceAndConsume("franz-"+name, kgo.ProducerBatchCompression(codecs[name]),
				kgo.DisableIdempotentWrite())
		})
	}
	story.Check("idempotent", func() error { return produceAndConsume("franz-idempotent") })
	story.Check("admin", administrate)
	story.Check("group", shareInGroup)
	story.End()
}
