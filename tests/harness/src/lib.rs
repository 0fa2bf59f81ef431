//! For the scenario tests: a real nats-server and Postgres, a database and stream prefix a test, a proxy to cut links.
