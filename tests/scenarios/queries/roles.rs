//! The role under which queries run.

use harness::World;
use sqlx::Connection;
use sqlx::postgres::PgPoolOptions;
use store::PgPool;
use store::queries::events::{self, EventFilter};
use store::scoped_read::{NoReader, Reader, Scope};

use super::{finish, of, whole, with_days};
use crate::world;

#[tokio::test]
async fn a_reading_is_bound_and_a_connection_is_not_after_it() {
    let world = with_days(0..1).await;
    let pool = PgPoolOptions::new().max_connections(1).connect(world.database_url()).await.unwrap();
    let reader = Reader::new(pool.clone());
    let mine = "SELECT current_user::text || coalesce(current_setting('watchbook.organizations', true), '') || current_setting('transaction_read_only') || current_setting('statement_timeout')";
    let before: String = sqlx::query_scalar(mine).fetch_one(&pool).await.unwrap();
    for is_ended in [true, false] {
        let mut transaction = reader.begin(&of(&["acme"])).await.unwrap();
        let bound: String = sqlx::query_scalar(mine).fetch_one(transaction.connection()).await.unwrap();
        assert_eq!(bound, "watchbook_readeracmeon10s");
        if is_ended {
            transaction.end().await.unwrap();
        } else {
            drop(transaction);
        }
        let after: String = sqlx::query_scalar(mine).fetch_one(&pool).await.unwrap();
        assert_eq!(after, before);
    }
    pool.close().await;
    finish(world).await;
}

/// Returns a pool of a user who owns a database and has no other privileges.
async fn plain_owner(world: &World, name: &str) -> PgPool {
    world.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'")).await;
    world.execute(&format!("CREATE DATABASE {name} OWNER {name}")).await;
    let url = world.database_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let (_, address) = server.rsplit_once('@').unwrap();
    let url = format!("postgres://{name}:{name}@{address}/{name}");
    let mut connection = store::Database::new(&url, "test").unwrap().connect("migrate").await.unwrap();
    store::migrations::run(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
}

#[tokio::test]
async fn an_owner_who_may_make_no_role_is_told_what_to_run() {
    let world = world().without_setup().own_postgres().start().await;
    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    let pool = plain_owner(&world, "plain").await;
    let reader = Reader::new(pool.clone());
    for statement in ["CREATE ROLE watchbook_reader NOLOGIN ROLE plain", "GRANT watchbook_reader TO plain"] {
        let refused = reader.begin(&Scope::All).await.unwrap_err();
        let sqlx::Error::Configuration(refused) = refused else { panic!("{refused}") };
        assert_eq!(refused.downcast_ref(), Some(&NoReader { statement: statement.to_owned() }));
        assert!(refused.to_string().ends_with(statement), "{refused}");
        assert!(reader.prepare().await.unwrap_err().to_string().contains(statement));
        if statement.starts_with("CREATE") {
            world.execute("CREATE ROLE watchbook_reader NOLOGIN").await;
        } else {
            world.execute(statement).await;
        }
    }
    // From then on it works without a restart.
    let mut transaction = reader.begin(&Scope::All).await.unwrap();
    assert!(events::list(&mut transaction, &EventFilter::default(), &whole()).await.unwrap().is_empty());
    transaction.end().await.unwrap();
    reader.prepare().await.unwrap();
    pool.close().await;
    finish(world).await;
}

#[tokio::test]
async fn setup_and_doctor_say_what_a_superuser_has_to_run() {
    const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");
    let world = world().own_postgres().start().await;
    let roles = async || world.count("SELECT count(*) FROM pg_roles WHERE rolname = 'watchbook_reader'").await;
    let of_questions = async |settings: &[(&str, &str)]| {
        let findings = world.run_with(&["doctor", "--json"], settings, "").await.json();
        let found = findings.as_array().unwrap().iter().find(|finding| finding["subject"] == "queries");
        found.unwrap_or_else(|| panic!("{findings}")).clone()
    };
    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    // If the user may create the role, `doctor` reports no problem and does not create it; `setup` does.
    assert_eq!(of_questions(&[]).await["verdict"], "fine");
    assert_eq!(roles().await, 0);
    world.run(&["setup"]).await.succeeded().prints("role watchbook_reader: as it should be");
    assert_eq!(roles().await, 1);

    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    let pool = plain_owner(&world, "plain").await;
    let options = pool.connect_options();
    let url = format!("postgres://plain:plain@{}:{}/plain", options.get_host(), options.get_port());
    let plain = [("DATABASE_URL", url.as_str())];
    for statement in ["CREATE ROLE watchbook_reader NOLOGIN ROLE plain", "GRANT watchbook_reader TO plain"] {
        let setup = world.run_with(&["setup"], &plain, "").await;
        setup.succeeded().prints("role watchbook_reader: differs").prints(&format!("`{statement}`"));
        for (settings, verdict) in [(vec![plain[0]], "warning"), (vec![plain[0], SECRET], "wrong")] {
            let finding = of_questions(&settings).await;
            assert_eq!(finding["verdict"], verdict, "{finding}");
            assert!(finding["mend"].as_str().unwrap().contains(statement), "{finding}");
        }
        for command in [&["audit", "export"][..], &["replay", "events", "--to", "x"]] {
            let refused = world.run_with(command, &plain, "").await;
            assert_eq!(refused.ended_with(1).prints(statement).output, "", "{command:?}");
        }
        if statement.starts_with("CREATE") {
            world.execute("CREATE ROLE watchbook_reader NOLOGIN").await;
        } else {
            world.execute(statement).await;
        }
    }
    world.run_with(&["setup"], &plain, "").await.succeeded().prints("as it should be").does_not_print("superuser");
    assert_eq!(of_questions(&[plain[0], SECRET]).await["verdict"], "fine");
    pool.close().await;
    world.finish([]).await;
}
