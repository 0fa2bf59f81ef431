//! Removes keys from errors, because some servers echo the request.

use std::fmt;

/// The replacement for a secret.
const HIDDEN: &str = "***";
/// Minimum length of a secret. Shorter values occur in any text.
const SHORTEST: usize = 4;
/// The variables that hold secrets. Variables that end in `TOKEN_FILE` are file names.
const SECRET: [&str; 5] =
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_SSE_CUSTOMER_KEY_BASE64", "AWS_PROXY_URL"];

/// Texts that must not be shown.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Stores the value of a variable if it is a secret.
    pub(crate) fn learn(&mut self, variable: &str, value: &str) {
        if SECRET.contains(&variable) && value.len() >= SHORTEST {
            self.0.push(value.to_owned());
        }
    }

    /// Returns `text` with every secret replaced.
    pub(crate) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hidden_and_names_are_not() {
        let mut secrets = Secrets::default();
        secrets.learn("AWS_ACCESS_KEY_ID", "AKIA");
        secrets.learn("AWS_SECRET_ACCESS_KEY", "hush/hush");
        secrets.learn("AWS_SESSION_TOKEN", "");
        assert_eq!(secrets.hide("AKIA has hush/hush"), "AKIA has ***");
        assert_eq!(format!("{secrets:?}"), "***");
    }
}
