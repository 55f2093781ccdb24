//! Where ours answers otherwise than Kafka 3.9.1, on purpose.

use std::ops::RangeInclusive;

use barnabas_tests::broker::BrokerKind;
use kafka_protocol::messages::{
    DescribeLogDirsRequest, FindCoordinatorRequest, InitProducerIdRequest,
};
use kafka_protocol::protocol::Request as _;

/// Transactions are not served yet, so their topic is not there either.
pub(super) fn are_transactions_missing() -> bool {
    BrokerKind::under_test() == BrokerKind::Barnabas
}

/// A set of recorded cases, and why they differ.
pub(super) struct Deviation {
    key: i16,
    versions: RangeInclusive<i16>,
    /// All cases of these versions if empty.
    cases: &'static [&'static str],
    pub(super) reason: &'static str,
}

const NO_COORDINATORS: &str = "coordinators of transactions are not served yet";

const NO_MARKERS: &str = "markers of transactions are not written yet, so a log is shorter";

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        key: FindCoordinatorRequest::KEY,
        versions: 0..=6,
        cases: &["txn"],
        reason: NO_COORDINATORS,
    },
    Deviation {
        key: InitProducerIdRequest::KEY,
        versions: 0..=5,
        cases: &["transactional", "foreign producer id"],
        reason: NO_COORDINATORS,
    },
    Deviation {
        key: DescribeLogDirsRequest::KEY,
        versions: 0..=4,
        cases: &["all"],
        reason: NO_MARKERS,
    },
];

/// The reason why a case differs, if it is meant to.
pub(super) fn deviation_of(
    key: Option<i16>,
    version: i16,
    case: &str,
) -> Option<&'static Deviation> {
    if BrokerKind::under_test() == BrokerKind::Kafka {
        return None;
    }
    DEVIATIONS.iter().find(|deviation| {
        Some(deviation.key) == key
            && deviation.versions.contains(&version)
            && (deviation.cases.is_empty() || deviation.cases.contains(&case))
    })
}
