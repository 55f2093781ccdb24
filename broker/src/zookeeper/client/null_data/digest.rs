//! SASL DIGEST-MD5 (RFC 2831) as ZooKeeper speaks it. Weak by today's measure, but what its servers offer.

use std::collections::BTreeMap;

use crate::zookeeper::options::DigestCredentials;

/// The service and host that ZooKeeper's servers are known by in this exchange.
const DIGEST_URI: &str = "zookeeper/zk-sasl-md5";

/// Answers a server's challenge; `client_nonce` is random text. `None` if there is no answering it.
pub(super) fn answer(
    challenge: &[u8],
    credentials: &DigestCredentials,
    client_nonce: &str,
) -> Option<Vec<u8>> {
    let challenge = std::str::from_utf8(challenge).ok()?;
    let directives = directives(challenge)?;
    let nonce = directives.get("nonce")?;
    let realm = directives.get("realm").map_or("", String::as_str);
    if let Some(offered) = directives.get("qop")
        && !offered.split(',').any(|quality| quality.trim() == "auth")
    {
        return None;
    }
    let response = response(credentials, realm, nonce, client_nonce);
    let user = &credentials.username;
    let answer = format!(
        "charset=utf-8,username=\"{user}\",realm=\"{realm}\",nonce=\"{nonce}\",nc=00000001,\
         cnonce=\"{client_nonce}\",digest-uri=\"{DIGEST_URI}\",maxbuf=65536,response={response},qop=auth",
        user = quoted(user),
        realm = quoted(realm),
        nonce = quoted(nonce),
    );
    Some(answer.into_bytes())
}

fn response(
    credentials: &DigestCredentials,
    realm: &str,
    nonce: &str,
    client_nonce: &str,
) -> String {
    let mut secret = hashed_text(&credentials.username);
    secret.push(b':');
    secret.extend(hashed_text(realm));
    secret.push(b':');
    secret.extend(hashed_text(&credentials.password));
    let mut first = md5::compute(secret).0.to_vec();
    first.extend(format!(":{nonce}:{client_nonce}").into_bytes());
    let first = format!("{:x}", md5::compute(first));
    let second = format!("{:x}", md5::compute(format!("AUTHENTICATE:{DIGEST_URI}")));
    let all = format!("{first}:{nonce}:00000001:{client_nonce}:auth:{second}");
    format!("{:x}", md5::compute(all))
}

/// RFC 2831: what can be said in ISO 8859-1 is hashed in ISO 8859-1.
fn hashed_text(text: &str) -> Vec<u8> {
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    latin.unwrap_or_else(|| text.as_bytes().to_vec())
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Splits `key=value,key="quoted \" value"`.
fn directives(text: &str) -> Option<BTreeMap<String, String>> {
    let mut directives = BTreeMap::new();
    let mut rest = text.trim_start_matches([',', ' ']);
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=')?;
        let (value, tail) = if let Some(tail) = tail.strip_prefix('"') {
            unquoted(tail)?
        } else {
            let end = tail.find(',').unwrap_or(tail.len());
            (tail[..end].to_owned(), &tail[end..])
        };
        directives.insert(key.trim().to_owned(), value);
        rest = tail.trim_start_matches([',', ' ']);
    }
    Some(directives)
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_computed_independently() {
        let credentials = DigestCredentials {
            username: "chris".into(),
            password: "secret".into(),
        };
        // Python: hashlib over the same pieces, with the URI of ZooKeeper.
        let challenge = br#"realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",algorithm=md5-sess,charset=utf-8"#;
        let answer = answer(challenge, &credentials, "OA6MHXh6VqTrRk").expect("answers");
        let answer = String::from_utf8(answer).expect("text");
        assert!(
            answer.contains("response=3d53f3e841d45c8a4dcf0f37c4725582"),
            "{answer}"
        );
        assert!(answer.contains(r#"nonce="OA6MG9tEQGm2hh""#));
    }

    #[test]
    fn quotes_both_ways_and_refuses_nonsense() {
        let parsed = directives(r#"realm="a \"b\" c",x=1, nonce="n""#).expect("valid");
        assert_eq!(parsed["realm"], r#"a "b" c"#);
        assert_eq!(parsed["nonce"], "n");
        assert_eq!(directives("nonce=\"open"), None);
        assert_eq!(directives("no pairs"), None);
        let credentials = DigestCredentials {
            username: "u".into(),
            password: "p".into(),
        };
        assert_eq!(answer(b"realm=\"r\"", &credentials, "c"), None);
        assert_eq!(
            answer(b"nonce=\"n\",qop=\"auth-conf\"", &credentials, "c"),
            None
        );
        assert_eq!(answer(&[0xff], &credentials, "c"), None);
    }
}
