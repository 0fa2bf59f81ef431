//! Running `watchbook` in a world.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::World;
use crate::worker::{Finished, Start, Watchbook};

impl World {
    /// Starts workers (`all`, or names separated by commas) and returns at once.
    pub fn spawn(&self, workers: &str) -> Watchbook {
        self.spawn_with(workers, &[])
    }

    /// Like [`World::spawn`], with settings that override the world's.
    pub fn spawn_with(&self, workers: &str, settings: &[(&str, &str)]) -> Watchbook {
        self.spawn_command(&["run", "--workers", workers], settings)
    }

    /// Starts any command that runs until it is stopped.
    pub fn spawn_command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Watchbook {
        self.spawn_as(&self.start_with(settings), arguments)
    }

    /// Starts a command that runs until it is stopped, without this world's servers and settings.
    pub fn spawn_bare(&self, arguments: &[&str]) -> Watchbook {
        self.spawn_as(&self.bare(), arguments)
    }

    /// Runs a command to its end, without this world's servers and settings.
    pub async fn run_bare(&self, arguments: &[&str]) -> Finished {
        self.bare().finish(arguments, "").await
    }

    fn bare(&self) -> Start {
        Start { environment: Vec::new(), ..self.start.clone() }
    }

    fn spawn_as(&self, start: &Start, arguments: &[&str]) -> Watchbook {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let watchbook = start.spawn(number, arguments);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.push((watchbook.name().to_owned(), watchbook.log_path().to_owned()));
        watchbook
    }

    /// Starts workers and waits until they are ready.
    pub async fn workers(&self, workers: &str) -> Watchbook {
        let watchbook = self.spawn(workers);
        watchbook.ready().await;
        watchbook
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, &[], "").await
    }

    /// Like [`World::run`], with settings that override the world's and with an input.
    pub async fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)], input: &str) -> Finished {
        self.start_with(settings).finish(arguments, input).await
    }

    fn start_with(&self, settings: &[(&str, &str)]) -> Start {
        let mut start = self.start.clone();
        // The later of two values of a variable counts.
        start.environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        start
    }
}
