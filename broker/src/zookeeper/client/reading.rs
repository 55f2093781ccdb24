//! Many reads as one request: a server takes as long for a packet as for what it asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zookeeper_client::{Client, Error, MultiReadResult};

use super::session::Request;
use super::translate::{self, Answer};
use crate::zookeeper::coordination::{Operation, Watch};

/// How many reads go together at most: 10,000 states of partitions are a hundred packets of about 20 KiB.
const READS_TOGETHER: usize = 100;
/// Fewer go one by one, as Kafka sends them.
pub(super) const FEW_READS: usize = 16;

/// Whether the servers take several reads in one request: those before ZooKeeper 3.6 do not.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadsTogether {
    are_refused: Arc<AtomicBool>,
}

/// What may be read together with others: there are no watches in such a request.
fn is_plain_read(request: &Request) -> bool {
    matches!(
        request.operation,
        Operation::Get {
            watch: Watch::No,
            ..
        }
    )
}

impl ReadsTogether {
    /// How many of the requests that wait go together with `first`.
    pub(super) fn joining<'a>(
        &self,
        first: &Request,
        waiting: impl Iterator<Item = &'a Request>,
    ) -> usize {
        if !is_plain_read(first) || self.are_refused.load(Ordering::Relaxed) {
            return 0;
        }
        let joining = waiting
            .take(READS_TOGETHER - 1)
            .take_while(|request| is_plain_read(request))
            .count();
        if joining + 1 < FEW_READS { 0 } else { joining }
    }

    /// Reads all of them. Sent when this is polled first.
    pub(super) async fn run(
        self,
        client: Client,
        requests: Vec<Request>,
        set_acl: bool,
    ) -> Vec<(Request, Answer)> {
        match read(&client, &requests).await {
            Ok(results) if results.len() == requests.len() => {
                let answers = results.into_iter().map(translate::read);
                requests.into_iter().zip(answers).collect()
            }
            Err(error) if translate::is_lost(&error) => {
                let lost = requests.into_iter();
                lost.map(|request| (request, Answer::Lost)).collect()
            }
            refused => {
                if !self.are_refused.swap(true, Ordering::Relaxed) {
                    let reason = refused.err().map(|error| error.to_string());
                    tracing::info!(reason, "ZooKeeper does not read several nodes at once");
                }
                let mut answered = Vec::with_capacity(requests.len());
                for request in requests {
                    let answer = translate::run(&client, &request.operation, set_acl).await;
                    answered.push((request, answer));
                }
                answered
            }
        }
    }
}

async fn read(client: &Client, requests: &[Request]) -> Result<Vec<MultiReadResult>, Error> {
    let mut reader = client.new_multi_reader();
    for request in requests {
        if let Operation::Get { path, .. } = &request.operation {
            reader.add_get_data(path)?;
        }
    }
    reader.commit().await
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn request(operation: Operation) -> Request {
        let (reply, _) = tokio::sync::oneshot::channel();
        Request {
            operation,
            reply,
            losses: 0,
        }
    }

    fn get(watch: Watch) -> Request {
        let path = "/n".to_owned();
        request(Operation::Get { path, watch })
    }

    #[test]
    fn reads_join_up_to_what_is_something_else() {
        let reads = ReadsTogether::default();
        let joining = |plain: usize, then: Request| {
            let mut waiting: VecDeque<Request> = (0..plain).map(|_| get(Watch::No)).collect();
            waiting.push_back(then);
            waiting.extend((0..200).map(|_| get(Watch::No)));
            reads.joining(&get(Watch::No), waiting.iter())
        };
        let write = || request(Operation::create("/n", None));
        assert_eq!(joining(50, write()), 50);
        assert_eq!(joining(50, get(Watch::Once)), 50);
        assert_eq!(joining(500, write()), READS_TOGETHER - 1);
        assert_eq!(joining(FEW_READS - 2, write()), 0, "so few go one by one");
        let many: Vec<Request> = (0..200).map(|_| get(Watch::No)).collect();
        assert_eq!(reads.joining(&write(), many.iter()), 0);
        reads.are_refused.store(true, Ordering::Relaxed);
        assert_eq!(joining(50, write()), 0);
    }
}
