//! Java's first format of key stores (`JKS`): certificates in the clear, keys hidden by a stream of SHA-1 digests, and
//! a digest over all that depends on the password (classes `JavaKeyStore`, `KeyProtector`). Only for reading.

use bytes::Buf;
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::stores::{Contents, Identity};

const MAGIC: u32 = 0xFEED_FEED;
/// What is digested between the password and the data.
const WHITENER: &[u8] = b"Mighty Aphrodite";

const KEY_ENTRY: u32 = 1;
const CERTIFICATE_ENTRY: u32 = 2;

/// `1.3.6.1.4.1.42.2.17.1.1`, how keys are hidden, with its tag and length.
const KEY_PROTECTION: &[u8] = &[
    0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01,
];

/// Why a store cannot be read; each text follows the name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JksError {
    #[error("ends too early")]
    Truncated,
    #[error("has version {0} of the format JKS, which nobody knows")]
    UnknownVersion(u32),
    #[error("holds an entry of kind {0}, which nobody knows")]
    UnknownEntry(u32),
    #[error("was tampered with, or has another password")]
    WrongPassword,
    #[error("holds a key that has another password than the store, or is hidden in an unknown way")]
    HiddenKey,
}

/// Whether these are the contents of such a file.
pub(super) fn is_jks(data: &[u8]) -> bool {
    data.starts_with(&MAGIC.to_be_bytes())
}

/// Reads a store. Without a password neither the digest is checked nor keys are read.
pub(super) fn read(data: &[u8], password: Option<&str>) -> Result<Contents, JksError> {
    let end = data.len().checked_sub(SHA1_OUTPUT_LEN);
    let (mut body, expected) = data.split_at(end.ok_or(JksError::Truncated)?);
    // Two bytes for each char of Java's, the higher one first.
    let password: Option<Vec<u8>> = password.map(|password| {
        let chars = password.encode_utf16();
        chars.flat_map(u16::to_be_bytes).collect()
    });
    if let Some(password) = &password
        && sha1(&[password, WHITENER, body]).as_ref() != expected
    {
        return Err(JksError::WrongPassword);
    }
    let truncated = |_| JksError::Truncated;
    let _magic = body.try_get_u32().map_err(truncated)?;
    let version = body.try_get_u32().map_err(truncated)?;
    if !matches!(version, 1 | 2) {
        return Err(JksError::UnknownVersion(version));
    }
    let entries = body.try_get_u32().map_err(truncated)?;
    let mut contents = Contents::default();
    for _ in 0..entries {
        let kind = body.try_get_u32().map_err(truncated)?;
        let _alias = text(&mut body)?;
        let _created_ms = body.try_get_i64().map_err(truncated)?;
        match kind {
            KEY_ENTRY => {
                let hidden = sized(&mut body)?;
                let certificates = body.try_get_u32().map_err(truncated)?;
                let mut chain = Vec::new();
                for _ in 0..certificates {
                    chain.push(certificate(&mut body, version)?);
                }
                let Some(password) = &password else {
                    continue;
                };
                let key = reveal(hidden, password).ok_or(JksError::HiddenKey)?;
                contents.identities.push(Identity {
                    key: PrivatePkcs8KeyDer::from(key).into(),
                    chain,
                });
            }
            CERTIFICATE_ENTRY => contents.certificates.push(certificate(&mut body, version)?),
            other => return Err(JksError::UnknownEntry(other)),
        }
    }
    Ok(contents)
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Result<&'a [u8], JksError> {
    let (taken, rest) = body.split_at_checked(length).ok_or(JksError::Truncated)?;
    *body = rest;
    Ok(taken)
}

/// Java's `DataInput.readUTF`, whose text nobody needs.
fn text<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], JksError> {
    let length = body.try_get_u16().map_err(|_| JksError::Truncated)?;
    take(body, length.into())
}

fn sized<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], JksError> {
    let length = body.try_get_u32().map_err(|_| JksError::Truncated)?;
    take(body, length as usize)
}

fn certificate(body: &mut &[u8], version: u32) -> Result<CertificateDer<'static>, JksError> {
    if version == 2 {
        // `X.509`
        text(body)?;
    }
    sized(body).map(|der| CertificateDer::from(der.to_vec()))
}

fn sha1(parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// The key in an `EncryptedPrivateKeyInfo` of Java's own algorithm; `None` if the password is another one.
fn reveal(info: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    const OCTETS: u8 = 0x04;
    let (info, _) = der_item(info, SEQUENCE)?;
    let (algorithm, rest) = der_item(info, SEQUENCE)?;
    if !algorithm.starts_with(KEY_PROTECTION) {
        return None;
    }
    let (data, _) = der_item(rest, OCTETS)?;
    let (salt, data) = data.split_at_checked(SHA1_OUTPUT_LEN)?;
    let (hidden, check) = data.split_at_checked(data.len().checked_sub(SHA1_OUTPUT_LEN)?)?;
    let mut mask = salt.to_vec();
    let mut key = Vec::with_capacity(hidden.len());
    for block in hidden.chunks(SHA1_OUTPUT_LEN) {
        mask = sha1(&[password, &mask]).as_ref().to_vec();
        key.extend(block.iter().zip(&mask).map(|(byte, mask)| byte ^ mask));
    }
    (sha1(&[password, &key]).as_ref() == check).then_some(key)
}

/// The contents of the first DER item in `data`, if it has this tag, and what follows it.
fn der_item(data: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, data) = data.split_first()?;
    if *found != tag {
        return None;
    }
    let (length, data) = data.split_first()?;
    if *length < 0x80 {
        return data.split_at_checked((*length).into());
    }
    let (digits, data) = data.split_at_checked((*length & 0x7f).into())?;
    if digits.len() > 4 {
        return None;
    }
    let length = digits
        .iter()
        .fold(0, |sum: usize, digit| sum << 8 | usize::from(*digit));
    data.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_is_refused_without_harm(mut data in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&data, None));
            data.splice(0..0, [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b'a']);
            drop(read(&data, None));
            prop_assert!(read(&data, Some("x")).is_err());
        }
    }

    #[test]
    fn keys_are_revealed_by_their_password_only() {
        let hide = |key: &[u8], password: &[u8]| {
            let mut mask = vec![7; SHA1_OUTPUT_LEN];
            let mut data = mask.clone();
            for block in key.chunks(SHA1_OUTPUT_LEN) {
                mask = sha1(&[password, &mask]).as_ref().to_vec();
                data.extend(block.iter().zip(&mask).map(|(byte, mask)| byte ^ mask));
            }
            data.extend(sha1(&[password, key]).as_ref());
            let item = |tag: u8, data: &[u8]| [&[tag, data.len() as u8], data].concat();
            let algorithm = item(0x30, &[KEY_PROTECTION, &[5, 0]].concat());
            item(0x30, &[algorithm, item(4, &data)].concat())
        };
        let key: Vec<u8> = (0..50).collect();
        let info = hide(&key, b"secret");
        assert_eq!(reveal(&info, b"secret"), Some(key));
        assert_eq!(reveal(&info, b"Secret"), None);
        assert_eq!(reveal(&info[..40], b"secret"), None);
    }
}
