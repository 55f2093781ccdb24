//! Whether two texts of a setting mean the same.

/// Settings that only the balancer writes.
pub const THROTTLES: [&str; 2] = [
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
];

/// Whether both are the same value: numbers numerically, booleans in any case, lists as sets without blanks.
pub fn same(key: &str, one: &str, other: &str) -> bool {
    let (one, other) = (one.trim(), other.trim());
    if one == other {
        return true;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<i128>(), other.parse::<i128>()) {
        return one == other;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) {
        return (one - other).abs() <= f64::EPSILON * one.abs().max(other.abs());
    }
    let is_bool =
        |text: &str| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    if is_bool(one) && is_bool(other) {
        return one.eq_ignore_ascii_case(other);
    }
    if key == "cleanup.policy" {
        return set(one) == set(other);
    }
    false
}

fn set(text: &str) -> std::collections::BTreeSet<&str> {
    let items = text.split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_what_they_mean() {
        assert!(same("retention.ms", "0604800000", "604800000"));
        assert!(same("min.cleanable.dirty.ratio", "0.50", "0.5"));
        assert!(same("cleanup.policy", "delete, compact", "compact,delete"));
        assert!(same("preallocate", "True", "true"));
        assert!(!same("cleanup.policy", "delete", "compact,delete"));
        assert!(!same("retention.ms", "-1", "1"));
        assert!(!same("compression.type", "lz4", "zstd"));
        assert!(!same("preallocate", "true", "false"));
    }
}
