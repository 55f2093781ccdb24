//! Asks the coordinators of transactions whether partitions belong to them, before a transaction begins there
//! (KIP-890 part 1; Kafka's `AddPartitionsToTxnManager`).
//!
//! One request at a time is under way to each coordinator; what is asked meanwhile goes into the next one. Of one
//! transactional id only the latest question waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::transaction::TransactionError;
use tokio::sync::oneshot;

use super::{TRANSACTIONS_TOPIC, TransactionCoordinator};
use crate::config::LiveConfig;
use crate::host;
use crate::metadata_cache::MetadataCache;
use crate::peer::{PeerError, PeerNetwork, VerificationPeer};

/// A transaction, and partitions that it is said to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub transactional_id: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub partitions: Vec<TopicPartition>,
}

/// Why a partition may not be written to within a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The coordinator does not know the partition.
    #[error("the coordinator does not know the partition")]
    UnknownTopicOrPartition,
    /// Another question about the transactional id has come since.
    #[error("the coordinator did not answer")]
    Network,
}

/// One result for each partition of a claim, in order.
pub type Verdict = Vec<Result<(), VerificationError>>;

/// What a [`TransactionVerifier`] is made of.
pub struct TransactionVerifierOptions {
    pub broker_id: BrokerId,
    pub network: Arc<dyn PeerNetwork>,
    pub metadata: Arc<MetadataCache>,
    pub config: Arc<LiveConfig>,
    pub transactions: Arc<TransactionCoordinator>,
}

/// See the module.
pub struct TransactionVerifier {
    options: TransactionVerifierOptions,
    coordinators: Mutex<BTreeMap<BrokerId, Arc<Coordinator>>>,
}

/// A coordinator on another broker.
struct Coordinator {
    queue: Mutex<Queue>,
    peer: tokio::sync::Mutex<Option<VerificationPeer>>,
}

#[derive(Default)]
struct Queue {
    /// By transactional id.
    waiting: BTreeMap<String, Question>,
    is_served: bool,
}

struct Question {
    claim: Claim,
    answer: oneshot::Sender<Verdict>,
}

impl TransactionVerifier {
    pub fn new(options: TransactionVerifierOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            coordinators: Mutex::default(),
        })
    }

    /// Asks the coordinator of the transaction about each of its partitions.
    pub async fn verify(&self, claim: Claim) -> Verdict {
        let count = claim.partitions.len();
        let all = |error: VerificationError| vec![Err(error); count];
        let transactions = &self.options.transactions;
        let number = transactions.partition_for(&claim.transactional_id);
        let image = self.options.metadata.image();
        let leader = image
            .partition(TRANSACTIONS_TOPIC, number)
            .and_then(|partition| partition.leader());
        let not_available = TransactionError::CoordinatorNotAvailable.into();
        let Some(leader) = leader else {
            return all(not_available);
        };
        if leader == self.options.broker_id {
            let verdict = transactions.verify(
                &claim.transactional_id,
                claim.producer_id,
                claim.producer_epoch,
                &claim.partitions,
            );
            let results = verdict.into_iter();
            return results.map(|result| result.map_err(Into::into)).collect();
        }
        let config = self.options.config.broker();
        let endpoint = image.endpoint(leader, &config.listeners.inter_broker);
        let Some(endpoint) = endpoint else {
            return all(not_available);
        };
        let address = BrokerAddress {
            id: leader,
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        let (answer, verdict) = oneshot::channel();
        let question = Question { claim, answer };
        let coordinator = self.coordinator(leader);
        if coordinator.enqueue(question) {
            let peer_of = VerificationPeer::new(
                self.options.network.clone(),
                address,
                self.options.broker_id,
            );
            let patience = Duration::from_millis(config.request_timeout_ms.max(0) as u64);
            host::spawn(coordinator.serve(peer_of, patience));
        }
        verdict
            .await
            .unwrap_or_else(|_| all(VerificationError::Network))
    }

    fn coordinator(&self, id: BrokerId) -> Arc<Coordinator> {
        let mut coordinators = self
            .coordinators
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = coordinators.entry(id).or_insert_with(|| {
            Arc::new(Coordinator {
                queue: Mutex::default(),
                peer: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(known)
    }
}

impl Coordinator {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether somebody has to serve the queue from now on.
    fn enqueue(&self, question: Question) -> bool {
        let mut queue = self.queue();
        let id = question.claim.transactional_id.clone();
        if let Some(older) = queue.waiting.remove(&id) {
            let fenced = TransactionError::ProducerFenced.into();
            let (kept, refused, error) = match question
                .claim
                .producer_epoch
                .cmp(&older.claim.producer_epoch)
            {
                std::cmp::Ordering::Greater => (question, older, fenced),
                // The client is likely to have tried again.
                std::cmp::Ordering::Equal => (question, older, VerificationError::Network),
                std::cmp::Ordering::Less => (older, question, fenced),
            };
            refused.refuse(error);
            queue.waiting.insert(id, kept);
        } else {
            queue.waiting.insert(id, question);
        }
        !std::mem::replace(&mut queue.is_served, true)
    }

    /// Asks until nobody waits any more.
    async fn serve(self: Arc<Self>, fresh: VerificationPeer, patience: Duration) {
        let mut peer = self.peer.lock().await;
        if peer
            .as_ref()
            .is_none_or(|known| known.address() != fresh.address())
        {
            *peer = Some(fresh);
        }
        loop {
            let questions: Vec<Question> = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.is_served = false;
                    return;
                }
                std::mem::take(&mut queue.waiting).into_values().collect()
            };
            let claims: Vec<&Claim> = questions.iter().map(|question| &question.claim).collect();
            let Some(peer) = peer.as_mut() else { return };
            let asked = peer.verify(&claims, patience).await;
            answer(questions, asked);
        }
    }
}

impl Question {
    fn refuse(self, error: VerificationError) {
        let verdict = vec![Err(error); self.claim.partitions.len()];
        // Nobody listens any more if the connection is gone.
        let _ = self.answer.send(verdict);
    }
}

fn answer(questions: Vec<Question>, asked: Result<Option<Vec<Verdict>>, PeerError>) {
    match asked {
        Ok(Some(verdicts)) => {
            for (question, verdict) in questions.into_iter().zip(verdicts) {
                let _ = question.answer.send(verdict);
            }
        }
        Ok(None) => {
            tracing::warn!(
                "a coordinator of transactions is too old to be asked: nothing is verified"
            );
            for question in questions {
                let verdict = vec![Ok(()); question.claim.partitions.len()];
                let _ = question.answer.send(verdict);
            }
        }
        Err(error) => {
            tracing::info!(%error, "a coordinator of transactions did not answer");
            for question in questions {
                question.refuse(VerificationError::Network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(epoch: i16) -> (Question, oneshot::Receiver<Verdict>) {
        let (answer, verdict) = oneshot::channel();
        let claim = Claim {
            transactional_id: "x".to_owned(),
            producer_id: 7,
            producer_epoch: epoch,
            partitions: vec![TopicPartition::new("t", 0)],
        };
        (Question { claim, answer }, verdict)
    }

    #[test]
    fn of_two_questions_about_one_transaction_the_newer_producer_waits() {
        let coordinator = Coordinator {
            queue: Mutex::default(),
            peer: tokio::sync::Mutex::default(),
        };
        let fenced = Ok(vec![Err(TransactionError::ProducerFenced.into())]);
        let (first, mut first_verdict) = question(1);
        assert!(coordinator.enqueue(first));
        let (again, mut again_verdict) = question(1);
        assert!(!coordinator.enqueue(again));
        assert_eq!(
            first_verdict.try_recv(),
            Ok(vec![Err(VerificationError::Network)])
        );
        let (older, mut older_verdict) = question(0);
        coordinator.enqueue(older);
        assert_eq!(older_verdict.try_recv(), fenced);
        let (newer, mut newer_verdict) = question(2);
        coordinator.enqueue(newer);
        assert_eq!(again_verdict.try_recv(), fenced);
        assert!(newer_verdict.try_recv().is_err());
    }
}
