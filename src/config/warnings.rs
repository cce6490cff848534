//! What production allows but should not have: secrets where others read them. `duelhub serve` and `duelhub check` say the same.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{AppEnv, Config, ControlConfig, VARIABLES};

/// The variables that hold secrets. `REDIS_URL` does if it has a password.
const SECRETS: [&str; 5] = [
    "WEBSOCKET_TICKET_SECRET",
    "WEBSOCKET_TICKET_SECRET_PREVIOUS",
    "TELEGRAM_BOT_TOKEN",
    "CONTROL_TOKEN",
    "REDIS_URL",
];

/// The permission of everybody to read a file (inode(7)).
const READABLE_BY_OTHERS: u32 = 0o004;

/// Returns what the control plane lets others do or read.
pub(super) fn of_control(control: &ControlConfig) -> Option<&'static str> {
    let mutual = control.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    match (control.address.ip().is_loopback(), &control.token) {
        (false, Some(_)) if control.tls.is_none() => Some(
            "CONTROL_TOKEN crosses the network in the clear: CONTROL_HOST is not loopback, and CONTROL_TLS_CERT is unset",
        ),
        (true, None) if !mutual => Some(
            "CONTROL_TOKEN is unset: every program of this machine may push events and issue tickets",
        ),
        _ => None,
    }
}

impl Config {
    /// Warns of what the command line shows to others, in production. `flag` returns the text of a variable that was given as
    /// a flag.
    pub fn warn_of_command_line(
        &mut self,
        flag: &dyn Fn(&str) -> Option<String>,
        env_file: Option<&Path>,
    ) {
        if self.app_env != AppEnv::Production {
            return;
        }
        let holds_secret = |name: &str, text: &str| name != "REDIS_URL" || text.contains('@');
        for variable in VARIABLES.iter().filter(|variable| SECRETS.contains(&variable.name)) {
            if flag(variable.name).is_some_and(|text| holds_secret(variable.name, &text)) {
                self.warnings.push(format!(
                    "--{} shows a secret in the list of processes: put {} into the env file",
                    variable.flag(),
                    variable.name
                ));
            }
        }
        if let Some(path) = env_file
            && let Ok(file) = std::fs::metadata(path)
            && file.permissions().mode() & READABLE_BY_OTHERS != 0
        {
            let path = path.display();
            self.warnings.push(format!(
                "--env-file {path} can be read by every user of this machine: chmod o= {path}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn production(variables: &[(&str, &str)]) -> Config {
        let base = [
            ("APP_ENV", "production"),
            ("WEBAPP_URL", "https://a.example"),
            ("WEBSOCKET_TICKET_SECRET", SECRET),
        ];
        let all = [&base, variables].concat();
        let lookup = |name: &str| {
            all.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        };
        Config::read(&lookup).unwrap()
    }

    fn warned(variables: &[(&str, &str)]) -> String {
        production(variables).warnings.join("\n")
    }

    #[test]
    fn a_token_in_the_clear_and_none_at_all_are_warned_of() {
        let token = ("CONTROL_TOKEN", SECRET);
        assert!(warned(&[]).starts_with("CONTROL_TOKEN is unset"));
        assert_eq!(warned(&[token]), "");
        assert!(warned(&[token, ("CONTROL_HOST", "10.0.0.1")]).contains("in the clear"));
        let development = Config::read(&|_| None).unwrap().warnings.join("\n");
        assert!(!development.contains("CONTROL_TOKEN"), "{development}");
    }

    #[test]
    fn secrets_on_the_command_line_are_warned_of_and_not_shown() {
        let mut config = production(&[("CONTROL_TOKEN", SECRET)]);
        let flags =
            [("CONTROL_TOKEN", SECRET), ("REDIS_URL", "redis://one"), ("LOG_LEVEL", "info")];
        let flag = |name: &str| {
            flags.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        };
        config.warn_of_command_line(&flag, None);
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        assert!(config.warnings[0].starts_with("--control-token "), "{:?}", config.warnings);
        assert!(!config.warnings[0].contains(SECRET));
        let password = |name: &str| (name == "REDIS_URL").then(|| "redis://a:b@one".to_owned());
        config.warn_of_command_line(&password, None);
        assert!(config.warnings[1].starts_with("--redis-url "), "{:?}", config.warnings);
    }

    #[test]
    fn an_env_file_for_everybody_is_warned_of() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let mut config = production(&[("CONTROL_TOKEN", SECRET)]);
            config.warn_of_command_line(&|_| None, Some(file.path()));
            assert_eq!(!config.warnings.is_empty(), warned, "{mode:o}: {:?}", config.warnings);
        }
    }
}
