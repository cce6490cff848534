//! Parses the texts of variables, and collects every problem.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::variables::VARIABLES;

/// What is wrong with one variable. Never contains its value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong, to be read after the name.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.text)
    }
}

/// Reads variables one by one. An unusable value becomes a problem, and its default is used, so that one pass finds every
/// problem.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, name: &'static str, text: impl Into<String>) {
        self.problems.push(Problem { name, text: text.into() });
    }

    /// Returns the text of a variable. Empty means unset: env files are full of `NAME=`.
    pub(super) fn optional(&self, name: &'static str) -> Option<String> {
        (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Returns the value of a variable that has a default.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let default = VARIABLES.iter().find(|v| v.name == name).and_then(|v| v.default);
        let default = default.expect("the table gives a default to every variable read as a value");
        if let Some(text) = self.optional(name) {
            match parse(&text) {
                Ok(value) => return value,
                Err(problem) => self.problem(name, problem),
            }
        }
        parse(default).expect("every default in the table parses, which a test proves")
    }

    /// Returns a whole number from `min` to `max`.
    pub(super) fn number(&mut self, name: &'static str, min: u64, max: u64) -> u64 {
        self.value(name, |text| match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        })
    }

    /// Returns [`Reader::number`] as a size in memory.
    pub(super) fn count(&mut self, name: &'static str, min: u32, max: u32) -> usize {
        let number = self.number(name, u64::from(min), u64::from(max));
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    /// Returns how many there may be of something in a period: at least one.
    pub(super) fn rate(&mut self, name: &'static str) -> u32 {
        u32::try_from(self.number(name, 1, 1_000_000)).unwrap_or(u32::MAX)
    }

    /// Returns a duration of `min` to `max` whole seconds.
    pub(super) fn seconds(&mut self, name: &'static str, min: u64, max: u64) -> Duration {
        Duration::from_secs(self.number(name, min, max))
    }

    /// Returns a duration of `min` to `max` seconds, fractions allowed.
    pub(super) fn fraction(&mut self, name: &'static str, min: f64, max: f64) -> Duration {
        self.value(name, |text| match text.parse::<f64>() {
            Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(format!("must be a number of seconds from {min} to {max}")),
        })
    }

    pub(super) fn address(&mut self, host: &'static str, port: &'static str) -> (IpAddr, u16) {
        let ip = self.value(host, |text| match text {
            "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
            _ => match text.parse::<IpAddr>() {
                Ok(ip) => Ok(ip.to_canonical()),
                Err(_) => Err("must be an IP address".to_owned()),
            },
        });
        let port = self.value(port, |text| {
            text.parse().map_err(|_| "must be a port from 0 to 65535".to_owned())
        });
        (ip, port)
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.value(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    /// Returns the contents of the file that a variable names.
    pub(super) fn file(&mut self, name: &'static str) -> Option<Vec<u8>> {
        let path = self.optional(name)?;
        match std::fs::read(&path) {
            Ok(contents) => Some(contents),
            Err(error) => {
                self.problem(name, format!("names a file that cannot be read: {}", error.kind()));
                None
            }
        }
    }
}
