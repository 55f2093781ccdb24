// franz-go.
package main

import (
	"context"
	"fmt"
	"os"
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

func main() {
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
	story.End()
}
