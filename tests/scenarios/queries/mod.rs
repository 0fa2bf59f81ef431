//! The queries of the gateway: they use indexes, read only the requested days, and reveal no records of other
//! organizations.

mod isolation;
mod pages;
mod plans;
mod roles;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use harness::World;
use records::Kind;
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions};
use store::queries::{Page, Span};
use store::scoped_read::Scope;

use crate::world;

/// Midnight, `ago` days ago.
fn day(ago: i64) -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::days(1)).unwrap() - TimeDelta::days(ago)
}

/// Returns a world whose tables are filled by SQL, with partitions for these days.
async fn with_days(days: std::ops::Range<i64>) -> World {
    let world = world().without_setup().start().await;
    world.rows_were_dropped();
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    let partitions = Partitions::default();
    for ago in days {
        for &kind in Kind::ALL {
            if let Some(partition) = Partition::of(kind, day(ago)) {
                partitions.ensure(&mut connection, partition).await.unwrap();
            }
        }
        partitions.ensure(&mut connection, Partition::of_dead_letters(day(ago))).await.unwrap();
        partitions.ensure(&mut connection, Partition::of_metric_hours(day(ago))).await.unwrap();
    }
    connection.close().await.unwrap();
    world
}

/// Ends a world with dead letters that are in no stream.
async fn finish(world: World) {
    world.execute("TRUNCATE watchbook.dead_letters").await;
    world.finish([]).await;
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn of(organizations: &[&str]) -> Scope {
    Scope::Organizations(organizations.iter().map(|name| (*name).to_owned()).collect())
}

fn page(from: DateTime<Utc>, to: DateTime<Utc>, limit: u32) -> Page {
    Page { from, to, after: None, limit }
}

/// A page over the whole time.
fn whole() -> Page {
    page(day(100), Utc::now() + TimeDelta::days(1), 1_000)
}

fn span_of(page: &Page) -> Span {
    Span { from: page.from, to: page.to }
}
