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

/// A request of brokers in `KRaft`, or a number that stands for nothing: Kafka stumbles before it looks whose request
/// it is.
const NO_SUCH_ORDER: &str = "an order that no controller gives is refused for its epoch";

/// A whole request that is refused is answered topic by topic, even if one is named twice or without partitions.
const REFUSED_AS_ASKED: &str = "what is refused as a whole is answered once for each partition";

const DEVIATIONS: &[Deviation] = &[
    of(1, 4..=5, &["11.3"], REFUSED_AS_ASKED),
    of(1, 7..=7, &["11.1", "11.3"], REFUSED_AS_ASKED),
    of(1, 9..=9, &["11.4"], REFUSED_AS_ASKED),
    of(1, 10..=10, &["11.1", "11.3"], REFUSED_AS_ASKED),
    of(4, 2..=2, &["11.3", "11.4"], NO_SUCH_ORDER),
    of(4, 6..=6, &["11.2"], REFUSED_AS_ASKED),
    of(4, 7..=7, &["11.1", "11.2", "11.3"], NO_SUCH_ORDER),
    of(5, 4..=4, &["11.1", "11.2"], NO_SUCH_ORDER),
    of(6, 1..=1, &["11.2", "11.3", "11.4"], NO_SUCH_ORDER),
    of(6, 2..=2, &["11.0", "11.2", "11.3", "11.4"], NO_SUCH_ORDER),
    of(6, 8..=8, &["11.1", "11.2", "11.3"], NO_SUCH_ORDER),
    of(
        24,
        5..=5,
        &["11.0"],
        "a transaction that is only looked at is not told of topics without partitions",
    ),
    of(
        42,
        0..=0,
        &["11.4"],
        "a transaction's commit that fails leaves no empty group behind",
    ),
    of(
        49,
        1..=1,
        &["11.1", "11.4"],
        "Kafka keeps entities in hash maps: of equal ones, and of several faults, it tells one",
    ),
];

const fn of(
    key: i16,
    versions: RangeInclusive<i16>,
    cases: &'static [&'static str],
    reason: &'static str,
) -> Deviation {
    Deviation {
        key,
        versions,
        cases,
        reason,
    }
}

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
