//! TLS to brokers, by rustls.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::AdminError;
use super::options::TlsOptions;

pub(super) struct Connector(TlsConnector);

impl Connector {
    /// Reads the files.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, AdminError> {
        let refused = |what: &std::path::Path, cause: String| {
            AdminError::Options(format!("{}: {cause}", what.display()))
        };
        let certificates = |path: &std::path::Path| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| refused(path, error.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&options.ca)? {
            roots
                .add(certificate)
                .map_err(|error| refused(&options.ca, error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| AdminError::Options(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| refused(key, error.to_string()))?;
                builder
                    .with_client_auth_cert(certificates(chain)?, private)
                    .map_err(|error| refused(chain, error.to_string()))?
            }
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connected = self.0.connect(name, tcp).await;
        connected.map_err(|error| error.to_string())
    }
}
