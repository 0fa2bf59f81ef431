#![allow(missing_docs)]
#![allow(clippy::all, clippy::unwrap_used, clippy::print_stdout)]
use publisher::{Encoded, Publisher};
use records::Kind;
use std::time::Instant;
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let n: usize = a[1].parse().unwrap();
    let p = Publisher::builder().batch_records(a[2].parse().unwrap()).batches_in_flight(a[3].parse().unwrap());
    let p = p.connect(a[0].clone()).await.unwrap();
    let body = bytes::Bytes::from(vec![b'x'; 378]);
    let m: Vec<Encoded> = (0..n).map(|_| Encoded::new("watchbook.events.acme.build.finished", body.clone())).collect();
    let t = Instant::now();
    p.publish_encoded(Kind::Events, m).await.unwrap();
    println!("batch {} flight {}: {:.0}/s", a[2], a[3], n as f64 / t.elapsed().as_secs_f64());
}
