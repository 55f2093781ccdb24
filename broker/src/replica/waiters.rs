//! Who waits for a partition to move: fetches for bytes, acks=all writes and record deletions for an
//! offset. Woken by appends and high watermark moves, never by polling.
//!
//! A waiter registers first and looks at the partition again afterwards; a mover moves first and
//! looks for waiters afterwards. So none is missed.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use barnabas_core::ids::Offset;
use tokio::sync::Notify;

/// One request that waits, registered with each of its partitions.
#[derive(Debug)]
pub struct Waiter {
    notify: Notify,
    /// Bytes that are still missing before it is worth waking the request.
    missing_bytes: AtomicI64,
}

impl Waiter {
    /// A waiter that wants `missing_bytes` more bytes to become readable.
    pub fn new(missing_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            notify: Notify::new(),
            missing_bytes: AtomicI64::new(i64::try_from(missing_bytes).unwrap_or(i64::MAX)),
        })
    }

    /// Notes that `bytes` more became readable, and wakes the request if these are enough.
    pub fn credit(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.missing_bytes.fetch_sub(bytes, Ordering::Relaxed) <= bytes {
            self.notify.notify_one();
        }
    }

    /// Wakes the request whatever it waits for.
    fn wake(&self) {
        self.notify.notify_one();
    }

    /// Starts over: wants `missing_bytes` more.
    pub fn expect(&self, missing_bytes: usize) {
        let missing_bytes = i64::try_from(missing_bytes).unwrap_or(i64::MAX);
        self.missing_bytes.store(missing_bytes, Ordering::Relaxed);
    }

    /// Returns once woken. A wake-up that came before is not lost.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// What a waiter waits for at one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Bytes that consumers may read.
    CommittedBytes,
    /// Bytes that followers may read.
    AppendedBytes,
    /// The high watermark reaches an offset (acks=all).
    Offset(Offset),
    /// Some replica dropped records.
    LowWatermark,
}

/// Everything that waits for one partition.
#[derive(Debug, Default)]
pub struct Waiters {
    /// How many are registered, so that a move with none of them costs one load.
    count: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<(WaitFor, Arc<Waiter>)>>,
    free: Vec<usize>,
}

impl Waiters {
    /// Registers a waiter; the number is for [`Waiters::remove`].
    pub fn add(&self, wait_for: WaitFor, waiter: Arc<Waiter>) -> usize {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Some((wait_for, waiter));
        let slot = if let Some(slot) = slots.free.pop() {
            slots.entries[slot] = entry;
            slot
        } else {
            slots.entries.push(entry);
            slots.entries.len() - 1
        };
        self.count.fetch_add(1, Ordering::SeqCst);
        slot
    }

    /// Forgets a waiter that is not interested any more.
    pub fn remove(&self, slot: usize) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots
            .entries
            .get_mut(slot)
            .is_some_and(|entry| entry.take().is_some())
        {
            slots.free.push(slot);
            if slots.free.len() == slots.entries.len() {
                *slots = Slots::default();
            }
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn for_each(&self, mut visit: impl FnMut(WaitFor, &Waiter)) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for (wait_for, waiter) in slots.entries.iter().flatten() {
            visit(*wait_for, waiter);
        }
    }

    /// `bytes` more can be read by consumers; the high watermark is now `high_watermark`.
    pub fn committed(&self, high_watermark: Offset, bytes: usize) {
        self.for_each(|wait_for, waiter| match wait_for {
            WaitFor::CommittedBytes => waiter.credit(bytes),
            WaitFor::Offset(offset) if offset <= high_watermark => waiter.wake(),
            WaitFor::Offset(_) | WaitFor::AppendedBytes | WaitFor::LowWatermark => {}
        });
    }

    /// `bytes` more can be read by followers.
    pub fn appended(&self, bytes: usize) {
        self.for_each(|wait_for, waiter| match wait_for {
            WaitFor::AppendedBytes => waiter.credit(bytes),
            WaitFor::CommittedBytes | WaitFor::Offset(_) | WaitFor::LowWatermark => {}
        });
    }

    /// The log start offset of a replica moved.
    pub fn low_watermark_moved(&self) {
        self.for_each(|wait_for, waiter| match wait_for {
            WaitFor::LowWatermark => waiter.wake(),
            WaitFor::CommittedBytes | WaitFor::AppendedBytes | WaitFor::Offset(_) => {}
        });
    }

    /// Something else changed (leadership, truncation, failure): everybody looks again.
    pub fn wake_all(&self) {
        self.for_each(|_, waiter| waiter.wake());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn is_woken(waiter: &Waiter) -> bool {
        waiter.woken().now_or_never().is_some()
    }

    #[test]
    fn bytes_add_up_before_the_request_is_woken() {
        let waiters = Waiters::default();
        let waiter = Waiter::new(100);
        let slot = waiters.add(WaitFor::CommittedBytes, Arc::clone(&waiter));
        waiters.committed(1, 60);
        waiters.appended(1000);
        assert!(!is_woken(&waiter));
        waiters.committed(2, 40);
        assert!(is_woken(&waiter));
        waiters.remove(slot);
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn an_offset_is_waited_for() {
        let waiters = Waiters::default();
        let waiter = Waiter::new(0);
        waiters.add(WaitFor::Offset(5), Arc::clone(&waiter));
        waiters.committed(4, 100);
        assert!(!is_woken(&waiter));
        waiters.committed(5, 100);
        assert!(is_woken(&waiter));
    }

    #[test]
    fn slots_are_used_again_and_removed_once() {
        let waiters = Waiters::default();
        let waiter = Waiter::new(1);
        let first = waiters.add(WaitFor::AppendedBytes, Arc::clone(&waiter));
        let second = waiters.add(WaitFor::AppendedBytes, Arc::clone(&waiter));
        waiters.remove(first);
        waiters.remove(first);
        assert_eq!(waiters.len(), 1);
        assert_eq!(
            waiters.add(WaitFor::AppendedBytes, Arc::clone(&waiter)),
            first
        );
        waiters.wake_all();
        assert!(is_woken(&waiter));
        waiters.remove(first);
        waiters.remove(second);
        assert_eq!(waiters.len(), 0);
    }
}
