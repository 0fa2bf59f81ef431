//! A day with rows that cannot be printed is archived and restored.

use chrono::NaiveDate;
use harness::World;

use super::fixtures::{audited, day, fill, run_of, world_with};
use crate::long_numbers::hostile;

/// Sets the JSON of one row after the other to values that cannot be printed.
async fn spoil(world: &World, table: &str, column: &str, day: NaiveDate) {
    for (n, json) in hostile().into_iter().enumerate() {
        let one = format!(
            "UPDATE {table} SET {column} = {json} WHERE created_at >= '{day}' AND id =
                 (SELECT id FROM {table} WHERE created_at >= '{day}' ORDER BY created_at, id LIMIT 1 OFFSET {n})"
        );
        assert_eq!(world.execute(&one).await, 1);
    }
}

#[tokio::test]
async fn a_day_with_long_numbers_is_archived_and_comes_back_the_same() {
    let world = world_with(&[("WATCHBOOK_RETENTION__ARCHIVE", "archive")]).await;
    let tables = [
        ("events", "watchbook.event_logs", "payload", day(40)),
        ("executions", "watchbook.sandbox_execution_logs", "attributes", day(100)),
    ];
    for (kind, table, column, day) in tables {
        fill(&world, kind, day, 60).await;
        spoil(&world, table, column, day).await;
        world.execute(&format!("CREATE TABLE public.kept_{kind} AS SELECT * FROM {table}")).await;
    }
    run_of(&world).await;
    for (kind, table, column, day) in tables {
        assert_eq!(rows_of(&world, table).await, 0, "{kind}");
        world.run(&["retention", "restore", kind, &day.to_string(), "--by", "ann"]).await.succeeded();
        assert_eq!(rows_of(&world, table).await, 60, "{kind}");
        // Compared column by column and not as text: the values, and also the scale of numbers.
        let same = format!(
            "SELECT count(*) FROM {table} AS now JOIN public.kept_{kind} AS kept USING (id)
              WHERE now.{column} = kept.{column} AND now.created_at = kept.created_at
                AND watchbook.digits_printed(now.{column}) = watchbook.digits_printed(kept.{column})"
        );
        assert_eq!(world.count(&same).await, 60, "{kind}");
    }
    for (kind, ..) in tables {
        world.execute(&format!("DROP TABLE public.kept_{kind}")).await;
    }
    let worker = world.workers("audit").await;
    audited(&world, "retention.run", 1).await;
    world.finish([worker]).await;
}

async fn rows_of(world: &World, table: &str) -> i64 {
    world.count(&format!("SELECT count(*) FROM {table}")).await
}
