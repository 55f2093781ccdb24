//! Where settings come from: a properties or YAML file, the environment, the command line.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use barnabas_core::config::table;

use super::{Texts, providers};

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read {path}: {source}; give the path of a properties or YAML file")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a properties file: {problem}")]
    Properties { path: PathBuf, problem: String },
    #[error("{path} is not a YAML file: {problem}")]
    Yaml { path: PathBuf, problem: String },
    #[error("{path}: {key} is given twice; keep one of them")]
    Twice { path: PathBuf, key: String },
    #[error(
        "{key}={class}: not one of Kafka's providers EnvVarConfigProvider, FileConfigProvider and DirectoryConfigProvider"
    )]
    Provider { key: String, class: String },
    #[error("--override {text}: this is not key=value; write for example --override broker.id=1")]
    Override { text: String },
}

/// Prefix of environment variables that override settings.
const PREFIX: &str = "BARNABAS_";

/// Variables with the prefix that are no settings.
const NO_SETTINGS: [&str; 2] = ["BARNABAS_LOG", "BARNABAS_LOG_FORMAT"];

/// Reads all sources; the command line wins over the environment, and that over the file.
pub fn read(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[String],
) -> Result<Texts, SourceError> {
    let environment: BTreeMap<String, String> = environment.collect();
    let mut texts = file.map_or_else(|| Ok(Texts::new()), read_file)?;
    let settings = from_environment(environment.clone().into_iter());
    texts.extend(settings.into_iter().filter(is_set));
    for text in overrides {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| SourceError::Override { text: text.clone() })?;
        if key.trim().is_empty() {
            return Err(SourceError::Override { text: text.clone() });
        }
        texts.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    providers::resolve(&mut texts, &environment)?;
    Ok(texts)
}

/// Kubernetes sets a variable from a label that a pod lacks to nothing: such a broker has no rack, not an empty one.
fn is_set((key, value): &(String, String)) -> bool {
    key != "broker.rack" || !value.is_empty()
}

fn read_file(path: &Path) -> Result<Texts, SourceError> {
    let bytes = std::fs::read(path).map_err(|source| SourceError::Read {
        path: path.to_owned(),
        source,
    })?;
    let is_yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_yaml {
        parse_yaml(path, &bytes)
    } else {
        java_properties::read(bytes.as_slice())
            .map(BTreeMap::from_iter)
            .map_err(|error| SourceError::Properties {
                path: path.to_owned(),
                problem: error.to_string(),
            })
    }
}

/// Settings in YAML: keys of nested maps are joined with dots, elements of lists with commas.
fn parse_yaml(path: &Path, bytes: &[u8]) -> Result<Texts, SourceError> {
    let problem = |problem: String| SourceError::Yaml {
        path: path.to_owned(),
        problem,
    };
    let document: serde_yaml::Value =
        serde_yaml::from_slice(bytes).map_err(|error| problem(error.to_string()))?;
    let mut texts = Texts::new();
    match document {
        serde_yaml::Value::Null => {}
        serde_yaml::Value::Mapping(mapping) => flatten(path, "", &mapping, &mut texts)?,
        _ => {
            return Err(problem(
                "the top level must be a map of settings".to_owned(),
            ));
        }
    }
    Ok(texts)
}

fn flatten(
    path: &Path,
    prefix: &str,
    mapping: &serde_yaml::Mapping,
    texts: &mut Texts,
) -> Result<(), SourceError> {
    for (key, value) in mapping {
        let problem = |what: &str| SourceError::Yaml {
            path: path.to_owned(),
            problem: format!("{prefix}{}: {what}", scalar(key).unwrap_or_default()),
        };
        let key = scalar(key).ok_or_else(|| problem("a key must be a text"))?;
        let key = format!("{prefix}{key}");
        let text = match value {
            serde_yaml::Value::Null => continue,
            serde_yaml::Value::Mapping(inner) => {
                flatten(path, &format!("{key}."), inner, texts)?;
                continue;
            }
            serde_yaml::Value::Sequence(elements) => {
                let elements: Option<Vec<String>> = elements.iter().map(scalar).collect();
                elements
                    .ok_or_else(|| problem("elements of a list must be texts or numbers"))?
                    .join(",")
            }
            other => scalar(other)
                .ok_or_else(|| problem("a value must be a text, a number or a list"))?,
        };
        if texts.insert(key.clone(), text).is_some() {
            return Err(SourceError::Twice {
                path: path.to_owned(),
                key,
            });
        }
    }
    Ok(())
}

fn scalar(value: &serde_yaml::Value) -> Option<String> {
    match value {
        serde_yaml::Value::String(text) => Some(text.clone()),
        serde_yaml::Value::Number(number) => Some(number.to_string()),
        serde_yaml::Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The variable that sets `key`: `log.dirs` is `BARNABAS_LOG_DIRS`; our own keys need no second prefix.
pub fn variable_of(key: &str) -> String {
    let name = key.replace(['.', '-'], "_").to_ascii_uppercase();
    if name.starts_with(PREFIX) {
        name
    } else {
        format!("{PREFIX}{name}")
    }
}

fn from_environment(environment: impl Iterator<Item = (String, String)>) -> Texts {
    let rows = table::broker_settings().chain(table::own_settings());
    let known: BTreeMap<String, &str> = rows.map(|row| (variable_of(row.name), row.name)).collect();
    let settings = environment.filter(|(name, _)| name.starts_with(PREFIX));
    settings
        .filter_map(|(name, value)| {
            if let Some(key) = known.get(&name) {
                return Some(((*key).to_owned(), value));
            }
            let rest = &name[PREFIX.len()..];
            if NO_SETTINGS.contains(&name.as_str()) || is_service_link(rest) {
                return None;
            }
            Some((rest.to_ascii_lowercase().replace('_', "."), value))
        })
        .collect()
}

/// Kubernetes adds variables for every service: of one called `barnabas` they look like settings.
fn is_service_link(name: &str) -> bool {
    name == "PORT"
        || name.starts_with("PORT_")
        || name.contains("SERVICE_")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<Texts, SourceError> {
        parse_yaml(Path::new("broker.yaml"), text.as_bytes())
    }

    #[test]
    fn yaml_maps_become_dotted_keys_and_lists_become_comma_lists() {
        let texts = yaml(
            "broker.id: 1\nlog:\n  dirs: [/a, /b]\n  retention: {hours: 24}\nzookeeper.connect: zk:2181\n\
             auto.create.topics.enable: false\nbroker.rack: null\n",
        );
        let expected = [
            ("auto.create.topics.enable", "false"),
            ("broker.id", "1"),
            ("log.dirs", "/a,/b"),
            ("log.retention.hours", "24"),
            ("zookeeper.connect", "zk:2181"),
        ];
        let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(texts.unwrap(), Texts::from(expected));
    }

    #[test]
    fn yaml_errors_say_where() {
        let message = |text: &str| yaml(text).unwrap_err().to_string();
        assert_eq!(
            message("log.dirs: /a\nlog: {dirs: /b}"),
            "broker.yaml: log.dirs is given twice; keep one of them"
        );
        assert_eq!(
            message("- a"),
            "broker.yaml is not a YAML file: the top level must be a map of settings"
        );
        assert_eq!(
            message("listeners: [{a: b}]"),
            "broker.yaml is not a YAML file: listeners: elements of a list must be texts or numbers"
        );
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server.properties");
        std::fs::write(
            &file,
            "# a comment\nbroker.id=1\nlog.dirs = /a\nnum.partitions:3\n",
        )
        .unwrap();
        let environment = [
            ("BARNABAS_BROKER_ID", "2"),
            ("BARNABAS_LOG_DIRS", "/b"),
            ("BARNABAS_ZOOKEEPER_CLIENTCNXNSOCKET", "x"),
            ("BARNABAS_ADMIN_LISTENER", ":1"),
            ("BARNABAS_LOG", "debug"),
            ("BARNABAS_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("BARNABAS_NO_SUCH_KEY", "1"),
            ("HOME", "/root"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let overrides = ["broker.id=3".to_owned()];
        let texts = read(Some(&file), environment.into_iter(), &overrides).unwrap();
        let expected = [
            ("barnabas.admin.listener", ":1"),
            ("broker.id", "3"),
            ("log.dirs", "/b"),
            ("no.such.key", "1"),
            ("num.partitions", "3"),
            ("zookeeper.clientCnxnSocket", "x"),
        ];
        let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(texts, Texts::from(expected));
    }

    #[test]
    fn an_override_without_a_value_is_refused() {
        let error = read(None, std::iter::empty(), &["broker.id".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--override broker.id: this is not key=value; write for example --override broker.id=1"
        );
    }
}
