//! SASL as a client: PLAIN (RFC 4616) and SCRAM (RFC 5802), within Kafka's own requests (KIP-152).

use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rand::Rng as _;
use ring::{digest, hmac, pbkdf2};

use super::connection::Connection;
use super::error::{AdminError, ItemError};
use super::options::{SaslMechanism, SaslOptions};

/// Versions with the token in requests, not in bare frames.
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 1;
/// More rounds than this would be an attack on our CPU.
const ITERATIONS_MAX: u32 = 1 << 20;

pub(super) async fn authenticate(
    connection: &Connection,
    options: &SaslOptions,
    limit: Duration,
) -> Result<(), AdminError> {
    let refused = |cause: String| AdminError::Authentication {
        broker: connection.broker().to_owned(),
        cause,
    };
    let mechanism = StrBytes::from_static_str(options.mechanism.name());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let answer = connection
        .call_version(HANDSHAKE_VERSION, &request, limit)
        .await?;
    if let Err(error) = ItemError::check(answer.error_code, None::<String>) {
        let offered: Vec<&str> = answer.mechanisms.iter().map(|one| &**one).collect();
        return Err(refused(format!(
            "{error}; it offers {}",
            offered.join(", ")
        )));
    }
    let exchange = async |token: Vec<u8>| {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        let answer = connection
            .call_version(AUTHENTICATE_VERSION, &request, limit)
            .await?;
        ItemError::check(answer.error_code, answer.error_message.as_ref())
            .map_err(|error| refused(error.to_string()))?;
        Ok::<Bytes, AdminError>(answer.auth_bytes)
    };
    let SaslOptions {
        mechanism,
        username,
        password,
    } = options;
    let kind = match mechanism {
        SaslMechanism::Plain => {
            let token = [&b""[..], username.as_bytes(), password.as_bytes()].join(&0);
            exchange(token).await?;
            return Ok(());
        }
        SaslMechanism::ScramSha256 => Scram::SHA_256,
        SaslMechanism::ScramSha512 => Scram::SHA_512,
    };
    let nonce: [u8; 24] = rand::rng().random();
    let nonce = STANDARD.encode(nonce);
    let scram = kind.begin(username, password, &nonce);
    let first = exchange(scram.first().into_bytes()).await?;
    let (last, signature) = scram.answer(&first).map_err(refused)?;
    let verdict = exchange(last.into_bytes()).await?;
    if verdict != format!("v={signature}").as_bytes() {
        return Err(refused("it does not know the password itself".to_owned()));
    }
    Ok(())
}

/// One of the hash functions.
#[derive(Clone, Copy)]
struct Scram {
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

struct Exchange<'a> {
    kind: Scram,
    password: &'a str,
    nonce: &'a str,
    /// `n=user,r=nonce`
    bare: String,
}

impl Scram {
    const SHA_256: Self = Self {
        hmac: hmac::HMAC_SHA256,
        digest: &digest::SHA256,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
    };
    const SHA_512: Self = Self {
        hmac: hmac::HMAC_SHA512,
        digest: &digest::SHA512,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
    };

    fn begin<'a>(self, username: &str, password: &'a str, nonce: &'a str) -> Exchange<'a> {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        Exchange {
            kind: self,
            password,
            nonce,
            bare: format!("n={name},r={nonce}"),
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac, key);
        hmac::sign(&key, text).as_ref().to_vec()
    }
}

impl Exchange<'_> {
    fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The last message, and what the server has to sign in turn.
    fn answer(&self, server_first: &[u8]) -> Result<(String, String), String> {
        let server_first = std::str::from_utf8(server_first).map_err(|error| error.to_string())?;
        let field = |name: &str| {
            let mut fields = server_first.split(',');
            fields
                .find_map(|field| field.strip_prefix(name))
                .ok_or_else(|| format!("no `{name}` in the server's first message"))
        };
        let nonce = field("r=")?;
        if !nonce.starts_with(self.nonce) || nonce.len() <= self.nonce.len() {
            return Err("the server answers another exchange".to_owned());
        }
        let salt = STANDARD
            .decode(field("s=")?)
            .map_err(|error| error.to_string())?;
        let iterations = field("i=")?.parse().ok().and_then(NonZeroU32::new);
        let iterations = iterations
            .filter(|count| count.get() <= ITERATIONS_MAX)
            .ok_or("an absurd number of iterations")?;
        let kind = self.kind;
        let mut salted = vec![0; kind.digest.output_len()];
        pbkdf2::derive(
            kind.pbkdf2,
            iterations,
            &salt,
            self.password.as_bytes(),
            &mut salted,
        );
        let client_key = kind.sign(&salted, b"Client Key");
        let stored_key = digest::digest(kind.digest, &client_key);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let signature = kind.sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let server_key = kind.sign(&salted, b"Server Key");
        let server_signature = kind.sign(&server_key, signed.as_bytes());
        Ok((
            format!("{without_proof},p={}", STANDARD.encode(proof)),
            STANDARD.encode(server_signature),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    #[test]
    fn scram_is_as_in_the_rfc() {
        let exchange = Scram::SHA_256.begin("user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, signature) = exchange.answer(server_first).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_server_of_another_exchange_is_refused() {
        let exchange = Scram::SHA_512.begin("a,b=c", "secret", "mine");
        assert_eq!(exchange.first(), "n,,n=a=2Cb=3Dc,r=mine");
        assert!(exchange.answer(b"r=yours,s=AA==,i=4096").is_err());
        assert!(exchange.answer(b"r=mine1,s=AA==,i=0").is_err());
        assert!(exchange.answer(b"r=mine1,s=AA==,i=99999999").is_err());
    }
}
