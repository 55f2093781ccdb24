//! Events of Topics, published beside the work: whoever reconciles does not wait for them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::debug;

use crate::metrics::Metrics;
use crate::resource::Topic;

/// Events that wait; more are dropped.
const QUEUE: usize = 2000;

/// Publishes.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Events {
    pub fn spawn(client: kube::Client, instance: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: "barnabas-operator".to_owned(),
            instance: Some(instance.to_owned()),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut events) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let publisher = recorder.clone();
        tokio::spawn(async move {
            while let Some((event, object)) = events.recv().await {
                if let Err(error) = publisher.publish(&event, &object).await {
                    debug!(reason = event.reason, %error, "event not published");
                }
            }
        });
        Self {
            queue,
            recorder,
            metrics,
        }
    }

    fn event(kind: EventType, reason: &str, note: &str) -> Event {
        let mut end = note.len().min(1000);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note[..end].to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        }
    }

    /// Something was done.
    pub fn normal(&self, topic: &Topic, reason: &str, note: &str) {
        self.send(topic, EventType::Normal, reason, note);
    }

    /// Something is wrong, or was.
    pub fn warning(&self, topic: &Topic, reason: &str, note: &str) {
        self.send(topic, EventType::Warning, reason, note);
    }

    /// Of any object.
    pub fn about(&self, object: ObjectReference, kind: EventType, reason: &str, note: &str) {
        let event = Self::event(kind, reason, note);
        if self.queue.try_send((event, object)).is_err() {
            self.metrics
                .count("barnabas_operator_events_dropped_total", &[], 1);
        }
    }

    fn send(&self, topic: &Topic, kind: EventType, reason: &str, note: &str) {
        self.about(topic.object_ref(&()), kind, reason, note);
    }

    /// Publishes a warning now, to learn whether the namespace is going away: then nothing can be created in it.
    pub async fn is_namespace_terminating(&self, topic: &Topic, reason: &str, note: &str) -> bool {
        let event = Self::event(EventType::Warning, reason, note);
        match self.recorder.publish(&event, &topic.object_ref(&())).await {
            Err(kube::Error::Api(status)) => {
                status.code == 403 && status.message.contains("is being terminated")
            }
            Ok(()) | Err(_) => false,
        }
    }
}
