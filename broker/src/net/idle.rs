//! The idle deadline of a connection: one timer that is looked at only when it fires.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires when nothing was noted for `max`. Noting activity only stores the time.
pub(super) struct IdleTimer {
    max: Duration,
    last_active: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    /// `None` never fires.
    pub(super) fn new(max: Option<Duration>) -> Self {
        let now = Instant::now();
        let due = max.and_then(|max| Some((max, now.checked_add(max)?)));
        Self {
            max: max.unwrap_or_default(),
            last_active: now,
            sleep: due.map(|(_, due)| Box::pin(sleep_until(due))),
        }
    }

    pub(super) fn note_activity(&mut self) {
        self.last_active = Instant::now();
    }

    /// Ready once the connection has been idle for too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        loop {
            ready!(sleep.as_mut().poll(cx));
            let due = self.last_active + self.max;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn activity_defers_the_end() {
        let max = Duration::from_millis(30);
        let start = Instant::now();
        let mut timer = IdleTimer::new(Some(max));
        tokio::time::sleep(max / 2).await;
        timer.note_activity();
        let noted = start.elapsed();
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(start.elapsed() >= noted + max);
    }

    #[tokio::test]
    async fn without_a_limit_it_never_fires() {
        let mut timer = IdleTimer::new(None);
        let wait = poll_fn(|cx| timer.poll_expired(cx));
        assert!(
            tokio::time::timeout(Duration::from_millis(10), wait)
                .await
                .is_err()
        );
    }
}
