//! Many wishes, one request: reconciles hand in what they want, a task gathers for a moment and asks Kafka once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use crate::metrics::Metrics;

/// How long the first wish of a batch waits for others.
const GATHER: Duration = Duration::from_millis(10);
const AT_ONCE: usize = 200;

type Wish<I, O> = (I, oneshot::Sender<Result<O, Failure>>);

/// Hands wishes to the task that gathers them.
pub struct Batcher<I, O> {
    wishes: mpsc::Sender<Wish<I, O>>,
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// `run` answers for each wish in their order, and how long Kafka wants to be left alone afterwards.
    pub fn spawn<F>(
        op: &'static str,
        metrics: Arc<Metrics>,
        run: impl Fn(Vec<I>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = (Vec<Result<O, Failure>>, Duration)> + Send,
    {
        let (wishes, mut receiver) = mpsc::channel::<Wish<I, O>>(AT_ONCE * 4);
        tokio::spawn(async move {
            while let Some(first) = receiver.recv().await {
                let mut batch = vec![first];
                let until = Instant::now() + GATHER;
                while batch.len() < AT_ONCE {
                    match timeout_at(until, receiver.recv()).await {
                        Ok(Some(wish)) => batch.push(wish),
                        Ok(None) | Err(_) => break,
                    }
                }
                let size = batch.len() as f64;
                metrics.observe("barnabas_operator_batch_size", &[("op", op)], size);
                let (items, answers): (Vec<I>, Vec<_>) = batch.into_iter().unzip();
                let (results, pause) = run(items).await;
                for (answer, result) in answers.into_iter().zip(results) {
                    // Who asked may have been stopped.
                    let _ = answer.send(result);
                }
                tokio::time::sleep(pause).await;
            }
        });
        Self { wishes }
    }

    /// Waits for the batch that this becomes part of.
    pub async fn ask(&self, item: I) -> Result<O, Failure> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Failure::transient("the operator is stopping");
        let sent = self.wishes.send((item, answer)).await;
        sent.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wishes_of_one_moment_are_one_request() {
        let metrics = Arc::new(Metrics::default());
        let batcher = Batcher::spawn("test", metrics, |items: Vec<u32>| async move {
            let size = items.len();
            let results = items.into_iter().map(|item| {
                if item == 7 {
                    Err(Failure::Look)
                } else {
                    Ok((item, size))
                }
            });
            (results.collect(), Duration::ZERO)
        });
        let asked = (0..10).map(|item| batcher.ask(item));
        let answers = futures::future::join_all(asked).await;
        for (item, answer) in (0..10).zip(answers) {
            match answer {
                Ok(answer) => assert_eq!(answer, (item, 10)),
                Err(failure) => assert!(item == 7 && matches!(failure, Failure::Look)),
            }
        }
    }
}
