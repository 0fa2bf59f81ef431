//! Settings as people write them, and the problems reported for wrong ones.

use runtime::config::Sources;

use super::*;

mod receivers;
mod rules;

fn environment(name: &str) -> Option<String> {
    let values = [("URL", "https://hooks.example/secret"), ("KEY", "k"), ("BAD", "no url"), ("EMPTY", " ")];
    values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn load(text: &str) -> Result<Alerting, Vec<Problem>> {
    let config: Config = toml::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    Alerting::of(&config, &environment)
}

fn rule(text: &str) -> Rule {
    let alerting =
        load(&format!("[[rules]]\nname = 'r'\n{text}")).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    Rule::clone(&alerting.rules[0])
}

/// Returns the problems, as `key: message`.
fn problems(text: &str) -> Vec<String> {
    load(text).map(drop).expect_err(text).iter().map(ToString::to_string).collect()
}

#[test]
fn names_are_tokens_and_unique_and_all_problems_are_found_at_once() {
    let good = "source = 'errors'\nwindow = '5m'\nthreshold = '100'\n";
    let found = problems(&format!(
        "[[rules]]\nname = 'a.b'\n{good}[[rules]]\nname = 'x'\n{good}[[rules]]\nname = 'x'\nsource = 'errors'\nwindow = '0s'\n\
         [[receivers]]\nname = 'r r'\nnats = {{}}\n[[routes]]\nto = ['nobody']\n"
    ));
    let expected = [
        "rules.0.name: `a.b` cannot be a name",
        "rules.2.window: whole minutes",
        "rules.2.threshold: missing",
        "rules.2.name: the rule 2 has the same name",
        "receivers.0.name: `r r` cannot be a name",
        "routes.0.to: no receiver has the name `nobody`; there is `r r`",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} {expected}");
    }
}

#[test]
fn problems_stand_at_their_line() {
    let text = "[[rules]]\nname = 'a'\nsource = 'errors'\nwindow = '5m'\nthreshold = '1'\n\n[[rules]]\nname = 'b'\nsource = 'errors'\n\
                window = '5m'\nthreshold = '-1'\nannotations = { x = 'y', z = '{{ z }}' }\n";
    let sources = Sources { file: Some(("w.toml".into(), text.to_owned())), environment: Vec::new() };
    let check = |config: &Config| match Alerting::of(config, &environment) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| (problem.key, problem.message)).collect(),
    };
    let error = sources.load_checked(check).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].starts_with("w.toml:12: rules.1.annotations.z: names `z`"), "{error}");
    assert!(lines[1].starts_with("w.toml:11: rules.1.threshold: always true"), "{error}");
}

#[test]
fn a_fingerprint_is_that_of_the_rules() {
    let one = "[[rules]]\nname = 'a'\nsource = 'errors'\nwindow = '5m'\nthreshold = '1'\n";
    let fingerprint = |text: &str| load(text).unwrap().fingerprint();
    assert_eq!(fingerprint(one), fingerprint(one));
    assert_ne!(fingerprint(one), fingerprint(&one.replace("'1'", "'2'")));
    assert_ne!(fingerprint(one), fingerprint(&format!("{one}[[receivers]]\nname = 'a'\nnats = {{}}\n")));
    let described = load(one).unwrap().describe();
    assert_eq!(described[0]["fires_when"], "more than 1 errors within 5 min");
}
