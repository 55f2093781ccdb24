//! When groups have to be looked at again: one sleeping task for all groups of a partition.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barnabas_core::ids::GroupId;
use barnabas_core::time::{Deadline, Now};
use tokio::sync::Notify;

/// Deadlines of groups, the earliest first.
#[derive(Default)]
pub(super) struct Timers {
    due: Mutex<BinaryHeap<Reverse<(Deadline, GroupId)>>>,
    /// The earliest deadline changed.
    changed: Notify,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<(Deadline, GroupId)>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, deadline: Deadline, group: &GroupId) {
        let mut due = self.lock();
        let is_first = due
            .peek()
            .is_none_or(|Reverse((first, _))| deadline < *first);
        due.push(Reverse((deadline, Arc::clone(group))));
        drop(due);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Removes and returns the groups whose deadlines have come.
    pub(super) fn take_due(&self, now: Now) -> Vec<GroupId> {
        let mut due = self.lock();
        let mut groups = Vec::new();
        while due
            .peek()
            .is_some_and(|Reverse((deadline, _))| deadline.has_passed(now))
        {
            groups.extend(due.pop().map(|Reverse((_, group))| group));
        }
        groups
    }

    /// Returns when a deadline has come, or something earlier than the next was added.
    pub(super) async fn wait(&self, now: Now) {
        let next = self.lock().peek().map(|Reverse((deadline, _))| *deadline);
        match next {
            Some(deadline) => {
                let left = deadline.0.saturating_sub(now.monotonic);
                let _ = tokio::time::timeout(left, self.changed.notified()).await;
            }
            None => self.changed.notified().await,
        }
    }
}
