//! The organization: the subject decides, and the body may repeat it.

use records::Kind;
use serde_json::{Value, json};

use crate::support::Sent;

#[test]
fn the_organization_is_the_subjects() {
    for &kind in Kind::ALL {
        for body in [
            json!({}),
            json!({ "organization_id": null }),
            json!({ "organization_id": "acme" }),
            json!({ "organizationId": "acme" }),
        ] {
            let stored = Sent::with(kind, body).stored();
            assert_eq!(stored.get("organization_id"), json!("acme"));
            assert_eq!(stored.organization.as_deref(), Some("acme"));
            assert_eq!(stored.get("attributes"), json!({}), "said once is enough");
        }
    }
}

#[test]
fn an_underscore_means_no_organization() {
    for &kind in Kind::ALL {
        for body in [json!({}), json!({ "organization_id": null })] {
            let stored = Sent::with(kind, body).organization(None).stored();
            assert_eq!(stored.get("organization_id"), Value::Null);
            assert_eq!(stored.organization, None);
        }
    }
}

#[test]
fn a_body_that_names_another_organization_is_refused() {
    let mismatch = "organization_mismatch:organization_id";
    for &kind in Kind::ALL {
        for name in ["organization_id", "organizationId"] {
            for other in ["globex", "Acme", "acme ", "", "_"] {
                assert_eq!(Sent::with(kind, json!({ name: other })).refused(), mismatch, "{kind} {other:?}");
            }
            for any in ["acme", "", "_"] {
                let sent = Sent::with(kind, json!({ name: any })).organization(None);
                assert_eq!(sent.refused(), mismatch, "{kind}: {any:?} under `_`");
            }
        }
    }
}

#[test]
fn an_organization_that_is_no_string_is_refused() {
    for value in [json!(7), json!(["acme"]), json!({ "id": "acme" }), json!(false)] {
        assert_eq!(
            Sent::with(Kind::Events, json!({ "organization_id": value })).refused(),
            "invalid_field:organization_id"
        );
    }
}

#[test]
fn an_organization_has_1_to_64_plain_characters() {
    let longest = "aZ09_-".repeat(10) + "abcd";
    let stored = Sent::with(Kind::Events, json!({})).subject(&format!("watchbook.events.{longest}.x")).stored();
    assert_eq!(stored.organization.as_deref(), Some(longest.as_str()));
    for bad in [format!("{longest}e"), String::new(), "größe".to_owned(), "a b".to_owned(), "a$b".to_owned()] {
        let sent = Sent::with(Kind::Events, json!({})).subject(&format!("watchbook.events.{bad}.x"));
        assert_eq!(sent.refused(), "invalid_field:organization_id", "{bad:?}");
    }
}

#[test]
fn only_a_subject_of_the_kind_under_the_prefix_is_read() {
    for &kind in Kind::ALL {
        for subject in [
            "watchbook".to_owned(),
            "watchbook.".to_owned(),
            format!("watchbook.{kind}s.acme.x"),
            format!("watchbook.{}.acme.x", kind.name().to_uppercase()),
            format!("{kind}.acme.x"),
            format!("other.{kind}.acme.x"),
            format!("watchbook2.{kind}.acme.x"),
            "watchbook.alerts.acme.rule".to_owned(),
        ] {
            assert_eq!(Sent::with(kind, json!({})).subject(&subject).refused(), "unknown_kind:", "{subject}");
        }
        assert_eq!(
            Sent::with(kind, json!({})).subject(&format!("watchbook.{kind}")).refused(),
            "invalid_field:organization_id"
        );
        Sent::with(kind, json!({})).subject(&format!("watchbook.{kind}.acme")).stored();
        Sent::with(kind, json!({})).subject(&format!("watchbook.{kind}.acme.a.b.c")).stored();
    }
}
