//! Passwords in dynamic settings stand in ZooKeeper encrypted, so that Kafka reads ours and we Kafka's (class
//! `EncryptingPasswordEncoder`, settings `password.encoder.*`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use barnabas_core::config::BrokerConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use rand::RngCore;
use ring::{aead, pbkdf2};

use super::Texts;

/// Why a password cannot be encrypted or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error(
        "the key factory {0} is not supported; use PBKDF2WithHmacSHA512, SHA384, SHA256 or SHA1"
    )]
    UnknownKeyFactory(String),
    #[error(
        "the cipher {cipher} with a key of {bits} bits is not supported; use AES/CBC/PKCS5Padding or AES/GCM/NoPadding with 128 or 256 bits"
    )]
    UnknownCipher { cipher: String, bits: usize },
    #[error("the password's `{0}` is missing or malformed")]
    Malformed(&'static str),
    #[error("the password was encrypted by another secret")]
    OtherSecret,
}

const CBC: &str = "AES/CBC/PKCS5Padding";
const GCM: &str = "AES/GCM/NoPadding";
const DEFAULT_KEY_FACTORY: &str = "PBKDF2WithHmacSHA512";

const SALT_BYTES: usize = 256;
const CBC_IV_BYTES: usize = 16;
const TAG_BITS: &str = "128";

/// How passwords are encrypted, and by which secret.
#[derive(Clone)]
pub struct PasswordEncoder {
    secret: String,
    key_factory: String,
    cipher: String,
    key_bits: usize,
    iterations: u32,
}

impl PasswordEncoder {
    /// As `password.encoder.*` say; `None` without a secret.
    pub fn from_config(config: &BrokerConfig) -> Option<Self> {
        let secret = config.password_encoder_secret.as_ref()?;
        Some(Self::with_secret(&secret.0, config))
    }

    /// With the secret that was in force before; `None` if there was no other.
    pub fn former(config: &BrokerConfig) -> Option<Self> {
        let secret = config.password_encoder_old_secret.as_ref()?;
        Some(Self::with_secret(&secret.0, config))
    }

    fn with_secret(secret: &str, config: &BrokerConfig) -> Self {
        let factory = config.password_encoder_keyfactory_algorithm.as_deref();
        Self {
            secret: secret.to_owned(),
            key_factory: factory.unwrap_or(DEFAULT_KEY_FACTORY).to_owned(),
            cipher: config.password_encoder_cipher_algorithm.clone(),
            key_bits: usize::try_from(config.password_encoder_key_length).unwrap_or(0),
            iterations: u32::try_from(config.password_encoder_iterations).unwrap_or(1),
        }
    }

    /// The password as it stands in ZooKeeper, together with all but the secret that reading it takes.
    pub fn encode(
        &self,
        password: &str,
        random: &mut impl RngCore,
    ) -> Result<String, PasswordError> {
        let mut salt = vec![0; SALT_BYTES];
        random.fill_bytes(&mut salt);
        let key = self.key(&self.key_factory, self.iterations, &salt, self.key_bits)?;
        let is_gcm = self.cipher == GCM;
        let mut iv = vec![
            0;
            if is_gcm {
                aead::NONCE_LEN
            } else {
                CBC_IV_BYTES
            }
        ];
        random.fill_bytes(&mut iv);
        let unknown = || unknown_cipher(&self.cipher, self.key_bits);
        let encrypted = match (self.cipher.as_str(), key.len()) {
            (CBC, 16) => encrypt_cbc::<cbc::Encryptor<aes::Aes128>>(&key, &iv, password),
            (CBC, 24) => encrypt_cbc::<cbc::Encryptor<aes::Aes192>>(&key, &iv, password),
            (CBC, 32) => encrypt_cbc::<cbc::Encryptor<aes::Aes256>>(&key, &iv, password),
            (GCM, _) => seal(&key, &iv, password),
            _ => None,
        };
        let encrypted = encrypted.ok_or_else(unknown)?;
        let mut fields = vec![
            ("keyFactoryAlgorithm", self.key_factory.clone()),
            ("cipherAlgorithm", self.cipher.clone()),
            ("keyLength", self.key_bits.to_string()),
            ("iterations", self.iterations.to_string()),
            ("salt", STANDARD.encode(&salt)),
            ("initializationVector", STANDARD.encode(&iv)),
            ("encryptedPassword", STANDARD.encode(encrypted)),
            ("passwordLength", java_length(password).to_string()),
        ];
        if is_gcm {
            fields.push(("authenticationTagLength", TAG_BITS.to_owned()));
        }
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        Ok(fields.join(","))
    }

    /// The password that was encrypted by this secret; everything else is told by `encoded`.
    pub fn decode(&self, encoded: &str) -> Result<String, PasswordError> {
        let fields: BTreeMap<&str, &str> = encoded
            .split(',')
            .filter_map(|field| field.split_once(':'))
            .collect();
        let text = |name: &'static str| {
            let field = fields.get(name).copied();
            field.ok_or(PasswordError::Malformed(name))
        };
        let number = |name: &'static str| {
            let number = text(name)?.parse::<usize>();
            number.map_err(|_| PasswordError::Malformed(name))
        };
        let bytes = |name: &'static str| {
            let bytes = STANDARD.decode(text(name)?);
            bytes.map_err(|_| PasswordError::Malformed(name))
        };
        let bits = number("keyLength")?;
        let iterations = u32::try_from(number("iterations")?);
        let iterations = iterations.map_err(|_| PasswordError::Malformed("iterations"))?;
        let factory = text("keyFactoryAlgorithm")?;
        let key = self.key(factory, iterations, &bytes("salt")?, bits)?;
        let iv = bytes("initializationVector")?;
        let encrypted = bytes("encryptedPassword")?;
        let cipher = text("cipherAlgorithm")?;
        let decrypted = match (cipher, key.len()) {
            (CBC, 16) => decrypt_cbc::<cbc::Decryptor<aes::Aes128>>(&key, &iv, &encrypted),
            (CBC, 24) => decrypt_cbc::<cbc::Decryptor<aes::Aes192>>(&key, &iv, &encrypted),
            (CBC, 32) => decrypt_cbc::<cbc::Decryptor<aes::Aes256>>(&key, &iv, &encrypted),
            (GCM, 16 | 32) => open(&key, &iv, encrypted),
            _ => return Err(unknown_cipher(cipher, bits)),
        };
        let password = decrypted.and_then(|bytes| String::from_utf8(bytes).ok());
        let length = number("passwordLength")?;
        password
            .filter(|password| java_length(password) == length)
            .ok_or(PasswordError::OtherSecret)
    }

    fn key(
        &self,
        factory: &str,
        iterations: u32,
        salt: &[u8],
        bits: usize,
    ) -> Result<Vec<u8>, PasswordError> {
        let algorithm = match factory {
            "PBKDF2WithHmacSHA1" => pbkdf2::PBKDF2_HMAC_SHA1,
            "PBKDF2WithHmacSHA256" => pbkdf2::PBKDF2_HMAC_SHA256,
            "PBKDF2WithHmacSHA384" => pbkdf2::PBKDF2_HMAC_SHA384,
            "PBKDF2WithHmacSHA512" => pbkdf2::PBKDF2_HMAC_SHA512,
            other => return Err(PasswordError::UnknownKeyFactory(other.to_owned())),
        };
        let iterations =
            NonZeroU32::new(iterations).ok_or(PasswordError::Malformed("iterations"))?;
        if !matches!(bits, 128 | 192 | 256) {
            return Err(unknown_cipher("AES", bits));
        }
        let mut key = vec![0; bits / 8];
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            self.secret.as_bytes(),
            &mut key,
        );
        Ok(key)
    }
}

/// Java counts UTF-16 units.
fn java_length(text: &str) -> usize {
    text.encode_utf16().count()
}

fn encrypt_cbc<C>(key: &[u8], iv: &[u8], text: &str) -> Option<Vec<u8>>
where
    C: cbc::cipher::KeyIvInit + cbc::cipher::BlockModeEncrypt,
{
    let cipher = C::new_from_slices(key, iv).ok()?;
    Some(cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes()))
}

fn decrypt_cbc<C>(key: &[u8], iv: &[u8], encrypted: &[u8]) -> Option<Vec<u8>>
where
    C: cbc::cipher::KeyIvInit + cbc::cipher::BlockModeDecrypt,
{
    let cipher = C::new_from_slices(key, iv).ok()?;
    cipher.decrypt_padded_vec::<Pkcs7>(encrypted).ok()
}

fn gcm_key(key: &[u8], iv: &[u8]) -> Option<(aead::LessSafeKey, aead::Nonce)> {
    let algorithm = match key.len() {
        16 => &aead::AES_128_GCM,
        32 => &aead::AES_256_GCM,
        _ => return None,
    };
    let key = aead::UnboundKey::new(algorithm, key).ok()?;
    let nonce = aead::Nonce::try_assume_unique_for_key(iv).ok()?;
    Some((aead::LessSafeKey::new(key), nonce))
}

fn seal(key: &[u8], iv: &[u8], text: &str) -> Option<Vec<u8>> {
    let (key, nonce) = gcm_key(key, iv)?;
    let mut data = text.as_bytes().to_vec();
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut data)
        .ok()?;
    Some(data)
}

fn open(key: &[u8], iv: &[u8], mut encrypted: Vec<u8>) -> Option<Vec<u8>> {
    let (key, nonce) = gcm_key(key, iv)?;
    let opened = key.open_in_place(nonce, aead::Aad::empty(), &mut encrypted);
    opened.ok().map(|text| text.to_vec())
}

/// Passwords among `texts` that `former` reads, encrypted by `current`; `None` if there are none. Others stay, as in
/// Kafka: they may have been encrypted by the new secret already.
pub fn reencoded(
    texts: &Texts,
    former: &PasswordEncoder,
    current: &PasswordEncoder,
    random: &mut impl RngCore,
) -> Result<Option<Texts>, PasswordError> {
    let mut changed = texts.clone();
    for (key, text) in &mut changed {
        if !barnabas_core::config::alter::is_password(key) {
            continue;
        }
        if let Ok(password) = former.decode(text) {
            *text = current.encode(&password, random)?;
        }
    }
    Ok((changed != *texts).then_some(changed))
}

fn unknown_cipher(cipher: &str, bits: usize) -> PasswordError {
    PasswordError::UnknownCipher {
        cipher: cipher.to_owned(),
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kafka made of this password and secret, with each cipher, length of key and key factory.
    const RECORDED: &str = include_str!("../../../tests/golden/units/encoded_passwords.txt");
    const SECRET: &str = "encoder-s\u{e9}cret";
    const PASSWORD: &str = "p\u{e4}ss,w:ord=1";

    fn encoder(secret: &str, cipher: &str, key_bits: usize) -> PasswordEncoder {
        PasswordEncoder {
            secret: secret.to_owned(),
            key_factory: DEFAULT_KEY_FACTORY.to_owned(),
            cipher: cipher.to_owned(),
            key_bits,
            iterations: 1024,
        }
    }

    #[test]
    fn passwords_that_kafka_encrypted_are_read() {
        assert_eq!(RECORDED.lines().count(), 12);
        for encoded in RECORDED.lines() {
            let read = encoder(SECRET, CBC, 128).decode(encoded);
            assert_eq!(read.as_deref(), Ok(PASSWORD), "{encoded}");
            let other = encoder("another", CBC, 128).decode(encoded);
            assert_eq!(other, Err(PasswordError::OtherSecret));
        }
    }

    #[test]
    fn what_is_encrypted_can_be_read_and_looks_like_kafkas() {
        let mut random = rand::rng();
        for (cipher, bits) in [(CBC, 128), (CBC, 192), (CBC, 256), (GCM, 128), (GCM, 256)] {
            let encoder = encoder(SECRET, cipher, bits);
            let encoded = encoder.encode(PASSWORD, &mut random).unwrap();
            assert_eq!(encoder.decode(&encoded).as_deref(), Ok(PASSWORD));
            let kafkas = RECORDED.lines().find(|line| line.contains(cipher)).unwrap();
            let names = |encoded: &str| {
                let names = encoded.split(',').filter_map(|field| field.split_once(':'));
                let mut names: Vec<_> = names.map(|(name, _)| name.to_owned()).collect();
                names.sort();
                names
            };
            assert_eq!(names(&encoded), names(kafkas));
        }
        let refused = encoder(SECRET, "DES/CBC/PKCS5Padding", 128).encode("x", &mut random);
        assert!(matches!(refused, Err(PasswordError::UnknownCipher { .. })));
    }

    #[test]
    fn a_new_secret_takes_over_what_the_former_one_encrypted() {
        let mut random = rand::rng();
        let (former, current) = (encoder("old", CBC, 128), encoder("new", GCM, 256));
        let key = "listener.name.x.ssl.keystore.password".to_owned();
        let texts = Texts::from([
            (key.clone(), former.encode("pw", &mut random).unwrap()),
            ("num.io.threads".to_owned(), "8".to_owned()),
        ]);
        let changed = reencoded(&texts, &former, &current, &mut random);
        let changed = changed.unwrap().unwrap();
        assert_eq!(current.decode(&changed[&key]).as_deref(), Ok("pw"));
        assert_eq!(changed["num.io.threads"], "8");
        let again = reencoded(&changed, &former, &current, &mut random);
        assert_eq!(again, Ok(None));
    }
}
