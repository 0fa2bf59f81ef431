//! Tests tokens of an issuer that publishes its keys: rotation, outages, and unknown keys.

use std::time::Duration;

use futures::future::join_all;
use gateway::{KeyTimes, Keys};
use harness::{World, eventually};
use serde_json::{Value, json};

use crate::issuer::{Issuer, Pair};
use crate::log::Log;
use crate::test_gateway::{TestGateway, settings};
use crate::tokens::{claims, sign_with};

/// Too long to pass within a test.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
const NEVER_AGAIN: KeyTimes = KeyTimes { fresh_for: LONG, stale_for: LONG, at_most_every: LONG };
const ALWAYS_AGAIN: KeyTimes = KeyTimes { fresh_for: LONG, stale_for: LONG, at_most_every: Duration::ZERO };

async fn gateway(issuer: &Issuer, times: KeyTimes) -> TestGateway {
    let mut settings = settings();
    settings.keys = Keys::Published { url: issuer.url(), times };
    TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await
}

async fn status(gateway: &TestGateway, token: &str) -> u16 {
    let answer = gateway.get("/api/me", token).await;
    if answer.status != 200 {
        answer.problem(answer.status.as_u16());
    }
    answer.status.as_u16()
}

#[tokio::test]
async fn each_way_of_signing_is_that_of_its_key() {
    let pairs = [Pair::rsa(), Pair::ec(), Pair::ed()];
    let issuer = Issuer::start(&pairs).await;
    let gateway = gateway(&issuer, NEVER_AGAIN).await;
    let admin = claims("admin", &["*"]);
    for pair in &pairs {
        assert_eq!(status(&gateway, &pair.sign(&admin)).await, 200, "{}", pair.name);
        assert_eq!(status(&gateway, &pair.sign_as(Some("nobody's"), &admin)).await, 401);
        assert_eq!(status(&gateway, &pair.sign_as(None, &admin)).await, 401, "which of three keys, nobody says");
        for other in pairs.iter().filter(|other| other.name != pair.name) {
            assert_eq!(status(&gateway, &pair.sign_as(Some(other.name), &admin)).await, 401);
        }
        // A public key must not work as an HMAC secret, in any form in which an attacker may have it.
        let published = pair.published();
        let forms = [published["n"].as_str(), published["x"].as_str(), Some(&published.to_string())]
            .map(|form| form.map(str::to_owned));
        for form in forms.into_iter().flatten() {
            let header = jsonwebtoken::Header { kid: Some(pair.name.to_owned()), ..Default::default() };
            let key = jsonwebtoken::EncodingKey::from_secret(form.as_bytes());
            assert_eq!(status(&gateway, &jsonwebtoken::encode(&header, &admin, &key).unwrap()).await, 401);
            assert_eq!(status(&gateway, &sign_with(&admin, form.as_bytes())).await, 401);
        }
    }
    assert_eq!(issuer.asked(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn ed25519_has_two_names() {
    let (issuer, admin) = (Issuer::start(&[]).await, claims("admin", &["*"]));
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let renamed = |pair: &Pair, alg: &str| {
        let mut key = pair.published();
        key["alg"] = json!(alg);
        key
    };
    for named in ["EdDSA", "Ed25519"] {
        issuer.publish(vec![renamed(&Pair::ed(), named), Pair::ec().published(), Pair::rsa().published()]);
        for alg in ["EdDSA", "Ed25519"] {
            assert_eq!(status(&gateway, &Pair::ed().sign_named(alg, &admin)).await, 200, "{alg} by a key of {named}");
        }
        // A key id says nothing about the key, and the key nothing about other key ids.
        for alg in ["ed25519", "Ed448", "ES256", "HS256", "none", ""] {
            assert_eq!(status(&gateway, &Pair::ed().sign_named(alg, &admin)).await, 401, "{alg}");
        }
        for pair in [Pair::ec(), Pair::rsa()] {
            assert_eq!(status(&gateway, &pair.sign_named("Ed25519", &admin)).await, 401, "{}", pair.name);
        }
    }
    let asking = json!({ "alg": "Ed25519", "kid": "ed", "crit": ["b64"], "b64": false });
    assert_eq!(status(&gateway, &Pair::ed().sign_with_header(&asking, &admin)).await, 401);
    // A key that is too short is ignored, which is the issuer's fault only.
    let mut short = Pair::ed().published();
    short["x"] = json!("AAAA");
    issuer.publish(vec![short]);
    assert_eq!(status(&gateway, &Pair::next().sign(&admin)).await, 401, "the old keys are forgotten");
    assert_eq!(status(&gateway, &Pair::ed().sign_named("Ed25519", &admin)).await, 401);
    gateway.finish().await;
}

#[tokio::test]
async fn a_skipped_key_is_logged_once_for_each_change() {
    let (issuer, log) = (Issuer::start(&[]).await, Log::default());
    let _logging = log.listen();
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let mut encrypts = Pair::ec().published();
    encrypts["use"] = json!("enc");
    let tomorrow = json!({ "kty": "AKP", "kid": "of tomorrow", "alg": "ML-DSA-44", "pub": "AA" });
    let fetch = async |keys: Vec<Value>| {
        issuer.publish(keys);
        let asked = issuer.asked();
        assert_eq!(status(&gateway, &Pair::next().sign(&claims("admin", &["*"]))).await, 401);
        assert_eq!(issuer.asked(), asked + 1);
        log.lines("is skipped")
    };
    let is_about = |line: &str, kid: &str, reason: &str| {
        assert!(line.contains(&format!("kid=\"{kid}\"")) && line.contains(reason), "{line}");
    };
    let first = fetch(vec![Pair::ed().published(), encrypts.clone(), tomorrow.clone()]).await;
    assert_eq!(first.len(), 2, "{first:?}");
    is_about(&first[0], "ec", "not for signatures");
    is_about(&first[1], "of tomorrow", "ML-DSA-44");
    for _ in 0..3 {
        let again = fetch(vec![tomorrow.clone(), encrypts.clone(), Pair::ed().published()]).await;
        assert_eq!(again.len(), 2, "nothing has changed: {again:?}");
    }
    encrypts["use"] = json!("wrap");
    let changed = fetch(vec![encrypts, tomorrow]).await;
    assert_eq!(changed.len(), 3, "{changed:?}");
    is_about(&changed[2], "ec", "wrap");
    gateway.finish().await;
}

#[tokio::test]
async fn keys_that_must_not_be_used_are_none() {
    let issuer = Issuer::start(&[]).await;
    let (mut encrypts, mut other, shared) =
        (Pair::ed().published(), Pair::ec().published(), b"a shared secret among the public keys");
    encrypts["use"] = json!("enc");
    other["alg"] = json!("ES384");
    let secret = json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": "YSBzaGFyZWQgc2VjcmV0IGFtb25nIHRoZSBwdWJsaWMga2V5cw" });
    issuer.publish(vec![encrypts, other, secret]);
    let gateway = gateway(&issuer, NEVER_AGAIN).await;
    let admin = claims("admin", &["*"]);
    for token in [Pair::ed().sign(&admin), Pair::ec().sign(&admin), sign_with(&admin, shared)] {
        assert_eq!(status(&gateway, &token).await, 401);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn keys_that_nobody_understands_leave_the_others_usable() {
    let issuer = Issuer::start(&[]).await;
    let strange = [
        json!({ "kty": "AKP", "kid": "of tomorrow", "alg": "ML-DSA-44", "pub": "AA" }),
        json!({ "kty": "EC", "kid": "of elsewhere", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "kid": "half", "e": "AQAB" }),
        json!({ "kty": "RSA", "kid": "odd", "n": "AA", "e": "AQAB", "use": ["sig"], "alg": 7, "key_ops": "verify" }),
        json!({ "kty": "RSA", "kid": 7, "n": "AA", "e": "AQAB" }),
        json!({ "kid": "nothing" }),
        json!("no key"),
    ];
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let token = Pair::ed().sign(&claims("admin", &["*"]));
    for strange in strange {
        issuer.publish(vec![strange.clone(), Pair::ed().published()]);
        assert_eq!(status(&gateway, &token).await, 200, "{strange}");
        issuer.publish(vec![]);
        assert_eq!(status(&gateway, &Pair::next().sign(&claims("admin", &["*"]))).await, 401, "they are forgotten");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn all_who_wait_are_content_with_one_fetch() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let token = Pair::ed().sign(&claims("admin", &["*"]));
    let answers = join_all((0..32).map(|_| status(&gateway, &token))).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(issuer.asked(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn a_new_key_works_with_its_first_token_and_an_old_one_no_more() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let admin = claims("admin", &["*"]);
    assert_eq!(status(&gateway, &Pair::ed().sign_as(None, &admin)).await, 200, "the only key needs no name");
    issuer.publish(vec![Pair::next().published()]);
    assert_eq!(status(&gateway, &Pair::next().sign(&admin)).await, 200);
    assert_eq!(status(&gateway, &Pair::ed().sign(&admin)).await, 401);
    gateway.finish().await;
}

#[tokio::test]
async fn invented_keys_do_not_make_the_issuer_be_asked() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    let gateway = gateway(&issuer, NEVER_AGAIN).await;
    let admin = claims("admin", &["*"]);
    for invented in 0..20 {
        assert_eq!(status(&gateway, &Pair::ed().sign_as(Some(&invented.to_string()), &admin)).await, 401);
    }
    assert_eq!(status(&gateway, &Pair::ed().sign(&admin)).await, 200);
    assert_eq!(issuer.asked(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn known_keys_are_used_while_the_issuer_is_away() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    let times = KeyTimes { fresh_for: Duration::ZERO, stale_for: LONG, at_most_every: Duration::ZERO };
    let gateway = gateway(&issuer, times).await;
    let admin = claims("admin", &["*"]);
    assert_eq!(status(&gateway, &Pair::ed().sign(&admin)).await, 200);
    issuer.is_away(true);
    let asked = issuer.asked();
    eventually("somebody fetches beside the requests", async || {
        assert_eq!(status(&gateway, &Pair::ed().sign(&admin)).await, 200);
        if issuer.asked() > asked + 1 { Ok(()) } else { Err(issuer.asked().to_string()) }
    })
    .await;
    // During an outage an unknown key is neither accepted nor rejected as invalid.
    assert_eq!(status(&gateway, &Pair::next().sign(&admin)).await, 503);
    gateway.finish().await;
}

#[tokio::test]
async fn a_failed_fetch_calls_nobody_a_liar_until_the_next_one() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    let gateway = gateway(&issuer, NEVER_AGAIN).await;
    issuer.is_away(true);
    let token = Pair::ed().sign(&claims("admin", &["*"]));
    for _ in 0..3 {
        assert_eq!(status(&gateway, &token).await, 503);
    }
    assert_eq!(issuer.asked(), 1);
    gateway.finish().await;
}

#[tokio::test]
async fn without_any_keys_nobody_is_called_a_liar() {
    let issuer = Issuer::start(&[Pair::ed()]).await;
    issuer.is_away(true);
    let gateway = gateway(&issuer, ALWAYS_AGAIN).await;
    let token = Pair::ed().sign(&claims("admin", &["*"]));
    let answer = gateway.get("/api/me", &token).await;
    answer.problem(503);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    issuer.is_away(false);
    assert_eq!(status(&gateway, &token).await, 200);
    gateway.finish().await;
}
