// Package story has what the Go client programs share: the records they send, and PASS and FAIL lines.
package story

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

const (
	Count = 100
	Split = 40
)

// BaseTime is the time of the first record; each next one is a second later.
var BaseTime = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

// Record is what is sent, and with its offset what must come back. One key and one value are nil.
type Record struct {
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Header    string
}

// Records are all of them in order.
func Records() []Record {
	records := make([]Record, Count)
	for i := range records {
		record := Record{
			Offset:    int64(i),
			Timestamp: BaseTime.Add(time.Duration(i) * time.Second),
			Key:       fmt.Appendf(nil, "key-%d", i),
			Value:     fmt.Appendf(nil, "value-%d %s", i, strings.Repeat("x", i)),
			Header:    fmt.Sprintf("h%d", i),
		}
		if i == 3 {
			record.Key = nil
		}
		if i == 5 {
			record.Value = nil
		}
		records[i] = record
	}
	return records
}

// Equal compares as text, for times that differ in their zone only.
func Equal(found, wanted any) error {
	if reflect.DeepEqual(found, wanted) || fmt.Sprint(found) == fmt.Sprint(wanted) {
		return nil
	}
	return fmt.Errorf("found %.400v, wanted %.400v", found, wanted)
}

// EqualRecords is Equal for records.
func EqualRecords(found, wanted []Record) error {
	if len(found) != len(wanted) {
		return fmt.Errorf("found %d records, wanted %d", len(found), len(wanted))
	}
	for i := range found {
		found[i].Timestamp = found[i].Timestamp.In(wanted[i].Timestamp.Location())
		if !found[i].Timestamp.Equal(wanted[i].Timestamp) {
			return fmt.Errorf("record %d: time %v, wanted %v", i, found[i].Timestamp, wanted[i].Timestamp)
		}
		found[i].Timestamp = wanted[i].Timestamp
		if !reflect.DeepEqual(found[i], wanted[i]) {
			return fmt.Errorf("found %v, wanted %v", found[i], wanted[i])
		}
	}
	return nil
}

// Until waits for a change that is carried out in the background.
func Until(condition func() (bool, error)) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		done, err := condition()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("still not so after 30 s")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

var failed bool

// Check runs one step and prints its line.
func Check(name string, step func() error) {
	if err := step(); err != nil {
		failed = true
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	fmt.Println("PASS", name)
}

// End exits with the outcome of all steps.
func End() {
	if failed {
		os.Exit(1)
	}
}

// First returns the first error.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
