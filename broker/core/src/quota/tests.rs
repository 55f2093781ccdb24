use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::entity::{self, AlterQuotaError, Match, QuotaFilter, QuotaFilterError, java_double};
use super::*;
use crate::znodes::ConfigEntity;

const ELEVEN_SECONDS: Window = Window {
    samples: 11,
    sample_length: Duration::from_secs(1),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_rate_is_over_all_samples_but_one_at_least() {
    let mut rate = QuotaRate::new(ELEVEN_SECONDS);
    rate.record(1000.0, ms(0));
    assert!((rate.measure(ms(0)) - 100.0).abs() < 1e-9);
    // Ten whole samples are over, so the window is what has passed.
    rate.record(1000.0, ms(10_500));
    assert!((rate.measure(ms(10_500)) - 2000.0 / 10.5).abs() < 1e-9);
    // A sample counts until nothing was added to it for eleven of them.
    assert!((rate.measure(ms(11_000)) - 1000.0 / 10.5).abs() < 1e-9);
}

#[test]
fn the_throttle_lets_the_rate_fall_to_the_limit() {
    let mut rate = QuotaRate::new(ELEVEN_SECONDS);
    rate.record(1500.0, ms(0));
    // 150 a second in a window of 10 s, where 100 are allowed: half a window too much.
    assert_eq!(rate.throttle_ms(100.0, ms(0)), 5000);
    assert_eq!(rate.throttle_ms(150.0, ms(0)), 0);
    assert_eq!(rate.throttle_ms(0.0, ms(0)), i32::MAX as u32);
    rate.record(-1500.0, ms(0));
    assert_eq!(rate.throttle_ms(0.0, ms(0)), 0);
}

#[test]
fn a_bucket_is_full_at_first_and_may_be_overdrawn_once() {
    let mut bucket = TokenBucket::default();
    assert!((bucket.tokens(2.0, ELEVEN_SECONDS, ms(5)) - 22.0).abs() < 1e-9);
    bucket.take(30.0, 2.0, ELEVEN_SECONDS, ms(5));
    assert_eq!(bucket.throttle_ms(2.0, ELEVEN_SECONDS, ms(5)), 4000);
    assert_eq!(bucket.throttle_ms(2.0, ELEVEN_SECONDS, ms(4005)), 0);
    assert!((bucket.tokens(2.0, ELEVEN_SECONDS, ms(1_000_000)) - 22.0).abs() < 1e-9);
}

fn name(text: &str) -> Option<String> {
    (text != "*").then(|| text.to_owned())
}

fn user(user: &str) -> ConfigEntity {
    ConfigEntity::User(name(user))
}

fn client(client: &str) -> ConfigEntity {
    ConfigEntity::Client(name(client))
}

fn both(user: &str, client: &str) -> ConfigEntity {
    ConfigEntity::UserClient(name(user), name(client))
}

#[test]
fn the_most_specific_of_eight_levels_wins() {
    let levels = [
        (both("u", "c"), Scope::UserAndClient),
        (both("u", "*"), Scope::UserAndClient),
        (user("u"), Scope::User),
        (both("*", "c"), Scope::UserAndClient),
        (both("*", "*"), Scope::UserAndClient),
        (user("*"), Scope::User),
        (client("c"), Scope::Client),
        (client("*"), Scope::Client),
    ];
    let mut limits = QuotaLimits::default();
    for (rank, (entity, _)) in levels.iter().enumerate() {
        limits.set(entity, Some(rank as f64));
    }
    for (rank, (entity, scope)) in levels.iter().enumerate() {
        let expected = Limit {
            scope: *scope,
            per_second: rank as f64,
        };
        assert_eq!(limits.resolve("u", "c"), Some(expected));
        limits.set(entity, None);
    }
    assert_eq!(limits.resolve("u", "c"), None);
    assert!(limits.is_empty());
}

#[test]
fn others_have_the_limits_of_others() {
    let mut limits = QuotaLimits::default();
    limits.set(&client("*"), Some(1.0));
    limits.set(&user("*"), Some(2.0));
    limits.set(&both("u", "c"), Some(3.0));
    let limit = |user, client| limits.resolve(user, client).map(|one| one.per_second);
    assert_eq!(limit("u", "d"), Some(2.0));
    assert_eq!(limit("v", "c"), Some(2.0));
    limits.set(&user("*"), None);
    assert_eq!(limits.resolve("v", "c").unwrap().scope, Scope::Client);
    assert_eq!(limits.resolve("v", ""), None);
}

#[test]
fn parts_make_an_entity() {
    let of =
        |parts: &[(&'static str, Option<&'static str>)]| entity::entity_of(parts.iter().copied());
    assert_eq!(of(&[("user", Some("u"))]), Ok(user("u")));
    assert_eq!(
        of(&[("client-id", None), ("user", Some("u"))]),
        Ok(both("u", "*"))
    );
    assert_eq!(of(&[("ip", None)]), Ok(ConfigEntity::Ip(None)));
    assert_eq!(of(&[]), Err(AlterQuotaError::NoEntity));
    let refused = of(&[("user", Some(""))]).unwrap_err();
    assert_eq!(refused.to_string(), "Empty user not supported");
    assert_eq!(
        of(&[("user", None), ("ip", None)]),
        Err(AlterQuotaError::AddressAndClient)
    );
    assert!(matches!(
        of(&[("foo", None)]),
        Err(AlterQuotaError::UnknownType(_))
    ));
}

#[test]
fn values_are_written_as_java_does() {
    let mut settings = BTreeMap::new();
    let mut set = |entity: &ConfigEntity, key, value| {
        entity::alter(entity, &mut settings, key, value)?;
        Ok::<_, AlterQuotaError>(settings.get(key).cloned())
    };
    let rate = "producer_byte_rate";
    assert_eq!(
        set(&user("u"), rate, Some(2048.0)),
        Ok(Some("2048".to_owned()))
    );
    assert_eq!(set(&user("u"), rate, None), Ok(None));
    let percentage = set(&user("u"), "request_percentage", Some(50.0));
    assert_eq!(percentage, Ok(Some("50.0".to_owned())));
    let refused = set(&user("u"), rate, Some(5.5)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Configuration producer_byte_rate must be a LONG value"
    );
    let address = ConfigEntity::Ip(None);
    assert!(set(&address, rate, Some(1.0)).is_err());
    assert!(set(&address, "connection_creation_rate", Some(-1.0)).is_err());
    assert!(set(&client("c"), "SCRAM-SHA-256", Some(1.0)).is_err());
    for (value, text) in [
        (0.001, "0.001"),
        (9_999_999.5, "9999999.5"),
        (1e7, "1.0E7"),
        (1.5e-4, "1.5E-4"),
        (0.0, "0.0"),
    ] {
        assert_eq!(java_double(value), text);
    }
}

#[test]
fn filters_select_parts() {
    let filter = |parts: &[(&str, Match)], is_strict| {
        let parts = parts
            .iter()
            .map(|(kind, wanted)| ((*kind).to_owned(), wanted.clone()));
        QuotaFilter::new(parts, is_strict)
    };
    let exact = |name: &str| Match::Exact(name.to_owned());
    let all = [
        user("u"),
        user("*"),
        client("c"),
        both("u", "c"),
        both("*", "c"),
        ConfigEntity::Ip(None),
    ];
    let check = |parts: &[(&str, Match)], is_strict, expected: &[usize]| {
        let filter = filter(parts, is_strict).unwrap();
        let selected: Vec<usize> = (0..all.len())
            .filter(|at| filter.selects(&all[*at]))
            .collect();
        assert_eq!(selected, expected, "{parts:?}");
    };
    check(&[], false, &[0, 1, 2, 3, 4, 5]);
    check(&[], true, &[]);
    check(&[("user", Match::Any)], false, &[0, 1, 3, 4]);
    check(&[("user", Match::Any)], true, &[0, 1]);
    check(&[("user", exact("u"))], true, &[0]);
    check(&[("user", Match::Default)], false, &[1, 4]);
    check(
        &[("user", exact("u")), ("client-id", Match::Any)],
        true,
        &[3],
    );
    check(&[("ip", Match::Any)], true, &[5]);
    let twice = [("user", Match::Any), ("user", Match::Default)];
    assert_eq!(
        filter(&twice, false),
        Err(QuotaFilterError::Duplicate("user".to_owned()))
    );
    let mixed = [("user", Match::Any), ("ip", Match::Any)];
    assert_eq!(
        filter(&mixed, false),
        Err(QuotaFilterError::AddressAndClient)
    );
    assert_eq!(
        filter(&[("", Match::Any)], false),
        Err(QuotaFilterError::EmptyType)
    );
}

proptest! {
    /// Who sends as fast as it can and waits as long as it is told gets the limit, within a twentieth, after a first
    /// allowance of one window.
    #[test]
    fn who_waits_as_told_gets_the_limit(
        limit in 100.0..1e7_f64,
        share in 0.001..0.2_f64,
        pause_ms in 0_u64..20,
    ) {
        let amount = limit * share;
        let mut rate = QuotaRate::new(ELEVEN_SECONDS);
        let (mut now, mut sum) = (0, 0.0);
        let end = 300_000;
        while now < end {
            sum += amount;
            rate.record(amount, ms(now));
            now += u64::from(rate.throttle_ms(limit, ms(now))) + pause_ms.max(1);
        }
        let asked = amount * 1e3 / pause_ms.max(1) as f64;
        let allowed = limit * (end as f64 / 1e3);
        prop_assert!(sum <= allowed * 1.1, "{sum} of {allowed}");
        prop_assert!(sum >= allowed.min(asked * end as f64 / 1e3) * 0.9, "{sum} of {allowed}");
    }

    /// A bucket gives out what its burst and the passing time brought, and no more.
    #[test]
    fn a_bucket_gives_out_burst_and_rate(limit in 0.5..50.0_f64, amount in 1_u32..40) {
        let mut bucket = TokenBucket::default();
        let (mut now, mut sum) = (0, 0.0);
        let end = 600_000;
        while now < end {
            let wait = bucket.throttle_ms(limit, ELEVEN_SECONDS, ms(now));
            if wait > 0 {
                now += u64::from(wait);
                continue;
            }
            bucket.take(f64::from(amount), limit, ELEVEN_SECONDS, ms(now));
            sum += f64::from(amount);
            now += 1;
        }
        let allowed = limit * (11.0 + now as f64 / 1e3);
        prop_assert!(sum <= allowed + f64::from(amount) + 1.0, "{sum} of {allowed}");
    }

    /// Nothing that was noted and taken back leaves a trace in the rate.
    #[test]
    fn what_is_taken_back_was_never_there(
        amounts in prop::collection::vec((1.0..1e6_f64, 0_u64..3000), 1..40),
    ) {
        let mut rate = QuotaRate::new(ELEVEN_SECONDS);
        let mut now = 0;
        for (amount, pause) in amounts {
            now += pause;
            rate.record(amount, ms(now));
            rate.record(-amount, ms(now));
        }
        prop_assert!(rate.measure(ms(now)).abs() < 1e-3);
    }
}
