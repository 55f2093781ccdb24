use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use proptest::prelude::*;

use super::records::transaction_key;
use super::*;
use crate::ids::TopicPartition;

use TransactionError::{
    ConcurrentTransactions, InvalidProducerIdMapping, InvalidState, NotInTransaction,
    ProducerFenced, UnknownServerError,
};

const PRODUCER: i64 = 2;

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("y", number)
}

/// A transactional id whose records reach the log at once.
struct Desk {
    transaction: Transaction,
    log: Vec<TransactionValue>,
    now_ms: i64,
    next_producer_id: i64,
}

impl Desk {
    fn new() -> Self {
        Self {
            transaction: Transaction::new(Arc::from("tx"), PRODUCER, 60_000, 0),
            log: Vec::new(),
            now_ms: 1_000,
            next_producer_id: PRODUCER + 1,
        }
    }

    fn write(&mut self, value: TransactionValue) -> Option<Completion> {
        self.log.push(value);
        self.transaction.settled(Ok(()), self.now_ms)
    }

    /// Introduces the producer; with the epochs used up it gets another producer id.
    fn init(&mut self, expected: Option<(i64, i16)>) -> Result<(i64, i16), TransactionError> {
        self.init_within(expected, 60_000)
    }

    fn init_within(
        &mut self,
        expected: Option<(i64, i16)>,
        timeout_ms: i32,
    ) -> Result<(i64, i16), TransactionError> {
        self.now_ms += 1;
        let init = Init {
            timeout_ms,
            expected,
        };
        let mut fresh = None;
        loop {
            match self.transaction.init(init, fresh, self.now_ms)? {
                Initiation::Identify(value) => {
                    let identity = (value.producer_id, value.producer_epoch);
                    assert_eq!(self.write(value), None);
                    return Ok(identity);
                }
                Initiation::Abort(value) => {
                    assert!(self.write(value).is_some(), "markers are to be written");
                    return Err(ConcurrentTransactions);
                }
                Initiation::NeedsProducerId => {
                    fresh = Some(self.next_producer_id);
                    self.next_producer_id += 1;
                }
            }
        }
    }

    fn add(&mut self, id: i64, epoch: i16, numbers: &[i32]) -> Result<(), TransactionError> {
        self.now_ms += 1;
        let partitions: Vec<TopicPartition> = numbers.iter().copied().map(partition).collect();
        let added = self
            .transaction
            .add_partitions(id, epoch, &partitions, self.now_ms)?;
        if let Some(value) = added {
            assert_eq!(self.write(value), None);
        }
        Ok(())
    }

    /// Ends the transaction, up to its markers.
    fn end(
        &mut self,
        id: i64,
        epoch: i16,
        outcome: Outcome,
    ) -> Result<Option<Completion>, TransactionError> {
        self.now_ms += 1;
        let ended = self.transaction.end(id, epoch, outcome, self.now_ms)?;
        Ok(ended.and_then(|value| self.write(value)))
    }

    /// All markers are written.
    fn complete(&mut self) {
        let value = self.transaction.complete().expect("markers are awaited");
        assert_eq!(self.write(value), None);
    }

    fn commit(&mut self, id: i64, epoch: i16, numbers: &[i32]) {
        self.add(id, epoch, numbers).unwrap();
        self.end(id, epoch, Outcome::Commit).unwrap().unwrap();
        self.complete();
    }

    /// Another broker takes over.
    fn reload(&mut self) -> Option<Completion> {
        let last = self.log.last().expect("something was written").clone();
        self.transaction = Transaction::loaded(Arc::from("tx"), last);
        self.transaction.resume(self.now_ms)
    }
}

use Outcome::{Abort, Commit};

/// What a real broker answered to the same questions in the same order.
#[test]
fn the_recorded_life_of_a_transactional_id() {
    let mut desk = Desk::new();
    assert_eq!(desk.init(None), Ok((PRODUCER, 0)));
    assert_eq!(desk.end(PRODUCER, 0, Commit), Err(InvalidState));
    assert_eq!(desk.add(PRODUCER, 0, &[0]), Ok(()));
    assert_eq!(desk.init(None), Err(ConcurrentTransactions));
    assert_eq!(desk.init(None), Err(ConcurrentTransactions), "markers");
    desk.complete();
    assert_eq!(desk.init(None), Ok((PRODUCER, 2)));
    assert_eq!(desk.add(PRODUCER, 0, &[0]), Err(ProducerFenced));
    assert_eq!(desk.end(PRODUCER, 0, Commit), Err(ProducerFenced));
    assert_eq!(desk.add(PRODUCER, 2, &[0]), Ok(()));
    let markers = desk.end(PRODUCER, 2, Commit).unwrap().unwrap();
    assert_eq!((markers.producer_epoch, markers.outcome), (2, Commit));
    assert_eq!(markers.partitions, [partition(0)].into());
    assert_eq!(desk.add(PRODUCER, 2, &[0]), Err(ConcurrentTransactions));
    desk.complete();
    assert_eq!(desk.end(PRODUCER, 2, Commit), Ok(None));
    assert_eq!(desk.end(PRODUCER, 2, Abort), Err(InvalidState));
    assert_eq!(desk.add(PRODUCER, 2, &[0]), Ok(()));
    assert!(desk.end(PRODUCER, 2, Abort).unwrap().is_some());
    desk.complete();
    assert_eq!(desk.end(PRODUCER, 2, Abort), Ok(None));
    assert_eq!(desk.end(PRODUCER, 2, Commit), Err(InvalidState));
    let began_ms = desk.transaction.describe().start_ms;
    assert_eq!(desk.init(Some((PRODUCER, 2))), Ok((PRODUCER, 3)));
    assert_eq!(desk.init(Some((PRODUCER, 2))), Ok((PRODUCER, 3)), "again");
    assert_eq!(desk.init(Some((PRODUCER, 1))), Err(ProducerFenced));
    assert_eq!(desk.init(Some((1_000_002, 0))), Err(ProducerFenced));
    assert_eq!(desk.init(Some((PRODUCER, 99))), Err(ProducerFenced));
    let described = desk.transaction.describe();
    assert_eq!(
        (described.state, described.producer_epoch),
        (State::Empty, 3)
    );
    assert_eq!(described.start_ms, began_ms, "the last transaction's");
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_under_another_epoch() {
    let mut desk = Desk::new();
    assert_eq!(desk.init_within(None, 1_000), Ok((PRODUCER, 0)));
    desk.add(PRODUCER, 0, &[0]).unwrap();
    let end_ms = desk.now_ms + 1_000;
    assert_eq!(desk.transaction.time_out(end_ms), Ok(None), "in time");
    let value = desk.transaction.time_out(end_ms + 1).unwrap().unwrap();
    assert_eq!(
        (value.state, value.producer_epoch),
        (State::PrepareAbort, 1)
    );
    let markers = desk.write(value).unwrap();
    assert_eq!((markers.producer_epoch, markers.outcome), (1, Abort));
    assert_eq!(desk.transaction.time_out(end_ms + 9), Ok(None), "once");
    desk.complete();
    assert_eq!(desk.end(PRODUCER, 0, Commit), Err(ProducerFenced));
    assert_eq!(desk.end(PRODUCER, 1, Abort), Ok(None));
    assert_eq!(desk.end(PRODUCER, 1, Commit), Err(InvalidState));
    assert_eq!(desk.add(PRODUCER, 0, &[0]), Err(ProducerFenced));
}

#[test]
fn nothing_else_is_decided_while_a_record_is_on_its_way() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    let (now, one) = (desk.now_ms, [partition(0)]);
    let on_its_way = desk.transaction.add_partitions(PRODUCER, 0, &one, now);
    let value = on_its_way.unwrap().unwrap();
    let init = Init {
        timeout_ms: 1,
        expected: None,
    };
    let transaction = &mut desk.transaction;
    let busy = Err(ConcurrentTransactions);
    assert_eq!(
        transaction.init(init, None, now),
        Err(ConcurrentTransactions)
    );
    assert_eq!(transaction.add_partitions(PRODUCER, 0, &one, now), busy);
    assert_eq!(transaction.end(PRODUCER, 0, Commit, now), busy);
    assert_eq!(transaction.time_out(i64::MAX), Ok(None));
    assert!(!transaction.expire(0, i64::MAX));
    let wrong_id = transaction.add_partitions(9, 0, &one, now);
    assert_eq!(wrong_id, Err(InvalidProducerIdMapping));
    let wrong_epoch = transaction.end(PRODUCER, 1, Abort, now);
    assert_eq!(wrong_epoch, Err(ProducerFenced));
    desk.write(value);
    desk.add(PRODUCER, 0, &[0, 1]).unwrap();
    let records = desk.log.len();
    desk.add(PRODUCER, 0, &[1, 0]).unwrap();
    assert_eq!(desk.log.len(), records, "nothing new, nothing written");
}

#[test]
fn what_cannot_be_written_has_not_happened() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    let failed = Err(TransactionError::CoordinatorNotAvailable);
    let (now, one) = (desk.now_ms, [partition(0)]);
    let transaction = &mut desk.transaction;
    transaction.add_partitions(PRODUCER, 0, &one, now).unwrap();
    assert_eq!(transaction.settled(failed, now), None);
    assert_eq!(transaction.state(), State::Empty);
    desk.add(PRODUCER, 0, &[0]).unwrap();
    desk.transaction.end(PRODUCER, 0, Commit, now).unwrap();
    assert_eq!(desk.transaction.settled(failed, now), None, "no markers");
    assert_eq!(desk.transaction.state(), State::Ongoing);
    desk.end(PRODUCER, 0, Abort).unwrap().unwrap();
    desk.transaction.complete().unwrap();
    assert_eq!(desk.transaction.settled(failed, now), None);
    assert_eq!(
        desk.end(PRODUCER, 0, Commit),
        Err(ConcurrentTransactions),
        "the end stays decided"
    );
    desk.complete();
    assert_eq!(desk.transaction.state(), State::CompleteAbort);
}

#[test]
fn a_fence_that_cannot_be_written_shuts_out_and_is_not_raised_again() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    desk.add(PRODUCER, 0, &[0]).unwrap();
    let init = Init {
        timeout_ms: 60_000,
        expected: None,
    };
    for _ in 0..3 {
        let fence = desk.transaction.init(init, None, 5).unwrap();
        let Initiation::Abort(value) = fence else {
            panic!("{fence:?}")
        };
        assert_eq!(value.producer_epoch, 1);
        let failed = Err(TransactionError::CoordinatorNotAvailable);
        desk.transaction.settled(failed, 5);
        assert_eq!(desk.end(PRODUCER, 0, Commit), Err(ProducerFenced));
    }
    assert_eq!(desk.init(None), Err(ConcurrentTransactions));
    desk.complete();
    assert_eq!(desk.init(None), Ok((PRODUCER, 2)));
}

#[test]
fn a_producer_whose_epochs_are_used_up_gets_another_id() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    let used_up = TransactionValue {
        producer_epoch: i16::MAX - 2,
        ..desk.log[0].clone()
    };
    desk.transaction.replay(&used_up);
    assert_eq!(desk.init(None), Ok((PRODUCER, i16::MAX - 1)), "the last");
    let last = (PRODUCER, i16::MAX - 1);
    assert_eq!(desk.init(Some(last)), Ok((PRODUCER + 1, 0)));
    assert_eq!(desk.init(Some(last)), Ok((PRODUCER + 1, 0)), "again");
    assert_eq!(desk.init(Some((PRODUCER, 7))), Err(ProducerFenced));

    // The epoch above the last is for shutting out.
    desk.transaction.replay(&TransactionValue {
        producer_id: PRODUCER + 1,
        producer_epoch: i16::MAX - 1,
        ..used_up.clone()
    });
    desk.add(PRODUCER + 1, i16::MAX - 1, &[0]).unwrap();
    assert_eq!(desk.init(None), Err(ConcurrentTransactions));
    desk.complete();
    assert_eq!(desk.transaction.producer_epoch(), i16::MAX);
    let of_the_past = Some((PRODUCER + 1, i16::MAX - 1));
    assert_eq!(desk.init(of_the_past), Err(UnknownServerError));
    assert_eq!(desk.init(None), Ok((PRODUCER + 2, 0)));
}

#[test]
fn partitions_are_verified_against_what_is_in_the_log() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    let both = [partition(0), partition(1)];
    let verify = |desk: &Desk, epoch| desk.transaction.verify(PRODUCER, epoch, &both);
    let neither = Ok(vec![Err(NotInTransaction), Err(NotInTransaction)]);
    assert_eq!(verify(&desk, 0), neither);
    desk.transaction
        .add_partitions(PRODUCER, 0, &both, 5)
        .unwrap();
    assert_eq!(verify(&desk, 0), neither, "not written yet");
    desk.transaction.settled(Err(UnknownServerError), 5);
    desk.add(PRODUCER, 0, &[1]).unwrap();
    assert_eq!(verify(&desk, 0), Ok(vec![Err(NotInTransaction), Ok(())]));
    assert_eq!(verify(&desk, 1), Err(ProducerFenced));
    desk.end(PRODUCER, 0, Commit).unwrap();
    assert_eq!(verify(&desk, 0), Err(ConcurrentTransactions));
    desk.complete();
    assert_eq!(verify(&desk, 0), neither, "of the next transaction");
}

#[test]
fn idle_ids_expire_and_open_ones_do_not() {
    let mut desk = Desk::new();
    desk.init(None).unwrap();
    let used_ms = desk.now_ms;
    assert!(!desk.transaction.expire(100, used_ms + 99));
    assert!(desk.transaction.expire(100, used_ms + 100));
    assert!(desk.transaction.is_dying());
    assert_eq!(desk.init(None), Err(ConcurrentTransactions));
    desk.transaction.revive();
    desk.add(PRODUCER, 0, &[0]).unwrap();
    assert!(!desk.transaction.expire(0, i64::MAX), "open");
    desk.end(PRODUCER, 0, Commit).unwrap();
    assert!(!desk.transaction.expire(0, i64::MAX), "markers");
    desk.complete();
    assert!(desk.transaction.expire(0, i64::MAX));
}

/// A partition that takes part in a transaction.
type Marked = Option<Outcome>;

/// The coordinator dies at each step of each way to end a transaction, before and after the record of the step is in
/// the log. Whatever the producer was told holds, and all partitions end alike.
#[test]
fn a_crash_at_any_step_leaves_a_transaction_all_or_nothing() {
    for outcome in [Commit, Abort] {
        // Steps: the end is decided; one marker; the other marker; the record of the completion.
        for steps in 0..=4 {
            for is_in_log in [false, true] {
                let mut desk = Desk::new();
                desk.init(None).unwrap();
                desk.add(PRODUCER, 0, &[0, 1]).unwrap();
                let mut marked: [Marked; 2] = [None, None];
                let now = desk.now_ms;
                let value = desk.transaction.end(PRODUCER, 0, outcome, now);
                let value = value.unwrap().unwrap();
                let mut was_told = false;
                if steps == 0 {
                    if is_in_log {
                        desk.log.push(value);
                    }
                } else {
                    let completion = desk.write(value).unwrap();
                    was_told = true;
                    for one in completion.partitions.iter().take((steps - 1).min(2)) {
                        marked[one.partition as usize] = Some(completion.outcome);
                    }
                    if steps == 4 {
                        let value = desk.transaction.complete().unwrap();
                        if is_in_log {
                            desk.log.push(value);
                        }
                    }
                }
                finish(&mut desk, &mut marked, outcome, was_told, steps);
            }
        }
    }
}

/// A successor comes to the end of what it finds, with the help of the producer if that was told nothing.
fn finish(desk: &mut Desk, marked: &mut [Marked; 2], wanted: Outcome, was_told: bool, step: usize) {
    let context = format!("{wanted:?} was wanted, step {step}, log {:?}", desk.log);
    let mut completion = desk.reload();
    if completion.is_none() && desk.transaction.state() == State::Ongoing {
        assert!(!was_told, "{context}");
        completion = desk.end(PRODUCER, 0, wanted).unwrap();
    }
    if let Some(completion) = completion {
        for one in &completion.partitions {
            let mark = &mut marked[one.partition as usize];
            assert!(
                mark.is_none_or(|mark| mark == completion.outcome),
                "{context}"
            );
            *mark = Some(completion.outcome);
        }
        desk.complete();
    }
    assert_eq!(*marked, [Some(wanted); 2], "{context}");
    // The producer that was told nothing asks again and hears the same; the next transaction can begin.
    assert_eq!(desk.end(PRODUCER, 0, wanted), Ok(None), "{context}");
    desk.commit(PRODUCER, 0, &[1]);
}

/// The coordinator dies at each step of shutting a producer out.
#[test]
fn a_crash_while_a_producer_is_shut_out_aborts_its_transaction_in_the_end() {
    for steps in 0..=3 {
        let mut desk = Desk::new();
        desk.init(None).unwrap();
        desk.add(PRODUCER, 0, &[0, 1]).unwrap();
        let init = Init {
            timeout_ms: 60_000,
            expected: None,
        };
        let fence = desk.transaction.init(init, None, desk.now_ms).unwrap();
        let Initiation::Abort(value) = fence else {
            panic!("{fence:?}")
        };
        match steps {
            0 => {}
            1 => desk.log.push(value),
            _ => {
                desk.write(value).unwrap();
                if steps == 3 {
                    desk.complete();
                }
            }
        }
        let resumed = desk.reload();
        assert_eq!(resumed.is_some(), (1..=2).contains(&steps), "step {steps}");
        if steps == 0 {
            assert_eq!(desk.init(None), Err(ConcurrentTransactions));
        }
        if let Some(completion) = resumed {
            assert_eq!((completion.producer_epoch, completion.outcome), (1, Abort));
            assert_eq!(completion.partitions.len(), 2);
        }
        if steps < 3 {
            desk.complete();
        }
        assert_eq!(desk.init(None), Ok((PRODUCER, 2)), "step {steps}");
        assert_eq!(desk.end(PRODUCER, 0, Commit), Err(ProducerFenced));
    }
}

/// A broker that takes over an identity that was written, but not confirmed to the producer.
#[test]
fn a_crash_while_a_producer_gets_its_identity_costs_an_epoch_at_most() {
    for is_in_log in [false, true] {
        let mut desk = Desk::new();
        desk.init(None).unwrap();
        desk.commit(PRODUCER, 0, &[0]);
        let init = Init {
            timeout_ms: 60_000,
            expected: None,
        };
        let next = desk.transaction.init(init, None, desk.now_ms).unwrap();
        let Initiation::Identify(value) = next else {
            panic!("{next:?}")
        };
        if is_in_log {
            desk.log.push(value);
        }
        assert_eq!(desk.reload(), None);
        let epoch = if is_in_log { 2 } else { 1 };
        assert_eq!(desk.init(None), Ok((PRODUCER, epoch)));
    }
}

// --- records ---

fn golden_records() -> Vec<(Bytes, Option<Bytes>)> {
    let manifest =
        include_bytes!("../../../../tests/golden/datadirs/clean.manifest.json.gz").as_slice();
    let mut text = String::new();
    GzDecoder::new(manifest).read_to_string(&mut text).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bytes = |value: &serde_json::Value| {
        let text = value.as_str()?;
        let digits = (0..text.len()).step_by(2);
        let bytes = digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
        Some(bytes.collect::<Bytes>())
    };
    let partitions = manifest["partitions"].as_object().unwrap().iter();
    let segments = partitions
        .filter(|(name, _)| name.contains("__transaction_state"))
        .flat_map(|(_, partition)| partition["segments"].as_object().unwrap().values());
    let batches = segments.flat_map(|segment| segment["batches"].as_array().unwrap());
    let records = batches.flat_map(|batch| batch["records"].as_array().unwrap());
    records
        .map(|record| (bytes(&record["key"]).unwrap(), bytes(&record["value"])))
        .collect()
}

/// Values that Kafka's own classes made of random partitions, added in one to three steps.
#[test]
fn partitions_are_written_in_kafkas_order() {
    let text = include_str!("../../../../tests/golden/units/transaction-values.txt");
    let mut lines = 0;
    for line in text.lines() {
        let digits = (0..line.len()).step_by(2);
        let bytes = digits.map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap());
        let bytes: Bytes = bytes.collect();
        let value = TransactionValue::decode(&bytes).unwrap();
        assert_eq!(value.encode().unwrap(), bytes, "{value:?}");
        lines += 1;
    }
    assert!(lines > 25, "{lines}");
}

#[test]
fn records_of_a_real_broker_are_read_and_written_alike() {
    let records = golden_records();
    assert!(records.len() > 30, "{}", records.len());
    let mut states = std::collections::BTreeSet::new();
    for (key, bytes) in records {
        let record = TransactionRecord::decode(Some(&key), bytes.as_ref()).unwrap();
        let TransactionRecord::Transaction {
            id,
            value: Some(value),
        } = record
        else {
            panic!("{record:?}")
        };
        assert_eq!(transaction_key(&id).unwrap(), key);
        let written = value.encode().unwrap();
        assert_eq!(
            TransactionValue::decode(&written.clone().into()),
            Ok(value.clone())
        );
        assert_eq!(Bytes::from(written), bytes.unwrap());
        states.insert(value.state);
    }
    assert_eq!(states.len(), 6, "every state that is ever written");
}

#[test]
fn the_flexible_version_is_read() {
    let value: &[&[u8]] = &[
        &[0, 1],
        &7_i64.to_be_bytes(),
        &3_i16.to_be_bytes(),
        &60_000_i32.to_be_bytes(),
        &[1],
        // One topic `t` with the partitions 0 and 2.
        &[2, 2, b't', 3, 0, 0, 0, 0, 0, 0, 0, 2, 0],
        &5_i64.to_be_bytes(),
        &4_i64.to_be_bytes(),
        // A tagged field that nobody knows.
        &[1, 9, 2, 1, 1],
    ];
    let value = TransactionValue::decode(&value.concat().into()).unwrap();
    assert_eq!((value.producer_id, value.producer_epoch), (7, 3));
    assert_eq!(value.state, State::Ongoing);
    let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 2)];
    assert_eq!(value.partitions, partitions.into());
    assert_eq!((value.last_update_ms, value.start_ms), (5, 4));
}

prop_compose! {
    fn any_value()(
        producer_id in any::<i64>(),
        producer_epoch in any::<i16>(),
        timeout_ms in any::<i32>(),
        state in prop_oneof![
            Just(State::Ongoing), Just(State::PrepareCommit), Just(State::PrepareAbort),
            Just(State::CompleteCommit), Just(State::CompleteAbort),
        ],
        partitions in proptest::collection::btree_set(("\\PC{0,9}", any::<i32>()), 0..5),
        last_update_ms in any::<i64>(),
        start_ms in any::<i64>(),
    ) -> TransactionValue {
        let partitions = partitions.into_iter();
        TransactionValue {
            producer_id,
            producer_epoch,
            timeout_ms,
            state,
            partitions: partitions.map(|(topic, n)| TopicPartition::new(topic, n)).collect(),
            last_update_ms,
            start_ms,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_value()) {
        let written = Bytes::from(value.encode().unwrap());
        prop_assert_eq!(TransactionValue::decode(&written), Ok(value));
    }

    #[test]
    fn cut_values_are_errors(value in any_value(), cut in 1_usize..200) {
        let mut written = value.encode().unwrap();
        written.truncate(written.len().saturating_sub(cut));
        prop_assert!(TransactionValue::decode(&written.into()).is_err());
    }

    #[test]
    fn nothing_makes_the_reader_panic(key in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = TransactionRecord::decode(Some(&key.into()), Some(&value.into()));
    }
}
