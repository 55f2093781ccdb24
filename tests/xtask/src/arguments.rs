//! What follows a task's name on the command line.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The words after the task, taken out one by one; [`Arguments::finish`] refuses what is left.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Arguments(words)
    }

    /// Takes `--name` out and says whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.map(|index| self.0.remove(index)).is_some()
    }

    /// Takes `--name value` or `--name=value` out.
    pub(crate) fn option<T>(&mut self, name: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let joined = format!("{name}=");
        let value = if let Some(index) = self.0.iter().position(|word| word == name) {
            self.0.remove(index);
            if index == self.0.len() {
                bail!("{name} needs a value");
            }
            self.0.remove(index)
        } else if let Some(index) = self.0.iter().position(|word| word.starts_with(&joined)) {
            self.0.remove(index)[joined.len()..].to_owned()
        } else {
            return Ok(None);
        };
        let parsed = value.parse().with_context(|| format!("{name} {value}"))?;
        Ok(Some(parsed))
    }

    /// The words that are no options, in order.
    pub(crate) fn rest(self) -> Result<Vec<String>> {
        match self.0.iter().find(|word| word.starts_with('-')) {
            Some(option) => bail!("unknown option {option}; `cargo xtask` lists them"),
            None => Ok(self.0),
        }
    }

    /// Refuses whatever was not taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.rest()?.first() {
            Some(word) => bail!("unexpected `{word}`; `cargo xtask` lists the tasks"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_are_taken_in_any_order_and_form() {
        let mut given = arguments("--brokers 3 --fresh --zookeepers=5");
        assert_eq!(given.option::<u16>("--zookeepers").unwrap(), Some(5));
        assert_eq!(given.option::<u16>("--brokers").unwrap(), Some(3));
        assert!(given.flag("--fresh"));
        assert!(!given.flag("--fresh"));
        given.finish().unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(arguments("--brokers").option::<u16>("--brokers").is_err());
        assert!(
            arguments("--brokers three")
                .option::<u16>("--brokers")
                .is_err()
        );
        assert!(arguments("--unknown").finish().is_err());
        assert!(arguments("word").finish().is_err());
    }
}
