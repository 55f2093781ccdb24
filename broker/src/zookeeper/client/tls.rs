//! TLS to ZooKeeper: `zookeeper.ssl.*` for both connections of a client.
//!
//! The library takes no choice of protocols and cipher suites but that of the process' default provider, which is set
//! for it: a broker has one client of ZooKeeper, and nothing else in it speaks TLS.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::stores::{self, certificates_pem};
use crate::zookeeper::ConnectError;
use crate::zookeeper::options::TlsOptions;

fn refused(text: String) -> ConnectError {
    ConnectError::Options(text)
}

/// What the library is to be told.
pub(super) fn library_options(
    options: &TlsOptions,
) -> Result<zookeeper_client::TlsOptions, ConnectError> {
    // The library leaves the choice of a provider to the process. Tests have several clients and keep the first.
    drop(provider(options)?.install_default());
    let unusable = |error| refused(format!("`zookeeper.ssl.*` cannot be used: {error}"));
    let mut library = zookeeper_client::TlsOptions::new();
    if let Some(truststore) = &options.truststore {
        let pem = certificates_pem(&stores::trusted(truststore)?);
        library = library.with_pem_ca(&pem).map_err(unusable)?;
    }
    if let Some(keystore) = &options.keystore {
        let pem = stores::identity(keystore)?.pem();
        library = library.with_pem_identity(&pem, &pem).map_err(unusable)?;
    }
    if !options.checks_host_name {
        library = without_host_name(library);
    }
    Ok(library)
}

/// An empty `zookeeper.ssl.endpoint.identification.algorithm` asks for it.
#[expect(
    unsafe_code,
    reason = "the library marks it so because it weakens TLS, not because memory is at stake"
)]
fn without_host_name(options: zookeeper_client::TlsOptions) -> zookeeper_client::TlsOptions {
    // SAFETY: nothing but who is believed to be the server depends on it, and the user decided that.
    unsafe { options.with_no_hostname_verification() }
}

/// The configuration that `options` describe.
pub(super) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, ConnectError> {
    let provider = Arc::new(provider(options)?);
    let versions = versions(&options.protocols)?;
    let Some(truststore) = &options.truststore else {
        return Err(refused(
            "`zookeeper.ssl.client.enable=true` needs `zookeeper.ssl.truststore.location`, a file with the \
             certificates that ZooKeeper's servers are signed by"
                .to_owned(),
        ));
    };
    let mut roots = RootCertStore::empty();
    for certificate in stores::trusted(truststore)? {
        roots.add(certificate).map_err(|error| {
            let path = truststore.location.display();
            refused(format!("a certificate in {path} cannot be used: {error}"))
        })?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| refused(format!("the ZooKeeper truststore cannot be used: {error}")))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| refused(format!("`zookeeper.ssl.enabled.protocols` and `zookeeper.ssl.cipher.suites` do not go together: {error}")))?;
    let builder = if options.checks_host_name {
        builder.with_webpki_verifier(verifier)
    } else {
        let verifier = Arc::new(AnyHostName(verifier));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    };
    let config = match &options.keystore {
        None => builder.with_no_client_auth(),
        Some(keystore) => {
            let path = keystore.location.display();
            let stores::Identity { key, chain } = stores::identity(keystore)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                refused(format!(
                    "the key or certificate in {path} cannot be used: {error}"
                ))
            })?
        }
    };
    Ok(Arc::new(config))
}

/// The suites that are wanted, of the protocols that are: a client offers no version that none of its suites has.
fn provider(options: &TlsOptions) -> Result<CryptoProvider, ConnectError> {
    let versions = versions(&options.protocols)?;
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        // Java's name of TLS 1.3 suites lacks the `13` that this library puts in.
        let name = format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
        let mut wanted = options.cipher_suites.iter();
        let is_wanted = options.cipher_suites.is_empty() || wanted.any(|one| one.trim() == name);
        is_wanted && versions.contains(&suite.version())
    });
    if provider.cipher_suites.is_empty() {
        return Err(refused(format!(
            "none of `zookeeper.ssl.cipher.suites={}` is supported in {}; remove the setting",
            options.cipher_suites.join(","),
            options.protocols.join(",")
        )));
    }
    Ok(provider)
}

fn versions(
    protocols: &[String],
) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, ConnectError> {
    let known = protocols
        .iter()
        .filter_map(|protocol| match protocol.trim() {
            "TLSv1.2" => Some(&rustls::version::TLS12),
            "TLSv1.3" => Some(&rustls::version::TLS13),
            _ => None,
        });
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return Err(refused(format!(
            "none of the protocols `{}` of `zookeeper.ssl.enabled.protocols` is supported; \
             use TLSv1.2 or TLSv1.3",
            protocols.join(",")
        )));
    }
    Ok(known)
}

/// Checks who signed a certificate but not which host it names (an empty
/// `zookeeper.ssl.endpoint.identification.algorithm`).
#[derive(Debug)]
struct AnyHostName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHostName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is checked last, so everything else was in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
