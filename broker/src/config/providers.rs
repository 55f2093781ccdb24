//! Values that stand elsewhere: `${env:NAME}` and the like (KIP-297, KIP-887, `ConfigTransformer`).

use std::collections::BTreeMap;
use std::path::Path;

use super::Texts;
use super::sources::SourceError;

const KEY: &str = "config.providers";
const PACKAGE: &str = "org.apache.kafka.common.config.provider.";

/// Kafka's own providers, by the classes that `config.providers.<name>.class` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// `${name:VARIABLE}`
    Environment,
    /// `${name:/path/of.properties:key}`
    File,
    /// `${name:/path/of/directory:file}`
    Directory,
}

impl Provider {
    fn named(class: &str) -> Option<Self> {
        match class.strip_prefix(PACKAGE)? {
            "EnvVarConfigProvider" => Some(Self::Environment),
            "FileConfigProvider" => Some(Self::File),
            "DirectoryConfigProvider" => Some(Self::Directory),
            _ => None,
        }
    }

    /// The value of `key` at `path`; nothing if there is no such key, which leaves the reference as it is.
    fn value(
        self,
        path: &str,
        key: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Option<String>, SourceError> {
        let failed = |path: &Path, source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        match self {
            Self::Environment => Ok(environment.get(key).cloned()),
            Self::File => {
                let path = Path::new(path);
                let bytes = std::fs::read(path).map_err(|error| failed(path, error))?;
                let properties = java_properties::read(bytes.as_slice()).map_err(|error| {
                    SourceError::Properties {
                        path: path.to_owned(),
                        problem: error.to_string(),
                    }
                })?;
                Ok(properties.get(key).cloned())
            }
            Self::Directory => {
                let path = Path::new(path).join(key);
                if key.contains('/') || !path.is_file() {
                    return Ok(None);
                }
                let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
                Ok(Some(text))
            }
        }
    }
}

/// Replaces references to the providers that `config.providers` lists, and takes the providers' own settings out.
pub(super) fn resolve(
    texts: &mut Texts,
    environment: &BTreeMap<String, String>,
) -> Result<(), SourceError> {
    let Some(names) = texts.remove(KEY) else {
        return Ok(());
    };
    let mut providers = BTreeMap::new();
    for name in names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let key = format!("{KEY}.{name}.class");
        let class = texts.remove(&key).unwrap_or_default();
        let Some(provider) = Provider::named(class.trim()) else {
            return Err(SourceError::Provider { key, class });
        };
        providers.insert(name.to_owned(), provider);
    }
    for text in texts.values_mut() {
        *text = replaced(text, &providers, environment)?;
    }
    Ok(())
}

/// `text` with each `${provider:[path:]key}` replaced that has a value.
fn replaced(
    text: &str,
    providers: &BTreeMap<String, Provider>,
    environment: &BTreeMap<String, String>,
) -> Result<String, SourceError> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((reference, behind)) = after.split_once('}') else {
            break;
        };
        let value = match reference.split_once(':') {
            Some((name, what)) => {
                let (path, key) = what.split_once(':').unwrap_or(("", what));
                let provider = providers.get(name);
                provider.map(|provider| provider.value(path, key, environment))
            }
            None => None,
        };
        result.push_str(before);
        match value.transpose()?.flatten() {
            Some(value) => result.push_str(&value),
            None => result.extend(["${", reference, "}"]),
        }
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        let pairs = pairs.iter();
        pairs
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn resolved(pairs: &[(&str, &str)], key: &str) -> Result<String, SourceError> {
        let mut texts = texts(pairs);
        let environment = BTreeMap::from([("NODE_IP".to_owned(), "10.0.0.7".to_owned())]);
        resolve(&mut texts, &environment)?;
        assert!(!texts.keys().any(|key| key.starts_with(KEY)));
        Ok(texts[key].clone())
    }

    const ENV: (&str, &str) = (
        "config.providers.env.class",
        "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
    );

    #[test]
    fn variables_are_filled_in_and_unknown_ones_stay() {
        let value = |text: &str| {
            let pairs = [(KEY, "env"), ENV, ("advertised.listeners", text)];
            resolved(&pairs, "advertised.listeners").unwrap()
        };
        assert_eq!(
            value("PLAINTEXT://${env:NODE_IP}:9"),
            "PLAINTEXT://10.0.0.7:9"
        );
        assert_eq!(value("${env:NODE_IP}${env:NODE_IP}"), "10.0.0.710.0.0.7");
        for unknown in [
            "${env:NO}",
            "${vault:NODE_IP}",
            "${NODE_IP}",
            "${env:NODE_IP",
            "$",
        ] {
            assert_eq!(value(unknown), unknown);
        }
    }

    #[test]
    fn files_and_directories_have_values() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secrets.properties");
        std::fs::write(&file, "password=s3cret\n").unwrap();
        let class = |name: &str| format!("{PACKAGE}{name}ConfigProvider");
        let (in_file, in_directory) = (class("File"), class("Directory"));
        let text = format!(
            "${{f:{}:password}} ${{d:{}:secrets.properties}} ${{d:{}:../x}}",
            file.display(),
            directory.path().display(),
            directory.path().display()
        );
        let pairs = [
            (KEY, "f, d"),
            ("config.providers.f.class", in_file.as_str()),
            ("config.providers.d.class", in_directory.as_str()),
            ("k", text.as_str()),
        ];
        let value = resolved(&pairs, "k").unwrap();
        assert!(
            value.starts_with("s3cret password=s3cret\n ${d:"),
            "{value}"
        );
        let missing = [pairs[0], pairs[1], pairs[2], ("k", "${f:/no/such:a}")];
        assert!(resolved(&missing, "k").is_err());
    }

    #[test]
    fn a_provider_that_is_not_kafkas_is_refused() {
        let error = resolved(&[(KEY, "x"), ("k", "v")], "k").unwrap_err();
        assert!(
            error.to_string().contains("config.providers.x.class"),
            "{error}"
        );
    }

    #[test]
    fn without_providers_nothing_is_replaced() {
        assert_eq!(
            resolved(&[("k", "${env:NODE_IP}")], "k").unwrap(),
            "${env:NODE_IP}"
        );
    }
}
