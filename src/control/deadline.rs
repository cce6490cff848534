//! The time that a caller gives its call: the `grpc-timeout` of gRPC over HTTP/2.

use std::time::Duration;

use tonic::codegen::http::{HeaderMap, HeaderValue};

use super::status::Failure;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The most digits that the specification allows.
const DIGITS_MAX: usize = 8;

/// Reads how long the caller waits. `None`: without end.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(given) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let problem = "must be 1 to 8 digits and one of H M S m u n";
    parse(given).map(Some).ok_or_else(|| Failure::field(GRPC_TIMEOUT, problem))
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=DIGITS_MAX).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_the_specification_says() {
        let read = |text: &str| parse(&HeaderValue::from_str(text).unwrap());
        for (text, timeout) in [
            ("0n", Duration::ZERO),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("7u", Duration::from_micros(7)),
            ("250m", Duration::from_millis(250)),
            ("1S", Duration::from_secs(1)),
            ("2M", Duration::from_secs(120)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(read(text), Some(timeout), "{text}");
        }
        for malformed in ["", "S", "1", "1s", "+1S", "-1S", "1.5S", " 1S", "1S ", "123456789S"] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }
}
