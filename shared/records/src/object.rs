//! A JSON object, written member by member.

use serde_json::Value;

/// The text of a JSON object that is being written.
pub(crate) struct ObjectText(String);

impl ObjectText {
    /// Returns an object without members.
    pub(crate) fn new() -> Self {
        Self(String::from("{"))
    }

    /// Appends a member whose value is JSON text.
    pub(crate) fn member(&mut self, name: &str, value: &str) {
        if !self.is_empty() {
            self.0.push(',');
        }
        self.string(name);
        self.0.push(':');
        self.0.push_str(value);
    }

    /// Appends a member whose value is a string.
    pub(crate) fn text_member(&mut self, name: &str, text: &str) {
        self.member(name, "");
        self.string(text);
    }

    /// Returns whether the object has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Returns the text of the object.
    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn string(&mut self, text: &str) {
        // Nearly every name is plain, and is then written without an allocation.
        if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.0.push_str(&Value::from(text).to_string());
        }
    }
}
