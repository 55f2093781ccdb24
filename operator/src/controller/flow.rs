//! How much is asked of the API server at once: as much as it answers well.
//!
//! More at once while answers come about as fast as they ever did, less when they slow down, half when it says that it
//! is too much or fails. Thousands of Topics that come at once are written as fast as the server can, and a server that
//! is in trouble is left alone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

const FIRST: f64 = 16.0;
const MOST: f64 = 128.0;
/// Answers that take less are quick, whatever the fastest took.
const QUICK: Duration = Duration::from_millis(20);
/// Between two halvings: the requests of one bad moment are one sign.
const HALVING: Duration = Duration::from_secs(1);
/// After "too many requests" without a word of how long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Answered, whatever the answer, after so long.
    Answered(Duration),
    /// It is overloaded, or gone; to be asked again after so long.
    Overloaded(Option<Duration>),
}

/// The rule, without clock and waiting.
#[derive(Clone, Debug)]
struct Pace {
    limit: f64,
    running: usize,
    fastest: Option<Duration>,
    halved: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: FIRST,
            running: 0,
            fastest: None,
            halved: None,
            rests_until: None,
        }
    }
}

impl Pace {
    fn has_room(&self) -> bool {
        self.running < self.limit as usize
    }

    fn note(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Overloaded(rest) => {
                if let Some(rest) = rest {
                    let until = now + rest;
                    self.rests_until = self.rests_until.max(Some(until));
                }
                if self.halved.is_none_or(|at| now - at >= HALVING) {
                    self.halved = Some(now);
                    self.limit = (self.limit / 2.0).max(1.0);
                }
            }
            Outcome::Answered(took) => {
                // The fastest is forgotten slowly: servers and networks change.
                let known = self.fastest.map_or(took, |known| known.mul_f64(1.001));
                let fastest = known.min(took);
                self.fastest = Some(fastest);
                let is_full = self.running + 1 >= self.limit as usize;
                if took <= QUICK.max(fastest * 3) {
                    if is_full {
                        self.limit = (self.limit + 1.0 / self.limit).min(MOST);
                    }
                } else if took > (QUICK * 10).max(fastest * 6) {
                    self.limit =
                        (self.limit - 1.0 / self.limit.max(1.0)).max(4.0_f64.min(self.limit));
                }
            }
        }
    }
}

/// Lets requests through.
#[derive(Debug, Default)]
pub struct Flow {
    pace: Mutex<Pace>,
    room: Notify,
}

/// A request under way.
#[derive(Debug)]
pub struct Turn<'a> {
    flow: &'a Flow,
    begun: Instant,
}

impl Flow {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request is not too many.
    pub async fn turn(&self) -> Turn<'_> {
        loop {
            let rest = {
                let mut pace = self.pace();
                let now = Instant::now();
                pace.rests_until = pace.rests_until.filter(|until| *until > now);
                if pace.rests_until.is_none() && pace.has_room() {
                    pace.running += 1;
                    if pace.has_room() {
                        // Room may have grown by more than one.
                        self.room.notify_one();
                    }
                    let begun = now;
                    return Turn { flow: self, begun };
                }
                pace.rests_until
            };
            match rest {
                Some(until) => sleep_until(until).await,
                // A word that came in between is kept for us.
                None => self.room.notified().await,
            }
        }
    }

    /// Requests that may run at once now.
    pub fn limit(&self) -> f64 {
        self.pace().limit
    }
}

impl Turn<'_> {
    /// What came of it.
    pub fn done<T>(self, result: &Result<T, kube::Error>) {
        let outcome = match result {
            Err(kube::Error::Api(status)) if status.code == 429 => {
                let seconds = status.details.as_ref().map(|one| one.retry_after_seconds);
                let said = seconds.filter(|seconds| *seconds > 0);
                let said = said.map(|seconds| Duration::from_secs(seconds.into()));
                Outcome::Overloaded(Some(said.unwrap_or(RETRY_AFTER)))
            }
            Err(kube::Error::Api(status)) if status.code < 500 => {
                Outcome::Answered(self.begun.elapsed())
            }
            Err(_) => Outcome::Overloaded(None),
            Ok(_) => Outcome::Answered(self.begun.elapsed()),
        };
        self.flow.pace().note(outcome, Instant::now());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.flow.pace().running -= 1;
        self.flow.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn answered(pace: &mut Pace, ms: u64, times: usize) {
        for _ in 0..times {
            pace.running = pace.limit as usize;
            pace.note(Outcome::Answered(Duration::from_millis(ms)), Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn quick_answers_allow_more_slow_ones_less_and_refusals_half() {
        let mut pace = Pace::default();
        answered(&mut pace, 5, 2000);
        let most = pace.limit;
        assert!(most > 50.0, "{most}");
        answered(&mut pace, 500, 2000);
        assert!(pace.limit < most, "{}", pace.limit);
        let before = pace.limit;
        for _ in 0..10 {
            pace.note(Outcome::Overloaded(None), Instant::now());
        }
        assert!(pace.limit >= before / 2.0, "one bad moment halves once");
        for _ in 0..20 {
            tokio::time::advance(HALVING).await;
            pace.note(Outcome::Overloaded(None), Instant::now());
        }
        assert!(pace.has_room() || pace.running > 0);
        assert!(pace.limit >= 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_run_at_once_than_the_limit_and_everyone_has_a_turn() {
        let flow = Arc::new(Flow::default());
        let running = Arc::new(Mutex::new((0_usize, 0_usize)));
        let tasks = (0..200).map(|_| {
            let (flow, running) = (flow.clone(), running.clone());
            async move {
                let turn = flow.turn().await;
                {
                    let mut running = running.lock().unwrap();
                    running.0 += 1;
                    running.1 = running.1.max(running.0);
                    assert!(running.0 as f64 <= flow.limit());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.lock().unwrap().0 -= 1;
                turn.done(&Ok(()));
            }
        });
        let all = futures::future::join_all(tasks);
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .expect("everyone has a turn");
        assert!(running.lock().unwrap().1 >= FIRST as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn after_too_many_requests_there_is_rest() {
        let flow = Flow::default();
        let status = kube::core::Status {
            code: 429,
            ..kube::core::Status::default()
        };
        flow.turn()
            .await
            .done(&Err::<(), _>(kube::Error::Api(Box::new(status))));
        let begun = Instant::now();
        drop(flow.turn().await);
        assert!(begun.elapsed() >= RETRY_AFTER);
    }
}
