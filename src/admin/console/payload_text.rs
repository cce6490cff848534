//! Payloads as the console shows them: the beginning of each, and so many bytes an answer.

use serde_json::{Value, json};

use crate::event::Payload;
use crate::limits;

/// The bytes of payloads that an answer may still have.
pub(super) struct PayloadBudget(usize);

impl Default for PayloadBudget {
    fn default() -> Self {
        Self(limits::CONSOLE_PAYLOAD_BYTES_MAX.1)
    }
}

impl PayloadBudget {
    /// Returns the beginning of a payload, and how many bytes it has in all.
    pub(super) fn beginning(&mut self, payload: &Payload) -> Value {
        let json = payload.json();
        let end = json.floor_char_boundary(limits::CONSOLE_PAYLOAD_BYTES_MAX.0.min(self.0));
        self.0 -= end;
        json!({"text": &json[..end], "bytes": json.len()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_cut_between_characters_and_all_of_them_have_a_bound() {
        let (each, all) = limits::CONSOLE_PAYLOAD_BYTES_MAX;
        let payload = Payload::from_stored(format!("{{\"a\":\"{}\"}}", "я".repeat(each)).into());
        let mut budget = PayloadBudget::default();
        let mut sum = 0;
        for nth in 0..2 * all / each {
            let shown = budget.beginning(&payload);
            let text = shown["text"].as_str().unwrap();
            assert!(text.len() <= each && shown["bytes"] == payload.json().len());
            assert!(nth > 0 || text.len() + 1 >= each, "{}", text.len());
            sum += text.len();
        }
        assert!(sum <= all && sum + 1 >= all, "{sum}");
    }
}
