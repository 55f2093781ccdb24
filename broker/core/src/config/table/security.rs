//! TLS, SASL, tokens and authorization.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("authorizer.class.name", Kind::String, Some(""), "").not_yet(),
    Setting::new("early.start.listeners", Kind::String, None, "").not_yet(),
    Setting::new(
        "security.inter.broker.protocol",
        Kind::String,
        Some("PLAINTEXT"),
        "",
    )
    .check(Check::OneOf(&[
        "PLAINTEXT",
        "SSL",
        "SASL_PLAINTEXT",
        "SASL_SSL",
    ]))
    .not_yet(),
    Setting::new("connections.max.reauth.ms", Kind::Long, Some("0"), "").not_yet(),
    Setting::new(
        "sasl.server.max.receive.size",
        Kind::Int,
        Some("524288"),
        "",
    )
    .not_yet(),
    Setting::new("security.providers", Kind::String, None, "").no_effect(),
    Setting::new(
        "principal.builder.class",
        Kind::Class,
        Some("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"),
        "",
    )
    .per_broker()
    .not_yet(),
    Setting::new("ssl.client.auth", Kind::String, Some("none"), "")
        .check(Check::OneOf(&["required", "requested", "none"]))
        .per_broker()
        .not_yet(),
    Setting::new(
        "ssl.principal.mapping.rules",
        Kind::String,
        Some("DEFAULT"),
        "",
    )
    .not_yet(),
    Setting::new("ssl.allow.dn.changes", Kind::Boolean, Some("false"), "").not_yet(),
    Setting::new("ssl.allow.san.changes", Kind::Boolean, Some("false"), "").not_yet(),
    Setting::new("ssl.protocol", Kind::String, Some("TLSv1.3"), "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.provider", Kind::String, None, "")
        .per_broker()
        .no_effect(),
    Setting::new(
        "ssl.enabled.protocols",
        Kind::List,
        Some("TLSv1.2,TLSv1.3"),
        "",
    )
    .per_broker()
    .not_yet(),
    Setting::new("ssl.keystore.type", Kind::String, Some("JKS"), "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.keystore.location", Kind::String, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.keystore.password", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.key.password", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.keystore.key", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.keystore.certificate.chain", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.truststore.type", Kind::String, Some("JKS"), "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.truststore.location", Kind::String, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.truststore.password", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.truststore.certificates", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new(
        "ssl.keymanager.algorithm",
        Kind::String,
        Some("SunX509"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new("ssl.trustmanager.algorithm", Kind::String, Some("PKIX"), "")
        .per_broker()
        .no_effect(),
    Setting::new(
        "ssl.endpoint.identification.algorithm",
        Kind::String,
        Some("https"),
        "",
    )
    .per_broker()
    .not_yet(),
    Setting::new("ssl.secure.random.implementation", Kind::String, None, "")
        .per_broker()
        .no_effect(),
    Setting::new("ssl.cipher.suites", Kind::List, Some(""), "")
        .per_broker()
        .not_yet(),
    Setting::new("ssl.engine.factory.class", Kind::Class, None, "")
        .per_broker()
        .no_effect(),
    Setting::new(
        "sasl.mechanism.inter.broker.protocol",
        Kind::String,
        Some("GSSAPI"),
        "",
    )
    .per_broker()
    .not_yet(),
    Setting::new("sasl.enabled.mechanisms", Kind::List, Some("GSSAPI"), "")
        .per_broker()
        .not_yet(),
    Setting::new("sasl.server.callback.handler.class", Kind::Class, None, "").not_yet(),
    Setting::new(
        "sasl.kerberos.principal.to.local.rules",
        Kind::List,
        Some("DEFAULT"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new("sasl.jaas.config", Kind::Password, None, "")
        .per_broker()
        .not_yet(),
    Setting::new("sasl.client.callback.handler.class", Kind::Class, None, "").not_yet(),
    Setting::new("sasl.login.class", Kind::Class, None, "").no_effect(),
    Setting::new("sasl.login.callback.handler.class", Kind::Class, None, "").no_effect(),
    Setting::new("sasl.kerberos.service.name", Kind::String, None, "")
        .per_broker()
        .no_effect(),
    Setting::new(
        "sasl.kerberos.kinit.cmd",
        Kind::String,
        Some("/usr/bin/kinit"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.kerberos.ticket.renew.window.factor",
        Kind::Double,
        Some("0.8"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.kerberos.ticket.renew.jitter",
        Kind::Double,
        Some("0.05"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.kerberos.min.time.before.relogin",
        Kind::Long,
        Some("60000"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.login.refresh.window.factor",
        Kind::Double,
        Some("0.8"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.login.refresh.window.jitter",
        Kind::Double,
        Some("0.05"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.login.refresh.min.period.seconds",
        Kind::Short,
        Some("60"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new(
        "sasl.login.refresh.buffer.seconds",
        Kind::Short,
        Some("300"),
        "",
    )
    .per_broker()
    .no_effect(),
    Setting::new("sasl.login.connect.timeout.ms", Kind::Int, None, "").no_effect(),
    Setting::new("sasl.login.read.timeout.ms", Kind::Int, None, "").no_effect(),
    Setting::new(
        "sasl.login.retry.backoff.max.ms",
        Kind::Long,
        Some("10000"),
        "",
    )
    .no_effect(),
    Setting::new("sasl.login.retry.backoff.ms", Kind::Long, Some("100"), "").no_effect(),
    Setting::new(
        "sasl.oauthbearer.scope.claim.name",
        Kind::String,
        Some("scope"),
        "",
    )
    .no_effect(),
    Setting::new(
        "sasl.oauthbearer.sub.claim.name",
        Kind::String,
        Some("sub"),
        "",
    )
    .no_effect(),
    Setting::new(
        "sasl.oauthbearer.token.endpoint.url",
        Kind::String,
        None,
        "",
    )
    .no_effect(),
    Setting::new("sasl.oauthbearer.jwks.endpoint.url", Kind::String, None, "").no_effect(),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        Kind::Long,
        Some("3600000"),
        "",
    )
    .no_effect(),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        Kind::Long,
        Some("100"),
        "",
    )
    .no_effect(),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        Kind::Long,
        Some("10000"),
        "",
    )
    .no_effect(),
    Setting::new(
        "sasl.oauthbearer.clock.skew.seconds",
        Kind::Int,
        Some("30"),
        "",
    )
    .no_effect(),
    Setting::new("sasl.oauthbearer.expected.audience", Kind::List, None, "").no_effect(),
    Setting::new("sasl.oauthbearer.expected.issuer", Kind::String, None, "").no_effect(),
    Setting::new("delegation.token.master.key", Kind::Password, None, "").not_yet(),
    Setting::new("delegation.token.secret.key", Kind::Password, None, "").not_yet(),
    Setting::new(
        "delegation.token.max.lifetime.ms",
        Kind::Long,
        Some("604800000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "delegation.token.expiry.time.ms",
        Kind::Long,
        Some("86400000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new(
        "delegation.token.expiry.check.interval.ms",
        Kind::Long,
        Some("3600000"),
        "",
    )
    .check(Check::AtLeast(1))
    .not_yet(),
    Setting::new("password.encoder.secret", Kind::Password, None, "").not_yet(),
    Setting::new("password.encoder.old.secret", Kind::Password, None, "").not_yet(),
    Setting::new(
        "password.encoder.keyfactory.algorithm",
        Kind::String,
        None,
        "",
    )
    .not_yet(),
    Setting::new(
        "password.encoder.cipher.algorithm",
        Kind::String,
        Some("AES/CBC/PKCS5Padding"),
        "",
    )
    .not_yet(),
    Setting::new("password.encoder.key.length", Kind::Int, Some("128"), "")
        .check(Check::AtLeast(8))
        .not_yet(),
    Setting::new("password.encoder.iterations", Kind::Int, Some("4096"), "")
        .check(Check::AtLeast(1024))
        .not_yet(),
];
