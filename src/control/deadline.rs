//! The time that a caller gives its call: the `grpc-timeout` of gRPC over HTTP/2, the `connect-timeout-ms` of Connect.

use std::time::Duration;

use tonic::codegen::http::{HeaderMap, HeaderValue};

use super::status::Failure;

const GRPC_TIMEOUT: &str = "grpc-timeout";
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// The most digits that the specifications allow.
const DIGITS_MAX: usize = 8;
const CONNECT_DIGITS_MAX: usize = 10;

/// Reads how long the caller of a gRPC call waits. `None`: without end.
pub(super) fn grpc(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let problem = "must be 1 to 8 digits and one of H M S m u n";
    read(headers, GRPC_TIMEOUT, parse, problem)
}

/// Reads how long the caller of a Connect call waits. `None`: without end.
pub(super) fn connect(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    read(headers, CONNECT_TIMEOUT, parse_ms, "must be 1 to 10 digits: milliseconds")
}

fn read(
    headers: &HeaderMap,
    name: &'static str,
    parse: fn(&HeaderValue) -> Option<Duration>,
    problem: &'static str,
) -> Result<Option<Duration>, Failure> {
    let Some(given) = headers.get(name) else { return Ok(None) };
    parse(given).map(Some).ok_or_else(|| Failure::field(name, problem))
}

fn number(digits: &[u8], digits_max: usize) -> Option<u64> {
    let is_number =
        (1..=digits_max).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

fn parse_ms(value: &HeaderValue) -> Option<Duration> {
    number(value.as_bytes(), CONNECT_DIGITS_MAX).map(Duration::from_millis)
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    let number = number(digits, DIGITS_MAX)?;
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
        let read = |text: &str| parse_ms(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("9999999999"), Some(Duration::from_millis(9_999_999_999)));
        for malformed in ["", "1m", "-1", "+1", "1.5", " 1", "12345678901"] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }
}
