//! TLS, SASL, tokens and authorization.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("authorizer.class.name", Kind::String, Some(""))
        .not_yet()
        .doc(
            "Class name of the authorizer; empty allows everything. \
             kafka.security.authorizer.AclAuthorizer keeps ACLs in ZooKeeper.",
        ),
    Setting::new("early.start.listeners", Kind::String, None)
        .not_yet()
        .doc("Listeners that accept connections before the authorizer is ready."),
    Setting::new(
        "security.inter.broker.protocol",
        Kind::String,
        Some("PLAINTEXT"),
    )
    .check(Check::OneOf(&[
        "PLAINTEXT",
        "SSL",
        "SASL_PLAINTEXT",
        "SASL_SSL",
    ]))
    .doc("Protocol between brokers; inter.broker.listener.name names a listener instead."),
    Setting::new("connections.max.reauth.ms", Kind::Long, Some("0"))
        .not_yet()
        .doc(
            "Longest life of a SASL session before the client must authenticate again; 0 sets \
             no limit.",
        ),
    Setting::new("sasl.server.max.receive.size", Kind::Int, Some("524288"))
        .not_yet()
        .doc("Largest message of a client before it is authenticated, in bytes."),
    Setting::new("security.providers", Kind::String, None)
        .no_effect()
        .doc("Java security providers. Has no effect here."),
    Setting::new(
        "principal.builder.class",
        Kind::Class,
        Some(
            "org.apache.kafka.common.security.authenticator.\
             DefaultKafkaPrincipalBuilder",
        ),
    )
    .per_broker()
    .not_yet()
    .doc("Class that makes a principal of a TLS or SASL identity."),
    Setting::new("ssl.client.auth", Kind::String, Some("none"))
        .check(Check::OneOf(&["required", "requested", "none"]))
        .per_broker()
        .not_yet()
        .doc(
            "Whether clients must (required), may (requested) or need not (none) show a \
             certificate.",
        ),
    Setting::new("ssl.principal.mapping.rules", Kind::String, Some("DEFAULT"))
        .not_yet()
        .doc("Rules that turn the name in a certificate into a user name."),
    Setting::new("ssl.allow.dn.changes", Kind::Boolean, Some("false"))
        .not_yet()
        .doc("Whether a new key store may name another subject."),
    Setting::new("ssl.allow.san.changes", Kind::Boolean, Some("false"))
        .not_yet()
        .doc("Whether a new key store may name other hosts."),
    Setting::new("ssl.protocol", Kind::String, Some("TLSv1.3"))
        .per_broker()
        .not_yet()
        .doc("TLS version that is offered first."),
    Setting::new("ssl.provider", Kind::String, None)
        .per_broker()
        .no_effect()
        .doc("Java security provider for TLS. Has no effect here."),
    Setting::new("ssl.enabled.protocols", Kind::List, Some("TLSv1.2,TLSv1.3"))
        .per_broker()
        .not_yet()
        .doc("TLS versions that may be agreed."),
    Setting::new("ssl.keystore.type", Kind::String, Some("JKS"))
        .per_broker()
        .not_yet()
        .doc("Format of the key store: JKS, PKCS12 or PEM."),
    Setting::new("ssl.keystore.location", Kind::String, None)
        .per_broker()
        .not_yet()
        .doc("File of the key store."),
    Setting::new("ssl.keystore.password", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Password of the key store."),
    Setting::new("ssl.key.password", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Password of the private key."),
    Setting::new("ssl.keystore.key", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Private key as PEM text."),
    Setting::new("ssl.keystore.certificate.chain", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Certificate chain as PEM text."),
    Setting::new("ssl.truststore.type", Kind::String, Some("JKS"))
        .per_broker()
        .not_yet()
        .doc("Format of the trust store: JKS, PKCS12 or PEM."),
    Setting::new("ssl.truststore.location", Kind::String, None)
        .per_broker()
        .not_yet()
        .doc("File of the trust store."),
    Setting::new("ssl.truststore.password", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Password of the trust store."),
    Setting::new("ssl.truststore.certificates", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Trusted certificates as PEM text."),
    Setting::new("ssl.keymanager.algorithm", Kind::String, Some("SunX509"))
        .per_broker()
        .no_effect()
        .doc("Java's key manager. Has no effect here."),
    Setting::new("ssl.trustmanager.algorithm", Kind::String, Some("PKIX"))
        .per_broker()
        .no_effect()
        .doc("Java's trust manager. Has no effect here."),
    Setting::new(
        "ssl.endpoint.identification.algorithm",
        Kind::String,
        Some("https"),
    )
    .per_broker()
    .not_yet()
    .doc(
        "https checks that a peer's certificate names its host; empty switches the check \
             off.",
    ),
    Setting::new("ssl.secure.random.implementation", Kind::String, None)
        .per_broker()
        .no_effect()
        .doc("Java's random generator for TLS. Has no effect here."),
    Setting::new("ssl.cipher.suites", Kind::List, Some(""))
        .per_broker()
        .not_yet()
        .doc("Cipher suites that may be agreed; empty leaves the choice to the library."),
    Setting::new("ssl.engine.factory.class", Kind::Class, None)
        .per_broker()
        .no_effect()
        .doc("Class that makes Java's TLS engines. Has no effect here."),
    Setting::new(
        "sasl.mechanism.inter.broker.protocol",
        Kind::String,
        Some("GSSAPI"),
    )
    .per_broker()
    .not_yet()
    .doc("SASL mechanism between brokers."),
    Setting::new("sasl.enabled.mechanisms", Kind::List, Some("GSSAPI"))
        .per_broker()
        .not_yet()
        .doc("SASL mechanisms that clients may use."),
    Setting::new("sasl.server.callback.handler.class", Kind::Class, None)
        .not_yet()
        .doc("Class that checks SASL credentials."),
    Setting::new(
        "sasl.kerberos.principal.to.local.rules",
        Kind::List,
        Some("DEFAULT"),
    )
    .per_broker()
    .no_effect()
    .doc("Rules that turn a Kerberos principal into a user name."),
    Setting::new("sasl.jaas.config", Kind::Password, None)
        .per_broker()
        .not_yet()
        .doc("Login module and credentials, in the form of a JAAS file."),
    Setting::new("sasl.client.callback.handler.class", Kind::Class, None)
        .not_yet()
        .doc("Class that supplies SASL credentials for connections to others."),
    Setting::new("sasl.login.class", Kind::Class, None)
        .no_effect()
        .doc("Class that logs in."),
    Setting::new("sasl.login.callback.handler.class", Kind::Class, None)
        .no_effect()
        .doc("Class that supplies credentials for the login."),
    Setting::new("sasl.kerberos.service.name", Kind::String, None)
        .per_broker()
        .no_effect()
        .doc("Kerberos service name of the brokers."),
    Setting::new(
        "sasl.kerberos.kinit.cmd",
        Kind::String,
        Some("/usr/bin/kinit"),
    )
    .per_broker()
    .no_effect()
    .doc("Path of kinit."),
    Setting::new(
        "sasl.kerberos.ticket.renew.window.factor",
        Kind::Double,
        Some("0.8"),
    )
    .per_broker()
    .no_effect()
    .doc("Share of a ticket's life after which it is renewed."),
    Setting::new(
        "sasl.kerberos.ticket.renew.jitter",
        Kind::Double,
        Some("0.05"),
    )
    .per_broker()
    .no_effect()
    .doc("Share by which the renewal time varies at random."),
    Setting::new(
        "sasl.kerberos.min.time.before.relogin",
        Kind::Long,
        Some("60000"),
    )
    .per_broker()
    .no_effect()
    .doc("Shortest pause between two logins, in milliseconds."),
    Setting::new(
        "sasl.login.refresh.window.factor",
        Kind::Double,
        Some("0.8"),
    )
    .per_broker()
    .no_effect()
    .doc("Share of a token's life after which it is renewed."),
    Setting::new(
        "sasl.login.refresh.window.jitter",
        Kind::Double,
        Some("0.05"),
    )
    .per_broker()
    .no_effect()
    .doc("Share by which the renewal time varies at random."),
    Setting::new(
        "sasl.login.refresh.min.period.seconds",
        Kind::Short,
        Some("60"),
    )
    .per_broker()
    .no_effect()
    .doc("Shortest pause between two renewals."),
    Setting::new(
        "sasl.login.refresh.buffer.seconds",
        Kind::Short,
        Some("300"),
    )
    .per_broker()
    .no_effect()
    .doc("Time before expiry by which a token should be renewed."),
    Setting::new("sasl.login.connect.timeout.ms", Kind::Int, None)
        .no_effect()
        .doc("How long a connection to the OAuth provider may take."),
    Setting::new("sasl.login.read.timeout.ms", Kind::Int, None)
        .no_effect()
        .doc("How long an answer of the OAuth provider may take."),
    Setting::new("sasl.login.retry.backoff.max.ms", Kind::Long, Some("10000"))
        .no_effect()
        .doc("Longest pause before the OAuth provider is asked again."),
    Setting::new("sasl.login.retry.backoff.ms", Kind::Long, Some("100"))
        .no_effect()
        .doc("First pause before the OAuth provider is asked again."),
    Setting::new(
        "sasl.oauthbearer.scope.claim.name",
        Kind::String,
        Some("scope"),
    )
    .no_effect()
    .doc("Claim of a token that holds its scope."),
    Setting::new("sasl.oauthbearer.sub.claim.name", Kind::String, Some("sub"))
        .no_effect()
        .doc("Claim of a token that holds its subject."),
    Setting::new("sasl.oauthbearer.token.endpoint.url", Kind::String, None)
        .no_effect()
        .doc("Where tokens are issued."),
    Setting::new("sasl.oauthbearer.jwks.endpoint.url", Kind::String, None)
        .no_effect()
        .doc("Where the keys that sign tokens are published."),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        Kind::Long,
        Some("3600000"),
    )
    .no_effect()
    .doc("How often those keys are read again."),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        Kind::Long,
        Some("100"),
    )
    .no_effect()
    .doc("First pause before those keys are asked for again."),
    Setting::new(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        Kind::Long,
        Some("10000"),
    )
    .no_effect()
    .doc("Longest pause before those keys are asked for again."),
    Setting::new("sasl.oauthbearer.clock.skew.seconds", Kind::Int, Some("30"))
        .no_effect()
        .doc("How far the provider's clock may be off."),
    Setting::new("sasl.oauthbearer.expected.audience", Kind::List, None)
        .no_effect()
        .doc("Audiences of which a token must name one."),
    Setting::new("sasl.oauthbearer.expected.issuer", Kind::String, None)
        .no_effect()
        .doc("Issuer that a token must name."),
    Setting::new("delegation.token.master.key", Kind::Password, None)
        .not_yet()
        .doc("Old name of delegation.token.secret.key."),
    Setting::new("delegation.token.secret.key", Kind::Password, None)
        .not_yet()
        .doc(
            "Secret that signs delegation tokens, the same on all brokers; without it there are \
             none.",
        ),
    Setting::new(
        "delegation.token.max.lifetime.ms",
        Kind::Long,
        Some("604800000"),
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .doc("Longest life of a delegation token, renewals included."),
    Setting::new(
        "delegation.token.expiry.time.ms",
        Kind::Long,
        Some("86400000"),
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .doc("Life of a delegation token until it must be renewed."),
    Setting::new(
        "delegation.token.expiry.check.interval.ms",
        Kind::Long,
        Some("3600000"),
    )
    .check(Check::AtLeast(1))
    .not_yet()
    .doc("How often expired delegation tokens are deleted."),
    Setting::new("password.encoder.secret", Kind::Password, None)
        .doc("Secret that encrypts passwords kept in ZooKeeper."),
    Setting::new("password.encoder.old.secret", Kind::Password, None)
        .doc("Former secret, needed at the first start with a new one."),
    Setting::new("password.encoder.keyfactory.algorithm", Kind::String, None)
        .doc("How the key is derived from the secret; unset takes PBKDF2WithHmacSHA512."),
    Setting::new(
        "password.encoder.cipher.algorithm",
        Kind::String,
        Some("AES/CBC/PKCS5Padding"),
    )
    .doc("Cipher for passwords kept in ZooKeeper."),
    Setting::new("password.encoder.key.length", Kind::Int, Some("128"))
        .check(Check::AtLeast(8))
        .doc("Length of the key for passwords, in bits."),
    Setting::new("password.encoder.iterations", Kind::Int, Some("4096"))
        .check(Check::AtLeast(1024))
        .doc("Rounds in which the key is derived from the secret."),
];
