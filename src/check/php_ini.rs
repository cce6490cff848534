//! Which env files PHP's `parse_ini_file` refuses.
//!
//! A game that reads its env file with it loses its whole configuration to one line that is none of PHP's. Such lines are
//! good env files, and come with the comments of an example. `tests/move` compares these rules with PHP's own answers.

/// What PHP's scanner takes for operators, wherever no quotes are (`Zend/zend_ini_scanner.l`).
const OPERATORS: &str = "{}|&~!()^\"$";

/// Words that are values, and no names.
const RESERVED: [&str; 8] = ["null", "yes", "no", "true", "false", "on", "off", "none"];

/// A line that PHP refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its number, from 1.
    pub(super) line: usize,
    /// Why, without the line itself, which may be a secret.
    pub(super) why: String,
}

/// Returns the first line that PHP refuses, or takes for something else than the hub does.
pub(super) fn first_refused(text: &str) -> Option<Refused> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(nth, line)| Some(Refused { line: nth + 1, why: problem(line.trim())? }))
        .next()
}

/// Returns whether the first line refused is a comment, as those of an example are.
pub(super) fn is_comment(text: &str, refused: &Refused) -> bool {
    text.lines().nth(refused.line - 1).is_some_and(|line| line.trim_start().starts_with('#'))
}

fn problem(line: &str) -> Option<String> {
    if line.is_empty() || line.starts_with(';') {
        return None;
    }
    // To PHP, a line with # is a name like any other, with or without a value.
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name.trim(), value.trim()),
        None => (line, ""),
    };
    let name = name.split(';').next().unwrap_or_default().trim_end();
    if let Some(found) = name.chars().find(|c| OPERATORS.contains(*c)) {
        return Some(format!("it has a {found} outside of quotes"));
    }
    if let Some(found) = name.chars().find(|c| "[]".contains(*c)) {
        return Some(format!("it has a {found}"));
    }
    if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!("{name} is a word of PHP's own"));
    }
    value_problem(value)
}

/// Returns what is wrong with the text after `=`.
fn value_problem(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return (!rest.contains('\'')).then(|| "its quote is not closed".to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        return (!rest.contains('"')).then(|| "its quote is not closed".to_owned());
    }
    // A semicolon begins a comment, and a quote ends the value, where the hub goes on reading.
    let found = value.chars().find(|c| OPERATORS.contains(*c) || ";='".contains(*c));
    found.map(|found| format!("its value has a {found} outside of 'single quotes'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shipped_files_hold() {
        let own = include_str!("../../deploy/game/hub.env.example");
        assert_eq!(first_refused(own), None);
        let example = include_str!("../../deploy/app.env.example");
        let refused = first_refused(example).expect("PHP refuses the example's comments");
        assert!(is_comment(example, &refused), "{refused:?}");
    }

    #[test]
    fn lines_that_php_refuses() {
        let refused = [
            "# a (comment)",
            "# a \"comment\"",
            "# this & that!",
            "# $NAME",
            "# `x` [y]",
            "NO=1",
            "A=a(b",
            "A=a=b",
            "A=a&b",
            "A='open",
        ];
        for line in refused {
            let found = first_refused(&format!("FIRST=1\n{line}\n"));
            assert_eq!(found.map(|refused| refused.line), Some(2), "{line}");
        }
    }

    #[test]
    fn lines_that_php_takes() {
        let taken = "# Plain words, with commas: like/this - it's good.\n\n; PHP's own\nA=1\nB=\n\
                     C=https://a.example,https://b.example\nD='q$x(=)'\nE=127.0.0.1,::1\n#F=\n";
        assert_eq!(first_refused(taken), None);
    }
}
