//! Good and bad tokens.

use chrono::Utc;
use gateway::auth::Role;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::test_gateway::SECRET;

/// More than the allowed clock difference, so that nothing depends on when the tests run.
const FAR: i64 = 3_600;

pub(crate) fn claims(role: &str, organizations: &[&str]) -> Value {
    json!({ "sub": format!("a {role}"), "iss": "watchbook", "aud": "watchbook", "exp": Utc::now().timestamp() + FAR,
            "role": role, "orgs": organizations })
}

pub(crate) fn sign(claims: &Value) -> String {
    sign_with(claims, SECRET.as_bytes())
}

pub(crate) fn sign_with(claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// Returns a token with a role for the organization `acme`.
pub(crate) fn of(role: Role) -> String {
    sign(&claims(role.name(), &["acme"]))
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims("admin", &["*"]);
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = claims("admin", &["*"]);
    claims.as_object_mut().unwrap().remove(member);
    claims
}

/// Returns a token of these parts, without a signature.
fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    use base64::Engine;
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

/// Returns a token for every way in which one can be bad, with a name.
pub(crate) fn broken() -> Vec<(String, String)> {
    let good = sign(&claims("admin", &["*"]));
    let (head, _) = good.rsplit_once('.').unwrap();
    let now = Utc::now().timestamp();
    let admin = claims("admin", &["*"]);
    let mut broken = vec![
        ("garbage".to_owned(), "garbage".to_owned()),
        ("three dots".to_owned(), "a.b.c.d".to_owned()),
        ("no signature".to_owned(), format!("{head}.")),
        ("signed by somebody else".to_owned(), sign_with(&admin, b"another secret that has 32 bytes and more")),
        ("alg none".to_owned(), unsigned(&json!({ "alg": "none", "typ": "JWT" }), &admin, "")),
        ("alg None".to_owned(), unsigned(&json!({ "alg": "None" }), &admin, "")),
        ("no alg".to_owned(), unsigned(&json!({ "typ": "JWT" }), &admin, "")),
        ("oversize".to_owned(), sign(&with("padding", json!("x".repeat(9_000))))),
        ("claims that are none".to_owned(), sign(&json!([1]))),
    ];
    let hs512 =
        jsonwebtoken::encode(&Header::new(Algorithm::HS512), &admin, &EncodingKey::from_secret(SECRET.as_bytes()));
    broken.push(("HS512".to_owned(), hs512.unwrap()));
    for claim in ["sub", "exp", "iss", "aud", "role"] {
        broken.push((format!("no {claim}"), sign(&without(claim))));
    }
    for (claim, value) in [
        ("iss", json!("somebody")),
        ("iss", json!("")),
        ("aud", json!("somebody")),
        ("aud", json!(["somebody", "else"])),
        ("exp", json!(now - FAR)),
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(null)),
        ("exp", json!((now + FAR) * 1_000)),
        ("nbf", json!("now")),
        ("iat", json!(-0.5)),
        ("iat", json!("2026-01-01")),
        ("nbf", json!(now + FAR)),
        ("role", json!("god")),
        ("role", json!("Admin")),
        ("role", json!(["admin"])),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("x".repeat(300))),
        ("orgs", json!("acme umbra")),
        ("orgs", json!(7)),
        ("orgs", json!(["a b"])),
        ("orgs", json!([1])),
    ] {
        broken.push((format!("{claim} = {value}").chars().take(40).collect(), sign(&with(claim, value))));
    }
    broken
}
