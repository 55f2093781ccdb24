//! Where ours answers otherwise than Kafka 3.9.1, on purpose.

use std::ops::RangeInclusive;

use barnabas_tests::broker::BrokerKind;

/// A set of recorded cases, and why they differ.
pub(super) struct Deviation {
    key: i16,
    versions: RangeInclusive<i16>,
    /// All cases of these versions if empty.
    cases: &'static [&'static str],
    pub(super) reason: &'static str,
}

const DEVIATIONS: &[Deviation] = &[];

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
