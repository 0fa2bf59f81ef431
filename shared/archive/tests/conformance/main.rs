//! The conformance suite for both types of archive: a directory, and a bucket on a real S3 server.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports a failure by a panic")]

mod both;
mod errors;
mod rows;
mod world;

/// Runs every case on every type of archive.
macro_rules! everywhere {
    ($($case:ident)*) => {
        mod folder {
            $(#[tokio::test] async fn $case() { super::both::$case(&super::world::World::folder()).await; })*
        }
        mod bucket {
            $(#[tokio::test] async fn $case() { super::both::$case(&super::world::World::bucket().await).await; })*
        }
    };
}

everywhere! {
    a_check_leaves_nothing
    a_day_comes_back_as_it_was
    an_empty_day_is_a_day
    content_says_that_a_day_is_archived
    rows_that_fail_midway_leave_nothing
    rows_that_end_within_a_line_leave_nothing
    a_write_that_is_dropped_leaves_nothing
    a_changed_byte_is_found
    a_truncated_file_is_found
    a_file_that_grew_is_found
    a_missing_file_is_found
    a_wrong_manifest_is_found
    a_second_part_stands_beside_the_first
    a_part_is_never_written_over
    rows_without_a_manifest_are_no_part
    a_manifest_of_a_newer_release_is_refused
    a_manifest_in_anothers_place_is_refused
}
