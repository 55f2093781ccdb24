//! A broker's queue of control requests: strictly one after the other.

use std::sync::Arc;

use barnabas_core::control::{ControlOutcome, ControlRequest};
use barnabas_core::controller::Event;
use barnabas_core::ids::BrokerId;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ControlTarget;
use super::metrics::ChannelMetrics;

/// Sends to one broker, in one registration of it. Dropping it forgets what was not sent yet.
pub(super) struct Channel {
    /// Unbounded: the machine never waits for a broker, and queues no more than the states that change.
    queue: mpsc::UnboundedSender<(Instant, ControlRequest)>,
    metrics: Arc<ChannelMetrics>,
    /// Gives up what is being sent, too: a broker that is gone would be sent to for ever.
    task: AbortHandle,
}

impl Channel {
    /// Begins to send; answers become events.
    pub(super) fn open(
        broker: BrokerId,
        target: Arc<dyn ControlTarget>,
        answers: mpsc::Sender<Event>,
        metrics: Arc<ChannelMetrics>,
    ) -> Self {
        let (queue, mut requests) = mpsc::unbounded_channel::<(Instant, ControlRequest)>();
        let counts = metrics.clone();
        let task = crate::host::spawn(async move {
            while let Some((since, request)) = requests.recv().await {
                let awaited = Awaited::of(&request);
                let outcome = target.deliver(request).await;
                counts.request_time.observe(since.elapsed());
                counts.queued.add(-1);
                if let Some(event) = awaited.event(broker, outcome)
                    && answers.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        let task = task.abort_handle();
        Self {
            queue,
            metrics,
            task,
        }
    }

    /// Puts a request at the end of the queue.
    pub(super) fn send(&self, request: ControlRequest) {
        self.metrics.queued.add(1);
        if self.queue.send((Instant::now(), request)).is_err() {
            tracing::error!("a broker's queue of control requests has ended by itself");
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the machine wants to know of an answer.
struct Awaited {
    controller_epoch: i32,
    kind: Kind,
}

enum Kind {
    LeaderAndIsr,
    UpdateMetadata,
    /// The partitions to be deleted.
    StopReplica(Vec<barnabas_core::ids::TopicPartition>),
}

impl Awaited {
    fn of(request: &ControlRequest) -> Self {
        let (header, kind) = match request {
            ControlRequest::LeaderAndIsr(request) => (request.header, Kind::LeaderAndIsr),
            ControlRequest::UpdateMetadata(request) => (request.header, Kind::UpdateMetadata),
            ControlRequest::StopReplica(request) => {
                let deleted = request.partitions.iter().filter(|of| of.delete);
                let deleted = deleted.map(|of| of.topic_partition.clone());
                (request.header, Kind::StopReplica(deleted.collect()))
            }
        };
        Self {
            controller_epoch: header.controller_epoch,
            kind,
        }
    }

    fn event(self, broker: BrokerId, outcome: ControlOutcome) -> Option<Event> {
        let controller_epoch = self.controller_epoch;
        match self.kind {
            Kind::LeaderAndIsr => Some(Event::LeaderAndIsrAnswered {
                broker,
                controller_epoch,
                outcome,
            }),
            Kind::UpdateMetadata => {
                if let Err(error) = outcome.result {
                    tracing::warn!(%broker, %error, "a broker refused an UpdateMetadata");
                }
                None
            }
            Kind::StopReplica(deleted) => {
                if let Err(error) = outcome.result {
                    tracing::warn!(%broker, %error, "a broker refused a StopReplica");
                }
                if deleted.is_empty() {
                    return None;
                }
                let results: std::collections::BTreeMap<_, _> =
                    outcome.partitions.into_iter().collect();
                let results = deleted.into_iter().map(|of| {
                    let own = results.get(&of).copied();
                    let result = outcome.result.and(own.unwrap_or(Ok(())));
                    (of, result)
                });
                Some(Event::ReplicasDeleted {
                    broker,
                    controller_epoch,
                    results: results.collect(),
                })
            }
        }
    }
}
