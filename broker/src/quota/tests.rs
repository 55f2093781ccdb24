use super::*;

fn quotas() -> ClientQuotas {
    let given = BTreeMap::from([("zookeeper.connect".to_owned(), "z:1".to_owned())]);
    ClientQuotas::new(&BrokerConfig::parse(&given).unwrap())
}

fn set(quotas: &ClientQuotas, entity: &ConfigEntity, settings: &[(&str, &str)]) {
    let settings = settings.iter();
    let settings = settings.map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
    quotas.entity_changed(entity, &settings.collect());
}

fn client(name: &str) -> ConfigEntity {
    ConfigEntity::Client(Some(name.to_owned()))
}

const FAST: Client<'static> = Client {
    user: "ANONYMOUS",
    client_id: "fast",
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nobody_is_remembered_without_a_quota_of_its_own() {
    let quotas = quotas();
    assert_eq!(quotas.produce.record(FAST, 1e9, SECOND), 0);
    set(&quotas, &client("other"), &[("producer_byte_rate", "1000")]);
    assert_eq!(quotas.produce.record(FAST, 1e9, SECOND), 0);
    assert_eq!(quotas.produce.remembered(), 0);
}

#[test]
fn a_quota_holds_from_when_it_is_set_until_it_is_removed() {
    let quotas = quotas();
    set(&quotas, &client("fast"), &[("producer_byte_rate", "1000")]);
    assert_eq!(quotas.produce.record(FAST, 10_000.0, SECOND), 0);
    assert_eq!(quotas.produce.record(FAST, 5000.0, SECOND), 5000);
    assert_eq!(quotas.fetch.record(FAST, 1e9, SECOND), 0);
    // What was used is judged by the new limit at once.
    set(&quotas, &client("fast"), &[("producer_byte_rate", "3000")]);
    assert_eq!(quotas.produce.record(FAST, 0.0, SECOND), 0);
    set(&quotas, &client("fast"), &[("producer_byte_rate", "1000")]);
    assert_eq!(quotas.produce.record(FAST, 0.0, SECOND), 5000);
    set(&quotas, &client("fast"), &[]);
    assert!(!quotas.produce.is_enabled());
    assert_eq!(quotas.produce.record(FAST, 1e9, SECOND), 0);
}

#[test]
fn the_throttle_for_time_is_one_sample_at_most() {
    let quotas = quotas();
    set(&quotas, &client("fast"), &[("request_percentage", "0.01")]);
    assert_eq!(quotas.request.record(FAST, 1000.0, SECOND), 1000);
}

#[test]
fn who_was_away_for_an_hour_is_forgotten() {
    let quotas = quotas();
    set(
        &quotas,
        &ConfigEntity::Client(None),
        &[("consumer_byte_rate", "10"), ("producer_byte_rate", "10")],
    );
    set(
        &quotas,
        &ConfigEntity::Ip(None),
        &[("connection_creation_rate", "1")],
    );
    for number in 0..100 {
        let client_id = &format!("client-{number}");
        let user = "ANONYMOUS";
        quotas.fetch.record(Client { user, client_id }, 1.0, SECOND);
    }
    quotas.produce.record(FAST, 1.0, MEMORY);
    assert_eq!(quotas.fetch.remembered(), 100);
    quotas.sweep(MEMORY + SECOND / 2);
    assert_eq!(quotas.fetch.remembered(), 100);
    quotas.sweep(MEMORY + SECOND);
    assert_eq!(quotas.fetch.remembered(), 0);
    assert_eq!(quotas.produce.remembered(), 1);
}

#[test]
fn a_strict_quota_refuses_and_a_permissive_one_throttles() {
    let quotas = quotas();
    set(
        &quotas,
        &client("fast"),
        &[("controller_mutation_rate", "1")],
    );
    let mut strict = quotas.mutations.of(FAST, Strictness::Strict);
    // Eleven tokens, and a request may overdraw them once.
    assert_eq!(strict.record(10), Ok(()));
    assert_eq!(strict.record(5), Ok(()));
    assert_eq!(strict.throttle_ms(), 0);
    assert_eq!(strict.record(1), Err(MutationQuotaExceeded));
    assert!((3000..=4000).contains(&strict.throttle_ms()));
    let mut permissive = quotas.mutations.of(FAST, Strictness::Permissive);
    assert_eq!(permissive.record(2), Ok(()));
    assert!((5000..=6000).contains(&permissive.throttle_ms()));
    let other = Client {
        client_id: "other",
        ..FAST
    };
    let mut unlimited = quotas.mutations.of(other, Strictness::Strict);
    assert_eq!(unlimited.record(1_000_000), Ok(()));
}

#[test]
fn an_address_is_refused_for_a_sample_and_not_counted() {
    let quotas = quotas();
    let address = IpAddr::from([10, 0, 0, 1]);
    let entity = ConfigEntity::Ip(Some("10.0.0.1".to_owned()));
    set(&quotas, &entity, &[("connection_creation_rate", "2")]);
    let listener = Arc::from("CLIENT");
    let admit = |address, now| quotas.addresses.admit(&listener, address, now);
    let admitted = (0..100).filter(|_| admit(address, SECOND).is_ok());
    assert_eq!(admitted.count(), 20);
    assert!(admit(address, SECOND) <= Err(SECOND));
    let other = IpAddr::from([10, 0, 0, 2]);
    assert_eq!(admit(other, SECOND), Ok(()));
    assert_eq!(admit(address, SECOND * 12), Ok(()));
}

#[test]
fn throttles_are_counted_until_they_end() {
    let quotas = quotas();
    set(&quotas, &client("fast"), &[("producer_byte_rate", "1000")]);
    quotas.produce.record(FAST, 10_000.0, SECOND);
    assert_eq!(quotas.produce.throttled(SECOND), 0);
    assert_eq!(quotas.produce.record(FAST, 5000.0, SECOND), 5000);
    assert_eq!(quotas.produce.record(FAST, 1000.0, SECOND), 6000);
    assert_eq!(quotas.produce.throttled(SECOND), 2);
    assert_eq!(quotas.produce.throttled(SECOND * 6), 1);
    assert_eq!(quotas.produce.throttled(SECOND * 7), 0);
}
