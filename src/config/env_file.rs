//! Env files: `NAME=value`, a line each, in UTF-8.

use std::path::Path;

/// Returns the variables of an env file.
///
/// # Errors
/// A text for each problem, without the contents of the line, which may be a secret.
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, Vec<String>> {
    let shown = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|_| vec![format!("--env-file {shown} cannot be read")])?;
    env_file_variables(&shown, &bytes)
}

/// Returns the variables in the bytes of an env file, which problems call `shown`.
pub(crate) fn env_file_variables(
    shown: &str,
    bytes: &[u8],
) -> Result<Vec<(String, String)>, Vec<String>> {
    let text = env_file_text(bytes).map_err(|text| vec![format!("--env-file {shown} {text}")])?;
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (index, entry) in dotenvy::from_read_iter(text.as_bytes()).enumerate() {
        match entry {
            Ok(variable) => variables.push(variable),
            Err(_) => {
                problems.push(format!("--env-file {shown}: entry {} is not NAME=value", index + 1))
            }
        }
    }
    if problems.is_empty() { Ok(variables) } else { Err(problems) }
}

/// Returns the text of an env file without the byte order mark that editors on Windows put before it.
fn env_file_text(bytes: &[u8]) -> Result<&str, &'static str> {
    // UTF-16 without a mark has a zero byte beside each character of a name.
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err("is in UTF-16: save it as UTF-8");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not in UTF-8")?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
